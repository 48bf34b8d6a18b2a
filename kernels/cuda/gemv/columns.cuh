// Rows of activations as columns in shared memory.

// The fill functions copy inputs from `first` on of all rows into columns `stride` bytes apart, and
// zeros beyond k. Where `aligned`, rows start at multiples of 16 bytes, and the copies are to be
// waited for.
__device__ __forceinline__ void copy_piece(uint32_t to, const Activation::Element* row, int from,
                                           int k) {
    copy_16_async(to, row + (from < k ? from : 0), from < k ? 16 : 0);
}

template <int THREADS>
__device__ __forceinline__ void fill_columns_singly(uint32_t to, int stride,
                                                    const Activation::Element* x, int rows, int k,
                                                    int first, int count, int thread) {
    using A = Activation;
    for (int r = 0; r < rows; ++r) {
        for (int i = thread; i < count; i += THREADS) {
            const bool valid = first + i < k;
            const auto v = x[(size_t)r * k + (valid ? first + i : 0)];
            A::store(to + r * A::COLUMNS_A_ROW * stride + i * A::BYTES, stride, v, valid);
        }
    }
}

// A warp's part of a few rows.
__device__ __forceinline__ void fill_by_warp(uint32_t to, int stride, const Activation::Element* x,
                                             int rows, int k, int first, int count, bool aligned,
                                             int lane) {
    using A = Activation;
    constexpr int PIECE = 16 / A::BYTES;
    aligned = aligned && A::COLUMNS_A_ROW == 1;
    if (!aligned) fill_columns_singly<32>(to, stride, x, rows, k, first, count, lane);
    if (!aligned) return;
    for (int r = 0; r < rows; ++r) {
        for (int i = lane; i < count / PIECE; i += 32) {
            copy_piece(to + r * stride + i * 16, x + (size_t)r * k, first + i * PIECE, k);
        }
    }
}

// COUNT inputs of many rows, by a block: each thread keeps to one piece of the rows it copies.
template <int THREADS, int COUNT>
__device__ __forceinline__ void fill_by_block(uint32_t to, int stride, const Activation::Element* x,
                                              int rows, int k, int first, bool aligned) {
    using A = Activation;
    constexpr int PIECE = 16 / A::BYTES, PIECES = COUNT / PIECE, STEP = THREADS / PIECES;
    static_assert(THREADS % PIECES == 0, "whole rows at a time");
    if (A::COLUMNS_A_ROW > 1 || !aligned) {
        fill_columns_singly<THREADS>(to, stride, x, rows, k, first, COUNT, threadIdx.x);
        return;
    }
    const int piece = threadIdx.x % PIECES, from = first + piece * PIECE;
    int r = threadIdx.x / PIECES;
    to += r * stride + piece * 16;
    const Activation::Element* source = x + (size_t)r * k + (from < k ? from : 0);
#pragma unroll 4
    for (; r < rows; r += STEP, to += STEP * stride, source += (size_t)STEP * k) {
        copy_16_async(to, source, from < k ? 16 : 0);
    }
}
