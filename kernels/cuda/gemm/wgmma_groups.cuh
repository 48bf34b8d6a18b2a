// Scales of groups of inputs in Hopper's kernel (wgmma.cu): a group's sums are scaled and added up in
// f32, in groups of whole stages while the next group's products run into a second set of sums.
#pragma once

// Scales of one group after another, for the two outputs of a thread. Each is loaded a group early.
struct Scales {
    const float *next;
    int n, outputs_left, group, groups, halves;
    float value[2] = {0.0f, 0.0f};

    __device__ __forceinline__ Scales(const Problem &p, int first_n)
        : next(p.w_scale + first_n), n(p.n), outputs_left(p.n - first_n), group(0),
          groups(p.k / p.block_size), halves(p.block_size / (TILE_K / 2))
    {
        load();
    }

    __device__ __forceinline__ void load()
    {
        if (group < groups && outputs_left > 0)
            value[0] = next[0];
        if (group < groups && outputs_left > 8)
            value[1] = next[8];
        next += n;
        group++;
    }

    // Adds a finished group's sums to the result.
    __device__ __forceinline__ void add(float (&result)[BLOCKS][SUMS], sum_t (&sums)[BLOCKS][SUMS])
    {
        settle(sums);
#pragma unroll
        for (int i = 0; i < SUMS; i++)
            result[0][i] += sums[0][i] * value[i / 2 % 2];
        load();
    }
};

#if GROUPED == 1
// Groups of half a stage, each scaled before the next one starts: the compiler does not let the two
// sets of sums alternate as fast. Inputs beyond K are zeros, and so are their sums.
template <typename F>
__device__ __forceinline__ void accumulate_groups(float (&result)[BLOCKS][SUMS], Walk &walk,
                                                  Scales scales, F meanwhile)
{
    sum_t sums[BLOCKS][SUMS];
    for (int step = 0; step < walk.stages.steps; step++) {
        walk.first(sums, 0);
        wgmma_wait<0>();
        scales.add(result, sums);
        if (step == 0)
            meanwhile();
        walk.second(sums, 0);
        wgmma_wait<0>();
        scales.add(result, sums);
    }
    walk.finish();
}
#else
// Groups of whole stages.
template <typename F>
__device__ __forceinline__ void accumulate_groups(float (&result)[BLOCKS][SUMS], Walk &walk,
                                                  Scales scales, F meanwhile)
{
    const int steps = scales.halves / 2;
    sum_t even[BLOCKS][SUMS], odd[BLOCKS][SUMS];
    auto run = [&](sum_t(&now)[BLOCKS][SUMS], sum_t(&before)[BLOCKS][SUMS], bool is_first) {
        walk.first(now, 0);
        if (is_first)
            meanwhile();
        else
            scales.add(result, before);
        walk.second(now, 1);
        for (int step = 1; step < steps; step++) {
            walk.first(now, 1);
            walk.second(now, 1);
        }
    };
    int group = 0;
    for (; group + 1 < scales.groups; group += 2) {
        run(even, odd, group == 0);
        run(odd, even, false);
    }
    if (group < scales.groups) {
        run(even, odd, group == 0);
        walk.finish();
        scales.add(result, even);
    } else {
        walk.finish();
        scales.add(result, odd);
    }
}
#endif
