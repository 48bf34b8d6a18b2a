// `product_of_many` for codes and one scale an output, by Hopper's `wgmma`, which reads activations
// from shared memory by itself.
//
// The blocks of a cluster share K, and GROUPS_K teams of a block's warps share its part. Each team
// keeps its part of all activations in shared memory for good, copied batch by batch so that
// products begin with the first, and goes with it over its cluster's outputs, OUTPUTS at a time, of
// which each of GROUPS_N groups of four warps has 64. Weights go straight to registers, UNROLL units
// ahead, past the end of one set of outputs into the next.
//
// Sums travel as tiles of 16 outputs by 8 columns, the way tensor cores leave them in the registers
// of a warp: tile i of a set is finished by block i % CLUSTER, to which all others send their part.

constexpr int TEAM = 128 * GROUPS_N;
constexpr int THREADS = TEAM * GROUPS_K;
constexpr int WARPS = THREADS / 32;
constexpr int OUTPUTS = 64 * GROUPS_N;
constexpr int BLOCK = COLUMNS * 128;  // bytes of 128 inputs of all columns
constexpr int COLUMN_GROUPS = COLUMNS / 8;
constexpr int PARTS = CLUSTER * GROUPS_K;  // of each sum
constexpr int TILES = OUTPUTS / 16 * COLUMN_GROUPS / CLUSTER;  // of a set that a block finishes
constexpr int TILES_A_WARP = (TILES + WARPS - 1) / WARPS;
constexpr int TILE_BYTES = 32 * sizeof(Words);
constexpr int INBOX = TILES * PARTS * TILE_BYTES;

// Where 16 bytes of a column are, `piece` along K.
__device__ __forceinline__ uint32_t piece_at(uint32_t base, int column, int piece) {
    return base + piece / 8 * BLOCK + column * 128 + ((piece % 8 ^ column % 8) << 4);
}

// Copies up to UNROLL units of all rows, by a team: those from input `from` on to unit `to` of the
// block's; zeros beyond k. Where `aligned`, the copies are to be waited for.
__device__ __forceinline__ void fill(uint32_t base, int to, int count, const int8_t* x, int rows,
                                     int k, int from, bool aligned) {
    constexpr int PIECES_A_ROW = UNROLL * UNIT / 16;
    const int thread = threadIdx.x % TEAM;
    if (aligned) {
#pragma unroll 4
        for (int i = thread; i < rows * PIECES_A_ROW; i += TEAM) {
            const int r = i / PIECES_A_ROW, piece = i % PIECES_A_ROW;
            if (piece >= count * (UNIT / 16)) continue;
            const int input = from + piece * 16;
            const int8_t* source = x + (size_t)r * k + (input < k ? input : 0);
            copy_16_async(piece_at(base, r, to * (UNIT / 16) + piece), source, input < k ? 16 : 0);
        }
    } else {
        for (int i = thread; i < rows * count * UNIT; i += TEAM) {
            const int r = i / (count * UNIT), j = i % (count * UNIT);
            const int8_t v = from + j < k ? x[(size_t)r * k + from + j] : 0;
            const int place = to * UNIT + j;
            store_shared_8(piece_at(base, r, place / 16) + place % 16, (uint8_t)v);
        }
    }
}

// The barrier of a team's warps.
__device__ __forceinline__ void sync_team(int team) {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + team), "n"(TEAM) : "memory");
}

// Of the same parameters as `product_of_few`. Grid: (CLUSTER, sets of outputs or fewer); dynamic
// shared memory: 1,024 bytes to align with, BLOCK for each two units of a block's part of K, and
// INBOX, twice where clusters have more than one set.
extern "C" __global__ void __launch_bounds__(THREADS, THREADS > 256 ? 1 : 2) CLUSTERED
    product_of_many(const int8_t* x, const float* x_scale, const Words* weights,
                    const float* w_scale, const T* bias, const T* residual, Outputs outputs,
                    int rows, int k, int n, int units, int block_size) {
    extern __shared__ Words shared[];
    const uint32_t base = (shared_address(shared) + 1023) / 1024 * 1024;
    // Before one writes to another, both must be there.
    blocks_arrive_relaxed();

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, t = lane % 4;
    const int group_n = warp / 4 % GROUPS_N, group_k = warp / 4 / GROUPS_N;
    const int rank = rank_in_cluster();
    const int of_block = (units + CLUSTER - 1) / CLUSTER;
    const int begin = min(rank * of_block, units), size = min(of_block, units - begin);
    // This team's units of the block's.
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
    if (lane == 0 && count > UNROLL) {
        bring_to_cache(batch + UNROLL * UNIT_WORDS, (count - UNROLL) * UNIT_WORDS * sizeof(Words));
    }

    let_next_kernel_start();
    wait_for_previous_kernel();

    const bool aligned = k % 16 == 0 && (uint64_t)x % 16 == 0;
    for (int start = 0; start < share; start += UNROLL) {
        const int now = min(UNROLL, count - start);
        if (now > 0) {
            fill(base, mine + start, now, x, rows, k, (begin + mine + start) * UNIT, aligned);
        }
        commit_copies();
    }

    uint32_t inbox = base + (of_block + 1) / 2 * BLOCK, other_inbox = inbox + INBOX;
    const Epilogue epilogue = {w_scale, bias, residual};
    for (int set = blockIdx.y; set < n_sets; set += gridDim.y) {
        // The tiles that this warp finishes: one in WARPS of the block's.
        auto tile_of = [&](int i) { return (warp + i * WARPS) * CLUSTER + rank; };
        auto output_of = [&](int i) { return set * OUTPUTS + tile_of(i) / COLUMN_GROUPS * 16 + g; };
        auto row_of = [&](int i) { return tile_of(i) % COLUMN_GROUPS * 8 + 2 * t; };
        Epilogue::Constants constants[TILES_A_WARP][2];
#pragma unroll
        for (int i = 0; i < TILES_A_WARP; ++i) {
            constants[i][0] = epilogue.constants(output_of(i), n);
            constants[i][1] = epilogue.constants(output_of(i) + 8, n);
        }

        int sums[COLUMNS / 2] = {};
        Codes::Weights a[2];
        for (int start = 0; start < share; start += UNROLL) {
            int next_set = set, next = start + UNROLL;
            batch += UNROLL * UNIT_WORDS;
            if (next >= share) {
                next_set = set + gridDim.y, next = 0;
                batch = weights_of(next_set);
            }
            if (set == blockIdx.y) {
                wait_for_copies((share - 1 - start) / UNROLL);
                // What threads wrote, for the tensor cores to read.
                asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
                sync_team(group_k);
            }
            const int n_next = next_set < n_sets ? count - next : 0;
            const bool whole = n_next >= UNROLL;
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                a[u % 2] = Codes::unpack(w[u]);
                load(u, batch, whole ? UNROLL : n_next);
                // Beyond the share weights are zeros, and any activations will do.
                const int unit = min(mine + max(min(start + u, count - 1), 0), of_block - 1);
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

        // What finishing needs beside the sums.
        float scale[TILES_A_WARP][2], added[TILES_A_WARP][4];
#pragma unroll
        for (int i = 0; i < TILES_A_WARP; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int r = row_of(i) + j % 2, output = output_of(i) + j / 2 * 8;
                const bool is_row = r < rows && (TILES % WARPS == 0 || warp + i * WARPS < TILES);
                if (j < 2) scale[i][j] = is_row ? x_scale[r] : 0.0f;
                added[i][j] = is_row ? epilogue.residual_at(r, output, n) : 0.0f;
            }
        }
        wgmma_wait<0>();
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; ++i) asm volatile("" : "+r"(sums[i])::"memory");

        if (set == blockIdx.y) blocks_wait();
#pragma unroll
        for (int c = 0; c < COLUMN_GROUPS; ++c) {
            const int tile = my_tile * COLUMN_GROUPS + c, part = rank * GROUPS_K + group_k;
            const uint32_t at = inbox + (tile / CLUSTER * PARTS + part) * TILE_BYTES + lane * 16;
            const Words v = {(uint32_t)sums[4 * c], (uint32_t)sums[4 * c + 1],
                             (uint32_t)sums[4 * c + 2], (uint32_t)sums[4 * c + 3]};
            if (c * 8 < rows) store_to_cluster(at, tile % CLUSTER, v);
        }
        // One barrier a set: who writes to an inbox has met those who read it at the next one.
        blocks_arrive();
        blocks_wait();
#pragma unroll
        for (int i = 0; i < TILES_A_WARP; ++i) {
            if (TILES % WARPS != 0 && warp + i * WARPS >= TILES) continue;
            const uint32_t at = inbox + (warp + i * WARPS) * PARTS * TILE_BYTES + lane * 16;
            int sum[4] = {};
#pragma unroll
            for (int part = 0; part < PARTS; ++part) {
                const Words v = load_shared(at + part * TILE_BYTES);
                sum[0] += (int)v.x, sum[1] += (int)v.y;
                sum[2] += (int)v.z, sum[3] += (int)v.w;
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int r = row_of(i) + j % 2, output = output_of(i) + j / 2 * 8;
                if (r < rows && output < n) {
                    *output_at(outputs, r, output) = epilogue.finish(
                        (float)sum[j], constants[i][j / 2], scale[i][j % 2], added[i][j]);
                }
            }
        }
        const uint32_t used = inbox;
        inbox = other_inbox, other_inbox = used;
    }
}
