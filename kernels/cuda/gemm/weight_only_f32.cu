// The product of many rows with quantised weights on CUDA cores, in f32: out[m, n] =
// Σ_k x[m, k]·w[n, k]·w_scale[n] (+ bias[n]) (+ residual[m, n]), x of any T, any k.
//
// A block of 256 threads makes 64 outputs × 64 rows, four by four a thread, from 32 inputs a step.
//
// Defines: T, WEIGHT_BITS (4, 8).
#include "common.cuh"
#include "output.cuh"

constexpr int TILE = 64, TILE_K = 32, PITCH = TILE + 4;

// A lane's four words of a packed tile of 16 outputs and 32 inputs: 16 codes.
__device__ __forceinline__ void load_weights(const uint8_t *weights, const Problem &p, int n0,
                                             int k0, float (*to)[PITCH])
{
    const int lane = threadIdx.x % 32, tile = threadIdx.x / 32;  // warps 0..3 have one each
    if (tile >= 4)
        return;
    const int n = n0 + tile * 16 + lane / 4;
    uint4 w = make_uint4(0, 0, 0, 0);
    if (n0 + tile * 16 < p.padded_n) {
        const int64_t row = static_cast<int64_t>(n0) / 16 + tile;
        const int64_t at = WEIGHT_BITS == 4 ? row * (p.padded_k / 64) + k0 / 64
                                            : row * (p.padded_k / 32) + k0 / 32;
        w = *reinterpret_cast<const uint4 *>(weights + at * 512 + lane * 16);
    }
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int output = n + i / 4 % 2 * 8, input = k0 + lane % 4 * 4 + i % 4 + i / 8 * 16;
        const int shift = WEIGHT_BITS == 4 && k0 % 64 == 0 ? 4 : 0;
        int code = static_cast<int8_t>(words[i / 4] >> (8 * (i % 4)) << shift);
        if (WEIGHT_BITS == 4)
            code >>= 4;
        const int group = p.block_size ? input / p.block_size : 0;
        const bool inside = output < p.n && input < p.k;
        const float scale = inside ? p.w_scale[static_cast<int64_t>(group) * p.n + output] : 0.0f;
        to[input - k0][output - n0] = code * scale;
    }
}

__device__ __forceinline__ void load_x(const T *x, const Problem &p, int m0, int k0,
                                       float (*to)[PITCH])
{
#pragma unroll
    for (int i = threadIdx.x; i < TILE * TILE_K; i += 256) {
        const int row = m0 + i / TILE_K, k = k0 + i % TILE_K;
        to[i % TILE_K][i / TILE_K] =
            row < p.rows && k < p.k ? to_f32(x[static_cast<int64_t>(row) * p.k + k]) : 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    weight_only_f32(const uint8_t *weights, const T *x, const __grid_constant__ Problem p)
{
    __shared__ __align__(16) float w_tile[TILE_K][PITCH], x_tile[TILE_K][PITCH];
    wait_for_previous_kernel();
    let_next_kernel_start();
    const int n0 = blockIdx.x * TILE, m0 = blockIdx.y * TILE;
    const int tn = threadIdx.x % 16 * 4, tm = threadIdx.x / 16 * 4;
    float sums[4][4] = {};
    for (int k0 = 0; k0 < p.k; k0 += TILE_K) {
        load_weights(weights, p, n0, k0, w_tile);
        load_x(x, p, m0, k0, x_tile);
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < TILE_K; k++) {
            const float4 w = *reinterpret_cast<const float4 *>(&w_tile[k][tn]);
            const float4 v = *reinterpret_cast<const float4 *>(&x_tile[k][tm]);
            const float ws[4] = {w.x, w.y, w.z, w.w}, vs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 16; i++)
                sums[i / 4][i % 4] += vs[i / 4] * ws[i % 4];
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++) {
        const int m = m0 + tm + i;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int n = n0 + tn + j;
            if (m >= p.rows || n >= p.n)
                continue;
            float value = sums[i][j] + (p.bias ? to_f32(p.bias[n]) : 0.0f);
            if (p.residual)
                value += to_f32(p.residual[static_cast<int64_t>(m) * p.n + n]);
            p.out[static_cast<int64_t>(m) * p.out_stride + n] = from_f32<T>(value);
        }
    }
}
