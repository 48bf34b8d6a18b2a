// Products of tiles by `mma.sync`, for every architecture: each is done when its function returns.
// Needs dense_tiles.cuh in front.

/// Copies that this thread awaited are seen by products behind the next barrier.
__device__ __forceinline__ void show_tiles() {}
/// Registers are as products left them.
template <int N>
__device__ __forceinline__ void settle(float (&)[N]) {}
/// Waits until at most N of the products started are not done.
template <int N>
__device__ __forceinline__ void await_products() {}

/// 16 rows by 16 channels of the block's own tile.
__device__ __forceinline__ void operand_a(unsigned (&a)[4], unsigned tile, int k) {
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane % 16;
    ldmatrix4(a, tile + place<ROWS>(row, 2 * k + lane / 16));
}

/// Operand b of 16 columns, which are rows of the tile, and 16 channels.
__device__ __forceinline__ void operand_b_rows(unsigned (&b)[4], unsigned tile, int row, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix4(b, tile + place<TILE>(row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
}

/// Operand b of 16 columns, which are channels, and 16 rows of the tile.
__device__ __forceinline__ void operand_b_channels(unsigned (&b)[4], unsigned tile, int row, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix4_transposed(b, tile + place<TILE>(row + lane % 16, 2 * k + lane / 16));
}

/// Two blocks of 8 columns of an accumulator.
template <int N>
__device__ __forceinline__ void add_pair(float (&sums)[N], int pair, const unsigned (&a)[4], const unsigned (&b)[4]) {
    float (&left)[4] = *(float (*)[4])(sums + 8 * pair), (&right)[4] = *(float (*)[4])(sums + 8 * pair + 4);
    mma16816<true>(left, a, b[0], b[1]);
    mma16816<true>(right, a, b[2], b[3]);
}

/// scores = own rows times the rows of `tile`, along the channels.
__device__ __forceinline__ void start_products(Scores &scores, unsigned own, unsigned tile) {
#pragma unroll
    for (int i = 0; i < TILE / 2; i++) scores[i] = 0.0f;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        unsigned a[4], b[4];
        operand_a(a, own, k);
#pragma unroll
        for (int pair = 0; pair < TILE / 16; pair++) {
            operand_b_rows(b, tile, pair * 16, k);
            add_pair(scores, pair, a, b);
        }
    }
}

/// sums += weights times the rows of `tile`.
__device__ __forceinline__ void start_mix(Sums &sums, const Weights &weights, unsigned tile) {
#pragma unroll
    for (int k = 0; k < TILE / 16; k++)
#pragma unroll
        for (int pair = 0; pair < STEPS; pair++) {
            unsigned b[4];
            operand_b_channels(b, tile, k * 16, pair);
            add_pair(sums, pair, weights[k], b);
        }
}
