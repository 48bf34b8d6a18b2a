// Attention of few new positions over the whole cache (flash-decoding, Dao et al. 2023).
//
// q [batch, new, q_heads * D] of T in rows of `q_stride` elements, out likewise without gaps; keys
// and values as layout.cuh has them. A block takes 16 rows of one key head, a row being one of its
// query heads at one of the new positions, so that they share what is read of the cache, and a part
// of the context: its warps take groups of 16 tokens, in turn with those of the other parts. Grid
// (parts, kv_heads * tiles of 16 rows, batch). The positions on the device tell how many groups there are; parts without any
// leave at once. Which groups a warp takes does not depend on the length, so that its first loads and
// that of the length are under way together. The part that ends last adds all up, in the order of the parts, so that the result
// does not depend on which one it is.
//
// Only codes go through the tensor cores: q . k = scale (q . codes - zero * sum q). The scale of a
// value goes into its weight before the largest exponent is sought: with y = score + log2(scale),
// weights w = 2^(y - max y) are at most 1 whatever the scales, and the output is
// sum w (code - zero) / sum (w / scale).
//
// The operands of m16n8k16 want four channels of one token (keys) or one channel of four tokens
// (values) in a lane. Which channels is free, as long as the other operand agrees: each lane takes
// what one wide load brings.

#ifndef WARPS
#define WARPS 8
#endif

/// One load of a lane, in bytes, from rows that `lanes` lanes share.
constexpr int unit_bytes(int lanes) {
    return ROW_BYTES % (16 * lanes) == 0 ? 16 : ROW_BYTES % (8 * lanes) == 0 || (FORMAT == 16 && lanes == 4) ? 8 : 4;
}
constexpr int KEY_UNIT = unit_bytes(4), VALUE_UNIT = unit_bytes(8);
constexpr int KEY_LOADS = (ROW_BYTES / KEY_UNIT + 3) / 4, VALUE_LOADS = (ROW_BYTES / VALUE_UNIT + 7) / 8;
constexpr int KEY_WORDS = KEY_UNIT / 4, VALUE_WORDS = VALUE_UNIT / 4;
constexpr int WORD_CHANNELS = 32 / FORMAT;
constexpr int KEY_CHANNELS = KEY_WORDS * WORD_CHANNELS, VALUE_CHANNELS = VALUE_WORDS * WORD_CHANNELS;
/// Steps of 16 channels of q . k, and tiles of 8 channels of the output.
constexpr int STEPS = KEY_LOADS * KEY_CHANNELS / 4, TILES = VALUE_LOADS * VALUE_CHANNELS;
/// Floats of an output row in shared memory.
constexpr int OUT_PITCH = (D + 31) / 32 * 32;
constexpr int ROWS = 16;
constexpr bool BF16 = FORMAT == 16 && IS_BF16<T>;
/// Registers allow the next group's loads to be under way meanwhile.
constexpr bool PREFETCH = CODES && ROW_BYTES <= 128;

template <int WORDS>
__device__ __forceinline__ void load_words(unsigned (&to)[WORDS], const char* from, bool take) {
#pragma unroll
    for (int i = 0; i < WORDS; i++) to[i] = 0;
    if (!take) return;
    if constexpr (WORDS == 4) {
        uint4 x = *reinterpret_cast<const uint4*>(from);
        to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
    } else if constexpr (WORDS == 2) {
        uint2 x = *reinterpret_cast<const uint2*>(from);
        to[0] = x.x, to[1] = x.y;
    } else {
        to[0] = *reinterpret_cast<const unsigned*>(from);
    }
}

/// What a lane holds of 16 tokens.
struct Group {
    unsigned keys[2][KEY_LOADS][KEY_WORDS];       // tokens g and g + 8
    unsigned values[4][VALUE_LOADS][VALUE_WORDS]; // tokens 2t, 2t + 1, 2t + 8, 2t + 9
    float2 key_parameters[4], value_parameters[4]; // of those four
};

struct Cache {
    const char *keys, *values; // of the block's head
    const float2 *key_parameters, *value_parameters;
    int capacity;
};

__device__ __forceinline__ int token_of(int base, int i, int t) { return base + 2 * t + (i & 1) + (i >> 1) * 8; }

__device__ __forceinline__ void load(Group& group, const Cache& cache, int base, int g, int t) {
#pragma unroll
    for (int n = 0; n < 2; n++) {
        int token = base + n * 8 + g;
#pragma unroll
        for (int u = 0; u < KEY_LOADS; u++) {
            int at = (u * 4 + t) * KEY_UNIT;
            load_words(group.keys[n][u], cache.keys + (long long)token * ROW_BYTES + at,
                       token < cache.capacity && at < ROW_BYTES);
        }
    }
    if constexpr (CODES) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int token = token_of(base, i, t);
            bool take = token < cache.capacity;
            group.key_parameters[i] = take ? cache.key_parameters[token] : make_float2(1.f, 0.f);
            group.value_parameters[i] = take ? cache.value_parameters[token] : make_float2(1.f, 0.f);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int token = token_of(base, i, t);
#pragma unroll
        for (int u = 0; u < VALUE_LOADS; u++) {
            int at = (u * 8 + g) * VALUE_UNIT;
            load_words(group.values[i][u], cache.values + (long long)token * ROW_BYTES + at,
                       token < cache.capacity && at < ROW_BYTES);
        }
    }
}

/// What lies beyond the last token may be anything: makes it harmless where its weight is 0.
__device__ __forceinline__ void forget_beyond(Group& group, int base, int end, int t) {
    if (base + 16 <= end) return;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (token_of(base, i, t) < end) continue;
        if constexpr (CODES) {
            group.value_parameters[i] = make_float2(1.f, 0.f);
        } else {
#pragma unroll
            for (int u = 0; u < VALUE_LOADS; u++)
#pragma unroll
                for (int w = 0; w < VALUE_WORDS; w++) group.values[i][u][w] = 0;
        }
    }
}

/// The pairs of neighbouring channels of a word of 4-bit codes, 8-bit codes, elements.
__device__ __forceinline__ void key_pairs(unsigned word, unsigned (&pair)[4]) { nibbles_to_halves(word, pair); }
__device__ __forceinline__ void key_pairs(unsigned word, unsigned (&pair)[2]) { bytes_to_halves(word, pair); }
__device__ __forceinline__ void key_pairs(unsigned word, unsigned (&pair)[1]) { pair[0] = word; }

/// Each channel of two tokens' words as a pair.
__device__ __forceinline__ void value_pairs(unsigned a, unsigned b, unsigned (&pair)[8]) {
    unsigned even[4], odd[4];
    nibbles_to_halves(bytes_of(a, b, 0x5410), even);
    nibbles_to_halves(bytes_of(a, b, 0x7632), odd);
#pragma unroll
    for (int i = 0; i < 4; i++) pair[2 * i] = even[i], pair[2 * i + 1] = odd[i];
}
__device__ __forceinline__ void value_pairs(unsigned a, unsigned b, unsigned (&pair)[4]) {
    unsigned low[2], high[2];
    bytes_to_halves(bytes_of(a, b, 0x5140), low);
    bytes_to_halves(bytes_of(a, b, 0x7362), high);
    pair[0] = low[0], pair[1] = low[1], pair[2] = high[0], pair[3] = high[1];
}
__device__ __forceinline__ void value_pairs(unsigned a, unsigned b, unsigned (&pair)[2]) {
    pair[0] = bytes_of(a, b, 0x5410), pair[1] = bytes_of(a, b, 0x7632);
}

/// The rows g and g + 8 of the queries, in the order of channels that the keys' loads have.
struct Queries {
    unsigned a[STEPS][4];
    float sum[2];
};

__device__ __forceinline__ unsigned query_pair(unsigned pair) {
    if constexpr (IS_BF16<T> && !BF16) { // codes are multiplied as halves
        float2 x = unpack16<true>(pair);
        return pack16<false>(fminf(fmaxf(x.x, -65504.f), 65504.f), fminf(fmaxf(x.y, -65504.f), 65504.f));
    }
    return pair;
}

__device__ __forceinline__ void load_queries(Queries& q, const T* const (&row)[2], int t) {
    constexpr int WORDS = KEY_CHANNELS % 8 == 0 ? 4 : 2; // of a load: pairs of channels
    q.sum[0] = q.sum[1] = 0.f;
#pragma unroll
    for (int u = 0; u < KEY_LOADS; u++) {
#pragma unroll
        for (int e = 0; e < KEY_CHANNELS; e += 2 * WORDS) {
            int channel = (u * 4 + t) * KEY_CHANNELS + e;
#pragma unroll
            for (int r = 0; r < 2; r++) {
                unsigned pairs[WORDS];
                load_words(pairs, reinterpret_cast<const char*>(row[r] + channel), row[r] && channel < D);
#pragma unroll
                for (int i = 0; i < WORDS; i++) {
                    unsigned pair = query_pair(pairs[i]);
                    q.a[(u * KEY_CHANNELS + e) / 4 + i / 2][r + 2 * (i & 1)] = pair;
                    if constexpr (CODES) {
                        float2 x = unpack16<BF16>(pair);
                        q.sum[r] += x.x + x.y;
                    }
                }
            }
        }
    }
    q.sum[0] = quad_sum(q.sum[0]), q.sum[1] = quad_sum(q.sum[1]);
}

__device__ __forceinline__ void scores(float (&s)[2][4], const Queries& q, const Group& group) {
    constexpr int PAIRS = WORD_CHANNELS / 2;
#pragma unroll
    for (int n = 0; n < 2; n++) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.f;
#pragma unroll
        for (int u = 0; u < KEY_LOADS; u++) {
            unsigned pairs[KEY_WORDS * PAIRS];
#pragma unroll
            for (int w = 0; w < KEY_WORDS; w++) {
                unsigned pair[PAIRS];
                key_pairs(group.keys[n][u][w], pair);
#pragma unroll
                for (int i = 0; i < PAIRS; i++) pairs[w * PAIRS + i] = pair[i];
            }
#pragma unroll
            for (int e = 0; e < KEY_CHANNELS / 4; e++)
                mma16816<BF16>(s[n], q.a[u * (KEY_CHANNELS / 4) + e], pairs[2 * e], pairs[2 * e + 1]);
        }
    }
}

/// Running sums of the two rows of a lane.
struct State {
    float out[TILES][4];
    float largest[2], weight[2], zero[2];
};

__device__ __forceinline__ void add_values(State& state, const unsigned (&p)[4], const Group& group) {
#pragma unroll
    for (int u = 0; u < VALUE_LOADS; u++) {
#pragma unroll
        for (int w = 0; w < VALUE_WORDS; w++) {
            unsigned first[WORD_CHANNELS], second[WORD_CHANNELS];
            value_pairs(group.values[0][u][w], group.values[1][u][w], first);
            value_pairs(group.values[2][u][w], group.values[3][u][w], second);
#pragma unroll
            for (int e = 0; e < WORD_CHANNELS; e++)
                mma16816<BF16>(state.out[u * VALUE_CHANNELS + w * WORD_CHANNELS + e], p, first[e], second[e]);
        }
    }
}

/// Scores of rows `at` positions to weights, and the weighted values added.
__device__ __forceinline__ void attend_group(State& state, const Queries& q, const Group& group, int base, int end,
                                             const int (&at)[2], const Sight& sees, float scale, float softcap, int t) {
    float s[2][4];
    scores(s, q, group);
    float y[2][4]; // [row][token]
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float largest = state.largest[r];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float x = s[i >> 1][2 * r + (i & 1)];
            if constexpr (CODES) x = group.key_parameters[i].x * (x - group.key_parameters[i].y * q.sum[r]);
            x = capped(x * scale, softcap) * LOG2_E;
            if constexpr (CODES) x += log2_fast(group.value_parameters[i].x);
            int token = token_of(base, i, t);
            y[r][i] = token < end && sees(at[r], token) ? x : MINUS_INFINITY;
            largest = fmaxf(largest, y[r][i]);
        }
        largest = quad_max(largest);
        float origin = largest == MINUS_INFINITY ? 0.f : largest;
        float shrink = exp2_fast(state.largest[r] - origin);
        state.largest[r] = largest;
        state.weight[r] *= shrink, state.zero[r] *= shrink;
#pragma unroll
        for (int j = 0; j < TILES; j++) state.out[j][2 * r] *= shrink, state.out[j][2 * r + 1] *= shrink;
#pragma unroll
        for (int i = 0; i < 4; i++) y[r][i] = exp2_fast(y[r][i] - origin);
    }
    unsigned p[4]; // row g, row g + 8 of tokens 2t, 2t + 1; then of 2t + 8, 2t + 9
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int r = i & 1, first = i & 2;
        p[i] = pack16<BF16>(y[r][first], y[r][first + 1]);
        // The weights as the tensor cores see them, so that their rounding cancels.
        float2 w = unpack16<BF16>(p[i]);
        if constexpr (CODES) {
            float2 a = group.value_parameters[first], b = group.value_parameters[first + 1];
            state.zero[r] += w.x * a.y + w.y * b.y;
            state.weight[r] += __fdividef(w.x, a.x) + __fdividef(w.y, b.x);
        } else {
            state.weight[r] += w.x + w.y;
        }
    }
    add_values(state, p, group);
}

/// Place of the group of four channels `f` of a row in shared memory: rows and groups that are
/// written together lie in different banks.
__device__ __forceinline__ int placed(int row, int f) { return f ^ (f >> 3 & 3) ^ (row & 1) << 2; }

/// Writes the output rows of a warp to its part of shared memory.
__device__ __forceinline__ void put(float4* out, const State& state, int rows, int g, int t) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
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
                float* line = reinterpret_cast<float*>(out + row * (OUT_PITCH / 4));
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

extern "C" __global__ void __launch_bounds__(WARPS * 32, 1)
attend_decode(const T* q, int q_stride, const char* keys, const char* values, const float2* key_parameters,
              const float2* value_parameters, const int* past_length, int n_new, int q_heads, int kv_heads,
              int capacity, float scale, float softcap, int causal, int window, const unsigned char* pad,
              int pad_stride, float4* partial, float2* partial_weights, unsigned* arrived, T* out) {
    extern __shared__ float4 shared_out[]; // [WARPS][rows][OUT_PITCH / 4]
    __shared__ float2 shared_weights[ROWS][WARPS];
    __shared__ bool is_last;

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int parts = gridDim.x, part = blockIdx.x, head = blockIdx.y % kv_heads, tile = blockIdx.y / kv_heads;
    int b = blockIdx.z, group = q_heads / kv_heads;
    int first_row = tile * ROWS, rows = min(ROWS, group * n_new - first_row);
    long long line = cache_row(b, kv_heads, head, capacity, 0);
    Cache cache{keys + line * ROW_BYTES, values + line * ROW_BYTES, key_parameters + line, value_parameters + line, capacity};
    let_next_kernel_start();
    wait_for_previous_kernel();

    int past = *past_length;
    Group here;
    int k = part + parts * warp, stride = parts * WARPS;
    bool early = window <= 0; // with a window, where it begins must be known first
    if (early) load(here, cache, k * 16, g, t);
    const T* row[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int index = first_row + g + 8 * r, i = index / group;
        row[r] = g + 8 * r < rows ? q + ((long long)b * n_new + i) * q_stride + (head * group + index % group) * D : nullptr;
    }
    Queries queries;
    load_queries(queries, row, t);

    // The tokens that any row of the block sees, in groups of 16.
    int total = min(past + n_new, capacity);
    Sight sees{causal, window, pad ? pad + (long long)b * (pad_stride > 0 ? pad_stride : total) : nullptr};
    int begin = sees.first(past + first_row / group) / 16 * 16;
    int end = sees.end(past + (first_row + rows - 1) / group, total);
    int n_groups = max((end - begin + 15) / 16, 1), n_parts = min(parts, n_groups);
    if (part >= n_parts) return;
    if (!early) load(here, cache, begin + k * 16, g, t);
    int at[2] = {past + (first_row + g) / group, past + (first_row + g + 8) / group};

    State state;
#pragma unroll
    for (int j = 0; j < TILES; j++) state.out[j][0] = state.out[j][1] = state.out[j][2] = state.out[j][3] = 0.f;
#pragma unroll
    for (int r = 0; r < 2; r++) state.largest[r] = MINUS_INFINITY, state.weight[r] = state.zero[r] = 0.f;
    for (; k < n_groups; k += stride) {
        int base = begin + k * 16;
        forget_beyond(here, base, end, t);
        if constexpr (PREFETCH) {
            Group next;
            if (k + stride < n_groups) load(next, cache, base + stride * 16, g, t);
            attend_group(state, queries, here, base, end, at, sees, scale, softcap, t);
            here = next;
        } else {
            attend_group(state, queries, here, base, end, at, sees, scale, softcap, t);
            if (k + stride < n_groups) load(here, cache, base + stride * 16, g, t);
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        state.weight[r] = quad_sum(state.weight[r]);
        state.zero[r] = quad_sum(state.zero[r]);
        if (t == 0) shared_weights[g + 8 * r][warp] = make_float2(state.largest[r], state.weight[r]);
    }
    put(shared_out + warp * rows * (OUT_PITCH / 4), state, rows, g, t);
    __syncthreads();

    // The warps' results added.
    long long tile_index = ((long long)b * gridDim.y + blockIdx.y) * parts;
    for (int i = threadIdx.x; i < rows * (D / 4); i += WARPS * 32) {
        int r = i / (D / 4), f = i % (D / 4);
        Merge merge = merged(shared_weights[r], WARPS);
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            add_scaled(sum, shared_out[(w * rows + r) * (OUT_PITCH / 4) + placed(r, f)], merge.share(shared_weights[r][w].x));
        int index = first_row + r;
        if (n_parts == 1) {
            T* to = out + (((long long)b * n_new + index / group) * q_heads + head * group + index % group) * D + 4 * f;
            write_out(to, sum, merge.inverse());
        } else {
            partial[((tile_index + part) * ROWS + r) * (D / 4) + f] = sum;
            if (f == 0) partial_weights[(tile_index * ROWS + r * parts) + part] = make_float2(merge.largest, merge.weight);
        }
    }
    if (n_parts == 1) return;

    // The last part to arrive adds the parts.
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned* counter = arrived + (long long)b * gridDim.y + blockIdx.y;
        is_last = arrive(counter) == n_parts - 1;
        if (is_last) *counter = 0; // for the next launch
    }
    __syncthreads();
    if (!is_last) return;
    float2* all_weights = reinterpret_cast<float2*>(shared_out); // [rows][n_parts]
    for (int i = threadIdx.x; i < rows * n_parts; i += WARPS * 32)
        all_weights[i] = __ldcg(&partial_weights[tile_index * ROWS + i / n_parts * parts + i % n_parts]);
    // The first loads are under way before the weights are known.
    constexpr int AHEAD = 16;
    for (int start = 0; start < rows * (D / 4); start += WARPS * 32) {
        int i = start + threadIdx.x, r = i / (D / 4), f = i % (D / 4), index = first_row + r;
        bool take = r < rows;
        const float4* from = partial + (tile_index * ROWS + r) * (D / 4) + f;
        float4 x[AHEAD];
#pragma unroll
        for (int p = 0; p < AHEAD; p++)
            if (take && p < n_parts) x[p] = __ldcg(from + (long long)p * ROWS * (D / 4));
        if (start == 0) __syncthreads();
        if (!take) continue;
        const float2* weights = all_weights + r * n_parts;
        Merge merge = merged(weights, n_parts);
        float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
        for (int p = 0; p < AHEAD; p++)
            if (p < n_parts) add_scaled(sum, x[p], merge.share(weights[p].x));
#pragma unroll 4
        for (int p = AHEAD; p < n_parts; p++)
            add_scaled(sum, __ldcg(from + (long long)p * ROWS * (D / 4)), merge.share(weights[p].x));
        T* to = out + (((long long)b * n_new + index / group) * q_heads + head * group + index % group) * D + 4 * f;
        write_out(to, sum, merge.inverse());
    }
}
