// Depthwise convolution of complete images in rows (B, H, W, C), zero outside, by kernels enlarged to STEP_Y and STEP_X
// pixels a tap, in one pass: a tent along columns, one along rows, then the taps STEP_Y and STEP_X pixels apart.
//
// Compiled also for WINDOW_HEIGHT, WINDOW_WIDTH: taps in each direction; STEP_Y, STEP_X; TILE_HEIGHT, a multiple of
// 2 * STEP_Y, and TILE_WIDTH, a multiple of 4 * STEP_X; SHARED: bytes of shared memory.
//
// A block makes VECTOR channels of a strip, TILE_WIDTH columns wide, and goes down it TILE_HEIGHT rows at a time. Rows
// that the tents have been along are in shared memory, in float, as many as the taps reach from one tile: a ring, in
// which new rows take the place of the uppermost.
#include "features.cuh"

static_assert(VECTOR == 8, "channels in eights");
constexpr int WINDOW = WINDOW_HEIGHT * WINDOW_WIDTH;
// A thread works on QUAD channels, and with the taps makes RUN_Y x RUN_X results of them, STEP_Y and STEP_X apart.
constexpr int QUAD = 4;
constexpr int QUADS = VECTOR / QUAD;
constexpr int RUN_Y = 2;
constexpr int RUN_X = 4;
// Rows that the tents go along at once: one warp holds them, a lane for each quad.
constexpr int AT_ONCE = 32 / QUADS;
constexpr int WARPS = THREADS / 32;
// How far the taps reach, and the tents further.
constexpr int REACH_Y = WINDOW_HEIGHT / 2 * STEP_Y;
constexpr int REACH_X = WINDOW_WIDTH / 2 * STEP_X;
constexpr int TENT_Y = STEP_Y - 1;
constexpr int TENT_X = STEP_X - 1;
// Of one row the columns that taps read, and those that are read for them; of the ring, the rows. Rows are an odd number
// of pixels long, so that the same column of neighbouring rows lies in different banks. So do the columns that
// neighbouring threads read at once: where STEP_X of them are too few for all banks, each group is followed by a gap.
constexpr int GROUP = RUN_X * STEP_X;
constexpr int GAP = STEP_X < RUN_X ? STEP_X : 0;
constexpr int WIDTH = TILE_WIDTH + 2 * REACH_X;
constexpr int WIDE = WIDTH + 2 * TENT_X;
__device__ constexpr int place_of(int column) { return column + column / GROUP * GAP; }
constexpr int PITCH = (place_of(WIDTH - 1) + 1) | 1;
constexpr int WIDE_PITCH = WIDE | 1;
constexpr int RING = TILE_HEIGHT + 2 * REACH_Y;
constexpr int ALONG = (WIDTH + WARPS - 1) / WARPS;
constexpr int UNROLLED = WINDOW_HEIGHT <= 7 ? WINDOW_HEIGHT + RUN_Y - 1 : 2;

struct alignas(16) Quad {
    float value[QUAD];
};
struct alignas(8) Eight {
    unsigned word[2];
};

struct Shared {
    Quad taps[WINDOW][QUADS];
    Quad wide[STEP_X == 1 ? 1 : AT_ONCE * WIDE_PITCH][QUADS];
    Quad ring[RING * PITCH][QUADS];
};
static_assert(sizeof(Shared) == SHARED, "the host asks for as much shared memory as is used");
static_assert(RING >= AT_ONCE, "rows made at once fit the ring");
#ifdef EMULATED
static Shared shared;
#else
extern __shared__ Sixteen dynamic[];
#define shared (*reinterpret_cast<Shared*>(dynamic))
#endif

__device__ inline void load_quad(const feature* from, float* to) {
    if constexpr (sizeof(feature) == 4) {
        Sixteen raw = *reinterpret_cast<const Sixteen*>(from);
#pragma unroll
        for (int i = 0; i < QUAD; ++i) to[i] = __uint_as_float(raw.word[i]);
    } else {
        Eight raw = *reinterpret_cast<const Eight*>(from);
#pragma unroll
        for (int i = 0; i < QUAD; ++i) to[i] = widen((feature)(raw.word[i / 2] >> (16 * (i % 2))));
    }
}

__device__ inline void store_quad(const float* from, feature* to) {
    if constexpr (sizeof(feature) == 4) {
        Sixteen raw;
#pragma unroll
        for (int i = 0; i < QUAD; ++i) raw.word[i] = __float_as_uint(from[i]);
        *reinterpret_cast<Sixteen*>(to) = raw;
    } else {
        Eight raw;
#pragma unroll
        for (int i = 0; i < QUAD; i += 2)
            raw.word[i / 2] = (unsigned)narrow(from[i]) | ((unsigned)narrow(from[i + 1]) << 16);
        *reinterpret_cast<Eight*>(to) = raw;
    }
}

// Sums of SPAN places that are APART from one another, in place; the last (SPAN - 1) * APART sums are not complete.
template <int SPAN, int APART, int LENGTH>
__device__ inline void sums(float (*line)[QUAD]) {
    constexpr int FACTOR = SPAN % 2 == 0 ? 2 : SPAN % 3 == 0 ? 3 : SPAN;
    if constexpr (SPAN > 1) {
#pragma unroll
        for (int n = 0; n < LENGTH - (FACTOR - 1) * APART; ++n)
#pragma unroll
            for (int k = 1; k < FACTOR; ++k)
#pragma unroll
                for (int i = 0; i < QUAD; ++i) line[n][i] += line[n + k * APART][i];
        sums<SPAN / FACTOR, APART * FACTOR, LENGTH - (FACTOR - 1) * APART>(line);
    }
}

// STEP times the tent, which is the sum of STEP places of the sum of STEP places: LENGTH values to fewer by 2 (STEP - 1).
template <int STEP, int LENGTH>
__device__ inline void tent(float (*line)[QUAD]) {
    sums<STEP, 1, LENGTH>(line);
    sums<STEP, 1, LENGTH - (STEP - 1)>(line);
}

__device__ inline int in_ring(int row) { return row < RING ? row : row - RING; }

// Rows from `row` on, AT_ONCE of them, of columns from `column` on, with a tent along the columns.
template <bool TRANSPOSED>
__device__ inline void filter_down(const feature* in, const float* scale, int row, int column, int height, int width,
                                   int slot) {
    constexpr int LENGTH = AT_ONCE + 2 * TENT_Y;
    for (int place = threadIdx.x; place < WIDE * QUADS; place += THREADS) {
        int quad = place % QUADS, x = column + place / QUADS, y = row - TENT_Y;
        // Of a column outside the image no row is there.
        unsigned rows = (unsigned)x < (unsigned)width ? height : 0;
        int64 pixel = (int64)y * width + x;
        const feature* from = in + pixel * CHANNELS + quad * QUAD;
        float line[LENGTH][QUAD];
#pragma unroll
        for (int n = 0; n < LENGTH; ++n) {
#pragma unroll
            for (int i = 0; i < QUAD; ++i) line[n][i] = 0.0f;
            if ((unsigned)(y + n) < rows) {
                load_quad(from, line[n]);
                if (TRANSPOSED && scale != nullptr) {
                    float factor = scale[pixel];
#pragma unroll
                    for (int i = 0; i < QUAD; ++i) line[n][i] *= factor;
                }
            }
            from += (int64)width * CHANNELS;
            pixel += width;
        }
        tent<STEP_Y, LENGTH>(line);
#pragma unroll
        for (int n = 0; n < AT_ONCE; ++n) {
            Quad made;
#pragma unroll
            for (int i = 0; i < QUAD; ++i) made.value[i] = line[n][i];
            if constexpr (STEP_X == 1)
                shared.ring[in_ring(slot + n) * PITCH + place_of(place / QUADS)][quad] = made;
            else
                shared.wide[n * WIDE_PITCH + place / QUADS][quad] = made;
        }
    }
}

// The same rows with a tent along them, into the ring. A warp makes ALONG columns, a lane those of one row and quad.
__device__ inline void filter_across(int slot) {
    constexpr int LENGTH = ALONG + 2 * TENT_X;
    int lane = threadIdx.x % 32, first = threadIdx.x / 32 * ALONG, quad = lane % QUADS;
    float line[LENGTH][QUAD];
#pragma unroll
    for (int n = 0; n < LENGTH; ++n) {
        const Quad read = shared.wide[lane / QUADS * WIDE_PITCH + first + n][quad];
#pragma unroll
        for (int i = 0; i < QUAD; ++i) line[n][i] = read.value[i];
    }
    tent<STEP_X, LENGTH>(line);
    int to = in_ring(slot + lane / QUADS) * PITCH;
#pragma unroll
    for (int n = 0; n < ALONG; ++n) {
        if (WIDTH % ALONG != 0 && first + n >= WIDTH) break;
        Quad made;
#pragma unroll
        for (int i = 0; i < QUAD; ++i) made.value[i] = line[n][i];
        shared.ring[to + place_of(first + n)][quad] = made;
    }
}

// Results of a tile whose first row's taps begin at row `slot` of the ring.
template <bool TRANSPOSED>
__device__ inline void convolve(const float* scale, const float* bias, feature* out, int slot, int row, int column,
                                int height, int width, int channel) {
    constexpr int GROUPS = TILE_WIDTH / GROUP;
    for (int task = threadIdx.x; task < QUADS * TILE_WIDTH / RUN_X * TILE_HEIGHT / RUN_Y; task += THREADS) {
        int place = task, quad = place % QUADS;
        place /= QUADS;
        int x = place % STEP_X;
        place /= STEP_X;
        x += place % GROUPS * GROUP;
        place /= GROUPS;
        int y = place / STEP_Y * RUN_Y * STEP_Y + place % STEP_Y;
        float sum[RUN_Y][RUN_X][QUAD], now[WINDOW_WIDTH][QUAD], above[WINDOW_WIDTH][QUAD];
#pragma unroll
        for (int r = 0; r < RUN_Y; ++r)
#pragma unroll
            for (int c = 0; c < RUN_X; ++c)
#pragma unroll
                for (int i = 0; i < QUAD; ++i) sum[r][c][i] = 0.0f;
#pragma unroll
        for (int j = 0; j < WINDOW_WIDTH; ++j)
#pragma unroll
            for (int i = 0; i < QUAD; ++i) now[j][i] = 0.0f;
#pragma unroll UNROLLED
        for (int k = 0; k < WINDOW_HEIGHT + RUN_Y - 1; ++k) {
            // This row meets the upper result through row k of the taps, and the lower one through the row above.
#pragma unroll
            for (int j = 0; j < WINDOW_WIDTH; ++j)
#pragma unroll
                for (int i = 0; i < QUAD; ++i) {
                    above[j][i] = now[j][i];
                    now[j][i] = k < WINDOW_HEIGHT ? shared.taps[k * WINDOW_WIDTH + j][quad].value[i] : 0.0f;
                }
            const Quad(*line)[QUADS] = shared.ring + in_ring(slot + y + k * STEP_Y) * PITCH + place_of(x);
#pragma unroll
            for (int at = 0; at < WINDOW_WIDTH + RUN_X - 1; ++at) {
                const Quad read = line[place_of(at * STEP_X)][quad];
#pragma unroll
                for (int c = 0; c < RUN_X; ++c) {
                    int j = at - c;
                    if (j < 0 || j >= WINDOW_WIDTH) continue;
#pragma unroll
                    for (int i = 0; i < QUAD; ++i) {
                        if (k < WINDOW_HEIGHT) sum[0][c][i] += now[j][i] * read.value[i];
                        if (k > 0) sum[1][c][i] += above[j][i] * read.value[i];
                    }
                }
            }
        }
        int c0 = channel + quad * QUAD;
        float shift[QUAD];
#pragma unroll
        for (int i = 0; i < QUAD; ++i) shift[i] = TRANSPOSED || bias == nullptr ? 0.0f : bias[c0 + i];
#pragma unroll
        for (int r = 0; r < RUN_Y; ++r)
#pragma unroll
            for (int c = 0; c < RUN_X; ++c) {
                int to_row = row + y + r * STEP_Y, to_column = column + x + c * STEP_X;
                if (to_row >= height || to_column >= width) continue;
                int64 pixel = (int64)to_row * width + to_column;
                float factor = TRANSPOSED || scale == nullptr ? 1.0f : scale[pixel], total[QUAD];
#pragma unroll
                for (int i = 0; i < QUAD; ++i) total[i] = factor * sum[r][c][i] + shift[i];
                store_quad(total, out + pixel * CHANNELS + c0);
            }
    }
}

template <bool TRANSPOSED>
__device__ inline void enlarged(const feature* in, const float* taps, const float* scale, const float* bias,
                                feature* out, int in_height, int height, int width, int top, int block_height) {
    int place = blockIdx.x;
    int channel = place % VECTORS * VECTOR;
    place /= VECTORS;
    int strips = (width + TILE_WIDTH - 1) / TILE_WIDTH;
    int column = place % strips * TILE_WIDTH, first = place / strips * block_height;
    in += (int64)blockIdx.y * in_height * width * CHANNELS + channel;
    out += (int64)blockIdx.y * height * width * CHANNELS;
    // `sums` are STEP times the tent in both directions.
    constexpr float SHARE = 1.0f / (STEP_Y * STEP_X);
    for (int n = threadIdx.x; n < WINDOW * VECTOR; n += THREADS) {
        int offset = TRANSPOSED ? WINDOW - 1 - n / VECTOR : n / VECTOR;
        shared.taps[n / VECTOR][n % VECTOR / QUAD].value[n % QUAD] = SHARE * taps[offset * CHANNELS + channel + n % VECTOR];
    }
    // Rows are counted from the uppermost that the block reads; `made` of them have been through the ring.
    int made = 0;
    for (int row = first; row < first + block_height && row < height; row += TILE_HEIGHT) {
        int wanted = row - first + RING;
        // The last ones end where they must: of those before, some may be made again.
        int begin = wanted - (wanted - made + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
        for (; begin < wanted; begin += AT_ONCE) {
            int slot = (begin + RING) % RING;
            if (STEP_X == 1) __syncthreads();
            filter_down<TRANSPOSED>(in, scale, top + first + begin - REACH_Y, column - REACH_X - TENT_X, in_height, width,
                                    slot);
            __syncthreads();
            if (STEP_X == 1) continue;
            filter_across(slot);
            __syncthreads();
        }
        made = wanted;
        convolve<TRANSPOSED>(scale, bias, out, (row - first) % RING, row, column, height, width, channel);
    }
}

// out(y, x) = scale(y, x) sum_ij taps[i, j] tents(y + (i - k / 2) STEP_Y, x + (j - l / 2) STEP_X) + bias, where `tents` is
// the input with tents of STEP_Y and STEP_X along it. Row 0 of `out` (B, height, width, C) is row `top` of the input.
// `scale` (height, width) and `bias` (C) may be null. taps (window, C). A block makes block_height rows, in tiles.
extern "C" __global__ void __launch_bounds__(THREADS)
    enlarged_conv(const feature* __restrict__ in, const float* __restrict__ taps, const float* __restrict__ scale,
                  const float* __restrict__ bias, feature* __restrict__ out, int in_height, int height, int width,
                  int top, int block_height) {
    enlarged<false>(in, taps, scale, bias, out, in_height, height, width, top, block_height);
}

// The adjoint without bias: the input is multiplied by `scale`, if any, and the window is turned by 180 degrees.
extern "C" __global__ void __launch_bounds__(THREADS)
    enlarged_conv_transposed(const feature* __restrict__ in, const float* __restrict__ taps,
                             const float* __restrict__ scale, feature* __restrict__ out, int height, int width,
                             int block_height) {
    enlarged<true>(in, taps, scale, nullptr, out, height, height, width, 0, block_height);
}
