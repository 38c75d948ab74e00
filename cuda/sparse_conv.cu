// Depthwise sparse convolution on points (infinity-Diff Eq. 16), the gradient to its features and to its kernel.
//
// Compiled also for
//   WINDOW_HEIGHT, WINDOW_WIDTH   odd sizes of kappa, the kernel at every pixel offset
//   NEIGHBOURS                    0: `index` (B or 1, H, W) holds point numbers, null when every pixel is a point
//                                 1: `index` (B * L, window) holds rows of the batch's flattened features, -1 for none
// kappa is (window, C). `inverse` (B or 1, L) is k^2 over the count of the points present. Strides are elements from one
// image to the next, 0 where images share. No atomics: sums run in the order of the offsets, then of the chunks.
#include "features.cuh"

constexpr int WINDOW = WINDOW_HEIGHT * WINDOW_WIDTH;

// The row of the flattened features that lies at an offset from a point, -1 for none.
__device__ inline int neighbour(const int* index, int image, int point, int row, int column, int offset, int count,
                                int height, int width, int64 index_stride) {
#if NEIGHBOURS == 0
    int down = offset / WINDOW_WIDTH - WINDOW_HEIGHT / 2;
    int across = offset % WINDOW_WIDTH - WINDOW_WIDTH / 2;
    const int* here = index == nullptr ? nullptr : index + image * index_stride;
    int number = point_at(here, row + down, column + across, height, width);
    return number < 0 ? -1 : image * count + number;
#else
    return index[((int64)image * count + point) * WINDOW + offset];
#endif
}

// out(c) = inverse(c) sum_n kappa(n) in(c + n) + bias, which may be null; or, TRANSPOSED, the adjoint of the sum:
// sum_n kappa(-n) inverse(c + n) in(c + n).
template <bool TRANSPOSED>
__device__ inline void convolve(const feature* in, const feature* kappa, const int64* ids, const int* index,
                                const float* inverse, const float* bias, feature* out, int count, int height, int width,
                                int ids_stride, int64 index_stride, int inverse_stride) {
    __shared__ List lists[ROWS_PER_BLOCK];
    int lane = threadIdx.x % LANES;
    int image = blockIdx.y;
    int point = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / LANES;
    bool alive = point < count;
    int id = alive ? (int)ids[(int64)image * ids_stride + point] : 0;
    int row = id / width, column = id % width;
    inverse += (int64)image * inverse_stride;
    List& list = lists[threadIdx.x / LANES];
    Row sum;
    sum.clear();
    for (int first = 0; first < WINDOW; first += List::LENGTH) {
        int length = 0;
        for (int round = 0; round < List::LENGTH; round += LANES) {
            int offset = first + round + lane;
            int number = -1;
            if (alive && offset < WINDOW)
                number = neighbour(index, image, point, row, column, offset, count, height, width, index_stride);
            length = list.append(length, lane, number, offset);
        }
        __syncwarp();
        for (int i = 0; i < length; ++i) {
            int number = list.number[i];
            int offset = TRANSPOSED ? WINDOW - 1 - list.tag[i] : list.tag[i];
            float weight = TRANSPOSED ? inverse[number - image * count] : 1.0f;
            sum.add(in + (int64)number * CHANNELS, kappa + (int64)offset * CHANNELS, weight, lane);
        }
        __syncwarp();
    }
    if (alive) sum.put(out + ((int64)image * count + point) * CHANNELS, TRANSPOSED ? 1.0f : inverse[point], lane, bias);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    sparse_conv(const feature* in, const feature* kappa, const int64* ids, const int* index, const float* inverse,
                const float* bias, feature* out, int count, int height, int width, int ids_stride, int64 index_stride,
                int inverse_stride) {
    convolve<false>(in, kappa, ids, index, inverse, bias, out, count, height, width, ids_stride, index_stride,
                    inverse_stride);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    sparse_conv_transposed(const feature* in, const feature* kappa, const int64* ids, const int* index,
                           const float* inverse, feature* out, int count, int height, int width, int ids_stride,
                           int64 index_stride, int inverse_stride) {
    convolve<true>(in, kappa, ids, index, inverse, nullptr, out, count, height, width, ids_stride, index_stride,
                   inverse_stride);
}

// The gradient to kappa: partial[chunk][offset][c] = sum over the chunk's points of inverse(p) grad(p) in(p + offset).
// A block takes one chunk of the batch's points, one stretch of STRETCH offsets in one row of the window, and TILE
// channels; a warp takes every WARPS-th point, a lane TILE / 32 channels, so the sums stay in registers.
constexpr int STRETCH = 8;
constexpr int STRETCHES = (WINDOW_WIDTH + STRETCH - 1) / STRETCH;
constexpr int PER_LANE = CHANNELS >= 64 ? 2 : 1;
constexpr int TILE = 32 * PER_LANE;
constexpr int WARPS = THREADS / 32;

extern "C" __global__ void __launch_bounds__(THREADS)
    sparse_conv_taps(const feature* in, const feature* grad, const int64* ids, const int* index, const float* inverse,
                     float* partial, int batch, int count, int height, int width, int ids_stride, int64 index_stride,
                     int inverse_stride, int chunk_length) {
    __shared__ float shared[WARPS][STRETCH][TILE];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int window_row = blockIdx.y / STRETCHES, first = blockIdx.y % STRETCHES * STRETCH;
    int channel = blockIdx.z * TILE + lane * PER_LANE;
    float sum[STRETCH][PER_LANE];
#pragma unroll
    for (int j = 0; j < STRETCH; ++j)
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) sum[j][i] = 0.0f;

    int64 end = (int64)(blockIdx.x + 1) * chunk_length, points = (int64)batch * count;
    if (end > points) end = points;
    for (int64 p = (int64)blockIdx.x * chunk_length + warp; p < end; p += WARPS) {
        int image = (int)(p / count), point = (int)(p - (int64)image * count);
        int id = (int)ids[(int64)image * ids_stride + point];
        int number = -1;
        if (lane < STRETCH && first + lane < WINDOW_WIDTH)
            number = neighbour(index, image, point, id / width, id % width, window_row * WINDOW_WIDTH + first + lane,
                               count, height, width, index_stride);
        unsigned present = __ballot_sync(ALL_LANES, number >= 0);
        if (present == 0) continue;
        float scale = inverse[(int64)image * inverse_stride + point];
        float g[PER_LANE];
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i)
            g[i] = channel + i < CHANNELS ? scale * widen(grad[p * CHANNELS + channel + i]) : 0.0f;
#pragma unroll
        for (int j = 0; j < STRETCH; ++j) {
            int other = __shfl_sync(ALL_LANES, number, j);
            if (other < 0) continue;
#pragma unroll
            for (int i = 0; i < PER_LANE; ++i)
                if (channel + i < CHANNELS) sum[j][i] += g[i] * widen(in[(int64)other * CHANNELS + channel + i]);
        }
    }
#pragma unroll
    for (int j = 0; j < STRETCH; ++j)
#pragma unroll
        for (int i = 0; i < PER_LANE; ++i) shared[warp][j][lane * PER_LANE + i] = sum[j][i];
    __syncthreads();
    for (int place = threadIdx.x; place < STRETCH * TILE; place += THREADS) {
        int j = place / TILE, c = place % TILE;
        if (first + j >= WINDOW_WIDTH || blockIdx.z * TILE + c >= CHANNELS) continue;
        float total = 0.0f;
        for (int w = 0; w < WARPS; ++w) total += shared[w][j][c];
        int64 offset = window_row * WINDOW_WIDTH + first + j;
        partial[((int64)blockIdx.x * WINDOW + offset) * CHANNELS + blockIdx.z * TILE + c] = total;
    }
}
