// Rotary position embedding (Su et al. 2021, eq. 34): ONNX's and com.microsoft's RotaryEmbedding.
#include "walk.cuh"

#define V (16 / (int)sizeof(A))

/// As `Rotary` in rotary.rs. x and y are laid out alike.
struct Rotary {
    const A *x;
    const A *cosines;        // [positions, half]
    const A *sines;          // [positions, half]
    const void *positions;   // [batch or 1, seq] rows of the caches, or one number; may be null
    A *y;
    int64_t batch_step;      // steps of x and y, in elements
    int64_t head_step;
    int64_t seq_step;
    uint32_t batch;
    uint32_t heads;
    uint32_t seq;
    uint32_t size;           // channels of a head
    uint32_t half;           // pairs that are rotated; the channels beyond stay
    uint32_t n_rows;         // rows of the caches
    uint32_t row_step;       // rows of the caches from one batch to the next, where positions are null
    uint32_t position_step;  // the same of the positions
    int is_wide;             // positions are i64, not i32
    int is_first;            // there is one position, that of the first token
    int is_interleaved;      // pairs are (2i, 2i + 1), not (i, i + half)
};

/// The row of the caches for a token.
static __device__ int64_t cache_row(const Rotary &r, uint32_t batch, uint32_t at) {
    if (!r.positions) return (int64_t)batch * r.row_step + at;
    if (r.is_first) return index_at(r.positions, 0, r.is_wide, 0) + at;
    return index_at(r.positions, batch * r.position_step + at, r.is_wide, 0);
}

/// A thread for each pair and each channel that stays. A position outside the caches gives NaN.
extern "C" __global__ void rotate(const Rotary r, uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    uint32_t work = r.size - r.half;
    uint32_t token = i / work, unit = i - token * work;
    uint32_t head = token % r.heads;
    uint32_t at = token / r.heads % r.seq, batch = token / r.heads / r.seq;
    int64_t start = batch * r.batch_step + head * r.head_step + at * r.seq_step;
    if (unit >= r.half) {
        r.y[start + r.half + unit] = r.x[start + r.half + unit];
        return;
    }
    int64_t row = cache_row(r, batch, at);
    bool is_inside = row >= 0 && row < r.n_rows;
    float cosine = is_inside ? to_f32(r.cosines[row * r.half + unit]) : __int_as_float(0x7fffffff);
    float sine = is_inside ? to_f32(r.sines[row * r.half + unit]) : 0.0f;
    uint32_t first = r.is_interleaved ? 2 * unit : unit;
    uint32_t second = r.is_interleaved ? 2 * unit + 1 : unit + r.half;
    float x = to_f32(r.x[start + first]), y = to_f32(r.x[start + second]);
    r.y[start + first] = from_f32<A>(cosine * x - sine * y);
    r.y[start + second] = from_f32<A>(sine * x + cosine * y);
}

/// The same for stretches of 16 bytes of pairs that are halves: size and half are whole stretches, and
/// everything is aligned to 16 bytes.
extern "C" __global__ void rotate_vector(const Rotary r, uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    uint32_t work = (r.size - r.half) / V;
    uint32_t token = i / work, unit = (i - token * work) * V;
    uint32_t head = token % r.heads;
    uint32_t at = token / r.heads % r.seq, batch = token / r.heads / r.seq;
    int64_t start = batch * r.batch_step + head * r.head_step + at * r.seq_step + unit;
    if (unit >= r.half) {
        store_pack<A, V>(r.y + start + r.half, load_pack<A, V>(r.x + start + r.half));
        return;
    }
    int64_t row = cache_row(r, batch, at);
    bool is_inside = row >= 0 && row < r.n_rows;
    Pack<A, V> cosines = {}, sines = {};
    if (is_inside) {
        cosines = load_pack<A, V>(r.cosines + row * r.half + unit);
        sines = load_pack<A, V>(r.sines + row * r.half + unit);
    }
    Pack<A, V> first = load_pack<A, V>(r.x + start), second = load_pack<A, V>(r.x + start + r.half);
#pragma unroll
    for (int k = 0; k < V; k++) {
        float cosine = is_inside ? to_f32(cosines.values[k]) : __int_as_float(0x7fffffff);
        float sine = to_f32(sines.values[k]);
        float x = to_f32(first.values[k]), y = to_f32(second.values[k]);
        first.values[k] = from_f32<A>(cosine * x - sine * y);
        second.values[k] = from_f32<A>(sine * x + cosine * y);
    }
    store_pack<A, V>(r.y + start, first);
    store_pack<A, V>(r.y + start + r.half, second);
}
