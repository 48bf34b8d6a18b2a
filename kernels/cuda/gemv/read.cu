// Reads memory and does next to nothing with it: what a product of few rows can't beat.

// `n` 16-byte words at `from`; the sum is there so that nothing is left out.
extern "C" __global__ void read_all(const Words* from, uint64_t n, uint32_t* out) {
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    uint32_t sum = 0;
    uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 7 * step < n; i += 8 * step) {
        Words v[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) v[j] = load_once(from + i + j * step);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    for (; i < n; i += step) sum ^= load_once(from + i).x;
    if (sum == 0x12345678u) out[0] = sum;
}
