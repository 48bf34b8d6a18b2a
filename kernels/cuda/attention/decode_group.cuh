// What a warp of decoding does with a group of 16 tokens: loads, operands of the tensor cores, running
// sums. Stands between mma.cuh and decode.cu.
//
// The operands of m16n8k16 want four channels of one token (keys) or one channel of four tokens
// (values) in a lane. Which channels is free, as long as the other operand agrees: each lane takes
// what one wide load brings.
//
// Only codes go through the tensor cores: q . k = scale (q . codes - zero * sum q). The scale of a
// value goes into its weight before the largest exponent is sought: with y = score + log2(scale),
// weights w = 2^(y - max y) are at most 1 whatever the scales, and the output is
// sum w (code - zero) / sum (w / scale).

// With HALVES 1 a tile has up to 8 rows of queries, and what the lanes hold of the other 8 is left alone.

#ifndef WARPS
#define WARPS 8
#endif
#ifndef HALVES
#define HALVES 2
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
constexpr int ROWS = 16;
/// The last load of a row is as full as the others.
constexpr bool KEYS_FULL = KEY_LOADS * 4 * KEY_UNIT == ROW_BYTES, VALUES_FULL = VALUE_LOADS * 8 * VALUE_UNIT == ROW_BYTES;
constexpr bool BF16 = FORMAT == 16 && IS_BF16<T>;
/// Registers allow the next group's loads to be under way meanwhile.
constexpr bool PREFETCH = CODES && ROW_BYTES <= 128;

template <int WORDS>
__device__ __forceinline__ void load_words(unsigned (&to)[WORDS], const char* from, bool take) {
    if (!take) {
#pragma unroll
        for (int i = 0; i < WORDS; i++) to[i] = 0;
        return;
    }
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

/// Loads 16 tokens. Of those beyond the capacity it takes the last one instead: their weights will be 0.
__device__ __forceinline__ void load(Group& group, const Cache& cache, int base, int g, int t) {
    int last = max(cache.capacity - 1, 0);
#pragma unroll
    for (int n = 0; n < 2; n++) {
        unsigned row = min(base + n * 8 + g, last) * ROW_BYTES;
#pragma unroll
        for (int u = 0; u < KEY_LOADS; u++) {
            unsigned at = (u * 4 + t) * KEY_UNIT;
            load_words(group.keys[n][u], cache.keys + (row + at), KEYS_FULL || at < ROW_BYTES);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        unsigned token = min(token_of(base, i, t), last);
        if constexpr (CODES) {
            group.key_parameters[i] = cache.key_parameters[token];
            group.value_parameters[i] = cache.value_parameters[token];
        }
#pragma unroll
        for (int u = 0; u < VALUE_LOADS; u++) {
            unsigned at = (u * 8 + g) * VALUE_UNIT;
            load_words(group.values[i][u], cache.values + (token * ROW_BYTES + at), VALUES_FULL || at < ROW_BYTES);
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
#pragma unroll
    for (int u = 0; u < KEY_LOADS; u++) {
#pragma unroll
        for (int e = 0; e < KEY_CHANNELS; e += 2 * WORDS) {
            int channel = (u * 4 + t) * KEY_CHANNELS + e;
#pragma unroll
            for (int r = 0; r < 2; r++) {
                unsigned pairs[WORDS];
                bool take = r < HALVES && row[r] && (KEYS_FULL || channel < D);
                load_words(pairs, reinterpret_cast<const char*>(row[r] + channel), take);
#pragma unroll
                for (int i = 0; i < WORDS; i++)
                    q.a[(u * KEY_CHANNELS + e) / 4 + i / 2][r + 2 * (i & 1)] = query_pair(pairs[i]);
            }
        }
    }
    if constexpr (CODES) {
        // Products with ones, in chains that don't wait for each other.
        constexpr unsigned ONES = 0x3C003C00;
        float sums[4][4] = {};
#pragma unroll
        for (int step = 0; step < STEPS; step++) mma16816<BF16>(sums[step % 4], q.a[step], ONES, ONES);
#pragma unroll
        for (int r = 0; r < 2; r++) q.sum[r] = (sums[0][2 * r] + sums[1][2 * r]) + (sums[2][2 * r] + sums[3][2 * r]);
    }
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
                                             const int (&at)[2], const Sight& sees, bool masked, float scale, float softcap, int t) {
    float value_log[4], value_inverse[4];
    if constexpr (CODES) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            value_log[i] = log2_fast(group.value_parameters[i].x);
            value_inverse[i] = __fdividef(1.f, group.value_parameters[i].x);
        }
    }
    float s[2][4];
    scores(s, q, group);
    float y[2][4] = {}; // [row][token]
#pragma unroll
    for (int r = 0; r < HALVES; r++) {
        float largest = state.largest[r];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float x = s[i >> 1][2 * r + (i & 1)];
            if constexpr (CODES) x = group.key_parameters[i].x * (x - group.key_parameters[i].y * q.sum[r]);
            x = capped(x * scale, softcap) * LOG2_E;
            if constexpr (CODES) x += value_log[i];
            y[r][i] = x;
        }
        if (masked) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int token = token_of(base, i, t);
                if (token >= end || !sees(at[r], token)) y[r][i] = MINUS_INFINITY;
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            largest = fmaxf(largest, y[r][i]);
        }
        largest = quad_max(largest);
        float origin = largest == MINUS_INFINITY ? 0.f : largest;
        float shrink = exp2_fast(state.largest[r] - origin);
        bool shrinks = shrink != 1.f && state.largest[r] != MINUS_INFINITY; // before the first group there is nothing
        state.largest[r] = largest;
        if (__any_sync(0xFFFFFFFFu, shrinks)) {
            state.weight[r] *= shrink, state.zero[r] *= shrink;
#pragma unroll
            for (int j = 0; j < TILES; j++) state.out[j][2 * r] *= shrink, state.out[j][2 * r + 1] *= shrink;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) y[r][i] = exp2_fast(y[r][i] - origin);
    }
    unsigned p[4]; // row g, row g + 8 of tokens 2t, 2t + 1; then of 2t + 8, 2t + 9
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int r = i & 1, first = i & 2;
        if (r >= HALVES) {
            p[i] = 0;
            continue;
        }
        p[i] = pack16<BF16>(y[r][first], y[r][first + 1]);
        // The weights as the tensor cores see them, so that their rounding cancels.
        float2 w = unpack16<BF16>(p[i]);
        if constexpr (CODES) {
            float2 a = group.value_parameters[first], b = group.value_parameters[first + 1];
            state.zero[r] += w.x * a.y + w.y * b.y;
            state.weight[r] += w.x * value_inverse[first] + w.y * value_inverse[first + 1];
        } else {
            state.weight[r] += w.x + w.y;
        }
    }
    add_values(state, p, group);
}
