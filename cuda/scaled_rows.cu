// Rows times a factor of each, and by channel the sums of the rows themselves: a convolution's adjoint begins with the
// one, and the other is the gradient to its bias.
#include "features.cuh"

// out(p) = scale(p) in(p), and partial[block][c], the sum of in(p) over the block's `length` rows of one image. partial
// (B * gridDim.x, C) may be null; scale (B or 1, L). A block takes LANES vectors of channels, of ROWS_PER_BLOCK rows at
// once.
extern "C" __global__ void __launch_bounds__(THREADS)
    scaled_rows(const feature* __restrict__ in, const float* __restrict__ scale, feature* __restrict__ out,
                float* __restrict__ partial, int count, int length, int scale_stride) {
    __shared__ float sums[ROWS_PER_BLOCK][LANES * VECTOR];
    int lane = threadIdx.x % LANES, place = threadIdx.x / LANES;
    int c = (blockIdx.z * LANES + lane) * VECTOR;
    int64 image = blockIdx.y;
    int begin = blockIdx.x * length;
    int end = begin + length < count ? begin + length : count;
    in += image * count * CHANNELS + c;
    out += image * count * CHANNELS + c;
    scale += image * scale_stride;
    float sum[VECTOR] = {};
    for (int row = begin + place; row < end && c < CHANNELS; row += ROWS_PER_BLOCK) {
        float x[VECTOR], factor = scale[row];
        load(in + (int64)row * CHANNELS, x);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
            sum[i] += x[i];
            x[i] *= factor;
        }
        store(x, out + (int64)row * CHANNELS);
    }
    if (partial == nullptr) return;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) sums[place][lane * VECTOR + i] = sum[i];
    __syncthreads();
    partial += (image * gridDim.x + blockIdx.x) * CHANNELS + blockIdx.z * LANES * VECTOR;
    for (int i = threadIdx.x; i < LANES * VECTOR && blockIdx.z * LANES * VECTOR + i < CHANNELS; i += THREADS) {
        float total = 0.0f;
        for (int other = 0; other < ROWS_PER_BLOCK; ++other) total += sums[other][i];
        partial[i] = total;
    }
}
