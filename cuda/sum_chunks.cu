// Adds partial sums up, in one order whatever the device.
#include "lattice.cuh"

constexpr int WARPS = THREADS / 32;

// out[i] = sum over chunks of partial[chunk][i], in one fixed order: 32 results a block, 4 interleaved sums each.
extern "C" __global__ void __launch_bounds__(THREADS)
    sum_chunks(const float* __restrict__ partial, float* __restrict__ out, int chunks, int64 length) {
    __shared__ float shared[WARPS][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int64 i = (int64)blockIdx.x * 32 + lane;
    float total = 0.0f;
    if (i < length)
        for (int chunk = warp; chunk < chunks; chunk += WARPS) total += partial[chunk * length + i];
    shared[warp][lane] = total;
    __syncthreads();
    if (warp != 0 || i >= length) return;
    total = 0.0f;
    for (int w = 0; w < WARPS; ++w) total += shared[w][lane];
    out[i] = total;
}
