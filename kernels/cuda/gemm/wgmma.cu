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
// Defines: T, WEIGHT_BITS (4, 8), TILE_M (64, 128), BLOCKS (1, 2), STAGES, CLUSTER (1, 2: blocks
// side by side in n that share their activation codes by multicast).

#include "common.cuh"
#include "hopper.cuh"
#include "output.cuh"

#ifndef WEIGHT_BITS
#define WEIGHT_BITS 4
#endif
#ifndef TILE_M
#define TILE_M 128
#endif
#ifndef BLOCKS
#define BLOCKS 2
#endif
#ifndef STAGES
#define STAGES 6
#endif
#ifndef CLUSTER
#define CLUSTER 1
#endif
#ifndef BAND
#define BAND 8
#endif

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

// The tile of outputs and rows that comes as number `index`: BAND units of CLUSTER tiles along
// n, over all rows, then the next BAND, so that a wave shares both operands in the L2 cache.
struct Tile {
  int n, m;
};

__device__ __forceinline__ Tile tile_at(int index, int units, int m_tiles, int rank) {
  const int band = index / (BAND * m_tiles), within = index % (BAND * m_tiles);
  const int width = min(BAND, units - band * BAND);
  return {((band * BAND + within % width) * CLUSTER + rank) * TILE_N, within / width * TILE_M};
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

// One arrival a warp and block that reads what the producers of the cluster write.
__device__ __forceinline__ void release(uint32_t empty, int lane) {
  if (CLUSTER > 1) {
    if (lane < CLUSTER) barrier_arrive_at(empty, lane);
  } else if (lane == 0) {
    barrier_arrive(empty);
  }
}

// Sums of the warpgroup's tile over all of K.
__device__ __forceinline__ void accumulate(int32_t (&sums)[BLOCKS][SUMS], uint32_t stages,
                                           uint32_t full, uint32_t empty, int steps, Ring& ring,
                                           uint32_t my_weights, int lane) {
  uint32_t a[2][BLOCKS][8];
  int previous = 0;
  for (int step = 0; step < steps; ++step) {
    const uint32_t w = stages + ring.stage * STAGE_BYTES;
    const uint32_t x = w + W_BYTES;
    barrier_wait(full + 8 * ring.stage, ring.phase);
    load_weights(w + my_weights, 0, a[0]);
    multiply(sums, a[0], x, step > 0);
    // The registers of the other half, and the last stage, are free when its products are done.
    wgmma_wait<1>();
    if (step > 0) release(empty + 8 * previous, lane);
    load_weights(w + my_weights, 1, a[1]);
    multiply(sums, a[1], x + 64, 1);
    wgmma_wait<1>();
    previous = ring.stage;
    ring.advance();
  }
  wgmma_wait<0>();
#pragma unroll
  for (int b = 0; b < BLOCKS; ++b) {
#pragma unroll
    for (int i = 0; i < SUMS; ++i) asm volatile("" : "+r"(sums[b][i])::"memory");
  }
  if (steps > 0) release(empty + 8 * previous, lane);
}

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
      c.scale[b][half] = n < p.n ? p.w_scale[n] * unit : 0.0f;
      c.bias[b][half] = p.bias && n < p.n ? to_f32(p.bias[n]) : 0.0f;
    }
  }
  return c;
}

// Scales STAGED_ROWS rows of the warpgroup's sums into its staging buffer, [row][output] with
// 16-byte chunks permuted by the row so that neither side meets a bank conflict.
__device__ __forceinline__ void stage_rows(int32_t (&sums)[BLOCKS][SUMS], int row0,
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
        const int32_t* d = &sums[b][row / 2];
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

__device__ void produce(const TensorMap* weights, const TensorMap* codes, const Problem& p,
                        uint32_t stages, uint32_t full, uint32_t empty, int steps, int units,
                        int m_tiles, int rank) {
  Ring ring;
  const int count = units * m_tiles;
  for (int index = blockIdx.x / CLUSTER; index < count; index += gridDim.x / CLUSTER) {
    const Tile tile = tile_at(index, units, m_tiles, rank);
    for (int step = 0; step < steps; ++step) {
      const uint32_t w = stages + ring.stage * STAGE_BYTES, x = w + W_BYTES;
      const uint32_t barrier = full + 8 * ring.stage;
      if (CLUSTER > 1) {
        barrier_wait_cluster(empty + 8 * ring.stage, ring.phase ^ 1);
      } else {
        barrier_wait(empty + 8 * ring.stage, ring.phase ^ 1);
      }
      barrier_expect(barrier, STAGE_BYTES);
      // An element of the weights' map is the packed bytes of 1/256 of a stage's inputs.
      copy_box(w, weights, step * 256, tile.n / 16, barrier);
      if (CLUSTER > 1) {
        const int part = TILE_M / CLUSTER;
        copy_box_to(x + rank * part * TILE_K, codes, step * TILE_K, tile.m + rank * part, barrier,
                    (1 << CLUSTER) - 1);
      } else {
        copy_box(x, codes, step * TILE_K, tile.m, barrier);
      }
      ring.advance();
    }
  }
}

__device__ void consume(const Problem& p, uint32_t stages, uint32_t full, uint32_t empty,
                        uint32_t staging, float* a_scale, int steps, int units, int m_tiles,
                        int rank, int group) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const uint32_t my_weights =
      (group * BLOCKS * 4 + warp) * K_TILES * PACKED_TILE + lane * 16;
  Ring ring;
  const int count = units * m_tiles;
  for (int index = blockIdx.x / CLUSTER; index < count; index += gridDim.x / CLUSTER) {
    const Tile tile = tile_at(index, units, m_tiles, rank);
    const int n0 = tile.n + group * GROUP_N;
    const Columns columns = load_columns(p, n0, warp, lane);
    const int row = tile.m + thread;
    const float row_scale = thread < TILE_M && row < p.rows ? p.a_scale[row] : 0.0f;
    int32_t sums[BLOCKS][SUMS];
    accumulate(sums, stages, full, empty, steps, ring, my_weights, lane);
    if (thread < TILE_M) a_scale[thread] = row_scale;
#pragma unroll
    for (int row0 = 0; row0 < TILE_M; row0 += STAGED_ROWS) {
      named_sync(1 + group, 128);
      stage_rows(sums, row0, columns, a_scale, staging, warp, lane);
      named_sync(1 + group, 128);
      write_rows(p, staging, tile.m + row0, n0, thread);
    }
    named_sync(1 + group, 128);
  }
}

#if CLUSTER > 1
#define IN_CLUSTERS __cluster_dims__(CLUSTER, 1, 1)
#else
#define IN_CLUSTERS
#endif

extern "C" __global__ void IN_CLUSTERS __launch_bounds__(384, 1)
    wgmma_gemm(const __grid_constant__ TensorMap weights, const __grid_constant__ TensorMap codes,
               const __grid_constant__ Problem p) {
  extern __shared__ uint8_t dynamic[];
  __shared__ uint64_t barriers[2 * STAGES];
  __shared__ float a_scale[2][TILE_M];
  const uint32_t stages = (shared_address(dynamic) + 1023) & ~1023u;
  const uint32_t full = shared_address(barriers), empty = full + 8 * STAGES;
  const int rank = CLUSTER > 1 ? cluster_rank() : 0;
  const int steps = (p.k + TILE_K - 1) / TILE_K;
  const int n_tiles = (p.n + TILE_N - 1) / TILE_N;
  const int units = (n_tiles + CLUSTER - 1) / CLUSTER;
  const int m_tiles = (p.rows + TILE_M - 1) / TILE_M;

  if (threadIdx.x == 0) {
    prefetch_map(&weights);
    prefetch_map(&codes);
    for (int s = 0; s < STAGES; ++s) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s, 8 * CLUSTER);
    }
    fence_barrier_init();
  }
  __syncthreads();
  if (CLUSTER > 1) cluster_sync();
  wait_for_previous_kernel();
  let_next_kernel_start();

  const int group = static_cast<int>(threadIdx.x / 128) - 1;
  if (group < 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) {
      produce(&weights, &codes, p, stages, full, empty, steps, units, m_tiles, rank);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const uint32_t staging = stages + STAGES * STAGE_BYTES + group * STAGING;
    consume(p, stages, full, empty, staging, a_scale[group], steps, units, m_tiles, rank, group);
  }
  // No block of a cluster leaves while another may still write to it or signal it.
  if (CLUSTER > 1) cluster_sync();
}
