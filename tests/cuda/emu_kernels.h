/* Launchers of the emulator's own test kernels (emu_kernels.cu, emu_bugs.cu). All pointers are device memory. */
#ifndef QN_TESTS_CUDA_EMU_KERNELS_H
#define QN_TESTS_CUDA_EMU_KERNELS_H

#include <stdint.h>

#include "engine/cuda/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[i] = a[i] + b[i] through shared memory, reversed within blocks of 256 and back. */
void emu_add(float *out, const float *a, const float *b, int n, cudaStream_t s);
/* v[i] += by; one thread an element. */
void emu_inc(int *v, int n, int by, cudaStream_t s);
/* One warp: out[k][lane] of shuffles idx, up, down, xor of in[lane] with arg[lane] (idx) or by (others), in parts of `width`. */
void emu_shuffles(int *out, const int *in, const int *arg, int by, int width, cudaStream_t s);
/* One warp: out[0..2][lane] = ballot, any, all of in[lane] > limit; out[3] of ballots by halves of the warp. */
void emu_votes(unsigned *out, const int *in, int limit, cudaStream_t s);
/* Every thread of blocks x 64 adds its index: sums[0..] of int, unsigned, u64; *f of floats; ext[0..1] maximum and minimum; *turns counted by CAS. */
void emu_atomics(int *i, unsigned *u, unsigned long long *l, float *f, int *ext, int *turns, int blocks, cudaStream_t s);

/* d[16][8] = c + a[16][k] . b[k][8], row-major; fragments filled element by element (PTX ISA, 9.7.14). */
void emu_mma_f16(float *d, const uint16_t *a, const uint16_t *b, const float *c, int bf16, cudaStream_t s);
void emu_mma_s8(int32_t *d, const int8_t *a, const int8_t *b, const int32_t *c, int k, cudaStream_t s);
/* The f16 product again, fragments by ldmatrix: a plain, b transposed. */
void emu_mma_ldmatrix(float *d, const uint16_t *a, const uint16_t *b, const float *c, cudaStream_t s);

/* out[i] = sum over tiles of in[tile][i], 32 threads of 4 floats, tiles by cp.async two ahead; rows >= n_tiles are not taken (zeros). */
void emu_pipeline(float *out, const float *in, int n_tiles, int n_loops, cudaStream_t s);
/* out[16][n]: intrinsics on a[i], b[i], c[i]; rows as in test_emu.c. */
void emu_intrinsics(uint32_t *out, const uint32_t *a, const uint32_t *b, const uint32_t *c, int n, cudaStream_t s);
/* out[0][i] = f32 bits of half i, out[1][i] of bfloat16 i; for i < 65536. */
void emu_widen(uint32_t *out, cudaStream_t s);
/* out[0][i], out[1][i]: f32 bits in[i] narrowed to half and bfloat16. */
void emu_narrow(uint16_t *out, const uint32_t *in, int n, cudaStream_t s);
/* out[0][i], out[1][i]: qn_exp and qn_tanh of in[i]. */
void emu_functions(float *out, const float *in, int n, cudaStream_t s);
/* out[i] = in[n - 1 - i] by one block with n floats of dynamic shared memory. */
void emu_big_shared(float *out, const float *in, int n, int allow, cudaStream_t s);
/* Each block leaves its sum of 64 numbers; the block that comes last adds them up: *out. */
void emu_last_block(float *out, float *partial, unsigned *count, const float *in, int blocks, cudaStream_t s);

/* A planted bug each; see emu_bugs.cu. mem: 1024 ints. */
enum emu_bug {
    BUG_LANE_OUTSIDE_MASK, BUG_DIFFERENT_SITES, BUG_PARTIAL_WARP, BUG_LEFT_BEFORE_SHUFFLE, BUG_BARRIER_LEFT, BUG_BARRIER_AFTER_LEAVING, BUG_BARRIER_SITES,
    BUG_DEADLOCK, BUG_OVERLAPPING_MASKS, BUG_NO_WAIT, BUG_MISALIGNED, BUG_SHUFFLE_OUTSIDE, BUG_STATIC_TOO_LARGE, BUG_DYNAMIC_TOO_SMALL, BUG_TWO_SHARED,
    BUG_BEYOND_DEVICE, BUG_BEYOND_SHARED, BUG_CP_TARGET, BUG_LDMATRIX_GLOBAL,
    BUG_COUNT
};
/* Seen in the checked build only; two blocks of 64. `host` is memory of the host. */
enum emu_checked_bug {
    CHECKED_NONE, CHECKED_NO_BARRIER, CHECKED_NO_SYNCWARP, CHECKED_SHUFFLE_ORDERS_NOTHING, CHECKED_WRITE_AFTER_READ, CHECKED_BLOCKS_RACE, CHECKED_PLAIN_FOR_ATOMIC,
    CHECKED_LAST_BLOCK_NO_FENCE, CHECKED_LAST_BLOCK_NO_BARRIER, CHECKED_UNWRITTEN_SHARED, CHECKED_UNWRITTEN_DEVICE, CHECKED_ONE_PAST_DEVICE, CHECKED_ONE_PAST_SHARED,
    CHECKED_HOST_MEMORY, CHECKED_OTHER_STACK, CHECKED_CP_BEFORE_WAIT, CHECKED_CP_NO_BARRIER, CHECKED_UNALIGNED, CHECKED_LDMATRIX_NO_SYNC,
    CHECKED_COUNT
};
void emu_checked_bug(enum emu_checked_bug which, int *mem, int n, int *fresh, int *host, cudaStream_t s);
/* One warp: lane l reads in[l * stride] and writes out[l]; then shared words, 4, 8 and 16 bytes a lane, at a distance of `stride` words. */
void emu_strides(float *out, const float *in, int stride, cudaStream_t s);
void emu_bug(enum emu_bug which, int *mem, cudaStream_t s);
/* For launch limits. */
void emu_nothing(int gx, int gy, int block, int bytes, cudaStream_t s);

#ifdef __cplusplus
}
#endif

#endif
