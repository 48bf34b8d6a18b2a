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

// silu(gate) * up. A large negative gate gives 1 / infinity, which is 0.
__device__ inline float gated(float gate, float up) {
    float exponential, inverse;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(exponential) : "f"(gate * -1.4426950408889634f));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + exponential));
    return gate * up * inverse;
}

// The sum of squares of a norm's input; else the largest magnitude of the row.
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
        if (!HAS_NORM) stats.magnitude = fmaxf(stats.magnitude, fabsf(value));
        h[i] = value;
    }
}

// The same for a bound of the magnitude alone, which costs no exponential: |silu(x)| <= max(x, 0.2785).
template <int L> __device__ inline void measure(const Chunk<L> &x, const Chunk<L> &other, Stats &stats) {
#pragma unroll
    for (int i = 0; i < L; i++) {
        float value = to_f32(x.element[i]);
        if (SOURCE == ADD_NORM) value += to_f32(other.element[i]);
        if (SOURCE == SWIGLU) value = fmaxf(value, 0.2785f) * to_f32(other.element[i]);
        if (HAS_NORM) stats.squares = fmaf(value, value, stats.squares);
        else stats.magnitude = fmaxf(stats.magnitude, fabsf(value));
    }
}

// The largest magnitude of some weights.
template <int L> __device__ inline float largest(const Chunk<L> &weights, float so_far) {
#pragma unroll
    for (int i = 0; i < L; i++) so_far = fmaxf(so_far, fabsf(to_f32(weights.element[i])));
    return so_far;
}

// What no element of a row exceeds, and is not far above: of a normalised row by Cauchy and Schwarz.
__device__ inline float bound(const Stats &stats, float inverse, float largest_weight) {
    return HAS_NORM ? sqrtf(stats.squares) * inverse * largest_weight : stats.magnitude;
}

// 1 / rms of a row of n elements; 1 without a norm.
__device__ inline float inverse_rms(float squares, int n, float epsilon) {
    return HAS_NORM ? 1.0f / sqrtf(squares / (float)n + epsilon) : 1.0f;
}
