// Copying elements of W bytes (1, 2, 4, 8, 16) from and to strided places: ONNX's Expand, Tile,
// Slice, Concat, Split, Transpose. The host widens the elements where stretches of them move together.
#include "walk.cuh"

typedef Word<W>::Type Bits;

/// Side of the tiles of `transpose`: rows of 128 bytes for 2 bytes and more.
#define TILE (W <= 2 ? 64 : 32)
#define LINES 8

/// y[walk 1] = x[walk 0] for `n` elements.
extern "C" __global__ void copy(const Bits *x, Bits *y, uint32_t n, const Walk<2> walk) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    int64_t at[2];
    locate(walk, i, at);
    y[at[1]] = x[at[0]];
}

/// Transposes matrices: x has `columns` columns with a step of 1 between them and `row_step`
/// between rows, y the rows with a step of 1 and `column_step` between columns. `walk` says where the
/// matrix of blockIdx.z begins. A tile goes through shared memory, so that both sides are read
/// and written along their rows.
extern "C" __global__ void __launch_bounds__(32 * LINES)
    transpose(const Bits *x, Bits *y, uint32_t rows, uint32_t columns, int64_t row_step, int64_t column_step,
              uint32_t n_matrices, const Walk<2> walk) {
    begin();
    __shared__ Bits tile[TILE][TILE + 1];
    uint32_t column = blockIdx.x * TILE, row = blockIdx.y * TILE;
    for (uint32_t matrix = blockIdx.z; matrix < n_matrices; matrix += gridDim.z) {
        int64_t at[2];
        locate(walk, matrix, at);
        for (uint32_t r = threadIdx.y; r < TILE && row + r < rows; r += LINES)
            for (uint32_t c = threadIdx.x; c < TILE && column + c < columns; c += 32)
                tile[r][c] = x[at[0] + (row + r) * row_step + column + c];
        __syncthreads();
        for (uint32_t c = threadIdx.y; c < TILE && column + c < columns; c += LINES)
            for (uint32_t r = threadIdx.x; r < TILE && row + r < rows; r += 32)
                y[at[1] + (column + c) * column_step + row + r] = tile[r][c];
        __syncthreads();
    }
}

/// As `PadPlan` in copy.rs: axes from the innermost on.
struct PadPlan {
    int64_t steps[MAX_AXES];
    int64_t before[MAX_AXES];
    int64_t sizes[MAX_AXES];
    uint32_t padded[MAX_AXES];
    uint32_t n_axes;
    uint32_t mode;
};

enum { CONSTANT, EDGE, REFLECT, WRAP };

static __device__ int64_t remainder(int64_t a, int64_t n) {
    int64_t rest = a % n;
    return rest < 0 ? rest + n : rest;
}

/// The index on an axis of `size` elements that position `i` shows; out of bounds for the fill value.
static __device__ int64_t shown(uint32_t mode, int64_t i, int64_t size) {
    if (size == 0) return -1;
    if (mode == EDGE) return min(max(i, 0ll), size - 1);
    if (mode == WRAP) return remainder(i, size);
    if (mode == REFLECT) {
        if (size == 1) return 0;
        int64_t phase = remainder(i, 2 * (size - 1));
        return min(phase, 2 * (size - 1) - phase);
    }
    return i;
}

/// ONNX's Pad: y dense with `n` elements, `fill` a pointer to one element, or null for 0.
extern "C" __global__ void pad(const Bits *x, const Bits *fill, Bits *y, uint32_t n, const PadPlan plan) {
    begin();
    uint32_t index = thread_number();
    if (index >= n) return;
    uint32_t i = index;
    int64_t at = 0;
    bool inside = true;
#pragma unroll
    for (int axis = 0; axis < MAX_AXES; axis++) {
        if (axis >= plan.n_axes) break;
        uint32_t rest = i / plan.padded[axis];
        int64_t from = shown(plan.mode, (int64_t)(i - rest * plan.padded[axis]) - plan.before[axis],
                           plan.sizes[axis]);
        inside = inside && from >= 0 && from < plan.sizes[axis];
        at += from * plan.steps[axis];
        i = rest;
    }
    y[index] = inside ? x[at] : fill ? *fill : Bits{};
}

/// ONNX's Trilu on dense matrices of `columns` columns: elements off the kept triangle become 0.
/// `diagonal` is a pointer to one i64, or null for 0.
extern "C" __global__ void trilu(const Bits *x, const int64_t *diagonal, Bits *y, uint32_t n, uint32_t rows,
                                 uint32_t columns, int upper) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    int64_t distance = (int64_t)(i % columns) - (int64_t)(i / columns % rows) - (diagonal ? *diagonal : 0);
    y[i] = (upper ? distance >= 0 : distance <= 0) ? x[i] : Bits{};
}
