// The integer product of many rows on any card's tensor cores: out[m, n] = a_scale[m] ·
// w_scale[n] · Σ_k codes[m, k]·w[n, k] (+ bias[n]) (+ residual[m, n]), codes int8 [rows, k].
//
// Transposed, D = W·Xᵀ: packed weights are operand A of `mma.sync` as they lie in memory, codes are
// operand B. A block of eight warps makes 128 outputs × 128 rows; steps of 64 inputs arrive through
// a ring of cp.async stages. With INT4 two masks make int8 of 16 times the weights; with S4 the
// packed words go to the 4-bit tensor cores (sm_80, 86, 89) and the codes are packed to nibbles in
// the same order. With GROUPED the scale is [k / block_size, n]: each group's exact sum is scaled
// and added up in f32.
//
// Defines: T, WEIGHT_BITS (4, 8), S4 (0, 1), GROUPED (0, 1), ALIGNED (1: k is a multiple of 16).
#include "common.cuh"
#include "tile.cuh"

constexpr int X_BYTES = TILE_M * TILE_K;
constexpr int STAGES = WEIGHT_BITS == 4 ? 4 : 3;

__device__ __forceinline__ void mma_s8(int (&d)[4], const uint32_t *a, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#if S4
__device__ __forceinline__ void mma_s4(int (&d)[4], const uint32_t *a, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// Where 16 bytes of codes lie in a stage: rows of 64 bytes, chunks permuted so that eight rows'
// chunks of one column lie in different banks.
__device__ __forceinline__ uint32_t code_offset(int row, int chunk)
{
    return row * TILE_K + (chunk ^ (row / 2 % 4)) * 16;
}

// The part of the copies of codes that a thread does: 16 bytes of every 64th row.
struct CodeCopies {
    static constexpr int N = TILE_M * 4 / THREADS, ROWS = THREADS / 4;
    const int8_t *from;
    int64_t rows_apart;
    int rows_left, inputs_left;
    uint32_t to;

    __device__ __forceinline__ CodeCopies(const int8_t *codes, const Problem &p, int m0)
    {
        const int row = threadIdx.x / 4, chunk = threadIdx.x % 4;
        from = codes + static_cast<int64_t>(m0 + row) * p.k + chunk * 16;
        rows_apart = static_cast<int64_t>(ROWS) * p.k;
        rows_left = p.rows - m0 - row;
        inputs_left = p.k - chunk * 16;
        to = code_offset(row, chunk);
    }

    __device__ __forceinline__ void next(uint32_t stage, const int8_t *somewhere)
    {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const bool inside = rows_left > i * ROWS && inputs_left > 0;
            const int8_t *source = from + i * rows_apart;
            const uint32_t target = stage + to + i * ROWS * TILE_K;
#if ALIGNED
            copy_16(target, inside ? source : somewhere, inside);
#else
            const uint8_t *bytes = reinterpret_cast<const uint8_t *>(source);
            store_shared(target, load_bytes(bytes, inside ? inputs_left : 0));
#endif
        }
        from += TILE_K;
        inputs_left -= TILE_K;
    }
};

// A lane's words of a step of 64 inputs in the warp's tile of 16 outputs, as operands of two
// products of 32.
__device__ __forceinline__ void load_weights(uint32_t at, uint32_t (&a)[8])
{
#if WEIGHT_BITS == 4
    uint4 w = load_shared(at);
    uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        a[i] = S4 ? words[i] : (words[i] << 4) & 0xF0F0F0F0u;
        a[i + 4] = words[i] & 0xF0F0F0F0u;
    }
#else
    uint4 low = load_shared(at), high = load_shared(at + PACKED_TILE);
    a[0] = low.x, a[1] = low.y, a[2] = low.z, a[3] = low.w;
    a[4] = high.x, a[5] = high.y, a[6] = high.z, a[7] = high.w;
#endif
}

// Nibbles of two words of codes, in the order of a packed weight's.
__device__ __forceinline__ uint32_t nibbles(uint32_t low, uint32_t high)
{
    return (low & 0x0F0F0F0Fu) | ((high << 4) & 0xF0F0F0F0u);
}

extern "C" __global__ void __launch_bounds__(THREADS, GROUPED ? 1 : 2)
    mma_gemm(const uint8_t *weights, const int8_t *codes, const __grid_constant__ Problem p)
{
    extern __shared__ __align__(16) uint8_t dynamic[];
    wait_for_previous_kernel();
    let_next_kernel_start();
    const uint32_t stages = shared_address(dynamic);
    const Place at;
    const int steps = p.padded_k / TILE_K;

    constexpr int STAGE_BYTES = W_BYTES + X_BYTES;
    WeightCopies weight_copies(weights, p, at.n0);
    CodeCopies code_copies(codes, p, at.m0);
    Ring<STAGES, STAGE_BYTES> write, read;
    auto copy = [&](bool any) {
        if (any) {
            weight_copies.next(stages + write.offset);
            code_copies.next(stages + write.offset + W_BYTES, codes);
        }
        write.advance();
        copies_commit();
    };
    for (int step = 0; step < STAGES - 1; step++)
        copy(step < steps);

    Sums<int> sums = {};
#if GROUPED
    Sums<float> total = {};
#endif
    for (int step = 0; step < steps; step++) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        copy(step + STAGES - 1 < steps);
        const uint32_t w = stages + read.offset, x = w + W_BYTES;
        read.advance();
        uint32_t a[N_TILES][8];
        uint4 b[M_TILES];
#pragma unroll
        for (int i = 0; i < N_TILES; i++)
            load_weights(w + (at.warp_n / 16 + i) * K_TILES * PACKED_TILE + at.lane * 16, a[i]);
#pragma unroll
        for (int j = 0; j < M_TILES; j++)
            b[j] = load_matrices(x + code_offset(at.warp_m + j * 8 + at.lane % 8, at.lane / 8));
#if S4
#pragma unroll
        for (int j = 0; j < M_TILES; j++) {
            uint32_t b0 = nibbles(b[j].x, b[j].z), b1 = nibbles(b[j].y, b[j].w);
#pragma unroll
            for (int i = 0; i < N_TILES; i++)
                mma_s4(sums[i][j], a[i], b0, b1);
        }
#else
#pragma unroll
        for (int i = 0; i < N_TILES; i++)
#pragma unroll
            for (int j = 0; j < M_TILES; j++)
                mma_s8(sums[i][j], a[i], b[j].x, b[j].y);
#if GROUPED
        if (p.block_size == 32)
            add_group(sums, total, p, 2 * step, at.first_n);
        else if ((2 * step + 1) * 32 % p.block_size == 0)
            add_group(sums, total, p, (2 * step + 1) * 32 / p.block_size - 1, at.first_n);
#endif
#pragma unroll
        for (int i = 0; i < N_TILES; i++)
#pragma unroll
            for (int j = 0; j < M_TILES; j++)
                mma_s8(sums[i][j], a[i] + 4, b[j].z, b[j].w);
#endif
#if GROUPED
        const int done = (step + 1) * TILE_K;
        if (done % p.block_size == 0 && done <= p.k)
            add_group(sums, total, p, done / p.block_size - 1, at.first_n);
#endif
    }

    copies_wait<0>();
    __syncthreads();
    T *buffer = reinterpret_cast<T *>(dynamic);
    const float unit = WEIGHT_BITS == 4 && !S4 ? 1.0f / 16.0f : 1.0f;
    auto row_scale = [&](int row) { return row < p.rows ? p.a_scale[row] : 0.0f; };
#if GROUPED
    stage_sums(buffer, total, p, at, unit, row_scale);
#else
    stage_sums(buffer, sums, p, at, unit, row_scale);
#endif
    __syncthreads();
    write_tile(p, buffer, at.m0, at.n0);
}
