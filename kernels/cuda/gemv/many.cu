// out = x · W (+ bias) (+ residual) for up to 64 columns of activations: still bound by reading W,
// which each byte of is read once.
//
// A block has OUTPUTS outputs and a part of K, the blocks of a cluster share K. Activations stream
// through shared memory in chunks of K, copied ahead; weights go straight to registers, a chunk
// ahead too. Of a block's warps WARPS_N share the outputs, WARPS_K each chunk. In the end the warps'
// sums meet in shared memory, and each block of the cluster adds up and writes a part of them: in
// the same order every time.

#ifndef MIN_BLOCKS
#define MIN_BLOCKS 1
#endif

constexpr int COLUMN_GROUPS = COLUMNS / 8;
constexpr int WARPS_ALL = WARPS_N * WARPS_K;
constexpr int THREADS = 32 * WARPS_ALL;
constexpr int OUTPUTS = 16 * TILES * WARPS_N;
constexpr int UNITS_A_WARP = CHUNK / WARPS_K;  // of a chunk of CHUNK units
constexpr int STRIDE = CHUNK * UNIT * Activation::BYTES + Activation::PADDING;
constexpr int STAGE = COLUMNS * STRIDE;
constexpr int TOTALS_STRIDE = OUTPUTS + 4;

// Of the same parameters as `product_of_few`. Grid: (CLUSTER, outputs / OUTPUTS); dynamic shared
// memory: the larger of STAGES · STAGE and COLUMNS · TOTALS_STRIDE words.
extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) CLUSTERED
    product_of_many(const Activation::Element* x, const float* x_scale, const Words* weights,
                    const float* w_scale, const T* bias, const T* residual, Outputs outputs,
                    int rows, int k, int n, int units, int block_size) {
    using A = Activation;
    extern __shared__ Words shared[];
    const uint32_t base = shared_address(shared);

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_n = warp % WARPS_N, warp_k = warp / WARPS_N;
    const int g = lane / 4, t = lane % 4;
    const int first = blockIdx.y * OUTPUTS, mine = first + warp_n * (16 * TILES);
    const int rank = rank_in_cluster();
    const int share = (units + CLUSTER - 1) / CLUSTER;
    const int begin = min(rank * share, units), end = min(begin + share, units);
    const int n_chunks = (end - begin + CHUNK - 1) / CHUNK;

    Words w[UNITS_A_WARP][TILES][PIECES];
    GroupScales scales[UNITS_A_WARP][TILES];
    const int n_tiles = (n + 15) / 16;
    auto load = [&](int u, int unit) {
        if (unit >= end) return;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            const int tile = min(mine / 16 + i, n_tiles - 1);
            const Words* from = weights + ((size_t)tile * units + unit) * (PIECES * 32) + lane;
#pragma unroll
            for (int piece = 0; piece < PIECES; ++piece) w[u][i][piece] = load_once(from + piece * 32);
            const int output = mine + i * 16 + g;
            scales[u][i].load(w_scale, unit, block_size, n, n - 1, output, output + 8);
        }
    };
#pragma unroll
    for (int u = 0; u < UNITS_A_WARP; ++u) load(u, begin + warp_k + u * WARPS_K);

    let_next_kernel_start();
    wait_for_previous_kernel();

    const bool aligned = k * A::BYTES % 16 == 0 && (uint64_t)x % 16 == 0;
    auto fill = [&](int chunk) {
        if (chunk < n_chunks) {
            fill_by_block<THREADS, CHUNK * UNIT>(base + chunk % STAGES * STAGE, STRIDE, x, rows, k,
                                                 (begin + chunk * CHUNK) * UNIT, aligned);
        }
        commit_copies();
    };
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) fill(stage);

    const int n_columns = rows * A::COLUMNS_A_ROW;
    uint32_t offsets[COLUMN_GROUPS];
#pragma unroll
    for (int c = 0; c < COLUMN_GROUPS; ++c) {
        const int last = min(7, max(0, n_columns - 1 - c * 8));
        offsets[c] = base + c * 8 * STRIDE + A::lane_offset(lane, STRIDE, last);
    }
    Sums<1> sums[TILES][COLUMN_GROUPS];

    for (int chunk = 0; chunk < n_chunks; ++chunk) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        fill(chunk + STAGES - 1);
        const int stage = chunk % STAGES * STAGE;
#pragma unroll
        for (int u = 0; u < UNITS_A_WARP; ++u) {
            const int in_chunk = warp_k + u * WARPS_K, unit = begin + chunk * CHUNK + in_chunk;
            if (unit < end) {
                A::Weights a[TILES];
                GroupScales scale[TILES];
#pragma unroll
                for (int i = 0; i < TILES; ++i) {
                    a[i] = A::unpack(w[u][i]);
                    scale[i] = scales[u][i];
                }
                load(u, unit + CHUNK);
                const int at = stage + in_chunk * (UNIT * A::BYTES);
#pragma unroll
                for (int c = 0; c < COLUMN_GROUPS; ++c) {
                    const auto f = A::load(offsets[c] + at);
#pragma unroll
                    for (int i = 0; i < TILES; ++i) sums[i][c].add(a[i], f, scale[i]);
                }
            }
        }
    }

    // The sums of one warp after the other along K, [column][output].
    Total* totals = (Total*)shared;
#pragma unroll
    for (int turn = 0; turn < WARPS_K; ++turn) {
        __syncthreads();
        if (warp_k != turn) continue;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int c = 0; c < COLUMN_GROUPS; ++c) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    Total* to = totals + (c * 8 + 2 * t + j % 2) * TOTALS_STRIDE +
                                warp_n * (16 * TILES) + i * 16 + g + j / 2 * 8;
                    *to = turn == 0 ? sums[i][c].total(j) : *to + sums[i][c].total(j);
                }
            }
        }
    }
    cluster_arrive();
    cluster_wait();

    const Epilogue epilogue = {w_scale, bias, residual};
    constexpr int QUADS = OUTPUTS / 4;
    for (int i = rank * THREADS + threadIdx.x; i < rows * QUADS; i += CLUSTER * THREADS) {
        const int r = i / QUADS, output = i % QUADS * 4;
        Total sum[4] = {};
#pragma unroll
        for (int part = 0; part < A::COLUMNS_A_ROW; ++part) {
            const uint32_t at =
                base + ((r * A::COLUMNS_A_ROW + part) * TOTALS_STRIDE + output) * 4;
            Words v[CLUSTER];
#pragma unroll
            for (int peer = 0; peer < CLUSTER; ++peer) v[peer] = load_from_cluster(at, peer);
#pragma unroll
            for (int peer = 0; peer < CLUSTER; ++peer) {
                sum[0] += as_total(v[peer].x), sum[1] += as_total(v[peer].y);
                sum[2] += as_total(v[peer].z), sum[3] += as_total(v[peer].w);
            }
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int to = first + output + j;
            if (to < n) {
                const float scale = WEIGHT_ONLY ? 1.0f : x_scale[r];
                *output_at(outputs, r, to) = epilogue.finish(
                    (float)sum[j], epilogue.constants(to, n), scale, epilogue.residual_at(r, to, n));
            }
        }
    }
    // No block leaves while others read its shared memory.
    cluster_arrive();
    cluster_wait();
}
