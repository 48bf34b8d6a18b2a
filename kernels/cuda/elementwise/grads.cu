// Gradients of norms and activations, elements of A: planish's RMSNormalizationGrad,
// LayerNormalizationGrad, SwiGLUGrad, SwishGrad, GeluGrad.
#include "lanes.cuh"
#include "walk.cuh"

#define V (16 / (int)sizeof(A))
#define LANES 256

/// As `NormGrad` in grads.rs.
struct NormGrad {
    const A *dy;      // [rows, n]
    const A *x;       // [rows, n]
    const A *scale;   // [n]
    A *dx;            // [rows, n]
    A *dscale;        // [n], or null
    A *dbias;         // [n], or null
    float *mean;      // [rows], scratch
    float *inverse;   // [rows], scratch
    float *sums;      // [splits, 2, n], scratch: sums for dscale and dbias
    uint32_t n;
    uint32_t rows;
    uint32_t splits;  // stretches of rows that are summed up side by side
    float epsilon;
    int is_centered;
};

/// A block for each row. With r = 1 / sqrt(variance + epsilon), x^ = (x - mean) r and g = dY scale:
/// dX = r (g - mean(g) - x^ mean(g x^)); without the means of x and g where not centred.
extern "C" __global__ void __launch_bounds__(LANES) norm_grad_rows(const NormGrad p) {
    begin();
    uint64_t start = (uint64_t)blockIdx.x * p.n;
    const A *x = p.x + start, *dy = p.dy + start;
    float mean = 0.0f;
    if (p.is_centered) {
        for (uint32_t i = threadIdx.x; i < p.n; i += LANES) mean += to_f32(x[i]);
        mean = over_lanes<LANES>(mean, Sum()) / p.n;
    }
    float squares = 0.0f, sum = 0.0f, along = 0.0f;
    for (uint32_t i = threadIdx.x; i < p.n; i += LANES) {
        float value = to_f32(x[i]) - mean, g = to_f32(dy[i]) * to_f32(p.scale[i]);
        squares += value * value;
        sum += g;
        along += g * value;
    }
    float r = 1.0f / sqrtf(over_lanes<LANES>(squares, Sum()) / p.n + p.epsilon);
    along = over_lanes<LANES>(along, Sum()) * r / p.n;
    sum = p.is_centered ? over_lanes<LANES>(sum, Sum()) / p.n : 0.0f;
    for (uint32_t i = threadIdx.x; i < p.n; i += LANES) {
        float normal = (to_f32(x[i]) - mean) * r, g = to_f32(dy[i]) * to_f32(p.scale[i]);
        p.dx[start + i] = from_f32<A>(r * (g - sum - normal * along));
    }
    if (threadIdx.x != 0) return;
    p.mean[blockIdx.x] = mean;
    p.inverse[blockIdx.x] = r;
}

#define PARTS 32

/// Sums over a stretch of the rows, after `norm_grad_rows`: a block for 32 columns and a stretch.
/// dscale = sum of dY x^, dbias of dY.
extern "C" __global__ void __launch_bounds__(32 * PARTS) norm_grad_columns(const NormGrad p) {
    begin();
    __shared__ float scales[PARTS][33], biases[PARTS][33];
    uint32_t lane = threadIdx.x % 32, part = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    uint32_t stretch = (p.rows + p.splits - 1) / p.splits, first = blockIdx.y * stretch;
    uint32_t end = min(first + stretch, p.rows);
    float scale = 0.0f, bias = 0.0f;
    if (column < p.n)
#pragma unroll 8
        for (uint32_t row = first + part; row < end; row += PARTS) {
            uint64_t at = (uint64_t)row * p.n + column;
            float dy = to_f32(p.dy[at]);
            scale += dy * (to_f32(p.x[at]) - p.mean[row]) * p.inverse[row];
            bias += dy;
        }
    scales[part][lane] = scale;
    biases[part][lane] = bias;
    __syncthreads();
    if (part != 0 || column >= p.n) return;
    for (int i = 1; i < PARTS; i++) scale += scales[i][lane], bias += biases[i][lane];
    float *sums = p.sums + (uint64_t)blockIdx.y * 2 * p.n + column;
    sums[0] = scale;
    sums[p.n] = bias;
}

/// Adds up what `norm_grad_columns` found, always in the same order: a thread for each column.
extern "C" __global__ void __launch_bounds__(LANES) norm_grad_add(const NormGrad p) {
    begin();
    uint32_t column = thread_number();
    if (column >= p.n) return;
    float scale = 0.0f, bias = 0.0f;
#pragma unroll 8
    for (uint32_t split = 0; split < p.splits; split++) {
        const float *sums = p.sums + (uint64_t)split * 2 * p.n + column;
        scale += sums[0];
        bias += sums[p.n];
    }
    if (p.dscale) p.dscale[column] = from_f32<A>(scale);
    if (p.dbias) p.dbias[column] = from_f32<A>(bias);
}

/// Of x sigmoid(alpha x).
static __device__ float swish_slope(float x, float alpha) {
    float s = sigmoid(alpha * x);
    return s * (1.0f + alpha * x * (1.0f - s));
}

/// Of x Phi(x): Phi(x) + x phi(x).
static __device__ float gelu_slope(float x) {
    return 0.5f * erfcf(-0.70710678118654752f * x) + x * 0.39894228040143268f * expf(-0.5f * x * x);
}

static __device__ float gelu_tanh_slope(float x) {
    float t = tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x));
    float inner = 0.79788456080286536f * (1.0f + 3.0f * 0.044715f * x * x);
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
}

/// In the order of `Slope` in grads.rs.
enum { SWISH, GELU, GELU_TANH };

template <int N>
static __device__ void activation_grad(int op, float alpha, const A *dy, const A *x, A *dx, uint32_t i) {
    Pack<A, N> gradient = load_pack<A, N>(dy + (uint64_t)i * N), at = load_pack<A, N>(x + (uint64_t)i * N);
#pragma unroll
    for (int k = 0; k < N; k++) {
        float value = to_f32(at.values[k]);
        float slope = op == SWISH  ? swish_slope(value, alpha)
                      : op == GELU ? gelu_slope(value)
                                   : gelu_tanh_slope(value);
        gradient.values[k] = from_f32<A>(to_f32(gradient.values[k]) * slope);
    }
    store_pack<A, N>(dx + (uint64_t)i * N, gradient);
}

/// dx = dy * slope(x) of `n` elements.
extern "C" __global__ void activation_grad_scalar(int op, float alpha, const A *dy, const A *x, A *dx,
                                                  uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i < n) activation_grad<1>(op, alpha, dy, x, dx, i);
}

/// The same of `n` stretches of 16 bytes.
extern "C" __global__ void activation_grad_vector(int op, float alpha, const A *dy, const A *x, A *dx,
                                                  uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i < n) activation_grad<V>(op, alpha, dy, x, dx, i);
}

/// Of silu(gate) up: dgate = dY up silu'(gate), dup = dY silu(gate).
template <int N>
static __device__ void swiglu_grad(const A *dy, const A *gate, const A *up, A *dgate, A *dup, uint32_t i) {
    uint64_t at = (uint64_t)i * N;
    Pack<A, N> d = load_pack<A, N>(dy + at), g = load_pack<A, N>(gate + at), u = load_pack<A, N>(up + at);
#pragma unroll
    for (int k = 0; k < N; k++) {
        float dk = to_f32(d.values[k]), gk = to_f32(g.values[k]);
        g.values[k] = from_f32<A>(dk * to_f32(u.values[k]) * swish_slope(gk, 1.0f));
        u.values[k] = from_f32<A>(dk * gk * sigmoid(gk));
    }
    store_pack<A, N>(dgate + at, g);
    store_pack<A, N>(dup + at, u);
}

extern "C" __global__ void swiglu_grad_scalar(const A *dy, const A *gate, const A *up, A *dgate, A *dup,
                                              uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i < n) swiglu_grad<1>(dy, gate, up, dgate, dup, i);
}

extern "C" __global__ void swiglu_grad_vector(const A *dy, const A *gate, const A *up, A *dgate, A *dup,
                                              uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i < n) swiglu_grad<V>(dy, gate, up, dgate, dup, i);
}

/// The gradient of softmax, a block for each row of n: dS = P (dP - sum(P dP)) slope scale, in place of
/// dP. `capped` holds scores after the soft cap `cap`, whose slope is 1 - (capped / cap)^2; null for 1.
extern "C" __global__ void __launch_bounds__(LANES)
    softmax_grad(const A *p, A *dp, const A *capped, uint32_t n, float scale, float cap) {
    begin();
    uint64_t start = (uint64_t)blockIdx.x * n;
    float mean = 0.0f;
    for (uint32_t i = threadIdx.x; i < n; i += LANES) mean += to_f32(p[start + i]) * to_f32(dp[start + i]);
    mean = over_lanes<LANES>(mean, Sum());
    for (uint32_t i = threadIdx.x; i < n; i += LANES) {
        float value = to_f32(p[start + i]) * (to_f32(dp[start + i]) - mean) * scale;
        if (capped) {
            float ratio = to_f32(capped[start + i]) / cap;
            value *= 1.0f - ratio * ratio;
        }
        dp[start + i] = from_f32<A>(value);
    }
}
