// What the `mma.sync` products share: a tile of 128 outputs × 128 rows by eight warps, two along the
// outputs and four along the rows, taking 64 inputs a step.
#pragma once
#include "async.cuh"
#include "output.cuh"

constexpr int TILE_N = 128, TILE_M = 128, TILE_K = 64, THREADS = 256;
constexpr int PACKED_TILE = 512;                   // bytes of a packed tile of weights
constexpr int K_TILES = WEIGHT_BITS == 4 ? 1 : 2;  // packed tiles along a step's inputs
constexpr int W_BYTES = TILE_N / 16 * K_TILES * PACKED_TILE;
constexpr int N_TILES = 4, M_TILES = 4;            // of 16 outputs and 8 rows, a warp's

// Where a warp works: its first output and row in the block's tile, which begins at n0 and m0.
struct Place {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int warp_n = warp % 2 * 64, warp_m = warp / 2 * 32;
    int n0 = blockIdx.x * TILE_N, m0 = blockIdx.y * TILE_M;
    int first_n = n0 + warp_n + lane / 4;  // the lane's first output
};

// Sums of a warp: a lane's, as `mma.sync` has them, in tiles of 16 outputs × 8 rows.
template <typename S> using Sums = S[N_TILES][M_TILES][4];

// The part of the copies of weights that a thread does: its place in a stage and in memory, which
// moves on by a step's packed tiles.
struct WeightCopies {
    static constexpr int N = W_BYTES / 16 / THREADS;
    static constexpr int STEP_BYTES = K_TILES * PACKED_TILE;
    const uint8_t *from[N];
    bool inside[N];

    __device__ __forceinline__ WeightCopies(const uint8_t *weights, const Problem &p, int n0)
    {
        const int64_t row_bytes = static_cast<int64_t>(p.padded_k) / 64 * STEP_BYTES;
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int at = (threadIdx.x + i * THREADS) * 16, tile = n0 / 16 + at / STEP_BYTES;
            inside[i] = tile < p.padded_n / 16;
            from[i] = weights + (inside[i] ? tile * row_bytes + at % STEP_BYTES : 0);
        }
    }

    __device__ __forceinline__ void next(uint32_t stage)
    {
#pragma unroll
        for (int i = 0; i < N; i++) {
            copy_16(stage + (threadIdx.x + i * THREADS) * 16, from[i], inside[i]);
            from[i] += STEP_BYTES;
        }
    }
};

// Offset of a stage in a ring of N of BYTES each.
template <int N, int BYTES> struct Ring {
    uint32_t offset = 0;
    __device__ __forceinline__ void advance()
    {
        offset = offset == (N - 1) * BYTES ? 0 : offset + BYTES;
    }
};

// Where a result lies in the buffer it is transposed through: [row][output], 16-byte chunks
// permuted by the row.
__device__ __forceinline__ int staged(int row, int n)
{
    constexpr int CHUNK = 16 / sizeof(T);
    return (row * (TILE_N / CHUNK) + ((n / CHUNK) ^ (row % 8))) * CHUNK + n % CHUNK;
}

// Writes a staged tile to the output in whole chunks of 16 bytes.
__device__ __forceinline__ void write_tile(const Problem &p, const T *buffer, int m0, int n0)
{
    constexpr int CHUNK = 16 / sizeof(T);
#pragma unroll 2
    for (int i = threadIdx.x; i < TILE_M * TILE_N / CHUNK; i += THREADS) {
        const int row = i / (TILE_N / CHUNK), c = i % (TILE_N / CHUNK) * CHUNK;
        const int m = m0 + row, n = n0 + c;
        if (m < p.rows && n < p.n)
            write_chunk<T>(*reinterpret_cast<const uint4 *>(buffer + staged(row, c)),
                           p.out + static_cast<int64_t>(m) * p.out_stride + n,
                           p.residual ? p.residual + static_cast<int64_t>(m) * p.n + n : nullptr,
                           p.n - n);
    }
}

// Adds sums of one group, scaled, to those so far, and begins anew; n0 is the lane's first output.
template <typename S>
__device__ __forceinline__ void add_group(Sums<S> &sums, Sums<float> &total, const Problem &p,
                                          int group, int n0)
{
    const float *scales = p.w_scale + static_cast<int64_t>(group) * p.n;
#pragma unroll
    for (int i = 0; i < N_TILES; i++) {
        const int n = n0 + i * 16;
        const float low = n < p.n ? scales[n] : 0.0f, high = n + 8 < p.n ? scales[n + 8] : 0.0f;
#pragma unroll
        for (int j = 0; j < M_TILES; j++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                total[i][j][e] += sums[i][j][e] * (e < 2 ? low : high);
                sums[i][j][e] = 0;
            }
        }
    }
}

// Stages a warp's results: sums in `unit`s, times the scales of outputs, which groups have had
// already, and of rows, plus the bias.
template <typename S, typename F>
__device__ __forceinline__ void stage_sums(T *buffer, const Sums<S> &sums, const Problem &p,
                                           const Place &at, float unit, F row_scale)
{
#pragma unroll
    for (int i = 0; i < N_TILES; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int n = at.first_n + i * 16 + half * 8;
            const float bias = p.bias && n < p.n ? to_f32(p.bias[n]) : 0.0f;
            const float scale = GROUPED ? unit : n < p.n ? p.w_scale[n] * unit : 0.0f;
#pragma unroll
            for (int j = 0; j < M_TILES; j++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int row = at.warp_m + j * 8 + at.lane % 4 * 2 + e;
                    const float of_row = row_scale(at.m0 + row), sum = sums[i][j][2 * half + e];
                    buffer[staged(row, n - at.n0)] = from_f32<T>(sum * scale * of_row + bias);
                }
            }
        }
    }
}
