// Elements of every type that tensors have on the device, read as one of two wide types.
#ifndef PLANISH_NUMBERS_CUH
#define PLANISH_NUMBERS_CUH
#include "common.cuh"

typedef signed char i8_t;
typedef unsigned char u8_t;
typedef int i32_t;
typedef unsigned int u32_t;
typedef long long i64_t;
typedef unsigned long long u64_t;

/// A byte that is 0 or 1.
struct bool_t {
    unsigned char bits;
};

/// Floats are computed with as f32, integers and bools as i64 (which wraps to the narrower types).
template <typename X>
struct Number {
    typedef i64_t Wide;
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
    typedef i64_t Wide;
    static __device__ Wide read(bool_t x) { return x.bits != 0; }
    static __device__ bool_t write(Wide x) { return bool_t{(unsigned char)(x != 0)}; }
    static constexpr bool is_float = false;
};

static __device__ bool is_nan(float x) { return x != x; }
static __device__ bool is_nan(i64_t) { return false; }

static __device__ float negative_infinity() { return __int_as_float(0xff800000); }

/// Element `i` of a list of indices, which are i64 or i32; negative ones count from the end of
/// `size`. What is out of bounds comes back as it is.
static __device__ i64_t index_at(const void *indices, u32_t i, int is_wide, i64_t size) {
    i64_t index = is_wide ? ((const i64_t *)indices)[i] : (i64_t)((const i32_t *)indices)[i];
    return index < 0 ? index + size : index;
}

/// Every kernel here begins with this: the next one may be set up, and what the previous one wrote is there.
static __device__ void begin() {
    let_next_kernel_start();
    wait_for_previous_kernel();
}

/// The number of this thread in a grid of one dimension.
static __device__ u32_t thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }

#endif
