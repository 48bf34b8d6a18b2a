// ONNX's Where, on elements of W bytes.
#include "walk.cuh"

typedef Word<W>::Type Bits;
#define V (16 / W)

template <int N>
static __device__ void pick(const bool_t *c, const Bits *x, const Bits *z, Bits *y, uint32_t i,
                            const Walk<3> &walk) {
    int64_t at[3];
    locate(walk, i, at);
    Pack<bool_t, N> truths = load_operand<bool_t, N>(c + at[0], walk.steps[0][0]);
    Pack<Bits, N> first = load_operand<Bits, N>(x + at[1], walk.steps[1][0]);
    Pack<Bits, N> second = load_operand<Bits, N>(z + at[2], walk.steps[2][0]);
#pragma unroll
    for (int k = 0; k < N; k++)
        if (!truths.values[k].bits) first.values[k] = second.values[k];
    store_pack<Bits, N>(y + (uint64_t)i * N, first);
}

/// y[i] = c ? x : z for `n` elements; c, x and z lie as `walk` says, y is dense.
extern "C" __global__ void select_scalar(const bool_t *c, const Bits *x, const Bits *z, Bits *y, uint32_t n,
                                         const Walk<3> walk) {
    begin();
    uint32_t i = thread_number();
    if (i < n) pick<1>(c, x, z, y, i, walk);
}

/// The same for `n` stretches of 16 bytes, as in binary.cu.
extern "C" __global__ void select_vector(const bool_t *c, const Bits *x, const Bits *z, Bits *y, uint32_t n,
                                         const Walk<3> walk) {
    begin();
    uint32_t i = thread_number();
    if (i < n) pick<V>(c, x, z, y, i, walk);
}
