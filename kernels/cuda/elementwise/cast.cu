// ONNX's Cast from type A to any other.
#include "walk.cuh"

/// In the order of `Number` in number.rs.
enum { F32, F16, BF16, I64, I32, I8, U8, BOOL };

/// To T of the wide form of A: floats are truncated, and 32 and 64 bits saturate, fewer keep their
/// low bits. NaN becomes 0, what is not 0 true.
template <typename R, typename W>
struct Convert {
    static __device__ R of(W x) { return Number<R>::write((typename Number<R>::Wide)x); }
};
template <typename R>
struct Truncate {
    static __device__ int64_t wide(float x) { return is_nan(x) ? 0 : (int64_t)x; }
    static __device__ R of(float x) { return (R)wide(x); }
};
template <> struct Convert<int64_t, float> : Truncate<int64_t> {};
template <> struct Convert<int8_t, float> : Truncate<int8_t> {};
template <> struct Convert<uint8_t, float> : Truncate<uint8_t> {};
template <>
struct Convert<int32_t, float> {
    static __device__ int32_t of(float x) { return (int32_t)x; }
};
template <>
struct Convert<bool_t, float> {
    static __device__ bool_t of(float x) { return bool_t{(unsigned char)(x != 0.0f)}; }
};

template <typename R, int N>
static __device__ void convert(const A *x, void *y, uint32_t i) {
    Pack<A, N> from = load_pack<A, N>(x + (uint64_t)i * N);
    Pack<R, N> to;
#pragma unroll
    for (int k = 0; k < N; k++)
        to.values[k] = Convert<R, Number<A>::Wide>::of(Number<A>::read(from.values[k]));
    store_pack<R, N>((R *)y + (uint64_t)i * N, to);
}

template <int N>
static __device__ void cast(int to, const A *x, void *y, uint32_t i) {
    switch (to) {
        case F32: convert<float, N>(x, y, i); break;
        case F16: convert<half_t, N>(x, y, i); break;
        case BF16: convert<bf16_t, N>(x, y, i); break;
        case I64: convert<int64_t, N>(x, y, i); break;
        case I32: convert<int32_t, N>(x, y, i); break;
        case I8: convert<int8_t, N>(x, y, i); break;
        case U8: convert<uint8_t, N>(x, y, i); break;
        case BOOL: convert<bool_t, N>(x, y, i); break;
    }
}

/// y[i] = x[i] in the type `to`, for `n` elements.
extern "C" __global__ void cast_scalar(int to, const A *x, void *y, uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i < n) cast<1>(to, x, y, i);
}

/// The same for `n` pairs of elements: at most 16 bytes of either type.
extern "C" __global__ void cast_vector(int to, const A *x, void *y, uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i < n) cast<2>(to, x, y, i);
}
