// Attention of many new positions on Hopper (after FlashAttention-3, Shah et al. 2024): wgmma, with
// warpgroups of different roles. For heads of 64 or 128 channels and 16-bit caches; those of codes
// are unpacked first (`expand` of prefill.cu). Arguments and result as in prefill.cu.
//
// A tile of work is 128 positions of one query head; a block takes several, one after another: the
// longest first, and in every second round in the opposite order, so that all blocks have about as
// much to do. Grid (blocks). While a tile ends, the copies for the next are under way.
//
// One warpgroup copies tiles of 128 keys and of 128 values, two stages of each; two warpgroups
// compute, 64 rows each. While the tensor cores add the values of one tile, the scores of the next
// become weights; and the two take turns, so that one multiplies while the other computes
// exponentials. Keys are walked from the diagonal down.
//
// Tiles are swizzled as wgmma wants it, columns in blocks of 64. Copies are made by threads and not
// by the copy engine: they put zeros where there are no more tokens, and need no description made by
// the host.
#ifndef TAKE_TURNS
#define TAKE_TURNS 1
#endif
constexpr int STAGES = 2, KEY_ROWS = 128, Q_ROWS = 128, GROUP_ROWS = 64, THREADS = 384;
constexpr int TILE_BYTES = KEY_ROWS * D * 2, GROUP_BYTES = GROUP_ROWS * D * 2;
constexpr int COLUMN_BLOCK = KEY_ROWS * 128; // bytes from 64 columns of a tile to the next
constexpr bool BF16 = IS_BF16<T>;
static_assert(D == 64 || D == 128, "heads of 64 or 128 channels");

/// Copies ROWS rows of D channels by 128 threads, swizzled; zeros from row `n` on.
template <int ROWS>
__device__ __forceinline__ void copy_tile(unsigned to, const char* from, long long pitch, int n, int thread) {
    constexpr int CHUNKS = D / 8;
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / 128; i++) {
        int chunk = thread % CHUNKS, row = thread / CHUNKS + i * (128 / CHUNKS);
        unsigned at = chunk / 8 * (ROWS * 128) + row * 128 + ((chunk % 8) ^ (row % 8)) * 16;
        copy16(to + at, row < n ? from + row * pitch + chunk * 16 : from, row < n);
    }
}

struct Barriers {
    unsigned long long key_full[STAGES], key_empty[STAGES], value_full[STAGES], value_empty[STAGES];
};

/// Places in shared memory.
struct Places {
    unsigned q, keys, values, key_full, key_empty, value_full, value_empty;
};

/// What there is to do at all.
struct Job {
    int n_new, batch, q_heads, kv_heads, capacity, past, total;
    Sight sees;
    const unsigned char* pad;
    int pad_stride;
    __device__ __forceinline__ int tiles() const { return (n_new + Q_ROWS - 1) / Q_ROWS; }
    __device__ __forceinline__ int items() const { return tiles() * q_heads * batch; }
    /// The item that the block takes in a round, from the longest on.
    __device__ __forceinline__ int item(int round) const {
        int blocks = gridDim.x, block = blockIdx.x;
        return round * blocks + (round & 1 ? blocks - 1 - block : block);
    }
};

/// One tile of work.
struct Work {
    int b, head, first, n_rows; // rows of queries
    int begin, n, total;        // tiles of keys
    __device__ __forceinline__ Work(const Job& job, int item) {
        int lines = job.q_heads * job.batch, line = item % lines;
        head = line % job.q_heads, b = line / job.q_heads;
        first = (job.tiles() - 1 - item / lines) * Q_ROWS, n_rows = min(Q_ROWS, job.n_new - first);
        total = job.total;
        begin = job.sees.first(job.past + first) / KEY_ROWS;
        n = (job.sees.end(job.past + first + n_rows - 1, total) + KEY_ROWS - 1) / KEY_ROWS - begin;
    }
    /// First token of the i-th tile that is taken.
    __device__ __forceinline__ int token(int i) const { return (begin + n - 1 - i) * KEY_ROWS; }
};

/// Copies keys and values: of each tile of work keys 0, then keys i + 1 and values i in turn, in which
/// order they are needed. What is copied is announced when the second copy after it is under way.
__device__ __forceinline__ void copy_all(const Job& job, const Places& at, const char* keys, const char* values, int thread) {
    unsigned pending[2] = {0, 0};
    int done = 0; // tiles before this work
    auto announce = [&](unsigned barrier) {
        show_to_products();
        barrier_arrive(barrier);
    };
    auto take = [&](const Work& work, int i, const char* rows, unsigned tiles, unsigned full, unsigned empty) {
        int index = done + i, stage = index % STAGES, token = work.token(i);
        barrier_wait(empty + stage * 8, (index / STAGES & 1) ^ 1);
        copy_tile<KEY_ROWS>(tiles + stage * TILE_BYTES, rows + (long long)token * ROW_BYTES, ROW_BYTES,
                            work.total - token, thread);
        copies_started();
        if (pending[0]) {
            wait_for_copies<2>();
            announce(pending[0]);
        }
        pending[0] = pending[1], pending[1] = full + stage * 8;
    };
    for (int round = 0; job.item(round) < job.items(); round++) {
        Work work(job, job.item(round));
        long long line = cache_row(work.b, job.kv_heads, work.head / (job.q_heads / job.kv_heads), job.capacity, 0);
        const char *key_rows = keys + line * ROW_BYTES, *value_rows = values + line * ROW_BYTES;
        take(work, 0, key_rows, at.keys, at.key_full, at.key_empty);
        for (int i = 0; i < work.n; i++) {
            if (i + 1 < work.n) take(work, i + 1, key_rows, at.keys, at.key_full, at.key_empty);
            take(work, i, value_rows, at.values, at.value_full, at.value_empty);
        }
        done += work.n;
    }
    if (!done) return;
    wait_for_copies<0>();
    announce(pending[0]);
    announce(pending[1]);
}

/// Sums of a thread's two rows.
struct Rows {
    float largest[2], weight[2], shrink[2];
};

/// Scores to weights relative to the largest so far.
__device__ __forceinline__ void soften(float (&s)[KEY_ROWS / 2], Rows& rows, float scale, float softcap, const Sight& sees,
                                       bool masked, int first, int token, int total, int t) {
    bool apart = softcap > 0.f || scale <= 0.f;
    float factor = apart ? LOG2_E : scale * LOG2_E;
    if (apart) {
#pragma unroll
        for (int i = 0; i < KEY_ROWS / 2; i++) s[i] = capped(s[i] * scale, softcap);
    }
    if (masked) {
#pragma unroll
        for (int i = 0; i < KEY_ROWS / 2; i++) {
            int key = token + i / 4 * 8 + 2 * t + (i & 1), at = first + (i >> 1 & 1) * 8;
            if (key >= total || !sees(at, key)) s[i] = MINUS_INFINITY;
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float largest = rows.largest[r];
#pragma unroll
        for (int j = 0; j < KEY_ROWS / 8; j++) largest = fmaxf(largest, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
        largest = quad_max(largest);
        float origin = largest == MINUS_INFINITY ? 0.f : largest * factor;
        rows.shrink[r] = exp2_fast(rows.largest[r] * factor - origin);
        rows.largest[r] = largest;
        float sum = rows.weight[r] * rows.shrink[r];
#pragma unroll
        for (int j = 0; j < KEY_ROWS / 8; j++) {
#pragma unroll
            for (int i = 4 * j + 2 * r; i < 4 * j + 2 * r + 2; i++) {
                s[i] = exp2_fast(s[i] * factor - origin);
                sum += s[i];
            }
        }
        rows.weight[r] = sum;
    }
}

/// Scores of the group's queries and a tile of keys; started, not awaited.
__device__ __forceinline__ void start_scores(float (&s)[KEY_ROWS / 2], unsigned q, unsigned keys) {
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        product<BF16>(s, tile_descriptor(q + k / 4 * (GROUP_ROWS * 128) + k % 4 * 32, 16, 1024),
                      tile_descriptor(keys + k / 4 * COLUMN_BLOCK + k % 4 * 32, 16, 1024), k > 0);
    products_started();
}

/// Weights times a tile of values; started, not awaited.
__device__ __forceinline__ void start_values(float (&out)[D / 2], const unsigned (&p)[KEY_ROWS / 16][4], unsigned values) {
#pragma unroll
    for (int k = 0; k < KEY_ROWS / 16; k++)
        product<BF16>(out, p[k], tile_descriptor(values + k * 2048, COLUMN_BLOCK, 1024));
    products_started();
}

__device__ __forceinline__ void pack_weights(unsigned (&p)[KEY_ROWS / 16][4], const float (&s)[KEY_ROWS / 2]) {
#pragma unroll
    for (int k = 0; k < KEY_ROWS / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[k][i] = pack16<BF16>(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
}

/// Waits for the group's turn to multiply, and gives it to the other group.
__device__ __forceinline__ void await_turn(int group) {
    if constexpr (TAKE_TURNS) group_sync(2 + group, 256);
}
__device__ __forceinline__ void pass_turn(int group) {
    if constexpr (TAKE_TURNS) group_arrive(3 - group, 256);
}

/// The group's rows of a tile of work, from accumulators through `staging` (shared memory, where its
/// queries were) to memory in wide stores.
__device__ __forceinline__ void write_rows(T* out, const Work& work, const Job& job, const float (&acc)[D / 2],
                                           const Rows& rows, unsigned staging, int group, int warp, int lane) {
    int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float weight = quad_sum(rows.weight[r]), by = weight > 0.f ? 1.f / weight : 0.f;
        int line = warp * 16 + g + 8 * r;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            asm volatile("st.shared.b32 [%0], %1;" ::"r"(staging + line * (2 * D) + ((j ^ (line & 7)) * 16) + t * 4),
                         "r"(pack16<BF16>(acc[4 * j + 2 * r] * by, acc[4 * j + 2 * r + 1] * by)) : "memory");
    }
    __syncwarp();
    for (int i = lane; i < 16 * (D / 8); i += 32) {
        int line = warp * 16 + i / (D / 8), c = i % (D / 8), row = group * GROUP_ROWS + line;
        uint4 x;
        asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                     : "r"(staging + line * (2 * D) + ((c ^ (line & 7)) * 16)) : "memory");
        if (row < work.n_rows)
            reinterpret_cast<uint4*>(out + (((long long)work.b * job.n_new + work.first + row) * job.q_heads + work.head) * D)[c] = x;
    }
}

/// Brings the group's queries of a tile of work.
__device__ __forceinline__ void start_queries(unsigned to, const T* q, int q_stride, const Work& work, const Job& job,
                                              int group, int thread) {
    int skipped = group * GROUP_ROWS, n = work.n_rows - skipped;
    const T* from = q + ((long long)work.b * job.n_new + work.first + skipped) * q_stride + work.head * D;
    copy_tile<GROUP_ROWS>(to, reinterpret_cast<const char*>(n > 0 ? from : q), q_stride * 2ll, n, thread);
    copies_started();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
attend_prefill_hopper(const T* q, int q_stride, const char* keys, const char* values, const float2* key_parameters,
                      const float2* value_parameters, const int* past_length, int n_new, int q_heads, int kv_heads,
                      int capacity, float scale, float softcap, int causal, int window, const unsigned char* pad,
                      int pad_stride, T* out, int batch) {
    extern __shared__ uint4 shared[];
    __shared__ Barriers barriers;
    int role = threadIdx.x / 128, thread = threadIdx.x % 128;
    unsigned start = (shared_address(shared) + 1023) / 1024 * 1024;
    Places at{start, start + 4 * GROUP_BYTES, start + 4 * GROUP_BYTES + STAGES * TILE_BYTES,
              shared_address(barriers.key_full), shared_address(barriers.key_empty),
              shared_address(barriers.value_full), shared_address(barriers.value_empty)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(at.key_full + i * 8, 128);
            barrier_init(at.value_full + i * 8, 128);
            barrier_init(at.key_empty + i * 8, 8); // the warps that compute
            barrier_init(at.value_empty + i * 8, 8);
        }
    }
    __syncthreads();
    let_next_kernel_start();
    wait_for_previous_kernel();

    int past = *past_length, total = min(past + n_new, capacity);
    Job job{n_new, batch, q_heads, kv_heads, capacity, past, total, {causal, window, nullptr}, pad,
            pad_stride > 0 ? pad_stride : total};
    if (role == 0) {
        give_registers<40>();
        copy_all(job, at, keys, values, thread);
    } else {
        take_registers<232>();
        int group = role - 1, warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
        int done = 0; // tiles of keys before this work
        if (job.item(0) < job.items()) start_queries(at.q + group * GROUP_BYTES, q, q_stride, Work(job, job.item(0)), job, group, thread);
        if (TAKE_TURNS && group == 1) pass_turn(1); // the first group begins
        for (int round = 0; job.item(round) < job.items(); round++) {
            Work work(job, job.item(round));
            unsigned queries = at.q + ((round & 1) * 2 + group) * GROUP_BYTES;
            wait_for_copies<0>();
            show_to_products();
            group_sync(4 + group, 128); // the queries are there, and all have left those before
            if (job.item(round + 1) < job.items())
                start_queries(at.q + ((~round & 1) * 2 + group) * GROUP_BYTES, q, q_stride, Work(job, job.item(round + 1)),
                              job, group, thread);

            Sight sees{causal, window, pad ? pad + (long long)work.b * job.pad_stride : nullptr};
            int group_at = past + work.first + group * GROUP_ROWS, position = group_at + warp * 16 + g;
            auto is_masked = [&](int token) {
                int last = token + KEY_ROWS - 1;
                return pad || last >= total || (causal && last > group_at) ||
                       (window > 0 && token + window <= group_at + GROUP_ROWS - 1);
            };
            float s[KEY_ROWS / 2], acc[D / 2];
            unsigned p[KEY_ROWS / 16][4];
            Rows rows{{MINUS_INFINITY, MINUS_INFINITY}, {0.f, 0.f}, {0.f, 0.f}};
#pragma unroll
            for (int i = 0; i < D / 2; i++) acc[i] = 0.f;

            int stage = done % STAGES;
            barrier_wait(at.key_full + stage * 8, done / STAGES & 1);
            await_turn(group);
            products_may_start();
            start_scores(s, queries, at.keys + stage * TILE_BYTES);
            pass_turn(group);
            wait_for_products<0>();
            pin(s);
            if (lane == 0) barrier_arrive(at.key_empty + stage * 8);
            soften(s, rows, scale, softcap, sees, is_masked(work.token(0)), position, work.token(0), total, t);
            pack_weights(p, s);
            for (int i = 1; i < work.n; i++) {
                int index = done + i, before = stage;
                stage = index % STAGES;
                barrier_wait(at.key_full + stage * 8, index / STAGES & 1);
                await_turn(group);
                pin(s);
                pin(acc);
                products_may_start();
                start_scores(s, queries, at.keys + stage * TILE_BYTES);
                barrier_wait(at.value_full + before * 8, (index - 1) / STAGES & 1);
                start_values(acc, p, at.values + before * TILE_BYTES);
                pass_turn(group);
                wait_for_products<1>();
                pin(s);
                if (lane == 0) barrier_arrive(at.key_empty + stage * 8);
                int token = work.token(i);
                soften(s, rows, scale, softcap, sees, is_masked(token), position, token, total, t);
                wait_for_products<0>();
                pin(acc);
                if (lane == 0) barrier_arrive(at.value_empty + before * 8);
#pragma unroll
                for (int j = 0; j < D / 2; j++) acc[j] *= rows.shrink[j >> 1 & 1];
                pack_weights(p, s);
            }
            done += work.n;
            barrier_wait(at.value_full + stage * 8, (done - 1) / STAGES & 1);
            pin(acc);
            products_may_start();
            start_values(acc, p, at.values + stage * TILE_BYTES);
            wait_for_products<0>();
            pin(acc);
            if (lane == 0) barrier_arrive(at.value_empty + stage * 8);
            group_sync(4 + group, 128); // all are done with the queries
            write_rows(out, work, job, acc, rows, queries, group, warp, lane);
        }
        if (TAKE_TURNS && group == 0) await_turn(0); // the other's last pass
    }
}
