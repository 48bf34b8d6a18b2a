// What comes before attention, in one pass: rotary embedding of queries and keys (Su et al. 2021),
// a matrix on each of their heads (`TransformHeads`), and the write to the cache, which quantises
// as `QuantizeDequantizeHeads` does (layout.cuh).
//
// q, k, v: [batch, new, heads * D] of T in rows of their own strides, so that they may be parts of
// one tensor. cos, sin: ANGLE [batch or 1, new, rotary_dim / 2], or null. q_matrix, k_matrix: T
// [D, D], or null. q_out: T [batch, new, q_heads * D]; without q (q_heads 0) only the cache is
// written. Positions beyond the capacity are dropped.
//
// The unit is a row: one head at one position. Rows are numbered queries first, then keys, then
// values. LANES lanes share a row, eight neighbouring channels each.
#ifndef ANGLE
#define ANGLE float
#endif
constexpr int EIGHTS = D / 8;
constexpr int LANES = EIGHTS <= 1 ? 1 : EIGHTS <= 2 ? 2 : EIGHTS <= 4 ? 4 : EIGHTS <= 8 ? 8 : EIGHTS <= 16 ? 16 : 32;
constexpr int THREADS = 128, ROWS_AT_ONCE = THREADS / LANES;

struct Input {
    const T* from;
    int stride;
};

struct Rotation {
    const ANGLE *cos, *sin;
    int batch_step; // rows of angles from one sequence to the next: new, or 0
    int dim, interleaved;
};

struct Clip {
    float min, max;
};

struct Arguments {
    Input q, k, v;
    Rotation rotation;
    const T *q_matrix, *k_matrix;
    const int* past_length;
    int n_new, batch, q_heads, kv_heads, capacity;
    Clip key_clip, value_clip;
    T* q_out;
    char *keys, *values;
    float2 *key_parameters, *value_parameters;
};

enum Kind { QUERY, KEY, VALUE };

/// One head at one position.
struct Row {
    int b, i, head;
    __device__ __forceinline__ Row(int index, int heads, int n_new)
        : b(index / heads / n_new), i(index / heads % n_new), head(index % heads) {}
    __device__ __forceinline__ const T* in(const Input& x, int n_new) const {
        return x.from + ((long long)b * n_new + i) * x.stride + head * D;
    }
};

__device__ __forceinline__ void load8(float (&x)[8], const float* from) {
    float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
template <class A>
__device__ __forceinline__ void load8(float (&x)[8], const A* from) {
    uint4 a = *reinterpret_cast<const uint4*>(from);
    unsigned words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 pair = unpack16<IS_BF16<A>>(words[i]);
        x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
}
__device__ __forceinline__ void store8(float* to, const float (&x)[8]) {
    reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
}
template <class A>
__device__ __forceinline__ void store8(A* to, const float (&x)[8]) {
    constexpr bool B = IS_BF16<A>;
    *reinterpret_cast<uint4*>(to) = make_uint4(pack16<B>(x[0], x[1]), pack16<B>(x[2], x[3]), pack16<B>(x[4], x[5]),
                                               pack16<B>(x[6], x[7]));
}

/// Rotates channels 8c..8c + 8 of the row at `from`, which `x` holds. Products are rounded as the
/// plain way does it.
__device__ __forceinline__ void rotate8(float (&x)[8], const T* from, int c, const Rotation& by, int b, int i) {
    int half = by.dim / 2;
    if (8 * c >= by.dim) return;
    long long angles = ((long long)b * by.batch_step + i) * half;
    const ANGLE *cos = by.cos + angles, *sin = by.sin + angles;
    if (!by.interleaved && half % 8 == 0) {
        bool second = 8 * c >= half;
        int other = second ? 8 * c - half : 8 * c + half, angle = second ? 8 * c - half : 8 * c;
        float y[8], p[8], q[8];
        load8(y, from + other);
        load8(p, cos + angle);
        load8(q, sin + angle);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            float own = __fmul_rn(p[e], x[e]), turned = __fmul_rn(q[e], y[e]);
            x[e] = second ? __fadd_rn(turned, own) : __fsub_rn(own, turned);
        }
        return;
    }
    for (int e = 0; e < 8; e++) {
        int at = 8 * c + e;
        if (at >= by.dim) break;
        bool second = by.interleaved ? at & 1 : at >= half;
        int other = by.interleaved ? at ^ 1 : second ? at - half : at + half;
        int angle = by.interleaved ? at / 2 : second ? at - half : at;
        float own = __fmul_rn(to_f32(cos[angle]), to_f32(from[at]));
        float turned = __fmul_rn(to_f32(sin[angle]), to_f32(from[other]));
        float turned_by = second ? __fadd_rn(turned, own) : __fsub_rn(own, turned);
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (j == e) x[j] = turned_by;
    }
}

/// Scale and zero point of a row of values from `low` to `high`.
__device__ __forceinline__ float2 grid_of(float low, float high, const Clip& clip) {
    constexpr float largest = CODES ? (1 << FORMAT) - 1 : 1;
    low = __fmul_rn(low, clip.min), high = __fmul_rn(high, clip.max);
    float scale = __fdiv_rn(fmaxf(__fsub_rn(high, low), 1e-8f), largest);
    return make_float2(scale, rintf(__fdiv_rn(-low, scale)));
}

__device__ __forceinline__ unsigned code_of(float x, float2 grid) {
    constexpr float largest = CODES ? (1 << FORMAT) - 1 : 1;
    return (unsigned)fminf(fmaxf(__fadd_rn(rintf(__fdiv_rn(x, grid.x)), grid.y), 0.f), largest);
}

/// Writes channels 8c..8c + 8 of a row to the cache; all lanes of the row take part, those with
/// `take` have channels.
__device__ __forceinline__ void write_cache(const float (&x)[8], int c, bool take, bool inside, long long row, char* to,
                                            float2* parameters, const Clip& clip) {
    char* at = to + row * ROW_BYTES + c * FORMAT;
    if constexpr (!CODES) {
        if (take && inside) store8(reinterpret_cast<T*>(at), x);
    } else {
        float low = INFINITY_F, high = MINUS_INFINITY;
#pragma unroll
        for (int e = 0; e < 8; e++)
            if (take) low = fminf(low, x[e]), high = fmaxf(high, x[e]);
#pragma unroll
        for (int offset = LANES / 2; offset > 0; offset /= 2) {
            low = fminf(low, __shfl_xor_sync(0xFFFFFFFFu, low, offset));
            high = fmaxf(high, __shfl_xor_sync(0xFFFFFFFFu, high, offset));
        }
        if (!take || !inside) return;
        float2 grid = grid_of(low, high, clip);
        if (c == 0) parameters[row] = grid;
        if constexpr (FORMAT == 4) {
            unsigned word = 0;
#pragma unroll
            for (int e = 0; e < 8; e++) word |= code_of(x[e], grid) << nibble_shift(e);
            *reinterpret_cast<unsigned*>(at) = word;
        } else {
            unsigned word[2] = {0, 0};
#pragma unroll
            for (int e = 0; e < 8; e++) word[e / 4] |= code_of(x[e], grid) << (e % 4 * 8);
            *reinterpret_cast<uint2*>(at) = make_uint2(word[0], word[1]);
        }
    }
}

/// A group of LANES lanes takes row `index` of a kind; `line` is shared memory for D floats. All
/// lanes of the warp come here.
__device__ __forceinline__ void take_row(const Arguments& a, Kind kind, int index, int n_rows, float* line) {
    int c = threadIdx.x % LANES;
    Row row(min(index, n_rows - 1), kind == QUERY ? a.q_heads : a.kv_heads, a.n_new);
    bool take = c < EIGHTS;
    const T* from = row.in(kind == QUERY ? a.q : kind == KEY ? a.k : a.v, a.n_new);
    float x[8] = {};
    if (take) {
        load8(x, from + 8 * c);
        if (kind != VALUE && a.rotation.cos) rotate8(x, from, c, a.rotation, row.b, row.i);
    }
    const T* matrix = kind == QUERY ? a.q_matrix : kind == KEY ? a.k_matrix : nullptr;
    if (matrix) {
        if (take) store8(line + 8 * c, x);
        __syncwarp();
#pragma unroll
        for (int e = 0; e < 8; e++) x[e] = 0.f;
        for (int k = 0; take && k < D; k++) {
            float p[8];
            load8(p, matrix + k * D + 8 * c);
#pragma unroll
            for (int e = 0; e < 8; e++) x[e] += line[k] * p[e];
        }
        __syncwarp();
    }
    bool inside = index < n_rows;
    if (kind == QUERY) {
        if (take && inside) store8(a.q_out + (((long long)row.b * a.n_new + row.i) * a.q_heads + row.head) * D + 8 * c, x);
        return;
    }
    int position = *a.past_length + row.i;
    inside = inside && position < a.capacity;
    long long at = cache_row(row.b, a.kv_heads, row.head, a.capacity, position);
    if (kind == KEY)
        write_cache(x, c, take, inside, at, a.keys, a.key_parameters, a.key_clip);
    else
        write_cache(x, c, take, inside, at, a.values, a.value_parameters, a.value_clip);
}

/// The first `q_blocks` blocks take queries, the next `k_blocks` keys, the others values; each its
/// share of the tiles of its kind, in steps of `count`.
struct Part {
    Kind kind;
    int index, count, n_rows;
    __device__ __forceinline__ Part(const Arguments& a, int q_blocks, int k_blocks) {
        int tokens = a.batch * a.n_new, block = blockIdx.x, all = gridDim.x;
        kind = block < q_blocks ? QUERY : block < q_blocks + k_blocks ? KEY : VALUE;
        index = kind == QUERY ? block : kind == KEY ? block - q_blocks : block - q_blocks - k_blocks;
        count = kind == QUERY ? q_blocks : kind == KEY ? k_blocks : all - q_blocks - k_blocks;
        n_rows = tokens * (kind == QUERY ? a.q_heads : a.kv_heads);
    }
};

/// All rows of a block's part, without the tensor cores.
__device__ __forceinline__ void take_rows(const Arguments& a, const Part& part, float* line) {
    for (int first = part.index * ROWS_AT_ONCE; first < part.n_rows; first += part.count * ROWS_AT_ONCE)
        take_row(a, part.kind, first + threadIdx.x / LANES, part.n_rows, line);
}

extern "C" __global__ void __launch_bounds__(THREADS)
prepare(const T* q, int q_stride, const T* k, int k_stride, const T* v, int v_stride, const ANGLE* cos,
        const ANGLE* sin, int angle_step, int rotary_dim, int interleaved, const T* q_matrix, const T* k_matrix,
        const int* past_length, int n_new, int batch, int q_heads, int kv_heads, int capacity, float key_clip_min,
        float key_clip_max, float value_clip_min, float value_clip_max, T* q_out, char* keys, char* values,
        float2* key_parameters, float2* value_parameters, int q_blocks, int k_blocks) {
    __shared__ float4 lines[ROWS_AT_ONCE][D / 4];
    Arguments a{{q, q_stride}, {k, k_stride}, {v, v_stride}, {cos, sin, angle_step, rotary_dim, interleaved},
                q_matrix, k_matrix, past_length, n_new, batch, q_heads, kv_heads, capacity,
                {key_clip_min, key_clip_max}, {value_clip_min, value_clip_max}, q_out, keys, values,
                key_parameters, value_parameters};
    let_next_kernel_start();
    wait_for_previous_kernel();
    take_rows(a, Part(a, q_blocks, k_blocks), reinterpret_cast<float*>(lines[threadIdx.x / LANES]));
}

// The same with the matrices multiplied by the tensor cores. A block takes 16 * ROW_WARPS rows of
// queries or keys; COLUMN_WARPS warps share the columns of the product, which is faster where there
// are few rows. The matrix is on its way before the previous kernel has ended. Rows are rounded to
// 16 bits in two pieces, x = high + low, for keys that are to be quantised: their codes are then
// those of the f32 product but for ties.
#if FORMAT != 32
#ifndef COLUMN_WARPS
#define COLUMN_WARPS 1
#endif
constexpr int ROW_WARPS = 4 / COLUMN_WARPS, TILE_ROWS = 16 * ROW_WARPS;
constexpr int STEPS = (D + 15) / 16, CHUNKS = STEPS * 2, PITCH = (CHUNKS + 1) * 16;
constexpr int PAIRS = (STEPS + COLUMN_WARPS - 1) / COLUMN_WARPS; // of 8-column tiles, a warp
constexpr bool BF16 = IS_BF16<T>;

/// Rounds a row's eight channels to 16 bits, and what is left over as well.
__device__ __forceinline__ void split8(char* high, char* low, const float (&x)[8]) {
    float rest[8];
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        words[i] = pack16<BF16>(x[2 * i], x[2 * i + 1]);
        float2 y = unpack16<BF16>(words[i]);
        rest[2 * i] = x[2 * i] - y.x, rest[2 * i + 1] = x[2 * i + 1] - y.y;
    }
    *reinterpret_cast<uint4*>(high) = make_uint4(words[0], words[1], words[2], words[3]);
    store8(reinterpret_cast<T*>(low), rest);
}

/// acc += rows at `x` times the columns of the warp.
__device__ __forceinline__ void multiply(float (&acc)[PAIRS * 2][4], unsigned x, unsigned matrix, int lane) {
    unsigned x_at = x + (lane & 15) * PITCH + (lane >> 4) * 16, m_at = matrix + (lane & 15) * PITCH + (lane >> 4) * 16;
#pragma unroll 4
    for (int k = 0; k < STEPS; k++) {
        unsigned a[4];
        ldmatrix4(a, x_at + k * 32);
#pragma unroll
        for (int n = 0; n < PAIRS; n++) {
            unsigned b[4];
            ldmatrix4_transposed(b, m_at + k * 16 * PITCH + n * 32);
            mma16816<BF16>(acc[2 * n], a, b[0], b[1]);
            mma16816<BF16>(acc[2 * n + 1], a, b[2], b[3]);
        }
    }
}

/// A tile of rows from `first` on: of queries or keys, times the matrix at `held`.
__device__ __forceinline__ void take_tile(const Arguments& a, Kind kind, int first, int n_rows, char* high, char* low,
                                          char* held, float2 (&extremes)[COLUMN_WARPS][TILE_ROWS]) {
    int heads = kind == QUERY ? a.q_heads : a.kv_heads, n_new = a.n_new;
    bool exact = CODES && kind == KEY;
    for (int r = threadIdx.x / LANES; r < TILE_ROWS; r += ROWS_AT_ONCE) {
        float x[8] = {};
        int c = threadIdx.x % LANES;
        if (r < n_rows && c < EIGHTS) {
            Row row(first + r, heads, n_new);
            const T* from = row.in(kind == QUERY ? a.q : a.k, n_new);
            load8(x, from + 8 * c);
            if (a.rotation.cos) rotate8(x, from, c, a.rotation, row.b, row.i);
        }
        if (c < CHUNKS) split8(high + r * PITCH + c * 16, low + r * PITCH + c * 16, x);
        if (LANES < CHUNKS && c == 0) split8(high + r * PITCH + LANES * 16, low + r * PITCH + LANES * 16, {});
    }
    wait_for_copies<0>();
    __syncthreads();

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int row_warp = warp / COLUMN_WARPS, column_warp = warp % COLUMN_WARPS, first_tile = column_warp * PAIRS * 2;
    float acc[PAIRS * 2][4];
#pragma unroll
    for (int n = 0; n < PAIRS * 2; n++) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0.f;
    // With columns shared, the last warps may have few of their own: they do some that others do, too.
    int own_column = min(first_tile, CHUNKS - PAIRS * 2);
    unsigned columns = shared_address(held) + own_column * 16;
    multiply(acc, shared_address(high + row_warp * 16 * PITCH), columns, lane);
    if (exact) multiply(acc, shared_address(low + row_warp * 16 * PITCH), columns, lane);
    first_tile = own_column;

    if (exact) {
        float low_at[2], high_at[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float least = INFINITY_F, most = MINUS_INFINITY;
#pragma unroll
            for (int n = 0; n < PAIRS * 2; n++) {
                if ((first_tile + n) * 8 >= D) continue;
                least = fminf(least, fminf(acc[n][2 * r], acc[n][2 * r + 1]));
                most = fmaxf(most, fmaxf(acc[n][2 * r], acc[n][2 * r + 1]));
            }
            low_at[r] = -quad_max(-least), high_at[r] = quad_max(most);
            if (t == 0) extremes[column_warp][row_warp * 16 + r * 8 + g] = make_float2(low_at[r], high_at[r]);
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int line = row_warp * 16 + r * 8 + g;
            float2 both = extremes[0][line];
#pragma unroll
            for (int w = 1; w < COLUMN_WARPS; w++)
                both.x = fminf(both.x, extremes[w][line].x), both.y = fmaxf(both.y, extremes[w][line].y);
            float2 grid = grid_of(both.x, both.y, a.key_clip);
            Row row(first + min(line, n_rows - 1), heads, n_new);
            int position = *a.past_length + row.i;
            bool inside = line < n_rows && position < a.capacity;
            long long at = cache_row(row.b, a.kv_heads, row.head, a.capacity, position);
            if (inside && column_warp == 0 && t == 0) a.key_parameters[at] = grid;
            char* to = a.keys + at * ROW_BYTES;
#pragma unroll
            for (int n = 0; n < PAIRS * 2; n++) {
                int tile = first_tile + n;
                unsigned x = code_of(acc[n][2 * r], grid), y = code_of(acc[n][2 * r + 1], grid);
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
        return;
    }
    __syncthreads(); // all are done with the rows
#pragma unroll
    for (int n = 0; n < PAIRS * 2; n++)
#pragma unroll
        for (int r = 0; r < 2; r++)
            *reinterpret_cast<unsigned*>(high + (row_warp * 16 + r * 8 + g) * PITCH + (first_tile + n) * 16 + t * 4) =
                pack16<BF16>(acc[n][2 * r], acc[n][2 * r + 1]);
    __syncthreads();
    for (int i = threadIdx.x; i < n_rows * EIGHTS; i += THREADS) {
        int r = i / EIGHTS, c = i % EIGHTS;
        Row row(first + r, heads, n_new);
        uint4 x = *reinterpret_cast<const uint4*>(high + r * PITCH + c * 16);
        if (kind == QUERY) {
            reinterpret_cast<uint4*>(a.q_out)[(((long long)row.b * n_new + row.i) * a.q_heads + row.head) * EIGHTS + c] = x;
        } else {
            int position = *a.past_length + row.i;
            if (position < a.capacity)
                reinterpret_cast<uint4*>(a.keys)[cache_row(row.b, a.kv_heads, row.head, a.capacity, position) * EIGHTS + c] = x;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
prepare_transformed(const T* q, int q_stride, const T* k, int k_stride, const T* v, int v_stride, const ANGLE* cos,
                    const ANGLE* sin, int angle_step, int rotary_dim, int interleaved, const T* q_matrix,
                    const T* k_matrix, const int* past_length, int n_new, int batch, int q_heads, int kv_heads,
                    int capacity, float key_clip_min, float key_clip_max, float value_clip_min, float value_clip_max,
                    T* q_out, char* keys, char* values, float2* key_parameters, float2* value_parameters, int q_blocks, int k_blocks) {
    extern __shared__ uint4 shared[];
    __shared__ float2 extremes[COLUMN_WARPS][TILE_ROWS];
    Arguments a{{q, q_stride}, {k, k_stride}, {v, v_stride}, {cos, sin, angle_step, rotary_dim, interleaved},
                q_matrix, k_matrix, past_length, n_new, batch, q_heads, kv_heads, capacity,
                {key_clip_min, key_clip_max}, {value_clip_min, value_clip_max}, q_out, keys, values,
                key_parameters, value_parameters};
    let_next_kernel_start();
    Part part(a, q_blocks, k_blocks);
    const T* matrix = part.kind == QUERY ? q_matrix : part.kind == KEY ? k_matrix : nullptr;
    if (!matrix) {
        wait_for_previous_kernel();
        take_rows(a, part, nullptr);
        return;
    }
    char *high = reinterpret_cast<char*>(shared), *low = high + TILE_ROWS * PITCH, *held = low + TILE_ROWS * PITCH;
    for (int i = threadIdx.x; i < STEPS * 16 * CHUNKS; i += THREADS) {
        int r = i / CHUNKS, c = i % CHUNKS;
        bool take = r < D && c < EIGHTS;
        copy16(shared_address(held + r * PITCH + c * 16), take ? matrix + r * D + c * 8 : matrix, take);
    }
    copies_started();
    wait_for_previous_kernel();

    for (int first = part.index * TILE_ROWS; first < part.n_rows; first += part.count * TILE_ROWS) {
        take_tile(a, part.kind, first, min(TILE_ROWS, part.n_rows - first), high, low, held, extremes);
        __syncthreads();
    }
}
#endif
