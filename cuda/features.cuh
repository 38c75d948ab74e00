// Rows of features, spread over the lanes of a warp, and lists of the rows that a result needs.
//
// A file that includes this is compiled once for each setting of
//   SCALAR    the type of features: 0 float, 1 half, 2 bfloat16; sums are always in float
//   CHANNELS  C
// Features are rows (B, L, C), contiguous. A lane moves VECTOR neighbouring channels; LANES lanes, a power of two
// within one warp, work on one row in SLOTS steps.
#pragma once
#include "lattice.cuh"

typedef unsigned short bits16;

#ifndef EMULATED  // the tests run the kernels on the CPU and bring their own versions of these functions
__device__ inline float half_to_float(bits16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}
__device__ inline bits16 float_to_half(float x) {
    bits16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
__device__ inline bits16 float_to_bfloat16(float x) {
    bits16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
// A value that the compiler does not take apart, so that an address in a loop is one multiply-add of two of them.
template <typename Item>
__device__ inline const Item* whole(const Item* address) {
    asm("" : "+l"(address));
    __builtin_assume(__isGlobal(address));
    return address;
}
__device__ inline unsigned whole(unsigned number) {
    asm("" : "+r"(number));
    return number;
}
#endif

#if SCALAR == 0
typedef float feature;
__device__ inline float widen(feature x) { return x; }
__device__ inline feature narrow(float x) { return x; }
#elif SCALAR == 1
typedef bits16 feature;
__device__ inline float widen(feature x) { return half_to_float(x); }
__device__ inline feature narrow(float x) { return float_to_half(x); }
#else
typedef bits16 feature;
__device__ inline float widen(feature x) { return __uint_as_float((unsigned)x << 16); }
__device__ inline feature narrow(float x) { return float_to_bfloat16(x); }
#endif

constexpr int VECTOR = CHANNELS % 8 == 0 ? 8 : 1;

__device__ constexpr int power_of_two_from(int n) {
    int power = 1;
    while (power < n) power *= 2;
    return power;
}

constexpr int VECTORS = (CHANNELS + VECTOR - 1) / VECTOR;
constexpr int LANES = VECTORS >= 32 ? 32 : power_of_two_from(VECTORS);
constexpr int SLOTS = (VECTORS + LANES - 1) / LANES;
constexpr int ROWS_PER_BLOCK = THREADS / LANES;

// 16 bytes, the most that one instruction moves, hold EACH features.
struct alignas(16) Sixteen {
    unsigned word[4];
};
constexpr int EACH = 16 / sizeof(feature);

// VECTOR channels from memory, as floats.
__device__ inline void load(const feature* from, float* to) {
    if constexpr (VECTOR == 1) {
        to[0] = widen(from[0]);
    } else {
#pragma unroll
        for (int part = 0; part < VECTOR / EACH; ++part) {
            Sixteen raw = reinterpret_cast<const Sixteen*>(from)[part];
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                if constexpr (sizeof(feature) == 4)
                    to[part * EACH + i] = __uint_as_float(raw.word[i]);
                else
                    to[part * EACH + i] = widen((feature)(raw.word[i / 2] >> (16 * (i % 2))));
            }
        }
    }
}

__device__ inline void store(const float* from, feature* to) {
    if constexpr (VECTOR == 1) {
        to[0] = narrow(from[0]);
    } else {
#pragma unroll
        for (int part = 0; part < VECTOR / EACH; ++part) {
            Sixteen raw;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if constexpr (sizeof(feature) == 4) {
                    raw.word[i] = __float_as_uint(from[part * EACH + i]);
                } else {
                    unsigned low = (unsigned)narrow(from[part * EACH + 2 * i]);
                    unsigned high = (unsigned)narrow(from[part * EACH + 2 * i + 1]);
                    raw.word[i] = low | (high << 16);
                }
            }
            reinterpret_cast<Sixteen*>(to)[part] = raw;
        }
    }
}

// One row of channels, spread over LANES lanes.
struct Row {
    float value[SLOTS][VECTOR];

    __device__ static int channel(int lane, int slot) { return (slot * LANES + lane) * VECTOR; }

    __device__ void clear() {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot)
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) value[slot][i] = 0.0f;
    }

    // value += weight * row
    __device__ void add(const feature* row, float weight, int lane) {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) {
            int c = channel(lane, slot);
            if (c >= CHANNELS) continue;
            float x[VECTOR];
            load(row + c, x);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) value[slot][i] += weight * x[i];
        }
    }

    // value += weight * row * taps, channel by channel
    __device__ void add(const feature* row, const feature* taps, float weight, int lane) {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) {
            int c = channel(lane, slot);
            if (c >= CHANNELS) continue;
            float x[VECTOR], w[VECTOR];
            load(row + c, x);
            load(taps + c, w);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) value[slot][i] += weight * w[i] * x[i];
        }
    }

    // row = weight * value + bias, which may be null
    __device__ void put(feature* row, float weight, int lane, const float* bias = nullptr) {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) {
            int c = channel(lane, slot);
            if (c >= CHANNELS) continue;
            float x[VECTOR];
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                x[i] = weight * value[slot][i];
                if (bias != nullptr) x[i] += bias[c + i];
            }
            store(x, row + c);
        }
    }
};

// Each lane of a row checks one candidate; those that count are listed in order, for all lanes to visit.
struct List {
    static constexpr int LENGTH = 32;

    int number[LENGTH];
    int tag[LENGTH];

    // Called by every lane of the warp, lane by lane of ascending candidates; returns the new length.
    __device__ int append(int length, int lane, int candidate, int label) {
        unsigned ballot = __ballot_sync(ALL_LANES, candidate >= 0);
        int first_lane = (int)(threadIdx.x % 32) - lane;
        unsigned present = (ballot >> first_lane) & (LANES == 32 ? ALL_LANES : (1u << (LANES % 32)) - 1u);
        if (candidate >= 0) {
            int place = length + __popc(present & ((1u << lane) - 1u));
            number[place] = candidate;
            tag[place] = label;
        }
        return length + __popc(present);
    }
};
