/* What tests of CUDA kernels share: device memory from host arrays, seeded random numbers, and 16-bit floats in plain C, written
 * from their definitions. */
#ifndef QN_TESTS_CUDA_KIT_H
#define QN_TESTS_CUDA_KIT_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/runtime.h"
#ifdef QN_CUDA_EMU
#include "engine/cuda/emu/testing.h"
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FAULTS_ARE_THE_SANITIZERS 1 /* a stray access, or a report from a signal handler, is theirs */
#else
#define FAULTS_ARE_THE_SANITIZERS 0
#endif

/* In the checked emulator, some ten times slower: take fewer shapes. */
__attribute__((unused)) static int is_checked(void) {
#ifdef QN_CUDA_EMU
    return qn_emu_is_checked();
#else
    return 0;
#endif
}

__attribute__((unused)) static void *dev_new(size_t bytes) {
    void *p = NULL;
    if (cudaMalloc(&p, bytes)) abort();
    return p;
}
__attribute__((unused)) static void *dev_copy(const void *from, size_t bytes) {
    void *p = dev_new(bytes);
    if (cudaMemcpy(p, from, bytes, cudaMemcpyHostToDevice)) abort();
    return p;
}
__attribute__((unused)) static void dev_read(void *to, const void *from, size_t bytes) {
    if (cudaDeviceSynchronize() || cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost)) abort();
}

static uint64_t rnd_state = 0x2545f4914f6cdd1du;
__attribute__((unused)) static uint32_t rnd(void) { /* xorshift64* */
    rnd_state ^= rnd_state >> 12, rnd_state ^= rnd_state << 25, rnd_state ^= rnd_state >> 27;
    return (uint32_t)((rnd_state * 0x2545f4914f6cdd1du) >> 32);
}
/* In [-1, 1). */
__attribute__((unused)) static float rnd_float(void) { return (float)(int32_t)rnd() * 0x1p-31f; }

__attribute__((unused)) static double half_value(uint16_t h) {
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}
__attribute__((unused)) static double bf16_value(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return (double)f;
}
/* The nearest, ties to even, by the spacing of halves around |v|: 2^(e-10), at least 2^-24. */
__attribute__((unused)) static uint16_t half_of(float v) {
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    double a = fabs((double)v);
    int e;
    if (isnan(v)) return 0x7fff;
    if (a >= 65520) return (uint16_t)(sign | 0x7c00);
    frexp(a, &e); /* a = f * 2^e, f in [0.5, 1) */
    int step = e - 11 < -24 ? -24 : e - 11;
    int n = (int)rint(ldexp(a, -step)); /* 0 .. 2048 */
    return (uint16_t)(sign | (step == -24 && n < 1024 ? n : (n == 2048 ? (step + 26) << 10 : ((step + 25) << 10) + n - 1024)));
}
__attribute__((unused)) static uint16_t bf16_of(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    if (isnan(v)) return 0x7fff;
    uint32_t low = u & 0xffffu, up = u >> 16;
    return (uint16_t)(up + (low > 0x8000u || (low == 0x8000u && (up & 1u))));
}

#endif
