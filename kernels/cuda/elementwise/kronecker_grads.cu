// The gradients of rows X [n1, n2] of f32, taken to P1^T X P2, from those, G, of the results: one pass over the
// rows, then a sum of what the blocks found.
//
// With V = P1 G and S = X P2: dX = V P2^T, dP1 = sum of S G^T, dP2^T = sum of V^T X.
#include "kronecker_tiles.cuh"

constexpr int P1_STEP = step_4(K1), P2_STEP = step_8(K2), X_STEP = step_4(K2), G_STEP = step_8(M2);
constexpr int P1_SIZE = M1 * P1_STEP, P2_SIZE = HAS_P2 ? K2 * P2_STEP : 0;
constexpr int X_SIZE = M1 * X_STEP, G_SIZE = K1 * G_STEP;
constexpr int TILES_1 = M1 / 16, TILES_2 = M2 / 16, COLUMNS_1 = K1 / 8, COLUMNS_2 = K2 / 8;
/// Steps between the rows of sums in shared memory; dP2 is read across.
constexpr int SUM_1_STEP = K1, SUM_2_STEP = K2 + 1;
/// Elements of both gradients.
constexpr int SUMS = N1 * N1 + (HAS_P2 ? N2 * N2 : 0);

/// Where things are in shared memory.
struct Shared {
    const uint32_t *p1, *p2;
    const float *x, *g;
};

/// A warp's tiles of dP1 and of dP2^T.
struct Sums {
    float p1[own(TILES_1)][COLUMNS_1][4];
    float p2[HAS_P2 ? own(TILES_2) : 1][HAS_P2 ? COLUMNS_2 : 1][4];
};

INLINE int warp_of_group() { return threadIdx.x % LANES / 32; }
/// Who computes tiles of dP1: others than those of dX, where there are more warps than tiles.
INLINE int left_warp() { return (warp_of_group() + WARPS / 2) % WARPS; }

/// dX = P1 G P2^T.
INLINE void put_dx(const Shared &at, float *dx) {
    constexpr int TOGETHER = together(TILES_1, COLUMNS_2);
    auto of_p1 = [=](int m, int k) { return at.p1[m * P1_STEP + k]; };
    auto of_g = [=](int k, int n) { return tf32(at.g[k * G_STEP + n]); };
    auto of_p2 = [=](int k, int n) { return *(const uint2 *)(at.p2 + n * P2_STEP + k); };
#pragma unroll
    for (int i = 0; i < own(TILES_1); i += TOGETHER) {
        int first = warp_of_group() + WARPS * i;
        if (first >= TILES_1) continue;
        if constexpr (HAS_P2) {
            Left v[TOGETHER][COLUMNS_2];
            left_product<COLUMNS_1>(v, first, of_p1, of_g);
            put_product(dx, first, v, of_p2);
        } else {
            float c[TOGETHER][COLUMNS_2][4];
            product<COLUMNS_1>(c, first, of_p1, of_g);
#pragma unroll
            for (int tile = 0; tile < TOGETHER; tile++)
#pragma unroll
                for (int n = 0; n < COLUMNS_2; n++) put(dx, first + WARPS * tile, n, c[tile][n]);
        }
    }
}

/// X as a left operand, its columns in the order of `as_left`.
template <int TILES>
INLINE void left_x(Left (&to)[TILES][COLUMNS_2], int first, const float *x) {
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int n = 0; n < COLUMNS_2; n++) {
            const float *at = x + (16 * (first + WARPS * i) + lane_row()) * X_STEP + 8 * n + 2 * lane_column();
            float2 top = *(const float2 *)at, low = *(const float2 *)(at + 8 * X_STEP);
            to[i][n] = as_left({top.x, top.y, low.x, low.y});
        }
}

/// dP1 += X P2 G^T.
INLINE void add_dp1(const Shared &at, Sums &sums) {
    constexpr int TOGETHER = together(TILES_1, COLUMNS_2);
    auto of_x = [=](int m, int k) { return tf32(at.x[m * X_STEP + k]); };
    auto of_p2 = [=](int k, int n) { return at.p2[k * P2_STEP + n]; };
    auto of_g = [=](int k, int n) {
        float2 pair = *(const float2 *)(at.g + n * G_STEP + k);
        return make_uint2(tf32(pair.x), tf32(pair.y));
    };
#pragma unroll
    for (int i = 0; i < own(TILES_1); i += TOGETHER) {
        int first = left_warp() + WARPS * i;
        if (first >= TILES_1) continue;
        Left s[TOGETHER][COLUMNS_2];
        if constexpr (HAS_P2)
            left_product<COLUMNS_2>(s, first, of_x, of_p2);
        else
            left_x(s, first, at.x);
        add_product<COLUMNS_1>(sums.p1, i, s, 0, of_g);
    }
}

/// dP2^T += (P1 G)^T X.
INLINE void add_dp2(const Shared &at, Sums &sums) {
    constexpr int TOGETHER = together(TILES_2, COLUMNS_1);
    auto of_g = [=](int m, int k) { return tf32(at.g[k * G_STEP + m]); };
    auto of_p1 = [=](int k, int n) { return at.p1[n * P1_STEP + k]; };
    auto of_x = [=](int k, int n) {
        return make_uint2(tf32(at.x[k * X_STEP + n]), tf32(at.x[(k + 1) * X_STEP + n]));
    };
#pragma unroll
    for (int i = 0; i < own(TILES_2); i += TOGETHER) {
        int first = warp_of_group() + WARPS * i;
        if (first >= TILES_2) continue;
        Left v[TOGETHER][COLUMNS_1];
        left_product<COLUMNS_1>(v, first, of_g, of_p1);
        add_product<COLUMNS_2>(sums.p2, i, v, 0, of_x);
    }
}

/// Adds a warp's tiles of `first`, `first` + WARPS, .. to sums [.., STEP] in shared memory, or begins them.
template <int TILES, int STEP, int OWN, int COLUMNS>
INLINE void add_tiles(float *to, const float (&c)[OWN][COLUMNS][4], int first, bool begins) {
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        if (first + WARPS * i >= TILES) continue;
        float *row = to + (16 * (first + WARPS * i) + lane_row()) * STEP + 2 * lane_column();
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float *at = row + j / 2 * 8 * STEP + 8 * n + j % 2;
                *at = begins ? c[i][n][j] : *at + c[i][n][j];
            }
    }
}

/// Writes the sums over the groups, in their order: dP1 [n1, n1], then dP2 [n2, n2].
INLINE void put_sums(const Sums &sums, float *scratch, float *to) {
    float *sum_1 = scratch, *sum_2 = scratch + M1 * SUM_1_STEP;
    for (int group = 0; group < GROUPS; group++) {
        if (threadIdx.x / LANES == group) {
            add_tiles<TILES_1, SUM_1_STEP>(sum_1, sums.p1, left_warp(), group == 0);
            if constexpr (HAS_P2) add_tiles<TILES_2, SUM_2_STEP>(sum_2, sums.p2, warp_of_group(), group == 0);
        }
        __syncthreads();
    }
    for (int at = threadIdx.x; at < N1 * N1; at += LANES * GROUPS) to[at] = sum_1[at / N1 * SUM_1_STEP + at % N1];
    if constexpr (HAS_P2)
        for (int at = threadIdx.x; at < N2 * N2; at += LANES * GROUPS)
            to[N1 * N1 + at] = sum_2[at % N2 * SUM_2_STEP + at / N2];
}

/// dx [rows, n1 n2] from dy and x, and the gradients of the factors from the rows of each block: parts
/// [blocks, n1 n1 + n2 n2]. A null factor is the identity.
extern "C" __global__ void __launch_bounds__(LANES *GROUPS, 1)
    kronecker_grads(const float *dy, const float *x, const float *p1, const float *p2, float *dx, float *parts,
                    uint32_t rows) {
    begin();
    extern __shared__ uint4 shared[];
    uint32_t *left = (uint32_t *)shared, *right = left + P1_SIZE;
    float *tiles = (float *)(right + P2_SIZE);
    load_factor<N1, M1, P1_STEP>(left, p1, false);
    if constexpr (HAS_P2) load_factor<N2, K2, P2_STEP>(right, p2, false);
    Sums sums;
    clear(sums.p1);
    clear(sums.p2);
    auto load = [=](uint32_t row, float *to) {
        copy_row<X_STEP>(to, x + row * ROW);
        copy_row<G_STEP>(to + X_SIZE, dy + row * ROW);
    };
    auto work = [=, &sums](uint32_t row, const float *tile) {
        Shared at = {left, right, tile, tile + X_SIZE};
        put_dx(at, dx + row * ROW);
        add_dp1(at, sums);
        if constexpr (HAS_P2) add_dp2(at, sums);
    };
    over_rows<X_SIZE + G_SIZE>(tiles, rows, load, work);
    put_sums(sums, tiles, parts + (uint64_t)blockIdx.x * SUMS);
}

/// dP1 and dP2 from the parts of `blocks` blocks, 32 elements a block by 8 threads each; a null one is left out.
extern "C" __global__ void __launch_bounds__(256)
    kronecker_sum(const float *parts, float *dp1, float *dp2, uint32_t blocks) {
    begin();
    __shared__ float sums[8][32];
    uint32_t lane = threadIdx.x % 32, part = threadIdx.x / 32, at = blockIdx.x * 32 + lane;
    float sum = 0.0f;
    if (at < SUMS)
#pragma unroll 4
        for (uint32_t block = part; block < blocks; block += 8) sum += parts[(uint64_t)block * SUMS + at];
    sums[part][lane] = sum;
    __syncthreads();
    if (part != 0 || at >= SUMS) return;
    for (int other = 1; other < 8; other++) sum += sums[other][lane];
    if (at < N1 * N1) {
        if (dp1) dp1[at] = sum;
    } else if (dp2) {
        dp2[at - N1 * N1] = sum;
    }
}
