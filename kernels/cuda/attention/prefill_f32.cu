// Attention of many new positions in f32, without tensor cores: for engines whose tensors are f32.
//
// A block takes TILE positions of one query head and walks over the keys in tiles of TILE, held in
// shared memory as f32. A thread has two rows and every 16th column: keys for the scores, channels
// for the output. Grid (query tiles, q_heads, batch). Arguments as in decode.cu.
#ifndef TILE
#define TILE 32
#endif
constexpr int COLUMNS = 16, THREADS = TILE / 2 * COLUMNS;
constexpr int OWN_KEYS = TILE / COLUMNS, OWN_CHANNELS = (D + COLUMNS - 1) / COLUMNS;
constexpr int PITCH = D + 1; // rows of keys start in different banks

/// A tile of keys or values; zeros beyond `n` tokens.
__device__ __forceinline__ void load_tile(float* to, const char* rows, const float2* parameters, long long first, int n) {
    for (int i = threadIdx.x; i < TILE * D; i += THREADS)
        to[i / D * PITCH + i % D] = i / D < n ? cached(rows, parameters, first + i / D, i % D) : 0.f;
}

/// Over the 16 threads that share a row.
__device__ __forceinline__ float row_max(float x) {
    for (int offset = COLUMNS / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, offset));
    return x;
}
__device__ __forceinline__ float row_sum(float x) {
    for (int offset = COLUMNS / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
    return x;
}

extern "C" __global__ void __launch_bounds__(THREADS)
attend_prefill_f32(const T* q, int q_stride, const char* keys, const char* values, const float2* key_parameters,
                   const float2* value_parameters, const int* past_length, int n_new, int q_heads, int kv_heads,
                   int capacity, float scale, float softcap, int causal, int window, const unsigned char* pad,
                   int pad_stride, T* out) {
    extern __shared__ float shared[];
    float *queries = shared, *key_tile = queries + TILE * PITCH, *value_tile = key_tile + TILE * PITCH;
    float* weights = value_tile + TILE * PITCH; // [TILE][TILE + 1]
    let_next_kernel_start();
    wait_for_previous_kernel();
    int first = (gridDim.x - 1 - blockIdx.x) * TILE, head = blockIdx.y, b = blockIdx.z, past = *past_length;
    int n_rows = min(TILE, n_new - first), total = min(past + n_new, capacity);
    int column = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS * 2;
    Sight sees{causal, window, pad ? pad + (long long)b * (pad_stride > 0 ? pad_stride : total) : nullptr};
    long long line = cache_row(b, kv_heads, head / (q_heads / kv_heads), capacity, 0);
    for (int i = threadIdx.x; i < TILE * D; i += THREADS) {
        int r = i / D, e = i % D;
        queries[r * PITCH + e] = r < n_rows ? to_f32(q[((long long)b * n_new + first + r) * q_stride + head * D + e]) : 0.f;
    }

    float largest[2] = {MINUS_INFINITY, MINUS_INFINITY}, weight[2] = {}, acc[2][OWN_CHANNELS] = {};
    int end = sees.end(past + first + n_rows - 1, total);
    for (int start = sees.first(past + first) / TILE * TILE; start < end; start += TILE) {
        __syncthreads();
        load_tile(key_tile, keys, key_parameters, line + start, end - start);
        load_tile(value_tile, values, value_parameters, line + start, end - start);
        __syncthreads();
        float s[2][OWN_KEYS] = {};
#pragma unroll 8
        for (int e = 0; e < D; e++) {
            float x[2] = {queries[row * PITCH + e], queries[(row + 1) * PITCH + e]};
#pragma unroll
            for (int k = 0; k < OWN_KEYS; k++) {
                float y = key_tile[(column + k * COLUMNS) * PITCH + e];
                s[0][k] += x[0] * y, s[1][k] += x[1] * y;
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int at = past + first + row + r;
            float most = largest[r];
#pragma unroll
            for (int k = 0; k < OWN_KEYS; k++) {
                int key = start + column + k * COLUMNS;
                s[r][k] = key < end && sees(at, key) ? capped(s[r][k] * scale, softcap) : MINUS_INFINITY;
                most = fmaxf(most, s[r][k]);
            }
            most = row_max(most);
            float origin = most == MINUS_INFINITY ? 0.f : most, shrink = expf(largest[r] - origin);
            largest[r] = most;
            weight[r] *= shrink;
#pragma unroll
            for (int k = 0; k < OWN_KEYS; k++) {
                float w = expf(s[r][k] - origin);
                weight[r] += w;
                weights[(row + r) * (TILE + 1) + column + k * COLUMNS] = w;
            }
#pragma unroll
            for (int j = 0; j < OWN_CHANNELS; j++) acc[r][j] *= shrink;
        }
        __syncwarp(); // a row's threads are of one warp
#pragma unroll 4
        for (int k = 0; k < TILE; k++) {
            float w[2] = {weights[row * (TILE + 1) + k], weights[(row + 1) * (TILE + 1) + k]};
#pragma unroll
            for (int j = 0; j < OWN_CHANNELS; j++) {
                int e = column + j * COLUMNS;
                float y = D % COLUMNS == 0 || e < D ? value_tile[k * PITCH + e] : 0.f;
                acc[0][j] += w[0] * y, acc[1][j] += w[1] * y;
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float all = row_sum(weight[r]), by = all > 0.f ? 1.f / all : 0.f;
        T* to = out + (((long long)b * n_new + first + row + r) * q_heads + head) * D;
#pragma unroll
        for (int j = 0; j < OWN_CHANNELS; j++) {
            int e = column + j * COLUMNS;
            if (row + r < n_rows && e < D) to[e] = from_f32<T>(acc[r][j] * by);
        }
    }
}
