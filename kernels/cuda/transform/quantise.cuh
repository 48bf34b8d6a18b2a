// The symmetric quantiser of rows (ARCHITECTURE.md, `DynamicQuantize`).
#include "common.cuh"

// Adding it rounds a float (below 2^22) to an integer, halves to even, in the lowest bits.
#define ROUNDING 12582912.0f

struct Quantiser {
    float clip_min;
    float clip_max;
    float q_max;
};

// The scale of a row whose elements are at most high and at least low.
__device__ inline float row_scale(const Quantiser &q, float high, float low) {
    float magnitude = fmaxf(q.clip_max * high, -(q.clip_min * low));
    return fmaxf(magnitude, 1e-8f) / q.q_max;
}

// Four codes in a word, the first in its lowest byte. `inverse` is 1 / scale. Without clipping no
// code can be out of range: the scale is made from the largest magnitude.
template <bool CLIPPED> __device__ inline uint32_t pack_codes(const Quantiser &q, float inverse, float a, float b, float c, float d) {
    float v[4] = {a, b, c, d};
    uint32_t bits[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float code = v[i] * inverse;
        if (CLIPPED) code = fminf(fmaxf(code, -q.q_max - 1.0f), q.q_max);
        bits[i] = __float_as_uint(code + ROUNDING);
    }
    return __byte_perm(__byte_perm(bits[0], bits[1], 0x0040), __byte_perm(bits[2], bits[3], 0x0040), 0x5410);
}

__device__ inline bool clips(const Quantiser &q) { return q.clip_min != 1.0f || q.clip_max != 1.0f; }

// The power of two that brings a magnitude into [1, 2), and its inverse: rows are scaled by it, so
// that f16 keeps them whatever their range.
__device__ inline float normalising(float magnitude, float &inverse) {
    uint32_t exponent = __float_as_uint(magnitude) >> 23 & 0xFF;
    // Nothing overflows for rows of zeros, or near it.
    exponent = exponent < 64 ? 64 : exponent > 253 ? 253 : exponent;
    inverse = __uint_as_float(exponent << 23);
    return __uint_as_float((254 - exponent) << 23);
}
