// What the products of many rows are told, and how their results leave.
#pragma once
#include "common.cuh"

// out[m, n] = a_scale[m] · w_scale[n] · Σ_k … (+ bias[n]) (+ residual[m, n]); problem.rs has the same.
struct Problem {
    const float *a_scale;  // [rows], null for weight-only products
    const float *w_scale;  // [n], or [k / block_size, n]
    const T *bias;         // [n] or null
    const T *residual;     // [rows, n] or null
    T *out;                // [rows, out_stride]
    int rows, n, k, out_stride;
    int padded_n, padded_k;  // of the packed weights
    int block_size;          // 0: one scale an output
    int unused;
};

// Floats have no 16-bit pairs: never called, but compiled.
template <> __device__ __forceinline__ uint32_t pack_pair<float>(float, float) { return 0; }

// The two elements of a pair.
template <typename E> __device__ __forceinline__ float2 unpack_pair(uint32_t pair)
{
    return make_float2(to_f32(E{static_cast<uint16_t>(pair)}),
                       to_f32(E{static_cast<uint16_t>(pair >> 16)}));
}
template <> __device__ __forceinline__ float2 unpack_pair<float>(uint32_t)
{
    return make_float2(0.0f, 0.0f);
}

// Writes the first `left` elements of a chunk of 16 bytes, plus those of `residual` if given.
template <typename E>
__device__ __forceinline__ void write_chunk(uint4 v, E *out, const E *residual, int left)
{
    constexpr int N = 16 / sizeof(E);
    union Chunk {
        uint4 v;
        E e[N];
        __device__ Chunk() {}
    } chunk, other;
    chunk.v = v;
    bool whole = left >= N;
    if (residual) {
        if (whole && reinterpret_cast<uint64_t>(residual) % 16 == 0) {
            other.v = *reinterpret_cast<const uint4 *>(residual);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++)
                other.e[i] = i < left ? residual[i] : E{};
        }
#pragma unroll
        for (int i = 0; i < N; i++)
            chunk.e[i] = from_f32<E>(to_f32(chunk.e[i]) + to_f32(other.e[i]));
    }
    if (whole && reinterpret_cast<uint64_t>(out) % 16 == 0) {
        *reinterpret_cast<uint4 *>(out) = chunk.v;
    } else {
#pragma unroll
        for (int i = 0; i < N; i++)
            if (i < left)
                out[i] = chunk.e[i];
    }
}
