// A row as X [N1, N2] in shared memory, and P1^T X P2 of it by warps that each have MT tiles of 16 rows of Y, or some of their
// columns.
//
// Definitions: as tensor.cu has them, and COLUMN_WARPS, the warps that share a tile of rows (1; without P2 also more).
#ifndef COLUMN_WARPS
#define COLUMN_WARPS 1
#endif

constexpr int ROW = N1 * N2;
constexpr int M_TILES = up_to(N1, 16) / 16;
constexpr int N1P = M_TILES * 16;
constexpr int N2P = up_to(N2, 16);
constexpr int K1 = HAS_P1 ? M_TILES : 1;  // steps of 16 along N1
constexpr int K2 = N2P / 16;              // and along N2
constexpr int TILES = N2P / 8 / COLUMN_WARPS;  // tiles of 8 columns of a warp
constexpr int RUN = run_of(N2P);  // tiles whose columns are interleaved,
constexpr int COLUMNS = 2 * RUN;  // so that a thread has these consecutive ones
// Rows of X in shared memory must not begin at the same bank: where 16-byte pieces can't be permuted within
// 128 bytes, the distance of rows is an odd number of pieces.
constexpr bool SWIZZLE = N2P % 64 == 0;
constexpr int PITCH = N2P + (SWIZZLE ? 0 : 8);
constexpr int BLOCKS = up_to(N2P, 64) / 64;  // of 64 columns, as wgmma.cuh has them
constexpr int X_BYTES = WGMMA ? BLOCKS * N1P * 128 : N1P * PITCH * 2;
static_assert(N2 % VEC == 0, "loads must not cross rows of X");
static_assert(!WGMMA || (MT == 1 && HAS_P1), "warpgroups make 64 rows");
static_assert(COLUMN_WARPS == 1 || !HAS_P2, "the second product needs whole rows of the first");
static_assert(TILES % RUN == 0, "interleaved columns are one warp's");

// Where X is in shared memory, in elements.
__device__ constexpr int place_in(int row, int column) {
    if (WGMMA) return (column / 64 * N1P + row) * 64 + (column % 64 / 8 ^ row % 8) * 8 + column % 8;
    return row * PITCH + (SWIZZLE ? (column / 8 ^ row % 8) * 8 + column % 8 : column);
}

// Without a second product, X itself must be interleaved: where column c goes.
__device__ constexpr int place(int c) {
    if (HAS_P2) return c;
    int in = c % (RUN * 8);
    return c - in + in % COLUMNS / 2 * 8 + in / COLUMNS * 2 + in % 2;
}

// Writes a part of X, scaled, as f16 (and what that loses).
__device__ inline void write_chunk(half_t *x, const float (&h)[VEC], float scale, int chunk) {
    int row = chunk * VEC / N2, column = chunk * VEC % N2;
    __align__(16) uint32_t high[VEC / 2], low[VEC / 2];
#pragma unroll
    for (int j = 0; j < VEC / 2; j++) {
        float a = h[2 * j] * scale, b = h[2 * j + 1] * scale;
        high[j] = pack_f16(a, b);
        if (SPLIT) low[j] = pack_rest(high[j], a, b);
    }
    if (HAS_P2) {
        typedef typename Word<VEC * 2>::type Packed;
        half_t *to = x + place_in(row, column);
        *(Packed *)to = *(const Packed *)high;
        if (SPLIT) *(Packed *)(to + X_BYTES / 2) = *(const Packed *)low;
        return;
    }
#pragma unroll
    for (int j = 0; j < VEC / 2; j++) {
        half_t *to = x + place_in(row, place(column + 2 * j));
        *(uint32_t *)to = high[j];
        if (SPLIT) *(uint32_t *)(to + X_BYTES / 2) = low[j];
    }
}

// P1^T for the warp's rows, unless it stays in shared memory.
struct Factors {
    Left high[MT][P1_SHARED ? 1 : K1];
    Left low[MT][SPLIT_P && !P1_SHARED ? K1 : 1];
};

typedef float Tile[4];

// One step of P1^T for a tile of rows.
__device__ inline void load_step(Left &high, Left &low, const uint4 *packed, int tile, int k, int lane) {
    if (tile >= M_TILES) tile = 0;  // no rows of Y: nothing will be written
    int at = (tile * K1 + k) * 32 + lane;
    *(uint4 *)high.word = packed[at];
    if (SPLIT_P) *(uint4 *)low.word = packed[packed_words(N1) + at];
}

__device__ inline void load_left(Factors &p1, const uint4 *packed, int warp, int lane) {
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int k = 0; k < K1; k++)
            load_step(p1.high[m][P1_SHARED ? 0 : k], p1.low[m][SPLIT_P && !P1_SHARED ? k : 0], packed, warp * MT + m, k, lane);
    }
}

// The left operand of the second product: 16 columns of W, or of X where P1 is the identity.
__device__ inline void left_operand(Left &high, Left &low, const Tile *w, int k, uint32_t x, int row, int lane) {
    if (!HAS_P1) {
        uint32_t at = x + place_in(row + lane % 16, k * 16 + lane / 16 * 8) * 2;
        load_matrices(high.word, at);
        if (SPLIT) load_matrices(low.word, at + X_BYTES);
        return;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const Tile &c = w[2 * k + j / 2];
        float a = c[j % 2 * 2], b = c[j % 2 * 2 + 1];
        high.word[j] = pack_f16(a, b);
        if (SPLIT) low.word[j] = pack_rest(high.word[j], a, b);
    }
}

#if !WGMMA
// W = P1^T X for the warp's rows, of the columns from `first` on.
__device__ inline void multiply_left(Tile (&w)[MT][TILES], const Factors &p1, const uint4 *packed, uint32_t x, int warp, int lane,
                                     int first = 0) {
#pragma unroll
    for (int k = 0; k < K1; k++) {
        Left high[MT], low[MT];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            if (P1_SHARED) load_step(high[m], low[m], packed, warp * MT + m, k, lane);
            else high[m] = p1.high[m][P1_SHARED ? 0 : k], low[m] = p1.low[m][SPLIT_P && !P1_SHARED ? k : 0];
        }
#pragma unroll
        for (int pair = 0; pair < TILES / 2; pair++) {
            uint32_t at = x + place_in(k * 16 + lane % 16, first + pair * 16 + lane / 16 * 8) * 2;
            uint32_t b[4], rest[4];
            load_transposed(b, at);
            if (SPLIT) load_transposed(rest, at + X_BYTES);
#pragma unroll
            for (int m = 0; m < MT; m++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    Tile &c = w[m][2 * pair + j];
                    if (SPLIT) multiply(c, high[m], rest[2 * j], rest[2 * j + 1]);
                    if (SPLIT_P) multiply(c, low[m], b[2 * j], b[2 * j + 1]);
                    multiply(c, high[m], b[2 * j], b[2 * j + 1]);
                }
            }
        }
    }
}

// Y = W P2 for the warp's rows.
__device__ inline void multiply_right(Tile (&y)[MT][TILES], const Tile (&w)[MT][TILES], const uint4 *p2, uint32_t x, int warp, int lane) {
    constexpr int words = packed_words(N2);
    Left high[MT][K2], low[MT][SPLIT ? K2 : 1];
#pragma unroll
    for (int k = 0; k < K2; k++) {
#pragma unroll
        for (int m = 0; m < MT; m++) left_operand(high[m][k], low[m][SPLIT ? k : 0], w[m], k, x, (warp * MT + m) * 16, lane);
    }
#pragma unroll
    for (int k = 0; k < K2; k++) {
#pragma unroll
        for (int pair = 0; pair < TILES / 2; pair++) {
            uint4 b = p2[(k * (TILES / 2) + pair) * 32 + lane], rest;
            if (SPLIT_P) rest = p2[words + (k * (TILES / 2) + pair) * 32 + lane];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                Tile &even = y[m][2 * pair], &odd = y[m][2 * pair + 1];
                if (SPLIT) multiply(even, low[m][k], b.x, b.y), multiply(odd, low[m][k], b.z, b.w);
                if (SPLIT_P) multiply(even, high[m][k], rest.x, rest.y), multiply(odd, high[m][k], rest.z, rest.w);
                multiply(even, high[m][k], b.x, b.y);
                multiply(odd, high[m][k], b.z, b.w);
            }
        }
    }
}
#endif

// The COLUMNS values of a row that a thread holds, in order: half 0 is row g, half 1 row g + 8.
__device__ inline float value(const Tile (&y)[TILES], int run, int half, int column) {
    return y[run * RUN + column / 2][half * 2 + column % 2];
}

// Writes codes of the 16 rows of Y from `first` on, of the columns from `first_column` on.
template <bool CLIPPED>
__device__ inline void write_codes(int8_t *codes, const Tile (&y)[TILES], const Quantiser &q, float inverse, int first, int lane,
                                   int first_column = 0) {
#pragma unroll
    for (int run = 0; run < TILES / RUN; run++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = first + lane / 4 + half * 8, column = first_column + run * RUN * 8 + lane % 4 * COLUMNS;
            uint32_t packed[COLUMNS / 4];
#pragma unroll
            for (int i = 0; i < COLUMNS / 4; i++)
                packed[i] = pack_codes<CLIPPED>(q, inverse, value(y, run, half, 4 * i), value(y, run, half, 4 * i + 1),
                                                value(y, run, half, 4 * i + 2), value(y, run, half, 4 * i + 3));
            if (row >= N1) continue;
            int8_t *to = codes + row * N2 + column;
            if (N2 % COLUMNS == 0) {
                if (column < N2) *(typename Word<COLUMNS>::type *)to = *(const typename Word<COLUMNS>::type *)packed;
            } else {
#pragma unroll
                for (int i = 0; i < COLUMNS; i++)
                    if (column + i < N2) to[i] = (int8_t)(packed[i / 4] >> i % 4 * 8);
            }
        }
    }
}
