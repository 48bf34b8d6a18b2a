// Where the elements of broadcast and strided operands lie.
#pragma once
#include "numbers.cuh"

/// As `MAX_AXES` in walk.rs.
#define MAX_AXES 6

/// How K operands are walked over together: axes from the innermost on (neighbours that all
/// operands walk alike are merged on the host), each with its size and every operand's step.
template <int K>
struct Walk {
    int64_t steps[K][MAX_AXES];
    uint32_t sizes[MAX_AXES];
    uint32_t n_axes;
    uint32_t unused;
};

/// Where each operand's element for position `index` lies, in elements.
template <int K>
static __device__ void locate(const Walk<K> &walk, uint32_t index, int64_t (&at)[K]) {
#pragma unroll
    for (int k = 0; k < K; k++) at[k] = 0;
#pragma unroll
    for (int axis = 0; axis < MAX_AXES; axis++) {
        if (axis >= walk.n_axes) break;
        // The outermost axis needs no division.
        uint32_t rest = axis + 1 < walk.n_axes ? index / walk.sizes[axis] : 0;
        uint32_t within = index - rest * walk.sizes[axis];
#pragma unroll
        for (int k = 0; k < K; k++) at[k] += (int64_t)within * walk.steps[k][axis];
        index = rest;
    }
}

/// V elements that are loaded and stored by one access.
template <typename X, int V>
struct alignas(sizeof(X) * V) Pack {
    X values[V];
};

template <int BYTES> struct Word;
template <> struct Word<1> { typedef uint8_t Type; };
template <> struct Word<2> { typedef unsigned short Type; };
template <> struct Word<4> { typedef uint32_t Type; };
template <> struct Word<8> { typedef uint2 Type; };
template <> struct Word<16> { typedef uint4 Type; };

template <typename X, int V>
static __device__ Pack<X, V> load_pack(const X *at) {
    typedef typename Word<sizeof(X) * V>::Type Bits;
    Bits bits = *(const Bits *)at;
    Pack<X, V> pack;
    memcpy(&pack, &bits, sizeof(pack));
    return pack;
}

template <typename X, int V>
static __device__ void store_pack(X *at, const Pack<X, V> &pack) {
    typedef typename Word<sizeof(X) * V>::Type Bits;
    Bits bits;
    memcpy(&bits, &pack, sizeof(pack));
    *(Bits *)at = bits;
}

/// V elements from `at` on, or V times the one there if the operand does not move (`step` 0).
template <typename X, int V>
static __device__ Pack<X, V> load_operand(const X *at, int64_t step) {
    if (V == 1 || step != 0) return load_pack<X, V>(at);
    Pack<X, V> pack;
    X value = *at;
#pragma unroll
    for (int i = 0; i < V; i++) pack.values[i] = value;
    return pack;
}
