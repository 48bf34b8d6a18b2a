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

// Starts copying the weights of step `step` for the outputs from n0.
__device__ __forceinline__ void copy_weights(const uint8_t *weights, const Problem &p, int n0,
                                             int step, uint32_t to)
{
    int64_t row_bytes = static_cast<int64_t>(p.padded_k) / 64 * K_TILES * PACKED_TILE;
    constexpr int CHUNKS = K_TILES * PACKED_TILE / 16;
#pragma unroll
    for (int i = threadIdx.x; i < W_BYTES / 16; i += THREADS) {
        int tile = n0 / 16 + i / CHUNKS;
        bool inside = tile < p.padded_n / 16 && step < p.padded_k / 64;
        const uint8_t *from = weights + tile * row_bytes +
                              static_cast<int64_t>(step) * K_TILES * PACKED_TILE + i % CHUNKS * 16;
        copy_16(to + i * 16, inside ? from : weights, inside);
    }
}

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
