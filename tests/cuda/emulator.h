// Runs a CUDA kernel on the CPU, thread by thread: enough of the language for the sources in cuda/.
//
// Each thread of a block is a fibre. A fibre runs until it waits for its warp or its block; blocks run one after
// the other. A wait that not all threads reach ends the program, as it would hang a GPU.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#define EMULATED 1
#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(n)

struct Dim3 {
    unsigned x, y, z;
};

static Dim3 blockIdx, blockDim, gridDim;

struct Fibre {
    ucontext_t context;
    Dim3 thread;
    jmp_buf place;  // where it waits: jumps cost no system call, unlike swapcontext
    bool started = false, done = false;
    std::vector<char> stack;
};

struct Barrier {
    int arrived = 0, members = 0;
    unsigned generation = 0;
};

static std::vector<Fibre> fibres;
static std::vector<Barrier> warp_barriers;
static Barrier block_barrier;
static std::vector<long long> exchange;  // one slot a thread, for warp functions
static jmp_buf scheduler;
static int current;
static std::function<void()> body;

#define threadIdx (fibres[current].thread)

static void yield_fibre() {
    if (_setjmp(fibres[current].place) == 0) _longjmp(scheduler, 1);
}

static void resume_fibre(int number) {
    current = number;
    if (_setjmp(scheduler) != 0) return;
    if (fibres[number].started) _longjmp(fibres[number].place, 1);
    fibres[number].started = true;
    setcontext(&fibres[number].context);
}

static void wait_at(Barrier& barrier) {
    unsigned generation = barrier.generation;
    if (++barrier.arrived == barrier.members) {
        barrier.arrived = 0;
        ++barrier.generation;
        return;
    }
    while (barrier.generation == generation) yield_fibre();
}

static void fibre_main() {
    body();
    fibres[current].done = true;
    yield_fibre();
}

inline void __syncthreads() { wait_at(block_barrier); }
inline void __syncwarp() { wait_at(warp_barriers[current / 32]); }

template <typename F>
static auto with_warp(long long mine, F read) {
    exchange[current] = mine;
    __syncwarp();
    auto result = read(current / 32 * 32);
    __syncwarp();
    return result;
}

inline unsigned __ballot_sync(unsigned, bool predicate) {
    return with_warp(predicate, [](int first) {
        unsigned bits = 0;
        for (int i = 0; i < 32 && first + i < (int)fibres.size(); ++i) bits |= (unsigned)exchange[first + i] << i;
        return bits;
    });
}
inline bool __any_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __shfl_sync(unsigned, int value, int lane) {
    return with_warp(value, [lane](int first) { return (int)exchange[first + lane]; });
}
template <typename T>
inline T whole(T value) {
    return value;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int atomicMax(int* place, int value) {
    int before = *place;
    if (value > before) *place = value;
    return before;
}

template <typename To, typename From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline float __shfl_xor_sync(unsigned, float value, int mask) {
    int from = current % 32 ^ mask;
    return __uint_as_float(
        with_warp(__float_as_uint(value), [from](int first) { return (unsigned)exchange[first + from]; }));
}
inline double __longlong_as_double(long long x) { return bits_as<double>(x); }
// volatile: no contraction to a fused multiply-add.
inline double __dmul_rn(double a, double b) {
    volatile double product = a * b;
    return product;
}
inline double __dadd_rn(double a, double b) { return a + b; }

inline float half_to_float(unsigned short x) {
    int exponent = (x >> 10) & 31, fraction = x & 1023;
    float size = exponent == 0    ? std::ldexp((float)fraction, -24)
                 : exponent == 31 ? (fraction ? std::numeric_limits<float>::quiet_NaN() : INFINITY)
                                  : std::ldexp((float)(fraction + 1024), exponent - 25);
    return x & 0x8000 ? -size : size;
}
inline unsigned short float_to_half(float x) {
    unsigned short sign = std::signbit(x) ? 0x8000 : 0;
    if (x != x) return 0x7fff;
    double size = std::fabs((double)x);
    if (size >= 65520.0) return sign | 0x7c00;
    int exponent = size == 0.0 ? -14 : std::max(-14, std::ilogb(size));
    // nearbyint: to nearest, ties to even. A carry into the next exponent is right by itself.
    int fraction = (int)std::nearbyint(std::ldexp(size, 10 - exponent));
    return sign | (unsigned short)(((exponent + 14) << 10) + fraction);
}
inline unsigned short float_to_bfloat16(float x) {
    if (x != x) return 0x7fff;
    unsigned bits = __float_as_uint(x);
    return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static void emulate(Dim3 grid, Dim3 block, std::function<void()> kernel) {
    gridDim = grid;
    blockDim = block;
    body = std::move(kernel);
    int threads = block.x * block.y * block.z;
    exchange.assign(threads, 0);
    fibres.resize(threads);
    for (Fibre& fibre : fibres) fibre.stack.resize(64 * 1024);
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                block_barrier = {0, threads, 0};
                warp_barriers.assign((threads + 31) / 32, {});
                for (int t = 0; t < threads; ++t) {
                    ++warp_barriers[t / 32].members;
                    Fibre& fibre = fibres[t];
                    fibre.thread = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
                    fibre.started = fibre.done = false;
                    getcontext(&fibre.context);
                    fibre.context.uc_stack.ss_sp = fibre.stack.data();
                    fibre.context.uc_stack.ss_size = fibre.stack.size();
                    fibre.context.uc_link = nullptr;
                    makecontext(&fibre.context, fibre_main, 0);
                }
                for (int alive = threads; alive > 0;) {
                    unsigned before = block_barrier.generation;
                    int waiting = block_barrier.arrived, finished = 0;
                    for (const Barrier& b : warp_barriers) before += b.generation, waiting += b.arrived;
                    for (int t = 0; t < threads; ++t) {
                        if (fibres[t].done) continue;
                        resume_fibre(t);
                        if (fibres[t].done) ++finished;
                    }
                    alive -= finished;
                    unsigned after = block_barrier.generation;
                    int waiting_after = block_barrier.arrived;
                    for (const Barrier& b : warp_barriers) after += b.generation, waiting_after += b.arrived;
                    if (alive > 0 && finished == 0 && before == after && waiting == waiting_after) {
                        std::fprintf(stderr, "block %u,%u,%u: threads wait for others that never come\n", x, y, z);
                        std::abort();
                    }
                }
            }
}
