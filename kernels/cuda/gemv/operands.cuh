// Activations as operand B of tensor-core products, with packed weights as operand A: the result
// is 16 outputs (rows) by 8 columns, a column an activation row, or a third of one.
//
// A unit is 64 inputs: one piece (16 bytes a lane) of 4-bit weights, two of 8-bit ones.

#if BITS == 4
constexpr int PIECES = 1;
#else
constexpr int PIECES = 2;
#endif

constexpr int UNIT = 64;

// A register of its own: what `wgmma` reads must not be the target of a load.
__device__ __forceinline__ uint32_t copy_word(uint32_t v) {
#if COPY_WEIGHTS
    asm volatile("mov.b32 %0, %0;" : "+r"(v));
#endif
    return v;
}

// Exact sums of int8 codes.
struct Codes {
    using Element = int8_t;
    using Sum = int;
    static constexpr int BYTES = 1;          // of a value in shared memory
    static constexpr int COLUMNS_A_ROW = 1;
    static constexpr int PADDING = 16;       // bytes after a column: no bank conflicts
    // What weights are multiplied by on the way in.
    static constexpr float WEIGHT_FACTOR = BITS == 4 ? 16.0f : 1.0f;

    struct Weights {
        uint32_t low[4], high[4];
    };
    struct Fragment {
        uint32_t b[4];
    };

    __device__ static Weights unpack(const Words (&w)[PIECES]) {
        Weights a;
#if BITS == 4
        const uint32_t words[4] = {w[0].x, w[0].y, w[0].z, w[0].w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            a.low[i] = (words[i] << 4) & 0xF0F0F0F0u;
            a.high[i] = words[i] & 0xF0F0F0F0u;
        }
#else
        const uint32_t words[8] = {w[0].x, w[0].y, w[0].z, w[0].w, w[1].x, w[1].y, w[1].z, w[1].w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            a.low[i] = copy_word(words[i]);
            a.high[i] = copy_word(words[i + 4]);
        }
#endif
        return a;
    }

    // Eight 8×16-byte matrices make four k-steps; a lane names one row of one of them.
    __device__ static uint32_t lane_offset(int lane, int stride, int last_column) {
        return min(lane % 8, last_column) * stride + lane / 8 * 16;
    }

    __device__ static Fragment load(uint32_t at) {
        Fragment f;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(f.b[0]), "=r"(f.b[1]), "=r"(f.b[2]), "=r"(f.b[3])
                     : "r"(at));
        return f;
    }

    __device__ static void mma(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }

    // Step i of a unit.
    static constexpr int STEPS = 2;
    __device__ static void step(int (&c)[4], const Weights& a, const Fragment& f, int i) {
        mma(c, i == 0 ? a.low : a.high, f.b[2 * i], f.b[2 * i + 1]);
    }

    // Copies a value that has no 16-byte neighbours.
    __device__ static void store(uint32_t to, uint32_t, int8_t v, bool valid) {
        store_shared_8(to, valid ? (uint8_t)v : 0);
    }
};

// Floats of 16 bits: weights become floats of that type, which is exact, and sums are f32.
template <class E>
struct Floats {
    using Element = E;
    using Sum = float;
    static constexpr int BYTES = 2;
    static constexpr int COLUMNS_A_ROW = 1;
    static constexpr int PADDING = 32;
    static constexpr float WEIGHT_FACTOR = 1.0f;

    // Operands of four k-steps of 16 inputs.
    struct Weights {
        uint32_t a[4][4];
    };
    struct Fragment {
        uint32_t b[4][2];
    };

    // Inputs 4t..4t+3 of a step are a lane's: the product does not mind which ones it pairs.
    __device__ static uint32_t lane_offset(int lane, int stride, int last_column) {
        return min(lane / 4, last_column) * stride + lane % 4 * 8;
    }

    __device__ static Fragment load(uint32_t at) {
        Fragment f;
#pragma unroll
        for (int step = 0; step < 4; ++step) {
            asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                         : "=r"(f.b[step][0]), "=r"(f.b[step][1])
                         : "r"(at + step * 32));
        }
        return f;
    }

    // Bytes 0, 1 (and 2, 3) of `v` under an exponent byte: the floats 2^p + v.
    __device__ static uint32_t pair(uint32_t v, uint32_t exponent, bool second) {
        return __byte_perm(v, exponent, second ? 0x4342 : 0x4140);
    }

    __device__ static uint32_t fma(uint32_t a, uint32_t b, uint32_t c);
    __device__ static void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
    // Four 4-bit values, a byte each, offset by 8: (v0, v1), (v2, v3).
    __device__ static void from_nibbles(uint32_t v, uint32_t& first, uint32_t& second);
    // Four 8-bit values.
    __device__ static void from_bytes(uint32_t v, uint32_t& first, uint32_t& second);

    __device__ static Weights unpack(const Words (&w)[PIECES]) {
        Weights a;
#if BITS == 4
        const uint32_t words[4] = {w[0].x, w[0].y, w[0].z, w[0].w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            // Words 0, 1 hold inputs 0..15 and 32..47 of outputs g and g + 8, words 2, 3 the rest.
            const int step = i / 2, half = i % 2;
            const uint32_t low = (words[i] & 0x0F0F0F0Fu) ^ 0x08080808u;
            const uint32_t high = ((words[i] >> 4) & 0x0F0F0F0Fu) ^ 0x08080808u;
            from_nibbles(low, a.a[step][half], a.a[step][half + 2]);
            from_nibbles(high, a.a[step + 2][half], a.a[step + 2][half + 2]);
        }
#else
#pragma unroll
        for (int piece = 0; piece < 2; ++piece) {
            const uint32_t words[4] = {w[piece].x, w[piece].y, w[piece].z, w[piece].w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int step = piece * 2 + i / 2, half = i % 2;
                from_bytes(words[i], a.a[step][half], a.a[step][half + 2]);
            }
        }
#endif
        return a;
    }

    static constexpr int STEPS = 4;
    __device__ static void step(float (&c)[4], const Weights& a, const Fragment& f, int i) {
        mma(c, a.a[i], f.b[i][0], f.b[i][1]);
    }

    __device__ static void store(uint32_t to, uint32_t, E v, bool valid) {
        store_shared_16(to, valid ? v.bits : 0);
    }
};

template <>
__device__ __forceinline__ uint32_t Floats<half_t>::fma(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

template <>
__device__ __forceinline__ uint32_t Floats<bf16_t>::fma(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

template <>
__device__ __forceinline__ void Floats<half_t>::mma(float (&c)[4], const uint32_t (&a)[4],
                                                    uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void Floats<bf16_t>::mma(float (&c)[4], const uint32_t (&a)[4],
                                                    uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// f16 under exponent byte 0x64 is 1024 + v.
template <>
__device__ __forceinline__ void Floats<half_t>::from_nibbles(uint32_t v, uint32_t& first,
                                                             uint32_t& second) {
    constexpr uint32_t ONE = 0x3C003C00u, MINUS_1032 = 0xE408E408u;
    first = fma(pair(v, 0x64646464u, false), ONE, MINUS_1032);
    second = fma(pair(v, 0x64646464u, true), ONE, MINUS_1032);
}

template <>
__device__ __forceinline__ void Floats<half_t>::from_bytes(uint32_t v, uint32_t& first,
                                                           uint32_t& second) {
    constexpr uint32_t ONE = 0x3C003C00u, MINUS_1152 = 0xE480E480u;
    v ^= 0x80808080u;
    first = fma(pair(v, 0x64646464u, false), ONE, MINUS_1152);
    second = fma(pair(v, 0x64646464u, true), ONE, MINUS_1152);
}

// bf16 under exponent byte 0x43 is 128 + v for v below 128.
template <>
__device__ __forceinline__ void Floats<bf16_t>::from_nibbles(uint32_t v, uint32_t& first,
                                                             uint32_t& second) {
    constexpr uint32_t ONE = 0x3F803F80u, MINUS_136 = 0xC308C308u;
    first = fma(pair(v, 0x43434343u, false), ONE, MINUS_136);
    second = fma(pair(v, 0x43434343u, true), ONE, MINUS_136);
}

// A byte is 16 · (high nibble) + low nibble: 16 · (136 + high) − 2304 is 16 · high − 128, and adding
// 128 + low is exact again.
template <>
__device__ __forceinline__ void Floats<bf16_t>::from_bytes(uint32_t v, uint32_t& first,
                                                           uint32_t& second) {
    constexpr uint32_t ONE = 0x3F803F80u, SIXTEEN = 0x41804180u, MINUS_2304 = 0xC510C510u;
    const uint32_t low = v & 0x0F0F0F0Fu, high = ((v >> 4) & 0x0F0F0F0Fu) ^ 0x08080808u;
    first = fma(pair(high, 0x43434343u, false), SIXTEEN, MINUS_2304);
    second = fma(pair(high, 0x43434343u, true), SIXTEEN, MINUS_2304);
    first = fma(first, ONE, pair(low, 0x43434343u, false));
    second = fma(second, ONE, pair(low, 0x43434343u, true));
}

// f32 as the sum of three bf16, a column each: products with the weights are exact, so the result
// is that of f32 arithmetic.
struct SplitFloats : Floats<bf16_t> {
    using Element = float;
    static constexpr int COLUMNS_A_ROW = 3;

    __device__ static void store(uint32_t to, uint32_t stride, float v, bool valid) {
        v = valid ? v : 0.0f;
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            const bf16_t part = from_f32<bf16_t>(v);
            store_shared_16(to + i * stride, part.bits);
            // An infinity has no remainder.
            v = isinf_f32(v) ? 0.0f : v - to_f32(part);
        }
    }

    __device__ static bool isinf_f32(float v) { return (__float_as_uint(v) << 1) == 0xFF000000u; }
};

template <class E>
struct ActivationOf {
    using Type = Floats<E>;
};
template <>
struct ActivationOf<float> {
    using Type = SplitFloats;
};

#if WEIGHT_ONLY
using Activation = ActivationOf<T>::Type;
#else
using Activation = Codes;
#endif

// Sums over all inputs are integers where nothing is to be scaled on the way.
#if GROUP == 0
using Total = Activation::Sum;
#else
using Total = float;
#endif

__device__ __forceinline__ Total as_total(uint32_t bits) {
#if !WEIGHT_ONLY && GROUP == 0
    return (int)bits;
#else
    return __uint_as_float(bits);
#endif
}
