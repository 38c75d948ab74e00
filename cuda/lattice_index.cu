// The lattice index: an image of point numbers. ids (B, L) ascending -> index (B, H, W), -1 where there is no point.
//
// A block writes TILE pixels, those of its points in shared memory first. Ascending ids make its points a range, which
// it searches for: so every pixel is written once, side by side, however few or many points there are, and repeated or
// unsorted ids cannot write outside the image.
#include "lattice.cuh"

// As in infdiff/ops/gpu/kernels.py.
constexpr int TILE = 1024;

// The number of ids before a pixel.
__device__ inline int ids_before(const int64* ids, int count, int64 pixel) {
    int low = 0, high = count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (ids[middle] < pixel)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    lattice_index(const int64* __restrict__ ids, int* __restrict__ index, int count, int pixels, int ids_stride) {
    __shared__ int tile[TILE];
    ids += (int64)blockIdx.y * ids_stride;
    index += (int64)blockIdx.y * pixels;
    int64 first = (int64)blockIdx.x * TILE;
    for (int i = threadIdx.x; i < TILE; i += THREADS) tile[i] = -1;
    __syncthreads();
    for (int l = ids_before(ids, count, first) + threadIdx.x; l < count; l += THREADS) {
        int64 place = ids[l] - first;
        if (place >= TILE) break;
        if (place >= 0) tile[place] = l;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TILE && first + i < pixels; i += THREADS) index[first + i] = tile[i];
}
