// out = x · W (+ bias) (+ residual) for up to 8 rows and 16-bit weights [k, n], on tensor cores: 16
// outputs by 8 rows.
//
// Of 16 inputs a lane reads 4t..4t+3, eight outputs 8g.. of each: byte permutations pair the inputs
// of one output, as operand A wants them. Outputs 8g + j and 8g + j + 4 are rows g and g + 8 of the
// j-th product. A block has `width` times eight outputs, so that as many blocks as there are
// multiprocessors have all of them, in TILES tiles of up to 64; its warps share K in turns.

constexpr int UNIT = 16;
constexpr int PADDING = 32;  // bytes after a row of x in shared memory: no bank conflicts

// The outputs of one lane.
struct Lane {
    const T* from[TILES];
    bool has[TILES];
};

struct Unit {
    Words w[TILES][4];

    // The lane's inputs are first..first + 3, of those that W has; it has them `all`.
    __device__ __forceinline__ void load(const Lane& lane, int first, int k, int n, bool all) {
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
            const T* from = lane.from[i] + (size_t)first * n;
            if (all) {
                if (!lane.has[i]) continue;
#pragma unroll
                for (int r = 0; r < 4; ++r, from += n) w[i][r] = load_once(from);
            } else {
#pragma unroll
                for (int r = 0; r < 4; ++r, from += n) {
                    w[i][r] = Words{0, 0, 0, 0};
                    if (lane.has[i] && first + r < k) w[i][r] = load_once(from);
                }
            }
        }
    }

    // Output j of the inputs of two registers' words.
    __device__ __forceinline__ static uint32_t pair(const Words& low, const Words& high, int j) {
        const uint32_t of_low = j / 2 == 0 ? low.x : j / 2 == 1 ? low.y : j / 2 == 2 ? low.z : low.w;
        const uint32_t of_high =
            j / 2 == 0 ? high.x : j / 2 == 1 ? high.y : j / 2 == 2 ? high.z : high.w;
        return __byte_perm(of_low, of_high, j % 2 == 0 ? 0x5410 : 0x7632);
    }

    __device__ __forceinline__ void multiply(float (&sums)[TILES][4][4], uint32_t x) const {
        uint32_t b0, b1;
        asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(b0), "=r"(b1) : "r"(x));
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                mma(sums[i][j], pair(w[i][0], w[i][1], j), pair(w[i][0], w[i][1], j + 4),
                    pair(w[i][2], w[i][3], j), pair(w[i][2], w[i][3], j + 4), b0, b1);
            }
        }
    }
};

// x [rows, k], w [k, n], k and n multiples of 8, both 16-byte aligned. x comes `chunk` inputs at a
// time, a multiple of UNROLL · WARPS · UNIT.
// Dynamic shared memory: rows · (2 · chunk + PADDING) bytes, or f32 [WARPS][rows][TILES · 64 + 4].
extern "C" __global__ void __launch_bounds__(THREADS)
    dense_product(const T* x, const T* w, const T* bias, const T* residual, T* out, int out_stride,
                  int rows, int k, int n, int width, int chunk) {
    constexpr int STEP = WARPS * UNIT, BATCH = STEP * UNROLL;
    extern __shared__ Words shared[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, t = lane % 4, tile_width = (width + TILES - 1) / TILES;
    Lane mine;
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
        const int vector = i * tile_width + g, output = (blockIdx.x * width + vector) * 8;
        mine.has[i] = g < tile_width && vector < width && output < n;
        mine.from[i] = w + (mine.has[i] ? output : 0);
    }

    const int first_k = warp * UNIT + t * 4;
    Unit units[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) units[u].load(mine, first_k + u * STEP, k, n, false);
    let_next_kernel_start();
    wait_for_previous_kernel();

    const int stride = 2 * chunk + PADDING;
    const uint32_t base = shared_address(shared);
    uint32_t at = base + min(g, rows - 1) * stride + first_k * 2;
    keep(at);
    float sums[TILES][4][4] = {};
    for (int start = 0; start < k; start += chunk) {
        const int count = min(chunk, (k - start + UNIT - 1) / UNIT * UNIT);
        if (start > 0) __syncthreads();
        fill<THREADS>(base, stride, x, rows, k, start, count, threadIdx.x);
        __syncthreads();
        for (int i = warp * UNIT; i < count; i += BATCH) {
            const int next = start + i + BATCH;
            const bool all = next + (UNROLL - 1) * STEP + UNIT <= k;
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                // Weights beyond k are zeros, and so must be what they are multiplied by.
                const int ahead = i - warp * UNIT + u * STEP;
                if (i + u * STEP < count) units[u].multiply(sums, at + ahead * 2);
                units[u].load(mine, next + u * STEP + t * 4, k, n, all);
            }
        }
    }

    // [warp][row][tile, j, g]: neighbouring lanes in neighbouring banks.
    constexpr int ROW = TILES * 64 + 4;
    float* partial = (float*)shared;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int r = 2 * t + c % 2;
                if (r < rows) {
                    partial[(warp * rows + r) * ROW + i * 64 + (j + c / 2 * 4) * 8 + g] = sums[i][j][c];
                }
            }
        }
    }
    __syncthreads();
    for (int item = threadIdx.x; item < rows * width * 8; item += THREADS) {
        const int r = item / (width * 8), output = item % (width * 8), vector = output / 8;
        const int from = vector / tile_width * 64 + output % 8 * 8 + vector % tile_width;
        const int to = blockIdx.x * width * 8 + output;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < WARPS; ++i) sum += partial[(i * rows + r) * ROW + from];
        if (to < n) {
            if (bias) sum += to_f32(bias[to]);
            if (residual) sum += to_f32(residual[(size_t)r * n + to]);
            out[(size_t)r * out_stride + to] = from_f32<T>(sum);
        }
    }
}
