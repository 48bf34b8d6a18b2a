// Attention over the cache, the plain way: the reference of the fast kernels, and what few positions
// in f32 run on.
//
// A block takes one position of one query head and all keys in pieces of THREADS. Grid (new,
// q_heads, batch). Arguments as in decode.cu.
constexpr int THREADS = 128;
constexpr int OWN = (D + THREADS - 1) / THREADS; // output channels of a thread

extern "C" __global__ void __launch_bounds__(THREADS)
attend_naive(const T* q, int q_stride, const char* keys, const char* values, const float2* key_parameters,
             const float2* value_parameters, const int* past_length, int n_new, int q_heads, int kv_heads,
             int capacity, float scale, float softcap, int causal, int window, const unsigned char* pad,
             int pad_stride, T* out) {
    __shared__ float query[D], weights[THREADS], scratch[32];
    let_next_kernel_start();
    wait_for_previous_kernel();
    int i = blockIdx.x, head = blockIdx.y, b = blockIdx.z, past = *past_length, at = past + i;
    int total = min(past + n_new, capacity);
    Sight sees{causal, window, pad ? pad + (long long)b * (pad_stride > 0 ? pad_stride : total) : nullptr};
    long long line = cache_row(b, kv_heads, head / (q_heads / kv_heads), capacity, 0);
    const T* row = q + ((long long)b * n_new + i) * q_stride + head * D;
    for (int e = threadIdx.x; e < D; e += THREADS) query[e] = to_f32(row[e]);
    __syncthreads();

    float largest = MINUS_INFINITY, weight = 0.f, sum[OWN] = {};
    int end = sees.end(at, total);
    for (int start = sees.first(at); start < end; start += THREADS) {
        int key = start + threadIdx.x;
        float x = MINUS_INFINITY;
        if (key < end && sees(at, key)) {
            x = 0.f;
            for (int e = 0; e < D; e++) x += query[e] * cached(keys, key_parameters, line + key, e);
            x = capped(x * scale, softcap);
        }
        float both = fmaxf(largest, block_max(x, scratch));
        float origin = both == MINUS_INFINITY ? 0.f : both, shrink = expf(largest - origin), w = expf(x - origin);
        largest = both;
        weights[threadIdx.x] = w;
        weight = weight * shrink + block_sum(w, scratch);
        __syncthreads();
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            int e = threadIdx.x + j * THREADS;
            if (e >= D) continue;
            sum[j] *= shrink;
            for (int k = 0; k < min(THREADS, end - start); k++)
                if (weights[k] != 0.f) sum[j] += weights[k] * cached(values, value_parameters, line + start + k, e);
        }
        __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < OWN; j++) {
        int e = threadIdx.x + j * THREADS;
        if (e < D)
            out[(((long long)b * n_new + i) * q_heads + head) * D + e] = from_f32<T>(weight > 0.f ? sum[j] / weight : 0.f);
    }
}
