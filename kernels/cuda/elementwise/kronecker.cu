// Kronecker products of small matrices of f32, and gradients through them.
#include "lanes.cuh"

#define LANES 128

/// Y [n1 n2, n1 n2] = P1 (x) P2; an absent factor, null, is the identity.
extern "C" __global__ void __launch_bounds__(256)
    kronecker(const float *p1, const float *p2, float *y, uint32_t n1, uint32_t n2) {
    begin();
    uint32_t n = n1 * n2, at = thread_number();
    if (at >= n * n) return;
    uint32_t row = at / n, column = at - row * n;
    uint32_t i = row / n2, j = row - i * n2, k = column / n2, l = column - k * n2;
    float left = p1 ? p1[i * n1 + k] : i == k, right = p2 ? p2[j * n2 + l] : j == l;
    y[at] = left * right;
}

/// A block for each element of dP1 [n1, n1] = sum over j and l of dY[i n2 + j, k n2 + l] P2[j, l].
extern "C" __global__ void __launch_bounds__(LANES)
    kronecker_grad_left(const float *dy, const float *p2, float *dp1, uint32_t n1, uint32_t n2) {
    begin();
    uint32_t n = n1 * n2, i = blockIdx.x / n1, k = blockIdx.x % n1;
    float sum = 0.0f;
    for (uint32_t at = threadIdx.x; at < n2 * n2; at += LANES) {
        uint32_t j = at / n2, l = at - j * n2;
        float factor = p2 ? p2[at] : j == l;
        sum += dy[(uint64_t)(i * n2 + j) * n + k * n2 + l] * factor;
    }
    sum = over_lanes<LANES>(sum, Sum());
    if (threadIdx.x == 0) dp1[blockIdx.x] = sum;
}

/// 32 threads for each element of dP2 [n2, n2] = sum over i and k of dY[i n2 + j, k n2 + l] P1[i, k], the
/// elements of a row side by side: 32 of them a block, and 32 parts of the sum.
extern "C" __global__ void __launch_bounds__(1024)
    kronecker_grad_right(const float *dy, const float *p1, float *dp2, uint32_t n1, uint32_t n2) {
    begin();
    __shared__ float parts[32][33];
    uint32_t n = n1 * n2, lane = threadIdx.x % 32, part = threadIdx.x / 32;
    uint32_t j = blockIdx.x, l = blockIdx.y * 32 + lane;
    float sum = 0.0f;
    if (l < n2)
        for (uint32_t at = part; at < n1 * n1; at += 32) {
            uint32_t i = at / n1, k = at - i * n1;
            float factor = p1 ? p1[at] : i == k;
            sum += dy[(uint64_t)(i * n2 + j) * n + k * n2 + l] * factor;
        }
    parts[part][lane] = sum;
    __syncthreads();
    if (part != 0 || l >= n2) return;
    for (int other = 1; other < 32; other++) sum += parts[other][lane];
    dp2[j * n2 + l] = sum;
}
