// Tensor-core, asynchronous-copy and conversion instructions of sm_80 and later, as inline PTX.
// Needs common.cuh and layout.cuh in front.

constexpr float LOG2_E = 1.44269504088896340736f;

/// Whether a type is bfloat16.
template <class A> constexpr bool IS_BF16 = false;
template <> constexpr bool IS_BF16<bf16_t> = true;

/// c += a * b: a 16 x 16 (row), b 16 x 8 (column), c 16 x 8 in f32.
template <bool BF16>
__device__ __forceinline__ void mma16816(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    if constexpr (BF16) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
}

/// Two floats as a register of two 16-bit ones, `low` in the low half.
template <bool BF16>
__device__ __forceinline__ unsigned pack16(float low, float high) {
    if constexpr (BF16) {
        return pack_pair<bf16_t>(low, high);
    } else {
        return pack_pair<half_t>(low, high);
    }
}

/// The halves of such a register as floats.
template <bool BF16>
__device__ __forceinline__ float2 unpack16(unsigned x) {
    float2 r;
    if constexpr (BF16) {
        r.x = __uint_as_float(x << 16);
        r.y = __uint_as_float(x & 0xFFFF0000u);
    } else {
        asm("{.reg .b16 l, h;\n mov.b32 {l, h}, %2;\n cvt.f32.f16 %0, l;\n cvt.f32.f16 %1, h;}"
            : "=f"(r.x), "=f"(r.y) : "r"(x));
    }
    return r;
}

/// 2^x.
__device__ __forceinline__ float exp2_fast(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/// log2 x.
__device__ __forceinline__ float log2_fast(float x) {
    float r;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/// Four 8 x 8 matrices of 16-bit elements; each lane gives the address of one row.
__device__ __forceinline__ void ldmatrix4(unsigned (&r)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

/// The same, each matrix transposed.
__device__ __forceinline__ void ldmatrix4_transposed(unsigned (&r)[4], unsigned address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

/// Starts a copy of 16 bytes to shared memory; zeros where not `take`.
__device__ __forceinline__ void copy16(unsigned to, const void* from, bool take) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(to), "l"(from), "r"(take ? 16 : 0) : "memory");
}

/// The same of what the second-level cache should keep longer than other data.
struct Keep {
    unsigned long long policy;
    __device__ __forceinline__ Keep() { asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy)); }
    __device__ __forceinline__ void copy16(unsigned to, const void* from, bool take) const {
        asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;"
                     :: "r"(to), "l"(from), "r"(take ? 16 : 0), "l"(policy) : "memory");
    }
};

/// Closes a group of copies.
__device__ __forceinline__ void copies_started() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most N groups are under way.
template <int N>
__device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory"); }

/// Bytes of a and b by selector.
__device__ __forceinline__ unsigned bytes_of(unsigned a, unsigned b, unsigned selector) {
    return __byte_perm(a, b, selector);
}

/// (x & MASK) | bits of 1024 twice, in one instruction.
template <unsigned MASK>
__device__ __forceinline__ unsigned masked_1024(unsigned x) {
    unsigned r;
    asm("lop3.b32 %0, %1, %2, 0x64006400, 0xEA;" : "=r"(r) : "r"(x), "n"(MASK));
    return r;
}

/// Halves 1024 + c, twice, to c.
__device__ __forceinline__ unsigned minus_1024(unsigned x) {
    unsigned r;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(0x64006400u));
    return r;
}

/// Halves 1024 + 16 c, twice, to c.
__device__ __forceinline__ unsigned minus_1024_over_16(unsigned x) {
    unsigned r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(x), "r"(0x2C002C00u), "r"(0xD400D400u));
    return r;
}

/// Nibbles 0 and 4, 1 and 5, 2 and 6, 3 and 7 of a word as pairs of halves.
__device__ __forceinline__ void nibbles_to_halves(unsigned w, unsigned (&pair)[4]) {
    pair[0] = minus_1024(masked_1024<0x000F000F>(w));
    pair[1] = minus_1024_over_16(masked_1024<0x00F000F0>(w));
    pair[2] = minus_1024(masked_1024<0x000F000F>(w >> 8));
    pair[3] = minus_1024_over_16(masked_1024<0x00F000F0>(w >> 8));
}

/// Bytes 0 and 1, 2 and 3 of a word as pairs of halves.
__device__ __forceinline__ void bytes_to_halves(unsigned w, unsigned (&pair)[2]) {
    pair[0] = minus_1024(bytes_of(w, 0x64646464u, 0x4140));
    pair[1] = minus_1024(bytes_of(w, 0x64646464u, 0x4342));
}

/// Sum over the four lanes that share a row of an accumulator.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

/// Their largest.
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}
