// Largest values and sums over a warp and over a block.

// The largest of a, and the sum or the largest of b, over a warp.
template <bool SUM> __device__ inline void reduce_warp(float &a, float &b) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) {
        a = fmaxf(a, __shfl_xor_sync(0xFFFFFFFF, a, i));
        float other = __shfl_xor_sync(0xFFFFFFFF, b, i);
        b = SUM ? b + other : fmaxf(b, other);
    }
}

// The same over a block, with a box for each time.
template <bool SUM, int WARPS> __device__ inline void reduce_block(float &a, float &b, float2 *box) {
    reduce_warp<SUM>(a, b);
    if (WARPS == 1) return;
    if (threadIdx.x % 32 == 0) box[threadIdx.x / 32] = make_float2(a, b);
    __syncthreads();
    a = box[0].x;
    b = box[0].y;
#pragma unroll
    for (int i = 1; i < WARPS; i++) {
        a = fmaxf(a, box[i].x);
        b = SUM ? b + box[i].y : fmaxf(b, box[i].y);
    }
}
