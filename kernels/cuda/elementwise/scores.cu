// Scaled dot-product attention, the plain way: ONNX's Attention with every kind of mask, and the
// reference of the fast forms in attention/. Elements of type A.
#include "lanes.cuh"

#define LANES 128
/// Keys that are taken together.
#define KEYS 128
/// Channels of a value head that a thread can hold: heads of up to LANES times as many.
#define HELD 8

/// Where a tensor's heads lie, in elements: [b, heads, rows, channels] or [b, rows, heads * channels].
struct Heads {
    int64_t batch, head, row;
};

/// As `Scores` in attention.rs.
struct Scores {
    const A *q, *k, *v;
    A *y;
    A *stage;               // [b, q_heads, queries, keys] scores, or null
    const void *mask;       // bools or A, or null
    const int64_t *lengths; // keys of each sequence that count, or null
    Heads of_q, of_k, of_v, of_y;
    int64_t mask_steps[4];  // along b, heads, queries, keys
    uint32_t batch, q_heads, kv_heads, queries, keys, channels, value_channels;
    uint32_t mask_columns;  // keys that the mask knows; those beyond are hidden
    int32_t n_past;         // position of the first query among the keys, without lengths
    int32_t is_causal;
    int32_t left, right;    // windows, -1 for none
    int32_t is_bool;        // the mask is of bools
    int32_t stage_number;   // as ONNX's qk_matmul_output_mode; 3 is scaled by a second pass
    float scale;
    float softcap;          // 0 for none
};

/// What is added to the score of key j for query i.
static __device__ float bias(const Scores &s, uint32_t b, uint32_t h, uint32_t i, uint32_t j) {
    int64_t first = s.lengths ? s.lengths[b] - (int64_t)s.queries : s.n_past;
    int64_t distance = first + i - j;
    bool is_hidden = (s.is_causal && distance < 0) || (s.left >= 0 && distance > s.left) ||
                     (s.right >= 0 && -distance > s.right) || (s.lengths && j >= s.lengths[b]);
    if (is_hidden || (s.mask && j >= s.mask_columns)) return -INFINITY_F;
    if (!s.mask) return 0.0f;
    int64_t at = b * s.mask_steps[0] + h * s.mask_steps[1] + i * s.mask_steps[2] + j * s.mask_steps[3];
    if (s.is_bool) return ((const bool_t *)s.mask)[at].bits ? 0.0f : -INFINITY_F;
    return to_f32(((const A *)s.mask)[at]);
}

static __device__ float dot(const float *q, const A *k, uint32_t channels) {
    float sum = 0.0f;
    for (uint32_t c = 0; c < channels; c++) sum += q[c] * to_f32(k[c]);
    return sum;
}

/// The score of one key, written out at its stage.
static __device__ float score(const Scores &s, const float *query, uint32_t b, uint32_t h, uint32_t i,
                              uint32_t j, A *stage) {
    uint32_t kv_head = h / (s.q_heads / s.kv_heads);
    const A *key = s.k + b * s.of_k.batch + kv_head * s.of_k.head + j * s.of_k.row;
    float product = dot(query, key, s.channels) * s.scale;
    float capped = s.softcap > 0.0f ? s.softcap * tanhf(product / s.softcap) : product;
    float biased = capped + bias(s, b, h, i, j);
    if (stage && s.stage_number < 3)
        stage[j] = from_f32<A>(s.stage_number == 0 ? product : s.stage_number == 1 ? capped : biased);
    return biased;
}

/// A block for each query (blockIdx.x), head (y) and sequence (z). Keys come KEYS at a time, with the
/// running maximum and sum of Milakov and Gimelshein (arXiv 1805.02867). A query that sees no key
/// gives zeros. Dynamic shared memory: the query as f32.
extern "C" __global__ void __launch_bounds__(LANES) attend(const Scores s) {
    begin();
    extern __shared__ float query[];
    __shared__ float weights[KEYS];
    uint32_t i = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
    uint32_t kv_head = h / (s.q_heads / s.kv_heads);
    const A *q = s.q + b * s.of_q.batch + h * s.of_q.head + i * s.of_q.row;
    const A *v = s.v + b * s.of_v.batch + kv_head * s.of_v.head;
    A *stage = s.stage ? s.stage + (((uint64_t)b * s.q_heads + h) * s.queries + i) * s.keys : nullptr;
    for (uint32_t c = threadIdx.x; c < s.channels; c += LANES) query[c] = to_f32(q[c]);
    __syncthreads();
    float sums[HELD] = {}, largest = -INFINITY_F, total = 0.0f;
    for (uint32_t first = 0; first < s.keys; first += KEYS) {
        uint32_t j = first + threadIdx.x;
        float own = j < s.keys ? score(s, query, b, h, i, j, stage) : -INFINITY_F;
        float next = fmaxf(largest, over_lanes<LANES>(own, Largest()));
        // Where all keys so far are hidden there is nothing to scale by.
        float shrink = next == -INFINITY_F ? 1.0f : expf(largest - next);
        float weight = next == -INFINITY_F ? 0.0f : expf(own - next);
        largest = next;
        total = total * shrink + over_lanes<LANES>(weight, Sum());
        weights[threadIdx.x] = weight;
        __syncthreads();
        uint32_t n = min((uint32_t)KEYS, s.keys - first);
#pragma unroll
        for (int held = 0; held < HELD; held++) {
            uint32_t c = held * LANES + threadIdx.x;
            if (c >= s.value_channels) break;
            float sum = sums[held] * shrink;
            for (uint32_t key = 0; key < n; key++)
                if (weights[key] != 0.0f) sum += weights[key] * to_f32(v[(int64_t)(first + key) * s.of_v.row + c]);
            sums[held] = sum;
        }
        __syncthreads();
    }
    float inverse = total > 0.0f ? 1.0f / total : 0.0f;
    A *y = s.y + b * s.of_y.batch + h * s.of_y.head + i * s.of_y.row;
#pragma unroll
    for (int held = 0; held < HELD; held++) {
        uint32_t c = held * LANES + threadIdx.x;
        if (c < s.value_channels) y[c] = from_f32<A>(sums[held] * inverse);
    }
    if (!stage || s.stage_number != 3) return;
    for (uint32_t j = threadIdx.x; j < s.keys; j += LANES) {
        float own = score(s, query, b, h, i, j, stage);
        stage[j] = from_f32<A>(inverse == 0.0f ? 0.0f : expf(own - largest) * inverse);
    }
}

/// Products q k (scaled, f32, [b, q_heads, queries, keys]) to weights of A of the same shape: soft
/// cap, mask, softmax; a block for each query, as above. What is at `stage` is written as well, for stages
/// below 3. Rows of hidden keys give zeros.
extern "C" __global__ void __launch_bounds__(256) weigh(const Scores s, const float *products, A *weights) {
    begin();
    uint32_t i = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
    uint64_t start = (((uint64_t)b * s.q_heads + h) * s.queries + i) * s.keys;
    float largest = -INFINITY_F, total = 0.0f;
    for (uint32_t j = threadIdx.x; j < s.keys; j += 256) {
        float product = products[start + j];
        float capped = s.softcap > 0.0f ? s.softcap * tanhf(product / s.softcap) : product;
        float biased = capped + bias(s, b, h, i, j);
        largest = fmaxf(largest, biased);
        if (s.stage && s.stage_number < 3)
            s.stage[start + j] = from_f32<A>(s.stage_number == 0   ? product
                                             : s.stage_number == 1 ? capped
                                                                   : biased);
    }
    largest = over_lanes<256>(largest, Largest());
    if (largest == -INFINITY_F) {
        for (uint32_t j = threadIdx.x; j < s.keys; j += 256) weights[start + j] = from_f32<A>(0.0f);
        return;
    }
    for (uint32_t j = threadIdx.x; j < s.keys; j += 256) {
        float product = products[start + j];
        float capped = s.softcap > 0.0f ? s.softcap * tanhf(product / s.softcap) : product;
        total += expf(capped + bias(s, b, h, i, j) - largest);
    }
    float inverse = 1.0f / over_lanes<256>(total, Sum());
    for (uint32_t j = threadIdx.x; j < s.keys; j += 256) {
        float product = products[start + j];
        float capped = s.softcap > 0.0f ? s.softcap * tanhf(product / s.softcap) : product;
        weights[start + j] = from_f32<A>(expf(capped + bias(s, b, h, i, j) - largest) * inverse);
    }
}
