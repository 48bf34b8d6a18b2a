// The product of many rows with quantised weights and 16-bit activations: out[m, n] =
// Σ_k x[m, k]·w[n, k]·w_scale[n] (+ bias[n]) (+ residual[m, n]), x of T [rows, k], sums in f32.
//
// Transposed, D = W·Xᵀ, by m16n8k16. A byte of a packed word becomes a 16-bit float in the register
// where it is: bytes 0 and 1 are the pair of the lower half of 16 inputs, bytes 2 and 3 that of the
// upper half. So K is permuted within 16, and operand B takes x in the same order: a lane's two
// registers are four neighbouring elements. INT4 weights stay 16 times themselves until the end.
//
// Defines: T (half_t, bf16_t), WEIGHT_BITS (4, 8), GROUPED (0, 1). k must be a multiple of 8.
#include "common.cuh"
#include "tile.cuh"
#include "widen.cuh"

constexpr int STAGES = 3;
constexpr int X_BYTES = TILE_M * TILE_K * 2;

// Where 16 bytes of a row of x lie in a stage: an 8-byte read of four rows meets all banks once.
__device__ __forceinline__ uint32_t x_offset(int row, int chunk)
{
    return row * TILE_K * 2 + (chunk ^ (row % 4 * 2)) * 16;
}

// The part of the copies of x that a thread does: 16 bytes of every 32nd row.
struct InputCopies {
    static constexpr int N = TILE_M * 8 / THREADS, ROWS = THREADS / 8;
    const T *from;
    int64_t rows_apart;
    int rows_left, inputs_left;
    uint32_t to;

    __device__ __forceinline__ InputCopies(const T *x, const Problem &p, int m0)
    {
        const int row = threadIdx.x / 8, chunk = threadIdx.x % 8;
        from = x + static_cast<int64_t>(m0 + row) * p.k + chunk * 8;
        rows_apart = static_cast<int64_t>(ROWS) * p.k;
        rows_left = p.rows - m0 - row;
        inputs_left = p.k - chunk * 8;
        to = x_offset(row, chunk);
    }

    __device__ __forceinline__ void next(uint32_t stage, const T *somewhere)
    {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const bool inside = rows_left > i * ROWS && inputs_left > 0;
            copy_16(stage + to + i * ROWS * TILE_K * 2,
                    inside ? from + i * rows_apart : somewhere, inside);
        }
        from += TILE_K;
        inputs_left -= TILE_K;
    }
};

// Int8 words of the 32 inputs `half` of a step, INT4 weights times 16.
__device__ __forceinline__ void load_codes(uint32_t at, int half, uint32_t (&words)[4])
{
    const uint4 w = load_shared(WEIGHT_BITS == 4 ? at : at + half * PACKED_TILE);
    const uint32_t packed[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t nibbles = half ? packed[i] : packed[i] << 4;
        words[i] = WEIGHT_BITS == 4 ? nibbles & 0xF0F0F0F0u : packed[i];
    }
}

// Products of 32 inputs of a warp's tile.
__device__ __forceinline__ void multiply(Sums<float> &sums, uint32_t w, uint32_t x, int half,
                                         int lane)
{
    uint32_t a[N_TILES][2][4];
#pragma unroll
    for (int i = 0; i < N_TILES; i++) {
        uint32_t words[4];
        load_codes(w + i * K_TILES * PACKED_TILE, half, words);
#pragma unroll
        for (int j = 0; j < 4; j++)
            Arithmetic<T>::widen(words[j], a[i][j / 2][j % 2], a[i][j / 2][j % 2 + 2]);
    }
#pragma unroll
    for (int k16 = 0; k16 < 2; k16++) {
#pragma unroll
        for (int j = 0; j < M_TILES; j++) {
            const int chunk = half * 4 + k16 * 2 + lane % 4 / 2;
            const uint2 b = load_shared_8(x + x_offset(j * 8 + lane / 4, chunk) + lane % 2 * 8);
#pragma unroll
            for (int i = 0; i < N_TILES; i++)
                Arithmetic<T>::mma(sums[i][j], a[i][k16], b);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    weight_only(const uint8_t *weights, const T *input, const __grid_constant__ Problem p)
{
    extern __shared__ __align__(16) uint8_t dynamic[];
    wait_for_previous_kernel();
    let_next_kernel_start();
    const uint32_t stages = shared_address(dynamic);
    const Place at;
    const int steps = p.padded_k / TILE_K;

    constexpr int STAGE_BYTES = W_BYTES + X_BYTES;
    WeightCopies weight_copies(weights, p, at.n0);
    InputCopies input_copies(input, p, at.m0);
    Ring<STAGES, STAGE_BYTES> write, read;
    auto copy = [&](bool any) {
        if (any) {
            weight_copies.next(stages + write.offset);
            input_copies.next(stages + write.offset + W_BYTES, input);
        }
        write.advance();
        copies_commit();
    };
    for (int step = 0; step < STAGES - 1; step++)
        copy(step < steps);

    Sums<float> sums = {};
#if GROUPED
    Sums<float> total = {};
#endif
    for (int step = 0; step < steps; step++) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        copy(step + STAGES - 1 < steps);
        const uint32_t stage = stages + read.offset;
        read.advance();
        const uint32_t w = stage + at.warp_n / 16 * K_TILES * PACKED_TILE + at.lane * 16;
        const uint32_t x = stage + W_BYTES + x_offset(at.warp_m, 0);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            multiply(sums, w, x, half, at.lane);
#if GROUPED
            const int done = step * TILE_K + half * 32 + 32;
            if (done % p.block_size == 0 && done <= p.k)
                add_group(sums, total, p, done / p.block_size - 1, at.first_n);
#endif
        }
    }

    copies_wait<0>();
    __syncthreads();
    T *buffer = reinterpret_cast<T *>(dynamic);
    const float unit = WEIGHT_BITS == 4 ? 1.0f / 16.0f : 1.0f;
    auto row_scale = [](int) { return 1.0f; };
#if GROUPED
    stage_sums(buffer, total, p, at, unit, row_scale);
#else
    stage_sums(buffer, sums, p, at, unit, row_scale);
#endif
    __syncthreads();
    write_tile(p, buffer, at.m0, at.n0);
}
