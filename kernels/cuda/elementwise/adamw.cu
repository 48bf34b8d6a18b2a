// AdamW without decay (Loshchilov and Hutter, arXiv 1711.05101) over many tensors of f32 at once.
#include "numbers.cuh"

#define THREADS 256

/// As `Moved` in adamw.rs.
struct Moved {
    float *value;
    const float *gradient;  // null: the tensor stays as it is
    float *first, *second;  // the moments
    float rate;
    uint32_t n;
};

/// What the device keeps of a tensor.
struct State {
    uint32_t steps;     // done so far
    uint32_t is_wrong;  // the gradient has an element that is no finite number
};

/// A stretch of `CHUNK` elements of a tensor.
struct Stretch {
    uint32_t tensor, start;
};
#define CHUNK 4096

/// A block for each stretch: marks tensors whose gradient is not finite.
extern "C" __global__ void __launch_bounds__(THREADS) adamw_check(const Moved *tensors, const Stretch *stretches, State *states) {
    begin();
    Stretch stretch = stretches[blockIdx.x];
    const Moved t = tensors[stretch.tensor];
    if (!t.gradient) return;
    uint32_t end = min(t.n, stretch.start + CHUNK);
    bool is_wrong = false;
    for (uint32_t i = stretch.start + threadIdx.x; i < end; i += THREADS)
        is_wrong |= !isfinite(t.gradient[i]);
    // All that write, write the same.
    if (is_wrong) states[stretch.tensor].is_wrong = 1;
}

/// A block for each stretch: moves what is not marked a step of size rate · factor.
extern "C" __global__ void __launch_bounds__(THREADS)
    adamw_move(const Moved *tensors, const Stretch *stretches, const State *states, float factor, float beta_1,
               float beta_2, float epsilon) {
    begin();
    Stretch stretch = stretches[blockIdx.x];
    const Moved t = tensors[stretch.tensor];
    if (!t.gradient || states[stretch.tensor].is_wrong) return;
    float step = (float)(states[stretch.tensor].steps + 1);
    float size = t.rate * factor / (1.0f - powf(beta_1, step));
    float correction = rsqrtf(1.0f - powf(beta_2, step));
    uint32_t end = min(t.n, stretch.start + CHUNK);
    for (uint32_t i = stretch.start + threadIdx.x; i < end; i += THREADS) {
        float g = t.gradient[i];
        float m = beta_1 * t.first[i] + (1.0f - beta_1) * g;
        float v = beta_2 * t.second[i] + (1.0f - beta_2) * g * g;
        t.first[i] = m;
        t.second[i] = v;
        t.value[i] -= size * m / (sqrtf(v) * correction + epsilon);
    }
}

/// One thread for each tensor: counts the step and takes the marks away.
extern "C" __global__ void __launch_bounds__(THREADS) adamw_count(const Moved *tensors, State *states, uint32_t n) {
    begin();
    uint32_t i = thread_number();
    if (i >= n) return;
    if (tensors[i].gradient && !states[i].is_wrong) states[i].steps++;
    states[i].is_wrong = 0;
}
