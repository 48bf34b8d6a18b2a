// What all kernels share. No header of the CUDA toolkit is included: NVRTC has none where only
// the driver and NVRTC are installed.
#pragma once

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

#define INFINITY_F __int_as_float(0x7f800000)

// IEEE half precision and bfloat16: storage only, arithmetic is in f32.
struct half_t {
    uint16_t bits;
};
struct bf16_t {
    uint16_t bits;
};

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(half_t x)
{
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
__device__ __forceinline__ float to_f32(bf16_t x) { return __uint_as_float((uint32_t)x.bits << 16); }

template <typename T> __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x) { return x; }
template <> __device__ __forceinline__ half_t from_f32<half_t>(float x)
{
    half_t y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <> __device__ __forceinline__ bf16_t from_f32<bf16_t>(float x)
{
    bf16_t y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Two f32 as a pair of 16-bit numbers, `low` in the low half.
template <typename T> __device__ __forceinline__ uint32_t pack_pair(float low, float high);
template <> __device__ __forceinline__ uint32_t pack_pair<half_t>(float low, float high)
{
    uint32_t y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
template <> __device__ __forceinline__ uint32_t pack_pair<bf16_t>(float low, float high)
{
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

// A place in shared memory, as instructions name it.
__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// The integer nearest to x, ties to the even one (ONNX Round).
__device__ __forceinline__ float round_half_even(float x) { return rintf(x); }

__device__ __forceinline__ float warp_sum(float x)
{
    for (int offset = 16; offset > 0; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}
__device__ __forceinline__ float warp_max(float x)
{
    for (int offset = 16; offset > 0; offset /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}
__device__ __forceinline__ float warp_min(float x)
{
    for (int offset = 16; offset > 0; offset /= 2)
        x = fminf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

// Reductions over a block of whole warps; every thread gets the result. `scratch` is shared
// memory for 32 floats, free again when the function returns.
template <typename Op> __device__ __forceinline__ float block_reduce(float x, float identity,
                                                                     float *scratch, Op op)
{
    for (int offset = 16; offset > 0; offset /= 2)
        x = op(x, __shfl_xor_sync(0xffffffffu, x, offset));
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int lane = thread % 32, warp = thread / 32;
    int n_warps = (blockDim.x * blockDim.y * blockDim.z + 31) / 32;
    if (lane == 0)
        scratch[warp] = x;
    __syncthreads();
    x = lane < n_warps ? scratch[lane] : identity;
    for (int offset = 16; offset > 0; offset /= 2)
        x = op(x, __shfl_xor_sync(0xffffffffu, x, offset));
    __syncthreads();
    return x;
}
__device__ __forceinline__ float block_sum(float x, float *scratch)
{
    return block_reduce(x, 0.0f, scratch, [](float a, float b) { return a + b; });
}
__device__ __forceinline__ float block_max(float x, float *scratch)
{
    return block_reduce(x, -INFINITY_F, scratch, [](float a, float b) { return fmaxf(a, b); });
}

// Programmatic dependent launch (sm_90 and later): what comes before the wait may overlap with
// the kernel before this one and must not touch what that one writes.
__device__ __forceinline__ void wait_for_previous_kernel()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_kernel_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The barrier of a cluster of blocks (sm_90 and later): what threads wrote before they arrive, all see that have waited.
__device__ __forceinline__ void cluster_arrive()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
// The same where nothing has been written yet.
__device__ __forceinline__ void cluster_arrive_relaxed()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// The element type that the engine chose. It comes under another name, as NVRTC's own headers call
// their template parameters T.
#ifdef ELEMENT_TYPE
#define T ELEMENT_TYPE
#endif
