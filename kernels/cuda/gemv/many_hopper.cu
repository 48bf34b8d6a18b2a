// `product_of_many` for codes and one scale an output, by Hopper's `wgmma`, which reads activations
// from shared memory by itself.
//
// The blocks of a cluster share K: each keeps its part of all activations in shared memory for good
// and goes with it over its cluster's outputs, OUTPUTS at a time, of which GROUPS_N groups of four
// warps have 64 each and GROUPS_K such sets share the block's part of K. Weights go straight to
// registers, UNROLL units ahead, past the end of one set of outputs into the next. Sums meet in
// shared memory, where each block of the cluster adds up and writes a part of them.

constexpr int THREADS = 128 * GROUPS_N * GROUPS_K;
constexpr int OUTPUTS = 64 * GROUPS_N;
constexpr int BLOCK = COLUMNS * 128;  // bytes of 128 inputs of all columns
constexpr int TOTALS_STRIDE = OUTPUTS + 4;
constexpr int TOTALS = COLUMNS * TOTALS_STRIDE;

// Where 16 bytes of a column are, `piece` along K.
__device__ __forceinline__ uint32_t piece_at(uint32_t base, int column, int piece) {
    return base + piece / 8 * BLOCK + column * 128 + ((piece % 8 ^ column % 8) << 4);
}

// Units first..first + count of all rows, zeros beyond k.
__device__ __forceinline__ void fill(uint32_t base, const int8_t* x, int rows, int k, int first,
                                     int count) {
    constexpr int RUNS = THREADS / 8;  // eight threads copy 128 bytes in a run
    constexpr int ROW_STEP = RUNS < COLUMNS ? RUNS : COLUMNS, STEP = RUNS / ROW_STEP;
    const int n_pieces = count * 4, run = threadIdx.x / 8;
    if (k % 16 == 0 && (uint64_t)x % 16 == 0) {
        for (int r = run % ROW_STEP; r < rows; r += ROW_STEP) {
#pragma unroll 4
            for (int i = run / ROW_STEP * 8 + threadIdx.x % 8; i < n_pieces; i += STEP * 8) {
                const int from = first * UNIT + i * 16;
                const int8_t* source = x + (size_t)r * k + (from < k ? from : 0);
                copy_16_async(piece_at(base, r, i), source, from < k ? 16 : 0);
            }
        }
        commit_copies();
        wait_for_copies<0>();
    } else {
        for (int r = 0; r < rows; ++r) {
            for (int i = threadIdx.x; i < count * UNIT; i += THREADS) {
                const int from = first * UNIT + i;
                const int8_t v = from < k ? x[(size_t)r * k + from] : 0;
                store_shared_8(piece_at(base, r, i / 16) + i % 16, (uint8_t)v);
            }
        }
    }
    // What threads wrote, for the tensor cores to read.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Of the same parameters as `product_of_few`. Grid: (CLUSTER, sets of outputs or fewer); dynamic
// shared memory: 1,024 bytes to align with, BLOCK for each two units of a block's part of K, and two
// times TOTALS words.
extern "C" __global__ void __launch_bounds__(THREADS, 1) CLUSTERED
    product_of_many(const int8_t* x, const float* x_scale, const Words* weights,
                    const float* w_scale, const T* bias, const T* residual, Outputs outputs,
                    int rows, int k, int n, int units, int block_size) {
    extern __shared__ Words shared[];
    const uint32_t base = (shared_address(shared) + 1023) / 1024 * 1024;

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, t = lane % 4;
    const int group_n = warp / 4 % GROUPS_N, group_k = warp / 4 / GROUPS_N;
    const int rank = rank_in_cluster();
    const int of_block = (units + CLUSTER - 1) / CLUSTER;
    const int begin = min(rank * of_block, units), size = min(of_block, units - begin);
    // This warp's units of the block's.
    const int share = (of_block + GROUPS_K - 1) / GROUPS_K;
    const int mine = min(group_k * share, size), count = min(share, size - mine);

    constexpr int UNIT_WORDS = PIECES * 32;
    const int n_sets = (n + OUTPUTS - 1) / OUTPUTS, last_tile = (n + 15) / 16 - 1;
    const int my_tile = group_n * 4 + warp % 4;
    auto weights_of = [&](int set) {
        const size_t tile = min(set * (OUTPUTS / 16) + my_tile, last_tile);
        return weights + (tile * units + begin + mine) * UNIT_WORDS + lane;
    };
    Words w[UNROLL][PIECES];
    // Units beyond the share are zeros.
    auto load = [&](int u, const Words* batch, int n_left) {
#pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
            if (u < n_left) {
                w[u][piece] = load_once(batch + u * UNIT_WORDS + piece * 32);
            } else {
                w[u][piece] = Words{0, 0, 0, 0};
            }
        }
    };
    const Words* batch = weights_of(blockIdx.y);
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) load(u, batch, count);

    let_next_kernel_start();
    wait_for_previous_kernel();
    fill(base, x, rows, k, begin, size);
    __syncthreads();

    const uint32_t totals = base + (of_block + 1) / 2 * BLOCK;
    int buffer = 0;
    const Epilogue epilogue = {w_scale, bias, residual};
    for (int set = blockIdx.y; set < n_sets; set += gridDim.y, buffer ^= 1) {
        // A thread finishes the same four outputs of each row that is its.
        constexpr int QUADS = OUTPUTS / 4;
        const int quad = threadIdx.x % QUADS * 4, first = set * OUTPUTS + quad;
        Epilogue::Constants constants[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) constants[j] = epilogue.constants(first + j, n);

        int sums[COLUMNS / 2] = {};
        Codes::Weights a[2];
        for (int start = 0; start < share; start += UNROLL) {
            int next_set = set, next = start + UNROLL;
            batch += UNROLL * UNIT_WORDS;
            if (next >= share) {
                next_set = set + gridDim.y, next = 0;
                batch = weights_of(next_set);
            }
            const int n_next = next_set < n_sets ? count - next : 0;
            const bool whole = n_next >= UNROLL;
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                a[u % 2] = Codes::unpack(w[u]);
                load(u, batch, whole ? UNROLL : n_next);
                // Beyond the share weights are zeros, and any activations will do.
                const int unit = min(mine + start + u, of_block - 1);
                const uint32_t b = base + unit / 2 * BLOCK + unit % 2 * UNIT;
                wgmma_fence();
                wgmma(sums, a[u % 2].low, operand_b(b));
                wgmma(sums, a[u % 2].high, operand_b(b + 32));
                wgmma_commit();
                wgmma_wait<1>();
            }
            // The next batch begins with the other operands.
            if (UNROLL % 2 == 1) wgmma_wait<0>();
        }
        wgmma_wait<0>();
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; ++i) asm volatile("" : "+r"(sums[i])::"memory");

        const uint32_t to = totals + buffer * (TOTALS * 4);
#pragma unroll
        for (int turn = 0; turn < GROUPS_K; ++turn) {
            if (turn > 0) __syncthreads();
            if (group_k != turn) continue;
#pragma unroll
            for (int i = 0; i < COLUMNS / 2; ++i) {
                const int column = i / 4 * 8 + 2 * t + i % 2;
                const int output = my_tile * 16 + g + i / 2 % 2 * 8;
                const uint32_t at = to + (column * TOTALS_STRIDE + output) * 4;
                int sum = sums[i];
                if (turn > 0) sum += load_shared_word(at);
                store_shared_word(at, sum);
            }
        }
        // One barrier a set: who overwrites a buffer has met those who read it at the next one.
        blocks_arrive();
        blocks_wait();
        for (int r = (rank * THREADS + threadIdx.x) / QUADS; r < rows;
             r += CLUSTER * THREADS / QUADS) {
            const uint32_t at = to + (r * TOTALS_STRIDE + quad) * 4;
            Words v[CLUSTER];
#pragma unroll
            for (int peer = 0; peer < CLUSTER; ++peer) v[peer] = load_from_cluster(at, peer);
            int sum[4] = {};
#pragma unroll
            for (int peer = 0; peer < CLUSTER; ++peer) {
                sum[0] += (int)v[peer].x, sum[1] += (int)v[peer].y;
                sum[2] += (int)v[peer].z, sum[3] += (int)v[peer].w;
            }
            const float scale = x_scale[r];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (first + j < n) {
                    const float added = epilogue.residual_at(r, first + j, n);
                    *output_at(outputs, r, first + j) =
                        epilogue.finish((float)sum[j], constants[j], scale, added);
                }
            }
        }
    }
    // No block leaves while others read its shared memory.
    blocks_arrive();
    blocks_wait();
}
