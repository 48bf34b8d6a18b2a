// What the blocks of a cluster write to each other's shared memory (sm_90 and later), each store with word of its
// arrival. A barrier after plain stores would wait for the answers to all of them first, and then for all blocks.
#pragma once
#include "common.cuh"

// The address that shared memory has in block `rank` of the cluster.
__device__ __forceinline__ uint32_t in_block(uint32_t address, uint32_t rank)
{
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

// A box in this block's shared memory is 8 bytes that count what has arrived of `bytes`. One thread opens it
// before the blocks meet for the first time; nobody sends before they have met.
__device__ __forceinline__ void open_box(uint32_t box, uint32_t bytes)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(box) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(box), "r"(bytes) : "memory");
}

// Waits until all has arrived; no block may end before.
__device__ __forceinline__ void empty_box(uint32_t box)
{
    asm volatile("{\n.reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], 0;\n"
                 "@!done bra again;\n}" ::"r"(box) : "memory");
}

// Writes to `to`, counted by `box`, both in the same block.
__device__ __forceinline__ void send(uint32_t to, uint32_t box, float a, float b)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(to),
                 "f"(a), "f"(b), "r"(box) : "memory");
}
__device__ __forceinline__ void send(uint32_t to, uint32_t box, float4 x)
{
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w), "r"(box) : "memory");
}
