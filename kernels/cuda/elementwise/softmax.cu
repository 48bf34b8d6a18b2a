// ONNX's Softmax and LogSoftmax over lines of n elements of A, `step` apart.
#include "lanes.cuh"

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
