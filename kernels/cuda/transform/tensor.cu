// Rows times P1 (x) P2 on tensor cores: Y = P1^T X P2 with X a row as [N1, N2] (FlatQuant,
// arXiv 2410.09426, section 3.2), then codes and a scale of each row, or Y itself.
//
// A group of warps makes a row. Each warp has MT * 16 rows of Y: it computes W = P1^T X for them, with
// P1^T in its registers (or in shared memory) and X in shared memory, and then Y = W P2 with W in its
// registers. The blocks stay: they load the factors once. While a group computes, its next row arrives.
//
// Definitions: T, N1, N2, HAS_P1, HAS_P2, SOURCE, QUANTISE (else Y is written), SPLIT (X and W as sums of
// two f16 each: 22 bits, for codes of 8 bits), SPLIT_P (the factors too), P1_SHARED, MT, GROUPS, RESIDENT
// (blocks of a multiprocessor), VEC (elements of a load, which divides N2), PREFETCH, WGMMA (Hopper's products;
// then MT is 1 and P1 is there).

constexpr int WARPS = WGMMA ? up_to(M_TILES, 4) : (M_TILES + MT - 1) / MT;
constexpr int THREADS = WARPS * 32;
constexpr int CHUNKS = ROW / VEC;
constexpr int ROUNDS = (CHUNKS + THREADS - 1) / THREADS;
// Elements that a thread makes are kept until the row is measured, if they are few; else read twice.
constexpr bool TWICE = ROUNDS * VEC > (THREADS * GROUPS * RESIDENT > 256 ? 32 : 64);
constexpr int KEPT = TWICE ? 1 : ROUNDS;
constexpr int HALVES = SPLIT ? 2 : 1;
constexpr int P_HALVES = SPLIT_P ? 2 : 1;

// Shared memory of a block, in bytes: P2, X of each group, P1, weights, then raw row and boxes of each group.
constexpr int P2_HALF = WGMMA ? BLOCKS * N2P * 128 : packed_words(N2) * 16;
constexpr int P2_BYTES = HAS_P2 ? P2_HALF * P_HALVES : 0;
constexpr int P1_BYTES = HAS_P1 && P1_SHARED ? packed_words(N1) * 16 * P_HALVES : 0;
constexpr int WEIGHT_BYTES = HAS_NORM ? up_to(ROW * (int)sizeof(T), 16) : 0;
constexpr int RAW_BYTES = PREFETCH ? up_to(PARTS * ROW * (int)sizeof(T), 16) : 0;
constexpr int BOX_BYTES = 256;

// The group's own barrier.
__device__ inline void meet(int group) {
    asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(THREADS) : "memory");
}

__device__ inline float with(float a, float b, bool sum) { return sum ? a + b : fmaxf(a, b); }

// The largest value over the group, or the sum.
template <bool SUM> __device__ inline float reduce(float a, float *box, int group, int thread) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) a = with(a, __shfl_xor_sync(0xFFFFFFFF, a, i), SUM);
    if (WARPS == 1) {
        __syncwarp();
        return a;
    }
    if (thread % 32 == 0) box[thread / 32] = a;
    meet(group);
    a = box[0];
#pragma unroll
    for (int i = 1; i < WARPS; i++) a = with(a, box[i], SUM);
    return a;
}

// The largest of each of two values.
__device__ inline float2 reduce_both(float2 v, float2 *box, int group, int thread) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) {
        v.x = fmaxf(v.x, __shfl_xor_sync(0xFFFFFFFF, v.x, i));
        v.y = fmaxf(v.y, __shfl_xor_sync(0xFFFFFFFF, v.y, i));
    }
    if (WARPS == 1) {
        __syncwarp();
        return v;
    }
    if (thread % 32 == 0) box[thread / 32] = v;
    meet(group);
    v = box[0];
#pragma unroll
    for (int i = 1; i < WARPS; i++) v = make_float2(fmaxf(v.x, box[i].x), fmaxf(v.y, box[i].y));
    return v;
}

// Starts to copy a thread's part of a row.
__device__ inline void fetch_next(char *raw, const Rows &rows, int64_t row, int n_rows, int thread) {
    if (!PREFETCH || row >= n_rows) return;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int chunk = i * THREADS + thread;
        if (chunk >= CHUNKS) break;
        int64_t at = row * rows.stride + chunk * VEC;
        copy_async<VEC * sizeof(T)>(raw + chunk * VEC * sizeof(T), rows.x + at);
        if (PARTS == 2) copy_async<VEC * sizeof(T)>(raw + (ROW + chunk * VEC) * sizeof(T), rows.other + at);
    }
    copies_started();
}

// Where a part of a row is read.
struct Place {
    const T *x;
    const T *other;
    const T *weight;
    T *sum;
};

__device__ inline Place place_of(const char *raw, const T *weight, const Rows &rows, int64_t row, int chunk) {
    int64_t at = row * rows.stride + chunk * VEC;
    return {PREFETCH ? (const T *)raw + chunk * VEC : rows.x + at, PREFETCH ? (const T *)raw + ROW + chunk * VEC : rows.other + at,
            weight + chunk * VEC, rows.sum + row * ROW + chunk * VEC};
}

__device__ inline void make(float (&h)[VEC], const Place &place, Stats &stats) {
    Chunk<VEC> a = load_chunk<VEC>(place.x), b, w, sum;
    if (PARTS == 2) b = load_chunk<VEC>(place.other);
    if (HAS_NORM) w = load_chunk<VEC>(place.weight);
    combine<VEC>(h, a, b, w, sum, stats);
    if (SOURCE == ADD_NORM) store_chunk<VEC>(place.sum, sum);
}

// The thread's part of a row, in f32, or only its measures.
__device__ inline Stats read_row(float (&h)[KEPT][VEC], const char *raw, const T *weight, const Rows &rows, int64_t row, int thread) {
    Stats stats = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int chunk = i * THREADS + thread;
        if (chunk >= CHUNKS) break;
        Place place = place_of(raw, weight, rows, row, chunk);
        if (TWICE) {
            Chunk<VEC> a = load_chunk<VEC>(place.x), b;
            if (PARTS == 2) b = load_chunk<VEC>(place.other);
            measure<VEC>(a, b, stats);
        } else {
            make(h[TWICE ? 0 : i], place, stats);
        }
    }
    return stats;
}

__device__ inline void write_x(half_t *x, const float (&h)[KEPT][VEC], float scale, const char *raw, const T *weight, const Rows &rows, int64_t row,
                               int thread) {
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int chunk = i * THREADS + thread;
        if (chunk >= CHUNKS) break;
        if (TWICE) {
            float again[VEC];
            Stats none = {0.0f, 0.0f};
            make(again, place_of(raw, weight, rows, row, chunk), none);
            write_chunk(x, again, scale, chunk);
        } else {
            write_chunk(x, h[TWICE ? 0 : i], scale, chunk);
        }
    }
}

// Starts to copy P2 to shared memory.
__device__ inline void fetch_right(char *to, const uint4 *packed) {
    constexpr int words = packed_words(N2), pieces = N2P / 8;
    const uint4 *from = packed + (HAS_P1 ? 2 * packed_words(N1) : 0) + (WGMMA ? 2 * words : 0);
    for (int i = threadIdx.x; i < words * P_HALVES; i += blockDim.x) {
        int half = i / words, row = i % words / pieces, piece = i % pieces;
        int at = WGMMA ? half * P2_HALF + (piece / 8 * N2P + row) * 128 + (piece % 8 ^ row % 8) * 16 : i * 16;
        copy_async<16>(to + at, from + i);
    }
}

#if WGMMA
// W = P1^T X for the warp's rows.
__device__ inline void multiply_left(Tile (&w)[1][TILES], const Factors &p1, const uint4 *packed, uint32_t x, int warp, int lane) {
    Left high[K1], low[SPLIT_P ? K1 : 1];
#pragma unroll
    for (int k = 0; k < K1; k++) {
        if (P1_SHARED) load_step(high[k], low[SPLIT_P ? k : 0], packed, warp, k, lane);
        else high[k] = p1.high[0][P1_SHARED ? 0 : k], low[SPLIT_P ? k : 0] = p1.low[0][SPLIT_P && !P1_SHARED ? k : 0];
    }
    products_start();
#pragma unroll
    for (int k = 0; k < K1; k++) {
        if (SPLIT) multiply_rows<N2P>(w[0], high[k], x + X_BYTES + k * 2048, N1P, 1);
        if (SPLIT_P) multiply_rows<N2P>(w[0], low[SPLIT_P ? k : 0], x + k * 2048, N1P, 1);
        multiply_rows<N2P>(w[0], high[k], x + k * 2048, N1P, 1);
    }
    products_end();
}

// Y = W P2 for the warp's rows.
__device__ inline void multiply_right(Tile (&y)[1][TILES], const Tile (&w)[1][TILES], const uint4 *p2, uint32_t, int, int) {
    uint32_t right = shared_address(p2);
    Left high[K2], low[SPLIT ? K2 : 1];
#pragma unroll
    for (int k = 0; k < K2; k++) left_operand(high[k], low[SPLIT ? k : 0], w[0], k, 0, 0, 0);
    products_start();
#pragma unroll
    for (int k = 0; k < K2; k++) {
        if (SPLIT) multiply_rows<N2P>(y[0], low[SPLIT ? k : 0], right + k * 2048, N2P, 1);
        if (SPLIT_P) multiply_rows<N2P>(y[0], high[k], right + P2_HALF + k * 2048, N2P, 1);
        multiply_rows<N2P>(y[0], high[k], right + k * 2048, N2P, 1);
    }
    products_end();
}
#endif

__device__ inline void write_values(T *out, const Tile (&y)[TILES], float scale, int first, int lane) {
#pragma unroll
    for (int run = 0; run < TILES / RUN; run++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = first + lane / 4 + half * 8, column = run * RUN * 8 + lane % 4 * COLUMNS;
            Chunk<COLUMNS> chunk;
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) chunk.element[i] = from_f32<T>(value(y, run, half, i) * scale);
            if (row >= N1) continue;
            T *to = out + row * N2 + column;
            if (N2 % COLUMNS == 0) {
                if (column < N2) store_chunk<COLUMNS>(to, chunk);
            } else {
#pragma unroll
                for (int i = 0; i < COLUMNS; i++)
                    if (column + i < N2) to[i] = chunk.element[i];
            }
        }
    }
}

// The row's scale. Zeros beyond Y do no harm: of the extremes the one counts whose sign is right.
__device__ inline float scale_of(const Tile (&y)[MT][TILES], float unscale, const Quantiser &q, float2 *box, int group, int thread) {
    float high = 0.0f, low = 0.0f;
    bool symmetric = q.clip_min == q.clip_max;
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int i = 0; i < TILES * 4; i++) {
            float v = y[m][i / 4][i % 4];
            high = fmaxf(high, symmetric ? fabsf(v) : v);
            if (!symmetric) low = fmaxf(low, -v);
        }
    }
    if (symmetric) high = low = reduce<false>(high, (float *)box, group, thread);
    else {
        float2 both = reduce_both(make_float2(high, low), box, group, thread);
        high = both.x;
        low = both.y;
    }
    return row_scale(q, high * unscale, -low * unscale);
}

// One row by one group. `x` is its X in shared memory.
__device__ inline void finish_row(const Tile (&y)[MT][TILES], float unscale, const Quantiser &q, int8_t *codes, float *scales, T *out,
                                  float2 *box, int64_t row, int group, int thread) {
    int lane = thread % 32, warp = thread / 32;
    if (!QUANTISE) {
#pragma unroll
        for (int m = 0; m < MT; m++) write_values(out + row * ROW, y[m], unscale, (warp * MT + m) * 16, lane);
        return;
    }
    float scale = scale_of(y, unscale, q, box + 16, group, thread);
    float inverse = unscale / scale;
    if (thread == 0) scales[row] = scale;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        if (clips(q)) write_codes<true>(codes + row * ROW, y[m], q, inverse, (warp * MT + m) * 16, lane);
        else write_codes<false>(codes + row * ROW, y[m], q, inverse, (warp * MT + m) * 16, lane);
    }
}

// x, other, sum [rows, ROW], with `stride` between rows of x and other; weight [ROW]; factors of pack.cu;
// codes [rows, ROW], scales [rows] or out [rows, ROW].
extern "C" __global__ void __launch_bounds__(THREADS * GROUPS, RESIDENT)
transform_rows(const T *x, const T *other, const T *weight, T *sum, int64_t stride, float epsilon, const uint4 *factors,
               int32_t n_rows, float clip_min, float clip_max, float q_max, int8_t *codes, float *scales, T *out) {
    extern __shared__ __align__(1024) char shared[];
    int group = threadIdx.x / THREADS, thread = threadIdx.x % THREADS, warp = thread / 32, lane = thread % 32;
    uint4 *right = (uint4 *)shared;
    half_t *xs = (half_t *)(shared + P2_BYTES + group * X_BYTES * HALVES);
    uint4 *left_shared = (uint4 *)(shared + P2_BYTES + GROUPS * X_BYTES * HALVES);
    T *weights = (T *)((char *)left_shared + P1_BYTES);
    char *raw = (char *)weights + WEIGHT_BYTES + group * (RAW_BYTES + BOX_BYTES);
    float2 *box = (float2 *)(raw + RAW_BYTES);
    Rows rows = {x, other, weight, sum, stride, epsilon};
    Quantiser q = {clip_min, clip_max, q_max};

    Factors left;
    if (HAS_P2) fetch_right(shared, factors);
    for (int i = threadIdx.x; i < P1_BYTES / 16; i += blockDim.x) copy_async<16>(left_shared + i, factors + i);
    copies_started();
    if (HAS_P1 && !P1_SHARED) load_left(left, factors, warp, lane);
    if (HAS_NORM)
        for (int i = threadIdx.x; i < CHUNKS; i += blockDim.x) store_chunk<VEC>(weights + i * VEC, load_chunk<VEC>(weight + i * VEC));
    // What lies beyond X in its tiles must be zero.
    if (N1P * N2P != ROW)
        for (int i = thread; i < X_BYTES * HALVES / 16; i += THREADS) ((uint4 *)xs)[i] = make_uint4(0, 0, 0, 0);
    wait_for_copies();
    writes_are_for_products();
    __syncthreads();
    float largest_weight = 0.0f;
    if (HAS_NORM) {
        for (int i = thread; i < CHUNKS; i += THREADS) largest_weight = largest(load_chunk<VEC>(weights + i * VEC), largest_weight);
        largest_weight = reduce<false>(largest_weight, (float *)(box + 16), group, thread);
    }
    let_next_kernel_start();
    wait_for_previous_kernel();

    int64_t row = (int64_t)blockIdx.x + (int64_t)group * gridDim.x, step = (int64_t)gridDim.x * GROUPS;
    fetch_next(raw, rows, row, n_rows, thread);
    for (; row < n_rows; row += step) {
        float h[KEPT][VEC];
        if (PREFETCH) wait_for_copies();
        Stats stats = read_row(h, raw, weights, rows, row, thread);
        if (!TWICE) fetch_next(raw, rows, row + step, n_rows, thread);
        float &reduced = HAS_NORM ? stats.squares : stats.magnitude;
        reduced = reduce<HAS_NORM>(reduced, (float *)box, group, thread);
        float inverse = inverse_rms(stats.squares, ROW, epsilon), unscale;
        float scale = normalising(bound(stats, inverse, largest_weight), unscale);
        write_x(xs, h, scale * inverse, raw, weights, rows, row, thread);
        if (TWICE) fetch_next(raw, rows, row + step, n_rows, thread);
        writes_are_for_products();
        meet(group);
        uint32_t from = shared_address(xs);
        Tile w[MT][TILES] = {};
        if (HAS_P1) multiply_left(w, left, left_shared, from, warp, lane);
        if (HAS_P2) {
            Tile y[MT][TILES] = {};
            multiply_right(y, w, right, from, warp, lane);
            finish_row(y, unscale, q, codes, scales, out, box, row, group, thread);
        } else {
            finish_row(w, unscale, q, codes, scales, out, box, row, group, thread);
        }
        // More warps meet in `reduce` before they write the next X.
        if (WARPS == 1) meet(group);
    }
}
