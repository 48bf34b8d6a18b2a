// Products of tiles by Hopper's `wgmma`, for heads of 64 or 128 channels: each is under way when its
// function returns. Needs wgmma.cuh and dense_tiles.cuh in front.
static_assert(D == 64 || D == 128, "heads of 64 or 128 channels");

/// Copies that this thread awaited are seen by products behind the next barrier.
__device__ __forceinline__ void show_tiles() { show_to_products(); }
/// Registers are as products left them, or as the next shall find them.
template <int N>
__device__ __forceinline__ void settle(float (&x)[N]) { pin(x); }
/// Waits until at most N of the products started are not done.
template <int N>
__device__ __forceinline__ void await_products() { wait_for_products<N>(); }

/// d (+)= a b': 64 x 16 by 16 x 64; both in shared memory with the inner dimension along rows.
__device__ __forceinline__ void product(Scores &d, unsigned long long a, unsigned long long b, bool add) {
    asm volatile("{.reg .pred p;\n setp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
                 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
                 "}, %32, %33, p, 1, 1, 0, 0;}"
                 : ACC_16(d, 0), ACC_16(d, 16) : "l"(a), "l"(b), "r"((int)add));
}

/// scores = the group's own rows times the rows of `tile`, along the channels.
__device__ __forceinline__ void start_products(Scores &scores, unsigned own, unsigned tile) {
    own += threadIdx.x / 128 * (TILE * 128);
    products_may_start();
#pragma unroll
    for (int k = 0; k < STEPS; k++)
        product(scores, tile_descriptor(own + k / 4 * (ROWS * 128) + k % 4 * 32, 16, 1024),
                tile_descriptor(tile + k / 4 * (TILE * 128) + k % 4 * 32, 16, 1024), k > 0);
    products_started();
}

/// sums += weights times the rows of `tile`.
__device__ __forceinline__ void start_mix(Sums &sums, const Weights &weights, unsigned tile) {
    settle(sums);
    products_may_start();
#pragma unroll
    for (int k = 0; k < TILE / 16; k++)
        product<true>(sums, weights[k], tile_descriptor(tile + k * (16 * 128), TILE * 128, 1024));
    products_started();
}
