// Rows X [n1, n2] of f32 to P1^T X P2, or P1 X P2^T: one pass over the rows.
#include "kronecker_tiles.cuh"

constexpr int LEFT_STEP = step_8(M1), RIGHT_STEP = step_4(K2), X_STEP = step_8(K2);
constexpr int LEFT = K1 * LEFT_STEP, RIGHT = HAS_P2 ? K2 * RIGHT_STEP : 0, TILE = K1 * X_STEP;

/// Y = L^T X R, with L and R in shared memory; each warp computes tiles of 16 rows.
INLINE void transform_row(const uint32_t *left, const uint32_t *right, const float *x, float *y) {
    constexpr int TILES = M1 / 16, COLUMNS = K2 / 8, TOGETHER = together(TILES, COLUMNS);
    auto of_left = [=](int m, int k) { return left[k * LEFT_STEP + m]; };
    auto of_x = [=](int k, int n) { return tf32(x[k * X_STEP + n]); };
    auto of_right = [=](int k, int n) {
        return make_uint2(right[k * RIGHT_STEP + n], right[(k + 1) * RIGHT_STEP + n]);
    };
    int warp = threadIdx.x % LANES / 32;
#pragma unroll
    for (int i = 0; i < own(TILES); i += TOGETHER) {
        int first = warp + WARPS * i;
        if (first >= TILES) continue;
        if constexpr (HAS_P2) {
            Left u[TOGETHER][COLUMNS];
            left_product<K1 / 8>(u, first, of_left, of_x);
            put_product(y, first, u, of_right);
        } else {
            float c[TOGETHER][COLUMNS][4];
            product<K1 / 8>(c, first, of_left, of_x);
#pragma unroll
            for (int tile = 0; tile < TOGETHER; tile++)
#pragma unroll
                for (int n = 0; n < COLUMNS; n++) put(y, first + WARPS * tile, n, c[tile][n]);
        }
    }
}

/// y [rows, n1 n2] from x, by P1^T and P2, or by P1 and P2^T where they are to be transposed.
extern "C" __global__ void __launch_bounds__(LANES *GROUPS, 1)
    kronecker_rows(const float *x, const float *p1, const float *p2, float *y, uint32_t rows, int transposed) {
    begin();
    extern __shared__ uint4 shared[];
    uint32_t *left = (uint32_t *)shared, *right = left + LEFT;
    load_factor<N1, K1, LEFT_STEP>(left, p1, transposed);
    if constexpr (HAS_P2) load_factor<N2, K2, RIGHT_STEP>(right, p2, transposed);
    over_rows<TILE>(
        (float *)(right + RIGHT), rows, [=](uint32_t row, float *to) { copy_row<X_STEP>(to, x + row * ROW); },
        [=](uint32_t row, const float *tile) { transform_row(left, right, tile, y + row * ROW); });
}
