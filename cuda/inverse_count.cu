// k^2 over the sum of chi at the points present: the normaliser of a sparse convolution (infinity-Diff Eq. 16).
//
// chi at an offset is rows[i] * columns[j]. index (B, H, W) is the lattice index. Sums run in double, in order of the
// offsets; at the base resolution they are integers. Compiled for WIDE: 1 for results in double, else 0.
#include "lattice.cuh"

#if WIDE
typedef double result;
#else
typedef float result;
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    inverse_count(const int64* __restrict__ ids, const int* __restrict__ index, const double* __restrict__ rows,
                  const double* __restrict__ columns, result* __restrict__ inverse, int count, int height, int width,
                  int window_height, int window_width, int ids_stride, int taps) {
    int point = blockIdx.x * blockDim.x + threadIdx.x;
    if (point >= count) return;
    int image = blockIdx.y;
    int id = (int)ids[(int64)image * ids_stride + point];
    index += (int64)image * height * width;
    double total = 0.0;
    for (int i = 0; i < window_height; ++i)
        for (int j = 0; j < window_width; ++j) {
            int row = id / width + i - window_height / 2, column = id % width + j - window_width / 2;
            if (point_at(index, row, column, height, width) >= 0) total += rows[i] * columns[j];
        }
    inverse[(int64)image * count + point] = (result)(taps / total);
}
