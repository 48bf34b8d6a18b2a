// ONNX's reductions of elements of type A over any axes.
#include "lanes.cuh"
#include "walk.cuh"

typedef Number<A>::Wide Wide;

/// In the order of `Reduce` in reduce.rs.
enum { SUM, MEAN, LARGEST, SMALLEST, PRODUCT, SUM_SQUARE, L1, L2 };

static __device__ Wide square(Wide x) { return x * x; }
static __device__ float root(float x) { return sqrtf(x); }
static __device__ int64_t root(int64_t x) { return (int64_t)sqrt((double)x); }

/// The result of reducing nothing, of the least and largest numbers `low` and `high`.
static __device__ Wide start(int op, Wide low, Wide high) {
    return op == PRODUCT ? 1 : op == LARGEST ? low : op == SMALLEST ? high : 0;
}

static __device__ Wide combined(int op, Wide a, Wide b) {
    switch (op) {
        case LARGEST: return is_nan(a) || a > b ? a : b;
        case SMALLEST: return is_nan(a) || a < b ? a : b;
        case PRODUCT: return a * b;
        default: return a + b;
    }
}

static __device__ Wide prepared(int op, Wide x) {
    return op == SUM_SQUARE || op == L2 ? square(x) : op == L1 && x < 0 ? -x : x;
}

static __device__ Wide finished(int op, Wide x, uint32_t count) {
    if (op == MEAN) return Number<A>::is_float || count ? x / (Wide)count : 0;
    return op == L2 ? root(x) : x;
}

struct Range {
    Wide low, high;
};

/// As `low` and `high` of what A holds.
static __device__ Range range() {
    Range all;
    if constexpr (Number<A>::is_float) {
        all.high = INFINITY_F;
        all.low = -INFINITY_F;
    } else {
        // Of signed types the ones of all bits but the sign's; of bools 1.
        uint64_t ones = ~0ull >> (64 - 8 * sizeof(A));
        bool is_signed = Number<A>::read(Number<A>::write(-1)) < 0;
        all.high = is_signed ? (Wide)(ones >> 1) : Number<A>::read(Number<A>::write((Wide)ones));
        all.low = is_signed ? -all.high - 1 : 0;
    }
    return all;
}

/// The lanes of one result each take every LANES-th of the elements that are reduced, BATCH of which
/// are read before they are needed.
template <int LANES, int BATCH>
static __device__ void reduce_to(int op, const A *x, A *y, uint32_t result, uint32_t lane, uint32_t count,
                                 const Walk<1> &kept, const Walk<1> &reduced) {
    int64_t base[1], at[1];
    locate(kept, result, base);
    Wide state = start(op, range().low, range().high);
    for (uint32_t first = lane; first < count; first += LANES * BATCH) {
        A values[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            uint32_t i = first + k * LANES;
            if (i >= count) break;
            locate(reduced, i, at);
            values[k] = x[base[0] + at[0]];
        }
#pragma unroll
        for (int k = 0; k < BATCH; k++)
            if (first + k * LANES < count) state = combined(op, state, prepared(op, Number<A>::read(values[k])));
    }
    state = over_lanes<LANES>(state, [=](Wide a, Wide b) { return combined(op, a, b); });
    if (lane == 0) y[result] = Number<A>::write(finished(op, state, count));
}

/// A block for each of `n` results of `count` elements.
extern "C" __global__ void __launch_bounds__(256)
    reduce_block(int op, const A *x, A *y, uint32_t n, uint32_t count, const Walk<1> kept, const Walk<1> reduced) {
    begin();
    reduce_to<256, 4>(op, x, y, blockIdx.x, threadIdx.x, count, kept, reduced);
}

/// A large block for each of a few results of many elements.
extern "C" __global__ void __launch_bounds__(1024)
    reduce_wide(int op, const A *x, A *y, uint32_t n, uint32_t count, const Walk<1> kept, const Walk<1> reduced) {
    begin();
    reduce_to<1024, 8>(op, x, y, blockIdx.x, threadIdx.x, count, kept, reduced);
}

/// A warp for each result.
extern "C" __global__ void __launch_bounds__(256)
    reduce_warp(int op, const A *x, A *y, uint32_t n, uint32_t count, const Walk<1> kept, const Walk<1> reduced) {
    begin();
    uint32_t result = blockIdx.x * 8 + threadIdx.x / 32;
    if (result < n) reduce_to<32, 4>(op, x, y, result, threadIdx.x % 32, count, kept, reduced);
}

/// Parts of a column that are reduced side by side.
#define PARTS 32

/// 32 neighbouring results a block, of PARTS parts each: where the innermost axis is kept.
extern "C" __global__ void __launch_bounds__(32 * PARTS)
    reduce_columns(int op, const A *x, A *y, uint32_t n, uint32_t count, const Walk<1> kept, const Walk<1> reduced) {
    begin();
    __shared__ Wide parts[PARTS][33];
    uint32_t result = blockIdx.x * 32 + threadIdx.x % 32, part = threadIdx.x / 32;
    Wide state = start(op, range().low, range().high);
    if (result < n) {
        int64_t base[1], at[1];
        locate(kept, result, base);
        for (uint32_t i = part; i < count; i += PARTS) {
            locate(reduced, i, at);
            state = combined(op, state, prepared(op, Number<A>::read(x[base[0] + at[0]])));
        }
    }
    parts[part][threadIdx.x % 32] = state;
    __syncthreads();
    if (part != 0 || result >= n) return;
    for (int i = 1; i < PARTS; i++) state = combined(op, state, parts[i][threadIdx.x]);
    y[result] = Number<A>::write(finished(op, state, count));
}
