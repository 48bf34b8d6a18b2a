// Where rows come from: plain, normalised (with the residual addition in front), or gated.
#include "common.cuh"

// What `SOURCE` may be.
#define PLAIN 0
#define NORM 1      // x / rms(x) * weight
#define ADD_NORM 2  // the same of x + skip, which is written too
#define SWIGLU 3    // silu(gate) * up

#ifndef SOURCE
#define SOURCE PLAIN
#endif

constexpr bool HAS_NORM = SOURCE == NORM || SOURCE == ADD_NORM;
constexpr int PARTS = SOURCE == ADD_NORM || SOURCE == SWIGLU ? 2 : 1;

// The tensors that rows are made of: x or gate; skip or up; the norm's weight; where x + skip goes.
// `stride` is the distance of rows of the first two, in elements.
struct Rows {
    const T *x;
    const T *other;
    const T *weight;
    T *sum;
    int64_t stride;
    float epsilon;
};

// As many elements as one load has.
template <int BYTES> struct Word;
template <> struct Word<2> { typedef uint16_t type; };
template <> struct Word<4> { typedef uint32_t type; };
template <> struct Word<8> { typedef uint2 type; };
template <> struct Word<16> { typedef uint4 type; };

template <int L> struct Chunk {
    static constexpr int BYTES = L * sizeof(T);
    static constexpr int WORDS = BYTES > 16 ? BYTES / 16 : 1;
    typedef typename Word<BYTES / WORDS>::type W;
    union {
        W word[WORDS];
        T element[L];
    };
    __device__ Chunk() {}
};

template <int L> __device__ inline Chunk<L> load_chunk(const T *from) {
    Chunk<L> chunk;
    typedef typename Chunk<L>::W W;
#pragma unroll
    for (int i = 0; i < Chunk<L>::WORDS; i++) chunk.word[i] = ((const W *)from)[i];
    return chunk;
}

template <int L> __device__ inline void store_chunk(T *to, const Chunk<L> &chunk) {
    typedef typename Chunk<L>::W W;
#pragma unroll
    for (int i = 0; i < Chunk<L>::WORDS; i++) ((W *)to)[i] = chunk.word[i];
}

__device__ inline float gated(float gate, float up) {
    return __fdividef(gate * up, 1.0f + __expf(-gate));
}

// Sum of squares (of a norm's input) and largest magnitude (of its output before the division by
// the root mean square, else of the row).
struct Stats {
    float squares;
    float magnitude;
};

// Makes L elements of a row of f32 out of the chunks of both parts and of the weight.
template <int L>
__device__ inline void combine(float *h, const Chunk<L> &x, const Chunk<L> &other, const Chunk<L> &weight, Chunk<L> &sum, Stats &stats) {
#pragma unroll
    for (int i = 0; i < L; i++) {
        float value = to_f32(x.element[i]);
        if (SOURCE == ADD_NORM) {
            value += to_f32(other.element[i]);
            sum.element[i] = from_f32<T>(value);
        }
        if (SOURCE == SWIGLU) value = gated(value, to_f32(other.element[i]));
        if (HAS_NORM) {
            stats.squares = fmaf(value, value, stats.squares);
            value *= to_f32(weight.element[i]);
        }
        stats.magnitude = fmaxf(stats.magnitude, fabsf(value));
        h[i] = value;
    }
}

// 1 / rms of a row of n elements; 1 without a norm.
__device__ inline float inverse_rms(float squares, int n, float epsilon) {
    return HAS_NORM ? 1.0f / sqrtf(squares / (float)n + epsilon) : 1.0f;
}
