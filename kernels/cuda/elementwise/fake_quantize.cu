// Rounding groups of elements to a few bits and reading them back, for learning, and the
// straight-through gradients: planish's FakeQuantizeRows, FakeQuantizeColumns, FakeQuantizeHeads and
// their gradients. Elements of A; the steps are those of the reference, in f32.
#include "lanes.cuh"

/// The smallest range that a scale is made from.
#define FLOOR 1e-8f

/// As `FakeQuantize` in fake_quantize.rs. A group has n elements, `step` apart; `step` groups lie side
/// by side.
struct FakeQuantize {
    const A *dy;         // null without gradients
    const A *x;
    const A *clip_max;
    const A *clip_min;
    A *y;                // the result, or dX
    float *of_max;       // [groups], gradients of clip_max
    float *of_min;       // [groups]
    uint32_t groups;
    uint32_t n;
    uint32_t step;
    uint32_t clip_step;  // 1 where groups have clips of their own, else 0
    float q_max;         // the largest code
    int is_asymmetric;
};

/// LANES threads of a block for one group.
template <int LANES>
struct RowTeam {
    uint32_t lane;
    static constexpr uint32_t size = LANES;
    template <typename X, typename F>
    __device__ X over(X value, F f) const { return over_lanes<LANES>(value, f); }
};

/// 32 threads of a block for each of 32 neighbouring groups, so that reads go along rows.
struct ColumnTeam {
    uint32_t lane;
    static constexpr uint32_t size = 32;
    template <typename X, typename F>
    __device__ X over(X value, F f) const {
        __shared__ X parts[32][33];
        uint32_t column = threadIdx.x % 32;
        __syncthreads();
        parts[lane][column] = value;
        __syncthreads();
        value = parts[0][column];
        for (int i = 1; i < 32; i++) value = f(value, parts[i][column]);
        return value;
    }
};

#define NARROW 8

/// 128 threads of a block for each of NARROW neighbouring groups: reads are still whole sectors of 32
/// bytes of floats, and there are blocks enough for few groups.
struct NarrowTeam {
    uint32_t lane;
    static constexpr uint32_t size = 1024 / NARROW;
    template <typename X, typename F>
    __device__ X over(X value, F f) const {
        __shared__ X parts[32][NARROW];
        uint32_t column = threadIdx.x % NARROW;
#pragma unroll
        for (int distance = NARROW; distance < 32; distance *= 2) value = f(value, from_lane(value, distance));
        __syncthreads();
        if (threadIdx.x % 32 < NARROW) parts[threadIdx.x / 32][column] = value;
        __syncthreads();
        value = parts[0][column];
#pragma unroll
        for (int i = 1; i < 32; i++) value = f(value, parts[i][column]);
        return value;
    }
};

struct Smaller {
    __device__ float operator()(float a, float b) const { return fminf(a, b); }
    __device__ int operator()(int a, int b) const { return min(a, b); }
};
struct Larger {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Scale and zero point of a group, and what they come from.
struct Grid {
    float low, high;           // extremes
    float clip_min, clip_max;
    float scale, shift, zero;  // the zero point is the rounded shift; both are 0 where symmetric
    float first, last;         // range of codes

    __device__ Grid(const FakeQuantize &p, uint32_t group, float low, float high) : low(low), high(high) {
        clip_min = to_f32(p.clip_min[group * p.clip_step]);
        clip_max = to_f32(p.clip_max[group * p.clip_step]);
        float range = p.is_asymmetric ? from_high() + from_low() : fmaxf(from_high(), from_low());
        scale = fmaxf(range, FLOOR) / p.q_max;
        shift = p.is_asymmetric ? from_low() / scale : 0.0f;
        zero = rintf(shift);
        first = p.is_asymmetric ? 0.0f : -p.q_max - 1.0f;
        last = p.q_max;
    }

    __device__ float from_high() const { return __fmul_rn(clip_max, high); }
    __device__ float from_low() const { return -__fmul_rn(clip_min, low); }
    /// The code before it is limited to the range.
    __device__ float free_code(float x) const { return rintf(x / scale) + zero; }
    __device__ float limited(float code) const { return fminf(fmaxf(code, first), last); }
    __device__ bool holds(float code) const { return code >= first && code <= last; }
};

template <typename Team>
static __device__ Grid make_grid(const FakeQuantize &p, const Team &team, uint32_t group, uint64_t start,
                                 uint32_t n) {
    float low = INFINITY_F, high = -INFINITY_F;
#pragma unroll 4
    for (uint32_t i = team.lane; i < n; i += Team::size) {
        float x = to_f32(p.x[start + (uint64_t)i * p.step]);
        low = fminf(low, x);
        high = fmaxf(high, x);
    }
    low = team.over(low, Smaller());
    high = team.over(high, Larger());
    return Grid(p, min(group, p.groups - 1), low, high);
}

template <typename Team>
static __device__ void forward(const FakeQuantize &p, const Team &team, uint32_t group) {
    uint32_t n = group < p.groups ? p.n : 0;
    uint64_t start = (uint64_t)(group / p.step) * p.n * p.step + group % p.step;
    Grid grid = make_grid(p, team, group, start, n);
#pragma unroll 4
    for (uint32_t i = team.lane; i < n; i += Team::size) {
        uint64_t at = start + (uint64_t)i * p.step;
        float code = grid.limited(grid.free_code(to_f32(p.x[at])));
        p.y[at] = from_f32<A>((code - grid.zero) * grid.scale);
    }
}

/// Rounding counts as the identity, clipped codes as constants; what is left goes to the extremes that
/// decide the scale, and on to their clips and the first elements that have them.
template <typename Team>
static __device__ void backward(const FakeQuantize &p, const Team &team, uint32_t group) {
    uint32_t n = group < p.groups ? p.n : 0;
    uint64_t start = (uint64_t)(group / p.step) * p.n * p.step + group % p.step;
    Grid grid = make_grid(p, team, group, start, n);
    float of_scale = 0.0f, clipped = 0.0f;
    int first_high = 0x7fffffff, first_low = 0x7fffffff;
#pragma unroll 4
    for (uint32_t i = team.lane; i < n; i += Team::size) {
        uint64_t at = start + (uint64_t)i * p.step;
        float x = to_f32(p.x[at]), dy = to_f32(p.dy[at]);
        float code = grid.free_code(x), centred = grid.limited(code) - grid.zero;
        if (grid.holds(code)) {
            of_scale += dy * (centred - x / grid.scale);
        } else {
            of_scale += dy * (centred + grid.shift);
            clipped += dy;
        }
        if (x == grid.high) first_high = min(first_high, (int)i);
        if (x == grid.low) first_low = min(first_low, (int)i);
    }
    of_scale = team.over(of_scale, Sum()) / p.q_max;
    clipped = team.over(clipped, Sum());
    first_high = team.over(first_high, Smaller());
    first_low = team.over(first_low, Smaller());
    float of_high, of_low;
    if (p.is_asymmetric) {
        of_high = grid.from_high() + grid.from_low() > FLOOR ? of_scale : 0.0f;
        of_low = clipped - of_high;
    } else {
        bool decides = fmaxf(grid.from_high(), grid.from_low()) > FLOOR;
        bool is_high = grid.from_high() >= grid.from_low();
        of_high = decides && is_high ? of_scale : 0.0f;
        of_low = decides && !is_high ? -of_scale : 0.0f;
    }
#pragma unroll 4
    for (uint32_t i = team.lane; i < n; i += Team::size) {
        uint64_t at = start + (uint64_t)i * p.step;
        float dx = grid.holds(grid.free_code(to_f32(p.x[at]))) ? to_f32(p.dy[at]) : 0.0f;
        if (i == first_high) dx += of_high * grid.clip_max;
        if (i == first_low) dx += of_low * grid.clip_min;
        p.y[at] = from_f32<A>(dx);
    }
    if (team.lane != 0 || group >= p.groups) return;
    p.of_max[group] = of_high * grid.high;
    p.of_min[group] = of_low * grid.low;
}

template <typename Team>
static __device__ void run(const FakeQuantize &p, const Team &team, uint32_t group) {
    if (p.dy) backward(p, team, group);
    else forward(p, team, group);
}

/// A warp for each group of neighbouring elements.
extern "C" __global__ void __launch_bounds__(256) fake_quantize_warp(const FakeQuantize p) {
    begin();
    uint32_t group = blockIdx.x * 8 + threadIdx.x / 32;
    if (group < p.groups) run(p, RowTeam<32>{threadIdx.x % 32}, group);
}

/// A block for each group of neighbouring elements.
extern "C" __global__ void __launch_bounds__(256) fake_quantize_block(const FakeQuantize p) {
    begin();
    run(p, RowTeam<256>{threadIdx.x}, blockIdx.x);
}

/// A block for 32 groups that lie side by side.
extern "C" __global__ void __launch_bounds__(1024) fake_quantize_columns(const FakeQuantize p) {
    begin();
    run(p, ColumnTeam{threadIdx.x / 32}, blockIdx.x * 32 + threadIdx.x % 32);
}

/// A block for NARROW groups of many elements that lie side by side.
extern "C" __global__ void __launch_bounds__(1024) fake_quantize_narrow(const FakeQuantize p) {
    begin();
    run(p, NarrowTeam{threadIdx.x / NARROW}, blockIdx.x * NARROW + threadIdx.x % NARROW);
}
