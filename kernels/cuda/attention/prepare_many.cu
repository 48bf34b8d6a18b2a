// As prepare.cu, for many rows of 64 or 128 channels, of which all or none are rotated, in halves. A warp has 16 rows in
// registers from where they are read to where they are written; it waits for no other but, with WGMMA (sm_90a), for
// the three that multiply together with it.
//
// Thread t of the four that share row g of a product's operand (and g + 8) holds the row's channels 32j + 8t..
// 32j + 8t + 8. So it reads and writes 16 bytes at a time, and has both channels of a rotation. Rows and columns of the
// matrices lie in shared memory in the order that this gives them as operands: row 32j + 8t + 4u + 2h + e at
// 32j + 16u + 8h + 2t + e, and column 32j + 8t + 2w + e at 32j + 8w + 2t + e (e, h, u of 0 and 1, w of 0..4). They are
// in blocks of 64 columns, rows of 128 bytes whose 16-byte pieces are exchanged by XOR with row % 8.
#if FORMAT != 32 && HEAD_DIM % 64 == 0 && HEAD_DIM <= 128
#ifndef WGMMA
#define WGMMA 0
#endif
constexpr int THREADS = 384, GROUPS = THREADS / 128, GROUP_ROWS = 64;
constexpr int QUARTERS = D / 32, COLUMN_BLOCK = D * 128, MATRIX_BYTES = D * D * 2;

/// What a thread holds of tile n, 8 columns of the product or as many channels: a pair of row g, then one of row g + 8.
using Held = float[D / 2];

/// Puts a matrix where products read it.
__device__ __forceinline__ void spread_matrix(char* to, const T* matrix) {
    for (int i = threadIdx.x; i < D * EIGHTS; i += THREADS) {
        int row = i / EIGHTS, c = i % EIGHTS;
        uint4 x = reinterpret_cast<const uint4*>(matrix)[i];
        int line = row / 32 * 32 + (row / 4 & 1) * 16 + (row / 2 & 1) * 8 + (row / 8 & 3) * 2 + (row & 1);
        unsigned words[4] = {x.x, x.y, x.z, x.w};
        char* block = to + c / 8 * COLUMN_BLOCK + line * 128 + c % 4 * 4;
#pragma unroll
        for (int w = 0; w < 4; w++) *reinterpret_cast<unsigned*>(block + ((c / 4 % 2 * 4 + w) ^ (line & 7)) * 16) = words[w];
    }
}

/// acc += step `step` of 16 channels, an operand, times its rows of the matrix at `matrix`.
__device__ __forceinline__ void multiply_step(Held& acc, const unsigned (&a)[4], unsigned matrix, int step) {
    constexpr bool B = IS_BF16<T>;
#if WGMMA
    product<B>(acc, a, tile_descriptor(matrix + step * 2048, COLUMN_BLOCK, 1024));
#else
    int lane = threadIdx.x % 32;
    unsigned at = matrix + step * 2048 + (lane & 15) * 128 + ((lane >> 4) ^ (lane & 7)) * 16;
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        unsigned b[4];
        ldmatrix4_transposed(b, at + n / 4 * COLUMN_BLOCK ^ n % 4 * 32);
        mma16816<B>(reinterpret_cast<float(&)[4]>(acc[8 * n]), a, b[0], b[1]);
        mma16816<B>(reinterpret_cast<float(&)[4]>(acc[8 * n + 4]), a, b[2], b[3]);
    }
#endif
}

/// Four channels of both rows, and the four half a row behind them: [half][row][channel].
using Fours = float[2][2][4];

__device__ __forceinline__ void load4(float (&x)[4], const float* from) {
    float4 a = *reinterpret_cast<const float4*>(from);
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
}
template <class A>
__device__ __forceinline__ void load4(float (&x)[4], const A* from) {
    uint2 a = *reinterpret_cast<const uint2*>(from);
    float2 low = unpack16<IS_BF16<A>>(a.x), high = unpack16<IS_BF16<A>>(a.y);
    x[0] = low.x, x[1] = low.y, x[2] = high.x, x[3] = high.y;
}

/// Rotates them; `at` is the first channel.
__device__ __forceinline__ void rotate(Fours& x, const Rotation& by, const Row (&rows)[2], int at) {
    float cos[4], sin[4];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        // With 16 heads or more both rows are mostly of one position.
        if (r == 0 || rows[0].i != rows[1].i || rows[0].b != rows[1].b) {
            long long angles = ((long long)rows[r].b * by.batch_step + rows[r].i) * (D / 2) + at;
            load4(cos, by.cos + angles);
            load4(sin, by.sin + angles);
        }
#pragma unroll
        for (int c = 0; c < 4; c++) {
            float first = x[0][r][c], second = x[1][r][c];
            x[0][r][c] = __fsub_rn(__fmul_rn(cos[c], first), __fmul_rn(sin[c], second));
            x[1][r][c] = __fadd_rn(__fmul_rn(sin[c], first), __fmul_rn(cos[c], second));
        }
    }
}

/// Puts one half, which is step `step` of 16 channels, as it is.
__device__ __forceinline__ void put_step(Held& acc, int step, const float (&x)[2][4]) {
#pragma unroll
    for (int i = 0; i < 8; i++) acc[8 * step + i] = x[i / 2 % 2][i / 4 * 2 + i % 2];
}

/// Eight j of row g + 8r.
__device__ __forceinline__ void eight_of(float (&x)[8], const Held& acc, int r, int j) {
#pragma unroll
    for (int e = 0; e < 8; e++) x[e] = acc[16 * j + e / 2 * 4 + 2 * r + e % 2];
}

/// Four channels of both rows as an operand, rounded to 16 bits. What that leaves over is x then.
__device__ __forceinline__ void operand(unsigned (&a)[4], float (&x)[2][4]) {
    constexpr bool B = IS_BF16<T>;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float &low = x[i % 2][i / 2 * 2], &high = x[i % 2][i / 2 * 2 + 1];
        a[i] = pack16<B>(low, high);
        float2 rounded = unpack16<B>(a[i]);
        low -= rounded.x, high -= rounded.y;
    }
}

/// acc += both halves, which are steps `step` and `step + D / 32`, times their rows of the matrix; rows in PIECES of 16 bits.
template <int PIECES>
__device__ __forceinline__ void multiply_fours(Held& acc, int step, Fours& x, unsigned matrix) {
#pragma unroll
    for (int piece = 0; piece < PIECES; piece++) {
        unsigned a[2][4];
        operand(a[0], x[0]);
        operand(a[1], x[1]);
#if WGMMA
        pin(acc);
        pin(a[0]);
        pin(a[1]);
        products_may_start();
#endif
        multiply_step(acc, a[0], matrix, step);
        multiply_step(acc, a[1], matrix, step + D / 32);
#if WGMMA
        products_started();
        wait_for_products<0>();
        pin(acc);
#endif
    }
}

/// Writes row g + 8r as elements of T.
__device__ __forceinline__ void write_row(T* to, const Held& acc, int r) {
#pragma unroll
    for (int j = 0; j < QUARTERS; j++) {
        float x[8];
        eight_of(x, acc, r, j);
        store8(to + 32 * j, x);
    }
}

/// Quantises row g + 8r and writes it to row `at` of the cache, if it is `inside`. All lanes come here.
__device__ __forceinline__ void write_code_row(const Held& acc, int r, int t, bool inside, long long at, char* to,
                                               float2* parameters, Clip clip) {
    float low = INFINITY_F, high = MINUS_INFINITY;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        low = fminf(low, fminf(acc[4 * n + 2 * r], acc[4 * n + 2 * r + 1]));
        high = fmaxf(high, fmaxf(acc[4 * n + 2 * r], acc[4 * n + 2 * r + 1]));
    }
    float2 grid = grid_of(-quad_max(-low), quad_max(high), clip);
    float inverse = __frcp_rn(grid.x);
    if (!inside) return;
    if (t == 0) parameters[at] = grid;
#pragma unroll
    for (int j = 0; j < QUARTERS; j++) {
        float x[8];
        eight_of(x, acc, r, j);
        put_codes(to + at * ROW_BYTES + (4 * j + t) * FORMAT, x, grid, inverse);
    }
}

/// The pairs of words that hold four channels: [row][eight][half of an eight].
using Loaded = uint2[2][QUARTERS][2];

/// Rotates rows and multiplies them in `PIECES` of 16 bits, if in any.
template <int PIECES>
__device__ __forceinline__ void take_steps(Held& acc, const Loaded& loaded, const Arguments& a, bool rotated, const Row (&rows)[2],
                                           int t, unsigned matrix) {
#pragma unroll
    for (int step = 0; step < D / 32; step++) {
        int j = step / 2, u = step % 2;
        Fours x;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            load4(x[0][r], reinterpret_cast<const T*>(&loaded[r][j][u]));
            load4(x[1][r], reinterpret_cast<const T*>(&loaded[r][j + QUARTERS / 2][u]));
        }
        if (rotated) rotate(x, a.rotation, rows, 32 * j + 8 * t + 4 * u);
        if (PIECES == 0) put_step(acc, step, x[0]), put_step(acc, step + D / 32, x[1]);
        else multiply_fours<PIECES>(acc, step, x, matrix);
    }
}

/// A warp takes 16 rows of a kind from `first` on; `matrix` is the kind's matrix, if that has one.
__device__ __forceinline__ void take_16(const Arguments& a, Kind kind, bool has_matrix, unsigned matrix, int first, int n_rows) {
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    Row rows[2] = {row_of(a, kind, first + g, n_rows), row_of(a, kind, first + g + 8, n_rows)};
    Loaded loaded;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const T* from = source(a, kind, rows[r]) + 8 * t;
#pragma unroll
        for (int j = 0; j < QUARTERS; j++) {
            uint4 x = *reinterpret_cast<const uint4*>(from + 32 * j);
            loaded[r][j][0] = make_uint2(x.x, x.y), loaded[r][j][1] = make_uint2(x.z, x.w);
        }
    }
    Held acc = {};
    // Keys that become codes in two pieces, as in head_matrix.cuh.
    if (!has_matrix) take_steps<0>(acc, loaded, a, kind != VALUE && a.rotation.cos, rows, t, matrix);
    else if (CODES && kind == KEY) take_steps<2>(acc, loaded, a, a.rotation.cos, rows, t, matrix);
    else take_steps<1>(acc, loaded, a, a.rotation.cos, rows, t, matrix);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const Row& row = rows[r];
        bool inside = first + g + 8 * r < n_rows;
        if (kind == QUERY) {
            if (inside) write_row(a.q_out + (((long long)row.b * a.n_new + row.i) * a.q_heads + row.head) * D + 8 * t, acc, r);
            continue;
        }
        int position = *a.past_length + row.i;
        inside = inside && position < a.capacity;
        long long at = cache_row(row.b, a.kv_heads, row.head, a.capacity, position);
        char* to = kind == KEY ? a.keys : a.values;
        if constexpr (CODES) {
            Clip clip{kind == KEY ? a.key_clip.min : a.value_clip.min, kind == KEY ? a.key_clip.max : a.value_clip.max};
            write_code_row(acc, r, t, inside, at, to, kind == KEY ? a.key_parameters : a.value_parameters, clip);
        } else {
            if (inside) write_row(reinterpret_cast<T*>(to) + at * D + 8 * t, acc, r);
        }
    }
}

/// Keys first, which take longest, then queries, then values.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
prepare_many(ROW_PARAMETERS, int q_tiles, int kv_tiles) {
    extern __shared__ uint4 shared[];
    Arguments a = ROW_ARGUMENTS;
    let_next_kernel_start();
    unsigned past = (1024 - shared_address(shared) % 1024) % 1024;
    char *q_held = reinterpret_cast<char*>(shared) + past, *k_held = q_held + (q_matrix ? MATRIX_BYTES : 0);
    if (q_matrix) spread_matrix(q_held, q_matrix);
    if (k_matrix) spread_matrix(k_held, k_matrix);
#if WGMMA
    show_to_products();
#endif
    __syncthreads();
    wait_for_previous_kernel();

    int warp = threadIdx.x / 32, q_rows = batch * n_new * q_heads, kv_rows = batch * n_new * kv_heads;
    for (int tile = blockIdx.x + warp / 4 * gridDim.x; tile < q_tiles + 2 * kv_tiles; tile += GROUPS * gridDim.x) {
        Kind kind = tile < kv_tiles ? KEY : tile < kv_tiles + q_tiles ? QUERY : VALUE;
        int first = kind == KEY ? tile : kind == QUERY ? tile - kv_tiles : tile - kv_tiles - q_tiles;
        const T* matrix = kind == KEY ? k_matrix : kind == QUERY ? q_matrix : nullptr;
        unsigned held = shared_address(kind == KEY ? k_held : q_held);
        take_16(a, kind, matrix, held, first * GROUP_ROWS + warp % 4 * 16, kind == QUERY ? q_rows : kv_rows);
    }
}
#endif
