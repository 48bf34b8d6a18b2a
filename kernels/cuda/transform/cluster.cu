// Few rows times P1 (x) P2, each by a cluster of blocks: the same as tensor.cu for decoding, where latency is all.
//
// Block r of C has N2P / C columns of X: it computes those of W = P1^T X by itself. Then W changes hands: block r gets
// the tiles of 16 rows r, r + C, ... of W and computes these rows of Y = W P2. The extremes of Y go to all blocks.
// Factors and weights are in registers before the kernel in front has ended.
//
// Definitions: T, N1, N2 (a multiple of 8), HAS_P2, SOURCE, QUANTISE, SPLIT, SPLIT_P, CLUSTER (divides N2P / 16).

#include "mail.cuh"

constexpr int ROW = N1 * N2;
constexpr int VEC = 8;
constexpr int WARPS = 8;
constexpr int THREADS = WARPS * 32;
constexpr int M_TILES = up_to(N1, 16) / 16;
constexpr int N1P = M_TILES * 16;
constexpr int N2P = up_to(N2, 16);
constexpr int OWN = N2P / CLUSTER;        // columns of X that a block has
constexpr int OWN_TILES = OWN / 8;
constexpr int PITCH = OWN + 8;            // of X
constexpr int K1 = M_TILES;
constexpr int K2 = N2P / 16;
constexpr int TILES = N2P / 8;
constexpr int RUN = run_of(N2P);
constexpr int W_PITCH = N2P + 8;          // of W, in floats
constexpr int M_OWN = (M_TILES + CLUSTER - 1) / CLUSTER;  // tiles of rows of Y that a block has
constexpr int M_WARP = (M_TILES + WARPS - 1) / WARPS;     // tiles of rows of W that a warp computes
constexpr int PAIRS = (TILES / 2 + WARPS - 1) / WARPS;    // pairs of tiles of Y that a warp computes
constexpr int CHUNKS = N1 * OWN / VEC;                    // of a block's columns
constexpr int ROUNDS = (CHUNKS + THREADS - 1) / THREADS;
constexpr int ALL_ROUNDS = (ROW / VEC + THREADS - 1) / THREADS;
static_assert(N2P % (16 * CLUSTER) == 0, "blocks have whole pairs of tiles");

typedef float Tile[4];

__device__ inline uint32_t block_rank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

struct Shared {
    __align__(16) half_t x[SPLIT ? 2 : 1][N1P * PITCH];
    __align__(16) float w[HAS_P2 ? M_OWN * 16 * W_PITCH : 4];  // written by all blocks
    float2 box[WARPS];
    float2 ranges[CLUSTER][WARPS];                             // written by all blocks
    float2 unscales[CLUSTER];                                  // written by all blocks
    uint64_t w_box, range_box;                                 // of what they write
};

// Before the blocks meet.
__device__ inline void open_boxes(Shared &s, int rank) {
    int tiles = rank < M_TILES ? (M_TILES - rank + CLUSTER - 1) / CLUSTER : 0;
    if (HAS_P2) open_box(shared_address(&s.w_box), tiles * 16 * N2P * sizeof(float) + sizeof(s.unscales));
    if (QUANTISE) open_box(shared_address(&s.range_box), sizeof(s.ranges));
}

// Factors in registers.
struct Held {
    Left high1[M_WARP][K1];
    Left low1[M_WARP][SPLIT_P ? K1 : 1];
    uint4 high2[HAS_P2 ? PAIRS : 1][K2];
    uint4 low2[HAS_P2 && SPLIT_P ? PAIRS : 1][K2];
};

__device__ inline void load_factors(Held &held, const uint4 *packed, int warp, int lane) {
    const uint4 *second = packed + 2 * packed_words(N1);
#pragma unroll
    for (int m = 0; m < M_WARP; m++) {
        int tile = warp + m * WARPS;
#pragma unroll
        for (int k = 0; k < K1; k++) {
            if (tile >= M_TILES) continue;
            int at = (tile * K1 + k) * 32 + lane;
            *(uint4 *)held.high1[m][k].word = packed[at];
            if (SPLIT_P) *(uint4 *)held.low1[m][k].word = packed[packed_words(N1) + at];
        }
    }
    if (!HAS_P2) return;
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        int pair = warp + p * WARPS;
#pragma unroll
        for (int k = 0; k < K2; k++) {
            if (pair >= TILES / 2) continue;
            int at = (k * (TILES / 2) + pair) * 32 + lane;
            held.high2[p][k] = second[at];
            if (SPLIT_P) held.low2[p][k] = second[packed_words(N2) + at];
        }
    }
}

// Where chunk `chunk` of block `rank`'s columns is in the row; false outside.
__device__ inline bool chunk_place(int chunk, int rank, int &row, int &column) {
    row = chunk / (OWN / VEC);
    column = chunk % (OWN / VEC) * VEC;
    return chunk < CHUNKS && rank * OWN + column < N2;
}

// The block's columns as f32, and the sum of squares of the thread's part of the whole row.
// `sum` is x + skip.
__device__ inline Stats read_columns(float (&h)[ROUNDS][VEC], Chunk<VEC> (&sum)[ROUNDS], const Chunk<VEC> (&weight)[ROUNDS], const Rows &rows,
                                     int64_t at, int rank, int thread) {
    Chunk<VEC> x[ROUNDS], other[ROUNDS], all[ALL_ROUNDS], all_other[ALL_ROUNDS];
    const T *from = rows.x + at * rows.stride, *second = rows.other + at * rows.stride;
    int row, column;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        if (!chunk_place(i * THREADS + thread, rank, row, column)) continue;
        int place = row * N2 + rank * OWN + column;
        x[i] = load_chunk<VEC>(from + place);
        if (PARTS == 2) other[i] = load_chunk<VEC>(second + place);
    }
    if (HAS_NORM) {
#pragma unroll
        for (int i = 0; i < ALL_ROUNDS; i++) {
            int chunk = i * THREADS + thread;
            if (chunk >= ROW / VEC) continue;
            all[i] = load_chunk<VEC>(from + chunk * VEC);
            if (PARTS == 2) all_other[i] = load_chunk<VEC>(second + chunk * VEC);
        }
    }
    Stats stats = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        if (!chunk_place(i * THREADS + thread, rank, row, column)) continue;
        combine<VEC>(h[i], x[i], other[i], weight[i], sum[i], stats);
        if (HAS_NORM)
#pragma unroll
            for (int j = 0; j < VEC; j++) stats.magnitude = fmaxf(stats.magnitude, fabsf(h[i][j]));
    }
    if (HAS_NORM) {
        stats.squares = 0.0f;
#pragma unroll
        for (int i = 0; i < ALL_ROUNDS; i++) {
            if (i * THREADS + thread >= ROW / VEC) continue;
#pragma unroll
            for (int j = 0; j < VEC; j++) {
                float value = to_f32(all[i].element[j]);
                if (SOURCE == ADD_NORM) value += to_f32(all_other[i].element[j]);
                stats.squares = fmaf(value, value, stats.squares);
            }
        }
    }
    return stats;
}

__device__ inline void write_sum(const Chunk<VEC> (&sum)[ROUNDS], const Rows &rows, int64_t at, int rank, int thread) {
    if (SOURCE != ADD_NORM) return;
    int row, column;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++)
        if (chunk_place(i * THREADS + thread, rank, row, column)) store_chunk<VEC>(rows.sum + at * ROW + row * N2 + rank * OWN + column, sum[i]);
}

// Largest of `magnitude` and sum of `squares` over the block.
__device__ inline void reduce_stats(Stats &stats, float2 *box, int warp, int lane) {
    reduce_warp<true>(stats.magnitude, stats.squares);
    if (lane == 0) box[warp] = make_float2(stats.magnitude, stats.squares);
    __syncthreads();
    float2 part = box[lane % WARPS];
    stats.magnitude = part.x;
    stats.squares = part.y;
#pragma unroll
    for (int i = WARPS / 2; i > 0; i /= 2) {
        stats.magnitude = fmaxf(stats.magnitude, __shfl_xor_sync(0xFFFFFFFF, stats.magnitude, i));
        stats.squares += __shfl_xor_sync(0xFFFFFFFF, stats.squares, i);
    }
}

__device__ inline void write_x(Shared &s, const float (&h)[ROUNDS][VEC], float scale, int rank, int thread) {
    int row, column;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        if (!chunk_place(i * THREADS + thread, rank, row, column)) continue;
        uint32_t high[4], low[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float a = h[i][2 * j] * scale, b = h[i][2 * j + 1] * scale;
            high[j] = pack_f16(a, b);
            if (SPLIT) low[j] = pack_rest(high[j], a, b);
        }
        *(uint4 *)&s.x[0][row * PITCH + column] = make_uint4(high[0], high[1], high[2], high[3]);
        if (SPLIT) *(uint4 *)&s.x[SPLIT ? 1 : 0][row * PITCH + column] = make_uint4(low[0], low[1], low[2], low[3]);
    }
}

// W of the block's columns.
__device__ inline void multiply_left(Tile (&w)[M_WARP][OWN_TILES], const Held &held, Shared &s, int warp, int lane) {
    uint32_t x = shared_address(s.x[0]), rest_of_x = shared_address(s.x[SPLIT ? 1 : 0]);
#pragma unroll
    for (int k = 0; k < K1; k++) {
#pragma unroll
        for (int pair = 0; pair < OWN_TILES / 2; pair++) {
            uint32_t at = ((k * 16 + lane % 16) * PITCH + pair * 16 + lane / 16 * 8) * 2;
            uint32_t b[4], rest[4];
            load_transposed(b, x + at);
            if (SPLIT) load_transposed(rest, rest_of_x + at);
#pragma unroll
            for (int m = 0; m < M_WARP; m++) {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    Tile &c = w[m][2 * pair + j];
                    if (SPLIT) multiply(c, held.high1[m][k], rest[2 * j], rest[2 * j + 1]);
                    if (SPLIT_P) multiply(c, held.low1[m][SPLIT_P ? k : 0], b[2 * j], b[2 * j + 1]);
                    multiply(c, held.high1[m][k], b[2 * j], b[2 * j + 1]);
                }
            }
        }
    }
}

// Gives W, in its true range, to the blocks that go on with its rows.
__device__ inline void hand_over(const Tile (&w)[M_WARP][OWN_TILES], float unscale, Shared &s, int rank, int warp, int lane) {
    uint32_t base = shared_address(s.w), box = shared_address(&s.w_box);
#pragma unroll
    for (int m = 0; m < M_WARP; m++) {
        int tile = warp + m * WARPS;
        if (tile >= M_TILES) continue;
        uint32_t there = in_block(base, tile % CLUSTER), box_there = in_block(box, tile % CLUSTER);
#pragma unroll
        for (int i = 0; i < OWN_TILES; i++) {
            int row = tile / CLUSTER * 16 + lane / 4, column = rank * OWN + i * 8 + lane % 4 * 2;
            uint32_t at = there + (row * W_PITCH + column) * 4;
            send(at, box_there, w[m][i][0] * unscale, w[m][i][1] * unscale);
            send(at + 8 * W_PITCH * 4, box_there, w[m][i][2] * unscale, w[m][i][3] * unscale);
        }
    }
    if (warp == WARPS - 1 && lane < CLUSTER) send(in_block(shared_address(&s.unscales[rank]), lane), in_block(box, lane), unscale, unscale);
}

// Y of the block's rows, from W / unscale.
__device__ inline void multiply_right(Tile (&y)[M_OWN][PAIRS][2], const Held &held, const Shared &s, float scale, int rank, int lane) {
#pragma unroll
    for (int m = 0; m < M_OWN; m++) {
        if (rank + m * CLUSTER >= M_TILES) continue;
#pragma unroll
        for (int k = 0; k < K2; k++) {
            Left high, low;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int row = m * 16 + lane / 4 + j % 2 * 8, column = k * 16 + lane % 4 * 2 + j / 2 * 8;
                float2 v = *(const float2 *)&s.w[row * W_PITCH + column];
                high.word[j] = pack_f16(v.x * scale, v.y * scale);
                if (SPLIT) low.word[j] = pack_rest(high.word[j], v.x * scale, v.y * scale);
            }
#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                const uint4 &b = held.high2[p][k], &rest = held.low2[SPLIT_P ? p : 0][k];
                if (SPLIT) multiply(y[m][p][0], low, b.x, b.y), multiply(y[m][p][1], low, b.z, b.w);
                if (SPLIT_P) multiply(y[m][p][0], high, rest.x, rest.y), multiply(y[m][p][1], high, rest.z, rest.w);
                multiply(y[m][p][0], high, b.x, b.y);
                multiply(y[m][p][1], high, b.z, b.w);
            }
        }
    }
}

// Largest and largest negated value of the row, from all blocks'.
__device__ inline void share_range(float &high, float &low, Shared &s, int rank, int warp, int lane) {
    reduce_warp<false>(high, low);
    uint32_t box = shared_address(&s.range_box);
    if (lane < CLUSTER) send(in_block(shared_address(&s.ranges[rank][warp]), lane), in_block(box, lane), high, low);
    empty_box(box);
    high = low = 0.0f;
#pragma unroll
    for (int i = 0; i < CLUSTER * WARPS; i += 32) {
        if (i + lane >= CLUSTER * WARPS) continue;
        float2 part = (&s.ranges[0][0])[i + lane];
        high = fmaxf(high, part.x);
        low = fmaxf(low, part.y);
    }
    reduce_warp<false>(high, low);
}

// What a block has of the result: a pair of tiles is 2 rows (g, g + 8) of 4 columns a thread.
struct Sink {
    int8_t *codes;
    T *out;
    Quantiser q;
    float factor;  // 1 / scale, or what values are multiplied by
};

// Two neighbouring pairs (c0, c1 of both tiles; c2, c3) at row `row`; `columns` are these of the values.
__device__ inline void write(const Sink &sink, const float (&v)[4], int row, const int (&columns)[2]) {
    if (row >= N1) return;
    uint32_t word = 0;
    if (QUANTISE) word = clips(sink.q) ? pack_codes<true>(sink.q, sink.factor, v[0], v[1], v[2], v[3])
                                       : pack_codes<false>(sink.q, sink.factor, v[0], v[1], v[2], v[3]);
#pragma unroll
    for (int j = 0; j < 2; j++) {
        int column = columns[j];
        if (column >= N2) continue;
        if (QUANTISE) {
            *(uint16_t *)(sink.codes + row * N2 + column) = (uint16_t)(word >> 16 * j);
        } else {
            Chunk<2> pair;
            pair.element[0] = from_f32<T>(v[2 * j] * sink.factor);
            pair.element[1] = from_f32<T>(v[2 * j + 1] * sink.factor);
            store_chunk<2>(sink.out + row * N2 + column, pair);
        }
    }
}

__device__ inline void write_pair(const Sink &sink, const Tile &even, const Tile &odd, int row, const int (&columns)[2]) {
    float first[4] = {even[0], even[1], odd[0], odd[1]}, second[4] = {even[2], even[3], odd[2], odd[3]};
    write(sink, first, row, columns);
    write(sink, second, row + 8, columns);
}

__device__ inline void widen(const Tile &tile, float &high, float &low) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        high = fmaxf(high, tile[i]);
        low = fmaxf(low, -tile[i]);
    }
}

// Operands as of transform_rows in tensor.cu; the grid is n_rows * CLUSTER blocks.
extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1)
transform_few_rows(const T *x, const T *other, const T *weight, T *sum, int64_t stride, float epsilon, const uint4 *factors,
                   int32_t n_rows, float clip_min, float clip_max, float q_max, int8_t *codes, float *scales, T *out) {
    extern __shared__ __align__(16) char memory[];
    Shared &s = *(Shared *)memory;
    int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    int rank = block_rank();
    int64_t at = blockIdx.x / CLUSTER;
    Rows rows = {x, other, weight, sum, stride, epsilon};
    Quantiser q = {clip_min, clip_max, q_max};

    // Others may write here once all have started.
    if (thread == 0) open_boxes(s, rank);
    cluster_arrive_relaxed();
    Held held;
    load_factors(held, factors, warp, lane);
    Chunk<VEC> weights[ROUNDS];
    int row, column;
    if (HAS_NORM) {
#pragma unroll
        for (int i = 0; i < ROUNDS; i++)
            if (chunk_place(i * THREADS + thread, rank, row, column)) weights[i] = load_chunk<VEC>(weight + row * N2 + rank * OWN + column);
    }
    if (N1P != N1 || N2P != N2)
        for (int i = thread; i < (int)sizeof(s.x) / 16; i += THREADS) ((uint4 *)s.x)[i] = make_uint4(0, 0, 0, 0);
    __syncthreads();
    let_next_kernel_start();
    wait_for_previous_kernel();

    float h[ROUNDS][VEC];
    Chunk<VEC> sums[ROUNDS];
    Stats stats = read_columns(h, sums, weights, rows, at, rank, thread);
    reduce_stats(stats, s.box, warp, lane);
    float inverse = inverse_rms(stats.squares, ROW, epsilon), unscale;
    if (HAS_NORM) stats.magnitude *= inverse;
    float scale = normalising(stats.magnitude, unscale);
    write_x(s, h, scale * inverse, rank, thread);
    __syncthreads();
    Tile w[M_WARP][OWN_TILES] = {};
    multiply_left(w, held, s, warp, lane);
    cluster_wait();

    Tile y[M_OWN][PAIRS][2] = {};
    float high = 0.0f, low = 0.0f;
    if (HAS_P2) {
        hand_over(w, unscale, s, rank, warp, lane);
        empty_box(shared_address(&s.w_box));
        unscale = 0.0f;
#pragma unroll
        for (int i = 0; i < CLUSTER; i++) unscale = fmaxf(unscale, s.unscales[i].x);
        multiply_right(y, held, s, 1.0f / unscale, rank, lane);
#pragma unroll
        for (int m = 0; m < M_OWN; m++)
#pragma unroll
            for (int p = 0; p < PAIRS; p++)
                if (warp + p * WARPS < TILES / 2) widen(y[m][p][0], high, low), widen(y[m][p][1], high, low);
    } else {
#pragma unroll
        for (int m = 0; m < M_WARP; m++)
#pragma unroll
            for (int i = 0; i < OWN_TILES; i++)
                if (warp + m * WARPS < M_TILES) widen(w[m][i], high, low);
    }

    Sink sink = {codes + at * ROW, out + at * ROW, q, unscale};
    if (QUANTISE) {
        high *= unscale;
        low *= unscale;
        share_range(high, low, s, rank, warp, lane);
        float row_is = row_scale(q, high, -low);
        if (rank == 0 && thread == 0) scales[at] = row_is;
        sink.factor = unscale / row_is;
    }
    // x + skip may be written over x or skip, once all blocks have read their row: they have met since, but here.
    if (SOURCE == ADD_NORM && !HAS_P2 && !QUANTISE) cluster_arrive(), cluster_wait();
    write_sum(sums, rows, at, rank, thread);
    if (HAS_P2) {
#pragma unroll
        for (int m = 0; m < M_OWN; m++)
#pragma unroll
            for (int p = 0; p < PAIRS; p++) {
                int tile = rank + m * CLUSTER, pair = warp + p * WARPS;
                if (tile >= M_TILES || pair >= TILES / 2) continue;
                int columns[2] = {interleaved(RUN, 2 * pair, lane % 4 * 2), interleaved(RUN, 2 * pair + 1, lane % 4 * 2)};
                write_pair(sink, y[m][p][0], y[m][p][1], tile * 16 + lane / 4, columns);
            }
    } else {
#pragma unroll
        for (int m = 0; m < M_WARP; m++)
#pragma unroll
            for (int i = 0; i < OWN_TILES / 2; i++) {
                int tile = warp + m * WARPS, first = rank * OWN + i * 16 + lane % 4 * 2;
                if (tile >= M_TILES) continue;
                int columns[2] = {first, first + 8};
                write_pair(sink, w[m][2 * i], w[m][2 * i + 1], tile * 16 + lane / 4, columns);
            }
    }
}
