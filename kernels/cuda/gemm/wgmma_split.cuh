// Products whose K is shared out among the blocks of a cluster (wgmma.cu): the first block adds up
// the sums of all of them. A cluster makes one tile, so the stages are free when their products are
// done: the sums pass through there.
#pragma once

__device__ __forceinline__ uint32_t bits_of(int32_t sum) { return sum; }
__device__ __forceinline__ uint32_t bits_of(float sum) { return __float_as_uint(sum); }
__device__ __forceinline__ void add_bits(int32_t &sum, uint32_t bits) { sum += bits; }
__device__ __forceinline__ void add_bits(float &sum, uint32_t bits)
{
    sum += __uint_as_float(bits);
}

// Adds the other blocks' sums of the warpgroup's part of the tile to those of the first block.
template <typename Sum>
__device__ __forceinline__ void gather(Sum (&sums)[BLOCKS][SUMS], uint32_t stages, int group,
                                       int thread)
{
    constexpr int PART_BYTES = 128 * BLOCKS * SUMS * 4;
    const int rank = blockIdx.x % SPLIT;
    const uint32_t mine = stages + group * PART_BYTES + thread * 16;
    cluster_sync();
    if (rank > 0) {
#pragma unroll
        for (int i = 0; i < BLOCKS * SUMS; i += 4) {
            const Sum *s = &sums[i / SUMS][i % SUMS];
            const uint4 v = make_uint4(bits_of(s[0]), bits_of(s[1]), bits_of(s[2]), bits_of(s[3]));
            store_in_block(mine + (rank - 1) * 2 * PART_BYTES + i * 512, 0, v);
        }
    }
    cluster_sync();
    if (rank > 0)
        return;
#pragma unroll
    for (int part = 0; part < SPLIT - 1; part++) {
#pragma unroll
        for (int i = 0; i < BLOCKS * SUMS; i += 4) {
            const uint4 v = load_shared(mine + part * 2 * PART_BYTES + i * 512);
            Sum *s = &sums[i / SUMS][i % SUMS];
            add_bits(s[0], v.x);
            add_bits(s[1], v.y);
            add_bits(s[2], v.z);
            add_bits(s[3], v.w);
        }
    }
}
