// Points -> grid and grid -> points, and their transposes without atomics. Grids are rows (B, G * K, C).
#include "features.cuh"

// out[cell] = share times the sum of the points that the cell holds, or the sum of the weighted nearest ones. number,
// weight (B or 1, G * K, COLUMNS), share (B or 1, G * K). `index` (B or 1, H, W) as in sparse_conv.cu, null when every
// pixel is a point.
extern "C" __global__ void __launch_bounds__(THREADS)
    points_to_grid(const feature* __restrict__ in, const int* __restrict__ number, const float* __restrict__ weight,
                   const float* __restrict__ share, const int* __restrict__ index, feature* __restrict__ out, int count,
                   int height, int width, int grid_height, int grid_width, int64 neighbour_stride, int share_stride,
                   int64 index_stride) {
    __shared__ List lists[ROWS_PER_BLOCK];
    int lane = threadIdx.x % LANES;
    int image = blockIdx.y;
    int cell = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / LANES;
    bool alive = cell < grid_height * grid_width;
    int gy = alive ? cell / grid_width : 0, gx = alive ? cell % grid_width : 0;
    float part = alive ? share[(int64)image * share_stride + cell] : 0.0f;
    int top, bottom, left, right;
    pixels_in(gy, height, grid_height, &top, &bottom);
    pixels_in(gx, width, grid_width, &left, &right);
    int across = right - left + 1;
    int candidates = part > 0.0f ? (bottom - top + 1) * across : 0;
    const int* here = index == nullptr ? nullptr : index + image * index_stride;
    number += image * neighbour_stride + (int64)cell * COLUMNS;
    weight += image * neighbour_stride + (int64)cell * COLUMNS;
    in += (int64)image * count * CHANNELS;
    List& list = lists[threadIdx.x / LANES];
    Row sum;
    sum.clear();
    // The rows of a warp iterate together, as often as the row with the most candidates needs.
    for (int first = 0; __any_sync(ALL_LANES, first < candidates); first += List::LENGTH) {
        int length = 0;
        for (int round = 0; round < List::LENGTH; round += LANES) {
            int candidate = first + round + lane;
            int point = -1, quarters = 0;
            if (candidate < candidates) {
                int row = top + candidate / across, column = left + candidate % across;
                point = point_at(here, row, column, height, width);
                quarters = halves_in(row, gy, height, grid_height) * halves_in(column, gx, width, grid_width);
            }
            length = list.append(length, lane, point, quarters);
        }
        __syncwarp();
        for (int i = 0; i < length; ++i)
            sum.add(in + (int64)list.number[i] * CHANNELS, part * 0.25f * list.tag[i], lane);
        __syncwarp();
    }
    if (!alive) return;
    for (int i = 0; i < COLUMNS && weight[i] != 0.0f; ++i) sum.add(in + (int64)number[i] * CHANNELS, weight[i], lane);
    sum.put(out + ((int64)image * grid_height * grid_width + cell) * CHANNELS, 1.0f, lane);
}

// The transpose: a point adds the cells that hold it and read their mean, then searches the cells around its own, up to
// `reach` (B or 1, L) cells away, for those that have it among their nearest, in ascending order.
extern "C" __global__ void __launch_bounds__(THREADS)
    points_to_grid_transposed(const feature* __restrict__ grad, const int* __restrict__ number,
                              const float* __restrict__ weight, const float* __restrict__ share,
                              const int64* __restrict__ ids, const int* __restrict__ reach, feature* __restrict__ out,
                              int count, int height, int width, int grid_height, int grid_width, int64 neighbour_stride,
                              int share_stride, int ids_stride, int reach_stride) {
    __shared__ List lists[ROWS_PER_BLOCK];
    int lane = threadIdx.x % LANES;
    int image = blockIdx.y;
    int point = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / LANES;
    bool alive = point < count;
    int id = alive ? (int)ids[(int64)image * ids_stride + point] : 0;
    int far = alive ? reach[(int64)image * reach_stride + point] : 0;
    int gy = cell_of(id / width, height, grid_height), gx = cell_of(id % width, width, grid_width);
    int top = gy - far < 0 ? 0 : gy - far, left = gx - far < 0 ? 0 : gx - far;
    int bottom = gy + far >= grid_height ? grid_height - 1 : gy + far;
    int right = gx + far >= grid_width ? grid_width - 1 : gx + far;
    int across = right - left + 1;
    int candidates = alive ? (bottom - top + 1) * across : 0;
    number += (int64)image * neighbour_stride;
    weight += (int64)image * neighbour_stride;
    share += (int64)image * share_stride;
    grad += (int64)image * grid_height * grid_width * CHANNELS;
    List& list = lists[threadIdx.x / LANES];
    Row sum;
    sum.clear();
    for (int y = cell_before(id / width, height, grid_height); alive && y <= gy; ++y)
        for (int x = cell_before(id % width, width, grid_width); x <= gx; ++x) {
            int cell = y * grid_width + x;
            int quarters = halves_in(id / width, y, height, grid_height) * halves_in(id % width, x, width, grid_width);
            if (share[cell] > 0.0f) sum.add(grad + (int64)cell * CHANNELS, share[cell] * 0.25f * quarters, lane);
        }
    for (int first = 0; __any_sync(ALL_LANES, first < candidates); first += List::LENGTH) {
        int length = 0;
        for (int round = 0; round < List::LENGTH; round += LANES) {
            int candidate = first + round + lane;
            int use = -1;
            if (candidate < candidates) {
                int cell = (top + candidate / across) * grid_width + left + candidate % across;
                for (int i = cell * COLUMNS; i < (cell + 1) * COLUMNS && weight[i] != 0.0f; ++i)
                    if (number[i] == point) use = i;
            }
            length = list.append(length, lane, use, 0);
        }
        __syncwarp();
        for (int i = 0; i < length; ++i) {
            int use = list.number[i];
            sum.add(grad + (int64)(use / COLUMNS) * CHANNELS, weight[use], lane);
        }
        __syncwarp();
    }
    if (alive) sum.put(out + ((int64)image * count + point) * CHANNELS, 1.0f, lane);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    grid_to_points(const feature* __restrict__ grid, const int64* __restrict__ ids, feature* __restrict__ out,
                   int count, int height, int width, int grid_height, int grid_width, int ids_stride) {
    int lane = threadIdx.x % LANES;
    int point = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / LANES;
    if (point >= count) return;
    int64 image = blockIdx.y;
    int id = (int)ids[image * ids_stride + point];
    Place y = place_on(id / width, height, grid_height), x = place_on(id % width, width, grid_width);
    grid += image * grid_height * grid_width * CHANNELS;
    const feature* upper = grid + (int64)y.first * grid_width * CHANNELS;
    const feature* lower = grid + (int64)y.second * grid_width * CHANNELS;
    Row sum;
    sum.clear();
    sum.add(upper + (int64)x.first * CHANNELS, (1.0f - y.fraction) * (1.0f - x.fraction), lane);
    sum.add(upper + (int64)x.second * CHANNELS, (1.0f - y.fraction) * x.fraction, lane);
    sum.add(lower + (int64)x.first * CHANNELS, y.fraction * (1.0f - x.fraction), lane);
    sum.add(lower + (int64)x.second * CHANNELS, y.fraction * x.fraction, lane);
    sum.put(out + (image * count + point) * CHANNELS, 1.0f, lane);
}

// The transpose: a cell searches the pixels between its neighbours' centres for points, in ascending order.
// `index` (B or 1, H, W) as in sparse_conv.cu, null when every pixel is a point.
extern "C" __global__ void __launch_bounds__(THREADS)
    grid_to_points_transposed(const feature* __restrict__ grad, const int* __restrict__ index,
                              feature* __restrict__ out, int count, int height, int width, int grid_height,
                              int grid_width, int64 index_stride) {
    __shared__ List lists[ROWS_PER_BLOCK];
    int lane = threadIdx.x % LANES;
    int image = blockIdx.y;
    int cell = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / LANES;
    bool alive = cell < grid_height * grid_width;
    int gy = alive ? cell / grid_width : 0, gx = alive ? cell % grid_width : 0;
    int top, bottom, left, right;
    pixels_of(gy, height, grid_height, &top, &bottom);
    pixels_of(gx, width, grid_width, &left, &right);
    int across = right - left + 1;
    int candidates = alive && bottom >= top && across > 0 ? (bottom - top + 1) * across : 0;
    const int* here = index == nullptr ? nullptr : index + image * index_stride;
    grad += (int64)image * count * CHANNELS;
    float unit_down = 1.0f / (2 * height), unit_across = 1.0f / (2 * width);
    List& list = lists[threadIdx.x / LANES];
    Row sum;
    sum.clear();
    for (int first = 0; __any_sync(ALL_LANES, first < candidates); first += List::LENGTH) {
        int length = 0;
        // As many rounds as the candidates of the warp's rows need.
#pragma unroll 1
        for (int round = 0; round < List::LENGTH; round += LANES) {
            if (!__any_sync(ALL_LANES, first + round < candidates)) break;
            int candidate = first + round + lane;
            int point = -1;
            float weight = 0.0f;
            if (candidate < candidates) {
                int row = top + candidate / across, column = left + candidate % across;
                weight = share_of(row, gy, height, grid_height, unit_down) *
                         share_of(column, gx, width, grid_width, unit_across);
                if (weight > 0.0f) point = point_at(here, row, column, height, width);
            }
            length = list.append(length, lane, point, (int)__float_as_uint(weight));
        }
        __syncwarp();
        for (int i = 0; i < length; ++i)
            sum.add(grad + (int64)list.number[i] * CHANNELS, __uint_as_float(list.tag[i]), lane);
        __syncwarp();
    }
    if (alive) sum.put(out + ((int64)image * grid_height * grid_width + cell) * CHANNELS, 1.0f, lane);
}
