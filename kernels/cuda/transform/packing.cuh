// The order of packed factors: as lanes of tensor cores read them, 16 bytes each, in f16, with what f16
// loses beside it. P1 (if there) as left operand: [tile of 16 rows][step of 16][lane], then the rest of it likewise;
// P2 (if there) as right operand: [step of 16][pair of tiles of 8 columns][lane], then the rest of it.
#include "common.cuh"

__host__ __device__ constexpr int up_to(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Tiles whose columns are interleaved, so that a thread of the result's layout has 2 * run consecutive ones.
__device__ constexpr int run_of(int n2p) { return n2p % 32 == 0 ? 4 : 2; }

// The column of Y that tile `tile` has at `column`.
__device__ constexpr int interleaved(int run, int tile, int column) {
    return tile / run * run * 8 + column / 2 * 2 * run + tile % run * 2 + column % 2;
}

// Vectors of 16 bytes of one factor of n rows.
__device__ constexpr int packed_words(int n) { return up_to(n, 16) / 16 * (up_to(n, 16) / 16) * 32; }
