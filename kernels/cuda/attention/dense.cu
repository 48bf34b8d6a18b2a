// Attention over whole sequences without a cache, for learning, and what its gradients need of it.
// Blockwise with the running softmax of Milakov and Gimelshein (arXiv 1805.02867) and the scores computed
// anew on the way back (Dao, arXiv 2307.08691). Tensor cores take bfloat16, sums are in f32; every sum has
// one order, so that the same input gives the same result.
//
// Definitions as in dense_tiles.cuh. Needs dense_problem.cuh in front.

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

/// The running softmax of a thread's two rows, of scores times a positive `scale`.
struct Softmax {
    float scale;  // in units of log2
    float largest[2] = {-INFINITY_F, -INFINITY_F}, totals[2] = {0.0f, 0.0f}, shrink[2];
    /// Scores to weights relative to the largest so far.
    __device__ __forceinline__ void take(Scores &scores) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = largest[half], total = 0.0f;
#pragma unroll
            for (int i = 0; i < TILE / 8; i++) top = fmaxf(top, fmaxf(scores[4 * i + 2 * half], scores[4 * i + 2 * half + 1]));
            top = quad_max(top);
            float base = top == -INFINITY_F ? 0.0f : top * scale;
            shrink[half] = exp2_fast(largest[half] * scale - base);
            largest[half] = top;
#pragma unroll
            for (int i = 0; i < TILE / 8; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float &score = scores[4 * i + 2 * half + j];
                    score = exp2_fast(score * scale - base);
                    total += score;
                }
            totals[half] = totals[half] * shrink[half] + total;
        }
    }
};

/// dy . y of a row, of which the thread has the sums of every fourth pair of channels.
__device__ __forceinline__ float along(const float *dy, const Sums &sums, int half) {
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        float2 g = *(const float2 *)(dy + i * 8);
        total += g.x * sums[4 * i + 2 * half] + g.y * sums[4 * i + 2 * half + 1];
    }
    return total;
}

/// A block for each tile of queries of a head: y, and what the way back needs. Grid (tiles * heads of all sequences).
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) dense_forward(const Problem p) {
    extern __shared__ char shared[];
    wait_for_previous_kernel();
    let_next_kernel_start();
    Queries of(p);
    int64_t kv_start = (int64_t)of.kv_head * p.keys * D;
    unsigned q_at = tiles_start(shared), k_at = q_at + OWN_BYTES;
    Walk walk{p.k + kv_start, p.v + kv_start, k_at, k_at + 2 * TILE_BYTES, p.keys, of.n};
    load_tile<ROWS>(q_at, p.q + (int64_t)of.head * p.queries * D, of.first, p.queries);
    walk.start(0);
    uint32_t row = of.first + own_row();
    Sums sums = {};
    Scores scores;
    Weights weights;
    Softmax softmax{p.scale * LOG2_E};
    for (uint32_t t = 0; t < of.n; t++) {
        walk.await(t);
        start_products(scores, q_at, walk.k_at + t % 2 * TILE_BYTES);
        await_products<0>();
        settle(scores);
        hide_keys(p, scores, t, row);
        softmax.take(scores);
#pragma unroll
        for (int i = 0; i < D / 2; i++) sums[i] *= softmax.shrink[i / 2 % 2];
        pack_weights(weights, scores);
        start_mix(sums, weights, walk.v_at + t % 2 * TILE_BYTES);
        await_products<0>();
        settle(sums);
        __syncthreads();
    }
    float inverse[2];
    int64_t start = of.b * p.of_q.batch + of.h * p.of_q.head;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t at = row + 8 * half;
        float total = quad_sum(softmax.totals[half]);
        inverse[half] = total > 0.0f ? 1.0f / total : 0.0f;
        if (!p.lse) continue;
        bool inside = at < p.queries, writes = threadIdx.x % 4 == 0 && at < p.padded;
        const float *dy = p.dy_f32 + start + at * p.of_q.row + threadIdx.x % 4 * 2;
        float delta = quad_sum(inside ? along(dy, sums, half) : 0.0f) * inverse[half];
        float lse = inside && total > 0.0f ? softmax.largest[half] * softmax.scale + log2_fast(total) : INFINITY_F;
        int64_t to = (int64_t)of.head * p.padded + at;
        if (writes) p.lse[to] = lse, p.delta[to] = delta;
    }
    if (p.y) store_rows(p.y + start, p.of_q.row, row, p.queries, sums, inverse[0], inverse[1]);
}
