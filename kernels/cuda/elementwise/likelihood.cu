// The negative log-likelihood of one element of each row of logits.
#include "lanes.cuh"
#include "walk.cuh"

#define THREADS 512
#define NAN_F __int_as_float(0x7fffffff)

/// `f` of every element of a row, combined over the block in an order that depends on n alone;
/// WIDTH elements are read together.
template <int WIDTH, typename F, typename C>
static __device__ float over_row(const A *row, uint32_t n, float start, F f, C combine) {
    float result = start;
    for (uint32_t i = threadIdx.x * WIDTH; i < n; i += THREADS * WIDTH) {
        Pack<A, WIDTH> pack = load_pack<A, WIDTH>(row + i);
        float part = f(to_f32(pack.values[0]));
#pragma unroll
        for (int k = 1; k < WIDTH; k++) part = combine(part, f(to_f32(pack.values[k])));
        result = combine(result, part);
    }
    return over_lanes<THREADS>(result, combine);
}

/// A block for each row of x [rows, n]: ln Σ exp(row) − row[target] to y [rows], NaN where an element
/// is NaN or +∞, where all are −∞, and where there is no such element.
template <int WIDTH>
static __device__ void score(const A *x, const int64_t *targets, float *y, uint32_t n) {
    const A *row = x + (uint64_t)blockIdx.x * n;
    float largest = over_row<WIDTH>(row, n, -INFINITY_F, [](float x) { return x; }, Largest());
    float sum = over_row<WIDTH>(row, n, 0.0f, [largest](float x) { return expf(x - largest); }, Sum());
    if (threadIdx.x != 0) return;
    int64_t target = targets[blockIdx.x];
    // False for NaN too.
    bool is_finite = fabsf(largest) < INFINITY_F;
    bool is_known = is_finite && target >= 0 && target < (int64_t)n;
    y[blockIdx.x] = is_known ? (largest - to_f32(row[target])) + logf(sum) : NAN_F;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    likelihood(const A *x, const int64_t *targets, float *y, uint32_t n) {
    begin();
    score<1>(x, targets, y, n);
}

/// x aligned to 16 bytes, n a multiple of 16 bytes.
extern "C" __global__ void __launch_bounds__(THREADS)
    likelihood_packed(const A *x, const int64_t *targets, float *y, uint32_t n) {
    begin();
    score<16 / (int)sizeof(A)>(x, targets, y, n);
}
