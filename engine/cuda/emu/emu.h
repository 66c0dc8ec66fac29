/* The emulator's half of portable.cuh: kernels as host C++. Every CUDA thread is a fiber (fiber.cc); a kernel is an ordinary function
 * that the emulator calls once a fiber. What needs other threads or a card's memory goes through the functions declared here.
 *
 * What it reports, beside what the memory's guard pages catch: a lane outside its own mask, lanes of a warp at different calls or with
 * different masks, a partial warp or left lanes under a mask that names them, barriers at different lines or not reached by all,
 * deadlock, shared memory beyond what the launch asked for or may ask for, misaligned or misplaced wrapped accesses, copies by
 * cp.async that nobody waited for. A report names kernel, block, thread, file and line, and ends the process (testing.h: or not).
 *
 * A call site is __builtin_FILE and __builtin_LINE as default arguments: a wrapper that others call (qn_warp_sum) counts as one site.
 * QN_EMU_CHECKED: the file is compiled with -fsanitize=thread, and every access ends in check.cc; then nothing in here may be
 * instrumented, since the accesses are ours (QN_EMU_PLAIN). */
#ifndef QN_CUDA_EMU_EMU_H
#define QN_CUDA_EMU_EMU_H

#include <stddef.h>
#include <stdint.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "engine/cuda/emu/runtime.h"
#include "engine/cuda/emu/types.h"

#define QN_EMU_PLAIN __attribute__((no_sanitize("thread")))
#define QN_EMU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#define QN_KERNEL(threads, blocks) static void
#define QN_DEVICE static inline __attribute__((unused))
#define QN_CONST_TABLE static const
#define QN_SHARED(type, name) type &name = *static_cast<type *>(qn_emu_shared(sizeof(type), alignof(type), __FILE__, __LINE__))
#define QN_SHARED_DYN(type, name) type &name = *static_cast<type *>(qn_emu_shared_dyn(sizeof(type), alignof(type), __FILE__, __LINE__))
#define QN_LAUNCH(kernel, grid, block, bytes, stream, ...) qn_emu_launch(kernel, #kernel, (grid), (block), (bytes), (stream), ##__VA_ARGS__)
#define QN_ALLOW_SHARED(kernel, bytes) qn_emu_allow_shared(reinterpret_cast<const void *>(&kernel), (size_t)(bytes))
#define __align__(n) alignas(n)

/* Of the running fiber. The pointer is the OS thread's, and a fiber stays on its OS thread. */
struct qn_emu_here {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
extern "C" __thread struct qn_emu_here *qn_emu_me __attribute__((tls_model("initial-exec")));
QN_EMU_FN QN_EMU_PLAIN const qn_emu_here *qn_emu_where() { return qn_emu_me; }
#ifdef QN_EMU_CHECKED
/* By value, out of functions that are not instrumented. */
QN_EMU_FN QN_EMU_PLAIN uint3 qn_emu_thread() { return qn_emu_me->thread; }
QN_EMU_FN QN_EMU_PLAIN uint3 qn_emu_block() { return qn_emu_me->block; }
QN_EMU_FN QN_EMU_PLAIN dim3 qn_emu_block_dim() { return qn_emu_me->block_dim; }
QN_EMU_FN QN_EMU_PLAIN dim3 qn_emu_grid_dim() { return qn_emu_me->grid_dim; }
#define threadIdx (qn_emu_thread())
#define blockIdx (qn_emu_block())
#define blockDim (qn_emu_block_dim())
#define gridDim (qn_emu_grid_dim())
#else
#define threadIdx (qn_emu_where()->thread)
#define blockIdx (qn_emu_where()->block)
#define blockDim (qn_emu_where()->block_dim)
#define gridDim (qn_emu_where()->grid_dim)
#endif

enum qn_emu_how { QN_EMU_READ, QN_EMU_WRITE, QN_EMU_ATOMIC };

extern "C" {
void *qn_emu_shared(size_t bytes, size_t align, const char *file, int line);
void *qn_emu_shared_dyn(size_t bytes, size_t align, const char *file, int line);
int qn_emu_allow_shared(const void *kernel, size_t bytes);

/* Every operation of a warp: leaves `args` (on the caller's stack) and waits for the lanes of `mask`; the last one calls fn for all. */
typedef void (*qn_emu_warp_fn)(void *const args[32], unsigned mask);
void qn_emu_meet(qn_emu_warp_fn fn, void *args, unsigned mask, const char *file, int line);
void qn_emu_barrier(const char *file, int line);
void qn_emu_fence(void);
/* An access that a wrapper makes: alignment in any build, the rest in the checked one. */
void qn_emu_touch(const void *p, size_t bytes, int how, const char *file, int line);
void qn_emu_cp_async16(void *to, const void *from, int take, const char *file, int line);
void qn_emu_cp_commit(void);
void qn_emu_cp_wait(int groups, const char *file, int line);

void qn_emu_op_sync(void *const args[32], unsigned mask);
void qn_emu_op_shuffle(void *const args[32], unsigned mask);
void qn_emu_op_vote(void *const args[32], unsigned mask);
void qn_emu_op_ldmatrix(void *const args[32], unsigned mask);
void qn_emu_op_ldmatrix_trans(void *const args[32], unsigned mask);
void qn_emu_op_mma_f16(void *const args[32], unsigned mask);
void qn_emu_op_mma_bf16(void *const args[32], unsigned mask);
void qn_emu_op_mma_s8_k32(void *const args[32], unsigned mask);
void qn_emu_op_mma_s8_k16(void *const args[32], unsigned mask);
}

/* A launch with its arguments copied; streams and graphs keep it. */
struct qn_emu_call {
    virtual ~qn_emu_call() {}
    virtual void run() const = 0;
    /* Where the arguments lie and their sizes, at most `max` of them; how many there are. For a runner (testing.h). */
    virtual int arguments(const void **at, size_t *bytes, int max) const = 0;
};
/* Takes `call`. */
extern "C" void qn_emu_submit(qn_emu_call *call, const void *kernel, const char *name, const dim3 *grid, const dim3 *block, size_t bytes, cudaStream_t stream);

template <class... P> struct qn_emu_packed final : qn_emu_call {
    void (*kernel)(P...);
    std::tuple<P...> args;
    template <class... A> explicit qn_emu_packed(void (*k)(P...), A &&...a) : kernel(k), args(static_cast<P>(std::forward<A>(a))...) {}
    template <size_t... I> QN_EMU_PLAIN void spread(std::index_sequence<I...>) const { kernel(std::get<I>(args)...); }
    QN_EMU_PLAIN void run() const override { spread(std::index_sequence_for<P...>()); }
    template <size_t... I> void list(const void **at, size_t *bytes, int max, std::index_sequence<I...>) const {
        (((int)I < max ? (void)(at[I] = &std::get<I>(args), bytes[I] = sizeof(std::get<I>(args))) : (void)0), ...);
    }
    int arguments(const void **at, size_t *bytes, int max) const override {
        list(at, bytes, max, std::index_sequence_for<P...>());
        return (int)sizeof...(P);
    }
};
template <class... P, class... A>
static inline void qn_emu_launch(void (*k)(P...), const char *name, dim3 grid, dim3 block, size_t bytes, cudaStream_t stream, A &&...a) {
    static_assert(sizeof...(P) == sizeof...(A), "as many arguments as the kernel takes");
    static_assert((std::is_trivially_copyable<P>::value && ...), "arguments are copied as bytes");
    qn_emu_submit(new qn_emu_packed<P...>(k, std::forward<A>(a)...), reinterpret_cast<const void *>(k), name, &grid, &block, bytes, stream);
}

/* Shuffles take any type of 4 or 8 bytes. `width` parts the warp, as on the card. */
struct qn_emu_shuffle {
    uint64_t in, out;
    int kind, arg, width; /* kind: 0 idx, 1 up, 2 down, 3 xor */
};
template <class T> QN_EMU_FN QN_EMU_PLAIN T qn_emu_shuffled(int kind, unsigned mask, T v, int arg, int width, const char *file, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "4 or 8 bytes");
    qn_emu_shuffle s = {0, 0, kind, arg, width};
    memcpy(&s.in, &v, sizeof v);
    qn_emu_meet(qn_emu_op_shuffle, &s, mask, file, line);
    memcpy(&v, &s.out, sizeof v);
    return v;
}
template <class T> QN_EMU_FN QN_EMU_PLAIN T __shfl_sync(unsigned mask, T v, int lane, int width = 32, QN_EMU_SITE) { return qn_emu_shuffled(0, mask, v, lane, width, file, line); }
template <class T> QN_EMU_FN QN_EMU_PLAIN T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, QN_EMU_SITE) { return qn_emu_shuffled(1, mask, v, (int)by, width, file, line); }
template <class T> QN_EMU_FN QN_EMU_PLAIN T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, QN_EMU_SITE) { return qn_emu_shuffled(2, mask, v, (int)by, width, file, line); }
template <class T> QN_EMU_FN QN_EMU_PLAIN T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, QN_EMU_SITE) { return qn_emu_shuffled(3, mask, v, bits, width, file, line); }

struct qn_emu_vote {
    int in;
    unsigned out; /* lanes of the mask that said yes */
};
QN_EMU_FN QN_EMU_PLAIN unsigned __ballot_sync(unsigned mask, int yes, QN_EMU_SITE) {
    qn_emu_vote v = {yes, 0};
    qn_emu_meet(qn_emu_op_vote, &v, mask, file, line);
    return v.out;
}
QN_EMU_FN QN_EMU_PLAIN int __any_sync(unsigned mask, int yes, QN_EMU_SITE) { return __ballot_sync(mask, yes, file, line) != 0; }
QN_EMU_FN QN_EMU_PLAIN int __all_sync(unsigned mask, int yes, QN_EMU_SITE) { return __ballot_sync(mask, yes, file, line) == mask; }
QN_EMU_FN QN_EMU_PLAIN void __syncwarp(unsigned mask = 0xffffffffu, QN_EMU_SITE) { qn_emu_meet(qn_emu_op_sync, nullptr, mask, file, line); }
QN_EMU_FN QN_EMU_PLAIN void __syncthreads(QN_EMU_SITE) { qn_emu_barrier(file, line); }
QN_EMU_FN QN_EMU_PLAIN void __threadfence() { qn_emu_fence(); }
QN_EMU_FN QN_EMU_PLAIN void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* Atomics: whole blocks run beside each other on other OS threads. They order nothing else, as on the card. */
#define QN_EMU_RMW(name, T, expr)                                                                            \
    QN_EMU_FN QN_EMU_PLAIN T name(T *p, T v, QN_EMU_SITE) {                                                  \
        qn_emu_touch(p, sizeof *p, QN_EMU_ATOMIC, file, line);                                               \
        T old = __atomic_load_n(p, __ATOMIC_RELAXED);                                                        \
        while (!__atomic_compare_exchange_n(p, &old, (T)(expr), true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {} \
        return old;                                                                                          \
    }
#define QN_EMU_RMW_INTS(T)                                  \
    QN_EMU_RMW(atomicAdd, T, (unsigned long long)old + (unsigned long long)v) \
    QN_EMU_RMW(atomicMax, T, old > v ? old : v)             \
    QN_EMU_RMW(atomicMin, T, old < v ? old : v)             \
    QN_EMU_RMW(atomicAnd, T, old & v)                       \
    QN_EMU_RMW(atomicOr, T, old | v)                        \
    QN_EMU_RMW(atomicXor, T, old ^ v)                       \
    QN_EMU_RMW(atomicExch, T, v)
QN_EMU_RMW_INTS(int)
QN_EMU_RMW_INTS(unsigned)
QN_EMU_RMW_INTS(unsigned long long)
QN_EMU_RMW(atomicSub, int, (unsigned)old - (unsigned)v)
QN_EMU_RMW(atomicSub, unsigned, old - v)
QN_EMU_RMW(atomicInc, unsigned, old >= v ? 0 : old + 1)
template <class T> QN_EMU_FN QN_EMU_PLAIN T atomicCAS(T *p, T want, T v, QN_EMU_SITE) {
    qn_emu_touch(p, sizeof *p, QN_EMU_ATOMIC, file, line);
    __atomic_compare_exchange_n(p, &want, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return want;
}
QN_EMU_FN QN_EMU_PLAIN float atomicAdd(float *p, float v, QN_EMU_SITE) {
    qn_emu_touch(p, sizeof *p, QN_EMU_ATOMIC, file, line);
    unsigned *u = reinterpret_cast<unsigned *>(p), old = __atomic_load_n(u, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(u, &old, __float_as_uint(__uint_as_float(old) + v), true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {}
    return __uint_as_float(old);
}
QN_EMU_FN QN_EMU_PLAIN float atomicExch(float *p, float v, QN_EMU_SITE) {
    qn_emu_touch(p, sizeof *p, QN_EMU_ATOMIC, file, line);
    return __uint_as_float(__atomic_exchange_n(reinterpret_cast<unsigned *>(p), __float_as_uint(v), __ATOMIC_SEQ_CST));
}

template <class T> QN_EMU_FN QN_EMU_PLAIN T __ldg(const T *p, QN_EMU_SITE) {
    qn_emu_touch(p, sizeof *p, QN_EMU_READ, file, line);
    return *p;
}
QN_EMU_FN QN_EMU_PLAIN qn_vec16 qn_load16(const void *p, QN_EMU_SITE) {
    qn_emu_touch(p, 16, QN_EMU_READ, file, line);
    qn_vec16 v;
    memcpy(&v, p, sizeof v);
    return v;
}
QN_EMU_FN QN_EMU_PLAIN qn_vec16 qn_load16_stream(const void *p, QN_EMU_SITE) { return qn_load16(p, file, line); }
QN_EMU_FN QN_EMU_PLAIN void qn_store16(void *p, qn_vec16 v, QN_EMU_SITE) {
    qn_emu_touch(p, 16, QN_EMU_WRITE, file, line);
    memcpy(p, &v, sizeof v);
}
QN_EMU_FN QN_EMU_PLAIN void qn_cp_async16(void *to, const void *from, bool take, QN_EMU_SITE) { qn_emu_cp_async16(to, from, take, file, line); }
QN_EMU_FN QN_EMU_PLAIN void qn_cp_commit() { qn_emu_cp_commit(); }
template <int N> QN_EMU_FN QN_EMU_PLAIN void qn_cp_wait(QN_EMU_SITE) { qn_emu_cp_wait(N, file, line); }

/* Matrices: the arrays may be anywhere, so the lane's record holds copies. */
struct qn_emu_fragments {
    float c[4];
    int32_t n[4];
    uint32_t a[4], b[2];
    const void *row;
    const char *file;
    int line;
};
QN_EMU_FN QN_EMU_PLAIN void qn_emu_ldmatrix(qn_emu_warp_fn fn, uint32_t r[4], const void *row, const char *file, int line) {
    qn_emu_fragments f;
    f.row = row, f.file = file, f.line = line;
    qn_emu_meet(fn, &f, 0xffffffffu, file, line);
    for (int i = 0; i < 4; i++) r[i] = f.a[i];
}
QN_EMU_FN QN_EMU_PLAIN void qn_ldmatrix_x4(uint32_t r[4], const void *row, QN_EMU_SITE) { qn_emu_ldmatrix(qn_emu_op_ldmatrix, r, row, file, line); }
QN_EMU_FN QN_EMU_PLAIN void qn_ldmatrix_x4_trans(uint32_t r[4], const void *row, QN_EMU_SITE) { qn_emu_ldmatrix(qn_emu_op_ldmatrix_trans, r, row, file, line); }
QN_EMU_FN QN_EMU_PLAIN void qn_emu_mma_float(qn_emu_warp_fn fn, float c[4], const uint32_t a[4], const uint32_t b[2], const char *file, int line) {
    qn_emu_fragments f;
    for (int i = 0; i < 4; i++) f.c[i] = c[i], f.a[i] = a[i];
    f.b[0] = b[0], f.b[1] = b[1];
    qn_emu_meet(fn, &f, 0xffffffffu, file, line);
    for (int i = 0; i < 4; i++) c[i] = f.c[i];
}
QN_EMU_FN QN_EMU_PLAIN void qn_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2], QN_EMU_SITE) { qn_emu_mma_float(qn_emu_op_mma_f16, c, a, b, file, line); }
QN_EMU_FN QN_EMU_PLAIN void qn_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2], QN_EMU_SITE) { qn_emu_mma_float(qn_emu_op_mma_bf16, c, a, b, file, line); }
QN_EMU_FN QN_EMU_PLAIN void qn_mma_s8_k32(int32_t c[4], const uint32_t a[4], const uint32_t b[2], QN_EMU_SITE) {
    qn_emu_fragments f;
    for (int i = 0; i < 4; i++) f.n[i] = c[i], f.a[i] = a[i];
    f.b[0] = b[0], f.b[1] = b[1];
    qn_emu_meet(qn_emu_op_mma_s8_k32, &f, 0xffffffffu, file, line);
    for (int i = 0; i < 4; i++) c[i] = f.n[i];
}
QN_EMU_FN QN_EMU_PLAIN void qn_mma_s8_k16(int32_t c[4], const uint32_t a[2], uint32_t b, QN_EMU_SITE) {
    qn_emu_fragments f;
    for (int i = 0; i < 4; i++) f.n[i] = c[i];
    f.a[0] = a[0], f.a[1] = a[1], f.b[0] = b;
    qn_emu_meet(qn_emu_op_mma_s8_k16, &f, 0xffffffffu, file, line);
    for (int i = 0; i < 4; i++) c[i] = f.n[i];
}

/* ex2.approx.ftz: what is below the normal floats is zero, before and after. */
QN_EMU_FN QN_EMU_PLAIN float qn_exp2(float x) {
    float y = (float)exp2((double)x); /* rounded once, as the PTX interpreter does it: their results are compared bit for bit */
    return y < 0x1p-126f ? 0.0f : y;
}
QN_EMU_FN QN_EMU_PLAIN float qn_rsqrt(float x) { return rsqrtf(x); }

#endif
