// Attention over whole sequences without a cache, and its gradients, for learning: blockwise with the
// running softmax of Milakov and Gimelshein (arXiv 1805.02867) and the scores computed anew on the way
// back (Dao, arXiv 2307.08691). Tensor cores take bfloat16, sums are in f32; every sum has one order, so
// that the same input gives the same result.
//
// Definitions: D, channels of a head (a multiple of 16, up to 128).

constexpr int TILE = 64, WARPS = 4, THREADS = 32 * WARPS;
constexpr int PITCH = D + 8;  // of a row in shared memory, so that neighbouring rows are in other banks
constexpr int TILE_BYTES = TILE * PITCH * 2;
constexpr int STEPS = D / 16, COLUMNS = D / 8;

/// Where the heads of a dense tensor lie, in elements.
struct Heads {
    int64_t batch, head, row;
};

/// As `Problem` in dense.rs.
struct Problem {
    const bf16_t *q;    // [b, q_heads, queries, D]
    const bf16_t *k;    // [b, kv_heads, keys, D]
    const bf16_t *v;    // [b, kv_heads, keys, D]
    const bf16_t *dy;   // as q, or null
    const float *dy_f32;  // as y, or null
    float *y;           // or null
    float *lse;         // [b, q_heads, padded]: log2 of the sums of weights, infinite beyond the queries
    float *delta;       // [b, q_heads, padded]: dy . y
    float *dq, *dk, *dv;
    Heads of_q, of_k;   // of y and dq; of dk and dv
    uint32_t q_heads, kv_heads, queries, keys, padded;
    uint32_t is_causal;  // query i sees keys up to i
    float scale;
};

/// A tensor of f32 as bf16, head after head: a thread for 4 channels.
extern "C" __global__ void __launch_bounds__(256)
    dense_pack(const float *x, bf16_t *to, Heads from, uint32_t heads, uint32_t rows, uint32_t n) {
    wait_for_previous_kernel();
    let_next_kernel_start();
    uint32_t i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    uint32_t c = i % (D / 4) * 4, row = i / (D / 4) % rows, head = i / (D / 4) / rows;
    const float *at = x + head / heads * from.batch + head % heads * from.head + row * from.row + c;
    float4 values = *(const float4 *)at;
    uint2 packed = {pack16<true>(values.x, values.y), pack16<true>(values.z, values.w)};
    *(uint2 *)(to + (int64_t)i * 4) = packed;
}

/// Starts copying a tile of rows; zeros beyond `limit`.
__device__ __forceinline__ void load_tile(unsigned to, const bf16_t *from, uint32_t first, uint32_t limit) {
#pragma unroll
    for (int i = threadIdx.x; i < TILE * D / 8; i += THREADS) {
        uint32_t row = i / (D / 8), c = i % (D / 8) * 8;
        bool inside = first + row < limit;
        copy16(to + (row * PITCH + c) * 2, from + (inside ? (int64_t)(first + row) * D + c : 0), inside);
    }
}

/// Starts copying 64 floats.
__device__ __forceinline__ void load_floats(unsigned to, const float *from) {
    if (threadIdx.x < TILE / 4) copy16(to + threadIdx.x * 16, from + threadIdx.x * 4, true);
}

/// 16 rows by 16 channels of a tile as operand a.
__device__ __forceinline__ void operand_a(unsigned (&a)[4], unsigned tile, int row, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix4(a, tile + ((row + lane % 16) * PITCH + k + lane / 16 * 8) * 2);
}

/// Operand b of 16 columns, which are rows of the tile, and 16 channels.
__device__ __forceinline__ void operand_b_rows(unsigned (&b)[4], unsigned tile, int row, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix4(b, tile + ((row + lane / 16 * 8 + lane % 8) * PITCH + k + lane / 8 % 2 * 8) * 2);
}

/// Operand b of 16 columns, which are channels, and 16 rows of the tile.
__device__ __forceinline__ void operand_b_channels(unsigned (&b)[4], unsigned tile, int row, int c) {
    int lane = threadIdx.x % 32;
    ldmatrix4_transposed(b, tile + ((row + lane % 16) * PITCH + c + lane / 16 * 8) * 2);
}

/// sums[16, 64] of rows of `left` from `row` on times all rows of `right`, along the channels.
__device__ __forceinline__ void products(float (&sums)[8][4], unsigned left, int row, unsigned right) {
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        unsigned a[4], b[4];
        operand_a(a, left, row, step * 16);
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            operand_b_rows(b, right, pair * 16, step * 16);
            mma16816<true>(sums[2 * pair], a, b[0], b[1]);
            mma16816<true>(sums[2 * pair + 1], a, b[2], b[3]);
        }
    }
}

/// sums[16, D] += weights[16, 64] times the rows of a tile.
__device__ __forceinline__ void mix(float (&sums)[COLUMNS][4], const float (&weights)[8][4], unsigned tile) {
#pragma unroll
    for (int step = 0; step < 4; step++) {
        unsigned a[4], b[4];
        const float(&l)[4] = weights[2 * step], (&r)[4] = weights[2 * step + 1];
        a[0] = pack16<true>(l[0], l[1]);
        a[1] = pack16<true>(l[2], l[3]);
        a[2] = pack16<true>(r[0], r[1]);
        a[3] = pack16<true>(r[2], r[3]);
#pragma unroll
        for (int pair = 0; pair < STEPS; pair++) {
            operand_b_channels(b, tile, step * 16, pair * 16);
            mma16816<true>(sums[2 * pair], a, b[0], b[1]);
            mma16816<true>(sums[2 * pair + 1], a, b[2], b[3]);
        }
    }
}

/// Writes the warp's [16, D] rows times `factor`, those before `limit`.
__device__ __forceinline__ void store_rows(float *to, int64_t step, uint32_t first, uint32_t limit,
                                           const float (&sums)[COLUMNS][4], float upper, float lower) {
    uint32_t row = first + threadIdx.x % 32 / 4, c = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        if (row < limit) *(float2 *)(to + row * step + i * 8 + c) = make_float2(sums[i][0] * upper, sums[i][1] * upper);
        if (row + 8 < limit)
            *(float2 *)(to + (row + 8) * step + i * 8 + c) = make_float2(sums[i][2] * lower, sums[i][3] * lower);
    }
}

/// Whether tiles of keys after this one are hidden from a tile of queries.
__device__ __forceinline__ uint32_t key_tiles(const Problem &p, uint32_t tile) {
    uint32_t all = (p.keys + TILE - 1) / TILE;
    return p.is_causal ? min(all, tile + 1) : all;
}

/// A block for each tile of queries, head and sequence: y, and what the way back needs.
extern "C" __global__ void __launch_bounds__(THREADS) dense_forward(const Problem p) {
    extern __shared__ __align__(16) char shared[];
    wait_for_previous_kernel();
    let_next_kernel_start();
    // The tiles with most keys first.
    uint32_t tile = gridDim.x - 1 - blockIdx.x, h = blockIdx.y, b = blockIdx.z;
    uint32_t kv_head = b * p.kv_heads + h / (p.q_heads / p.kv_heads), head = b * p.q_heads + h;
    const bf16_t *q = p.q + (int64_t)head * p.queries * D;
    const bf16_t *k = p.k + (int64_t)kv_head * p.keys * D, *v = p.v + (int64_t)kv_head * p.keys * D;
    unsigned q_at = shared_address(shared), k_at = q_at + TILE_BYTES, v_at = k_at + 2 * TILE_BYTES;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t n = key_tiles(p, tile), first = tile * TILE + warp * 16;
    load_tile(q_at, q, tile * TILE, p.queries);
    load_tile(k_at, k, 0, p.keys);
    load_tile(v_at, v, 0, p.keys);
    copies_started();
    float sums[COLUMNS][4] = {}, scores[8][4];
    float largest[2] = {-INFINITY_F, -INFINITY_F}, totals[2] = {0.0f, 0.0f};
    float scale = p.scale * LOG2_E;
    for (uint32_t t = 0; t < n; t++) {
        unsigned now = t % 2 * TILE_BYTES, next = TILE_BYTES - now;
        if (t + 1 < n) {
            load_tile(k_at + next, k, (t + 1) * TILE, p.keys);
            load_tile(v_at + next, v, (t + 1) * TILE, p.keys);
            copies_started();
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        __syncthreads();
        products(scores, q_at, warp * 16, k_at + now);
        bool at_edge = (t + 1) * TILE > p.keys || (p.is_causal && t == tile);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint32_t row = first + lane / 4 + 8 * half;
            float top = largest[half];
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float &score = scores[i][2 * half + j];
                    uint32_t key = t * TILE + i * 8 + lane % 4 * 2 + j;
                    score *= scale;
                    if (at_edge && (key >= p.keys || (p.is_causal && key > row))) score = -INFINITY_F;
                    top = fmaxf(top, score);
                }
            top = quad_max(top);
            float base = top == -INFINITY_F ? 0.0f : top, shrink = exp2_fast(largest[half] - base), total = 0.0f;
            largest[half] = top;
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float &score = scores[i][2 * half + j];
                    score = exp2_fast(score - base);
                    total += score;
                }
            totals[half] = totals[half] * shrink + total;
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) sums[i][2 * half] *= shrink, sums[i][2 * half + 1] *= shrink;
        }
        mix(sums, scores, v_at + now);
        __syncthreads();
    }
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t row = first + lane / 4 + 8 * half;
        float total = quad_sum(totals[half]);
        inverse[half] = total > 0.0f ? 1.0f / total : 0.0f;
        if (!p.lse || lane % 4 != 0) continue;
        bool inside = row < p.queries && total > 0.0f;
        p.lse[(int64_t)head * p.padded + row] = inside ? largest[half] + log2_fast(total) : INFINITY_F;
    }
    int64_t start = b * p.of_q.batch + h * p.of_q.head;
    if (p.y) store_rows(p.y + start, p.of_q.row, first, p.queries, sums, inverse[0], inverse[1]);
    if (!p.dy_f32) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t row = first + lane / 4 + 8 * half;
        const float *dy = p.dy_f32 + start + row * p.of_q.row + lane % 4 * 2;
        float along = 0.0f;
        if (row < p.queries)
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                float2 g = *(const float2 *)(dy + i * 8);
                along += g.x * sums[i][2 * half] + g.y * sums[i][2 * half + 1];
            }
        along = quad_sum(along) * inverse[half];
        if (lane % 4 == 0) p.delta[(int64_t)head * p.padded + row] = along;
    }
}

/// A block for each tile of queries, head and sequence: dq.
extern "C" __global__ void __launch_bounds__(THREADS) dense_backward_queries(const Problem p) {
    extern __shared__ __align__(16) char shared[];
    wait_for_previous_kernel();
    let_next_kernel_start();
    uint32_t tile = gridDim.x - 1 - blockIdx.x, h = blockIdx.y, b = blockIdx.z;
    uint32_t kv_head = b * p.kv_heads + h / (p.q_heads / p.kv_heads), head = b * p.q_heads + h;
    const bf16_t *q = p.q + (int64_t)head * p.queries * D, *dy = p.dy + (int64_t)head * p.queries * D;
    const bf16_t *k = p.k + (int64_t)kv_head * p.keys * D, *v = p.v + (int64_t)kv_head * p.keys * D;
    unsigned q_at = shared_address(shared), dy_at = q_at + TILE_BYTES;
    unsigned k_at = dy_at + TILE_BYTES, v_at = k_at + 2 * TILE_BYTES;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t n = key_tiles(p, tile), first = tile * TILE + warp * 16;
    load_tile(q_at, q, tile * TILE, p.queries);
    load_tile(dy_at, dy, tile * TILE, p.queries);
    load_tile(k_at, k, 0, p.keys);
    load_tile(v_at, v, 0, p.keys);
    copies_started();
    float sums[COLUMNS][4] = {}, scores[8][4], slopes[8][4], lse[2], delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int64_t at = (int64_t)head * p.padded + first + lane / 4 + 8 * half;
        lse[half] = p.lse[at];
        delta[half] = p.delta[at];
    }
    float scale = p.scale * LOG2_E;
    for (uint32_t t = 0; t < n; t++) {
        unsigned now = t % 2 * TILE_BYTES, next = TILE_BYTES - now;
        if (t + 1 < n) {
            load_tile(k_at + next, k, (t + 1) * TILE, p.keys);
            load_tile(v_at + next, v, (t + 1) * TILE, p.keys);
            copies_started();
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        __syncthreads();
        products(scores, q_at, warp * 16, k_at + now);
        products(slopes, dy_at, warp * 16, v_at + now);
        bool at_edge = (t + 1) * TILE > p.keys || (p.is_causal && t == tile);
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                uint32_t row = first + lane / 4 + 8 * (j / 2), key = t * TILE + i * 8 + lane % 4 * 2 + j % 2;
                float weight = exp2_fast(scores[i][j] * scale - lse[j / 2]);
                if (at_edge && (key >= p.keys || (p.is_causal && key > row))) weight = 0.0f;
                slopes[i][j] = weight * (slopes[i][j] - delta[j / 2]);
            }
        mix(sums, slopes, k_at + now);
        __syncthreads();
    }
    int64_t start = b * p.of_q.batch + h * p.of_q.head;
    store_rows(p.dq + start, p.of_q.row, first, p.queries, sums, p.scale, p.scale);
}

/// A block for each tile of keys, key head and sequence: dk and dv, over all query heads that read it.
extern "C" __global__ void __launch_bounds__(THREADS) dense_backward_keys(const Problem p) {
    extern __shared__ __align__(16) char shared[];
    wait_for_previous_kernel();
    let_next_kernel_start();
    uint32_t tile = blockIdx.x, g = blockIdx.y, b = blockIdx.z, shares = p.q_heads / p.kv_heads;
    int64_t kv_start = (int64_t)(b * p.kv_heads + g) * p.keys * D;
    unsigned k_at = shared_address(shared), v_at = k_at + TILE_BYTES;
    unsigned q_at = v_at + TILE_BYTES, dy_at = q_at + 2 * TILE_BYTES, lse_at = dy_at + 2 * TILE_BYTES;
    unsigned delta_at = lse_at + 2 * TILE * 4;
    const float *floats = (const float *)(shared + 6 * TILE_BYTES);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t begin = p.is_causal ? tile : 0, end = (p.queries + TILE - 1) / TILE;
    uint32_t each = end > begin ? end - begin : 0, n = shares * each;
    auto load = [&](uint32_t i, uint32_t buffer) {
        uint32_t head = b * p.q_heads + g * shares + i / each, t = begin + i % each;
        int64_t start = (int64_t)head * p.queries * D, at = (int64_t)head * p.padded + t * TILE;
        load_tile(q_at + buffer * TILE_BYTES, p.q + start, t * TILE, p.queries);
        load_tile(dy_at + buffer * TILE_BYTES, p.dy + start, t * TILE, p.queries);
        load_floats(lse_at + buffer * TILE * 4, p.lse + at);
        load_floats(delta_at + buffer * TILE * 4, p.delta + at);
        copies_started();
    };
    load_tile(k_at, p.k + kv_start, tile * TILE, p.keys);
    load_tile(v_at, p.v + kv_start, tile * TILE, p.keys);
    copies_started();
    if (n > 0) load(0, 0);
    float of_k[COLUMNS][4] = {}, of_v[COLUMNS][4] = {}, weights[8][4], slopes[8][4];
    float scale = p.scale * LOG2_E;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t now = i % 2, t = begin + i % each;
        if (i + 1 < n) {
            load(i + 1, 1 - now);
            wait_for_copies<1>();
        } else {
            wait_for_copies<0>();
        }
        __syncthreads();
        const float *lse = floats + now * TILE, *delta = floats + (2 + now) * TILE;
        products(weights, k_at, warp * 16, q_at + now * TILE_BYTES);
        products(slopes, v_at, warp * 16, dy_at + now * TILE_BYTES);
        bool at_edge = p.is_causal && t == tile;
#pragma unroll
        for (int c = 0; c < 8; c++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int query = c * 8 + lane % 4 * 2 + j % 2, key = warp * 16 + lane / 4 + 8 * (j / 2);
                float weight = exp2_fast(weights[c][j] * scale - lse[query]);
                if (at_edge && key > query) weight = 0.0f;
                weights[c][j] = weight;
                slopes[c][j] = weight * (slopes[c][j] - delta[query]);
            }
        mix(of_v, weights, dy_at + now * TILE_BYTES);
        mix(of_k, slopes, q_at + now * TILE_BYTES);
        __syncthreads();
    }
    int64_t start = b * p.of_k.batch + g * p.of_k.head;
    uint32_t first = tile * TILE + warp * 16;
    store_rows(p.dk + start, p.of_k.row, first, p.keys, of_k, p.scale, p.scale);
    store_rows(p.dv + start, p.of_k.row, first, p.keys, of_v, 1.0f, 1.0f);
}
