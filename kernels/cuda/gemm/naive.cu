// References of the products of many rows: one thread makes one result, reading each packed weight
// by its place in the format (weights.rs).
//
// Defines: T, WEIGHT_BITS (4, 8).
#include "common.cuh"
#include "output.cuh"

__device__ int weight_at(const uint8_t *packed, int padded_k, int n, int k)
{
    constexpr int TILE_K = WEIGHT_BITS == 4 ? 64 : 32;
    const int64_t tile = static_cast<int64_t>(n / 16) * (padded_k / TILE_K) + k / TILE_K;
    const int lane = n % 8 * 4 + k % 16 / 4, word = n % 16 / 8 + k % 32 / 16 * 2;
    const int byte = packed[tile * 512 + lane * 16 + word * 4 + k % 4];
    const int shift = WEIGHT_BITS == 4 && k % 64 < 32 ? 4 : 0;
    const int code = static_cast<int8_t>(byte << shift);
    return WEIGHT_BITS == 4 ? code >> 4 : code;
}

// Scales a sum of all inputs or of group `group`.
__device__ float scaled(const Problem &p, int group, int n, float sum)
{
    return sum * p.w_scale[static_cast<int64_t>(group) * p.n + n];
}

__device__ void finish(const Problem &p, int m, int n, float value)
{
    if (p.a_scale)
        value *= p.a_scale[m];
    if (p.bias)
        value += to_f32(p.bias[n]);
    if (p.residual)
        value += to_f32(p.residual[static_cast<int64_t>(m) * p.n + n]);
    p.out[static_cast<int64_t>(m) * p.out_stride + n] = from_f32<T>(value);
}

// codes int8 [rows, k]; grid (n / 128, rows), blocks of 128.
extern "C" __global__ void naive_gemm(const uint8_t *weights, const int8_t *codes,
                                      const __grid_constant__ Problem p)
{
    const int n = blockIdx.x * 128 + threadIdx.x;
    wait_for_previous_kernel();
    if (n >= p.n)
        return;
    const int size = p.block_size ? p.block_size : p.k;
    for (int m = blockIdx.y; m < p.rows; m += gridDim.y) {
        float value = 0.0f;
        for (int start = 0; start < p.k; start += size) {
            int sum = 0;
            for (int k = start; k < start + size; k++)
                sum += codes[static_cast<int64_t>(m) * p.k + k] *
                       weight_at(weights, p.padded_k, n, k);
            value += scaled(p, start / size, n, static_cast<float>(sum));
        }
        finish(p, m, n, value);
    }
}

// x of T [rows, k]; grid (n / 128, rows), blocks of 128.
extern "C" __global__ void naive_weight_only(const uint8_t *weights, const T *x,
                                             const __grid_constant__ Problem p)
{
    const int n = blockIdx.x * 128 + threadIdx.x;
    wait_for_previous_kernel();
    if (n >= p.n)
        return;
    const int size = p.block_size ? p.block_size : p.k;
    for (int m = blockIdx.y; m < p.rows; m += gridDim.y) {
        float value = 0.0f;
        for (int start = 0; start < p.k; start += size) {
            float sum = 0.0f;
            for (int k = start; k < start + size; k++)
                sum += to_f32(x[static_cast<int64_t>(m) * p.k + k]) *
                       weight_at(weights, p.padded_k, n, k);
            value += scaled(p, start / size, n, sum);
        }
        finish(p, m, n, value);
    }
}
