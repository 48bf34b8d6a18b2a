// Packs the factors P1 and P2 for the tensor cores (the order is in packing.cuh), once for a model.
//
// Definitions: FACTOR_T.

__device__ inline float at(const FACTOR_T *p, int n, int row, int column) {
    return row < n && column < n ? to_f32(p[row * n + column]) : 0.0f;
}

// Word `word` of lane `lane` of P1^T as left operand.
__device__ inline void left_word(const FACTOR_T *p, int n, int i, int word, float &a, float &b) {
    int steps = up_to(n, 16) / 16;
    int lane = i % 32, step = i / 32 % steps, tile = i / 32 / steps;
    int m = tile * 16 + lane / 4 + word % 2 * 8, in = step * 16 + lane % 4 * 2 + word / 2 * 8;
    a = at(p, n, in, m);
    b = at(p, n, in + 1, m);
}

// The same of P2 as right operand.
__device__ inline void right_word(const FACTOR_T *p, int n, int i, int word, float &a, float &b) {
    int np = up_to(n, 16), pairs = np / 16;
    int lane = i % 32, pair = i / 32 % pairs, step = i / 32 / pairs;
    int row = step * 16 + lane % 4 * 2 + word % 2 * 8, column = interleaved(run_of(np), pair * 2 + word / 2, lane / 4);
    a = at(p, n, row, column);
    b = at(p, n, row + 1, column);
}

// p1 [n1, n1] and p2 [n2, n2], row-major; either may be null. A thread makes 16 bytes and their rest.
extern "C" __global__ void pack_factors(const FACTOR_T *p1, const FACTOR_T *p2, int32_t n1, int32_t n2, uint4 *packed) {
    int words1 = p1 ? packed_words(n1) : 0, words2 = p2 ? packed_words(n2) : 0;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    wait_for_previous_kernel();
    let_next_kernel_start();
    if (i >= words1 + words2) return;
    bool left = i < words1;
    uint32_t high[4], low[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float a, b;
        if (left) left_word(p1, n1, i, j, a, b);
        else right_word(p2, n2, i - words1, j, a, b);
        high[j] = pack_f16(a, b);
        low[j] = pack_rest(high[j], a, b);
    }
    uint4 *to = left ? packed + i : packed + 2 * words1 + i - words1;
    to[0] = make_uint4(high[0], high[1], high[2], high[3]);
    to[left ? words1 : words2] = make_uint4(low[0], low[1], low[2], low[3]);
}
