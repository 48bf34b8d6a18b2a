// out = x · Wᵀ (+ bias) (+ residual) for up to 8 rows and 16-bit weights [n, k], on tensor cores:
// 16 outputs by 8 rows. A lane's 16 bytes of a row of W are 8 inputs in a row, and those of x too:
// a product does not mind which inputs its steps pair.
//
// A block has 16 outputs and all of K, which its warps share in turns, 64 inputs each.

constexpr int THREADS = 32 * WARPS;
constexpr int UNIT = 64;
constexpr int STRIDE = CHUNK * 2 + 64;  // bytes of a row of x in shared memory: no bank conflicts

__device__ __forceinline__ void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                    uint32_t a3, uint32_t b0, uint32_t b1) {
#if IS_HALF
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#endif
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ Words load_shared(uint32_t at) {
    Words v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at));
    return v;
}

// x [rows, k], w [n, k], k a multiple of 8, both 16-byte aligned.
// Grid: outputs / 16; dynamic shared memory: rows · STRIDE.
extern "C" __global__ void __launch_bounds__(THREADS)
    dense_product_transposed(const T* x, const T* w, const T* bias, const T* residual, T* out,
                             int out_stride, int rows, int k, int n) {
    constexpr int RED = 20;
    extern __shared__ Words columns[];
    __shared__ float partial[WARPS][8 * RED];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, t = lane % 4, first = blockIdx.x * 16;
    const T* w0 = w + (size_t)min(first + g, n - 1) * k + t * 8;
    const T* w1 = w + (size_t)min(first + g + 8, n - 1) * k + t * 8;

    // Inputs beyond k are zeros, of x as well.
    Words v[UNROLL][2][2];
    auto load = [&](int u, int i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int at = i + half * 32;
            if (at + t * 8 < k) {
                v[u][half][0] = load_once(w0 + at);
                v[u][half][1] = load_once(w1 + at);
            } else {
                v[u][half][0] = v[u][half][1] = Words{0, 0, 0, 0};
            }
        }
    };
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) load(u, (warp + u * WARPS) * UNIT);
    let_next_kernel_start();
    wait_for_previous_kernel();

    const uint32_t base = shared_address(columns);
    const uint32_t mine = base + min(g, rows - 1) * STRIDE + t * 16;
    float sums[2][4] = {};
    for (int chunk = 0; chunk < k; chunk += CHUNK) {
        if (chunk > 0) __syncthreads();
        const int pieces = (min(CHUNK, k - chunk) + UNIT - 1) / UNIT * (UNIT / 8);
        for (int r = 0; r < rows; ++r) {
            for (int i = threadIdx.x; i < pieces; i += THREADS) {
                const int from = chunk + i * 8;
                copy_16_async(base + r * STRIDE + i * 16, x + (size_t)r * k + (from < k ? from : 0),
                              from < k ? 16 : 0);
            }
        }
        commit_copies();
        wait_for_copies<0>();
        __syncthreads();
        for (int i = warp * UNIT; i < min(CHUNK, k - chunk); i += WARPS * UNIT * UNROLL) {
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int at = i + u * WARPS * UNIT;
                if (chunk + at >= k) break;
                const Words a[2][2] = {{v[u][0][0], v[u][0][1]}, {v[u][1][0], v[u][1][1]}};
                load(u, chunk + at + WARPS * UNIT * UNROLL);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const Words b = load_shared(mine + at * 2 + half * 64);
                    mma(sums[0], a[half][0].x, a[half][1].x, a[half][0].y, a[half][1].y, b.x, b.y);
                    mma(sums[1], a[half][0].z, a[half][1].z, a[half][0].w, a[half][1].w, b.z, b.w);
                }
            }
        }
    }

#pragma unroll
    for (int i = 0; i < 4; ++i) {
        partial[warp][(2 * t + i % 2) * RED + g + i / 2 * 8] = sums[0][i] + sums[1][i];
    }
    __syncthreads();
    const int to = first + threadIdx.x % 16;
    if (to >= n) return;
    for (int r = threadIdx.x / 16; r < rows; r += 2 * WARPS) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < WARPS; ++i) sum += partial[i][r * RED + threadIdx.x % 16];
        if (bias) sum += to_f32(bias[to]);
        if (residual) sum += to_f32(residual[(size_t)r * n + to]);
        out[(size_t)r * out_stride + to] = from_f32<T>(sum);
    }
}
