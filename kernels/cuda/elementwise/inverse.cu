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

#define SMALL 128
#define WARPS 8

/// The same for n up to SMALL, a block for each matrix, with two barriers a column: every warp finds the
/// pivot by itself (by 16 bits of its size), and rows stay where they are until the end. Dynamic shared
/// memory: n rows of n | 1 doubles, 3 n doubles and n integers.
extern "C" __global__ void __launch_bounds__(32 * WARPS) invert_small(const A *x, A *y, uint32_t n) {
    begin();
    extern __shared__ double shared[];
    uint32_t pitch = n | 1, thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    double *m = shared, *column = m + n * pitch, *row = column + n, *least = row + n;
    uint32_t *order = (uint32_t *)(least + n);  // the row that was the pivot of each column
    uint64_t matrix = (uint64_t)blockIdx.x * n * n;
    for (uint32_t i = thread; i < n * n; i += 32 * WARPS) m[i / n * pitch + i % n] = to_f32(x[matrix + i]);
    __syncthreads();
    // A pivot below this is one of rounding errors alone.
    if (thread < n) {
        double largest = 0.0;
        for (uint32_t i = 0; i < n; i++) largest = fmax(largest, fabs(m[i * pitch + thread]));
        least[thread] = n * 2.220446049250313e-16 * largest;
    }
    bool is_singular = false;
    uint32_t used = 0;  // rows lane + 32 k that were pivots
    for (uint32_t c = 0; c < n; c++) {
        __syncthreads();
        uint32_t best = 0;
#pragma unroll
        for (int k = 0; k < SMALL / 32; k++) {
            uint32_t i = lane + 32 * k;
            if (i >= n || used >> k & 1) continue;
            uint32_t size = __float_as_uint(fabsf((float)m[i * pitch + c]));
            best = max(best, (size & ~(SMALL - 1)) | (SMALL - 1 - i));
        }
        uint32_t pivot_row = SMALL - 1 - (__reduce_max_sync(0xffffffff, best) & (SMALL - 1));
        if (pivot_row % 32 == lane) used |= 1u << pivot_row / 32;
        double pivot = m[pivot_row * pitch + c], inverse = 1.0 / pivot;
        if (!(fabs(pivot) > least[c]) || !isfinite(pivot)) is_singular = true;
        if (thread < n) {
            column[thread] = m[thread * pitch + c];
            row[thread] = thread == c ? inverse : m[pivot_row * pitch + thread] * inverse;
        }
        if (thread == 0) order[c] = pivot_row;
        __syncthreads();
        for (uint32_t i = warp; i < n; i += WARPS) {
            double factor = column[i];
            for (uint32_t j = lane; j < n; j += 32) {
                double &value = m[i * pitch + j];
                value = i == pivot_row ? row[j] : (j == c ? 0.0 : value) - factor * row[j];
            }
        }
    }
    __syncthreads();
    for (uint32_t i = warp; i < n; i += WARPS)
        for (uint32_t j = lane; j < n; j += 32)
            y[matrix + i * n + order[j]] =
                from_f32<A>(is_singular ? __int_as_float(0x7fffffff) : (float)m[order[i] * pitch + j]);
}

/// Threads along a row and along a column of a matrix that is kept in registers.
#define SIDE 16

/// The same for n up to SIDE * TILE, a block for each matrix: every thread keeps every SIDE-th element of
/// every SIDE-th row, and what a step needs of others, a row and a column, goes through shared memory. The
/// steps are those of `invert_small`.
template <int TILE>
static __device__ void invert_held(const A *x, A *y, uint32_t n) {
    constexpr uint32_t SIZE = SIDE * TILE;
    // The column of the step before may still be read when the next one is written.
    __shared__ double columns[2][SIZE], row[SIZE], least[SIZE];
    __shared__ float sizes[SIDE][SIZE];
    __shared__ uint32_t order[SIZE], places[SIZE];  // the row that was the pivot of each column, and back
    uint32_t thread = threadIdx.x, lane = thread % 32, top = thread / SIDE, left = thread % SIDE;
    uint64_t matrix = (uint64_t)blockIdx.x * n * n;
    double m[TILE][TILE];
#pragma unroll
    for (int b = 0; b < TILE; b++) {
        uint32_t j = left + SIDE * b;
        float largest = 0.0f;
#pragma unroll
        for (int a = 0; a < TILE; a++) {
            uint32_t i = top + SIDE * a;
            float value = i < n && j < n ? to_f32(x[matrix + i * n + j]) : 0.0f;
            largest = fmaxf(largest, fabsf(value));
            m[a][b] = value;
        }
        sizes[top][j] = largest;
    }
    __syncthreads();
    // A pivot below this is one of rounding errors alone.
    if (thread < SIZE) {
        float largest = 0.0f;
        for (int i = 0; i < SIDE; i++) largest = fmaxf(largest, sizes[i][thread]);
        least[thread] = n * 2.220446049250313e-16 * largest;
    }
    bool is_singular = false;
    uint32_t used = 0;  // rows lane + 32 k that were pivots
#pragma unroll
    for (int tile = 0; tile < TILE; tile++)
        for (uint32_t within = 0; within < SIDE; within++) {
            uint32_t c = SIDE * tile + within;
            if (c >= n) break;
            double *column = columns[c % 2];
            if (left == within)
#pragma unroll
                for (int a = 0; a < TILE; a++) column[top + SIDE * a] = m[a][tile];
            __syncthreads();
            uint32_t best = 0;
#pragma unroll
            for (int k = 0; k < (SIZE + 31) / 32; k++) {
                uint32_t i = lane + 32 * k;
                if (i >= n || used >> k & 1) continue;
                uint32_t size = __float_as_uint(fabsf((float)column[i]));
                best = max(best, (size & ~(SMALL - 1)) | (SMALL - 1 - i));
            }
            uint32_t pivot_row = SMALL - 1 - (__reduce_max_sync(0xffffffff, best) & (SMALL - 1));
            if (pivot_row % 32 == lane) used |= 1u << pivot_row / 32;
            double pivot = column[pivot_row], inverse = 1.0 / pivot;
            if (!(fabs(pivot) > least[c]) || !isfinite(pivot)) is_singular = true;
#pragma unroll
            for (int a = 0; a < TILE; a++) {
                if (top + SIDE * a != pivot_row) continue;
#pragma unroll
                for (int b = 0; b < TILE; b++) {
                    uint32_t j = left + SIDE * b;
                    row[j] = j == c ? inverse : m[a][b] * inverse;
                }
            }
            if (thread == 0) order[c] = pivot_row, places[pivot_row] = c;
            __syncthreads();
            double across[TILE];
#pragma unroll
            for (int b = 0; b < TILE; b++) across[b] = row[left + SIDE * b];
#pragma unroll
            for (int a = 0; a < TILE; a++) {
                uint32_t i = top + SIDE * a;
                double factor = column[i];
#pragma unroll
                for (int b = 0; b < TILE; b++) {
                    double value = b == tile && left == within ? 0.0 : m[a][b];
                    m[a][b] = i == pivot_row ? across[b] : value - factor * across[b];
                }
            }
        }
    __syncthreads();
#pragma unroll
    for (int a = 0; a < TILE; a++)
#pragma unroll
        for (int b = 0; b < TILE; b++) {
            uint32_t i = top + SIDE * a, j = left + SIDE * b;
            if (i < n && j < n)
                y[matrix + places[i] * n + order[j]] =
                    from_f32<A>(is_singular ? __int_as_float(0x7fffffff) : (float)m[a][b]);
        }
}

extern "C" __global__ void __launch_bounds__(SIDE * SIDE) invert_16(const A *x, A *y, uint32_t n) {
    begin();
    invert_held<1>(x, y, n);
}

extern "C" __global__ void __launch_bounds__(SIDE * SIDE) invert_32(const A *x, A *y, uint32_t n) {
    begin();
    invert_held<2>(x, y, n);
}

extern "C" __global__ void __launch_bounds__(SIDE * SIDE) invert_48(const A *x, A *y, uint32_t n) {
    begin();
    invert_held<3>(x, y, n);
}

extern "C" __global__ void __launch_bounds__(SIDE * SIDE) invert_64(const A *x, A *y, uint32_t n) {
    begin();
    invert_held<4>(x, y, n);
}
