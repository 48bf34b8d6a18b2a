// out = x · W (+ bias) (+ residual) for few rows and dense weights of x's own type: a dot product
// or a sum of scaled rows, in f32, at the pace of memory.
//
// VECTOR weights a load: 16 bytes of them, or one where rows of W don't start at such multiples.
// ROWS (1, 2, 4 or 8) is at least the number of rows.

constexpr int THREADS = 32 * WARPS;

struct Vector {
#if VECTOR == 1
    T value;
    __device__ __forceinline__ void load(const T* p) { value = *p; }
    __device__ __forceinline__ float get(int) const { return to_f32(value); }
#else
    static_assert(VECTOR * sizeof(T) == 16, "16 bytes a load");
    union {
        Words words;
        T values[VECTOR];
    };
    __device__ __forceinline__ void load(const T* p) { words = load_once(p); }
    __device__ __forceinline__ float get(int i) const { return to_f32(values[i]); }
#endif
    __device__ __forceinline__ Vector() {}
};

__device__ __forceinline__ void finish(float sum, int r, int n, int n_all, const T* bias,
                                       const T* residual, T* out, int out_stride) {
    if (bias) sum += to_f32(bias[n]);
    if (residual) sum += to_f32(residual[(size_t)r * n_all + n]);
    out[(size_t)r * out_stride + n] = from_f32<T>(sum);
}

// Inputs from..from + count of all rows as f32 in shared memory, [input][row].
__device__ __forceinline__ void fill(float* to, const T* x, int rows, int k, int from, int count) {
    for (int r = 0; r < ROWS; ++r) {
        for (int i = threadIdx.x; i < count; i += THREADS) {
            to[i * ROWS + r] = r < rows && from + i < k ? to_f32(x[(size_t)r * k + from + i]) : 0.0f;
        }
    }
}

// x [rows, k], w [k, n]. A block has LANES_N · VECTOR outputs; the other lanes of its warps, and the
// warps, share K, a CHUNK of inputs at a time.
// Dynamic shared memory: f32 [max(CHUNK, WARPS · LANES_N · VECTOR)][ROWS].
extern "C" __global__ void __launch_bounds__(THREADS)
    dense_product(const T* x, const T* w, const T* bias, const T* residual, T* out, int out_stride,
                  int rows, int k, int n) {
    constexpr int LANES_K = 32 / LANES_N, STEP = LANES_K * WARPS;
    extern __shared__ float shared[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int lane_n = lane % LANES_N, first_k = warp * LANES_K + lane / LANES_N;
    const int first = (blockIdx.x * LANES_N + lane_n) * VECTOR;
    w += min(first, n - VECTOR);

    Vector v[UNROLL];
    auto load = [&](int u, int i) {
        if (i < k) v[u].load(w + (size_t)i * n);
    };
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) load(u, first_k + u * STEP);
    let_next_kernel_start();
    wait_for_previous_kernel();

    float sums[ROWS][VECTOR] = {};
    for (int chunk = 0; chunk < k; chunk += CHUNK) {
        if (chunk > 0) __syncthreads();
        fill(shared, x, rows, k, chunk, min(CHUNK, k - chunk));
        __syncthreads();
        for (int i = chunk + first_k; i < min(chunk + CHUNK, k); i += STEP * UNROLL) {
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int at = i + u * STEP;
                if (at >= k) break;
                const Vector now = v[u];
                load(u, at + STEP * UNROLL);
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    const float a = shared[(at - chunk) * ROWS + r];
#pragma unroll
                    for (int j = 0; j < VECTOR; ++j) sums[r][j] += a * now.get(j);
                }
            }
        }
    }

    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int j = 0; j < VECTOR; ++j) {
            float sum = sums[r][j];
#pragma unroll
            for (int d = LANES_N; d < 32; d *= 2) sum += __shfl_xor_sync(~0u, sum, d);
            if (lane < LANES_N) shared[((warp * LANES_N + lane_n) * VECTOR + j) * ROWS + r] = sum;
        }
    }
    __syncthreads();
    constexpr int OUTPUTS = LANES_N * VECTOR;
    for (int i = threadIdx.x; i < OUTPUTS * rows; i += THREADS) {
        const int output = i % OUTPUTS, r = i / OUTPUTS, to = blockIdx.x * OUTPUTS + output;
        float sum = 0.0f;
        for (int part = 0; part < WARPS; ++part) {
            sum += shared[(part * OUTPUTS + output) * ROWS + r];
        }
        if (to < n) finish(sum, r, to, n, bias, residual, out, out_stride);
    }
}

// x [rows, k], w [n, k]. A warp has OUTPUTS_A_WARP outputs.
// Dynamic shared memory: f32 [CHUNK][ROWS].
extern "C" __global__ void __launch_bounds__(THREADS)
    dense_product_transposed(const T* x, const T* w, const T* bias, const T* residual, T* out,
                             int out_stride, int rows, int k, int n) {
    constexpr int STEP = 32 * VECTOR;
    extern __shared__ float shared[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int first = (blockIdx.x * WARPS + warp) * OUTPUTS_A_WARP;

    Vector v[UNROLL][OUTPUTS_A_WARP];
    auto load = [&](int u, int i) {
        if (i >= k) return;
#pragma unroll
        for (int j = 0; j < OUTPUTS_A_WARP; ++j) {
            v[u][j].load(w + (size_t)min(first + j, n - 1) * k + i);
        }
    };
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) load(u, lane * VECTOR + u * STEP);
    let_next_kernel_start();
    wait_for_previous_kernel();

    float sums[ROWS][OUTPUTS_A_WARP] = {};
    for (int chunk = 0; chunk < k; chunk += CHUNK) {
        if (chunk > 0) __syncthreads();
        fill(shared, x, rows, k, chunk, min(CHUNK, k - chunk));
        __syncthreads();
        for (int i = chunk + lane * VECTOR; i < min(chunk + CHUNK, k); i += STEP * UNROLL) {
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int at = i + u * STEP;
                if (at >= k) break;
                Vector now[OUTPUTS_A_WARP];
#pragma unroll
                for (int j = 0; j < OUTPUTS_A_WARP; ++j) now[j] = v[u][j];
                load(u, at + STEP * UNROLL);
#pragma unroll
                for (int e = 0; e < VECTOR; ++e) {
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const float a = shared[(at - chunk + e) * ROWS + r];
#pragma unroll
                        for (int j = 0; j < OUTPUTS_A_WARP; ++j) sums[r][j] += a * now[j].get(e);
                    }
                }
            }
        }
    }
#pragma unroll
    for (int j = 0; j < OUTPUTS_A_WARP; ++j) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const float sum = warp_sum(sums[r][j]);
            if (lane == 0 && r < rows && first + j < n) {
                finish(sum, r, first + j, n, bias, residual, out, out_stride);
            }
        }
    }
}
