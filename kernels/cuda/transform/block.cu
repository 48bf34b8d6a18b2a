// Few rows times P1 (x) P2, each by a block: the same as cluster.cu for rows so short that blocks would wait longer for
// each other than they save. Codes only.
//
// A warp has a tile of 16 rows of Y, or without P2 some columns of one. Factors and the norm's weight have arrived before the
// kernel in front has ended.
//
// Definitions: T, N1 (up to 128), N2 (a multiple of 8), HAS_P1 (1), HAS_P2, SOURCE (but ADD_NORM), SPLIT, SPLIT_P, P1_SHARED (0),
// MT (1), VEC (8), COLUMN_WARPS.

constexpr int WARPS = 8;
constexpr int THREADS = WARPS * 32;
constexpr int CHUNKS = ROW / VEC;
constexpr int ROUNDS = (CHUNKS + THREADS - 1) / THREADS;
constexpr int HALVES = SPLIT ? 2 : 1;
constexpr int P2_WORDS = HAS_P2 ? packed_words(N2) * (SPLIT_P ? 2 : 1) : 0;
constexpr int BUSY_WARPS = M_TILES * COLUMN_WARPS;
static_assert(BUSY_WARPS <= WARPS, "a warp has one tile");

struct Shared {
    uint4 right[HAS_P2 ? P2_WORDS : 1];
    __align__(16) half_t x[X_BYTES / 2 * HALVES];
    float2 boxes[2][WARPS];
};

// P1^T X P2 of a tile of rows, of the columns from `first` on.
__device__ inline void transform(Tile (&y)[1][TILES], const Factors &left, const Shared &s, int tile, int first, int lane) {
    uint32_t from = shared_address(s.x);
    if constexpr (HAS_P2) {
        Tile w[1][TILES] = {};
        multiply_left(w, left, nullptr, from, tile, lane);
        multiply_right(y, w, s.right, from, tile, lane);
    } else {
        multiply_left(y, left, nullptr, from, tile, lane, first);
    }
}

// Operands as of transform_rows in tensor.cu; the grid is n_rows blocks.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
transform_row(const T *x, const T *other, const T *weight, T *, int64_t stride, float epsilon, const uint4 *factors, int32_t,
              float clip_min, float clip_max, float q_max, int8_t *codes, float *scales, T *) {
    extern __shared__ __align__(16) char memory[];
    Shared &s = *(Shared *)memory;
    int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    int tile = warp % M_TILES, first = warp / M_TILES * TILES * 8;  // of the warp's rows and columns
    int64_t at = blockIdx.x;
    Quantiser q = {clip_min, clip_max, q_max};
    let_next_kernel_start();
    Factors left;
    load_left(left, factors, tile, lane);
    for (int i = thread; i < P2_WORDS; i += THREADS) copy_async<16>(s.right + i, factors + 2 * packed_words(N1) + i);
    copies_started();
    // What lies beyond X in its tiles must be zero.
    if (N1P * N2P != ROW)
        for (int i = thread; i < X_BYTES * HALVES / 16; i += THREADS) ((uint4 *)s.x)[i] = make_uint4(0, 0, 0, 0);
    Chunk<VEC> a[ROUNDS], b[ROUNDS], weights[ROUNDS], none;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++)
        if (HAS_NORM && i * THREADS + thread < CHUNKS) weights[i] = load_chunk<VEC>(weight + (i * THREADS + thread) * VEC);
    wait_for_copies();
    __syncthreads();
    wait_for_previous_kernel();

    x += at * stride;
    other += at * stride;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int chunk = i * THREADS + thread;
        if (chunk >= CHUNKS) break;
        a[i] = load_chunk<VEC>(x + chunk * VEC);
        if (PARTS == 2) b[i] = load_chunk<VEC>(other + chunk * VEC);
    }
    float h[ROUNDS][VEC], magnitude = 0.0f;
    Stats stats = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        if (i * THREADS + thread >= CHUNKS) break;
        combine<VEC>(h[i], a[i], b[i], weights[i], none, stats);
#pragma unroll
        for (int j = 0; j < VEC; j++) magnitude = fmaxf(magnitude, fabsf(h[i][j]));
    }
    reduce_block<true, WARPS>(magnitude, stats.squares, s.boxes[0]);
    float inverse = inverse_rms(stats.squares, ROW, epsilon), unscale;
    float factor = normalising(magnitude * inverse, unscale) * inverse;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++)
        if (i * THREADS + thread < CHUNKS) write_chunk(s.x, h[i], factor, i * THREADS + thread);
    __syncthreads();

    Tile y[1][TILES] = {};
    float high = 0.0f, low = 0.0f;
    if (warp < BUSY_WARPS) {
        transform(y, left, s, tile, first, lane);
#pragma unroll
        for (int i = 0; i < TILES * 4; i++) high = fmaxf(high, y[0][i / 4][i % 4]), low = fmaxf(low, -y[0][i / 4][i % 4]);
    }
    reduce_block<false, WARPS>(high, low, s.boxes[1]);
    float scale = row_scale(q, high * unscale, -low * unscale);
    if (thread == 0) scales[at] = scale;
    if (warp >= BUSY_WARPS) return;
    if (clips(q)) write_codes<true>(codes + at * ROW, y[0], q, unscale / scale, tile * 16, lane, first);
    else write_codes<false>(codes + at * ROW, y[0], q, unscale / scale, tile * 16, lane, first);
}
