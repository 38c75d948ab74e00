// The points in the window of each point, listed once for all convolutions of a set of points.
//
// Compiled for WINDOW_HEIGHT, WINDOW_WIDTH: odd sizes of the window. A block takes a stretch of points, a thread each.
#include "lattice.cuh"
#include "lists.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    neighbour_lists(const int64* __restrict__ ids, const int* __restrict__ index, unsigned* __restrict__ by_point,
                    unsigned* __restrict__ by_offset, int count, int height, int width, int ids_stride,
                    int64 index_stride) {
    static_assert(STRETCH == THREADS, "a thread for each point of a stretch");
    constexpr int WARPS = THREADS / 32;
    __shared__ unsigned char present[WINDOW][WARPS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64 image = blockIdx.y;
    int point = blockIdx.x * THREADS + threadIdx.x;
    bool alive = point < count;
    int id = alive ? (int)ids[image * ids_stride + point] : 0;
    int row = id / width - WINDOW_HEIGHT / 2, column = id % width - WINDOW_WIDTH / 2;
    index += image * index_stride;
    by_point += (image * count + point) * LIST;
    by_offset += (image * gridDim.x + blockIdx.x) * WINDOW * PAIRS;
    int length = 0;
    for (int i = 0; i < WINDOW_HEIGHT; ++i)
        for (int j = 0; j < WINDOW_WIDTH; ++j) {
            int number = alive ? point_at(index, row + i, column + j, height, width) : -1;
            unsigned ballot = __ballot_sync(ALL_LANES, number >= 0);
            int offset = i * WINDOW_WIDTH + j;
            if (lane == 0) present[offset][warp] = (unsigned char)__popc(ballot);
            if (number >= 0) by_point[2 + length++] = (unsigned)number << TAP_BITS | offset;
        }
    if (alive) {
        by_point[0] = length;
        if (length % 2 == 1) by_point[2 + length] = (unsigned)point << TAP_BITS | WINDOW;
    }
    __syncthreads();
    for (int i = 0; i < WINDOW_HEIGHT; ++i)
        for (int j = 0; j < WINDOW_WIDTH; ++j) {
            int number = alive ? point_at(index, row + i, column + j, height, width) : -1;
            unsigned ballot = __ballot_sync(ALL_LANES, number >= 0);
            int offset = i * WINDOW_WIDTH + j, before = 0, total = 0;
#pragma unroll
            for (int w = 0; w < WARPS; ++w) {
                if (w < warp) before += present[offset][w];
                total += present[offset][w];
            }
            unsigned* pairs = by_offset + offset * PAIRS;
            if (threadIdx.x == 0) pairs[0] = total;
            if (number >= 0)
                pairs[1 + before + __popc(ballot & ((1u << lane) - 1u))] = (unsigned)number << STRETCH_BITS | threadIdx.x;
        }
}
