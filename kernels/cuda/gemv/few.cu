// out = x · W (+ bias) (+ residual) for so few rows that reading W is all the time: activations
// fill at most the 8 columns of a tensor-core product.
//
// A block has 16 outputs and all of K, which its warps share in turns, so the weights of a block are
// one run of memory. They don't depend on the kernel before: the first ones are on their way to
// registers before this one waits for that.

template <int N>
__device__ __forceinline__ void load_unit(Words (&w)[N], const Words* weights, int unit) {
#pragma unroll
    for (int piece = 0; piece < N; ++piece) {
        w[piece] = load_once(weights + (size_t)(unit * N + piece) * 32);
    }
}

// x [rows, k] (int8 codes with x_scale [rows], or floats), weights packed, w_scale [n] or
// [k / block_size, n], bias [n]?, residual [rows, n]?; `units` is the padded k in units.
// Grid: outputs / 16; dynamic shared memory: columns · (padded k · bytes + padding).
extern "C" __global__ void __launch_bounds__(32 * WARPS)
    product_of_few(const Activation::Element* x, const float* x_scale, const Words* weights,
                   const float* w_scale, const T* bias, const T* residual, Outputs outputs,
                   int rows, int k, int n, int units, int block_size) {
    using A = Activation;
    constexpr int RED = 20;  // words a column of partial sums: no bank conflicts
    extern __shared__ Words columns[];
    __shared__ Total partial[WARPS][8 * RED];

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, t = lane % 4, first = blockIdx.x * 16;
    weights += (size_t)blockIdx.x * units * PIECES * 32 + lane;

    Words w[UNROLL][PIECES];
    GroupScales scales[UNROLL];
    auto load = [&](int u, int unit) {
        if (unit < units) {
            load_unit(w[u], weights, unit);
            scales[u].load(w_scale, unit, block_size, n, n - 1, first + g, first + g + 8);
        }
    };
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) load(u, warp + u * WARPS);

    const Epilogue epilogue = {x_scale, w_scale, bias, residual};
    const int my_n = first + threadIdx.x % 16;
    const float factor = my_n < n ? epilogue.weight_factor(my_n) : 0.0f;

    let_next_kernel_start();
    wait_for_previous_kernel();

    const int stride = units * UNIT * A::BYTES + A::PADDING;
    const bool aligned = k * A::BYTES % 16 == 0 && (uint64_t)x % 16 == 0;
    const uint32_t base = shared_address(columns);
    fill_columns<32 * WARPS>(base, stride, x, rows, k, 0, units * UNIT, aligned);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();

    const int n_columns = rows * A::COLUMNS_A_ROW;
    const uint32_t mine = base + A::lane_offset(lane, stride, n_columns - 1);
    Sums<2> sums;
    for (int start = warp; start < units; start += WARPS * UNROLL) {
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) {
            const int unit = start + u * WARPS;
            if (unit < units) {
                const auto a = A::unpack(w[u]);
                const GroupScales scale = scales[u];
                load(u, unit + WARPS * UNROLL);
                sums.add(a, A::load(mine + unit * (UNIT * A::BYTES)), scale);
            }
        }
    }

#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int column = 2 * t + i % 2;
        if (column < n_columns) partial[warp][column * RED + g + i / 2 * 8] = sums.total(i);
    }
    __syncthreads();
    if (my_n >= n) return;
    for (int r = threadIdx.x / 16; r < rows; r += 2 * WARPS) {
        Total sum = 0;
#pragma unroll
        for (int part = 0; part < A::COLUMNS_A_ROW; ++part) {
            const int at = (r * A::COLUMNS_A_ROW + part) * RED + threadIdx.x % 16;
#pragma unroll
            for (int i = 0; i < WARPS; ++i) sum += partial[i][at];
        }
        *output_at(outputs, r, my_n) = epilogue.finish((float)sum, factor, r, my_n, n);
    }
}
