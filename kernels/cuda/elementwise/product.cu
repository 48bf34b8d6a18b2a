// Matrix products of elements of type A on CUDA cores: what is too small or odd for cuBLAS.
// ONNX's MatMul and Gemm, com.microsoft's FusedMatMul, Linear.
#include "walk.cuh"

typedef Number<A>::Wide Wide;

/// As `Product` in product.rs. Steps are in elements, so that either factor may be transposed.
struct Product {
    const A *a;       // [m, k]
    const A *b;       // [k, n]
    const A *bias;    // [n], or null
    A *y;             // [products, m, n], dense
    int64_t a_row, a_column, b_row, b_column;
    uint32_t m, n, k, products;
    float alpha;      // on the product; of floats only
};

static __device__ Wide scaled(Wide sum, float alpha) {
    if constexpr (Number<A>::is_float) return alpha * sum;
    return sum;
}

static __device__ void write(const Product &p, A *y, uint32_t row, uint32_t column, Wide sum) {
    sum = scaled(sum, p.alpha);
    if (p.bias) sum += Number<A>::read(p.bias[column]);
    y[(uint64_t)row * p.n + column] = Number<A>::write(sum);
}

/// One thread for each element: the reference of those below.
extern "C" __global__ void __launch_bounds__(256) product_plain(const Product p, const Walk<2> walk) {
    begin();
    uint32_t column = blockIdx.x * 32 + threadIdx.x % 32, row = blockIdx.y * 8 + threadIdx.x / 32;
    if (column >= p.n || row >= p.m) return;
    for (uint32_t product = blockIdx.z; product < p.products; product += gridDim.z) {
        int64_t at[2];
        locate(walk, product, at);
        Wide sum = 0;
        for (uint32_t k = 0; k < p.k; k++)
            sum += Number<A>::read(p.a[at[0] + row * p.a_row + k * p.a_column]) *
                   Number<A>::read(p.b[at[1] + k * p.b_row + column * p.b_column]);
        write(p, p.y + (uint64_t)product * p.m * p.n, row, column, sum);
    }
}

/// 32 neighbouring elements of a row a block, of 8 parts of k each: for few rows.
extern "C" __global__ void __launch_bounds__(256) product_columns(const Product p, const Walk<2> walk) {
    begin();
    __shared__ Wide parts[8][32];
    uint32_t lane = threadIdx.x % 32, part = threadIdx.x / 32;
    uint32_t column = blockIdx.x * 32 + lane, row = blockIdx.y;
    for (uint32_t product = blockIdx.z; product < p.products; product += gridDim.z) {
        int64_t at[2];
        locate(walk, product, at);
        const A *a = p.a + at[0] + row * p.a_row, *b = p.b + at[1] + column * p.b_column;
        Wide sum = 0;
        if (column < p.n)
#pragma unroll 8
            for (uint32_t k = part; k < p.k; k += 8)
                sum += Number<A>::read(a[k * p.a_column]) * Number<A>::read(b[k * p.b_row]);
        parts[part][lane] = sum;
        __syncthreads();
        if (part == 0 && column < p.n) {
            for (int i = 1; i < 8; i++) sum += parts[i][lane];
            write(p, p.y + (uint64_t)product * p.m * p.n, row, column, sum);
        }
        __syncthreads();
    }
}

/// A warp for each element, along k: for few rows and a b whose columns are contiguous (as of a
/// transposed weight).
extern "C" __global__ void __launch_bounds__(256) product_dots(const Product p, const Walk<2> walk) {
    begin();
    uint32_t lane = threadIdx.x % 32, column = blockIdx.x * 8 + threadIdx.x / 32, row = blockIdx.y;
    if (column >= p.n) return;
    for (uint32_t product = blockIdx.z; product < p.products; product += gridDim.z) {
        int64_t at[2];
        locate(walk, product, at);
        Wide sum = 0;
        for (uint32_t k = lane; k < p.k; k += 32)
            sum += Number<A>::read(p.a[at[0] + row * p.a_row + k * p.a_column]) *
                   Number<A>::read(p.b[at[1] + k * p.b_row + column * p.b_column]);
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2)
            sum += __shfl_xor_sync(0xffffffff, sum, distance);
        if (lane == 0) write(p, p.y + (uint64_t)product * p.m * p.n, row, column, sum);
    }
}

#define TILE 64
#define DEPTH 16

/// Puts DEPTH by TILE elements of a factor into shared memory, 0 beyond its edges. `along` is its
/// step along the tile, `inner` that along k; threads go along the one that is 1.
static __device__ void stage(const A *from, int64_t along, int64_t inner, uint32_t first, uint32_t limit,
                             uint32_t k0, uint32_t k_limit, Wide (&to)[DEPTH][TILE + 1]) {
    bool by_k = inner == 1;
#pragma unroll
    for (int i = threadIdx.x; i < TILE * DEPTH; i += 256) {
        uint32_t k = by_k ? i % DEPTH : i / TILE, t = by_k ? i / DEPTH : i % TILE;
        bool inside = first + t < limit && k0 + k < k_limit;
        to[k][t] = inside ? Number<A>::read(from[(first + t) * along + (k0 + k) * inner]) : 0;
    }
}

/// A block of 256 threads for each tile of 64 by 64 elements, 4 by 4 a thread.
extern "C" __global__ void __launch_bounds__(256) product_tiled(const Product p, const Walk<2> walk) {
    begin();
    __shared__ Wide left[DEPTH][TILE + 1], right[DEPTH][TILE + 1];
    uint32_t column0 = blockIdx.x * TILE, row0 = blockIdx.y * TILE;
    uint32_t tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    for (uint32_t product = blockIdx.z; product < p.products; product += gridDim.z) {
        int64_t at[2];
        locate(walk, product, at);
        Wide sums[4][4] = {};
        for (uint32_t k0 = 0; k0 < p.k; k0 += DEPTH) {
            stage(p.a + at[0], p.a_row, p.a_column, row0, p.m, k0, p.k, left);
            stage(p.b + at[1], p.b_column, p.b_row, column0, p.n, k0, p.k, right);
            __syncthreads();
#pragma unroll
            for (int k = 0; k < DEPTH; k++) {
                Wide a[4], b[4];
#pragma unroll
                for (int i = 0; i < 4; i++) a[i] = left[k][ty + 16 * i], b[i] = right[k][tx + 16 * i];
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) sums[i][j] += a[i] * b[j];
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                uint32_t row = row0 + ty + 16 * i, column = column0 + tx + 16 * j;
                if (row < p.m && column < p.n)
                    write(p, p.y + (uint64_t)product * p.m * p.n, row, column, sums[i][j]);
            }
    }
}
