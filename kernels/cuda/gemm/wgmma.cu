// The integer product of many rows on Hopper: out[m, n] = a_scale[m] · w_scale[n] ·
// Σ_k codes[m, k]·w[n, k] (+ bias[n]) (+ residual[m, n]).
//
// The product is computed transposed, D = W·Xᵀ, because `wgmma` takes its A operand from
// registers: weights come packed through shared memory, 16 bytes a lane, and two masks make them
// int8 (times 16) on the way into the tensor cores. Activation codes are the B operand, read
// from shared memory where the copy engine put them. One producer thread keeps STAGES stages of
// 128 inputs in flight; two warpgroups hold 64·BLOCKS outputs × TILE_M rows of sums each. Blocks
// stay resident and take one tile after another, so the copies of the next tile run during the
// epilogue of the last.
//
// With GROUPED the scale is [k / block_size, n]: each group's exact sums are scaled and added up in
// f32 while the other warpgroup multiplies. block_size is then a multiple of 64, and BLOCKS is 1.
//
// Defines: T, WEIGHT_BITS (4, 8), TILE_M (64, 128), BLOCKS (1, 2), STAGES, BAND, GROUPED (0, 1).

#include "common.cuh"
#include "hopper.cuh"
#include "output.cuh"

constexpr int TILE_K = 128;
constexpr int GROUP_N = 64 * BLOCKS;            // outputs of a warpgroup
constexpr int TILE_N = 2 * GROUP_N;             // outputs of a block
constexpr int PACKED_TILE = 512;                // bytes of one packed tile of weights
constexpr int K_TILES = TILE_K * WEIGHT_BITS / 256;  // packed tiles along K in a stage
constexpr int W_BYTES = TILE_N * TILE_K * WEIGHT_BITS / 8;
constexpr int X_BYTES = TILE_M * TILE_K;
constexpr int STAGE_BYTES = W_BYTES + X_BYTES;
constexpr int STAGING = 16384;                  // bytes a warpgroup transposes through
constexpr int STAGED_ROWS_MAX = STAGING / (GROUP_N * static_cast<int>(sizeof(T)));
constexpr int STAGED_ROWS = STAGED_ROWS_MAX < TILE_M ? STAGED_ROWS_MAX : TILE_M;
constexpr int SUMS = TILE_M / 2;                // sums of a thread in a 64-output block

// The tile of outputs and rows that comes as number `index`: BAND tiles along n, over all rows,
// then the next BAND, so that a wave shares both operands in the L2 cache.
struct Tile {
  int n, m;
};

__device__ __forceinline__ Tile tile_at(int index, int n_tiles, int m_tiles) {
  const int band = index / (BAND * m_tiles), within = index % (BAND * m_tiles);
  const int width = min(BAND, n_tiles - band * BAND);
  return {(band * BAND + within % width) * TILE_N, within / width * TILE_M};
}

// Position in the ring of stages.
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// Packed weights of a 16 × 64 tile as A registers: the low nibbles are inputs 0..31, the high
// ones 32..63, each 16 times the weight.
__device__ __forceinline__ void unpack(uint4 p, uint32_t (&a)[8]) {
  a[0] = (p.x << 4) & 0xF0F0F0F0u;
  a[1] = (p.y << 4) & 0xF0F0F0F0u;
  a[2] = (p.z << 4) & 0xF0F0F0F0u;
  a[3] = (p.w << 4) & 0xF0F0F0F0u;
  a[4] = p.x & 0xF0F0F0F0u;
  a[5] = p.y & 0xF0F0F0F0u;
  a[6] = p.z & 0xF0F0F0F0u;
  a[7] = p.w & 0xF0F0F0F0u;
}

__device__ __forceinline__ void assign(uint4 lo, uint4 hi, uint32_t (&a)[8]) {
  a[0] = lo.x, a[1] = lo.y, a[2] = lo.z, a[3] = lo.w;
  a[4] = hi.x, a[5] = hi.y, a[6] = hi.z, a[7] = hi.w;
}

// The lane's weights of 64 inputs: one packed tile of INT4, two of INT8.
__device__ __forceinline__ void load_weights(uint32_t at, int step, uint32_t (&a)[BLOCKS][8]) {
#pragma unroll
  for (int b = 0; b < BLOCKS; ++b) {
    const uint32_t tile = at + b * 4 * K_TILES * PACKED_TILE;
    if (WEIGHT_BITS == 4) {
      unpack(load_shared(tile + step * PACKED_TILE), a[b]);
    } else {
      assign(load_shared(tile + 2 * step * PACKED_TILE),
             load_shared(tile + (2 * step + 1) * PACKED_TILE), a[b]);
    }
  }
}

// Products of 64 inputs, as two instructions of 32 for each block of 64 outputs.
__device__ __forceinline__ void multiply(int32_t (&sums)[BLOCKS][SUMS], uint32_t (&a)[BLOCKS][8],
                                         uint32_t x, int add) {
  wgmma_fence();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int b = 0; b < BLOCKS; ++b) {
      wgmma(sums[b], a[b] + 4 * half, operand_descriptor(x + 32 * half), add || half);
    }
  }
  wgmma_commit();
}

// One arrival a warp.
__device__ __forceinline__ void release(uint32_t empty, int lane) {
  if (lane == 0) barrier_arrive(empty);
}

// Keeps the compiler from reading sums before the wait that is above this.
__device__ __forceinline__ void settle(int32_t (&sums)[BLOCKS][SUMS]) {
#pragma unroll
  for (int b = 0; b < BLOCKS; ++b) {
#pragma unroll
    for (int i = 0; i < SUMS; ++i) asm volatile("" : "+r"(sums[b][i])::"memory");
  }
}

#if GROUPED
// Scaled sums of the groups so far, and the scales of the current one for the thread's outputs.
struct Groups {
  float total[BLOCKS][SUMS] = {};
  const float* scales;
  float scale[2];
  int n, left, until, inputs;

  __device__ __forceinline__ Groups(const Problem& p, int first_n)
      : scales(p.w_scale + first_n), n(p.n), left(p.n - first_n), until(p.block_size), inputs(p.k) {
    load();
  }

  __device__ __forceinline__ void load() {
    scale[0] = left > 0 ? scales[0] : 0.0f;
    scale[1] = left > 8 ? scales[8] : 0.0f;
    scales += n;
  }

  // Takes the sums of another 64 inputs; true where a group ends and the sums start anew.
  __device__ __forceinline__ bool take(int32_t (&sums)[BLOCKS][SUMS], const Problem& p) {
    until -= 64;
    inputs -= 64;
    if (until > 0) return false;
    until = p.block_size;
    wgmma_wait<0>();
    settle(sums);
#pragma unroll
    for (int i = 0; i < SUMS; ++i) total[0][i] += sums[0][i] * scale[i / 2 % 2];
    if (inputs > 0) load();
    return true;
  }
};
#endif

// The ring of stages in shared memory, its barriers, and the steps of a tile.
struct Stages {
  uint32_t first, full, empty;
  int steps;
};

// Sums of the warpgroup's tile over all of K.
template <typename G>
__device__ __forceinline__ void accumulate(int32_t (&sums)[BLOCKS][SUMS], const Stages& stages,
                                           Ring& ring, uint32_t my_weights, int lane,
                                           const Problem& p, G& groups) {
  uint32_t a[2][BLOCKS][8];
  int previous = 0;
  bool anew = true;
  for (int step = 0; step < stages.steps; ++step) {
    const uint32_t w = stages.first + ring.stage * STAGE_BYTES;
    const uint32_t x = w + W_BYTES;
    barrier_wait(stages.full + 8 * ring.stage, ring.phase);
    load_weights(w + my_weights, 0, a[0]);
    multiply(sums, a[0], x, !anew);
    anew = groups.take(sums, p);
    // The registers of the other half, and the last stage, are free when its products are done.
    wgmma_wait<1>();
    if (step > 0) release(stages.empty + 8 * previous, lane);
    load_weights(w + my_weights, 1, a[1]);
    multiply(sums, a[1], x + 64, !anew);
    anew = groups.take(sums, p);
    wgmma_wait<1>();
    previous = ring.stage;
    ring.advance();
  }
  wgmma_wait<0>();
  settle(sums);
  if (stages.steps > 0) release(stages.empty + 8 * previous, lane);
}

// Without groups the sums go on.
struct OneGroup {
  __device__ __forceinline__ bool take(int32_t (&)[BLOCKS][SUMS], const Problem&) { return false; }
};

// Scales of the outputs that a thread holds sums of: rows g and g + 8 of each block.
struct Columns {
  float scale[BLOCKS][2], bias[BLOCKS][2];
};

__device__ __forceinline__ Columns load_columns(const Problem& p, int n0, int warp, int lane) {
  const float unit = WEIGHT_BITS == 4 ? 1.0f / 16.0f : 1.0f;
  Columns c;
#pragma unroll
  for (int b = 0; b < BLOCKS; ++b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int n = n0 + b * 64 + warp * 16 + half * 8 + lane / 4;
      c.scale[b][half] = GROUPED ? unit : n < p.n ? p.w_scale[n] * unit : 0.0f;
      c.bias[b][half] = p.bias && n < p.n ? to_f32(p.bias[n]) : 0.0f;
    }
  }
  return c;
}

// Scales STAGED_ROWS rows of the warpgroup's sums into its staging buffer, [row][output] with
// 16-byte chunks permuted by the row so that neither side meets a bank conflict.
template <typename Sum>
__device__ __forceinline__ void stage_rows(Sum (&sums)[BLOCKS][SUMS], int row0,
                                           const Columns& c, const float* a_scale,
                                           uint32_t staging, int warp, int lane) {
  constexpr int ROW_BYTES = GROUP_N * sizeof(T);
#pragma unroll
  for (int b = 0; b < BLOCKS; ++b) {
#pragma unroll
    for (int i = 0; i < STAGED_ROWS / 16; ++i) {
      float v[2][4];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int row = row0 + 16 * i + 8 * j;
        const float s0 = a_scale[row + lane % 4 * 2], s1 = a_scale[row + lane % 4 * 2 + 1];
        const Sum* d = &sums[b][row / 2];
        v[j][0] = d[0] * c.scale[b][0] * s0 + c.bias[b][0];
        v[j][1] = d[1] * c.scale[b][0] * s1 + c.bias[b][0];
        v[j][2] = d[2] * c.scale[b][1] * s0 + c.bias[b][1];
        v[j][3] = d[3] * c.scale[b][1] * s1 + c.bias[b][1];
      }
      if (sizeof(T) == 2) {
        const int row = 16 * i + lane / 16 * 8 + lane % 8;
        const int chunk = b * 8 + warp * 2 + lane / 8 % 2;
        store_transposed(staging + row * ROW_BYTES + (chunk ^ (lane % 8)) * 16,
                         pack_pair<T>(v[0][0], v[0][1]), pack_pair<T>(v[0][2], v[0][3]),
                         pack_pair<T>(v[1][0], v[1][1]), pack_pair<T>(v[1][2], v[1][3]));
      } else {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          const int row = 16 * i + e / 4 * 8 + lane % 4 * 2 + e % 2;
          const int n = b * 64 + warp * 16 + e / 2 % 2 * 8 + lane / 4;
          store_shared(staging + row * ROW_BYTES + ((n / 4) ^ (row % 8)) * 16 + n % 4 * 4,
                       v[e / 4][e % 4]);
        }
      }
    }
  }
}

// Writes staged rows to the output in whole chunks of 16 bytes.
__device__ __forceinline__ void write_rows(const Problem& p, uint32_t staging, int row0, int n0,
                                           int thread) {
  constexpr int CHUNK = 16 / sizeof(T), CHUNKS = GROUP_N / CHUNK;
  const int chunk = thread % CHUNKS, n = n0 + chunk * CHUNK;
#pragma unroll 4
  for (int row = thread / CHUNKS; row < STAGED_ROWS; row += 128 / CHUNKS) {
    const int m = row0 + row;
    if (m < p.rows && n < p.n) {
      const uint4 v = load_shared(staging + (row * CHUNKS + (chunk ^ (row % 8))) * 16);
      write_chunk<T>(v, p.out + static_cast<int64_t>(m) * p.out_stride + n,
                     p.residual ? p.residual + static_cast<int64_t>(m) * p.n + n : nullptr,
                     p.n - n);
    }
  }
}

// The tiles of a launch; a block takes every gridDim.x-th.
struct Tiles {
  int along_n, along_m;
  __device__ __forceinline__ explicit Tiles(const Problem& p)
      : along_n((p.n + TILE_N - 1) / TILE_N), along_m((p.rows + TILE_M - 1) / TILE_M) {}
  __device__ __forceinline__ int count() const { return along_n * along_m; }
  __device__ __forceinline__ Tile at(int index) const { return tile_at(index, along_n, along_m); }
};

__device__ void produce(const TensorMap* weights, const TensorMap* codes, const Tiles& tiles,
                        const Stages& stages) {
  Ring ring;
  for (int index = blockIdx.x; index < tiles.count(); index += gridDim.x) {
    const Tile tile = tiles.at(index);
    for (int step = 0; step < stages.steps; ++step) {
      const uint32_t w = stages.first + ring.stage * STAGE_BYTES, x = w + W_BYTES;
      const uint32_t barrier = stages.full + 8 * ring.stage;
      barrier_wait(stages.empty + 8 * ring.stage, ring.phase ^ 1);
      barrier_expect(barrier, STAGE_BYTES);
      // An element of the weights' map is the packed bytes of 1/256 of a stage's inputs.
      copy_box(w, weights, step * 256, tile.n / 16, barrier);
      copy_box(x, codes, step * TILE_K, tile.m, barrier);
      ring.advance();
    }
  }
}

__device__ void consume(const Problem& p, const Tiles& tiles, const Stages& stages,
                        uint32_t staging, float* a_scale, int group) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const uint32_t my_weights = (group * BLOCKS * 4 + warp) * K_TILES * PACKED_TILE + lane * 16;
  Ring ring;
  for (int index = blockIdx.x; index < tiles.count(); index += gridDim.x) {
    const Tile tile = tiles.at(index);
    const int n0 = tile.n + group * GROUP_N;
    const Columns columns = load_columns(p, n0, warp, lane);
    const int row = tile.m + thread;
    const float row_scale = thread < TILE_M && row < p.rows ? p.a_scale[row] : 0.0f;
    int32_t sums[BLOCKS][SUMS];
#if GROUPED
    Groups groups(p, n0 + warp * 16 + lane / 4);
    accumulate(sums, stages, ring, my_weights, lane, p, groups);
    auto& results = groups.total;
#else
    OneGroup groups;
    accumulate(sums, stages, ring, my_weights, lane, p, groups);
    auto& results = sums;
#endif
    if (thread < TILE_M) a_scale[thread] = row_scale;
#pragma unroll
    for (int row0 = 0; row0 < TILE_M; row0 += STAGED_ROWS) {
      named_sync(1 + group, 128);
      stage_rows(results, row0, columns, a_scale, staging, warp, lane);
      named_sync(1 + group, 128);
      write_rows(p, staging, tile.m + row0, n0, thread);
    }
    named_sync(1 + group, 128);
  }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    wgmma_gemm(const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap codes,
               const __grid_constant__ Problem p) {
  extern __shared__ uint8_t dynamic[];
  __shared__ uint64_t barriers[2 * STAGES];
  __shared__ float a_scale[2][TILE_M];
  Stages stages;
  stages.first = (shared_address(dynamic) + 1023) & ~1023u;
  stages.full = shared_address(barriers);
  stages.empty = stages.full + 8 * STAGES;
  stages.steps = (p.k + TILE_K - 1) / TILE_K;
  const Tiles tiles(p);

  if (threadIdx.x == 0) {
    prefetch_map(&weights);
    prefetch_map(&codes);
    for (int s = 0; s < STAGES; ++s) {
      barrier_init(stages.full + 8 * s, 1);
      barrier_init(stages.empty + 8 * s, 8);
    }
    fence_barrier_init();
  }
  __syncthreads();
  wait_for_previous_kernel();
  let_next_kernel_start();

  const int group = static_cast<int>(threadIdx.x / 128) - 1;
  if (group < 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) produce(&weights, &codes, tiles, stages);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const uint32_t staging = stages.first + STAGES * STAGE_BYTES + group * STAGING;
    consume(p, tiles, stages, staging, a_scale[group], group);
  }
}
