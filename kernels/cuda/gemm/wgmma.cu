// The product of many rows with quantised weights on Hopper: out[m, n] = a_scale[m] · w_scale[n] ·
// Σ_k x[m, k]·w[n, k] (+ bias[n]) (+ residual[m, n]). x are codes, int8 [rows, k], with exact
// sums, or, with FLOATS, T [rows, k] with sums in f32 and no a_scale.
//
// The product is computed transposed, D = W·Xᵀ, because `wgmma` takes its operand A from
// registers: weights come packed through shared memory, 16 bytes a lane, and two masks make them
// int8 (times 16) on the way into the tensor cores. x is operand B, read from shared memory where
// the copy engine put it. One producer thread keeps STAGES stages of 128 bytes of K in flight; two
// warpgroups hold 64·BLOCKS outputs × TILE_M rows of sums each. Blocks stay resident and take one
// tile after another, so the next tile is copied in while the last one is finished.
//
// With GROUPED the scale is [k / block_size, n], and BLOCKS is 1: wgmma_groups.cuh.
//
// With SPLIT > 1, for few tiles, that many blocks share a tile, each with its part of K: wgmma_split.cuh.
//
// With PARTS > 1 weights of several products lie side by side, and each has an output of its own (BULK).
//
// Defines: T, WEIGHT_BITS (4, 8), FLOATS, TILE_M (64, 128), BLOCKS (1, 2), STAGES, BAND, SPLIT, GROUPED
// (1: groups of half a stage, 2: of whole stages), PARTS, BULK (the output and the residual are 16-bit and
// the copy engine can address them).
#include "common.cuh"
#include "hopper.cuh"
#include "output.cuh"
#include "wgmma.cuh"
#if FLOATS
#include "widen.cuh"
#endif

constexpr int TILE_K = FLOATS ? 64 : 128;            // inputs of a stage: 128 bytes
constexpr int GROUP_N = 64 * BLOCKS;                 // outputs of a warpgroup
constexpr int TILE_N = 2 * GROUP_N;                  // outputs of a block
constexpr int PACKED_TILE = 512;                     // bytes of one packed tile of weights
constexpr int K_TILES = TILE_K * WEIGHT_BITS / 256;  // packed tiles along K in a stage
constexpr int W_BYTES = TILE_N * TILE_K * WEIGHT_BITS / 8;
constexpr int X_BYTES = TILE_M * 128;
constexpr int STAGE_BYTES = W_BYTES + X_BYTES;
constexpr int SUMS = TILE_M / 2;  // sums of a thread in a block of 64 outputs
constexpr float UNIT = WEIGHT_BITS == 4 ? 1.0f / 16.0f : 1.0f;

#if FLOATS
typedef float sum_t;
#else
typedef int32_t sum_t;
#endif

#include "wgmma_output.cuh"

// The tiles of a launch; a block takes every gridDim.x-th. They come BAND tiles along n over all
// rows, then the next BAND, so that a wave shares both operands in the L2 cache.
struct Tiles {
    int along_n, along_m, n, m;

    __device__ __forceinline__ explicit Tiles(const Problem &p)
        : along_n((p.n + TILE_N - 1) / TILE_N), along_m((p.rows + TILE_M - 1) / TILE_M), n(0), m(0)
    {
    }
    __device__ __forceinline__ int count() const { return along_n * along_m; }
    __device__ __forceinline__ void go_to(int index)
    {
        const int band = index / (BAND * along_m), within = index % (BAND * along_m);
        const int width = min(BAND, along_n - band * BAND);
        n = (band * BAND + within % width) * TILE_N;
        m = within / width * TILE_M;
    }
};

// The stages in shared memory, their barriers, and the steps of a tile.
struct Stages {
    uint32_t first, full, empty;
    int first_step, steps;
};

// Position in the ring of stages.
struct Ring {
    int stage = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void advance()
    {
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
};

#if FLOATS
// A word's four inputs, 4t.. of 16, as those that lane t hands to a product of 16: inputs 2t and
// 2t + 1 in the low half, 2t + 8 and 2t + 9 in the high half.
__device__ __forceinline__ uint32_t exchange(uint32_t word, int lane)
{
    const int from = lane & ~3, t = lane & 3;
    const uint32_t low = __shfl_sync(0xffffffffu, word, from + t / 2);
    const uint32_t high = __shfl_sync(0xffffffffu, word, from + t / 2 + 2);
    return __byte_perm(low, high, t & 1 ? 0x7632 : 0x5410);
}

// The lane's weights of 32 inputs as the operands of two products of 16.
__device__ __forceinline__ void load_weights(uint32_t at, int half, uint32_t (&a)[8], int lane)
{
    const uint4 p = load_shared(WEIGHT_BITS == 4 ? at : at + half * PACKED_TILE);
    const uint32_t packed[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t word = exchange(packed[i], lane);
        if (WEIGHT_BITS == 4)
            word = (half ? word : word << 4) & 0xF0F0F0F0u;
        Arithmetic<T>::widen(word, a[i / 2 * 4 + i % 2], a[i / 2 * 4 + i % 2 + 2]);
    }
}
#else
// The lane's weights of 64 inputs as the operands of two products of 32: the two nibbles of one
// packed tile, or two tiles of INT8.
__device__ __forceinline__ void load_weights(uint32_t at, int half, uint32_t (&a)[8], int)
{
    if (WEIGHT_BITS == 4) {
        const uint4 p = load_shared(at + half * PACKED_TILE);
        const uint32_t packed[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            a[i] = (packed[i] << 4) & 0xF0F0F0F0u;
            a[i + 4] = packed[i] & 0xF0F0F0F0u;
        }
    } else {
        const uint4 low = load_shared(at + 2 * half * PACKED_TILE);
        const uint4 high = load_shared(at + (2 * half + 1) * PACKED_TILE);
        a[0] = low.x, a[1] = low.y, a[2] = low.z, a[3] = low.w;
        a[4] = high.x, a[5] = high.y, a[6] = high.z, a[7] = high.w;
    }
}
#endif

__device__ __forceinline__ void product(sum_t (&sums)[SUMS], const uint32_t *a, uint64_t x, int add)
{
#if FLOATS
    Arithmetic<T>::wgmma(sums, a, x, add);
#else
    wgmma_s8(sums, a, x, add);
#endif
}

// Starts the products of half a stage: two of 32 bytes of K for each block of 64 outputs.
__device__ __forceinline__ void multiply(sum_t (&sums)[BLOCKS][SUMS], uint32_t weights, uint32_t x,
                                         int half, uint32_t (&a)[BLOCKS][8], int add, int lane)
{
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
        load_weights(weights + b * 4 * K_TILES * PACKED_TILE, half, a[b], lane);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int b = 0; b < BLOCKS; b++)
            product(sums[b], a[b] + 4 * i, operand_descriptor(x + 64 * half + 32 * i), add || i);
    wgmma_commit();
}

// Keeps the compiler from reading sums before the wait that is above this.
__device__ __forceinline__ void settle(sum_t (&sums)[BLOCKS][SUMS])
{
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
#pragma unroll
        for (int i = 0; i < SUMS; i++)
#if FLOATS
            asm volatile("" : "+f"(sums[b][i])::"memory");
#else
            asm volatile("" : "+r"(sums[b][i])::"memory");
#endif
}

// Walks a warpgroup through the stages of a tile, half a stage at a time. A half's products run on
// while the next half's weights are unpacked into the other registers.
struct Walk {
    const Stages &stages;
    Ring &ring;
    uint32_t my_weights;
    int lane, previous = -1;
    uint32_t a[2][BLOCKS][8];

    // Starts the first half of a stage; waits for all that was started before it.
    __device__ __forceinline__ void first(sum_t (&sums)[BLOCKS][SUMS], int add)
    {
        const uint32_t stage = stages.first + ring.stage * STAGE_BYTES;
        barrier_wait(stages.full + 8 * ring.stage, ring.phase);
        multiply(sums, stage + my_weights, stage + W_BYTES, 0, a[0], add, lane);
        wgmma_wait<1>();
        release();
    }
    __device__ __forceinline__ void second(sum_t (&sums)[BLOCKS][SUMS], int add)
    {
        const uint32_t stage = stages.first + ring.stage * STAGE_BYTES;
        multiply(sums, stage + my_weights, stage + W_BYTES, 1, a[1], add, lane);
        wgmma_wait<1>();
        previous = ring.stage;
        ring.advance();
    }
    __device__ __forceinline__ void finish()
    {
        wgmma_wait<0>();
        release();
    }
    // The products of the stage before are done: it may be filled again.
    __device__ __forceinline__ void release()
    {
        if (previous >= 0 && lane == 0)
            barrier_arrive(stages.empty + 8 * previous);
    }
};

#if SPLIT > 1
#include "wgmma_split.cuh"
#endif
#if GROUPED
#include "wgmma_groups.cuh"
#else
// Sums of the warpgroup's tile over all of K. `meanwhile` is called once on the way.
template <typename F>
__device__ __forceinline__ void accumulate(sum_t (&sums)[BLOCKS][SUMS], Walk &walk, F meanwhile)
{
    for (int step = 0; step < walk.stages.steps; step++) {
        walk.first(sums, step > 0);
        if (step == 0)
            meanwhile();
        walk.second(sums, 1);
    }
    walk.finish();
    settle(sums);
}
#endif

__device__ void produce(const TensorMap *weights, const TensorMap *x, Tiles tiles,
                        const Stages &stages)
{
    Ring ring;
    for (int index = blockIdx.x / SPLIT; index < tiles.count(); index += gridDim.x / SPLIT) {
        tiles.go_to(index);
        for (int i = 0; i < stages.steps; i++) {
            const int step = stages.first_step + i;
            const uint32_t stage = stages.first + ring.stage * STAGE_BYTES;
            const uint32_t barrier = stages.full + 8 * ring.stage;
            barrier_wait(stages.empty + 8 * ring.stage, ring.phase ^ 1);
            barrier_expect(barrier, STAGE_BYTES);
            // An element of the weights' map is WEIGHT_BITS bytes: two for each input.
            copy_box(stage, weights, step * TILE_K * 2, tiles.n / 16, barrier);
            copy_box(stage + W_BYTES, x, step * TILE_K, tiles.m, barrier);
            ring.advance();
        }
    }
}

// What a warpgroup finishes tiles with.
struct Output {
    const TensorMap *out, *residual;
#if PARTS > 1
    const MoreOutputs *more;
#endif
    uint32_t staging, barrier;  // the barrier of the residual's copy
    float *row_scales;          // TILE_M in shared memory
};

#if BULK
// Stores a box of outputs from n on to where they go.
__device__ __forceinline__ void store_part(const Output &output, int n, int m, uint32_t from)
{
    const TensorMap *to = output.out;
    int start = 0;
#if PARTS > 1
#pragma unroll
    for (int i = 0; i < PARTS - 1; i++) {
        if (n >= output.more->start[i]) {
            to = &output.more->out[i];
            start = output.more->start[i];
        }
    }
#endif
    store_box(to, n - start, m, from);
}
#endif

__device__ void consume(const Problem &p, Tiles tiles, const Stages &stages, const Output &output,
                        int group)
{
    const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    const bool is_first = SPLIT == 1 || blockIdx.x % SPLIT == 0;
    const uint32_t my_weights = (group * BLOCKS * 4 + warp) * K_TILES * PACKED_TILE + lane * 16;
    Ring ring;
    [[maybe_unused]] uint32_t phase = 0;
    for (int index = blockIdx.x / SPLIT; index < tiles.count(); index += gridDim.x / SPLIT) {
        tiles.go_to(index);
        const int n0 = tiles.n + group * GROUP_N, first_n = n0 + warp * 16 + lane / 4;
        const int row = tiles.m + thread;
        const Columns columns(p, first_n);
        float row_scale = 1.0f;
        if (p.a_scale && thread < TILE_M && row < p.rows)
            row_scale = p.a_scale[row];
        // The last tile's boxes have been read when the next residual takes their place.
        auto meanwhile = [&] {
            if (BULK && thread == 0) {
                stores_wait_read();
                if (p.residual && is_first) {
                    barrier_expect(output.barrier, BLOCKS * BOX_BYTES);
#pragma unroll
                    for (int b = 0; b < BLOCKS; b++)
                        copy_box(output.staging + b * BOX_BYTES, output.residual, n0 + b * 64,
                                 tiles.m, output.barrier);
                }
            }
            __syncwarp();
        };
        Walk walk = {stages, ring, my_weights, lane};
#if GROUPED
        float results[BLOCKS][SUMS] = {};
        accumulate_groups(results, walk, Scales(p, first_n), meanwhile);
#else
        sum_t results[BLOCKS][SUMS];
        accumulate(results, walk, meanwhile);
#endif
#if SPLIT > 1
        gather(results, stages.first, group, thread);
        if (!is_first)
            return;
#endif
        if (thread < TILE_M)
            output.row_scales[thread] = row_scale;
        named_sync(1 + group, 128);
#if BULK
        if (p.residual) {
            barrier_wait(output.barrier, phase);
            phase ^= 1;
            stage(results, columns, output.row_scales, output.staging, true, warp, lane);
        } else {
            stage(results, columns, output.row_scales, output.staging, false, warp, lane);
        }
        fence_for_copies();
        named_sync(1 + group, 128);
        if (thread == 0) {
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
                if (n0 + b * 64 < p.n)
                    store_part(output, n0 + b * 64, tiles.m, output.staging + b * BOX_BYTES);
            stores_commit();
        }
        __syncwarp();
#else
        write(results, columns, output.row_scales, p, tiles.m, first_n, lane);
        named_sync(1 + group, 128);
#endif
        if (SPLIT > 1)
            break;
    }
    if (BULK && thread == 0)
        stores_wait();
}

#if SPLIT > 1
#define SHARE_TILES __cluster_dims__(SPLIT, 1, 1)
#else
#define SHARE_TILES
#endif

extern "C" __global__ void SHARE_TILES __launch_bounds__(384, 1)
    wgmma_gemm(const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap x,
               const __grid_constant__ TensorMap out, const __grid_constant__ TensorMap residual,
               const __grid_constant__ Problem p MORE_OUTPUTS)
{
    extern __shared__ uint8_t dynamic[];
    __shared__ uint64_t barriers[2 * STAGES + 2];
    __shared__ __align__(8) float row_scales[2][TILE_M];
    Stages stages;
    stages.first = (shared_address(dynamic) + 1023) & ~1023u;
    stages.full = shared_address(barriers);
    stages.empty = stages.full + 8 * STAGES;
    const int steps = (p.k + TILE_K - 1) / TILE_K, part = blockIdx.x % SPLIT;
    stages.first_step = steps * part / SPLIT;
    stages.steps = steps * (part + 1) / SPLIT - stages.first_step;
    const uint32_t residual_barriers = stages.empty + 8 * STAGES;
    const Tiles tiles(p);

    if (threadIdx.x == 0) {
        prefetch_map(&weights);
        prefetch_map(&x);
        for (int s = 0; s < STAGES; s++) {
            barrier_init(stages.full + 8 * s, 1);
            barrier_init(stages.empty + 8 * s, 8);
        }
        barrier_init(residual_barriers, 1);
        barrier_init(residual_barriers + 8, 1);
        fence_barrier_init();
    }
    __syncthreads();
    wait_for_previous_kernel();
    let_next_kernel_start();

    const int group = static_cast<int>(threadIdx.x / 128) - 1;
    if (group < 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0)
            produce(&weights, &x, tiles, stages);
#if SPLIT > 1
        __syncwarp();
        cluster_sync();
        cluster_sync();
#endif
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        const uint32_t staging = stages.first + STAGES * STAGE_BYTES + group * BLOCKS * BOX_BYTES;
        const Output output = {&out, &residual,
#if PARTS > 1
                               &more,
#endif
                               staging, residual_barriers + 8 * group, row_scales[group]};
        consume(p, tiles, stages, output, group);
    }
}
