// What the kernels share that take rows X [n1, n2] through factors P1 [n1, n1] and P2 [n2, n2]: products of
// small matrices on TF32 tensor cores, whose results stay in registers as factors of the next.
//
// Definitions: N1 and N2; HAS_P2, 0 if P2 is the identity; WARPS that share a row, and GROUPS of them a block.
#pragma once
#include "async.cuh"
#include "lanes.cuh"

#define INLINE static __device__ __forceinline__

/// Threads that share a row.
constexpr int LANES = 32 * WARPS;
/// Elements of a row.
constexpr uint64_t ROW = N1 * N2;

constexpr int up_to(int n, int step) { return (n + step - 1) / step * step; }

/// n1 and n2 as columns or as the inner size of a product, and as its rows.
constexpr int K1 = up_to(N1, 8), K2 = up_to(N2, 8);
constexpr int M1 = up_to(N1, 16), M2 = up_to(N2, 16);

/// Steps between rows of `n` elements in shared memory by which the lanes of a warp hit all banks: 8 (modulo
/// 16) where lane / 4 goes along a row, or pairs are read from rows lane / 4; 4 (modulo 8) where lane / 4 goes
/// from row to row, or each lane % 4 reads two rows.
constexpr int step_8(int n) { return n + (24 - n % 16) % 16; }
constexpr int step_4(int n) { return n + (12 - n % 8) % 8; }

/// Tiles of 16 rows of a product that a warp computes, if `tiles` are shared among the warps of a group.
constexpr int own(int tiles) { return (tiles + WARPS - 1) / WARPS; }

/// Those of them that it computes together, each with `columns` tiles: each operand is then read once for all.
constexpr int together(int tiles, int columns) {
    return tiles % WARPS == 0 && own(tiles) * columns <= 12 ? own(tiles) : 1;
}

// Operands of `mma.sync`, with g = lane / 4 and t = lane % 4. a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);
// b: (t, g), (t + 4, g); c: (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1).
struct Left {
    uint32_t v[4];
};

INLINE int lane_row() { return threadIdx.x % 32 / 4; }
INLINE int lane_column() { return threadIdx.x % 4; }

/// x, rounded to TF32.
INLINE uint32_t tf32(float x) {
    uint32_t y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

/// c [16, 8] += a [16, 8] b [8, 8].
INLINE void multiply_add(float (&c)[4], const Left &a, uint2 b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.v[0]), "r"(a.v[1]), "r"(a.v[2]), "r"(a.v[3]), "r"(b.x), "r"(b.y));
}

/// A result as the left operand of another product. The columns that a lane holds, 2 t and 2 t + 1, stand where
/// t and t + 4 would: the right operand takes its rows in the same order.
INLINE Left as_left(const float (&c)[4]) { return {{tf32(c[0]), tf32(c[2]), tf32(c[1]), tf32(c[3])}}; }

template <int TILES, int COLUMNS>
INLINE void clear(float (&c)[TILES][COLUMNS][4]) {
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) c[i][n][j] = 0.0f;
}

/// c = a b, for tiles `first`, `first` + WARPS, .. of the rows of a, and all 8 COLUMNS columns of b; the inner
/// size is 8 INNER. a(m, k) and b(k, n) give elements, rounded.
template <int INNER, int TILES, int COLUMNS, typename A, typename B>
INLINE void product(float (&c)[TILES][COLUMNS][4], int first, A a, B b) {
    // More would be loaded ahead than there are registers for.
    constexpr int AT_ONCE = INNER * TILES * COLUMNS <= 24 ? INNER : 2;
    int g = lane_row(), t = lane_column();
    clear(c);
#pragma unroll AT_ONCE
    for (int k = t; k < t + 8 * INNER; k += 8) {
        Left left[TILES];
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            int m = 16 * (first + WARPS * i) + g;
            left[i] = {{a(m, k), a(m + 8, k), a(m, k + 4), a(m + 8, k + 4)}};
        }
#pragma unroll
        for (int n = 0; n < COLUMNS; n++) {
            uint2 right = make_uint2(b(k, 8 * n + g), b(k + 4, 8 * n + g));
#pragma unroll
            for (int i = 0; i < TILES; i++) multiply_add(c[i][n], left[i], right);
        }
    }
}

/// As `product`, kept as left operands.
template <int INNER, int TILES, int COLUMNS, typename A, typename B>
INLINE void left_product(Left (&to)[TILES][COLUMNS], int first, A a, B b) {
    float c[TILES][COLUMNS][4];
    product<INNER>(c, first, a, b);
#pragma unroll
    for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int n = 0; n < COLUMNS; n++) to[i][n] = as_left(c[i][n]);
}

/// c += a b for tiles `from`.. of c, and columns `column`.. of b that come before tile `END`; b(k, n) gives
/// elements (k, n) and (k + 1, n), rounded.
template <int END, int ALL, int TILES, int INNER, int COLUMNS, typename B>
INLINE void add_product(float (&c)[ALL][COLUMNS][4], int from, const Left (&a)[TILES][INNER], int column, B b) {
    int g = lane_row(), t = lane_column();
#pragma unroll
    for (int k = 0; k < INNER; k++)
#pragma unroll
        for (int n = 0; n < COLUMNS; n++) {
            if (column + n >= END) continue;
            uint2 right = b(8 * k + 2 * t, 8 * (column + n) + g);
#pragma unroll
            for (int i = 0; i < TILES; i++) multiply_add(c[from + i][n], a[i][k], right);
        }
}

/// Writes tile (m, n) of a row of results [n1, n2].
INLINE void put(float *y, int m, int n, const float (&c)[4]) {
    n = 8 * n + 2 * lane_column();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = 16 * m + lane_row() + 8 * half;
        float *to = y + row * N2 + n;
        bool is_inside = row < N1 && n < N2;
        if constexpr (N2 % 2 == 0) {
            if (is_inside) *(float2 *)to = make_float2(c[2 * half], c[2 * half + 1]);
        } else {
            if (is_inside) to[0] = c[2 * half];
            if (is_inside && n + 1 < N2) to[1] = c[2 * half + 1];
        }
    }
}

/// Writes a b as rows of results; `first` and b as above.
template <int TILES, int INNER, typename B>
INLINE void put_product(float *y, int first, const Left (&a)[TILES][INNER], B b) {
    constexpr int COLUMNS = K2 / 8, AT_ONCE = COLUMNS < 4 ? COLUMNS : 4;
#pragma unroll
    for (int column = 0; column < COLUMNS; column += AT_ONCE) {
        float c[TILES][AT_ONCE][4];
        clear(c);
        add_product<COLUMNS>(c, 0, a, column, b);
#pragma unroll
        for (int i = 0; i < TILES; i++)
#pragma unroll
            for (int n = 0; n < AT_ONCE; n++)
                if (column + n < COLUMNS) put(y, first + WARPS * i, column + n, c[i][n]);
    }
}

/// A factor [N, N], or its transpose, rounded, and zeros to [ROWS, STEP]; null is the identity.
template <int N, int ROWS, int STEP>
INLINE void load_factor(uint32_t *to, const float *p, bool transposed) {
    for (int at = threadIdx.x; at < ROWS * STEP; at += LANES * GROUPS) {
        int row = at / STEP, column = at % STEP;
        float value = 0.0f;
        if (row < N && column < N)
            value = p == nullptr ? row == column : p[transposed ? column * N + row : row * N + column];
        to[at] = tf32(value);
    }
}

/// Begins to copy a row [n1, n2] to shared memory, by the threads of a group.
template <int STEP>
INLINE void copy_row(float *to, const float *from) {
    constexpr int WIDTH = N2 % 4 == 0 ? 4 : 1, COLUMNS = N2 / WIDTH;
    uint32_t start = shared_address(to);
    for (int i = threadIdx.x % LANES; i < N1 * COLUMNS; i += LANES) {
        int row = i / COLUMNS, column = WIDTH * (i - row * COLUMNS);
        uint32_t at = start + 4 * (row * STEP + column);
        if constexpr (WIDTH == 4)
            copy_16(at, from + 4 * i, true);
        else
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from + i) : "memory");
    }
}

/// Waits for the warps that share a row.
INLINE void sync_group() {
    if constexpr (WARPS == 1)
        __syncwarp();
    else
        asm volatile("bar.sync %0, %1;" ::"r"(threadIdx.x / LANES + 1), "n"(LANES) : "memory");
}

/// Calls `work(row, tiles)` for all rows of this group, with the row's `SIZE` floats of tiles in shared memory
/// that `load(row, tiles)` began to copy while the row before was worked on. Rows take turns in going to the
/// blocks, then to their groups.
template <int SIZE, typename Load, typename Work>
INLINE void over_rows(float *tiles, uint32_t rows, Load load, Work work) {
    // What pads the tiles is never written again.
    for (int i = threadIdx.x; i < GROUPS * 2 * SIZE; i += LANES * GROUPS) tiles[i] = 0.0f;
    __syncthreads();
    uint32_t group = threadIdx.x / LANES, step = gridDim.x * GROUPS;
    uint32_t row = group * gridDim.x + blockIdx.x;
    tiles += group * 2 * SIZE;
    // As many turns for all groups as for the first: compute-sanitizer takes threads that passed unlike numbers of
    // barriers for ones that do not meet at the next.
    uint32_t turns = blockIdx.x < rows ? (rows - 1 - blockIdx.x) / step + 1 : 0;
    if (row < rows) load(row, tiles);
    copies_commit();
    for (uint32_t turn = 0; turn < turns; turn++, row += step) {
        // The copies of this row have come, and nobody reads the other tiles any more.
        copies_wait<0>();
        sync_group();
        if (row + step < rows) load(row + step, tiles + (turn + 1) % 2 * SIZE);
        copies_commit();
        if (row < rows) work(row, tiles + turn % 2 * SIZE);
    }
    __syncthreads();
}
