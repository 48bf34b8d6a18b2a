// Rows without a transform, quantised (`DynamicQuantize`, and with a norm or SwiGLU in front): one
// block a row, which stays in registers.
//
// Definitions: T, SOURCE, ROW, VEC (elements of a load, which divides ROW), THREADS.

constexpr int CHUNKS = ROW / VEC;
constexpr int ROUNDS = (CHUNKS + THREADS - 1) / THREADS;
constexpr int WARPS = THREADS / 32;

template <bool CLIPPED> __device__ inline void write_codes(int8_t *codes, const float (&h)[ROUNDS][VEC], const Quantiser &q, float inverse) {
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int chunk = i * THREADS + threadIdx.x;
        if (chunk >= CHUNKS) break;
        uint32_t words[(VEC + 3) / 4];
#pragma unroll
        for (int j = 0; j < (VEC + 3) / 4; j++) {
            float v[4];
#pragma unroll
            for (int k = 0; k < 4; k++) v[k] = 4 * j + k < VEC ? h[i][(4 * j + k) % VEC] : 0.0f;
            words[j] = pack_codes<CLIPPED>(q, inverse, v[0], v[1], v[2], v[3]);
        }
        if (VEC % 4 == 0) {
#pragma unroll
            for (int j = 0; j < VEC / 4; j++) ((uint32_t *)(codes + chunk * VEC))[j] = words[j];
        } else {
#pragma unroll
            for (int j = 0; j < VEC; j++) codes[chunk * VEC + j] = (int8_t)(words[j / 4] >> j % 4 * 8);
        }
    }
}

// Operands as of transform_rows in tensor.cu.
extern "C" __global__ void __launch_bounds__(THREADS)
quantise_rows(const T *x, const T *other, const T *weight, T *sum, int64_t stride, float epsilon,
              float clip_min, float clip_max, float q_max, int8_t *codes, float *scales) {
    __shared__ float2 box[2][WARPS];
    int64_t row = blockIdx.x;
    Quantiser q = {clip_min, clip_max, q_max};
    float h[ROUNDS][VEC];
    Stats stats = {0.0f, 0.0f};
    let_next_kernel_start();
    wait_for_previous_kernel();
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        int chunk = i * THREADS + threadIdx.x;
        if (chunk >= CHUNKS) break;
        Chunk<VEC> a = load_chunk<VEC>(x + row * stride + chunk * VEC), b, w, s;
        if (PARTS == 2) b = load_chunk<VEC>(other + row * stride + chunk * VEC);
        if (HAS_NORM) w = load_chunk<VEC>(weight + chunk * VEC);
        combine<VEC>(h[i], a, b, w, s, stats);
        if (SOURCE == ADD_NORM) store_chunk<VEC>(sum + row * ROW + chunk * VEC, s);
    }
    if (HAS_NORM) reduce_block<true, WARPS>(stats.magnitude, stats.squares, box[0]);
    float inverse_norm = inverse_rms(stats.squares, ROW, epsilon);
    float high = 0.0f, low = 0.0f;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        if (i * THREADS + threadIdx.x >= CHUNKS) break;
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            h[i][j] *= inverse_norm;
            high = fmaxf(high, h[i][j]);
            low = fmaxf(low, -h[i][j]);
        }
    }
    reduce_block<false, WARPS>(high, low, box[1]);
    float scale = row_scale(q, high, -low);
    if (threadIdx.x == 0) scales[row] = scale;
    if (clips(q)) write_codes<true>(codes + row * ROW, h, q, 1.0f / scale);
    else write_codes<false>(codes + row * ROW, h, q, 1.0f / scale);
}
