// out = x · W (+ bias) (+ residual) for so few rows that reading W is all the time: activations
// fill at most the 8 columns of a tensor-core product.
//
// A block has 16 outputs at a time, of which each warp adds up its own part of K: of activations it
// needs that part alone, and keeps it in shared memory for all outputs. Weights are on their way
// UNROLL units ahead, past the end of one set of outputs into the next; the first ones, which don't
// depend on the kernel before, are asked for before this one waits for that, and what follows them of
// the first set is brought to the cache meanwhile.

// x [rows, k] (int8 codes with x_scale [rows], or floats), weights packed, w_scale [n] or
// [k / block_size, n], bias [n]?, residual [rows, n]?; `units` is the padded k in units.
// Grid: at most outputs / 16; dynamic shared memory: columns · (padded k · bytes + padding), then two
// buffers of partial sums, [warp][column][RED].
extern "C" __global__ void __launch_bounds__(32 * WARPS)
    product_of_few(const Activation::Element* x, const float* x_scale, const Words* weights,
                   const float* w_scale, const T* bias, const T* residual, Outputs outputs,
                   int rows, int k, int n, int units, int block_size) {
    using A = Activation;
    constexpr int RED = 20;  // words a column of partial sums: no bank conflicts
    extern __shared__ Words columns[];

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, t = lane % 4;
    const int n_tiles = (n + 15) / 16;
    const int share = (units + WARPS - 1) / WARPS, begin = min(warp * share, units);
    const int count = min(share, units - begin);

    // Units begin..begin + count of tile after tile, UNROLL at a time.
    constexpr int UNIT_WORDS = PIECES * 32;
    weights += (size_t)begin * UNIT_WORDS + lane;
    const Groups groups(w_scale, k, n, block_size);
    Words w[UNROLL][PIECES];
    GroupScales scales[UNROLL];
    auto load = [&](int u, const Words* batch, int tile, int start) {
#pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
            w[u][piece] = load_once(batch + u * UNIT_WORDS + piece * 32);
        }
        scales[u].load(groups, begin + start + u, tile * 16 + g);
    };
    const size_t tile_words = (size_t)units * UNIT_WORDS;
    const Words* batch = weights + blockIdx.x * tile_words;
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
        if (u < count) load(u, batch, blockIdx.x, 0);
    }

    if (lane == 0 && count > UNROLL) {
        bring_to_cache(batch + UNROLL * UNIT_WORDS, (count - UNROLL) * UNIT_WORDS * sizeof(Words));
    }

    // Each of the first threads finishes an output of each tile.
    const int row = threadIdx.x / 16;
    const Epilogue epilogue = {w_scale, bias, residual};
    Epilogue::Constants constants = epilogue.constants(blockIdx.x * 16 + threadIdx.x % 16, n);

    let_next_kernel_start();
    wait_for_previous_kernel();

    const int stride = units * UNIT * A::BYTES + A::PADDING;
    const bool aligned = k * A::BYTES % 16 == 0 && (uint64_t)x % 16 == 0;
    const uint32_t mine = shared_address(columns) + begin * (UNIT * A::BYTES);
    fill_by_warp(mine, stride, x, rows, k, begin * UNIT, count * UNIT, aligned, lane);
    commit_copies();
    const float scale_of_row = !WEIGHT_ONLY && row < rows ? x_scale[row] : 1.0f;
    wait_for_copies<0>();
    __syncwarp();

    const int n_columns = rows * A::COLUMNS_A_ROW, n_partial = n_columns * RED;
    Total* partial = (Total*)((char*)columns + n_columns * stride);
    Total* other = partial + WARPS * n_partial;
    uint32_t at = mine + A::lane_offset(lane, stride, n_columns - 1);
    keep(at);
    for (int tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
        const int output = tile * 16 + threadIdx.x % 16;
        const float added = row < rows ? epilogue.residual_at(row, output, n) : 0.0f;
        Total sums[2][1][1][4] = {};
        auto multiply = [&](int u, int start) {
            const A::Weights a[1] = {A::unpack(w[u])};
            const A::Fragment f[1] = {A::load(at + (start + u) * (UNIT * A::BYTES))};
            const GroupScales scale[1] = {scales[u]};
            add_unit<1, 1, 2>(sums, a, f, scale);
        };
        for (int start = 0; start < share; start += UNROLL) {
            // What is to be read after this batch: the next one of the tile, or of the next tile.
            int next_tile = tile, next = start + UNROLL;
            batch += UNROLL * UNIT_WORDS;
            if (next >= share) {
                next_tile = tile + gridDim.x, next = 0;
                batch = weights + next_tile * tile_words;
            }
            const int n_next = next_tile < n_tiles ? count - next : 0;
            if (count - start >= UNROLL && n_next >= UNROLL) {
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) {
                    multiply(u, start);
                    load(u, batch, next_tile, next);
                }
            } else {
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) {
                    if (u < count - start) multiply(u, start);
                    if (u < n_next) load(u, batch, next_tile, next);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int column = 2 * t + i % 2;
            if (column < n_columns) {
                partial[warp * n_partial + column * RED + g + i / 2 * 8] =
                    sums[0][0][0][i] + sums[1][0][0][i];
            }
        }
        // One barrier a tile: who overwrites a buffer has met those who read it at the next one.
        __syncthreads();
        const Total* of_warps = partial;
        partial = other, other = (Total*)of_warps;
        if (row >= rows) continue;
        Total sum = 0;
#pragma unroll
        for (int part = 0; part < A::COLUMNS_A_ROW; ++part) {
            const int from = (row * A::COLUMNS_A_ROW + part) * RED + threadIdx.x % 16;
#pragma unroll
            for (int i = 0; i < WARPS; ++i) sum += of_warps[i * n_partial + from];
        }
        if (output < n) {
            *output_at(outputs, row, output) =
                epilogue.finish((float)sum, constants, scale_of_row, added);
        }
        constants = epilogue.constants(output + gridDim.x * 16, n);
    }
}
