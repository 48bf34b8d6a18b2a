// out = x · Wᵀ (+ bias) (+ residual) for up to 8 rows and 16-bit weights [n, k], on tensor cores:
// 16 outputs by 8 rows. A lane's 16 bytes of a row of W are 8 inputs in a row, and those of x too:
// a product does not mind which inputs its steps pair.

constexpr int UNIT = 64;
constexpr int PADDING = 64;  // bytes after a row of x in shared memory: no bank conflicts

// 64 inputs of outputs g and g + 8; inputs beyond k are zeros.
struct Unit {
    Words w[2][2];

    // The same where nothing is beyond k; `at` of both rows.
    __device__ __forceinline__ void load_whole(const T* row0, const T* row1) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            w[half][0] = load_once(row0 + half * 32);
            w[half][1] = load_once(row1 + half * 32);
        }
    }

    __device__ __forceinline__ void load(const T* row0, const T* row1, int at, int k, int t) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int from = at + half * 32 + t * 8;
            if (from < k) {
                w[half][0] = load_once(row0 + from);
                w[half][1] = load_once(row1 + from);
            } else {
                w[half][0] = w[half][1] = Words{0, 0, 0, 0};
            }
        }
    }

    __device__ __forceinline__ void multiply(float (&sums)[2][4], uint32_t x) const {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const Words b = load_shared(x + half * 64);
            mma(sums[0], w[half][0].x, w[half][1].x, w[half][0].y, w[half][1].y, b.x, b.y);
            mma(sums[1], w[half][0].z, w[half][1].z, w[half][0].w, w[half][1].w, b.z, b.w);
        }
    }
};

constexpr int RED = 20;  // words a row of partial sums: no bank conflicts

__device__ __forceinline__ void store_partial(float* to, const float (&sums)[2][4], int rows, int g,
                                              int t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int r = 2 * t + i % 2;
        if (r < rows) to[r * RED + g + i / 2 * 8] = sums[0][i] + sums[1][i];
    }
}

__device__ __forceinline__ void finish(const float* partial, int n_partial, int r, int output,
                                       int n, const T* bias, const T* residual, T* out,
                                       int out_stride) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < WARPS; ++i) sum += partial[i * n_partial + r * RED + output % 16];
    if (bias) sum += to_f32(bias[output]);
    if (residual) sum += to_f32(residual[(size_t)r * n + output]);
    out[(size_t)r * out_stride + output] = from_f32<T>(sum);
}

// x [rows, k], w [n, k], k a multiple of 8, both 16-byte aligned. A block has 16 outputs at a time,
// of which each warp adds up its own part of K; see `product_of_few`, which is built alike.
// Grid: at most outputs / 16; dynamic shared memory: rows · (padded k · 2 + PADDING), then two buffers
// of partial sums, [warp][row][RED].
extern "C" __global__ void __launch_bounds__(THREADS)
    dense_product_transposed(const T* x, const T* w, const T* bias, const T* residual, T* out,
                             int out_stride, int rows, int k, int n) {
    extern __shared__ Words columns[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, t = lane % 4, n_tiles = (n + 15) / 16;
    const int units = (k + UNIT - 1) / UNIT, share = (units + WARPS - 1) / WARPS;
    const int begin = min(warp * share, units), count = min(share, units - begin);
    const bool whole = (begin + count) * UNIT <= k;

    Unit w_units[UNROLL];
    auto load = [&](int u, int tile, int i) {
        if (i >= count || tile >= n_tiles) return;
        const T* row0 = w + (size_t)min(tile * 16 + g, n - 1) * k;
        const T* row1 = w + (size_t)min(tile * 16 + g + 8, n - 1) * k;
        w_units[u].load(row0, row1, (begin + i) * UNIT, k, t);
    };
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) load(u, blockIdx.x, u);
    let_next_kernel_start();
    wait_for_previous_kernel();

    const int stride = units * UNIT * 2 + PADDING;
    const uint32_t mine = shared_address(columns) + begin * (UNIT * 2);
    fill<32>(mine, stride, x, rows, k, begin * UNIT, count * UNIT, lane);
    __syncwarp();
    uint32_t at = mine + min(g, rows - 1) * stride + t * 16;
    keep(at);
    const int n_partial = rows * RED;
    float* partial = (float*)((char*)columns + rows * stride);
    float* other = partial + WARPS * n_partial;
    for (int tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
        float sums[2][4] = {};
        for (int start = 0; start < share; start += UNROLL) {
            // What is to be read after this batch: the next one of the tile, or of the next tile.
            const bool wrap = start + UNROLL >= share;
            const int next_tile = wrap ? tile + gridDim.x : tile, next = wrap ? 0 : start + UNROLL;
            const int n_next = next_tile < n_tiles ? count - next : 0;
            if (count - start >= UNROLL && n_next >= UNROLL && whole) {
                const size_t from = (size_t)(begin + next) * UNIT + t * 8;
                const T* row0 = w + (size_t)min(next_tile * 16 + g, n - 1) * k + from;
                const T* row1 = w + (size_t)min(next_tile * 16 + g + 8, n - 1) * k + from;
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) {
                    w_units[u].multiply(sums, at + (start + u) * (UNIT * 2));
                    w_units[u].load_whole(row0 + u * UNIT, row1 + u * UNIT);
                }
            } else {
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) {
                    if (start + u < count) w_units[u].multiply(sums, at + (start + u) * (UNIT * 2));
                    load(u, next_tile, next + u);
                }
            }
        }
        store_partial(partial + warp * n_partial, sums, rows, g, t);
        __syncthreads();
        const int r = threadIdx.x / 16, output = tile * 16 + threadIdx.x % 16;
        if (r < rows && output < n) {
            finish(partial, n_partial, r, output, n, bias, residual, out, out_stride);
        }
        float* const full = partial;
        partial = other, other = full;
    }
}

// The same for rows that don't fit shared memory whole: they come a CHUNK of inputs at a time.
// Grid: outputs / 16; dynamic shared memory: rows · (CHUNK · 2 + PADDING), then one such buffer.
extern "C" __global__ void __launch_bounds__(THREADS)
    dense_product_transposed_in_chunks(const T* x, const T* w, const T* bias, const T* residual,
                                       T* out, int out_stride, int rows, int k, int n) {
    static_assert(CHUNK % (WARPS * UNIT * UNROLL) == 0, "whole steps");
    constexpr int STRIDE = CHUNK * 2 + PADDING;
    extern __shared__ Words columns[];
    const int n_partial = rows * RED;
    float* partial = (float*)((char*)columns + rows * STRIDE);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, t = lane % 4, first = blockIdx.x * 16;
    const T* row0 = w + (size_t)min(first + g, n - 1) * k;
    const T* row1 = w + (size_t)min(first + g + 8, n - 1) * k;

    Unit w_units[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
        w_units[u].load(row0, row1, (warp + u * WARPS) * UNIT, k, t);
    }
    let_next_kernel_start();
    wait_for_previous_kernel();

    const uint32_t base = shared_address(columns), mine = base + min(g, rows - 1) * STRIDE + t * 16;
    float sums[2][4] = {};
    for (int chunk = 0; chunk < k; chunk += CHUNK) {
        const int count = min(CHUNK, (k - chunk + UNIT - 1) / UNIT * UNIT);
        if (chunk > 0) __syncthreads();
        fill<THREADS>(base, STRIDE, x, rows, k, chunk, count, threadIdx.x);
        __syncthreads();
        for (int i = warp * UNIT; i < count; i += WARPS * UNIT * UNROLL) {
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int at = i + u * WARPS * UNIT;
                const Unit now = w_units[u];
                w_units[u].load(row0, row1, chunk + at + WARPS * UNIT * UNROLL, k, t);
                if (at < count) now.multiply(sums, mine + at * 2);
            }
        }
    }
    store_partial(partial + warp * n_partial, sums, rows, g, t);
    __syncthreads();
    const int r = threadIdx.x / 16, output = first + threadIdx.x % 16;
    if (r < rows && output < n) {
        finish(partial, n_partial, r, output, n, bias, residual, out, out_stride);
    }
}
