// Elementwise operators on two broadcast operands of type A: ONNX's arithmetic, logic and
// comparisons, and silu(a) * b.
#include "walk.cuh"

typedef Number<A>::Wide Wide;
#define V (16 / (int)sizeof(A))

/// In the order of `Binary` in binary.rs.
enum { ADD, SUB, MUL, DIV, POW, MOD, FMOD, MAX, MIN, AND, OR, XOR, SWIGLU,
       EQUAL, GREATER, GREATER_OR_EQUAL, LESS, LESS_OR_EQUAL };

/// Of integers, what divides by 0 is 0: a kernel can't fail.
struct Div {
    static __device__ float of(float a, float b) { return a / b; }
    static __device__ int64_t of(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? -a : a / b; }
};

/// The remainder with the sign of the dividend.
struct Fmod {
    static __device__ float of(float a, float b) { return fmodf(a, b); }
    static __device__ int64_t of(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
};

/// The remainder with the sign of the divisor.
template <typename W>
static __device__ W floor_mod(W a, W b) {
    W rest = Fmod::of(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

struct Power {
    static __device__ float of(float a, float b) { return b == 2.0f ? a * a : powf(a, b); }
    static __device__ int64_t of(int64_t base, int64_t exponent) {
        if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
        uint64_t result = 1, square = (uint64_t)base;
        for (; exponent > 0; exponent >>= 1, square *= square)
            if (exponent & 1) result *= square;
        return (int64_t)result;
    }
};

struct Bits {
    static __device__ int64_t both(int64_t a, int64_t b) { return a & b; }
    static __device__ int64_t either(int64_t a, int64_t b) { return a | b; }
    static __device__ int64_t one(int64_t a, int64_t b) { return a ^ b; }
    static __device__ float both(float, float) { return 0.0f; }
    static __device__ float either(float, float) { return 0.0f; }
    static __device__ float one(float, float) { return 0.0f; }
};

struct Gated {
    static __device__ float of(float gate, float up) { return gate * sigmoid(gate) * up; }
    static __device__ int64_t of(int64_t, int64_t) { return 0; }
};

template <typename R, int N, typename F>
static __device__ void apply(const A *a, const A *b, R *y, uint32_t i, const Walk<2> &walk, F f) {
    int64_t at[2];
    locate(walk, i, at);
    Pack<A, N> x = load_operand<A, N>(a + at[0], walk.steps[0][0]);
    Pack<A, N> z = load_operand<A, N>(b + at[1], walk.steps[1][0]);
    Pack<R, N> result;
#pragma unroll
    for (int k = 0; k < N; k++)
        result.values[k] =
            Number<R>::write(f(Number<A>::read(x.values[k]), Number<A>::read(z.values[k])));
    store_pack<R, N>(y + (uint64_t)i * N, result);
}

#define CASE(code, expression)                                                                 \
    case code:                                                                                 \
        apply<A, N>(a, b, (A *)y, i, walk, [](Wide p, Wide q) -> Wide { return expression; }); \
        break;
#define TEST(code, expression)                                                                      \
    case code:                                                                                      \
        apply<bool_t, N>(a, b, (bool_t *)y, i, walk,                                                \
                         [](Wide p, Wide q) -> Number<bool_t>::Wide { return expression; });        \
        break;

template <int N>
static __device__ void binary(int op, const A *a, const A *b, void *y, uint32_t i, const Walk<2> &walk) {
    switch (op) {
        CASE(ADD, p + q)
        CASE(SUB, p - q)
        CASE(MUL, p * q)
        CASE(DIV, Div::of(p, q))
        CASE(POW, Power::of(p, q))
        CASE(MOD, floor_mod(p, q))
        CASE(FMOD, Fmod::of(p, q))
        CASE(MAX, is_nan(p) || p > q ? p : q)
        CASE(MIN, is_nan(p) || p < q ? p : q)
        CASE(AND, Bits::both(p, q))
        CASE(OR, Bits::either(p, q))
        CASE(XOR, Bits::one(p, q))
        CASE(SWIGLU, Gated::of(p, q))
        TEST(EQUAL, p == q)
        TEST(GREATER, p > q)
        TEST(GREATER_OR_EQUAL, p >= q)
        TEST(LESS, p < q)
        TEST(LESS_OR_EQUAL, p <= q)
    }
}

/// y[i] = a op b for `n` elements; a and b lie as `walk` says, y is dense.
extern "C" __global__ void binary_scalar(int op, const A *a, const A *b, void *y, uint32_t n,
                                         const Walk<2> walk) {
    begin();
    uint32_t i = thread_number();
    if (i < n) binary<1>(op, a, b, y, i, walk);
}

/// The same for `n` stretches of 16 bytes of the operands. The innermost axis of `walk` counts
/// stretches, along which an operand moves on, or stays at one element (step 0).
extern "C" __global__ void binary_vector(int op, const A *a, const A *b, void *y, uint32_t n,
                                         const Walk<2> walk) {
    begin();
    uint32_t i = thread_number();
    if (i < n) binary<V>(op, a, b, y, i, walk);
}
