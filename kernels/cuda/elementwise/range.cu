// ONNX's Range, elements of type A.
#include "numbers.cuh"

/// y[i] = start + i * delta, in integers or f64.
extern "C" __global__ void range(double start, double delta, int64_t whole_start, int64_t whole_delta, A *y,
                                 uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    if constexpr (Number<A>::is_float) y[i] = Number<A>::write((float)(start + i * delta));
    else y[i] = Number<A>::write(whole_start + (int64_t)i * whole_delta);
}
