// Elements of W bytes (1, 2, 4, 8, 16) at given indices: ONNX's Gather, GatherElements, GatherND,
// OneHot. Indices are i64 or, unless `is_wide`, i32. What an index out of bounds names is 0.
#include "walk.cuh"

typedef Word<W>::Type Bits;

/// x [outer, size, inner], indices [n_indices] -> y [outer, n_indices, inner]; n elements of y.
extern "C" __global__ void gather(const Bits *x, const void *indices, int is_wide, Bits *y, u32_t n,
                                  u32_t n_indices, u32_t size, u32_t inner) {
    begin();
    u32_t i = thread_number();
    if (i >= n) return;
    u32_t row = i / inner, within = i - row * inner;
    u32_t outer = row / n_indices;
    i64_t index = index_at(indices, row - outer * n_indices, is_wide, size);
    bool inside = index >= 0 && index < size;
    y[i] = inside ? x[((u64_t)outer * size + index) * inner + within] : Bits{};
}

/// y[at] = x[at with indices[at] on the axis]: `walk` goes over the dense indices with the steps of
/// x, that of the axis 0; `step` and `size` are those of the axis in x.
extern "C" __global__ void gather_elements(const Bits *x, const void *indices, int is_wide, Bits *y,
                                           u32_t n, i64_t size, i64_t step, const Walk<1> walk) {
    begin();
    u32_t i = thread_number();
    if (i >= n) return;
    i64_t at[1];
    locate(walk, i, at);
    i64_t index = index_at(indices, i, is_wide, size);
    y[i] = index >= 0 && index < size ? x[at[0] + index * step] : Bits{};
}

/// As `Tuples` in gather.rs: how a tuple of indices names a slice.
struct Tuples {
    i64_t steps[MAX_AXES];
    i64_t sizes[MAX_AXES];
    u32_t length;
    u32_t per_batch;
    u64_t batch_step;
};

/// y [tuples, inner] of x; the tuples lie one after the other, `per_batch` of them for each batch.
extern "C" __global__ void gather_nd(const Bits *x, const void *indices, int is_wide, Bits *y, u32_t n,
                                     u32_t inner, const Tuples tuples) {
    begin();
    u32_t i = thread_number();
    if (i >= n) return;
    u32_t tuple = i / inner;
    i64_t at = i - tuple * inner + (u64_t)(tuple / tuples.per_batch) * tuples.batch_step;
    bool inside = true;
#pragma unroll
    for (int k = 0; k < MAX_AXES; k++) {
        if (k >= tuples.length) break;
        i64_t index = index_at(indices, tuple * tuples.length + k, is_wide, tuples.sizes[k]);
        inside = inside && index >= 0 && index < tuples.sizes[k];
        at += index * tuples.steps[k];
    }
    y[i] = inside ? x[at] : Bits{};
}

/// y [outer, depth, inner] of indices [outer, inner]: values[1] where the index is met, else values[0].
extern "C" __global__ void one_hot(const void *indices, int is_wide, const Bits *values, Bits *y, u32_t n,
                                   u32_t depth, u32_t inner) {
    begin();
    u32_t i = thread_number();
    if (i >= n) return;
    u32_t row = i / inner;
    u32_t outer = row / depth;
    i64_t index = index_at(indices, outer * inner + (i - row * inner), is_wide, depth);
    y[i] = values[index == (i64_t)(row - outer * depth)];
}
