// Depthwise convolution of complete images in rows (B, H, W, C), zero outside: every pixel is a point.
//
// Compiled also for WINDOW_HEIGHT, WINDOW_WIDTH: taps in each direction.
#include "features.cuh"

constexpr int WINDOW = WINDOW_HEIGHT * WINDOW_WIDTH;
// Results along a row that one thread computes together: they share the pixels they read.
constexpr int RUN = 4;
// Pixels of a line that are visited in unrolled code, so that taps and results stay in registers.
constexpr int UNROLLED = WINDOW_WIDTH <= 7 ? WINDOW_WIDTH + RUN - 1 : 1;

// out(y, x) = scale(y, x) sum_ij taps[i, j] in(y + i step_y - pad_y, x + j step_x - pad_x) + bias. `scale` and `bias` (C)
// may be null. With `in_scale` the input is multiplied by it first, pixel by pixel. `turned` rotates the window by 180
// degrees, `accumulate` adds to `out`. CHANNELWISE: taps are features (window, C), otherwise floats (window), the same
// for every channel.
template <bool CHANNELWISE>
__device__ inline void convolve(const feature* in, const void* taps, const float* in_scale, const float* scale,
                                const float* bias, feature* out, int in_height, int in_width, int height, int width,
                                int step_y, int step_x, int pad_y, int pad_x, int turned, int accumulate) {
    // A thread: one vector of channels and RUN results, step_x apart. Neighbouring threads: neighbouring channels.
    int64 place = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    int vector = (int)(place % VECTORS);
    place /= VECTORS;
    int runs = (width + RUN * step_x - 1) / (RUN * step_x);
    int phase = (int)(place % step_x);
    place /= step_x;
    int x0 = (int)(place % runs) * RUN * step_x + phase;
    int y = (int)(place / runs);
    if (y >= height) return;
    int c = vector * VECTOR;
    in += (int64)blockIdx.y * in_height * in_width * CHANNELS;
    out += (int64)blockIdx.y * height * width * CHANNELS;
    float sum[RUN][VECTOR];
#pragma unroll
    for (int r = 0; r < RUN; ++r)
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) sum[r][i] = 0.0f;
    for (int i = 0; i < WINDOW_HEIGHT; ++i) {
        int row = y + i * step_y - pad_y;
        if (row < 0 || row >= in_height) continue;
        const feature* line = in + (int64)row * in_width * CHANNELS + c;
        // Pixel number `at` of this line meets result r through tap at - r.
#pragma unroll UNROLLED
        for (int at = 0; at < WINDOW_WIDTH + RUN - 1; ++at) {
            int column = x0 + at * step_x - pad_x;
            if (column < 0 || column >= in_width) continue;
            float v[VECTOR];
            load(line + (int64)column * CHANNELS, v);
            if (in_scale != nullptr) {
                float factor = in_scale[(int64)row * in_width + column];
#pragma unroll
                for (int n = 0; n < VECTOR; ++n) v[n] *= factor;
            }
#pragma unroll
            for (int r = 0; r < RUN; ++r) {
                int j = at - r;
                if (j < 0 || j >= WINDOW_WIDTH) continue;
                int offset = i * WINDOW_WIDTH + j;
                if (turned) offset = WINDOW - 1 - offset;
                float w[VECTOR];
                if constexpr (CHANNELWISE) {
                    load(static_cast<const feature*>(taps) + (int64)offset * CHANNELS + c, w);
                } else {
                    float shared_by_all = static_cast<const float*>(taps)[offset];
#pragma unroll
                    for (int n = 0; n < VECTOR; ++n) w[n] = shared_by_all;
                }
#pragma unroll
                for (int n = 0; n < VECTOR; ++n) sum[r][n] += w[n] * v[n];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        int x = x0 + r * step_x;
        if (x >= width) continue;
        int64 pixel = (int64)y * width + x;
        feature* result = out + pixel * CHANNELS + c;
        float factor = scale == nullptr ? 1.0f : scale[pixel];
        float before[VECTOR], total[VECTOR];
        if (accumulate) load(result, before);
#pragma unroll
        for (int n = 0; n < VECTOR; ++n) {
            total[n] = factor * sum[r][n] + (accumulate ? before[n] : 0.0f);
            if (bias != nullptr) total[n] += bias[c + n];
        }
        store(total, result);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    dense_conv(const feature* __restrict__ in, const feature* __restrict__ taps, const float* __restrict__ in_scale,
               const float* __restrict__ scale, const float* __restrict__ bias, feature* __restrict__ out,
               int in_height, int in_width, int height, int width, int step_y, int step_x, int pad_y, int pad_x,
               int turned) {
    convolve<true>(in, taps, in_scale, scale, bias, out, in_height, in_width, height, width, step_y, step_x, pad_y,
                   pad_x, turned, 0);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    dense_filter(const feature* __restrict__ in, const float* __restrict__ taps, feature* __restrict__ out,
                 int in_height, int in_width, int height, int width, int pad_y, int pad_x, int accumulate) {
    convolve<false>(in, taps, nullptr, nullptr, nullptr, out, in_height, in_width, height, width, 1, 1, pad_y, pad_x, 0,
                    accumulate);
}
