// What comes before attention, in one pass: rotary embedding of queries and keys (Su et al. 2021),
// a matrix on each of their heads (`TransformHeads`), and the write to the cache, which quantises
// as `QuantizeDequantizeHeads` does (layout.cuh). Operands as of prepare_rows.cuh.
//
// The unit is a row: one head at one position (heads.cuh). Rows are numbered queries first, then
// keys, then values.
constexpr int THREADS = 128, ROWS_AT_ONCE = THREADS / LANES;

/// A group of LANES lanes takes row `index` of a kind, of which `x` holds channels 8c..8c + 8; `line`
/// is shared memory for D floats. All lanes of the warp come here.
__device__ __forceinline__ void take_row(const Arguments& a, Kind kind, int index, int n_rows, float (&x)[8], float* line) {
    int c = threadIdx.x % LANES;
    Row row = row_of(a, kind, index, n_rows);
    bool take = c < EIGHTS;
    if (kind != VALUE && a.rotation.cos) rotate8(x, source(a, kind, row), c, take, a.rotation, row.b, row.i);
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

/// Loads of AT_ONCE rows, ROWS_AT_ONCE apart, are under way together.
template <int AT_ONCE>
__device__ __forceinline__ void load_rows(float (&x)[AT_ONCE][8], const Arguments& a, Kind kind, int first, int n_rows) {
    int c = threadIdx.x % LANES;
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++) {
#pragma unroll
        for (int e = 0; e < 8; e++) x[j][e] = 0.f;
        Row row = row_of(a, kind, first + threadIdx.x / LANES + j * ROWS_AT_ONCE, n_rows);
        if (c < EIGHTS) load8(x[j], source(a, kind, row) + 8 * c);
    }
}

/// All rows of a block's part, without the tensor cores.
template <int AT_ONCE>
__device__ __forceinline__ void take_rows(const Arguments& a, const Part& part, float* line) {
    constexpr int STEP = ROWS_AT_ONCE * AT_ONCE;
    for (int first = part.index * STEP; first < part.n_rows; first += part.count * STEP) {
        float x[AT_ONCE][8];
        load_rows(x, a, part.kind, first, part.n_rows);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            take_row(a, part.kind, first + threadIdx.x / LANES + j * ROWS_AT_ONCE, part.n_rows, x[j], line);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
prepare(ROW_PARAMETERS, int q_blocks, int k_blocks) {
    __shared__ float4 lines[ROWS_AT_ONCE][D / 4];
    Arguments a = ROW_ARGUMENTS;
    let_next_kernel_start();
    wait_for_previous_kernel();
    take_rows<1>(a, Part(a, q_blocks, k_blocks), reinterpret_cast<float*>(lines[threadIdx.x / LANES]));
}

// The same with the matrices multiplied by the tensor cores. A block takes 16 * ROW_WARPS rows of
// queries or keys; COLUMN_WARPS warps share the columns of the product, which is faster where there
// are few rows. The matrix is on its way before the previous kernel has ended.
#if FORMAT != 32
#ifndef COLUMN_WARPS
#define COLUMN_WARPS 1
#endif
constexpr int ROW_WARPS = 4 / COLUMN_WARPS, TILE_ROWS = 16 * ROW_WARPS;
constexpr int AT_ONCE = TILE_ROWS <= ROWS_AT_ONCE ? 1 : TILE_ROWS / ROWS_AT_ONCE;
constexpr int PAIRS = (MATRIX_STEPS + COLUMN_WARPS - 1) / COLUMN_WARPS; // of 8-column tiles, a warp

/// A tile of rows from `first` on: of queries or keys, times the matrix at `held`.
__device__ __forceinline__ void take_tile(const Arguments& a, Kind kind, int first, int n_rows, char* high, char* low,
                                          char* held, float2 (&extremes)[COLUMN_WARPS][TILE_ROWS]) {
    int heads = kind == QUERY ? a.q_heads : a.kv_heads, n_new = a.n_new;
    bool exact = CODES && kind == KEY;
    float x[AT_ONCE][8];
    load_rows(x, a, kind, first, first + n_rows);
#pragma unroll
    for (int j = 0; j < AT_ONCE; j++) {
        int c = threadIdx.x % LANES, r = threadIdx.x / LANES + j * ROWS_AT_ONCE;
        Row row = row_of(a, kind, first + r, first + n_rows);
        if (a.rotation.cos) rotate8(x[j], source(a, kind, row), c, c < EIGHTS, a.rotation, row.b, row.i);
        if (r >= TILE_ROWS) continue;
        put_row(high + r * PITCH, low + r * PITCH, c, x[j], exact);
    }
    wait_for_copies<0>();
    __syncthreads();

    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int row_warp = warp / COLUMN_WARPS, column_warp = warp % COLUMN_WARPS;
    // With columns shared, the last warps may have few of their own: they do some that others do, too.
    int first_tile = min(column_warp * PAIRS * 2, CHUNKS - PAIRS * 2);
    unsigned columns = shared_address(held) + first_tile * 16;
    float acc[PAIRS][2][4] = {};
    unsigned rows = shared_address(high + row_warp * 16 * PITCH);
    if (exact) multiply_split(acc, rows, shared_address(low + row_warp * 16 * PITCH), columns, lane);
    else multiply(acc, rows, columns, lane);

    if (exact) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float2 own = extremes_of(acc, r, first_tile);
            if (t == 0) extremes[column_warp][row_warp * 16 + r * 8 + g] = own;
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
            write_codes(a.keys + at * ROW_BYTES, acc, r, first_tile, grid, inside, t);
        }
        return;
    }
    __syncthreads(); // all are done with the rows
#pragma unroll
    for (int r = 0; r < 2; r++)
        write_elements(high + (row_warp * 16 + r * 8 + g) * PITCH, acc, r, first_tile, CHUNKS, t);
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
prepare_transformed(ROW_PARAMETERS, int q_blocks, int k_blocks) {
    extern __shared__ uint4 shared[];
    __shared__ float2 extremes[COLUMN_WARPS][TILE_ROWS];
    Arguments a = ROW_ARGUMENTS;
    let_next_kernel_start();
    Part part(a, q_blocks, k_blocks);
    const T* matrix = part.kind == QUERY ? q_matrix : part.kind == KEY ? k_matrix : nullptr;
    if (!matrix) {
        wait_for_previous_kernel();
        take_rows<AT_ONCE>(a, part, nullptr);
        return;
    }
    char *high = reinterpret_cast<char*>(shared), *low = high + TILE_ROWS * PITCH, *held = low + TILE_ROWS * PITCH;
    hold_matrix<THREADS>(held, matrix);
    copies_started();
    wait_for_previous_kernel();

    for (int first = part.index * TILE_ROWS; first < part.n_rows; first += part.count * TILE_ROWS) {
        take_tile(a, part.kind, first, min(TILE_ROWS, part.n_rows - first), high, low, held, extremes);
        __syncthreads();
    }
}
#endif
