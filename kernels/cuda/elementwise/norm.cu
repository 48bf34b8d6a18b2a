// RMS and layer normalisation of rows of A, with what may stand before and after them:
// ONNX's RMSNormalization and LayerNormalization, com.microsoft's SkipSimplifiedLayerNormalization
// and SkipLayerNormalization, and AddRMSNorm.
#include "lanes.cuh"
#include "walk.cuh"

#define V (16 / (int)sizeof(A))
#define LANES 256
/// Stretches of 16 bytes that a thread keeps in registers.
#define HELD 4

/// As `Norm` in norm.rs. Pointers may be null but for x and y.
struct Norm {
    const A *x;         // [rows, n]
    const A *skip;      // [rows, n], added to x
    const A *skip_bias; // [n], added to x as well
    const A *weight;    // [n]
    const A *bias;      // [n]
    A *y;               // [rows, n]
    A *sum;             // [rows, n], what was normalised
    A *mean;            // [rows]
    A *inverse;         // [rows], the inverse of the root of mean square or variance
    uint32_t n;
    uint32_t rows;
    float epsilon;
    int is_centered;
};

static __device__ void write_statistics(const Norm &norm, uint32_t row, float mean, float inverse) {
    if (threadIdx.x != 0) return;
    if (norm.mean) norm.mean[row] = from_f32<A>(mean);
    if (norm.inverse) norm.inverse[row] = from_f32<A>(inverse);
}

static __device__ float affine(const Norm &norm, float value, uint32_t i) {
    if (norm.weight) value *= to_f32(norm.weight[i]);
    if (norm.bias) value += to_f32(norm.bias[i]);
    return value;
}

/// What is normalised at position `i` of the row that begins at `start`.
static __device__ float summed(const Norm &norm, uint64_t start, uint32_t i) {
    float value = to_f32(norm.x[start + i]);
    if (norm.skip) value += to_f32(norm.skip[start + i]);
    if (norm.skip_bias) value += to_f32(norm.skip_bias[i]);
    return value;
}

/// A block for each row, of any size: element by element, the row read anew each time.
extern "C" __global__ void __launch_bounds__(LANES) norm_scalar(const Norm norm) {
    begin();
    uint32_t row = blockIdx.x;
    uint64_t start = (uint64_t)row * norm.n;
    float mean = 0.0f;
    if (norm.is_centered) {
        for (uint32_t i = threadIdx.x; i < norm.n; i += LANES) mean += summed(norm, start, i);
        mean = over_lanes<LANES>(mean, Sum()) / norm.n;
    }
    float squares = 0.0f;
    for (uint32_t i = threadIdx.x; i < norm.n; i += LANES) {
        float value = summed(norm, start, i) - mean;
        squares += value * value;
    }
    squares = over_lanes<LANES>(squares, Sum());
    float inverse = 1.0f / sqrtf(squares / norm.n + norm.epsilon);
    for (uint32_t i = threadIdx.x; i < norm.n; i += LANES) {
        float value = summed(norm, start, i);
        if (norm.sum) norm.sum[start + i] = from_f32<A>(value);
        norm.y[start + i] = from_f32<A>(affine(norm, (value - mean) * inverse, i));
    }
    write_statistics(norm, row, mean, inverse);
}

static __device__ void add_pack(float (&values)[V], const A *at) {
    Pack<A, V> pack = load_pack<A, V>(at);
#pragma unroll
    for (int k = 0; k < V; k++) values[k] += to_f32(pack.values[k]);
}

static __device__ void scale_pack(float (&values)[V], const A *at) {
    Pack<A, V> pack = load_pack<A, V>(at);
#pragma unroll
    for (int k = 0; k < V; k++) values[k] *= to_f32(pack.values[k]);
}

static __device__ void write_pack(A *at, const float (&values)[V]) {
    Pack<A, V> pack;
#pragma unroll
    for (int k = 0; k < V; k++) pack.values[k] = from_f32<A>(values[k]);
    store_pack<A, V>(at, pack);
}

/// A row for each THREADS threads (a warp or a block), kept in registers: n a multiple of 16
/// bytes, at most HELD of them for each thread, everything aligned to 16 bytes.
template <int THREADS>
static __device__ void norm_row(const Norm &norm, uint32_t row, uint32_t lane) {
    uint64_t start = (uint64_t)row * norm.n;
    uint32_t packs = norm.n / V;
    float values[HELD][V] = {};
    float mean = 0.0f, squares = 0.0f;
#pragma unroll
    for (int c = 0; c < HELD; c++) {
        uint32_t i = (c * THREADS + lane) * V;
        if (c * THREADS + lane >= packs) break;
        add_pack(values[c], norm.x + start + i);
        if (norm.skip) add_pack(values[c], norm.skip + start + i);
        if (norm.skip_bias) add_pack(values[c], norm.skip_bias + i);
        if (norm.sum) write_pack(norm.sum + start + i, values[c]);
#pragma unroll
        for (int k = 0; k < V; k++) mean += values[c][k];
    }
    mean = norm.is_centered ? over_lanes<THREADS>(mean, Sum()) / norm.n : 0.0f;
#pragma unroll
    for (int c = 0; c < HELD; c++) {
        if (c * THREADS + lane >= packs) break;
#pragma unroll
        for (int k = 0; k < V; k++) {
            values[c][k] -= mean;
            squares += values[c][k] * values[c][k];
        }
    }
    squares = over_lanes<THREADS>(squares, Sum());
    float inverse = 1.0f / sqrtf(squares / norm.n + norm.epsilon);
#pragma unroll
    for (int c = 0; c < HELD; c++) {
        uint32_t i = (c * THREADS + lane) * V;
        if (c * THREADS + lane >= packs) break;
#pragma unroll
        for (int k = 0; k < V; k++) values[c][k] *= inverse;
        if (norm.weight) scale_pack(values[c], norm.weight + i);
        if (norm.bias) add_pack(values[c], norm.bias + i);
        write_pack(norm.y + start + i, values[c]);
    }
    if (lane == 0) {
        if (norm.mean) norm.mean[row] = from_f32<A>(mean);
        if (norm.inverse) norm.inverse[row] = from_f32<A>(inverse);
    }
}

extern "C" __global__ void __launch_bounds__(LANES) norm_block(const Norm norm) {
    begin();
    norm_row<LANES>(norm, blockIdx.x, threadIdx.x);
}

/// For rows of many threads' worth.
extern "C" __global__ void __launch_bounds__(1024) norm_wide(const Norm norm) {
    begin();
    norm_row<1024>(norm, blockIdx.x, threadIdx.x);
}

/// For many short rows, such as heads.
extern "C" __global__ void __launch_bounds__(LANES) norm_warp(const Norm norm) {
    begin();
    uint32_t row = blockIdx.x * (LANES / 32) + threadIdx.x / 32;
    if (row < norm.rows) norm_row<32>(norm, row, threadIdx.x % 32);
}
