// Sums of products, their scales, and what becomes of them.

// Which scales belong to a unit.
struct Groups {
    const float* scales;  // [k / block_size, n]
    int n;
    float units_a_block;
    int last;  // row; inputs beyond k, which are zeros, have none of their own

    __device__ __forceinline__ Groups(const float* scales, int k, int n, int block_size)
        : scales(scales), n(n), units_a_block((float)UNIT / (float)block_size),
          last(block_size > 0 ? (k - 1) / block_size : 0) {}

    // Row of the scales of an input, given in units; the quotient is exact enough by far.
    __device__ __forceinline__ const float* row(float unit) const {
        return scales + (size_t)min((int)((unit + 0.25f) * units_a_block), last) * n;
    }
};

// Scales of the groups of one unit, of outputs `output` and `output` + 8.
struct GroupScales {
#if GROUP == 32
    float of_half[2][2];
#elif GROUP == 64
    float of_unit[2];
#endif

    __device__ __forceinline__ void load(const Groups& groups, int unit, int output) {
#if GROUP > 0
        const int n0 = min(output, groups.n - 1), n1 = min(output + 8, groups.n - 1);
        const float* row = groups.row((float)unit);
#if GROUP == 32
        const float* second = groups.row((float)unit + 0.5f);
        of_half[0][0] = load_constant(row + n0), of_half[0][1] = load_constant(row + n1);
        of_half[1][0] = load_constant(second + n0), of_half[1][1] = load_constant(second + n1);
#else
        of_unit[0] = load_constant(row + n0), of_unit[1] = load_constant(row + n1);
#endif
#endif
    }
};

// Adds the products of a unit to sums of N_TILES · 16 outputs × N_FRAGMENTS · 8 columns. Each result has
// N_CHAINS sums: a product waits for the one before it in its chain, so there should be many chains.
template <int N_TILES, int N_FRAGMENTS, int N_CHAINS>
__device__ __forceinline__ void add_unit(Total (&sums)[N_CHAINS][N_TILES][N_FRAGMENTS][4],
                                         const Activation::Weights (&a)[N_TILES],
                                         const Activation::Fragment (&f)[N_FRAGMENTS],
                                         const GroupScales (&scales)[N_TILES]) {
    using A = Activation;
#if GROUP == 0
#pragma unroll
    for (int step = 0; step < A::STEPS; ++step) {
#pragma unroll
        for (int c = 0; c < N_FRAGMENTS; ++c) {
#pragma unroll
            for (int i = 0; i < N_TILES; ++i) A::step(sums[step % N_CHAINS][i][c], a[i], f[c], step);
        }
    }
#else
#pragma unroll
    for (int c = 0; c < N_FRAGMENTS; ++c) {
#pragma unroll
        for (int i = 0; i < N_TILES; ++i) {
            A::Sum of_half[2][4] = {};
#pragma unroll
            for (int step = 0; step < A::STEPS; ++step) {
                // Steps in an order that alternates between the halves.
                const int half = step % 2, at = half * (A::STEPS / 2) + step / 2;
                A::step(of_half[half], a[i], f[c], at);
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
#if GROUP == 32
                sums[0][i][c][j] += scales[i].of_half[0][j / 2] * (float)of_half[0][j];
                sums[0][i][c][j] += scales[i].of_half[1][j / 2] * (float)of_half[1][j];
#else
                sums[0][i][c][j] += scales[i].of_unit[j / 2] * (float)(of_half[0][j] + of_half[1][j]);
#endif
            }
        }
    }
#endif
}

// The result of one output from its sum: scales of weight and row, bias, residual.
struct Epilogue {
    const float* w_scale;
    const T* bias;
    const T* residual;

    // What does not depend on the kernel before.
    struct Constants {
        float factor, bias;
    };

    __device__ __forceinline__ Constants constants(int n, int n_all) const {
        Constants c = {1.0f, 0.0f};
        if (n < n_all) {
            if (GROUP == 0) c.factor = load_constant(w_scale + n);
            if (bias) c.bias = to_f32(bias[n]);
        }
        c.factor *= 1.0f / Activation::WEIGHT_FACTOR;
        return c;
    }

    __device__ __forceinline__ float residual_at(int r, int n, int n_all) const {
        return residual && n < n_all ? to_f32(residual[(size_t)r * n_all + n]) : 0.0f;
    }

    __device__ __forceinline__ T finish(float sum, const Constants& c, float x_scale,
                                        float added) const {
        float y = sum * c.factor;
        if (!WEIGHT_ONLY) y *= x_scale;
        return from_f32<T>(y + c.bias + added);
    }
};
