// How the sums of Hopper's kernel (wgmma.cu) leave: scaled, transposed through shared memory, and
// written by the copy engine while the next tile is under way. Without BULK (f32, or an output that
// the copy engine can't address) each thread writes what it has.
#pragma once
#include "hopper.cuh"
#include "output.cuh"

// Rows of a tile by 64 outputs of 16 bits: what the copy engine writes at once.
constexpr int BOX_BYTES = TILE_M * 128;

#ifndef PARTS
#define PARTS 1
#endif
#if PARTS > 1
// Where outputs go from each start on, a multiple of 64.
struct alignas(64) MoreOutputs {
    TensorMap out[PARTS - 1];
    int start[PARTS - 1];
};
#define MORE_OUTPUTS , const __grid_constant__ MoreOutputs more
#else
#define MORE_OUTPUTS
#endif

// What a thread needs of the outputs that it holds sums of: rows g and g + 8 of each block. Loaded
// before the product, used after it.
struct Columns {
    float scale[BLOCKS][2];
    T bias[BLOCKS][2];

    __device__ __forceinline__ Columns(const Problem &p, int first_n)
    {
#pragma unroll
        for (int i = 0; i < BLOCKS * 2; i++) {
            const int n = first_n + i / 2 * 64 + i % 2 * 8;
            scale[i / 2][i % 2] = 1.0f;
            if (!GROUPED && n < p.n)
                scale[i / 2][i % 2] = p.w_scale[n];
            bias[i / 2][i % 2] = T{};
            if (p.bias && n < p.n)
                bias[i / 2][i % 2] = p.bias[n];
        }
    }
};

// A thread's results of two rows in one output, from sums of neighbouring rows.
template <typename Sum>
__device__ __forceinline__ float2 scaled(const Sum *sums, float scale, float2 rows, float bias)
{
    return make_float2(sums[0] * scale * rows.x + bias, sums[1] * scale * rows.y + bias);
}

#if BULK
// Puts the warpgroup's results where boxes are stored from: [BLOCKS][TILE_M][64], 16-byte chunks
// permuted by the row as the copy engine's 128-byte mode does it. With `add`, onto what is there.
template <typename Sum>
__device__ __forceinline__ void stage(Sum (&sums)[BLOCKS][SUMS], const Columns &columns,
                                      const float *row_scales, uint32_t staging, bool add, int warp,
                                      int lane)
{
    const int chunk = warp * 2 + lane / 8 % 2;
    const uint32_t mine = staging + (lane / 16 * 8 + lane % 8) * 128 + (chunk ^ (lane % 8)) * 16;
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
        const float scale[2] = {columns.scale[b][0] * UNIT, columns.scale[b][1] * UNIT};
        const float bias[2] = {to_f32(columns.bias[b][0]), to_f32(columns.bias[b][1])};
#pragma unroll
        for (int i = 0; i < TILE_M / 16; i++) {
            const uint32_t at = mine + b * BOX_BYTES + i * 16 * 128;
            uint32_t v[4], there[4];
            if (add)
                load_transposed(at, there);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int row = 16 * i + j / 2 * 8, half = j % 2;
                const float2 rows =
                    *reinterpret_cast<const float2 *>(row_scales + row + lane % 4 * 2);
                const Sum *d = &sums[b][row / 2 + half * 2];
                float2 y = scaled(d, scale[half], rows, bias[half]);
                if (add) {
                    const float2 other = unpack_pair<T>(there[j]);
                    y.x += other.x;
                    y.y += other.y;
                }
                v[j] = pack_pair<T>(y.x, y.y);
            }
            store_transposed(at, v);
        }
    }
}
#else
// Writes the warpgroup's results, those of a thread in one output and two rows at a time.
template <typename Sum>
__device__ __forceinline__ void write(Sum (&sums)[BLOCKS][SUMS], const Columns &columns,
                                      const float *row_scales, const Problem &p, int m0, int first_n,
                                      int lane)
{
#pragma unroll
    for (int b = 0; b < BLOCKS; b++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int n = first_n + b * 64 + half * 8;
            const float scale = columns.scale[b][half] * UNIT;
            const float bias = to_f32(columns.bias[b][half]);
#pragma unroll
            for (int i = 0; i < TILE_M / 8; i++) {
                const int row = 8 * i + lane % 4 * 2;
                const float2 rows = *reinterpret_cast<const float2 *>(row_scales + row);
                const float2 y = scaled(&sums[b][4 * i + 2 * half], scale, rows, bias);
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int m = m0 + row + e;
                    if (m >= p.rows || n >= p.n)
                        continue;
                    float value = e ? y.y : y.x;
                    if (p.residual)
                        value += to_f32(p.residual[static_cast<int64_t>(m) * p.n + n]);
                    p.out[static_cast<int64_t>(m) * p.out_stride + n] = from_f32<T>(value);
                }
            }
        }
    }
}
#endif
