// The plain form of what tensor.cu does, for every size and type: one block a row, f32 throughout.
//
// Definitions: T, FACTOR_T (of the factors), SOURCE.

#define THREADS 512

// Extremes, or a sum, over the block: `a` the largest, `b` the largest or the sum.
template <bool SUM> __device__ inline void reduce(float &a, float &b, float2 *box) {
    reduce_warp<SUM>(a, b);
    __syncthreads();
    if (threadIdx.x % 32 == 0) box[threadIdx.x / 32] = make_float2(a, b);
    __syncthreads();
    a = box[0].x;
    b = box[0].y;
    for (int i = 1; i < THREADS / 32; i++) {
        a = fmaxf(a, box[i].x);
        b = SUM ? b + box[i].y : fmaxf(b, box[i].y);
    }
}

// The row, in shared memory; returns 1 / rms.
__device__ inline float read_row(float *row, const Rows &rows, int64_t at, int n, float2 *box) {
    Stats stats = {0.0f, 0.0f};
    for (int i = threadIdx.x; i < n; i += THREADS) {
        Chunk<1> x = load_chunk<1>(rows.x + at * rows.stride + i), other, weight, sum;
        if (PARTS == 2) other = load_chunk<1>(rows.other + at * rows.stride + i);
        if (HAS_NORM) weight = load_chunk<1>(rows.weight + i);
        combine<1>(row + i, x, other, weight, sum, stats);
        if (SOURCE == ADD_NORM) store_chunk<1>(rows.sum + at * n + i, sum);
    }
    reduce<true>(stats.magnitude, stats.squares, box);
    return inverse_rms(stats.squares, n, rows.epsilon);
}

// In place: vectors of `length` elements (`stride` apart) times the matrix p: y[o] = sum x[i] p[i][o].
// Vector v starts at v / inner * outer + v % inner.
__device__ inline void multiply(float *x, const FACTOR_T *p, int length, int stride, int n_vectors, int inner, int outer) {
    int at_once = THREADS / length;
    int o = threadIdx.x % length, which = threadIdx.x / length;
    for (int first = 0; first < n_vectors; first += at_once) {
        int v = first + which;
        bool works = which < at_once && v < n_vectors;
        float *vector = x + v / inner * outer + v % inner;
        float sum = 0.0f;
        if (works)
            for (int i = 0; i < length; i++) sum = fmaf(vector[i * stride], to_f32(p[i * length + o]), sum);
        __syncthreads();
        if (works) vector[o * stride] = sum;
        __syncthreads();
    }
}

// As transform_rows of tensor.cu with sizes at run time; absent factors and the absent kind of result are null.
// Dynamic shared memory: a row of f32.
extern "C" __global__ void __launch_bounds__(THREADS)
reference_rows(const T *x, const T *other, const T *weight, T *sum, int64_t stride, float epsilon, const FACTOR_T *p1, const FACTOR_T *p2,
               int32_t n1, int32_t n2, float clip_min, float clip_max, float q_max, int8_t *codes, float *scales, T *out) {
    extern __shared__ __align__(16) float row[];
    __shared__ float2 box[THREADS / 32];
    int n = n1 * n2;
    int64_t at = blockIdx.x;
    wait_for_previous_kernel();
    let_next_kernel_start();
    Rows rows = {x, other, weight, sum, stride, epsilon};
    float inverse = read_row(row, rows, at, n, box);
    for (int i = threadIdx.x; i < n; i += THREADS) row[i] *= inverse;
    __syncthreads();
    if (p2) multiply(row, p2, n2, 1, n1, 1, n2);
    if (p1) multiply(row, p1, n1, n2, n2, n2, n);
    if (!codes) {
        for (int i = threadIdx.x; i < n; i += THREADS) out[at * n + i] = from_f32<T>(row[i]);
        return;
    }
    float high = -INFINITY_F, low = -INFINITY_F;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        high = fmaxf(high, row[i]);
        low = fmaxf(low, -row[i]);
    }
    reduce<false>(high, low, box);
    Quantiser q = {clip_min, clip_max, q_max};
    float scale = row_scale(q, high, -low);
    if (threadIdx.x == 0) scales[at] = scale;
    for (int i = threadIdx.x; i < n; i += THREADS)
        codes[at * n + i] = (int8_t)fminf(fmaxf(round_half_even(row[i] / scale), -q_max - 1.0f), q_max);
}
