// One head at one position on its way to the cache: rotary embedding (Su et al. 2021) and the
// quantiser (layout.cuh). LANES lanes share such a row, eight neighbouring channels each. Stands
// behind mma.cuh.
#ifndef ANGLE
#define ANGLE float
#endif
constexpr int EIGHTS = D / 8;
constexpr int LANES = EIGHTS <= 1 ? 1 : EIGHTS <= 2 ? 2 : EIGHTS <= 4 ? 4 : EIGHTS <= 8 ? 8 : EIGHTS <= 16 ? 16 : 32;

struct Input {
    const T* from;
    int stride;
};

struct Rotation {
    const ANGLE *cos, *sin;
    int batch_step; // rows of angles from one sequence to the next: new, or 0
    int dim, interleaved;
};

struct Clip {
    float min, max;
};

__device__ __forceinline__ void load8(float (&x)[8], const float* from) {
    float4 a = reinterpret_cast<const float4*>(from)[0], b = reinterpret_cast<const float4*>(from)[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
template <class A>
__device__ __forceinline__ void load8(float (&x)[8], const A* from) {
    uint4 a = *reinterpret_cast<const uint4*>(from);
    unsigned words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 pair = unpack16<IS_BF16<A>>(words[i]);
        x[2 * i] = pair.x, x[2 * i + 1] = pair.y;
    }
}
__device__ __forceinline__ void store8(float* to, const float (&x)[8]) {
    reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
}
template <class A>
__device__ __forceinline__ void store8(A* to, const float (&x)[8]) {
    constexpr bool B = IS_BF16<A>;
    *reinterpret_cast<uint4*>(to) = make_uint4(pack16<B>(x[0], x[1]), pack16<B>(x[2], x[3]), pack16<B>(x[4], x[5]),
                                               pack16<B>(x[6], x[7]));
}

/// Rotates channels 8c..8c + 8 of the row at `from`, which `x` holds. Products are rounded as the
/// plain way does it. All lanes of a warp come here; those with `take` have channels.
__device__ __forceinline__ void rotate8(float (&x)[8], const T* from, int c, bool take, const Rotation& by, int b, int i) {
    int half = by.dim / 2;
    take = take && 8 * c < by.dim;
    long long angles = ((long long)b * by.batch_step + i) * half;
    const ANGLE *cos = by.cos + angles, *sin = by.sin + angles;
    if (!by.interleaved && half % 8 == 0) {
        bool second = 8 * c >= half;
        int lane = threadIdx.x % 32, other = second ? lane - half / 8 : lane + half / 8;
        int angle = take ? second ? 8 * c - half : 8 * c : 0;
        float y[8], p[8], q[8];
        load8(p, cos + angle);
        load8(q, sin + angle);
#pragma unroll
        for (int e = 0; e < 8; e++) y[e] = __shfl_sync(0xFFFFFFFFu, x[e], other);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            float own = __fmul_rn(p[e], x[e]), turned = __fmul_rn(q[e], y[e]);
            if (take) x[e] = second ? __fadd_rn(turned, own) : __fsub_rn(own, turned);
        }
        return;
    }
    // Seldom needed, and long: not unrolled, so that instructions of what is needed stay close.
#pragma unroll 1
    for (int e = 0; take && e < 8; e++) {
        int at = 8 * c + e;
        if (at >= by.dim) break;
        bool second = by.interleaved ? at & 1 : at >= half;
        int other = by.interleaved ? at ^ 1 : second ? at - half : at + half;
        int angle = by.interleaved ? at / 2 : second ? at - half : at;
        float own = __fmul_rn(to_f32(cos[angle]), to_f32(from[at]));
        float turned = __fmul_rn(to_f32(sin[angle]), to_f32(from[other]));
        float turned_by = second ? __fadd_rn(turned, own) : __fsub_rn(own, turned);
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (j == e) x[j] = turned_by;
    }
}

/// Scale and zero point of a row of values from `low` to `high`.
__device__ __forceinline__ float2 grid_of(float low, float high, const Clip& clip) {
    constexpr float largest = CODES ? (1 << FORMAT) - 1 : 1;
    low = __fmul_rn(low, clip.min), high = __fmul_rn(high, clip.max);
    float scale = __fdiv_rn(fmaxf(__fsub_rn(high, low), 1e-8f), largest);
    return make_float2(scale, rintf(__fdiv_rn(-low, scale)));
}

/// clamp(round(x / scale) + zero), with the quotient rounded as IEEE division does it; `inverse` is 1 / scale,
/// rounded so. One fused multiply-add has what the product with it lacks, and another one adds it (Brisebarre, Muller,
/// Raina, "Accelerating correctly rounded floating-point division when the divisor is known in advance", 2004).
__device__ __forceinline__ unsigned code_of(float x, float2 grid, float inverse) {
    constexpr float largest = CODES ? (1 << FORMAT) - 1 : 1;
    float quotient = __fmul_rn(x, inverse);
    quotient = __fmaf_rn(__fmaf_rn(-quotient, grid.x, x), inverse, quotient);
    return (unsigned)fminf(fmaxf(__fadd_rn(rintf(quotient), grid.y), 0.f), largest);
}

/// Writes the codes of eight neighbouring channels to `at`.
__device__ __forceinline__ void put_codes(char* at, const float (&x)[8], float2 grid, float inverse) {
    if constexpr (FORMAT == 4) {
        unsigned word = 0;
#pragma unroll
        for (int e = 0; e < 8; e++) word |= code_of(x[e], grid, inverse) << nibble_shift(e);
        *reinterpret_cast<unsigned*>(at) = word;
    } else {
        unsigned word[2] = {0, 0};
#pragma unroll
        for (int e = 0; e < 8; e++) word[e / 4] |= code_of(x[e], grid, inverse) << (e % 4 * 8);
        *reinterpret_cast<uint2*>(at) = make_uint2(word[0], word[1]);
    }
}

/// Writes channels 8c..8c + 8 of a row to the cache; all lanes of the row take part, those with
/// `take` have channels.
__device__ __forceinline__ void write_cache(const float (&x)[8], int c, bool take, bool inside, long long row, char* to,
                                            float2* parameters, const Clip& clip) {
    char* at = to + row * ROW_BYTES + c * FORMAT;
    if constexpr (!CODES) {
        if (take && inside) store8(reinterpret_cast<T*>(at), x);
    } else {
        float low = INFINITY_F, high = MINUS_INFINITY;
#pragma unroll
        for (int e = 0; e < 8; e++)
            if (take) low = fminf(low, x[e]), high = fmaxf(high, x[e]);
#pragma unroll
        for (int offset = LANES / 2; offset > 0; offset /= 2) {
            low = fminf(low, __shfl_xor_sync(0xFFFFFFFFu, low, offset));
            high = fmaxf(high, __shfl_xor_sync(0xFFFFFFFFu, high, offset));
        }
        if (!take || !inside) return;
        float2 grid = grid_of(low, high, clip);
        float inverse = __frcp_rn(grid.x);
        if (c == 0) parameters[row] = grid;
        put_codes(at, x, grid, inverse);
    }
}
