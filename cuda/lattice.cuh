// The index arithmetic that the kernels share: points on the pixel lattice, and pixels on an axis of grid cells.
//
// Plain CUDA C++ without headers, so that NVRTC compiles it alone. Places on an axis are fractions of integers, which
// fit an int while pixels * cells of an axis stay under 2^29.
#pragma once

typedef long long int64;
#define ALL_LANES 0xffffffffu
constexpr int THREADS = 128;
// As in ops/choice.py: the most points that a cell reads as the nearest ones.
constexpr int COLUMNS = 10;

// The point at (row, column) of an image, -1 where there is none. `index` is the image of point numbers, or null when
// every pixel is a point and its number is its id.
__device__ inline int point_at(const int* index, int row, int column, int height, int width) {
    if (row < 0 || row >= height || column < 0 || column >= width) return -1;
    int pixel = row * width + column;
    return index == nullptr ? pixel : index[pixel];
}

// Where a pixel lies on a grid axis, in cells between the outermost centres, and between which two it lies.
struct Place {
    int first, second;
    float fraction;
};

__device__ inline Place place_on(int pixel, int pixels, int cells) {
    // ((pixel + 1/2) / pixels) * cells - 1/2 as a fraction of integers, clamped to [0, cells - 1].
    int numerator = (2 * pixel + 1) * cells - pixels, denominator = 2 * pixels;
    int last = (cells - 1) * denominator;
    if (numerator < 0) numerator = 0;
    if (numerator > last) numerator = last;
    Place place;
    place.first = numerator / denominator;
    place.second = place.first + 1 < cells ? place.first + 1 : place.first;
    place.fraction = (float)(numerator - place.first * denominator) / (float)denominator;
    return place;
}

// The first pixel of an axis whose place is beyond cell `cell` - 1, and the last one before `cell` + 1.
__device__ inline void pixels_of(int cell, int pixels, int cells, int* first, int* last) {
    // (2 i + 1) cells - pixels > 2 pixels (cell - 1), and the mirror image of it.
    int low = pixels * (2 * cell - 1) - cells;
    int high = pixels * (2 * cell + 3) - cells;
    int to = high <= 0 ? -1 : (high - 1) / (2 * cells);
    *first = low < 0 ? 0 : low / (2 * cells) + 1;
    *last = to >= pixels ? pixels - 1 : to;
}

// The cell that holds a pixel's centre. Of two cells whose border the centre is on, this is the second; cell_before is
// the first.
__device__ inline int cell_of(int pixel, int pixels, int cells) { return (2 * pixel + 1) * cells / (2 * pixels); }
__device__ inline int cell_before(int pixel, int pixels, int cells) {
    return ((2 * pixel + 1) * cells - 1) / (2 * pixels);
}

// Halves of a pixel that belong to a cell: a centre on a border belongs to both cells by half.
__device__ inline int halves_in(int pixel, int cell, int pixels, int cells) {
    return (cell_of(pixel, pixels, cells) == cell) + (cell_before(pixel, pixels, cells) == cell);
}

// The first and the last pixel of an axis that a cell holds, in full or by half.
__device__ inline void pixels_in(int cell, int pixels, int cells, int* first, int* last) {
    // (2 i + 1) cells >= 2 pixels cell, and <= 2 pixels (cell + 1).
    int low = 2 * pixels * cell - cells, high = 2 * pixels * (cell + 1) - cells;
    *first = low <= 0 ? 0 : (low - 1) / (2 * cells) + 1;
    *last = high < 0 ? -1 : high / (2 * cells);
}

// What a cell has of a pixel by place_on: 1 less the distance of their places in cells, without looking for the place.
// `unit` is 1 / (2 * pixels).
__device__ inline float share_of(int pixel, int cell, int pixels, int cells, float unit) {
    int place = (2 * pixel + 1) * cells - pixels, denominator = 2 * pixels;
    int last = (cells - 1) * denominator;
    if (place < 0) place = 0;
    if (place > last) place = last;
    int distance = place - cell * denominator;
    if (distance < 0) distance = -distance;
    return distance < denominator ? (float)(denominator - distance) * unit : 0.0f;
}
