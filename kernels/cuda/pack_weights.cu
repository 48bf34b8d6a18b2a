// Packs the codes of a linear layer into the order of tensor-core operands (weights.rs).
#include "common.cuh"

// One code of an ONNX tensor: INT8, or INT4 with the first element in the low nibble.
__device__ uint32_t code_at(const uint8_t *codes, uint64_t index)
{
#if BITS == 4
    return (codes[index / 2] >> (4 * (index % 2))) & 0xF;
#else
    return codes[index];
#endif
}

// raw: codes of `n` outputs, [k, n] or (transposed) [n, k]. Each thread writes one word.
extern "C" __global__ void pack_weights(const uint8_t *raw, uint32_t *packed, int k, int n,
                                        int start, int padded_k, int transposed,
                                        uint64_t n_words)
{
    uint64_t word = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x;
    if (word >= n_words)
        return;
    constexpr int TILE_K = BITS == 4 ? 64 : 32;
    int j = word % 4, lane = word / 4 % 32;
    uint64_t tile = word / 128;
    int tiles_k = padded_k / TILE_K;
    int first_k = (int)(tile % tiles_k) * TILE_K + lane % 4 * 4 + (j >= 2 ? 16 : 0);
    int output = (int)(tile / tiles_k) * 16 + lane / 4 + (j & 1 ? 8 : 0) - start;
    if (output < 0 || output >= n)
        return;
    auto at = [&](int input) -> uint32_t {
        if (input >= k)
            return 0;
        uint64_t index = transposed ? (uint64_t)output * k + input : (uint64_t)input * n + output;
        return code_at(raw, index);
    };
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t byte = at(first_k + i);
#if BITS == 4
        byte |= at(first_k + i + 32) << 4;
#endif
        value |= byte << (8 * i);
    }
    packed[word] = value;
}
