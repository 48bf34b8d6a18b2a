#include "common.cuh"

// Layout of the cache and its integer formats. Stands in front of every source of this folder.
//
// Defines: T (float, half_t or bf16_t), HEAD_DIM (channels of a head, a multiple of 8) and FORMAT
// (bits of a cached element: 4 or 8 for codes, 16 or 32 for T itself).
//
// Keys and values are each [batch, kv_heads, capacity, ROW_BYTES], one row a token and head. Codes
// have parameters, float2 (scale, zero point) [batch, kv_heads, capacity]: x = (code - zero) * scale.
// The eight 4-bit codes of a word are interleaved: channel 2i is nibble i, channel 2i + 1 nibble
// i + 4. So one mask gives two neighbours as the two halves of a register, which is what a
// half-precision matrix operand wants.
constexpr int D = HEAD_DIM;
constexpr int ROW_BYTES = D * FORMAT / 8;
constexpr bool CODES = FORMAT <= 8;
#define MINUS_INFINITY (-INFINITY_F)

/// Row of the cache arrays of a token.
__device__ __forceinline__ long long cache_row(int b, int kv_heads, int head, int capacity, int token) {
    return ((long long)b * kv_heads + head) * capacity + token;
}

/// Shift of the nibble of channel `e` of a word.
__device__ __forceinline__ int nibble_shift(int e) { return ((e & 7) >> 1) * 4 + (e & 1) * 16; }

/// One element as attention sees it, the plain way.
__device__ __forceinline__ float cached(const char* rows, const float2* parameters, long long row, int e) {
    const char* at = rows + row * ROW_BYTES;
    if constexpr (!CODES) {
        return to_f32(reinterpret_cast<const T*>(at)[e]);
    } else {
        float2 p = parameters[row];
        unsigned code;
        if constexpr (FORMAT == 8) {
            code = reinterpret_cast<const unsigned char*>(at)[e];
        } else {
            code = reinterpret_cast<const unsigned*>(at)[e / 8] >> nibble_shift(e) & 15u;
        }
        return (float(code) - p.y) * p.x;
    }
}

/// Which keys a query sees.
struct Sight {
    int causal, window;
    const unsigned char* pad; // row of the sequence, or null

    /// Whether the query at position `at` sees the key at position `key`.
    __device__ __forceinline__ bool operator()(int at, int key) const {
        return (!causal || key <= at) && (window <= 0 || key + window > at) && (!pad || pad[key]);
    }
    /// The first key that a query at `at` may see.
    __device__ __forceinline__ int first(int at) const { return window > 0 ? max(0, at - window + 1) : 0; }
    /// One past the last key that a query at `at` may see.
    __device__ __forceinline__ int end(int at, int total) const { return causal ? min(total, at + 1) : total; }
};

/// softcap * tanh(x / softcap), or x.
__device__ __forceinline__ float capped(float x, float softcap) {
    return softcap > 0.f ? softcap * tanhf(x / softcap) : x;
}
