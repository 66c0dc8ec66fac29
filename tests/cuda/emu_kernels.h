/* Launchers of the emulator's own test kernels (emu_kernels.cu). All pointers are device memory. */
#ifndef QN_TESTS_CUDA_EMU_KERNELS_H
#define QN_TESTS_CUDA_EMU_KERNELS_H

#include <stdint.h>

#include "engine/cuda/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[i] = a[i] + b[i] through shared memory, reversed within blocks of 256 and back. */
void emu_add(float *out, const float *a, const float *b, int n, cudaStream_t s);

#ifdef __cplusplus
}
#endif

#endif
