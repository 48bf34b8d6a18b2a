// Tensor-core products of 16-bit floats, and rows of activations in shared memory.

constexpr int THREADS = 32 * WARPS;

__device__ __forceinline__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                    uint32_t a3, uint32_t b0, uint32_t b1) {
#if IS_HALF
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#endif
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// `count` inputs of all rows from `first` on, zeros beyond k, by STEP threads.
template <int STEP>
__device__ __forceinline__ void fill(uint32_t to, int stride, const T* x, int rows, int k, int first,
                                     int count, int thread) {
    for (int r = 0; r < rows; ++r) {
        for (int i = thread; i < count / 8; i += STEP) {
            const int from = first + i * 8;
            copy_16_async(to + r * stride + i * 16, x + (size_t)r * k + (from < k ? from : 0),
                          from < k ? 16 : 0);
        }
    }
    commit_copies();
    wait_for_copies<0>();
}
