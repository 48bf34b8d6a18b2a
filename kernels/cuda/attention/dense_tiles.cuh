// What learning's attention keeps in shared memory: tiles of rows of D channels. Needs common.cuh and
// mma.cuh in front.
//
// Definitions: D, channels of a head (a multiple of 16, up to 128); GROUPS, of four warps, of a block;
// as an option BLOCKS, how many of them are to fit a processor.
#ifndef BLOCKS
#define BLOCKS 1
#endif

/// Rows of a group and of a tile that all groups share; threads of a block, and its own rows.
constexpr int TILE = 64, THREADS = 128 * GROUPS, ROWS = TILE * GROUPS;
constexpr int STEPS = D / 16, CHUNKS = D / 8;
/// Rows of 128 bytes, whose eight groups of 16 bytes are exchanged by XOR with row % 8, a block of 64
/// channels after the other; or, where channels are no multiple of 64, rows that are padded.
constexpr bool SWIZZLED = D % 64 == 0;
constexpr int ROW_BYTES = SWIZZLED ? 128 : 2 * (D + 8);
constexpr int CHANNEL_BLOCKS = SWIZZLED ? D / 64 : 1;
/// Bytes of a tile that is shared, and of the block's own.
constexpr int TILE_BYTES = TILE * ROW_BYTES * CHANNEL_BLOCKS, OWN_BYTES = ROWS * ROW_BYTES * CHANNEL_BLOCKS;

/// Where 8 channels of a row are in a tile of N rows.
template <int N>
__device__ __forceinline__ unsigned place(int row, int chunk) {
    if constexpr (SWIZZLED) return chunk / 8 * (N * 128) + row * 128 + ((chunk % 8) ^ (row % 8)) * 16;
    return row * ROW_BYTES + chunk * 16;
}

/// Starts copying a tile of N rows from the `first` on; zeros beyond `limit`.
template <int N>
__device__ __forceinline__ void load_tile(unsigned to, const bf16_t *from, uint32_t first, uint32_t limit) {
#pragma unroll
    for (int i = threadIdx.x; i < N * CHUNKS; i += THREADS) {
        uint32_t row = i / CHUNKS, chunk = i % CHUNKS;
        bool inside = first + row < limit;
        copy16(to + place<N>(row, chunk), from + (inside ? (int64_t)(first + row) * D + chunk * 8 : 0), inside);
    }
}

/// Starts copying TILE floats.
__device__ __forceinline__ void load_floats(unsigned to, const float *from) {
    if (threadIdx.x < TILE / 4) copy16(to + threadIdx.x * 16, from + threadIdx.x * 4, true);
}

/// A warp's 16 rows of products with a tile, in pairs of columns: element 4 i + 2 h + j of a lane is of
/// row lane / 4 + 8 h and column 8 i + lane % 4 * 2 + j. Sums over a tile's rows lie likewise.
using Scores = float[TILE / 2];
using Sums = float[D / 2];
/// The same in bfloat16, as the left side of products.
using Weights = unsigned[TILE / 16][4];

__device__ __forceinline__ void pack_weights(Weights &to, const Scores &from) {
#pragma unroll
    for (int k = 0; k < TILE / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) to[k][i] = pack16<true>(from[8 * k + 2 * i], from[8 * k + 2 * i + 1]);
}
