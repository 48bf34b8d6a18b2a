// Elementwise operators on one operand of type A, dense: ONNX's functions, activations, tests, Clip.
#include "walk.cuh"

typedef Number<A>::Wide Wide;
#define V (16 / (int)sizeof(A))

/// In the order of `Unary` in unary.rs.
enum { NEG, ABS, SIGN, RELU, NOT, BITWISE_NOT, SQRT, RECIPROCAL, EXP, LOG, ERF, TANH, SIGMOID,
       LEAKY_RELU, ELU, SOFTPLUS, ROUND, FLOOR, CEIL, COS, SIN, GELU, GELU_TANH, SWISH,
       IS_NAN, IS_INF };

/// x * Phi(x). By the complement, which keeps its digits where Phi is small.
static __device__ float gelu(float x) { return 0.5f * x * erfcf(-0.70710678118654752f * x); }

/// sqrt(2 / pi) is the first factor.
static __device__ float gelu_tanh(float x) {
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}

static __device__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

/// `which` has bit 0 where +inf counts, bit 1 where -inf does.
static __device__ bool is_counted_infinity(float x, float which) {
    int bits = (int)which;
    return isinf(x) && (x > 0 ? bits & 1 : bits & 2);
}

template <typename R, int N, typename F>
static __device__ void apply(const A *x, void *y, uint32_t i, F f) {
    Pack<A, N> pack = load_pack<A, N>(x + (uint64_t)i * N);
    Pack<R, N> result;
#pragma unroll
    for (int k = 0; k < N; k++) result.values[k] = Number<R>::write(f(Number<A>::read(pack.values[k])));
    store_pack<R, N>((R *)y + (uint64_t)i * N, result);
}

#define CASE(code, expression)                                                    \
    case code:                                                                    \
        apply<A, N>(x, y, i, [=](Wide p) -> Wide { return expression; });         \
        break;
#define TEST(code, expression)                                                              \
    case code:                                                                              \
        apply<bool_t, N>(x, y, i, [=](Wide p) -> Number<bool_t>::Wide { return expression; }); \
        break;

/// Those of numbers of every type.
template <int N>
static __device__ void common(int op, const A *x, void *y, uint32_t i) {
    switch (op) {
        CASE(NEG, -p)
        CASE(ABS, p < 0 ? -p : p == 0 ? 0 : p)
        CASE(SIGN, is_nan(p) ? p : (Wide)((p > 0) - (p < 0)))
        CASE(RELU, p < 0 ? 0 : p)
        CASE(NOT, p == 0)
        CASE(BITWISE_NOT, -p - 1)
    }
}

/// Those of floats only.
template <int N>
static __device__ void floats(int op, float parameter, const A *x, void *y, uint32_t i) {
    switch (op) {
        CASE(SQRT, sqrtf(p))
        CASE(RECIPROCAL, 1.0f / p)
        CASE(EXP, expf(p))
        CASE(LOG, logf(p))
        CASE(ERF, erff(p))
        CASE(TANH, tanhf(p))
        CASE(SIGMOID, sigmoid(p))
        CASE(LEAKY_RELU, p < 0 ? parameter * p : p)
        CASE(ELU, p < 0 ? parameter * expm1f(p) : p)
        CASE(SOFTPLUS, softplus(p))
        CASE(ROUND, rintf(p))
        CASE(FLOOR, floorf(p))
        CASE(CEIL, ceilf(p))
        CASE(COS, cosf(p))
        CASE(SIN, sinf(p))
        CASE(GELU, gelu(p))
        CASE(GELU_TANH, gelu_tanh(p))
        CASE(SWISH, p * sigmoid(parameter * p))
        TEST(IS_NAN, is_nan(p))
        TEST(IS_INF, is_counted_infinity(p, parameter))
    }
}

/// y[i] = op(x[i]) for `n` elements; `parameter` is the operator's alpha, or what infinities count.
extern "C" __global__ void unary_scalar(int op, float parameter, const A *x, void *y, uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    if (op < SQRT) common<1>(op, x, y, i);
    else if constexpr (Number<A>::is_float) floats<1>(op, parameter, x, y, i);
}

/// The same for `n` stretches of 16 bytes of x.
extern "C" __global__ void unary_vector(int op, float parameter, const A *x, void *y, uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    if (op < SQRT) common<V>(op, x, y, i);
    else if constexpr (Number<A>::is_float) floats<V>(op, parameter, x, y, i);
}

/// ONNX's Clip, min(max(x, low), high), either bound a pointer to one element or null. NaN stays.
extern "C" __global__ void clip(const A *x, const A *low, const A *high, A *y, uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    Wide value = Number<A>::read(x[i]);
    if (low && value < Number<A>::read(*low)) value = Number<A>::read(*low);
    if (high && value > Number<A>::read(*high)) value = Number<A>::read(*high);
    y[i] = Number<A>::write(value);
}
