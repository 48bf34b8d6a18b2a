// Attention of many new positions (flash attention, Dao 2023) by mma.sync, for sm_80 and later.
//
// q [batch, new, q_heads * D] of T (16 bits) in rows of `q_stride` elements, out likewise without
// gaps; keys and values as layout.cuh has them. A block takes Q_ROWS positions of one query head
// and walks over the keys in tiles of KEY_ROWS, from the first that a window lets it see to the
// last that causality does; it starts with the diagonal, so that only the first tiles it meets need
// masks. Grid (query tiles, q_heads, batch); the longest tiles come first.
//
// A warp owns 16 * M_TILES rows: with two tiles each matrix that is read from shared memory is
// multiplied twice, which is what keeps shared memory from being the bound. Codes are copied as they
// are and unpacked into 16-bit tiles beside them.
//
// `expand` unpacks a whole cache into 16-bit rows [batch, kv_heads, tokens, D] once; worth it where
// memory allows, since each tile is otherwise unpacked by every block that meets it.

#ifndef KEY_ROWS
#define KEY_ROWS 64
#endif
constexpr int WARPS = 4, THREADS = WARPS * 32;
constexpr int M_TILES = D <= 128 ? 2 : 1;
constexpr int Q_ROWS = WARPS * M_TILES * 16;
constexpr int STEPS = (D + 15) / 16;       // of 16 channels
constexpr int TILES = (D + 7) / 8;         // of 8 output channels
constexpr int TILE_PAIRS = (TILES + 1) / 2;
constexpr int CHUNKS = STEPS * 2;          // of 8 channels, 16 bytes
/// Bytes of a row in shared memory: an odd number of 16-byte groups, so that the rows of an 8 x 8
/// matrix lie in different banks.
constexpr int PITCH = (CHUNKS + 1) * 16;
constexpr bool BF16 = IS_BF16<T>;
constexpr int KEY_TILES = KEY_ROWS / 8;

/// Copies rows of 16-bit elements to shared memory; zeros beyond `rows` and beyond D.
template <int N>
__device__ __forceinline__ void copy_rows(unsigned to, const char* from, long long pitch, int rows) {
#pragma unroll
    for (int i = threadIdx.x; i < N * CHUNKS; i += THREADS) {
        int r = i / CHUNKS, c = i % CHUNKS;
        bool take = r < rows && c * 8 < D;
        copy16(to + r * PITCH + c * 16, take ? from + r * pitch + c * 16 : from, take);
    }
}

/// A word of codes as 16-bit elements: two to a register, in the order of channels.
__device__ __forceinline__ void unpack(unsigned word, float2 p, unsigned* to) {
    constexpr int N = 32 / FORMAT;
    float x[N];
#pragma unroll
    for (int e = 0; e < N; e++) {
        unsigned code = FORMAT == 4 ? word >> nibble_shift(e) & 15u : word >> (8 * e) & 255u;
        x[e] = (float(code) - p.y) * p.x;
    }
#pragma unroll
    for (int e = 0; e < N / 2; e++) to[e] = pack16<BF16>(x[2 * e], x[2 * e + 1]);
}

/// Unpacks eight channels.
__device__ __forceinline__ uint4 unpack8(const char* codes, float2 p) {
    unsigned r[4];
    if constexpr (FORMAT == 4) {
        unpack(*reinterpret_cast<const unsigned*>(codes), p, r);
    } else {
        unpack(reinterpret_cast<const unsigned*>(codes)[0], p, r);
        unpack(reinterpret_cast<const unsigned*>(codes)[1], p, r + 2);
    }
    return make_uint4(r[0], r[1], r[2], r[3]);
}

extern "C" __global__ void expand(const char* keys, const char* values, const float2* key_parameters,
                                  const float2* value_parameters, const int* past_length, int n_new, int kv_heads,
                                  int capacity, int tokens, uint4* wide_keys, uint4* wide_values) {
    let_next_kernel_start();
    wait_for_previous_kernel();
    if constexpr (CODES) {
        constexpr int EIGHTS = D / 8;
        int i = blockIdx.x * blockDim.x + threadIdx.x, token = i / EIGHTS, c = i % EIGHTS;
        if (token >= min(min(*past_length + n_new, capacity), tokens)) return;
        long long from = cache_row(blockIdx.z, kv_heads, blockIdx.y, capacity, token);
        long long to = cache_row(blockIdx.z, kv_heads, blockIdx.y, tokens, token) * EIGHTS + c;
        wide_keys[to] = unpack8(keys + from * ROW_BYTES + c * FORMAT, key_parameters[from]);
        wide_values[to] = unpack8(values + from * ROW_BYTES + c * FORMAT, value_parameters[from]);
    }
}

/// Codes of a tile as they are, and their parameters.
constexpr int RAW_PITCH = (ROW_BYTES + 15) / 16 * 16;
constexpr int RAW_BYTES = CODES ? KEY_ROWS * (RAW_PITCH + 8) : 0;

/// A tile of keys or values: where it is in shared memory and where it comes from.
struct Source {
    const char* rows;         // of the head
    const float2* parameters; // of the head
    unsigned tile;            // in shared memory
    char* raw;

    /// Starts to bring the tile whose first token is `token`.
    __device__ __forceinline__ void start(int token, int total) const {
        const char* from = rows + (long long)token * ROW_BYTES;
        int n = total - token;
        if constexpr (!CODES) {
            copy_rows<KEY_ROWS>(tile, from, ROW_BYTES, n);
        } else if constexpr (ROW_BYTES % 16 == 0) {
            constexpr int EACH = ROW_BYTES < 16 ? 1 : ROW_BYTES / 16;
            unsigned to = shared_address(raw);
            for (int i = threadIdx.x; i < KEY_ROWS * EACH; i += THREADS) {
                bool take = i / EACH < n;
                copy16(to + i * 16, take ? from + i * 16 : from, take);
            }
        } else {
            constexpr int EACH = ROW_BYTES / 4;
            for (int i = threadIdx.x; i < KEY_ROWS * EACH; i += THREADS)
                *reinterpret_cast<unsigned*>(raw + i / EACH * RAW_PITCH + i % EACH * 4) =
                    i / EACH < n ? reinterpret_cast<const unsigned*>(from)[i] : 0u;
        }
        if constexpr (CODES) {
            float2* to = reinterpret_cast<float2*>(raw + KEY_ROWS * RAW_PITCH);
            for (int i = threadIdx.x; i < KEY_ROWS; i += THREADS)
                to[i] = i < n ? parameters[token + i] : make_float2(0.f, 0.f);
        }
        copies_started();
    }

    /// Unpacks what was brought; between two barriers.
    __device__ __forceinline__ void finish() const {
        if constexpr (CODES) {
            const float2* p = reinterpret_cast<const float2*>(raw + KEY_ROWS * RAW_PITCH);
            for (int i = threadIdx.x; i < KEY_ROWS * CHUNKS; i += THREADS) {
                int r = i / CHUNKS, c = i % CHUNKS;
                uint4 x = c * 8 < D ? unpack8(raw + r * RAW_PITCH + c * FORMAT, p[r]) : make_uint4(0, 0, 0, 0);
                asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};"
                             :: "r"(tile + r * PITCH + c * 16), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
            }
        }
    }
};

/// Scores of the warp's rows and a tile of keys.
__device__ __forceinline__ void multiply_keys(float (&s)[M_TILES][KEY_TILES][4], unsigned q, unsigned keys, int lane) {
#pragma unroll
    for (int m = 0; m < M_TILES; m++)
#pragma unroll
        for (int n = 0; n < KEY_TILES; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0.f;
    unsigned q_at = q + (lane & 15) * PITCH + (lane >> 4) * 16;
    unsigned k_at = keys + ((lane & 7) + (lane >> 4) * 8) * PITCH + (lane >> 3 & 1) * 16;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        unsigned a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) ldmatrix4(a[m], q_at + m * 16 * PITCH + k * 32);
#pragma unroll
        for (int n = 0; n < KEY_TILES; n += 2) {
            unsigned x[4];
            ldmatrix4(x, k_at + n * 8 * PITCH + k * 32);
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                mma16816<BF16>(s[m][n], a[m], x[0], x[1]);
                mma16816<BF16>(s[m][n + 1], a[m], x[2], x[3]);
            }
        }
    }
}

/// out += weights times a tile of values.
__device__ __forceinline__ void multiply_values(float (&out)[M_TILES][TILE_PAIRS * 2][4],
                                                const float (&s)[M_TILES][KEY_TILES][4], unsigned values, int lane) {
    unsigned v_at = values + (lane & 15) * PITCH + (lane >> 4) * 16;
#pragma unroll
    for (int k = 0; k < KEY_ROWS / 16; k++) {
        unsigned a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            a[m][0] = pack16<BF16>(s[m][2 * k][0], s[m][2 * k][1]);
            a[m][1] = pack16<BF16>(s[m][2 * k][2], s[m][2 * k][3]);
            a[m][2] = pack16<BF16>(s[m][2 * k + 1][0], s[m][2 * k + 1][1]);
            a[m][3] = pack16<BF16>(s[m][2 * k + 1][2], s[m][2 * k + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < TILE_PAIRS; n++) {
            unsigned x[4];
            ldmatrix4_transposed(x, v_at + k * 16 * PITCH + n * 32);
#pragma unroll
            for (int m = 0; m < M_TILES; m++) {
                mma16816<BF16>(out[m][2 * n], a[m], x[0], x[1]);
                mma16816<BF16>(out[m][2 * n + 1], a[m], x[2], x[3]);
            }
        }
    }
}

struct Rows {
    float largest[M_TILES][2], weight[M_TILES][2];
};

/// Scores of the tile at `token` to weights relative to the largest score so far. `first` is the
/// position of the lane's first row.
__device__ __forceinline__ void soften(float (&s)[M_TILES][KEY_TILES][4], float (&out)[M_TILES][TILE_PAIRS * 2][4],
                                       Rows& rows, float scale, float softcap, const Sight& sees, bool masked,
                                       int first, int token, int total, int t) {
    // Without a cap the scale goes into the exponent, where it must not change the order.
    bool apart = softcap > 0.f || scale <= 0.f;
    float factor = apart ? LOG2_E : scale * LOG2_E;
    if (apart) {
#pragma unroll
        for (int m = 0; m < M_TILES; m++)
#pragma unroll
            for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) s[m][n][i] = capped(s[m][n][i] * scale, softcap);
    }
    if (masked) {
#pragma unroll
        for (int m = 0; m < M_TILES; m++)
#pragma unroll
            for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int key = token + n * 8 + 2 * t + (i & 1), at = first + m * 16 + (i >> 1) * 8;
                    if (key >= total || !sees(at, key)) s[m][n][i] = MINUS_INFINITY;
                }
    }
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float largest = rows.largest[m][r];
#pragma unroll
            for (int n = 0; n < KEY_TILES; n++) largest = fmaxf(largest, fmaxf(s[m][n][2 * r], s[m][n][2 * r + 1]));
            largest = quad_max(largest);
            float origin = largest == MINUS_INFINITY ? 0.f : largest * factor;
            float shrink = exp2_fast(rows.largest[m][r] * factor - origin);
            rows.largest[m][r] = largest;
            float sum = rows.weight[m][r] * shrink;
#pragma unroll
            for (int n = 0; n < KEY_TILES; n++) {
#pragma unroll
                for (int i = 2 * r; i < 2 * r + 2; i++) {
                    s[m][n][i] = exp2_fast(s[m][n][i] * factor - origin);
                    sum += s[m][n][i];
                }
            }
            rows.weight[m][r] = sum;
#pragma unroll
            for (int n = 0; n < TILE_PAIRS * 2; n++) out[m][n][2 * r] *= shrink, out[m][n][2 * r + 1] *= shrink;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, D <= 128 ? 2 : 1)
attend_prefill(const T* q, int q_stride, const char* keys, const char* values, const float2* key_parameters,
               const float2* value_parameters, const int* past_length, int n_new, int q_heads, int kv_heads,
               int capacity, float scale, float softcap, int causal, int window, const unsigned char* pad,
               int pad_stride, T* out) {
    extern __shared__ uint4 shared[];
    char* start = reinterpret_cast<char*>(shared);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int head = blockIdx.y, b = blockIdx.z, kv_head = head / (q_heads / kv_heads);
    int first = (gridDim.x - 1 - blockIdx.x) * Q_ROWS, n_rows = min(Q_ROWS, n_new - first);
    unsigned q_tile = shared_address(start);
    let_next_kernel_start();
    wait_for_previous_kernel();

    int past = *past_length, total = min(past + n_new, capacity);
    Sight sees{causal, window, pad ? pad + (long long)b * (pad_stride > 0 ? pad_stride : total) : nullptr};
    int begin = sees.first(past + first) / KEY_ROWS;
    int end = (sees.end(past + first + n_rows - 1, total) + KEY_ROWS - 1) / KEY_ROWS;
    long long line = cache_row(b, kv_heads, kv_head, capacity, 0);
    constexpr int TILE_BYTES = KEY_ROWS * PITCH;
    Source key_source{keys + line * ROW_BYTES, key_parameters + line, q_tile + Q_ROWS * PITCH,
                      start + Q_ROWS * PITCH + 2 * TILE_BYTES};
    Source value_source{values + line * ROW_BYTES, value_parameters + line, key_source.tile + TILE_BYTES,
                        key_source.raw + RAW_BYTES};

    const char* q_from = reinterpret_cast<const char*>(q + ((long long)b * n_new + first) * q_stride + head * D);
    copy_rows<Q_ROWS>(q_tile, q_from, q_stride * 2ll, n_rows);
    int tile = end - 1;
    key_source.start(tile * KEY_ROWS, total);

    float acc[M_TILES][TILE_PAIRS * 2][4];
    Rows rows;
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int n = 0; n < TILE_PAIRS * 2; n++) acc[m][n][0] = acc[m][n][1] = acc[m][n][2] = acc[m][n][3] = 0.f;
        rows.largest[m][0] = rows.largest[m][1] = MINUS_INFINITY;
        rows.weight[m][0] = rows.weight[m][1] = 0.f;
    }
    int warp_row = warp * M_TILES * 16;
    unsigned q_warp = q_tile + warp_row * PITCH;
    for (; tile >= begin; tile--) {
        int token = tile * KEY_ROWS;
        wait_for_copies<0>();
        __syncthreads(); // the keys are there; all are done with the values before
        value_source.start(token, total);
        if constexpr (CODES) {
            key_source.finish();
            __syncthreads();
        }
        float s[M_TILES][KEY_TILES][4];
        multiply_keys(s, q_warp, key_source.tile, lane);
        int last = token + KEY_ROWS - 1;
        bool masked = sees.pad || last >= total || (causal && last > past + first) ||
                      (window > 0 && token + window <= past + first + Q_ROWS - 1);
        soften(s, acc, rows, scale, softcap, sees, masked, past + first + warp_row + g, token, total, t);
        wait_for_copies<0>();
        __syncthreads(); // the values are there; all are done with the keys
        if (tile > begin) key_source.start(token - KEY_ROWS, total);
        if constexpr (CODES) {
            value_source.finish();
            __syncthreads();
        }
        multiply_values(acc, s, value_source.tile, lane);
    }

    // The rows of a warp go where its queries were, and from there to memory in wide stores.
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float weight = quad_sum(rows.weight[m][r]);
            float by = weight > 0.f ? 1.f / weight : 0.f;
            int row = warp_row + m * 16 + r * 8 + g;
#pragma unroll
            for (int n = 0; n < TILES; n++)
                *reinterpret_cast<unsigned*>(start + row * PITCH + n * 16 + t * 4) =
                    pack16<BF16>(acc[m][n][2 * r] * by, acc[m][n][2 * r + 1] * by);
        }
    }
    __syncwarp();
    for (int i = lane; i < M_TILES * 16 * (D / 8); i += 32) {
        int row = warp_row + i / (D / 8), c = i % (D / 8);
        if (row < n_rows)
            *reinterpret_cast<uint4*>(out + (((long long)b * n_new + first + row) * q_heads + head) * D + c * 8) =
                *reinterpret_cast<const uint4*>(start + row * PITCH + c * 16);
    }
}
