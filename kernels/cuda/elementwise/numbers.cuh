// Elements of every type that tensors have on the device, read as one of two wide types.
#pragma once
#include "common.cuh"

/// A byte that is 0 or 1.
struct bool_t {
    unsigned char bits;
};

/// Floats are computed with as f32, integers and bools as i64 (which wraps to the narrower types).
template <typename X>
struct Number {
    typedef int64_t Wide;
    static __device__ Wide read(X x) { return (Wide)x; }
    static __device__ X write(Wide x) { return (X)x; }
    static constexpr bool is_float = false;
};

template <typename X>
struct FloatNumber {
    typedef float Wide;
    static __device__ Wide read(X x) { return to_f32(x); }
    static __device__ X write(Wide x) { return from_f32<X>(x); }
    static constexpr bool is_float = true;
};
template <> struct Number<float> : FloatNumber<float> {};
template <> struct Number<half_t> : FloatNumber<half_t> {};
template <> struct Number<bf16_t> : FloatNumber<bf16_t> {};

template <>
struct Number<bool_t> {
    typedef int64_t Wide;
    static __device__ Wide read(bool_t x) { return x.bits != 0; }
    static __device__ bool_t write(Wide x) { return bool_t{(unsigned char)(x != 0)}; }
    static constexpr bool is_float = false;
};

static __device__ bool is_nan(float x) { return x != x; }
static __device__ bool is_nan(int64_t) { return false; }

/// Element `i` of a list of indices, which are i64 or i32; negative ones count from the end of
/// `size`. What is out of bounds comes back as it is.
static __device__ int64_t index_at(const void *indices, uint32_t i, int is_wide, int64_t size) {
    int64_t index = is_wide ? ((const int64_t *)indices)[i] : (int64_t)((const int32_t *)indices)[i];
    return index < 0 ? index + size : index;
}

/// 1 / (1 + e^-x), by the fast exponential and division: to a few units in the last place where the
/// result is not tiny. 0 where e^-x overflows.
static __device__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

/// Every kernel here begins with this: the next one may be set up, and what the previous one wrote is there.
static __device__ void begin() {
    let_next_kernel_start();
    wait_for_previous_kernel();
}

/// The number of this thread in a grid of one dimension.
static __device__ uint32_t thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }
