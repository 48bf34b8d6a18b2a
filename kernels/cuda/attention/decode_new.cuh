// What prepare.cu does, within the blocks of decoding, so that a step is one launch. Every block
// rotates and multiplies the queries that it takes. The first part of a key head does so with the
// new keys, quantises them and the new values, and writes them to the cache; it attends to them as
// to a group of their own, from shared memory, so that no block reads from the cache what another
// writes meanwhile. Stands behind decode_group.cuh, heads.cuh and head_matrix.cuh.
//
// A key head has at most 16 rows of queries and 8 new positions.
constexpr int NEW_ROWS = 8;
constexpr int BLOCK = WARPS * 32, ROWS_AT_ONCE = BLOCK / LANES;
constexpr int PAIRS = (MATRIX_STEPS + WARPS - 1) / WARPS; // of 8-column tiles, a warp
constexpr int TILE_BYTES = ROWS * PITCH, NEW_BYTES = NEW_ROWS * ROW_BYTES, MATRIX_BYTES = MATRIX_STEPS * 16 * PITCH;

/// The new rows of a block's key head.
struct NewRows {
    Input q, k, v;
    Rotation rotation;
    const T *q_matrix, *k_matrix;
    Clip key_clip, value_clip;
    int b, head, group, n_new;
    bool with_keys; // and values; else queries alone
};

/// Shared memory for them: dynamic memory from `start` on, of which what `held` is may be written
/// over when the rows are prepared.
struct NewSpace {
    char *queries, *product, *high, *low; // lines of 16 rows each
    char *keys, *values;                  // [NEW_ROWS][ROW_BYTES], as the cache has them
    char* held;                           // the matrices that there are
    float2 *key_parameters, *value_parameters, *extremes; // [NEW_ROWS], [NEW_ROWS], [WARPS][NEW_ROWS]
    __device__ __forceinline__ NewSpace(char* start, float2* numbers)
        : queries(start), product(queries + TILE_BYTES), high(product + TILE_BYTES), low(high + TILE_BYTES),
          keys(low + TILE_BYTES), values(keys + NEW_BYTES), held(values + NEW_BYTES), key_parameters(numbers),
          value_parameters(numbers + NEW_ROWS), extremes(numbers + 2 * NEW_ROWS) {}
    __device__ __forceinline__ char* key_matrix(const NewRows& a) const { return held + (a.q_matrix ? MATRIX_BYTES : 0); }
};

/// Starts to copy the matrices, which the previous kernel does not write.
__device__ __forceinline__ void hold_matrices(const NewRows& a, const NewSpace& to) {
    if (a.q_matrix) hold_matrix<BLOCK>(to.held, a.q_matrix);
    if (a.with_keys && a.k_matrix) hold_matrix<BLOCK>(to.key_matrix(a), a.k_matrix);
    copies_started();
}

/// Rotates the rows: queries first, then keys, then values. What goes through no matrix is cached.
__device__ __forceinline__ void take_new_rows(const NewRows& a, const NewSpace& to) {
    int c = threadIdx.x % LANES, n_queries = a.group * a.n_new, n_rows = n_queries + (a.with_keys ? 2 * a.n_new : 0);
    bool take = c < EIGHTS;
    for (int first = 0; first < n_rows; first += ROWS_AT_ONCE) {
        int r = first + threadIdx.x / LANES, row = min(r, n_rows - 1);
        bool inside = r < n_rows, is_query = row < n_queries, is_value = row >= n_queries + a.n_new;
        int line = is_query ? row : is_value ? row - n_queries - a.n_new : row - n_queries;
        int i = is_query ? line / a.group : line, head = is_query ? a.head * a.group + line % a.group : a.head;
        // No `?:` between members: that would ask for an address, and put all of `a` into memory.
        Input in = a.q;
        Clip clip = a.key_clip;
        if (!is_query) in = a.k;
        if (is_value) in = a.v, clip = a.value_clip;
        const T* from = in.from + ((long long)a.b * a.n_new + i) * in.stride + head * D;

        // Not only where they are wanted: what follows is asked for meanwhile.
        float x[8];
        load8(x, from + 8 * min(c, EIGHTS - 1));
#pragma unroll
        for (int e = 0; e < 8; e++)
            if (!take) x[e] = 0.f;
        if (a.rotation.cos) rotate8(x, from, c, take && !is_value, a.rotation, a.b, i);
        bool is_multiplied = !is_query && !is_value && a.k_matrix;
        if (inside && is_query) put_row(to.queries + line * PITCH, nullptr, c, x, false);
        if (inside && is_multiplied) put_row(to.high + line * PITCH, to.low + line * PITCH, c, x, CODES);
        if (a.with_keys)
            write_cache(x, c, take, inside && !is_query && !is_multiplied, line, is_value ? to.values : to.keys,
                        is_value ? to.value_parameters : to.key_parameters, clip);
    }
}

/// The products of a warp's columns.
typedef float Products[PAIRS][2][4];

/// Queries and keys times their matrices, step by step together: one product alone would wait for its own sums.
__device__ __forceinline__ void multiply_both(Products& queries, Products& keys, const NewRows& a, const NewSpace& to, int column, int lane) {
    constexpr bool B = IS_BF16<T>;
    unsigned offset = (lane & 15) * PITCH + (lane >> 4) * 16;
    unsigned q = shared_address(to.queries) + offset, high = shared_address(to.high) + offset, low = shared_address(to.low) + offset;
    unsigned q_matrix = shared_address(to.held) + offset + column * 16, k_matrix = shared_address(to.key_matrix(a)) + offset + column * 16;
#pragma unroll 4
    for (int k = 0; k < MATRIX_STEPS; k++) {
        unsigned x[4], y[4], rest[4];
        ldmatrix4(x, q + k * 32);
        ldmatrix4(y, high + k * 32);
        if constexpr (CODES) ldmatrix4(rest, low + k * 32);
#pragma unroll
        for (int n = 0; n < PAIRS; n++) {
            unsigned b[4], c[4];
            ldmatrix4_transposed(b, q_matrix + k * 16 * PITCH + n * 32);
            ldmatrix4_transposed(c, k_matrix + k * 16 * PITCH + n * 32);
            mma16816<B>(keys[n][0], y, c[0], c[1]);
            mma16816<B>(keys[n][1], y, c[2], c[3]);
            mma16816<B>(queries[n][0], x, b[0], b[1]);
            mma16816<B>(queries[n][1], x, b[2], b[3]);
            if constexpr (CODES) {
                mma16816<B>(keys[n][0], rest, c[0], c[1]);
                mma16816<B>(keys[n][1], rest, c[2], c[3]);
            }
        }
    }
}

/// The queries as they would be in memory.
__device__ __forceinline__ void put_queries(const Products& acc, const NewSpace& to, int column, int lane) {
#pragma unroll
    for (int r = 0; r < 2; r++) write_elements(to.product + (lane / 4 + 8 * r) * PITCH, acc, r, column, CHUNKS, lane % 4);
}

/// The keys as the cache has them. All warps come here.
__device__ __forceinline__ void put_keys(const Products& acc, const NewRows& a, const NewSpace& to, int column, int warp, int lane) {
    int g = lane / 4, t = lane % 4;
    bool inside = g < a.n_new;
    char* line = to.keys + g * ROW_BYTES;
    if constexpr (!CODES) {
        if (inside) write_elements(line, acc, 0, column, EIGHTS, t);
    } else {
        float2 own = extremes_of(acc, 0, column);
        if (t == 0) to.extremes[warp * NEW_ROWS + g] = own;
        __syncthreads();
        float2 both = to.extremes[g];
#pragma unroll
        for (int w = 1; w < WARPS; w++) {
            float2 other = to.extremes[w * NEW_ROWS + g];
            both.x = fminf(both.x, other.x), both.y = fmaxf(both.y, other.y);
        }
        float2 grid = grid_of(both.x, both.y, a.key_clip);
        if (inside && warp == 0 && t == 0) to.key_parameters[g] = grid;
        write_codes(line, acc, 0, column, grid, inside, t);
    }
}

/// Everything above; gives the lines of the queries. All threads of the block come here.
__device__ __forceinline__ const char* prepare_new(const NewRows& a, const NewSpace& to, int warp, int lane) {
    take_new_rows(a, to);
    wait_for_copies<0>();
    __syncthreads();
    bool has_keys = a.with_keys && a.k_matrix;
    if (!a.q_matrix && !has_keys) return to.queries;
    // The last warps may have few columns of their own: they do some that others do, too.
    int column = min(warp * PAIRS * 2, CHUNKS - PAIRS * 2);
    Products queries = {}, keys = {};
    unsigned matrix = shared_address(to.key_matrix(a)) + column * 16;
    if (a.q_matrix && has_keys) multiply_both(queries, keys, a, to, column, lane);
    else if (a.q_matrix) multiply(queries, shared_address(to.queries), shared_address(to.held) + column * 16, lane);
    else if (CODES) multiply_split(keys, shared_address(to.high), shared_address(to.low), matrix, lane);
    else multiply(keys, shared_address(to.high), matrix, lane);
    if (a.q_matrix) put_queries(queries, to, column, lane);
    if (has_keys) put_keys(keys, a, to, column, warp, lane);
    __syncthreads();
    return a.q_matrix ? to.product : to.queries;
}

/// Writes `n` new keys and values to the cache, whose row for the first is `at`.
__device__ __forceinline__ void write_new(const NewSpace& from, int n, long long at, char* keys, char* values,
                                          float2* key_parameters, float2* value_parameters) {
    unsigned* to_keys = reinterpret_cast<unsigned*>(keys + at * ROW_BYTES);
    unsigned* to_values = reinterpret_cast<unsigned*>(values + at * ROW_BYTES);
    for (int i = threadIdx.x; i < n * (ROW_BYTES / 4); i += BLOCK) {
        to_keys[i] = reinterpret_cast<const unsigned*>(from.keys)[i];
        to_values[i] = reinterpret_cast<const unsigned*>(from.values)[i];
    }
    if (CODES && threadIdx.x < n) {
        key_parameters[at + threadIdx.x] = from.key_parameters[threadIdx.x];
        value_parameters[at + threadIdx.x] = from.value_parameters[threadIdx.x];
    }
}
