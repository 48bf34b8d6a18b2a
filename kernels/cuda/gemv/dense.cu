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

// ROWS activations of one input.
struct alignas(ROWS == 1 ? 4 : ROWS == 2 ? 8 : 16) Inputs {
    float of_row[ROWS];
};

// Inputs from..from + count of all rows as f32 in shared memory. Rows of x start at multiples of 16
// bytes where `aligned`.
__device__ __forceinline__ void fill(Inputs* to, const T* x, int rows, int k, int from, int count,
                                     bool aligned) {
    constexpr int PIECE = 16 / sizeof(T);
    for (int r = 0; r < ROWS; ++r) {
        const T* row = x + (size_t)r * k + from;
        if (r < rows && aligned) {
#pragma unroll 4
            for (int i = threadIdx.x * PIECE; i < count; i += THREADS * PIECE) {
                T v[PIECE];
                *(Words*)v = *(const Words*)(row + i);
#pragma unroll
                for (int j = 0; j < PIECE; ++j) to[i + j].of_row[r] = to_f32(v[j]);
            }
        } else {
            for (int i = threadIdx.x; i < count; i += THREADS) {
                to[i].of_row[r] = r < rows ? to_f32(row[i]) : 0.0f;
            }
        }
    }
}

// x [rows, k], w [k, n]. A block has `width` vectors of outputs, so that as many blocks as there are
// multiprocessors have all of them, and its threads share K: thread i takes vector i % width of the
// inputs i / width, + step, + 2 · step …
// Dynamic shared memory: Inputs [CHUNK], or THREADS vectors of f32 if that is more.
extern "C" __global__ void __launch_bounds__(THREADS)
    dense_product(const T* x, const T* w, const T* bias, const T* residual, T* out, int out_stride,
                  int rows, int k, int n, int width) {
    extern __shared__ Words shared[];
    Inputs* inputs = (Inputs*)shared;
    const int step = THREADS / width, vector = threadIdx.x % width;
    // Threads beyond a whole number of inputs, and beyond the outputs, have nothing to add.
    const int first = (blockIdx.x * width + vector) * VECTOR;
    const bool idle = threadIdx.x >= step * width || first >= n;
    const int first_k = idle ? k : threadIdx.x / width;
    w += first;

    Vector v[UNROLL];
    auto load = [&](int u, int i) {
        if (i < k) v[u].load(w + (size_t)i * n);
    };
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) load(u, first_k + u * step);
    let_next_kernel_start();
    wait_for_previous_kernel();

    const bool aligned = k * sizeof(T) % 16 == 0 && (uint64_t)x % 16 == 0;
    const int chunk = CHUNK / (step * UNROLL) * (step * UNROLL);
    float sums[ROWS][VECTOR] = {};
    for (int start = 0; start < k; start += chunk) {
        if (start > 0) __syncthreads();
        fill(inputs, x, rows, k, start, min(chunk, k - start), aligned && start % 8 == 0);
        __syncthreads();
        const int end = min(start + chunk, k);
        for (int i = start + first_k; i < end; i += step * UNROLL) {
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int at = i + u * step;
                const Vector now = v[u];
                load(u, at + step * UNROLL);
                if (at < end) {
                    const Inputs a = inputs[at - start];
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                        for (int j = 0; j < VECTOR; ++j) sums[r][j] += a.of_row[r] * now.get(j);
                    }
                }
            }
        }
    }

    // PARTS neighbouring threads add up an output, row by row.
    constexpr int PARTS = 4;
    const int n_outputs = width * VECTOR;
    float* partial = (float*)shared;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (r >= rows) break;
        __syncthreads();
        if (!idle) {
#pragma unroll
            for (int j = 0; j < VECTOR; ++j) partial[threadIdx.x * VECTOR + j] = sums[r][j];
        }
        __syncthreads();
        for (int i = threadIdx.x; i < (n_outputs * PARTS + 31) / 32 * 32; i += THREADS) {
            const int output = i / PARTS, to = blockIdx.x * n_outputs + output;
            float sum = 0.0f;
            if (output < n_outputs && to < n) {
                for (int part = i % PARTS; part < step; part += PARTS) {
                    sum += partial[part * n_outputs + output];
                }
            }
            for (int d = 1; d < PARTS; d *= 2) sum += __shfl_xor_sync(~0u, sum, d);
            if (i % PARTS == 0 && output < n_outputs && to < n) {
                finish(sum, r, to, n, bias, residual, out, out_stride);
            }
        }
    }
}

// x [rows, k], w [n, k]. A warp has OUTPUTS_A_WARP outputs.
// Dynamic shared memory: Inputs [CHUNK].
extern "C" __global__ void __launch_bounds__(THREADS)
    dense_product_transposed(const T* x, const T* w, const T* bias, const T* residual, T* out,
                             int out_stride, int rows, int k, int n) {
    constexpr int STEP = 32 * VECTOR;
    static_assert(CHUNK % (STEP * UNROLL) == 0, "whole steps");
    extern __shared__ Words shared[];
    Inputs* inputs = (Inputs*)shared;
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

    const bool aligned = k * sizeof(T) % 16 == 0 && (uint64_t)x % 16 == 0;
    float sums[ROWS][OUTPUTS_A_WARP] = {};
    for (int chunk = 0; chunk < k; chunk += CHUNK) {
        if (chunk > 0) __syncthreads();
        fill(inputs, x, rows, k, chunk, min(CHUNK, k - chunk), aligned);
        __syncthreads();
        for (int i = chunk + lane * VECTOR; i < min(chunk + CHUNK, k); i += STEP * UNROLL) {
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int at = i + u * STEP;
                if (at >= k) continue;
                Vector now[OUTPUTS_A_WARP];
#pragma unroll
                for (int j = 0; j < OUTPUTS_A_WARP; ++j) now[j] = v[u][j];
                load(u, at + STEP * UNROLL);
#pragma unroll
                for (int e = 0; e < VECTOR; ++e) {
                    const Inputs a = inputs[at - chunk + e];
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                        for (int j = 0; j < OUTPUTS_A_WARP; ++j) {
                            sums[r][j] += a.of_row[r] * now[j].get(e);
                        }
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
