// The vectors of heads: times a matrix (FlatQuant's P_h and P_v), or quantised and read back.
#include "common.cuh"

// y[h] = x[h] P for each of n_heads vectors of d, P [d, d] row-major, d <= 1,024. A block has P in
// shared memory if `in_shared` (d * d floats), and a block dimension of d threads by the vectors at once,
// whose elements lie in shared memory after it.
extern "C" __global__ void transform_heads(const T *x, const FACTOR_T *p, T *y, int64_t n_heads, int32_t d, int32_t in_shared) {
    extern __shared__ float shared[];
    float *matrix = shared, *vector = shared + (in_shared ? d * d : 0) + threadIdx.y * d;
    int thread = threadIdx.y * blockDim.x + threadIdx.x;
    let_next_kernel_start();
    // Where P is learned, the kernel before this one may be what writes it.
    wait_for_previous_kernel();
    if (in_shared)
        for (int i = thread; i < d * d; i += blockDim.x * blockDim.y) matrix[i] = to_f32(p[i]);
    int column = threadIdx.x;
    int64_t step = (int64_t)gridDim.x * blockDim.y;
    for (int64_t first = (int64_t)blockIdx.x * blockDim.y; first < n_heads; first += step) {
        int64_t head = first + threadIdx.y;
        bool works = head < n_heads;
        __syncthreads();
        if (works) vector[column] = to_f32(x[head * d + column]);
        __syncthreads();
        if (!works) continue;
        float sum = 0.0f;
        for (int i = 0; i < d; i++) sum = fmaf(vector[i], in_shared ? matrix[i * d + column] : to_f32(p[i * d + column]), sum);
        y[head * d + column] = from_f32<T>(sum);
    }
}

// Asymmetric per vector: scale = max(hi - lo, 1e-8) / q_max with lo = clip_min * min and hi = clip_max * max;
// zero = round(-lo / scale); y = (clip(round(x / scale) + zero, 0, q_max) - zero) * scale. A warp a vector.
extern "C" __global__ void quantise_dequantise_heads(const T *x, T *y, int64_t n_heads, int32_t d, float clip_min, float clip_max, float q_max) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    int lane = threadIdx.x % 32;
    int64_t head = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (head >= n_heads) return;
    float low = INFINITY_F, high = -INFINITY_F;
    for (int i = lane; i < d; i += 32) {
        float v = to_f32(x[head * d + i]);
        low = fminf(low, v);
        high = fmaxf(high, v);
    }
    low = clip_min * warp_min(low);
    high = clip_max * warp_max(high);
    float scale = fmaxf(high - low, 1e-8f) / q_max;
    float zero = round_half_even(-low / scale);
    for (int i = lane; i < d; i += 32) {
        float code = round_half_even(to_f32(x[head * d + i]) / scale) + zero;
        y[head * d + i] = from_f32<T>((fminf(fmaxf(code, 0.0f), q_max) - zero) * scale);
    }
}
