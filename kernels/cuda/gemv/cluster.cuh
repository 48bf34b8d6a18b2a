// Blocks of one cluster, which may read each other's shared memory. With CLUSTER = 1 nothing is
// asked of the device, so that this compiles for those that have no clusters.

#if CLUSTER > 1
#include "mail.cuh"
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif

__device__ __forceinline__ int rank_in_cluster() {
#if CLUSTER > 1
    return blockIdx.x % CLUSTER;
#else
    return 0;
#endif
}

// What was written before is seen by all blocks of the cluster after.
__device__ __forceinline__ void blocks_arrive() {
#if CLUSTER > 1
    cluster_arrive();
#endif
}
// The same where nothing has been written yet.
__device__ __forceinline__ void blocks_arrive_relaxed() {
#if CLUSTER > 1
    cluster_arrive_relaxed();
#endif
}
__device__ __forceinline__ void blocks_wait() {
#if CLUSTER > 1
    cluster_wait();
#else
    __syncthreads();
#endif
}

// Four words of shared memory of block `rank`, at an address of this block's.
__device__ __forceinline__ Words load_from_cluster(uint32_t address, int rank) {
    Words v;
#if CLUSTER > 1
    asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(in_block(address, rank))
                 : "memory");
#else
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address)
                 : "memory");
#endif
    return v;
}

// Four words to shared memory of block `rank`, at an address of this block's.
__device__ __forceinline__ void store_to_cluster(uint32_t address, int rank, const Words& v) {
#if CLUSTER > 1
    asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(in_block(address, rank)),
                 "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
#else
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
#endif
}
