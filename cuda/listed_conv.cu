// Depthwise sparse convolution through neighbour lists (lists.cuh): the operator, its adjoint, the gradient to the taps.
//
// Compiled also for WINDOW_HEIGHT, WINDOW_WIDTH. A block takes one part of the channels: at most 8 lanes of a warp with
// 8 channels each, or 32 with one. No atomics: sums run in order of the offsets; for the taps in order of the points.
#include "features.cuh"
#include "lists.cuh"

constexpr int MOST_LANES = VECTOR == 1 ? 32 : 8;
constexpr int PART_LANES = LANES < MOST_LANES ? LANES : MOST_LANES;
constexpr int PART = PART_LANES * VECTOR;
constexpr int GROUPS = 32 / PART_LANES;
constexpr int WARPS = THREADS / 32;

// Two neighbours of a list.
struct alignas(8) Two {
    unsigned word[2];
};

__device__ inline void copy(const feature* from, feature* to) {
    if constexpr (VECTOR == 1)
        to[0] = from[0];
    else
        for (int part = 0; part < VECTOR / EACH; ++part)
            reinterpret_cast<Sixteen*>(to)[part] = reinterpret_cast<const Sixteen*>(from)[part];
}

__device__ inline void multiply_add(const float* a, const float* b, float* sum) {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) sum[i] += a[i] * b[i];
}

// Of a block: points that it takes at once, and how often, so that copying the taps counts little.
constexpr int AT_ONCE = THREADS / PART_LANES;
constexpr int RUNS = 4;

// out(p) = scale(p) sum_n kappa(n) in(p + n) + bias + added(p). kappa (WINDOW + 1, C), the last row zero. scale (B or 1,
// L), bias (C) and added, of rows as in's, may be null. list_stride, scale_stride: from one image to the next, 0 where
// images share.
extern "C" __global__ void __launch_bounds__(THREADS)
    listed_conv(const feature* __restrict__ in, const feature* __restrict__ kappa, const unsigned* __restrict__ by_point,
                const float* __restrict__ scale, const float* __restrict__ bias, const feature* __restrict__ added,
                feature* __restrict__ out, int count, int64 list_stride, int scale_stride) {
    // A lane's channels of all taps lie PART_LANES vectors apart; those of one tap side by side.
    alignas(16) __shared__ feature taps[(WINDOW + 1) * PART];
    int lane = threadIdx.x % PART_LANES, place = threadIdx.x / PART_LANES;
    int c = blockIdx.z * PART + lane * VECTOR;
    bool inside = c < CHANNELS;
#pragma unroll 1
    for (int offset = place; offset <= WINDOW && inside; offset += AT_ONCE)
        copy(kappa + offset * CHANNELS + c, taps + offset * PART + lane * VECTOR);
    __syncthreads();
    if (!inside) return;
    int64 image = blockIdx.y;
    const feature* rows = whole(in + image * count * CHANNELS + c);
    const feature* own_taps = taps + lane * VECTOR;
    for (int run = 0; run < RUNS; ++run) {
        int point = (blockIdx.x * RUNS + run) * AT_ONCE + place;
        if (point >= count) return;
        const unsigned* list = by_point + image * list_stride + (int64)point * LIST;
        float sum[VECTOR] = {};
        int length = list[0];
#pragma unroll 1
        for (int n = 2; n < length + 2; n += 2) {
            Two two = *reinterpret_cast<const Two*>(list + n);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                unsigned number = whole(two.word[i] >> TAP_BITS), offset = whole(two.word[i] % (1u << TAP_BITS));
                float x[VECTOR], w[VECTOR];
                load(rows + (int64)number * CHANNELS, x);
                load(own_taps + offset * PART, w);
                multiply_add(x, w, sum);
            }
        }
        float factor = scale == nullptr ? 1.0f : scale[image * scale_stride + point];
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) sum[i] = factor * sum[i] + (bias == nullptr ? 0.0f : bias[c + i]);
        int64 here = (image * count + point) * CHANNELS + c;
        if (added != nullptr) {
            float more[VECTOR];
            load(added + here, more);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) sum[i] += more[i];
        }
        store(sum, out + here);
    }
}

// partial[chunk][offset][c] = sum over the chunk's points of grad(p) in(p + offset). A chunk is `length` stretches of one
// image after the other; a warp takes every WARPS-th offset, a group of its lanes every GROUPS-th pair of it. What a
// stretch adds is kept in `partial`, so that its rows are read for all offsets while they are in the cache.
extern "C" __global__ void __launch_bounds__(THREADS)
    listed_taps(const feature* __restrict__ in, const feature* __restrict__ grad,
                const unsigned* __restrict__ by_offset, float* __restrict__ partial, int batch, int count,
                int chunk_length, int64 list_stride) {
    int lane = threadIdx.x % PART_LANES, group = threadIdx.x % 32 / PART_LANES, warp = threadIdx.x / 32;
    int c = blockIdx.y * PART + lane * VECTOR;
    bool alive = c < CHANNELS;
    if (!alive) c = 0;
    int stretches = (count + STRETCH - 1) / STRETCH;
    int begin = blockIdx.x * chunk_length;
    int end = begin + chunk_length < batch * stretches ? begin + chunk_length : batch * stretches;
    partial += (int64)blockIdx.x * WINDOW * CHANNELS + c;
    for (int stretch = begin; stretch < end; ++stretch) {
        int image = stretch / stretches, place = stretch % stretches;
        const unsigned* lists = by_offset + image * list_stride + (int64)place * WINDOW * PAIRS;
        const feature* rows = whole(in + (int64)image * count * CHANNELS + c);
        const feature* grads = whole(grad + ((int64)image * count + place * STRETCH) * CHANNELS + c);
        for (int offset = warp; offset < WINDOW; offset += WARPS) {
            const unsigned* pairs = lists + offset * PAIRS;
            float sum[VECTOR] = {};
            int length = pairs[0];
#pragma unroll 2
            for (int n = group; n < length; n += GROUPS) {
                unsigned pair = pairs[1 + n];
                unsigned number = whole(pair >> STRETCH_BITS), point = whole(pair % STRETCH);
                float x[VECTOR], g[VECTOR];
                load(rows + (int64)number * CHANNELS, x);
                load(grads + (int64)point * CHANNELS, g);
                multiply_add(x, g, sum);
            }
#pragma unroll
            for (int apart = PART_LANES; apart < 32; apart *= 2)
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], apart);
            if (group != 0 || !alive) continue;
            float* total = partial + offset * CHANNELS;
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) total[i] = stretch == begin ? sum[i] : total[i] + sum[i];
        }
    }
}
