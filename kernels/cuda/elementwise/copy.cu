// Copying elements of W bytes (1, 2, 4, 8, 16) from and to strided places: ONNX's Expand, Tile,
// Slice, Concat, Split, Transpose. The host widens the elements where stretches of them move together.
#include "walk.cuh"

typedef Word<W>::Type Bits;

/// Side of the tiles of `transpose`: rows of 128 bytes for 2 bytes and more.
#define TILE (W <= 2 ? 64 : 32)
#define LINES 8

/// y[walk 1] = x[walk 0] for `n` elements.
extern "C" __global__ void copy(const Bits *x, Bits *y, u32_t n, const Walk<2> walk) {
    begin();
    u32_t i = thread_number();
    if (i >= n) return;
    i64_t at[2];
    locate(walk, i, at);
    y[at[1]] = x[at[0]];
}

/// Transposes matrices: x has `columns` columns with a step of 1 between them and `row_step`
/// between rows, y the rows with a step of 1 and `column_step` between columns. `walk` says where the
/// matrix of blockIdx.z begins. A tile goes through shared memory, so that both sides are read
/// and written along their rows.
extern "C" __global__ void __launch_bounds__(32 * LINES)
    transpose(const Bits *x, Bits *y, u32_t rows, u32_t columns, i64_t row_step, i64_t column_step,
              u32_t n_matrices, const Walk<2> walk) {
    begin();
    __shared__ Bits tile[TILE][TILE + 1];
    u32_t column = blockIdx.x * TILE, row = blockIdx.y * TILE;
    for (u32_t matrix = blockIdx.z; matrix < n_matrices; matrix += gridDim.z) {
        i64_t at[2];
        locate(walk, matrix, at);
        for (u32_t r = threadIdx.y; r < TILE && row + r < rows; r += LINES)
            for (u32_t c = threadIdx.x; c < TILE && column + c < columns; c += 32)
                tile[r][c] = x[at[0] + (row + r) * row_step + column + c];
        __syncthreads();
        for (u32_t c = threadIdx.y; c < TILE && column + c < columns; c += LINES)
            for (u32_t r = threadIdx.x; r < TILE && row + r < rows; r += 32)
                y[at[1] + (column + c) * column_step + row + r] = tile[r][c];
        __syncthreads();
    }
}

/// As `PadPlan` in copy.rs: axes from the innermost on.
struct PadPlan {
    i64_t steps[MAX_AXES];
    i64_t before[MAX_AXES];
    i64_t sizes[MAX_AXES];
    u32_t padded[MAX_AXES];
    u32_t n_axes;
    u32_t mode;
};

enum { CONSTANT, EDGE, REFLECT, WRAP };

static __device__ i64_t remainder(i64_t a, i64_t n) {
    i64_t rest = a % n;
    return rest < 0 ? rest + n : rest;
}

/// The index on an axis of `size` elements that position `i` shows; out of bounds for the fill value.
static __device__ i64_t shown(u32_t mode, i64_t i, i64_t size) {
    if (size == 0) return -1;
    if (mode == EDGE) return min(max(i, 0ll), size - 1);
    if (mode == WRAP) return remainder(i, size);
    if (mode == REFLECT) {
        if (size == 1) return 0;
        i64_t phase = remainder(i, 2 * (size - 1));
        return min(phase, 2 * (size - 1) - phase);
    }
    return i;
}

/// ONNX's Pad: y dense with `n` elements, `fill` a pointer to one element, or null for 0.
extern "C" __global__ void pad(const Bits *x, const Bits *fill, Bits *y, u32_t n, const PadPlan plan) {
    begin();
    u32_t index = thread_number();
    if (index >= n) return;
    u32_t i = index;
    i64_t at = 0;
    bool inside = true;
#pragma unroll
    for (int axis = 0; axis < MAX_AXES; axis++) {
        if (axis >= plan.n_axes) break;
        u32_t rest = i / plan.padded[axis];
        i64_t from = shown(plan.mode, (i64_t)(i - rest * plan.padded[axis]) - plan.before[axis],
                           plan.sizes[axis]);
        inside = inside && from >= 0 && from < plan.sizes[axis];
        at += from * plan.steps[axis];
        i = rest;
    }
    y[index] = inside ? x[at] : fill ? *fill : Bits{};
}

/// ONNX's Trilu on dense matrices of `columns` columns: elements off the kept triangle become 0.
/// `diagonal` is a pointer to one i64, or null for 0.
extern "C" __global__ void trilu(const Bits *x, const i64_t *diagonal, Bits *y, u32_t n, u32_t rows,
                                 u32_t columns, int upper) {
    begin();
    u32_t i = thread_number();
    if (i >= n) return;
    i64_t distance = (i64_t)(i % columns) - (i64_t)(i / columns % rows) - (diagonal ? *diagonal : 0);
    y[i] = (upper ? distance >= 0 : distance <= 0) ? x[i] : Bits{};
}
