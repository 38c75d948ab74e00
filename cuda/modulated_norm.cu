// Layer normalisation over channels, modulation by a condition, SiLU; and the backward pass, which normalises again.
//
//     y = n * s + t,   n = (x - mean) / std * weight + bias,   s = (1 + a) (1 + l),   t = b (1 + l)
//
// Compiled also for MODULATION, the type of a, b and l, numbered as SCALAR. Rows are (B, L, C); a block takes `length`
// rows of one image, GROUP lanes a row. modulation (B, 2 C), a then b, and latent (B, C) may be null; their rows lie
// modulation_stride and latent_stride apart. x may be a sum of two, rounded to its type before it is normalised; to its
// gradient another one may be added, as of a residual connection. No atomics: sums over rows run in an order that shapes
// alone decide.
#include "features.cuh"

#if MODULATION == 0
typedef float coefficient;
__device__ inline float widened(coefficient x) { return x; }
__device__ inline coefficient narrowed(float x) { return x; }
#elif MODULATION == 1
typedef bits16 coefficient;
__device__ inline float widened(coefficient x) { return half_to_float(x); }
__device__ inline coefficient narrowed(float x) { return float_to_half(x); }
#else
typedef bits16 coefficient;
__device__ inline float widened(coefficient x) { return __uint_as_float((unsigned)x << 16); }
__device__ inline coefficient narrowed(float x) { return float_to_bfloat16(x); }
#endif

constexpr int GROUP = VECTORS >= THREADS ? THREADS : power_of_two_from(VECTORS);
constexpr int PARTS = (VECTORS + GROUP - 1) / GROUP;
constexpr int AT_ONCE = THREADS / GROUP;
constexpr int WARPS = GROUP > 32 ? GROUP / 32 : 1;
// Of the last sums: channels of a block, and images that it takes at once.
constexpr int SUMMED = 8;
constexpr int IMAGES = THREADS / SUMMED;

__device__ inline float sigmoid(float y) { return 1.0f / (1.0f + expf(-y)); }

// The sum over the lanes of a row, in every lane. All threads of the block call it.
__device__ inline float row_sum(float value, float* shared) {
#pragma unroll
    for (int apart = 1; apart < GROUP && apart < 32; apart *= 2) value += __shfl_xor_sync(ALL_LANES, value, apart);
    if constexpr (GROUP > 32) {
        int warp = threadIdx.x / 32;
        __syncthreads();
        if (threadIdx.x % 32 == 0) shared[warp] = value;
        __syncthreads();
        value = 0.0f;
#pragma unroll
        for (int i = 0; i < WARPS; ++i) value += shared[warp / WARPS * WARPS + i];
    }
    return value;
}

// What the condition makes of channel c in one image: s and t above.
__device__ inline void modulation_of(const coefficient* modulation, const coefficient* latent, int c, float* s, float* t) {
    *s = modulation == nullptr ? 1.0f : 1.0f + widened(modulation[c]);
    *t = modulation == nullptr ? 0.0f : widened(modulation[CHANNELS + c]);
    float factor = latent == nullptr ? 1.0f : 1.0f + widened(latent[c]);
    *s *= factor;
    *t *= factor;
}

// A lane's part of a row: y = scale * x + shift once x is normalised; 0 for channels that are not there.
struct Part {
    float x[PARTS][VECTOR];
    float scale[PARTS][VECTOR], shift[PARTS][VECTOR];

    __device__ static int channel(int lane, int part) { return (part * GROUP + lane) * VECTOR; }

    __device__ void prepare(const float* weight, const float* bias, const coefficient* modulation,
                            const coefficient* latent, int lane) {
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                int c = channel(lane, part) + i;
                scale[part][i] = shift[part][i] = 0.0f;
                if (c >= CHANNELS) continue;
                float s, t;
                modulation_of(modulation, latent, c, &s, &t);
                scale[part][i] = weight[c] * s;
                shift[part][i] = bias[c] * s + t;
            }
    }

    __device__ static void read(const feature* row, int lane, bool alive, float (*to)[VECTOR]) {
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            int c = channel(lane, part);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) to[part][i] = 0.0f;
            if (alive && c < CHANNELS) load(row + c, to[part]);
        }
    }

    __device__ static void write(const float (*from)[VECTOR], int lane, bool alive, feature* row) {
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            int c = channel(lane, part);
            if (alive && c < CHANNELS) store(from[part], row + c);
        }
    }

    // Normalises x in place; returns 1 / std. Lanes beyond the channels stay at 0.
    __device__ float normalise(int lane, float epsilon, float* shared) {
        float sum = 0.0f;
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) sum += x[part][i];
        float mean = row_sum(sum, shared) * (1.0f / CHANNELS);
        sum = 0.0f;
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                x[part][i] = channel(lane, part) < CHANNELS ? x[part][i] - mean : 0.0f;
                sum += x[part][i] * x[part][i];
            }
        float inverse = rsqrtf(row_sum(sum, shared) * (1.0f / CHANNELS) + epsilon);
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) x[part][i] *= inverse;
        return inverse;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS)
    modulated_norm(const feature* __restrict__ in, const feature* __restrict__ added, const float* __restrict__ weight,
                   const float* __restrict__ bias, const coefficient* __restrict__ modulation,
                   const coefficient* __restrict__ latent, feature* __restrict__ out, feature* __restrict__ total,
                   int count, int length, int64 modulation_stride, int64 latent_stride, float epsilon, int silu) {
    __shared__ float shared[THREADS / 32];
    int lane = threadIdx.x % GROUP, place = threadIdx.x / GROUP;
    int64 image = blockIdx.y;
    int begin = blockIdx.x * length;
    int end = begin + length < count ? begin + length : count;
    Part row;
    row.prepare(weight, bias, modulation == nullptr ? nullptr : modulation + image * modulation_stride,
                latent == nullptr ? nullptr : latent + image * latent_stride, lane);
    int64 image_start = image * count * CHANNELS;
    in += image_start;
    out += image_start;
#pragma unroll 1
    for (int first = begin; first < end; first += AT_ONCE) {
        int number = first + place;
        bool alive = number < end;
        Part::read(in + (int64)number * CHANNELS, lane, alive, row.x);
        if (added != nullptr) {
            float more[PARTS][VECTOR];
            Part::read(added + image_start + (int64)number * CHANNELS, lane, alive, more);
#pragma unroll
            for (int part = 0; part < PARTS; ++part)
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) row.x[part][i] = widen(narrow(row.x[part][i] + more[part][i]));
            Part::write(row.x, lane, alive, total + image_start + (int64)number * CHANNELS);
        }
        row.normalise(lane, epsilon, shared);
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                float y = row.scale[part][i] * row.x[part][i] + row.shift[part][i];
                row.x[part][i] = silu ? y * sigmoid(y) : y;
            }
        Part::write(row.x, lane, alive, out + (int64)number * CHANNELS);
    }
}

// The gradient to the input, and of each block and channel two sums over its rows: of the gradient to y, and of the same
// times the normalised input. partial (B, blocks, 2, C).
extern "C" __global__ void __launch_bounds__(THREADS)
    modulated_norm_backward(const feature* __restrict__ grad, const feature* __restrict__ in,
                            const float* __restrict__ weight, const float* __restrict__ bias,
                            const coefficient* __restrict__ modulation, const coefficient* __restrict__ latent,
                            const feature* __restrict__ passed, feature* __restrict__ to_in,
                            float* __restrict__ partial, int count, int length,
                            int64 modulation_stride, int64 latent_stride, float epsilon, int silu) {
    __shared__ float shared[THREADS / 32];
    __shared__ float sums[THREADS * PARTS * VECTOR];
    int lane = threadIdx.x % GROUP, place = threadIdx.x / GROUP;
    int64 image = blockIdx.y;
    int begin = blockIdx.x * length;
    int end = begin + length < count ? begin + length : count;
    Part row;
    row.prepare(weight, bias, modulation == nullptr ? nullptr : modulation + image * modulation_stride,
                latent == nullptr ? nullptr : latent + image * latent_stride, lane);
    int64 image_start = image * count * CHANNELS;
    grad += image_start;
    in += image_start;
    to_in += image_start;
    float plain[PARTS][VECTOR] = {}, times[PARTS][VECTOR] = {};
#pragma unroll 1
    for (int first = begin; first < end; first += AT_ONCE) {
        int number = first + place;
        bool alive = number < end;
        float g[PARTS][VECTOR];
        Part::read(in + (int64)number * CHANNELS, lane, alive, row.x);
        Part::read(grad + (int64)number * CHANNELS, lane, alive, g);
        float inverse = row.normalise(lane, epsilon, shared);
        float mean = 0.0f, slope = 0.0f;
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                float x = row.x[part][i], scale = row.scale[part][i];
                if (silu) {
                    float y = scale * x + row.shift[part][i], part_of = sigmoid(y);
                    g[part][i] *= part_of * (1.0f + y * (1.0f - part_of));
                }
                plain[part][i] += g[part][i];
                times[part][i] += g[part][i] * x;
                g[part][i] *= scale;
                mean += g[part][i];
                slope += g[part][i] * x;
            }
        mean = row_sum(mean, shared) * (1.0f / CHANNELS);
        slope = row_sum(slope, shared) * (1.0f / CHANNELS);
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) g[part][i] = inverse * (g[part][i] - mean - row.x[part][i] * slope);
        if (passed != nullptr) {
            Part::read(passed + image_start + (int64)number * CHANNELS, lane, alive, row.x);
#pragma unroll
            for (int part = 0; part < PARTS; ++part)
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) g[part][i] += row.x[part][i];
        }
        Part::write(g, lane, alive, to_in + (int64)number * CHANNELS);
    }
    partial += (image * gridDim.x + blockIdx.x) * 2 * CHANNELS;
    constexpr int WIDTH = GROUP * PARTS * VECTOR;
    for (int which = 0; which < 2; ++which, partial += CHANNELS) {
        __syncthreads();
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
            for (int i = 0; i < VECTOR; ++i)
                sums[place * WIDTH + Part::channel(lane, part) + i] = which ? times[part][i] : plain[part][i];
        __syncthreads();
        for (int c = threadIdx.x; c < CHANNELS; c += THREADS) {
            float sum = 0.0f;
            for (int other = 0; other < AT_ONCE; ++other) sum += sums[other * WIDTH + c];
            partial[c] = sum;
        }
    }
}

// The gradients to modulation and latent, contiguous, and to weight and bias (C): from the sums of `blocks` blocks an image.
extern "C" __global__ void __launch_bounds__(THREADS)
    modulated_norm_sums(const float* __restrict__ partial, const float* __restrict__ weight,
                        const float* __restrict__ bias, const coefficient* __restrict__ modulation,
                        const coefficient* __restrict__ latent, coefficient* __restrict__ to_modulation,
                        coefficient* __restrict__ to_latent, float* __restrict__ to_weight, float* __restrict__ to_bias,
                        int batch, int blocks, int64 modulation_stride, int64 latent_stride) {
    __shared__ float shared[2][IMAGES][SUMMED];
    int place = threadIdx.x / SUMMED;
    int c = blockIdx.x * SUMMED + threadIdx.x % SUMMED;
    bool alive = c < CHANNELS;
    float own_weight = 0.0f, own_bias = 0.0f;
    for (int image = place; image < batch && alive; image += IMAGES) {
        const float* from = partial + (int64)image * blocks * 2 * CHANNELS + c;
        float plain = 0.0f, times = 0.0f;
#pragma unroll 8
        for (int block = 0; block < blocks; ++block, from += 2 * CHANNELS) {
            plain += from[0];
            times += from[CHANNELS];
        }
        float s = 1.0f;
        if (modulation != nullptr) {
            const coefficient* own = modulation + image * modulation_stride;
            float a = 1.0f + widened(own[c]), b = widened(own[CHANNELS + c]);
            float factor = latent == nullptr ? 1.0f : 1.0f + widened(latent[image * latent_stride + c]);
            float to_scale = times * weight[c] + plain * bias[c];
            to_modulation[(int64)image * 2 * CHANNELS + c] = narrowed(to_scale * factor);
            to_modulation[(int64)image * 2 * CHANNELS + CHANNELS + c] = narrowed(plain * factor);
            if (latent != nullptr) to_latent[(int64)image * CHANNELS + c] = narrowed(to_scale * a + plain * b);
            s = a * factor;
        }
        own_weight += s * times;
        own_bias += s * plain;
    }
    shared[0][place][threadIdx.x % SUMMED] = own_weight;
    shared[1][place][threadIdx.x % SUMMED] = own_bias;
    __syncthreads();
    if (place > 1 || !alive) return;
    float sum = 0.0f;
    for (int other = 0; other < IMAGES; ++other) sum += shared[place][other][threadIdx.x % SUMMED];
    (place ? to_bias : to_weight)[c] = sum;
}
