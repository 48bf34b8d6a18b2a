// Attention of few new positions over the whole cache (flash-decoding, Dao et al. 2023).
//
// q [batch, new, q_heads * D] of T in rows of `q_stride` elements, out likewise without gaps; keys
// and values as layout.cuh has them. A block takes 16 rows of one key head, a row being one of its
// query heads at one of the new positions, so that they share what is read of the cache, and a part
// of the context: its warps take groups of 16 tokens, in turn with those of the other parts. Grid
// (parts, kv_heads * tiles of 16 rows, batch). The positions on the device tell how many groups there
// are; parts without any leave at once. Which groups a warp takes does not depend on the length, so
// that its first loads and that of the length are under way together. The part that ends last adds
// all up, in the order of the parts, so that the result does not depend on which one it is.
//
// With CLUSTER (sm_90 and later) a cluster of that many blocks is all the parts: they send each
// other their results, which is faster than through the second-level cache.
//
// With FUSED the queries, keys and values are those of the projections: decode_new.cuh prepares them.
#ifndef CLUSTER
#define CLUSTER 1
#endif
#ifndef FUSED
#define FUSED 0
#endif

/// Floats of an output row in shared memory.
constexpr int OUT_PITCH = (D + 31) / 32 * 32;
/// What a row has in groups of four channels, and what that takes in shared memory.
constexpr int FOURS = D / 4, PITCH_FOURS = OUT_PITCH / 4;

/// Which groups of 16 tokens a warp takes: a round has one for each warp of each part, but the part that prepares the
/// new positions sits out the first rounds.
struct Deal {
    int warp, place, parts, sits_out; // of the parts that take what is cached, that of the new positions is the last
    __device__ __forceinline__ Deal(int warp, int part, int parts, int sits_out)
        : warp(warp), place(sits_out > 0 ? part > 0 ? part - 1 : parts - 1 : part), parts(parts), sits_out(sits_out) {}
    __device__ __forceinline__ int first() const { return place < parts - 1 ? 0 : sits_out; }
    __device__ __forceinline__ int group(int round) const {
        int later = max(round - sits_out, 0), earlier = round - later;
        return (earlier * (parts - 1) + later * parts) * WARPS + place + (round < sits_out ? parts - 1 : parts) * warp;
    }
    /// Parts that have any of `n` groups, or the new positions.
    __device__ __forceinline__ int busy(int n) const { return min(parts, sits_out > 0 ? n + 1 : max(n, 1)); }
};

/// Place of the group of four channels `f` of a row in shared memory: rows and groups that are
/// written together lie in different banks.
__device__ __forceinline__ int placed(int row, int f) { return f ^ (f >> 3 & 3) ^ (row & 1) << 2; }

/// Writes the output rows of a warp to its part of shared memory.
__device__ __forceinline__ void put(float4* out, const State& state, int rows, int g, int t) {
#pragma unroll
    for (int r = 0; r < HALVES; r++) {
        int row = g + 8 * r;
        if (row >= rows) continue;
#pragma unroll
        for (int n = 0; n < 2; n++) {
#pragma unroll
            for (int u = 0; u < VALUE_LOADS; u++) {
                int channel = (u * 8 + 2 * t + n) * VALUE_CHANNELS;
                if (channel >= D) continue;
                const float(*x)[4] = state.out + u * VALUE_CHANNELS;
                int i = 2 * r + n;
                float* line = reinterpret_cast<float*>(out + row * PITCH_FOURS);
                if constexpr (VALUE_CHANNELS % 4 == 0) {
#pragma unroll
                    for (int e = 0; e < VALUE_CHANNELS; e += 4)
                        reinterpret_cast<float4*>(line)[placed(row, (channel + e) / 4)] =
                            make_float4(x[e][i] - state.zero[r], x[e + 1][i] - state.zero[r],
                                        x[e + 2][i] - state.zero[r], x[e + 3][i] - state.zero[r]);
                } else {
#pragma unroll
                    for (int e = 0; e < VALUE_CHANNELS; e++)
                        line[placed(row, (channel + e) / 4) * 4 + (channel + e) % 4] = x[e][i] - state.zero[r];
                }
            }
        }
    }
}

__device__ __forceinline__ void add_scaled(float4& sum, float4 x, float by) {
    sum.x += x.x * by, sum.y += x.y * by, sum.z += x.z * by, sum.w += x.w * by;
}

__device__ __forceinline__ void write_out(T* to, float4 x, float by) {
    *reinterpret_cast<uint2*>(to) =
        make_uint2(pack16<IS_BF16<T>>(x.x * by, x.y * by), pack16<IS_BF16<T>>(x.z * by, x.w * by));
}

/// Where the rows of a block go.
struct Target {
    T* out;
    int b, n_new, q_heads, first_head, group, first_row;
    __device__ __forceinline__ T* row(int r) const {
        int i = first_row + r;
        return out + (((long long)b * n_new + i / group) * q_heads + first_head + i % group) * D;
    }
};

/// How much partial results count: 2^(largest score of each - largest of all), and the inverse of
/// the weight of all.
struct Merge {
    float largest, weight;
    __device__ __forceinline__ float share(float l) const {
        return l == MINUS_INFINITY ? 0.f : exp2_fast(l - largest);
    }
    __device__ __forceinline__ float inverse() const { return weight > 0.f ? 1.f / weight : 0.f; }
};

/// Of `n` results, (largest score, weight) each.
__device__ __forceinline__ Merge merged(const float2* x, int n) {
    Merge merge{MINUS_INFINITY, 0.f};
#pragma unroll 8
    for (int i = 0; i < n; i++) merge.largest = fmaxf(merge.largest, x[i].x);
#pragma unroll 8
    for (int i = 0; i < n; i++) merge.weight += x[i].y * merge.share(x[i].x);
    return merge;
}

/// Counts a block that has written its results; tells how many were before it. What any of them
/// wrote is seen by the block that is told of all others.
__device__ __forceinline__ unsigned arrive(unsigned* counter) {
    unsigned before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
}

/// The sums of the parts [n_parts][ROWS][D] with their weights [rows][pitch]; `scratch` is shared
/// memory for rows * n_parts weights. The first loads are under way before the weights are known.
__device__ __forceinline__ void add_parts(const Target& target, const float4* parts, const float2* weights, int pitch,
                                          int n_parts, int rows, float2* scratch) {
    constexpr int AHEAD = 16, STEP = ROWS * FOURS;
    for (int i = threadIdx.x; i < rows * n_parts; i += WARPS * 32)
        scratch[i] = __ldcg(weights + i / n_parts * pitch + i % n_parts);
    for (int start = 0; start < rows * FOURS; start += WARPS * 32) {
        int i = start + threadIdx.x, r = i / FOURS, f = i % FOURS;
        bool take = r < rows;
        const float4* from = parts + r * FOURS + f;
        float4 x[AHEAD];
#pragma unroll
        for (int p = 0; p < AHEAD; p++)
            if (take && p < n_parts) x[p] = __ldcg(from + (long long)p * STEP);
        if (start == 0) __syncthreads();
        if (!take) continue;
        const float2* weight = scratch + r * n_parts;
        Merge merge = merged(weight, n_parts);
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
        for (int p = 0; p < AHEAD; p++)
            if (p < n_parts) add_scaled(sum, x[p], merge.share(weight[p].x));
#pragma unroll 4
        for (int p = AHEAD; p < n_parts; p++) add_scaled(sum, __ldcg(from + (long long)p * STEP), merge.share(weight[p].x));
        write_out(target.row(r) + 4 * f, sum, merge.inverse());
    }
}

#if CLUSTER > 1
#include "mail.cuh"
/// What the blocks of a cluster send each other: the group of four channels i of [rows][FOURS] goes to block i % CLUSTER.
struct Inbox {
    float4 sums[CLUSTER][(ROWS * FOURS + CLUSTER - 1) / CLUSTER];
    float2 weights[CLUSTER][ROWS];
    uint64_t box;
};

/// Before the blocks meet.
__device__ __forceinline__ void open(Inbox& inbox, int rows) {
    int own = (rows * FOURS - (int)blockIdx.x + CLUSTER - 1) / CLUSTER;
    open_box(shared_address(&inbox.box), CLUSTER * (own * sizeof(float4) + rows * sizeof(float2)));
}

__device__ __forceinline__ void send_sum(Inbox& inbox, int i, float4 sum) {
    int block = i % CLUSTER;
    send(in_block(shared_address(&inbox.sums[blockIdx.x][i / CLUSTER]), block), in_block(shared_address(&inbox.box), block), sum);
}

__device__ __forceinline__ void send_weight(Inbox& inbox, int r, int block, const Merge& merge) {
    send(in_block(shared_address(&inbox.weights[blockIdx.x][r]), block), in_block(shared_address(&inbox.box), block),
         merge.largest, merge.weight);
}

/// Adds what has been sent.
__device__ __forceinline__ void add_in_cluster(const Target& target, const Inbox& inbox, int rows) {
    for (int own = threadIdx.x; own * CLUSTER + blockIdx.x < rows * FOURS; own += WARPS * 32) {
        int i = own * CLUSTER + blockIdx.x, r = i / FOURS;
        Merge merge{MINUS_INFINITY, 0.f};
#pragma unroll
        for (int p = 0; p < CLUSTER; p++) merge.largest = fmaxf(merge.largest, inbox.weights[p][r].x);
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
        for (int p = 0; p < CLUSTER; p++) {
            float share = merge.share(inbox.weights[p][r].x);
            merge.weight += inbox.weights[p][r].y * share;
            add_scaled(sum, inbox.sums[p][own], share);
        }
        write_out(target.row(r) + 4 * (i % FOURS), sum, merge.inverse());
    }
}
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
#else
#define IN_CLUSTERS
#endif

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(WARPS * 32, 1)
attend_decode(const T* q, int q_stride, char* keys, char* values, float2* key_parameters, float2* value_parameters,
              const int* past_length, int n_new, int q_heads, int kv_heads, int capacity, float scale, float softcap,
              int causal, int window, const unsigned char* pad, int pad_stride, float4* partial,
              float2* partial_weights, unsigned* arrived, T* out
#if FUSED
              , const T* new_k, int k_stride, const T* new_v, int v_stride, const ANGLE* cos, const ANGLE* sin, int angle_step,
              int rotary_dim, int interleaved, const T* q_matrix, const T* k_matrix, float key_clip_min,
              float key_clip_max, float value_clip_min, float value_clip_max
#endif
) {
    extern __shared__ float4 shared[];
    __shared__ float2 shared_weights[ROWS][WARPS];
#if CLUSTER > 1
    __shared__ Inbox inbox;
#else
    __shared__ bool is_last;
#endif

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int parts = gridDim.x, part = blockIdx.x, head = blockIdx.y % kv_heads, tile = blockIdx.y / kv_heads;
    int b = blockIdx.z, group = q_heads / kv_heads;
    int first_row = tile * ROWS, rows = min(ROWS, group * n_new - first_row);
#if CLUSTER > 1
    if (threadIdx.x == 0) open(inbox, rows);
    cluster_arrive_relaxed(); // none sends before all have started
#endif
    long long line = cache_row(b, kv_heads, head, capacity, 0);
    Cache cache{keys + line * ROW_BYTES, values + line * ROW_BYTES, key_parameters + line, value_parameters + line, capacity};
#if FUSED
    __shared__ float2 numbers[(2 + WARPS) * NEW_ROWS];
    NewSpace space(reinterpret_cast<char*>(shared), numbers);
    NewRows fresh{{q, q_stride}, {new_k, k_stride}, {new_v, v_stride}, {cos, sin, angle_step, rotary_dim, interleaved},
                  q_matrix, k_matrix, {key_clip_min, key_clip_max}, {value_clip_min, value_clip_max},
                  b, head, group, n_new, part == 0};
    float4* shared_out = reinterpret_cast<float4*>(space.held); // [WARPS][rows][OUT_PITCH / 4]
    hold_matrices(fresh, space);
#else
    float4* shared_out = shared;
#endif
    wait_for_previous_kernel();

    int past = *past_length;
#if FUSED
    // What the new keys and values take first, in rounds.
    Deal deal(warp, part, parts, parts == 1 ? 0 : k_matrix ? 2 : 1);
#else
    Deal deal(warp, part, parts, 0);
#endif
    int round = deal.first(), k = deal.group(round), k_next = deal.group(round + 1);
    Group here, next;
    auto load_first = [&](int begin) {
        load(here, cache, begin + k * 16, g, t);
        if (PREFETCH) load(next, cache, begin + k_next * 16, g, t);
    };
    bool early = window <= 0; // with a window, where it begins must be known first
    if (early) load_first(0);
    // Not before: the next kernels ask for their weights as soon as they start.
    let_next_kernel_start();
    const T* row[2];
#if FUSED
    const char* lines = prepare_new(fresh, space, warp, lane);
#pragma unroll
    for (int r = 0; r < 2; r++)
        row[r] = g + 8 * r < rows ? reinterpret_cast<const T*>(lines + (g + 8 * r) * PITCH) : nullptr;
#else
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int index = first_row + g + 8 * r, i = index / group;
        row[r] = g + 8 * r < rows ? q + ((long long)b * n_new + i) * q_stride + (head * group + index % group) * D : nullptr;
    }
#endif
    Queries queries;
    load_queries(queries, row, t);

    // The tokens that any row of the block sees, in groups of 16.
    int total = min(past + n_new, capacity);
    Sight sees{causal, window, pad ? pad + (long long)b * (pad_stride > 0 ? pad_stride : total) : nullptr};
    int begin = sees.first(past + first_row / group) / 16 * 16;
#if FUSED
    int end = min(past, capacity), n_fresh = total - end; // which are a group of their own
    if (part == 0) write_new(space, n_fresh, line + end, keys, values, key_parameters, value_parameters);
#else
    int end = sees.end(past + (first_row + rows - 1) / group, total);
#endif
    int n_groups = max((end - begin + 15) / 16, 0), n_parts = deal.busy(n_groups);
    if (CLUSTER == 1 && part >= n_parts) return;
    if (!early) load_first(begin);
    int at[2] = {past + (first_row + g) / group, past + (first_row + g + 8) / group};

    State state;
#pragma unroll
    for (int j = 0; j < TILES; j++) state.out[j][0] = state.out[j][1] = state.out[j][2] = state.out[j][3] = 0.f;
#pragma unroll
    for (int r = 0; r < 2; r++) state.largest[r] = MINUS_INFINITY, state.weight[r] = state.zero[r] = 0.f;
    // The new positions, if the block has them, are the last group of the warp that has the fewest others.
    bool is_left = FUSED && part == 0 && warp == WARPS - 1;
#pragma unroll 1
    while (true) {
        bool is_cached = k < n_groups;
        if (!is_cached && !is_left) break;
        int base = begin + k * 16, limit = end;
        bool masked = pad || window > 0 || base + 16 > (causal ? min(end, past + first_row / group + 1) : end);
#if FUSED
        if (!is_cached) {
            is_left = false;
            load(here, {space.keys, space.values, space.key_parameters, space.value_parameters, n_fresh}, 0, g, t);
            base = end, limit = total, masked = true;
        }
#endif
        if (is_cached) forget_beyond(here, base, end, t);
        attend_group(state, queries, here, base, limit, at, sees, masked, scale, softcap, t);
        k = k_next, round++, k_next = deal.group(round + 1);
        if (PREFETCH) here = next;
        if (PREFETCH && k_next < n_groups) load(next, cache, begin + k_next * 16, g, t);
        if (!PREFETCH && k < n_groups) load(here, cache, begin + k * 16, g, t);
    }
#pragma unroll
    for (int r = 0; r < HALVES; r++) {
        state.weight[r] = quad_sum(state.weight[r]);
        state.zero[r] = quad_sum(state.zero[r]);
        if (t == 0) shared_weights[g + 8 * r][warp] = make_float2(state.largest[r], state.weight[r]);
    }
    put(shared_out + warp * rows * PITCH_FOURS, state, rows, g, t);
    __syncthreads();

#if CLUSTER > 1
    cluster_wait();
#endif
    // The results of the warps are added, then those of the parts.
    Target target{out, b, n_new, q_heads, head * group, group, first_row};
#if CLUSTER == 1
    long long tile_index = (long long)b * gridDim.y + blockIdx.y;
    float4* own_partial = partial + (tile_index * parts + part) * ROWS * FOURS;
    float2* all_weights = partial_weights + tile_index * ROWS * parts; // [rows][parts]
#endif
    for (int i = threadIdx.x; i < rows * FOURS; i += WARPS * 32) {
        int r = i / FOURS, f = i % FOURS;
        Merge merge = merged(shared_weights[r], WARPS);
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            add_scaled(sum, shared_out[(w * rows + r) * PITCH_FOURS + placed(r, f)], merge.share(shared_weights[r][w].x));
#if CLUSTER > 1
        send_sum(inbox, i, sum);
        for (int block = f; block < CLUSTER; block += FOURS) send_weight(inbox, r, block, merge);
#else
        if (n_parts == 1) {
            write_out(target.row(r) + 4 * f, sum, merge.inverse());
        } else {
            own_partial[r * FOURS + f] = sum;
            if (f == 0) all_weights[r * parts + part] = make_float2(merge.largest, merge.weight);
        }
#endif
    }
#if CLUSTER > 1
    empty_box(shared_address(&inbox.box));
    add_in_cluster(target, inbox, rows);
#else
    if (n_parts == 1) return;
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned* counter = arrived + tile_index;
        is_last = arrive(counter) == n_parts - 1;
        if (is_last) *counter = 0; // for the next launch
    }
    __syncthreads();
    if (is_last)
        add_parts(target, partial + tile_index * parts * ROWS * FOURS, all_weights, parts, n_parts, rows,
                  reinterpret_cast<float2*>(shared_out));
#endif
}
