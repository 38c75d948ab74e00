// What each cell of a grid reads: its mean where it holds many points, else the 3 nearest to its centre, exactly.
//
// A pixel's offset from a cell's centre is an integer in units of 1 / (2 * pixels * cells) of its axis; `aspect`
// converts the column axis's unit to the row axis's. Products and sums are rounded singly in double, as PyTorch does,
// so that points are equally near here where they are in the reference.
#include "lattice.cuh"

constexpr int NEAREST = 3;
// Where a cell holds more points than this, it reads their mean.
constexpr int MANY = 3;

__device__ inline double offset_of(int pixel, int cell, int pixels, int cells, double aspect) {
    int64 offset = (2 * (int64)pixel + 1) * cells - (2 * (int64)cell + 1) * pixels;
    return __dmul_rn((double)(offset < 0 ? -offset : offset), aspect);
}

__device__ inline double squared(double offset) { return __dmul_rn(offset, offset); }

// The points around one centre.
struct Centre {
    const int* index;
    int row, column;  // of the grid
    int height, width, grid_height, grid_width;
    double aspect;

    __device__ double down(int y) const { return offset_of(y, row, height, grid_height, 1.0); }
    __device__ double across(int x) const { return offset_of(x, column, width, grid_width, aspect); }

    // Four times the number of points that the cell holds.
    __device__ int quarters() const {
        int top, bottom, left, right, total = 0;
        pixels_in(row, height, grid_height, &top, &bottom);
        pixels_in(column, width, grid_width, &left, &right);
        for (int y = top; y <= bottom; ++y) {
            int down = halves_in(y, row, height, grid_height);
            for (int x = left; x <= right; ++x)
                if (point_at(index, y, x, height, width) >= 0)
                    total += down * halves_in(x, column, width, grid_width);
        }
        return total;
    }
};

// The smallest squared distances.
struct Smallest {
    double distance[NEAREST];

    __device__ void offer(double d) {
#pragma unroll
        for (int i = 0; i < NEAREST; ++i) {
            double larger = d < distance[i] ? distance[i] : d;
            distance[i] = d < distance[i] ? d : distance[i];
            d = larger;
        }
    }
};

// number, weight (B, G * K, COLUMNS), share (B, G * K): as Neighbours in ops/nearest_points.py. reach (B, L), zero
// before: the most cells between a point's own cell and one that has it among its nearest, which bounds the search of
// the transposed operator.
extern "C" __global__ void __launch_bounds__(THREADS)
    nearest_points(const int* __restrict__ index, const int64* __restrict__ ids, int* __restrict__ number,
                   float* __restrict__ weight, float* __restrict__ share, int* __restrict__ reach, int count,
                   int height, int width, int grid_height, int grid_width, int ids_stride, double aspect) {
    int cell = blockIdx.x * blockDim.x + threadIdx.x;
    if (cell >= grid_height * grid_width) return;
    int image = blockIdx.y;
    int gy = cell / grid_width, gx = cell % grid_width;
    const int* here = index == nullptr ? nullptr : index + (int64)image * height * width;
    Centre centre = {here, gy, gx, height, width, grid_height, grid_width, aspect};
    int64 place = (int64)image * grid_height * grid_width + cell;
    number += place * COLUMNS;
    weight += place * COLUMNS;
#pragma unroll
    for (int i = 0; i < COLUMNS; ++i) {
        number[i] = 0;
        weight[i] = 0.0f;
    }
    int quarters = centre.quarters();
    bool many = quarters > 4 * MANY;
    share[place] = many ? (float)(4.0 / quarters) : 0.0f;
    if (many) return;
    // The pixel that holds the cell's centre.
    int row = (int)(((2 * (int64)gy + 1) * height) / (2 * (int64)grid_height));
    int column = (int)(((2 * (int64)gx + 1) * width) / (2 * (int64)grid_width));
    Smallest smallest;
    double infinity = __longlong_as_double(0x7ff0000000000000LL);
#pragma unroll
    for (int i = 0; i < NEAREST; ++i) smallest.distance[i] = infinity;
    int ring = 0;
    for (;; ++ring) {
        for (int y = row - ring; y <= row + ring; ++y) {
            if (y < 0 || y >= height) continue;
            bool edge = y == row - ring || y == row + ring;
            double down = squared(centre.down(y));
            for (int x = column - ring; x <= column + ring; x += edge || ring == 0 ? 1 : 2 * ring)
                if (point_at(here, y, x, height, width) >= 0)
                    smallest.offer(__dadd_rn(squared(centre.across(x)), down));
        }
        // Beyond the ring a point lies in one of four half planes; stop when none of them can hold as near a one.
        bool more = false;
        double third = smallest.distance[NEAREST - 1];
        if (row - ring > 0) more |= squared(centre.down(row - ring - 1)) <= third;
        if (row + ring + 1 < height) more |= squared(centre.down(row + ring + 1)) <= third;
        if (column - ring > 0) more |= squared(centre.across(column - ring - 1)) <= third;
        if (column + ring + 1 < width) more |= squared(centre.across(column + ring + 1)) <= third;
        if (!more) break;
    }
    // A point on the centre takes all.
    double third = smallest.distance[0] == 0.0 ? 0.0 : smallest.distance[NEAREST - 1];
    int top = row - ring < 0 ? 0 : row - ring, bottom = row + ring >= height ? height - 1 : row + ring;
    int left = column - ring < 0 ? 0 : column - ring, right = column + ring >= width ? width - 1 : column + ring;
    // Points nearer than the third, points as near, and of those the ones nearest to the centre's row or column.
    int nearer = 0, tied = 0, beside = 0;
    double least = infinity;
    for (int y = top; y <= bottom; ++y)
        for (int x = left; x <= right; ++x) {
            if (point_at(here, y, x, height, width) < 0) continue;
            double down = centre.down(y), across = centre.across(x);
            double d = __dadd_rn(squared(across), squared(down)), aside = down < across ? down : across;
            if (d < third) {
                ++nearer;
            } else if (d == third) {
                ++tied;
                beside = aside < least ? 1 : beside + (aside == least);
                least = aside < least ? aside : least;
            }
        }
    bool crowded = nearer + tied > COLUMNS;
    double part = crowded ? beside : tied;
    // The weights of the nearest, of the second nearest and of those as near as the third, which are all there are.
    double nearest = smallest.distance[0], weights[NEAREST];
#pragma unroll
    for (int i = 0; i < NEAREST; ++i) {
        double d = i < NEAREST - 1 ? smallest.distance[i] : third;
        weights[i] = d == 0.0 ? 1.0 : 1.0 / d;
    }
    double total = nearer == 2 ? weights[0] + weights[1] : nearer == 1 ? weights[0] : 0.0;
    if (tied > 0) total += (NEAREST - nearer) * weights[NEAREST - 1];
    weights[NEAREST - 1] *= (NEAREST - nearer) / (part > 0.0 ? part : 1.0);
    float rounded[NEAREST];
#pragma unroll
    for (int i = 0; i < NEAREST; ++i) rounded[i] = (float)(weights[i] / total);
    bool apart = nearer == 2 && nearest != smallest.distance[1];
    int first = 0, next = nearer;
    for (int y = top; y <= bottom; ++y)
        for (int x = left; x <= right; ++x) {
            int n = point_at(here, y, x, height, width);
            if (n < 0) continue;
            double down = centre.down(y), across = centre.across(x);
            double d = __dadd_rn(squared(across), squared(down)), aside = down < across ? down : across;
            if (d > third || (crowded && d == third && aside > least)) continue;
            int i = d == third ? next++ : apart ? d != nearest : first++;
            number[i] = n;
            weight[i] = d == third ? rounded[NEAREST - 1] : d == nearest ? rounded[0] : rounded[1];
            int id = (int)ids[(int64)image * ids_stride + n];
            int own_y = cell_of(id / width, height, grid_height), own_x = cell_of(id % width, width, grid_width);
            int dy = own_y > gy ? own_y - gy : gy - own_y, dx = own_x > gx ? own_x - gx : gx - own_x;
            // A maximum of integers is the same in any order.
            atomicMax(&reach[(int64)image * count + n], dy > dx ? dy : dx);
        }
}
