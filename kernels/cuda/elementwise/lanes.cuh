// Combining one value a thread over warps and blocks.
#pragma once
#include "numbers.cuh"

/// The value of the lane that is `distance` away, for values of whole words.
template <typename X>
static __device__ X from_lane(X value, int distance) {
    static_assert(sizeof(X) % 4 == 0, "whole words");
    uint32_t words[sizeof(X) / 4];
    memcpy(words, &value, sizeof(X));
#pragma unroll
    for (int i = 0; i < sizeof(X) / 4; i++) words[i] = __shfl_xor_sync(0xffffffff, words[i], distance);
    memcpy(&value, words, sizeof(X));
    return value;
}

/// `f` over the warp; every lane gets the result. f must not mind the order.
template <typename X, typename F>
static __device__ X over_warp(X value, F f) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value = f(value, from_lane(value, distance));
    return value;
}

/// `f` over a block of LANES threads (a multiple of 32; 32 means each warp by itself); every
/// thread gets the result.
template <int LANES, typename X, typename F>
static __device__ X over_lanes(X value, F f) {
    value = over_warp(value, f);
    if constexpr (LANES > 32) {
        constexpr int WARPS = LANES / 32;
        __shared__ X partial[WARPS];
        __syncthreads();
        if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
        __syncthreads();
        value = partial[0];
#pragma unroll
        for (int warp = 1; warp < WARPS; warp++) value = f(value, partial[warp]);
    }
    return value;
}

struct Sum {
    template <typename X>
    __device__ X operator()(X a, X b) const { return a + b; }
};

/// The larger; NaN if one is.
struct Largest {
    template <typename X>
    __device__ X operator()(X a, X b) const { return is_nan(a) || a > b ? a : b; }
};
