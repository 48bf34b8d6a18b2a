// ONNX's Range, elements of type A.
#include "numbers.cuh"

/// y[i] = start + i * delta; both are pointers to one element.
extern "C" __global__ void range(const A *start, const A *delta, A *y, uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    typedef Number<A>::Wide Wide;
    y[i] = Number<A>::write(Number<A>::read(*start) + (Wide)i * Number<A>::read(*delta));
}
