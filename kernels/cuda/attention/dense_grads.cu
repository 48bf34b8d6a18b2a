// Gradients of attention over whole sequences without a cache.
// Blockwise with the running softmax of Milakov and Gimelshein (arXiv 1805.02867) and the scores computed
// anew on the way back (Dao, arXiv 2307.08691). Tensor cores take bfloat16, sums are in f32; every sum has
// one order, so that the same input gives the same result.
//
// Definitions as in dense_tiles.cuh. Needs dense_problem.cuh in front.

/// A block for each tile of queries of a head: dq. Grid as that of `dense_forward`.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) dense_backward_queries(const Problem p) {
    extern __shared__ char shared[];
    wait_for_previous_kernel();
    let_next_kernel_start();
    Queries of(p);
    int64_t q_start = (int64_t)of.head * p.queries * D, kv_start = (int64_t)of.kv_head * p.keys * D;
    unsigned q_at = tiles_start(shared), dy_at = q_at + OWN_BYTES, k_at = dy_at + OWN_BYTES;
    Walk walk{p.k + kv_start, p.v + kv_start, k_at, k_at + 2 * TILE_BYTES, p.keys, of.n};
    load_tile<ROWS>(q_at, p.q + q_start, of.first, p.queries);
    load_tile<ROWS>(dy_at, p.dy + q_start, of.first, p.queries);
    walk.start(0);
    uint32_t row = of.first + own_row();
    Sums sums = {};
    Scores scores, slopes;
    Weights weights;
    float lse[2], delta[2], scale = p.scale * LOG2_E;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        bool inside = row + 8 * half < p.padded;
        int64_t at = (int64_t)of.head * p.padded + row + 8 * half;
        lse[half] = inside ? p.lse[at] : INFINITY_F, delta[half] = inside ? p.delta[at] : 0.0f;
    }
    for (uint32_t t = 0; t < of.n; t++) {
        unsigned stage = t % 2 * TILE_BYTES;
        walk.await(t);
        start_products(scores, q_at, walk.k_at + stage);
        start_products(slopes, dy_at, walk.v_at + stage);
        await_products<1>();
        settle(scores);
        hide_keys(p, scores, t, row);
#pragma unroll
        for (int i = 0; i < TILE / 2; i++) scores[i] = exp2_fast(scores[i] * scale - lse[i / 2 % 2]);
        await_products<0>();
        settle(slopes);
#pragma unroll
        for (int i = 0; i < TILE / 2; i++) scores[i] *= slopes[i] - delta[i / 2 % 2];
        pack_weights(weights, scores);
        start_mix(sums, weights, walk.k_at + stage);
        await_products<0>();
        settle(sums);
        __syncthreads();
    }
    int64_t start = of.b * p.of_q.batch + of.h * p.of_q.head;
    store_rows(p.dq + start, p.of_q.row, row, p.queries, sums, p.scale, p.scale);
}

/// The tiles of queries that a block of keys walks, of all heads that read them, with what belongs to
/// each: dy, and its rows' `lse` and `delta`. Two stages of each.
struct BackWalk {
    uint32_t head, begin, each, n;  // first head; its first tile; tiles of a head, of all heads
    unsigned q_at, dy_at, lse_at, delta_at;
    __device__ __forceinline__ void start(const Problem &p, uint32_t i) const {
        if (i >= n) return;
        uint32_t of_head = head + i / each, t = begin + i % each, stage = i % 2;
        int64_t first = (int64_t)of_head * p.queries * D, at = (int64_t)of_head * p.padded + t * TILE;
        load_tile<TILE>(q_at + stage * TILE_BYTES, p.q + first, t * TILE, p.queries);
        load_tile<TILE>(dy_at + stage * TILE_BYTES, p.dy + first, t * TILE, p.queries);
        load_floats(lse_at + stage * TILE * 4, p.lse + at);
        load_floats(delta_at + stage * TILE * 4, p.delta + at);
        copies_started();
    }
    /// Waits for a tile, with that after it under way.
    __device__ __forceinline__ void await(const Problem &p, uint32_t i) const {
        start(p, i + 1);
        if (i + 1 < n) wait_for_copies<1>();
        else wait_for_copies<0>();
        show_tiles();
        __syncthreads();
    }
};

/// Two floats in shared memory.
__device__ __forceinline__ float2 shared_pair(unsigned at) {
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(at) : "memory");
    return x;
}

/// Weights of a tile of queries, from `query` on, and keys: zero for those keys that a query does not see.
__device__ __forceinline__ void hide_queries(Scores &weights, uint32_t query, uint32_t key) {
#pragma unroll
    for (int i = 0; i < TILE / 2; i++)
        if (key + i / 2 % 2 * 8 > query + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2) weights[i] = 0.0f;
}

/// A block for each tile of keys of a key head: dk and dv, over all query heads that read it. Grid
/// (tiles * key heads of all sequences).
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) dense_backward_keys(const Problem p) {
    extern __shared__ char shared[];
    wait_for_previous_kernel();
    let_next_kernel_start();
    Item item(p, gridDim.x / ((p.keys + ROWS - 1) / ROWS));
    uint32_t b = item.line / p.kv_heads, g = item.line % p.kv_heads, shares = p.q_heads / p.kv_heads;
    uint32_t first = item.rank * ROWS, key = first + own_row();
    int64_t kv_start = (int64_t)item.line * p.keys * D;
    unsigned k_at = tiles_start(shared), v_at = k_at + OWN_BYTES, q_at = v_at + OWN_BYTES;
    unsigned dy_at = q_at + 2 * TILE_BYTES, lse_at = dy_at + 2 * TILE_BYTES, delta_at = lse_at + 2 * TILE * 4;
    uint32_t begin = p.is_causal ? first / TILE : 0, end = (p.queries + TILE - 1) / TILE;
    uint32_t each = end > begin ? end - begin : 0;
    BackWalk walk{b * p.q_heads + g * shares, begin, each, shares * each, q_at, dy_at, lse_at, delta_at};
    load_tile<ROWS>(k_at, p.k + kv_start, first, p.keys);
    load_tile<ROWS>(v_at, p.v + kv_start, first, p.keys);
    walk.start(p, 0);
    Sums of_k = {}, of_v = {};
    Scores scores, slopes;
    Weights weights, ds;
    float scale = p.scale * LOG2_E;
    for (uint32_t i = 0; i < walk.n; i++) {
        unsigned stage = i % 2, q = q_at + stage * TILE_BYTES, dy = dy_at + stage * TILE_BYTES;
        unsigned column = stage * TILE * 4 + threadIdx.x % 4 * 8;
        walk.await(p, i);
        start_products(scores, k_at, q);
        start_products(slopes, v_at, dy);
        await_products<1>();
        settle(scores);
        uint32_t query = (walk.begin + i % walk.each) * TILE;
#pragma unroll
        for (int c = 0; c < TILE / 8; c++) {
            float2 lse = shared_pair(lse_at + column + c * 32);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float &score = scores[4 * c + j];
                score = exp2_fast(score * scale - (j % 2 ? lse.y : lse.x));
            }
        }
        if (p.is_causal && query < key / 16 * 16 + 15) hide_queries(scores, query, key);
        await_products<0>();
        settle(slopes);
#pragma unroll
        for (int c = 0; c < TILE / 8; c++) {
            float2 delta = shared_pair(delta_at + column + c * 32);
#pragma unroll
            for (int j = 0; j < 4; j++) slopes[4 * c + j] = scores[4 * c + j] * (slopes[4 * c + j] - (j % 2 ? delta.y : delta.x));
        }
        pack_weights(weights, scores);
        pack_weights(ds, slopes);
        start_mix(of_v, weights, dy);
        start_mix(of_k, ds, q);
        await_products<0>();
        settle(of_v);
        settle(of_k);
        __syncthreads();
    }
    int64_t start = b * p.of_k.batch + g * p.of_k.head;
    store_rows(p.dk + start, p.of_k.row, key, p.keys, of_k, p.scale, p.scale);
    store_rows(p.dv + start, p.of_k.row, key, p.keys, of_v, 1.0f, 1.0f);
}
