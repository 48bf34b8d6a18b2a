// out = x · W (+ bias) (+ residual) for up to 64 columns of activations: still bound by reading W,
// which each byte of is read once.
//
// A block has OUTPUTS outputs and a part of K, the blocks of a cluster share K. Activations stream
// through shared memory in chunks of K, copied ahead; weights go straight to registers, a chunk
// ahead too. Of a block's warps WARPS_N share the outputs, WARPS_K each chunk. In the end the warps'
// sums meet in shared memory, and each block of the cluster adds up and writes a part of them: in
// the same order every time.

constexpr int COLUMN_GROUPS = COLUMNS / 8;
constexpr int COLUMN_BLOCK = COLUMN_GROUPS < 4 ? COLUMN_GROUPS : 4;
constexpr int COLUMN_BLOCKS = COLUMN_GROUPS / COLUMN_BLOCK;
constexpr int WARPS_ALL = WARPS_N * WARPS_K;
constexpr int THREADS = 32 * WARPS_ALL;
constexpr int OUTPUTS = 16 * TILES * WARPS_N;
constexpr int UNITS_A_WARP = CHUNK / WARPS_K;  // of a chunk of CHUNK units
constexpr int STRIDE = CHUNK * UNIT * Activation::BYTES + Activation::PADDING;
constexpr int STAGE = COLUMNS * STRIDE;
constexpr int TOTALS_STRIDE = OUTPUTS + 4;

// Of the same parameters as `product_of_few`. Grid: (CLUSTER, outputs / OUTPUTS); dynamic shared
// memory: the larger of STAGES · STAGE and COLUMNS · TOTALS_STRIDE words.
extern "C" __global__ void __launch_bounds__(THREADS) CLUSTERED
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

    // Tiles beyond the outputs are read as the last one, and not written.
    const int n_tiles = (n + 15) / 16;
    const Words* of_tile[TILES];
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
        const size_t tile = min(mine / 16 + i, n_tiles - 1);
        of_tile[i] = weights + (tile * units + begin + warp_k) * (PIECES * 32) + lane;
    }
    const Groups groups(w_scale, k, n, block_size);
    Words w[UNITS_A_WARP][TILES][PIECES];
    GroupScales scales[UNITS_A_WARP][TILES];
    auto load = [&](int u, int chunk) {
        const int unit = chunk * CHUNK + u * WARPS_K;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int piece = 0; piece < PIECES; ++piece) {
                w[u][i][piece] = load_once(of_tile[i] + (unit * PIECES + piece) * 32);
            }
            scales[u][i].load(groups, begin + warp_k + unit, mine + i * 16 + g);
        }
    };
    // Units of a chunk that this warp has to do with.
    auto count = [&](int chunk) {
        return (end - begin - chunk * CHUNK - warp_k + WARPS_K - 1) / WARPS_K;
    };
#pragma unroll
    for (int u = 0; u < UNITS_A_WARP; ++u) {
        if (u < count(0)) load(u, 0);
    }

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
        offsets[c] = base + c * 8 * STRIDE + A::lane_offset(lane, STRIDE, last) +
                     warp_k * (UNIT * A::BYTES);
        keep(offsets[c]);
    }
    Total sums[COLUMN_BLOCKS][1][TILES][COLUMN_BLOCK][4] = {};
    auto multiply = [&](int u, int stage) {
        A::Weights a[TILES];
        GroupScales scale[TILES];
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            a[i] = A::unpack(w[u][i]);
            scale[i] = scales[u][i];
        }
        const int at = stage + u * (WARPS_K * UNIT * A::BYTES);
#pragma unroll
        for (int block = 0; block < COLUMN_BLOCKS; ++block) {
            A::Fragment f[COLUMN_BLOCK];
#pragma unroll
            for (int c = 0; c < COLUMN_BLOCK; ++c) {
                f[c] = A::load(offsets[block * COLUMN_BLOCK + c] + at);
            }
            add_unit<TILES, COLUMN_BLOCK, 1>(sums[block], a, f, scale);
        }
    };

    for (int chunk = 0; chunk < n_chunks; ++chunk) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        fill(chunk + STAGES - 1);
        const int stage = chunk % STAGES * STAGE;
        const int n_now = count(chunk), n_next = count(chunk + 1);
        if (n_now >= UNITS_A_WARP && n_next >= UNITS_A_WARP) {
#pragma unroll
            for (int u = 0; u < UNITS_A_WARP; ++u) {
                multiply(u, stage);
                load(u, chunk + 1);
            }
        } else {
#pragma unroll
            for (int u = 0; u < UNITS_A_WARP; ++u) {
                if (u < n_now) multiply(u, stage);
                if (u < n_next) load(u, chunk + 1);
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
                    const Total sum = sums[c / COLUMN_BLOCK][0][i][c % COLUMN_BLOCK][j];
                    *to = turn == 0 ? sum : *to + sum;
                }
            }
        }
    }
    blocks_arrive();
    blocks_wait();

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
    blocks_arrive();
    blocks_wait();
}
