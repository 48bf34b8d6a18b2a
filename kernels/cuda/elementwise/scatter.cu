// ONNX's ScatterElements and ScatterND into a copy of the data, elements of type A.
#include "walk.cuh"

typedef Number<A>::Wide Wide;

/// In the order of `Reduction` in scatter.rs.
enum { NONE, ADD, MUL, MAX, MIN };

static __device__ void put(int reduction, A *at, A update) {
    Wide x = Number<A>::read(*at), u = Number<A>::read(update);
    switch (reduction) {
        case NONE: *at = update; return;
        case ADD: x += u; break;
        case MUL: x *= u; break;
        case MAX: x = is_nan(x) || u > x ? u : x; break;
        case MIN: x = is_nan(x) || u < x ? u : x; break;
    }
    *at = Number<A>::write(x);
}

/// One thread for each of `n` lines of the indices along the axis: only updates of one line can
/// meet, and these come in order. `walk` says where the lines begin in y and in the dense indices;
/// `y_step` and `step` are the steps along the axis there, `length` the line's length.
extern "C" __global__ void scatter_elements(int reduction, A *y, const void *indices, int is_wide,
                                            const A *updates, u32_t n, u32_t length, i64_t size,
                                            i64_t y_step, i64_t step, const Walk<2> walk) {
    begin();
    u32_t i = thread_number();
    if (i >= n) return;
    i64_t at[2];
    locate(walk, i, at);
    for (u32_t k = 0; k < length; k++) {
        i64_t from = at[1] + k * step;
        i64_t index = index_at(indices, (u32_t)from, is_wide, size);
        if (index >= 0 && index < size) put(reduction, y + at[0] + index * y_step, updates[from]);
    }
}

/// As in gather.cu.
struct Tuples {
    i64_t steps[MAX_AXES];
    i64_t sizes[MAX_AXES];
    u32_t length;
    u32_t per_batch;
    u64_t batch_step;
};

/// One thread for each of the `inner` elements of a slice, which takes the updates in order.
extern "C" __global__ void scatter_nd(int reduction, A *y, const void *indices, int is_wide,
                                      const A *updates, u32_t n_tuples, u32_t inner, const Tuples tuples) {
    begin();
    u32_t i = thread_number();
    if (i >= inner) return;
    for (u32_t tuple = 0; tuple < n_tuples; tuple++) {
        i64_t at = i;
        bool inside = true;
#pragma unroll
        for (int k = 0; k < MAX_AXES; k++) {
            if (k >= tuples.length) break;
            i64_t index = index_at(indices, tuple * tuples.length + k, is_wide, tuples.sizes[k]);
            inside = inside && index >= 0 && index < tuples.sizes[k];
            at += index * tuples.steps[k];
        }
        if (inside) put(reduction, y + at, updates[(u64_t)tuple * inner + i]);
    }
}
