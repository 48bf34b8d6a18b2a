// Attention of many new positions on Hopper (after FlashAttention-3, Shah et al. 2024): wgmma, with
// warpgroups of different roles. For heads of 64 or 128 channels and 16-bit caches; those of codes
// are unpacked first (`expand` of prefill.cu). Arguments and result as in prefill.cu.
//
// A block takes 128 positions of one query head. One warpgroup copies tiles of 128 keys and of 128
// values, two stages of each; two warpgroups compute, 64 rows each. While the tensor cores add the
// values of one tile, the scores of the next become weights; and the two take turns, so that one
// multiplies while the other computes exponentials. Tiles are walked from the diagonal down.
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

/// What all roles know.
struct Work {
    unsigned q, keys, values; // in shared memory
    unsigned key_full, key_empty, value_full, value_empty;
    int begin, n, past, total, first;
    /// First token of the i-th tile that is taken.
    __device__ __forceinline__ int token(int i) const { return (begin + n - 1 - i) * KEY_ROWS; }
};

/// Copies keys and values: keys of tile 0, then keys of tile i + 1 and values of tile i in turn, in
/// which order they are needed. A tile is announced when the second one after it is under way.
__device__ __forceinline__ void copy_all(const Work& work, const char* keys, const char* values, int thread) {
    unsigned pending[2] = {0, 0};
    auto announce = [&](unsigned barrier) {
        show_to_products();
        barrier_arrive(barrier);
    };
    auto take = [&](int i, const char* rows, unsigned tiles, unsigned full, unsigned empty) {
        int stage = i % STAGES, token = work.token(i);
        barrier_wait(empty + stage * 8, (i / STAGES & 1) ^ 1);
        copy_tile<KEY_ROWS>(tiles + stage * TILE_BYTES, rows + (long long)token * ROW_BYTES, ROW_BYTES,
                            work.total - token, thread);
        copies_started();
        if (pending[0]) {
            wait_for_copies<2>();
            announce(pending[0]);
        }
        pending[0] = pending[1], pending[1] = full + stage * 8;
    };
    take(0, keys, work.keys, work.key_full, work.key_empty);
    for (int i = 0; i < work.n; i++) {
        if (i + 1 < work.n) take(i + 1, keys, work.keys, work.key_full, work.key_empty);
        take(i, values, work.values, work.value_full, work.value_empty);
    }
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

extern "C" __global__ void __launch_bounds__(THREADS, 1)
attend_prefill_hopper(const T* q, int q_stride, const char* keys, const char* values, const float2* key_parameters,
                      const float2* value_parameters, const int* past_length, int n_new, int q_heads, int kv_heads,
                      int capacity, float scale, float softcap, int causal, int window, const unsigned char* pad,
                      int pad_stride, T* out) {
    extern __shared__ uint4 shared[];
    __shared__ Barriers barriers;
    int head = blockIdx.y, b = blockIdx.z, first = (gridDim.x - 1 - blockIdx.x) * Q_ROWS;
    int n_rows = min(Q_ROWS, n_new - first), role = threadIdx.x / 128, thread = threadIdx.x % 128;
    unsigned start = (shared_address(shared) + 1023) / 1024 * 1024;
    Work work;
    work.q = start, work.keys = start + 2 * GROUP_BYTES, work.values = work.keys + STAGES * TILE_BYTES;
    work.key_full = shared_address(barriers.key_full), work.key_empty = shared_address(barriers.key_empty);
    work.value_full = shared_address(barriers.value_full), work.value_empty = shared_address(barriers.value_empty);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(work.key_full + i * 8, 128);
            barrier_init(work.value_full + i * 8, 128);
            barrier_init(work.key_empty + i * 8, 8); // the warps that compute
            barrier_init(work.value_empty + i * 8, 8);
        }
    }
    __syncthreads();
    let_next_kernel_start();
    wait_for_previous_kernel();

    work.past = *past_length, work.total = min(work.past + n_new, capacity), work.first = first;
    Sight sees{causal, window, pad ? pad + (long long)b * (pad_stride > 0 ? pad_stride : work.total) : nullptr};
    work.begin = sees.first(work.past + first) / KEY_ROWS;
    int end = (sees.end(work.past + first + n_rows - 1, work.total) + KEY_ROWS - 1) / KEY_ROWS;
    work.n = end - work.begin;

    if (role == 0) {
        give_registers<40>();
        long long line = cache_row(b, kv_heads, head / (q_heads / kv_heads), capacity, 0) * ROW_BYTES;
        copy_all(work, keys + line, values + line, thread);
    } else {
        take_registers<232>();
        int group = role - 1, warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
        int group_first = first + group * GROUP_ROWS, row = warp * 16 + g;
        unsigned queries = work.q + group * GROUP_BYTES;
        const T* q_from = q + ((long long)b * n_new + group_first) * q_stride + head * D;
        copy_tile<GROUP_ROWS>(queries, reinterpret_cast<const char*>(n_rows > group * GROUP_ROWS ? q_from : q),
                              q_stride * 2ll, n_rows - group * GROUP_ROWS, thread);
        copies_started();
        if (TAKE_TURNS && group == 1) pass_turn(1); // the first group begins
        wait_for_copies<0>();
        show_to_products();
        group_sync(4 + group, 128);

        auto is_masked = [&](int token) {
            int last = token + KEY_ROWS - 1, at = work.past + group_first;
            return sees.pad || last >= work.total || (causal && last > at) ||
                   (window > 0 && token + window <= at + GROUP_ROWS - 1);
        };
        float s[KEY_ROWS / 2], acc[D / 2];
        unsigned p[KEY_ROWS / 16][4];
        Rows rows{{MINUS_INFINITY, MINUS_INFINITY}, {0.f, 0.f}, {0.f, 0.f}};
#pragma unroll
        for (int i = 0; i < D / 2; i++) acc[i] = 0.f;
        int position = work.past + group_first + row;

        barrier_wait(work.key_full, 0);
        await_turn(group);
        products_may_start();
        start_scores(s, queries, work.keys);
        pass_turn(group);
        wait_for_products<0>();
        pin(s);
        if (lane == 0) barrier_arrive(work.key_empty);
        soften(s, rows, scale, softcap, sees, is_masked(work.token(0)), position, work.token(0), work.total, t);
        pack_weights(p, s);
        for (int i = 1; i < work.n; i++) {
            int stage = i % STAGES, before = (i - 1) % STAGES;
            barrier_wait(work.key_full + stage * 8, i / STAGES & 1);
            await_turn(group);
            pin(s);
            pin(acc);
            products_may_start();
            start_scores(s, queries, work.keys + stage * TILE_BYTES);
            barrier_wait(work.value_full + before * 8, (i - 1) / STAGES & 1);
            start_values(acc, p, work.values + before * TILE_BYTES);
            pass_turn(group);
            wait_for_products<1>();
            pin(s);
            if (lane == 0) barrier_arrive(work.key_empty + stage * 8);
            int token = work.token(i);
            soften(s, rows, scale, softcap, sees, is_masked(token), position, token, work.total, t);
            wait_for_products<0>();
            pin(acc);
            if (lane == 0) barrier_arrive(work.value_empty + before * 8);
#pragma unroll
            for (int j = 0; j < D / 2; j++) acc[j] *= rows.shrink[j >> 1 & 1];
            pack_weights(p, s);
        }
        int last = (work.n - 1) % STAGES;
        barrier_wait(work.value_full + last * 8, (work.n - 1) / STAGES & 1);
        pin(acc);
        products_may_start();
        start_values(acc, p, work.values + last * TILE_BYTES);
        wait_for_products<0>();
        pin(acc);
        if (TAKE_TURNS && group == 0) await_turn(0); // the other's last pass

        // The rows go where the queries were, and from there to memory in wide stores.
        group_sync(4 + group, 128);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float weight = quad_sum(rows.weight[r]), by = weight > 0.f ? 1.f / weight : 0.f;
            int line = row + 8 * r;
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                asm volatile("st.shared.b32 [%0], %1;" ::"r"(queries + line * (2 * D) + ((j ^ (line & 7)) * 16) + t * 4),
                             "r"(pack16<BF16>(acc[4 * j + 2 * r] * by, acc[4 * j + 2 * r + 1] * by)) : "memory");
        }
        __syncwarp();
        for (int i = lane; i < 16 * (D / 8); i += 32) {
            int line = warp * 16 + i / (D / 8), c = i % (D / 8);
            uint4 x;
            asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                         : "r"(queries + line * (2 * D) + ((c ^ (line & 7)) * 16)) : "memory");
            if (group * GROUP_ROWS + line < n_rows)
                reinterpret_cast<uint4*>(out + (((long long)b * n_new + group_first + line) * q_heads + head) * D)[c] = x;
        }
    }
}
