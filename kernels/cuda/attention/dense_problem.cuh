// What the kernels of learning's attention are given, and how blocks share the work: a group of four warps
// has 64 rows of queries (or of keys, for the gradients of these), 16 a warp; the groups of a block share
// what it reads of the other side, 64 rows at a time. Needs dense_mma.cuh or dense_wgmma.cuh in front.

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
    uint32_t processors; // of the GPU
    float scale;
};

/// What a block does: a tile of ROWS rows of a head, one of `lines` in all. Tiles are ranked from the
/// longest on; every second round over the processors is taken in the opposite order, so that the longest
/// of a round has the shortest of the next beside it.
struct Item {
    uint32_t rank, line;
    __device__ __forceinline__ Item(const Problem &p, uint32_t lines) {
        uint32_t i = blockIdx.x, round = i / p.processors;
        if (round % 2 == 1 && (round + 1) * p.processors <= gridDim.x)
            i = (2 * round + 1) * p.processors - 1 - i;
        rank = i / lines, line = i % lines;
    }
};

/// A tile of queries of one head, the last tiles first, and the tiles of keys that it sees.
struct Queries {
    uint32_t b, h, head, kv_head, first, n;
    __device__ __forceinline__ Queries(const Problem &p) {
        uint32_t heads = gridDim.x / ((p.queries + ROWS - 1) / ROWS), tile;
        Item item(p, heads);
        tile = (p.queries + ROWS - 1) / ROWS - 1 - item.rank;
        head = item.line, b = head / p.q_heads, h = head % p.q_heads;
        kv_head = b * p.kv_heads + h / (p.q_heads / p.kv_heads), first = tile * ROWS;
        uint32_t end = p.is_causal ? min(p.keys, first + ROWS) : p.keys;
        n = (end + TILE - 1) / TILE;
    }
};

/// The tiles of keys and values that a block of queries walks, two stages of each.
struct Walk {
    const bf16_t *k, *v;
    unsigned k_at, v_at;
    uint32_t keys, n;
    __device__ __forceinline__ void start(uint32_t t) const {
        if (t >= n) return;
        load_tile<TILE>(k_at + t % 2 * TILE_BYTES, k, t * TILE, keys);
        load_tile<TILE>(v_at + t % 2 * TILE_BYTES, v, t * TILE, keys);
        copies_started();
    }
    /// Waits for a tile, with that after it under way.
    __device__ __forceinline__ void await(uint32_t t) const {
        start(t + 1);
        if (t + 1 < n) wait_for_copies<1>();
        else wait_for_copies<0>();
        show_tiles();
        __syncthreads();
    }
};

/// Writes the warp's [16, D] rows, each times its factor, those before `limit`.
__device__ __forceinline__ void store_rows(float *to, int64_t step, uint32_t row, uint32_t limit, const Sums &sums,
                                           float upper, float lower) {
    uint32_t c = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const float *x = sums + 4 * i;
        if (row < limit) *(float2 *)(to + row * step + i * 8 + c) = make_float2(x[0] * upper, x[1] * upper);
        if (row + 8 < limit) *(float2 *)(to + (row + 8) * step + i * 8 + c) = make_float2(x[2] * lower, x[3] * lower);
    }
}

/// Start of the tiles, which `wgmma` wants at multiples of 1,024 bytes.
__device__ __forceinline__ unsigned tiles_start(const void *shared) { return (shared_address(shared) + 1023) / 1024 * 1024; }

/// The thread's upper row within the block.
__device__ __forceinline__ uint32_t own_row() { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; }

/// Scores of the tile of keys `t` from the thread's upper row on: those of keys that a row does not see
/// are minus infinity.
__device__ __forceinline__ void hide_keys(const Problem &p, Scores &scores, uint32_t t, uint32_t row) {
    // All rows of a warp see all keys of most tiles.
    if ((t + 1) * TILE <= p.keys && !(p.is_causal && t * TILE + TILE - 1 > row / 16 * 16)) return;
#pragma unroll
    for (int i = 0; i < TILE / 2; i++) {
        uint32_t key = t * TILE + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2, query = row + i / 2 % 2 * 8;
        if (key >= p.keys || (p.is_causal && key > query)) scores[i] = -INFINITY_F;
    }
}
