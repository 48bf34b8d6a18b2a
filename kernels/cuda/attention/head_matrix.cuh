// Rows of heads times a matrix on heads [D, D], by the tensor cores. Stands behind heads.cuh.
//
// Rows and matrix lie in shared memory in lines of PITCH bytes, with zeros up to a multiple of 16
// channels. Rows are rounded to 16 bits in two pieces, x = high + low, for keys that are to be
// quantised: their codes are then those of the f32 product but for ties. A warp takes PAIRS pairs of
// neighbouring 8-column tiles of the product.
#if FORMAT != 32
constexpr int MATRIX_STEPS = (D + 15) / 16, CHUNKS = MATRIX_STEPS * 2, PITCH = (CHUNKS + 1) * 16;

/// Starts to copy a matrix to `to`. The second-level cache is to keep it from step to step: it is little, and what comes from
/// memory waits behind the weights that other kernels ask for meanwhile.
template <int THREADS_OF_BLOCK>
__device__ __forceinline__ void hold_matrix(char* to, const T* matrix) {
    Keep keep;
    if constexpr (D % 16 == 0 && THREADS_OF_BLOCK % CHUNKS == 0 && D % (THREADS_OF_BLOCK / CHUNKS) == 0) {
        constexpr int AT_ONCE = THREADS_OF_BLOCK / CHUNKS;
        int r = threadIdx.x / CHUNKS, c = threadIdx.x % CHUNKS;
        unsigned at = shared_address(to + r * PITCH + c * 16);
        matrix += r * D + c * 8;
#pragma unroll
        for (int i = 0; i < D / AT_ONCE; i++) keep.copy16(at + i * AT_ONCE * PITCH, matrix + i * AT_ONCE * D, true);
        return;
    }
    for (int i = threadIdx.x; i < MATRIX_STEPS * 16 * CHUNKS; i += THREADS_OF_BLOCK) {
        int r = i / CHUNKS, c = i % CHUNKS;
        bool take = r < D && c < EIGHTS;
        keep.copy16(shared_address(to + r * PITCH + c * 16), take ? matrix + r * D + c * 8 : matrix, take);
    }
}

/// Rounds a row's eight channels to 16 bits, and what is left over as well where `both` are wanted.
__device__ __forceinline__ void split8(char* high, char* low, const float (&x)[8], bool both) {
    constexpr bool B = IS_BF16<T>;
    float rest[8];
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        words[i] = pack16<B>(x[2 * i], x[2 * i + 1]);
        float2 y = unpack16<B>(words[i]);
        rest[2 * i] = x[2 * i] - y.x, rest[2 * i + 1] = x[2 * i + 1] - y.y;
    }
    *reinterpret_cast<uint4*>(high) = make_uint4(words[0], words[1], words[2], words[3]);
    if (both) store8(reinterpret_cast<T*>(low), rest);
}

/// Puts channels 8c..8c + 8 of a row into its lines, and the zeros behind the last channel.
__device__ __forceinline__ void put_row(char* high, char* low, int c, const float (&x)[8], bool both) {
    if (c < CHUNKS) split8(high + c * 16, low + c * 16, x, both);
    if (LANES < CHUNKS && c == 0) split8(high + LANES * 16, low + LANES * 16, {}, both);
}

/// acc += the 16 rows at `x` times the columns from that at `matrix` on.
template <int PAIRS>
__device__ __forceinline__ void multiply(float (&acc)[PAIRS][2][4], unsigned x, unsigned matrix, int lane) {
    constexpr bool B = IS_BF16<T>;
    unsigned x_at = x + (lane & 15) * PITCH + (lane >> 4) * 16, m_at = matrix + (lane & 15) * PITCH + (lane >> 4) * 16;
#pragma unroll 4
    for (int k = 0; k < MATRIX_STEPS; k++) {
        unsigned a[4];
        ldmatrix4(a, x_at + k * 32);
#pragma unroll
        for (int n = 0; n < PAIRS; n++) {
            unsigned b[4];
            ldmatrix4_transposed(b, m_at + k * 16 * PITCH + n * 32);
            mma16816<B>(acc[n][0], a, b[0], b[1]);
            mma16816<B>(acc[n][1], a, b[2], b[3]);
        }
    }
}

/// acc += (high + low) times the columns from that at `matrix` on: the rows in two pieces.
template <int PAIRS>
__device__ __forceinline__ void multiply_split(float (&acc)[PAIRS][2][4], unsigned high, unsigned low, unsigned matrix, int lane) {
    constexpr bool B = IS_BF16<T>;
    unsigned offset = (lane & 15) * PITCH + (lane >> 4) * 16;
#pragma unroll 4
    for (int k = 0; k < MATRIX_STEPS; k++) {
        unsigned a[4], rest[4];
        ldmatrix4(a, high + offset + k * 32);
        ldmatrix4(rest, low + offset + k * 32);
#pragma unroll
        for (int n = 0; n < PAIRS; n++) {
            unsigned b[4];
            ldmatrix4_transposed(b, matrix + offset + k * 16 * PITCH + n * 32);
            mma16816<B>(acc[n][0], a, b[0], b[1]);
            mma16816<B>(acc[n][1], a, b[2], b[3]);
            mma16816<B>(acc[n][0], rest, b[0], b[1]);
            mma16816<B>(acc[n][1], rest, b[2], b[3]);
        }
    }
}

/// The smallest and largest of what the quad holds of row g + 8r, of 8-column tiles from `first` on.
template <int PAIRS>
__device__ __forceinline__ float2 extremes_of(const float (&acc)[PAIRS][2][4], int r, int first) {
    float least = INFINITY_F, most = MINUS_INFINITY;
#pragma unroll
    for (int n = 0; n < PAIRS * 2; n++) {
        if ((first + n) * 8 >= D) continue;
        const float(&x)[4] = acc[n / 2][n % 2];
        least = fminf(least, fminf(x[2 * r], x[2 * r + 1]));
        most = fmaxf(most, fmaxf(x[2 * r], x[2 * r + 1]));
    }
    return make_float2(-quad_max(-least), quad_max(most));
}

/// Writes the codes of the same to the row at `to`, if it is `inside`. All lanes come here.
template <int PAIRS>
__device__ __forceinline__ void write_codes(char* to, const float (&acc)[PAIRS][2][4], int r, int first, float2 grid,
                                            bool inside, int t) {
    float inverse = __frcp_rn(grid.x);
#pragma unroll
    for (int n = 0; n < PAIRS * 2; n++) {
        const float(&from)[4] = acc[n / 2][n % 2];
        int tile = first + n;
        unsigned x = 0, y = 0;
        if (inside) x = code_of(from[2 * r], grid, inverse), y = code_of(from[2 * r + 1], grid, inverse);
        if constexpr (FORMAT == 4) {
            unsigned word = x << nibble_shift(2 * t) | y << nibble_shift(2 * t + 1);
            word |= __shfl_xor_sync(0xFFFFFFFFu, word, 1);
            word |= __shfl_xor_sync(0xFFFFFFFFu, word, 2);
            if (inside && tile * 8 < D && (n & 3) == t) reinterpret_cast<unsigned*>(to)[tile] = word;
        } else {
            if (inside && tile * 8 < D)
                *reinterpret_cast<unsigned short*>(to + tile * 8 + 2 * t) = (unsigned short)(x | y << 8);
        }
    }
}

/// Writes the same as 16-bit elements, all of CHUNKS tiles or those that a row of the cache has.
template <int PAIRS>
__device__ __forceinline__ void write_elements(char* to, const float (&acc)[PAIRS][2][4], int r, int first, int n_tiles, int t) {
#pragma unroll
    for (int n = 0; n < PAIRS * 2; n++) {
        const float(&x)[4] = acc[n / 2][n % 2];
        if (first + n < n_tiles)
            *reinterpret_cast<unsigned*>(to + (first + n) * 16 + t * 4) = pack16<IS_BF16<T>>(x[2 * r], x[2 * r + 1]);
    }
}
#endif
