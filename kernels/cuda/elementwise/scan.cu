// ONNX's CumSum, ArgMax, ArgMin and TopK: along the middle axis of [outer, size, inner], of type A.
#include "lanes.cuh"

typedef Number<A>::Wide Wide;

/// Running sums: a warp for each of `lines` lines. Each sum is of all before it, without itself
/// where `is_exclusive`, from the end where `is_reverse`.
extern "C" __global__ void __launch_bounds__(256)
    running_sums(const A *x, A *y, uint32_t lines, uint32_t size, uint32_t inner, int is_exclusive, int is_reverse) {
    begin();
    uint32_t line = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (line >= lines) return;
    uint64_t start = (uint64_t)(line / inner) * size * inner + line % inner;
    Wide before = 0;
    for (uint32_t first = 0; first < size; first += 32) {
        uint32_t i = first + lane;
        uint64_t at = start + (uint64_t)(is_reverse ? size - 1 - i : i) * inner;
        Wide own = i < size ? Number<A>::read(x[at]) : 0;
        Wide sum = own;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            Wide other = __shfl_up_sync(0xffffffff, sum, distance);
            if (lane >= distance) sum += other;
        }
        if (i < size) y[at] = Number<A>::write(before + (is_exclusive ? sum - own : sum));
        before += __shfl_sync(0xffffffff, sum, 31);
    }
}

#define LANES 256

/// An element and its place in the line; `place` -1 for none.
struct Place {
    Wide value;
    int place;
};

/// Whether a is above b in the order of the result: NaN is above all numbers; of equal elements the
/// one that comes first is, or the last one where `last`.
static __device__ bool is_above(const Place &a, const Place &b, int largest, int last) {
    if (a.place < 0 || b.place < 0) return b.place < 0 && a.place >= 0;
    bool a_nan = is_nan(a.value), b_nan = is_nan(b.value);
    bool more = a_nan ? !b_nan : a.value > b.value;
    bool less = b_nan ? !a_nan : a.value < b.value;
    if (more || less) return largest ? more : less;
    return last ? a.place > b.place : a.place < b.place;
}

static __device__ Place upper(const Place &best, int largest, int last) {
    return over_lanes<LANES>(
        best, [=](Place a, Place b) { return is_above(a, b, largest, last) ? a : b; });
}

/// The uppermost of the elements `first`, `first + stride`… of a line that is below `limit` (if that
/// is one), of those that the block looks at.
static __device__ Place uppermost(const A *x, uint64_t start, uint32_t first, uint32_t stride, uint32_t size,
                                  uint32_t inner, int largest, int last, const Place &limit) {
    Place best = {0, -1};
    for (uint32_t i = first; i < size; i += stride) {
        Place own = {Number<A>::read(x[start + (uint64_t)i * inner]), (int)i};
        bool counts = limit.place < 0 || is_above(limit, own, largest, last);
        if (counts && is_above(own, best, largest, last)) best = own;
    }
    return upper(best, largest, last);
}

/// Where the largest (smallest) element of each line is: y [outer, inner] i64, a block for each.
extern "C" __global__ void __launch_bounds__(LANES)
    arg(const A *x, int64_t *y, uint32_t size, uint32_t inner, int largest, int last) {
    begin();
    uint32_t line = blockIdx.x;
    uint64_t start = (uint64_t)(line / inner) * size * inner + line % inner;
    Place best = uppermost(x, start, threadIdx.x, LANES, size, inner, largest, last, Place{0, -1});
    if (threadIdx.x == 0) y[line] = best.place;
}

/// The same in two steps, for few long lines: first each block (x) of a line (y) finds its best, which
/// comes into parts [lines, gridDim.x].
extern "C" __global__ void __launch_bounds__(LANES)
    arg_parts(const A *x, Place *parts, uint32_t size, uint32_t inner, int largest, int last) {
    begin();
    uint32_t line = blockIdx.y;
    uint64_t start = (uint64_t)(line / inner) * size * inner + line % inner;
    Place best = uppermost(x, start, blockIdx.x * LANES + threadIdx.x, gridDim.x * LANES, size, inner,
                           largest, last, Place{0, -1});
    if (threadIdx.x == 0) parts[line * gridDim.x + blockIdx.x] = best;
}

/// Then a block for each line finds the best of its parts.
extern "C" __global__ void __launch_bounds__(LANES)
    arg_last(const Place *parts, int64_t *y, uint32_t n_parts, int largest, int last) {
    begin();
    Place best = {0, -1};
    for (uint32_t i = threadIdx.x; i < n_parts; i += LANES) {
        Place own = parts[blockIdx.x * n_parts + i];
        if (is_above(own, best, largest, last)) best = own;
    }
    best = upper(best, largest, last);
    if (threadIdx.x == 0) y[blockIdx.x] = best.place;
}

/// The k largest (smallest) elements of each line in order, and where they are: [outer, k, inner].
/// One round for each, which is meant for a small k.
extern "C" __global__ void __launch_bounds__(LANES)
    top_k(const A *x, A *values, int64_t *places, uint32_t size, uint32_t inner, uint32_t k, int largest) {
    begin();
    uint32_t line = blockIdx.x;
    uint64_t start = (uint64_t)(line / inner) * size * inner + line % inner;
    uint64_t out = (uint64_t)(line / inner) * k * inner + line % inner;
    Place best = {0, -1};
    for (uint32_t round = 0; round < k; round++) {
        best = uppermost(x, start, threadIdx.x, LANES, size, inner, largest, 0, best);
        if (threadIdx.x != 0) continue;
        values[out + (uint64_t)round * inner] = Number<A>::write(best.value);
        places[out + (uint64_t)round * inner] = best.place;
    }
}
