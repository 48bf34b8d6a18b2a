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
                                            const A *updates, uint32_t n, uint32_t length, int64_t size,
                                            int64_t y_step, int64_t step, const Walk<2> walk) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    int64_t at[2];
    locate(walk, i, at);
    for (uint32_t k = 0; k < length; k++) {
        int64_t from = at[1] + k * step;
        int64_t index = index_at(indices, (uint32_t)from, is_wide, size);
        if (index >= 0 && index < size) put(reduction, y + at[0] + index * y_step, updates[from]);
    }
}

/// As in gather.cu.
struct Tuples {
    int64_t steps[MAX_AXES];
    int64_t sizes[MAX_AXES];
    uint32_t length;
    uint32_t per_batch;
    uint64_t batch_step;
};

/// One thread for each of the `inner` elements of a slice, which takes the updates in order.
extern "C" __global__ void scatter_nd(int reduction, A *y, const void *indices, int is_wide,
                                      const A *updates, uint32_t n_tuples, uint32_t inner, const Tuples tuples) {
    begin();
    uint32_t i = thread_number();
    if (i >= inner) return;
    for (uint32_t tuple = 0; tuple < n_tuples; tuple++) {
        int64_t at = i;
        bool inside = true;
#pragma unroll
        for (int k = 0; k < MAX_AXES; k++) {
            if (k >= tuples.length) break;
            int64_t index = index_at(indices, tuple * tuples.length + k, is_wide, tuples.sizes[k]);
            inside = inside && index >= 0 && index < tuples.sizes[k];
            at += index * tuples.steps[k];
        }
        if (inside) put(reduction, y + at, updates[(uint64_t)tuple * inner + i]);
    }
}
