// ONNX's Softmax and LogSoftmax over lines of n elements of A, `step` apart.
#include "lanes.cuh"
#include "walk.cuh"

#define V (16 / (int)sizeof(A))
/// Stretches of 16 bytes that a thread keeps in registers.
#define HELD 4

/// Line `line` of x and y [outer, n, step]; LANES threads for a line.
template <int LANES>
static __device__ void softmax_line(const A *x, A *y, uint32_t line, uint32_t lane, uint32_t n, uint32_t step,
                                    int is_log) {
    uint64_t start = (uint64_t)(line / step) * n * step + line % step;
    float largest = -INFINITY_F;
    for (uint32_t i = lane; i < n; i += LANES)
        largest = fmaxf(largest, to_f32(x[start + (uint64_t)i * step]));
    largest = over_lanes<LANES>(largest, Largest());
    float sum = 0.0f;
    for (uint32_t i = lane; i < n; i += LANES) sum += expf(to_f32(x[start + (uint64_t)i * step]) - largest);
    sum = over_lanes<LANES>(sum, Sum());
    float log_sum = logf(sum), inverse = 1.0f / sum;
    for (uint32_t i = lane; i < n; i += LANES) {
        uint64_t at = start + (uint64_t)i * step;
        float value = to_f32(x[at]) - largest;
        y[at] = from_f32<A>(is_log ? value - log_sum : expf(value) * inverse);
    }
}

/// A dense row for each THREADS threads, kept in registers: n a multiple of 16 bytes, at most HELD of
/// them for each thread, x and y aligned to 16 bytes.
template <int THREADS>
static __device__ void softmax_row(const A *x, A *y, uint32_t lane, uint32_t n, int is_log) {
    uint32_t packs = n / V;
    float values[HELD][V];
    float largest = -INFINITY_F, sum = 0.0f;
#pragma unroll
    for (int c = 0; c < HELD; c++) {
        if (c * THREADS + lane >= packs) break;
        Pack<A, V> pack = load_pack<A, V>(x + (c * THREADS + lane) * V);
#pragma unroll
        for (int k = 0; k < V; k++) {
            values[c][k] = to_f32(pack.values[k]);
            largest = Largest()(largest, values[c][k]);
        }
    }
    largest = over_lanes<THREADS>(largest, Largest());
#pragma unroll
    for (int c = 0; c < HELD; c++) {
        if (c * THREADS + lane >= packs) break;
#pragma unroll
        for (int k = 0; k < V; k++) {
            values[c][k] -= largest;
            float power = __expf(values[c][k]);
            sum += power;
            if (!is_log) values[c][k] = power;
        }
    }
    sum = over_lanes<THREADS>(sum, Sum());
    float inverse = 1.0f / sum, log_sum = logf(sum);
#pragma unroll
    for (int c = 0; c < HELD; c++) {
        if (c * THREADS + lane >= packs) break;
        Pack<A, V> pack;
#pragma unroll
        for (int k = 0; k < V; k++)
            pack.values[k] = from_f32<A>(is_log ? values[c][k] - log_sum : values[c][k] * inverse);
        store_pack<A, V>(y + (c * THREADS + lane) * V, pack);
    }
}

extern "C" __global__ void __launch_bounds__(256)
    softmax_row_warp(const A *x, A *y, uint32_t lines, uint32_t n, uint32_t step, int is_log) {
    begin();
    uint32_t line = blockIdx.x * 8 + threadIdx.x / 32;
    uint64_t start = (uint64_t)line * n;
    if (line < lines) softmax_row<32>(x + start, y + start, threadIdx.x % 32, n, is_log);
}

extern "C" __global__ void __launch_bounds__(256)
    softmax_row_block(const A *x, A *y, uint32_t lines, uint32_t n, uint32_t step, int is_log) {
    begin();
    uint64_t start = (uint64_t)blockIdx.x * n;
    softmax_row<256>(x + start, y + start, threadIdx.x, n, is_log);
}

extern "C" __global__ void __launch_bounds__(1024)
    softmax_row_wide(const A *x, A *y, uint32_t lines, uint32_t n, uint32_t step, int is_log) {
    begin();
    uint64_t start = (uint64_t)blockIdx.x * n;
    softmax_row<1024>(x + start, y + start, threadIdx.x, n, is_log);
}

/// A block for each line.
extern "C" __global__ void __launch_bounds__(512)
    softmax_block(const A *x, A *y, uint32_t lines, uint32_t n, uint32_t step, int is_log) {
    begin();
    softmax_line<512>(x, y, blockIdx.x, threadIdx.x, n, step, is_log);
}

/// A warp for each short line.
extern "C" __global__ void __launch_bounds__(256)
    softmax_warp(const A *x, A *y, uint32_t lines, uint32_t n, uint32_t step, int is_log) {
    begin();
    uint32_t line = blockIdx.x * 8 + threadIdx.x / 32;
    if (line < lines) softmax_line<32>(x, y, line, threadIdx.x % 32, n, step, is_log);
}

/// A thread for each line, where neighbouring lines lie side by side.
extern "C" __global__ void __launch_bounds__(256)
    softmax_thread(const A *x, A *y, uint32_t lines, uint32_t n, uint32_t step, int is_log) {
    begin();
    uint32_t line = thread_number();
    if (line >= lines) return;
    uint64_t start = (uint64_t)(line / step) * n * step + line % step;
    float largest = -INFINITY_F, sum = 0.0f;
    for (uint32_t i = 0; i < n; i++) largest = fmaxf(largest, to_f32(x[start + (uint64_t)i * step]));
    for (uint32_t i = 0; i < n; i++) sum += expf(to_f32(x[start + (uint64_t)i * step]) - largest);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = start + (uint64_t)i * step;
        float value = to_f32(x[at]) - largest;
        y[at] = from_f32<A>(is_log ? value - logf(sum) : expf(value) / sum);
    }
}
