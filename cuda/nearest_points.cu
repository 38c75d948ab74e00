// The 3 points nearest to each centre of a grid, exactly: growing windows on the lattice index.
//
// A pixel's offset from a cell's centre is an integer in units of 1 / (2 * pixels * cells) of its axis; `aspect`
// converts the column axis's unit to the row axis's. Products and sums are rounded singly in double, as PyTorch does,
// so that ties fall as in the reference: to the lower point number.
#include "lattice.cuh"

constexpr int NEAREST = 3;

__device__ inline double squared_offset(int pixel, int cell, int pixels, int cells, double aspect) {
    int64 offset = (2 * (int64)pixel + 1) * cells - (2 * (int64)cell + 1) * pixels;
    double length = __dmul_rn((double)offset, aspect);
    return __dmul_rn(length, length);
}

struct Nearest {
    double distance[NEAREST];
    int number[NEAREST];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < NEAREST; ++i) {
            distance[i] = __longlong_as_double(0x7ff0000000000000LL);
            number[i] = 0x7fffffff;
        }
    }

    __device__ void offer(double d, int n) {
#pragma unroll
        for (int i = 0; i < NEAREST; ++i) {
            if (d < distance[i] || (d == distance[i] && n < number[i])) {
                double distance_out = distance[i];
                int number_out = number[i];
                distance[i] = d;
                number[i] = n;
                d = distance_out;
                n = number_out;
            }
        }
    }
};

// number, weight (B, G * K, 3): as Neighbours in ops/nearest_points.py. reach (B, L), zero before: the most
// cells between a point's own cell and one that uses it, which bounds the search of the transposed operator.
extern "C" __global__ void __launch_bounds__(THREADS)
    nearest_points(const int* index, const int64* ids, int* number, float* weight, int* reach, int count, int height,
                   int width, int grid_height, int grid_width, int ids_stride, double aspect) {
    int cell = blockIdx.x * blockDim.x + threadIdx.x;
    if (cell >= grid_height * grid_width) return;
    int image = blockIdx.y;
    int gy = cell / grid_width, gx = cell % grid_width;
    const int* here = index == nullptr ? nullptr : index + (int64)image * height * width;
    // The pixel that holds the cell's centre.
    int row = (int)(((2 * (int64)gy + 1) * height) / (2 * (int64)grid_height));
    int column = (int)(((2 * (int64)gx + 1) * width) / (2 * (int64)grid_width));
    Nearest nearest;
    nearest.clear();
    for (int ring = 0;; ++ring) {
        for (int y = row - ring; y <= row + ring; ++y) {
            if (y < 0 || y >= height) continue;
            bool edge = y == row - ring || y == row + ring;
            double down = squared_offset(y, gy, height, grid_height, 1.0);
            for (int x = column - ring; x <= column + ring; x += edge || ring == 0 ? 1 : 2 * ring) {
                int point = point_at(here, y, x, height, width);
                if (point < 0) continue;
                nearest.offer(__dadd_rn(squared_offset(x, gx, width, grid_width, aspect), down), point);
            }
        }
        // Beyond the ring a point lies in one of four half planes; stop when none of them can hold a closer one.
        bool more = false;
        double third = nearest.distance[NEAREST - 1];
        if (row - ring > 0) more |= squared_offset(row - ring - 1, gy, height, grid_height, 1.0) <= third;
        if (row + ring + 1 < height) more |= squared_offset(row + ring + 1, gy, height, grid_height, 1.0) <= third;
        if (column - ring > 0) more |= squared_offset(column - ring - 1, gx, width, grid_width, aspect) <= third;
        if (column + ring + 1 < width) more |= squared_offset(column + ring + 1, gx, width, grid_width, aspect) <= third;
        if (!more) break;
    }
    // Inverse squared distance; points on the centre take all. 1 / infinity leaves missing points without weight.
    double inverse[NEAREST], total = 0.0;
    bool exact = nearest.distance[0] == 0.0;
#pragma unroll
    for (int i = 0; i < NEAREST; ++i) {
        double d = nearest.distance[i];
        inverse[i] = exact ? (d == 0.0 ? 1.0 : 0.0) : 1.0 / d;
        total += inverse[i];
    }
    int64 place = ((int64)image * grid_height * grid_width + cell) * NEAREST;
#pragma unroll
    for (int i = 0; i < NEAREST; ++i) {
        int n = nearest.number[i];
        bool missing = n == 0x7fffffff;
        number[place + i] = missing ? 0 : n;
        weight[place + i] = (float)(inverse[i] / total);
        if (missing) continue;
        int id = (int)ids[(int64)image * ids_stride + n];
        int own_y = cell_of(id / width, height, grid_height), own_x = cell_of(id % width, width, grid_width);
        int dy = own_y > gy ? own_y - gy : gy - own_y, dx = own_x > gx ? own_x - gx : gx - own_x;
        // A maximum of integers is the same in any order.
        atomicMax(&reach[(int64)image * count + n], dy > dx ? dy : dx);
    }
}
