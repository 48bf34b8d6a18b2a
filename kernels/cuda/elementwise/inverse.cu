// Inverses of small matrices [n, n] of A, computed in f64: com.microsoft's Inverse.
#include "numbers.cuh"

#define THREADS 512

/// Swaps two rows (`step` 1) or two columns (`step` n) of m.
static __device__ void swap(double *m, uint32_t n, uint32_t a, uint32_t b, uint32_t along, uint32_t step) {
    for (uint32_t j = threadIdx.x; j < n; j += THREADS) {
        double held = m[a * along + j * step];
        m[a * along + j * step] = m[b * along + j * step];
        m[b * along + j * step] = held;
    }
}

/// A block for each matrix: Gauss and Jordan's elimination in place with partial pivoting, in
/// `scratch` [matrices, n, n] or, where that is null, in shared memory. Dynamic shared memory: the
/// matrix (without scratch), 2 n doubles and n integers. A singular matrix becomes NaN: a kernel
/// can't fail.
extern "C" __global__ void __launch_bounds__(THREADS) invert(const A *x, A *y, double *scratch, uint32_t n) {
    begin();
    extern __shared__ double shared[];
    __shared__ double sizes[THREADS];
    __shared__ uint32_t rows[THREADS];
    uint64_t matrix = (uint64_t)blockIdx.x * n * n;
    double *column = shared, *least = shared + n;
    uint32_t *swapped = (uint32_t *)(shared + 2 * n);
    double *m = scratch ? scratch + matrix : shared + 2 * n + (n + 1) / 2;
    uint32_t thread = threadIdx.x;
    for (uint32_t i = thread; i < n * n; i += THREADS) m[i] = to_f32(x[matrix + i]);
    __syncthreads();
    // A pivot below this is one of rounding errors alone.
    for (uint32_t c = thread; c < n; c += THREADS) {
        double largest = 0.0;
        for (uint32_t i = 0; i < n; i++) largest = fmax(largest, fabs(m[i * n + c]));
        least[c] = n * 2.220446049250313e-16 * largest;
    }
    bool is_singular = false;
    for (uint32_t c = 0; c < n; c++) {
        __syncthreads();
        sizes[thread] = -1.0;
        rows[thread] = c;
        for (uint32_t i = c + thread; i < n; i += THREADS)
            if (fabs(m[i * n + c]) > sizes[thread]) sizes[thread] = fabs(m[i * n + c]), rows[thread] = i;
        for (uint32_t half = THREADS / 2; half > 0; half /= 2) {
            __syncthreads();
            if (thread < half && sizes[thread + half] > sizes[thread])
                sizes[thread] = sizes[thread + half], rows[thread] = rows[thread + half];
        }
        __syncthreads();
        uint32_t best = rows[0];
        if (!(sizes[0] > least[c]) || !isfinite(sizes[0])) is_singular = true;
        if (thread == 0) swapped[c] = best;
        if (best != c) swap(m, n, c, best, n, 1);
        __syncthreads();
        double pivot = m[c * n + c];
        for (uint32_t i = thread; i < n; i += THREADS) column[i] = m[i * n + c];
        __syncthreads();
        for (uint32_t j = thread; j < n; j += THREADS) m[c * n + j] = (j == c ? 1.0 : m[c * n + j]) / pivot;
        __syncthreads();
        for (uint32_t at = thread; at < n * n; at += THREADS) {
            uint32_t i = at / n, j = at - i * n;
            if (i != c) m[at] = (j == c ? 0.0 : m[at]) - column[i] * m[c * n + j];
        }
    }
    // What was done to rows before is done to the columns of the inverse, backwards.
    for (uint32_t c = n; c-- > 0;) {
        __syncthreads();
        if (swapped[c] != c) swap(m, n, c, swapped[c], 1, n);
    }
    __syncthreads();
    for (uint32_t i = thread; i < n * n; i += THREADS)
        y[matrix + i] = from_f32<A>(is_singular ? __int_as_float(0x7fffffff) : (float)m[i]);
}
