// The first pixels of a keyed permutation: a Feistel network on rows and columns, as in ops/permuted_pixels.py.
#include "lattice.cuh"

// A 32-bit mix of value and key.
__device__ inline unsigned mixed(unsigned value, unsigned key) {
    unsigned h = value * 0x2C1B3C6Du + key;
    h = (h ^ h >> 16) * 0x45D9F3Bu;
    h = (h ^ h >> 15) * 0x297A2D39u;
    return h ^ h >> 16;
}

// pixels (B, count) of images of height x width; keys (rounds, B), an even number of rounds.
extern "C" __global__ void __launch_bounds__(THREADS)
    permuted_pixels(const int64* __restrict__ keys, int64* __restrict__ pixels, int rounds, int batch, int count,
                    int height, int width) {
    int place = blockIdx.x * THREADS + threadIdx.x;
    if (place >= count) return;
    unsigned row = place / width, column = place % width;
    for (int round = blockIdx.y; round < rounds * batch; round += 2 * batch) {
        row = (row + mixed(column, (unsigned)keys[round]) % height) % height;
        column = (column + mixed(row, (unsigned)keys[round + batch]) % width) % width;
    }
    pixels[(int64)blockIdx.y * count + place] = (int64)row * width + column;
}
