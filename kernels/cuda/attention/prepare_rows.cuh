// The rows that come before attention (prepare.cu, prepare_many.cu). Stands behind heads.cuh.
//
// q, k, v: [batch, new, heads * D] of T in rows of their own strides, so that they may be parts of
// one tensor. cos, sin: ANGLE [batch or 1, new, rotary_dim / 2], or null. q_matrix, k_matrix: T
// [D, D], or null. q_out: T [batch, new, q_heads * D]; without q (q_heads 0) only the cache is
// written. Positions beyond the capacity are dropped.
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

/// What every kernel here is given first, in the order of `KvCache::prepare_args`, and `Arguments` of it.
#define ROW_PARAMETERS                                                                                         \
    const T *q, int q_stride, const T *k, int k_stride, const T *v, int v_stride, const ANGLE *cos,             \
        const ANGLE *sin, int angle_step, int rotary_dim, int interleaved, const T *q_matrix, const T *k_matrix, \
        const int *past_length, int n_new, int batch, int q_heads, int kv_heads, int capacity,                  \
        float key_clip_min, float key_clip_max, float value_clip_min, float value_clip_max, T *q_out,           \
        char *keys, char *values, float2 *key_parameters, float2 *value_parameters
#define ROW_ARGUMENTS                                                                                          \
    {                                                                                                          \
        {q, q_stride}, {k, k_stride}, {v, v_stride}, {cos, sin, angle_step, rotary_dim, interleaved}, q_matrix, \
            k_matrix, past_length, n_new, batch, q_heads, kv_heads, capacity, {key_clip_min, key_clip_max},     \
            {value_clip_min, value_clip_max}, q_out, keys, values, key_parameters, value_parameters             \
    }

enum Kind { QUERY, KEY, VALUE };

/// One head at one position.
struct Row {
    int b, i, head;
    __device__ __forceinline__ Row(int index, int heads, int n_new)
        : b(index / heads / n_new), i(index / heads % n_new), head(index % heads) {}
};

/// Row `index` of a kind, or the last one.
__device__ __forceinline__ Row row_of(const Arguments& a, Kind kind, int index, int n_rows) {
    return Row(min(index, n_rows - 1), kind == QUERY ? a.q_heads : a.kv_heads, a.n_new);
}

/// Where a row is read.
__device__ __forceinline__ const T* source(const Arguments& a, Kind kind, const Row& row) {
    const T* from = kind == QUERY ? a.q.from : kind == KEY ? a.k.from : a.v.from;
    int stride = kind == QUERY ? a.q.stride : kind == KEY ? a.k.stride : a.v.stride;
    return from + ((long long)row.b * a.n_new + row.i) * stride + row.head * D;
}
