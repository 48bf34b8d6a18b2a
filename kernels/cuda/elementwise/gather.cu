// Elements of W bytes (1, 2, 4, 8, 16) at given indices: ONNX's Gather, GatherElements, GatherND,
// OneHot. Indices are i64 or, unless `is_wide`, i32. What an index out of bounds names is 0.
#include "walk.cuh"

typedef Word<W>::Type Bits;

/// x [outer, size, inner], indices [n_indices] -> y [outer, n_indices, inner]; n elements of y.
extern "C" __global__ void gather(const Bits *x, const void *indices, int is_wide, Bits *y, uint32_t n,
                                  uint32_t n_indices, uint32_t size, uint32_t inner) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    uint32_t row = i / inner, within = i - row * inner;
    uint32_t outer = row / n_indices;
    int64_t index = index_at(indices, row - outer * n_indices, is_wide, size);
    bool inside = index >= 0 && index < size;
    y[i] = inside ? x[((uint64_t)outer * size + index) * inner + within] : Bits{};
}

/// y[at] = x[at with indices[at] on the axis]: `walk` goes over the dense indices with the steps of
/// x, that of the axis 0; `step` and `size` are those of the axis in x.
extern "C" __global__ void gather_elements(const Bits *x, const void *indices, int is_wide, Bits *y,
                                           uint32_t n, int64_t size, int64_t step, const Walk<1> walk) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    int64_t at[1];
    locate(walk, i, at);
    int64_t index = index_at(indices, i, is_wide, size);
    y[i] = index >= 0 && index < size ? x[at[0] + index * step] : Bits{};
}

/// As `Tuples` in gather.rs: how a tuple of indices names a slice.
struct Tuples {
    int64_t steps[MAX_AXES];
    int64_t sizes[MAX_AXES];
    uint32_t length;
    uint32_t per_batch;
    uint64_t batch_step;
};

/// y [tuples, inner] of x; the tuples lie one after the other, `per_batch` of them for each batch.
extern "C" __global__ void gather_nd(const Bits *x, const void *indices, int is_wide, Bits *y, uint32_t n,
                                     uint32_t inner, const Tuples tuples) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    uint32_t tuple = i / inner;
    int64_t at = i - tuple * inner + (uint64_t)(tuple / tuples.per_batch) * tuples.batch_step;
    bool inside = true;
#pragma unroll
    for (int k = 0; k < MAX_AXES; k++) {
        if (k >= tuples.length) break;
        int64_t index = index_at(indices, tuple * tuples.length + k, is_wide, tuples.sizes[k]);
        inside = inside && index >= 0 && index < tuples.sizes[k];
        at += index * tuples.steps[k];
    }
    y[i] = inside ? x[at] : Bits{};
}

/// y [outer, depth, inner] of indices [outer, inner]: values[1] where the index is met, else values[0].
extern "C" __global__ void one_hot(const void *indices, int is_wide, const Bits *values, Bits *y, uint32_t n,
                                   uint32_t depth, uint32_t inner) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    uint32_t row = i / inner;
    uint32_t outer = row / depth;
    int64_t index = index_at(indices, outer * inner + (i - row * inner), is_wide, depth);
    y[i] = values[index == (int64_t)(row - outer * depth)];
}
