/* What a kernel may use, and nothing else: one spelling for nvcc and for the host compiler of the emulator (emu/emu.h). This is the
 * only header of engine/cuda that asks which of the two reads it.
 *
 * RULES for kernels
 *  - Blocks are multiples of 32 threads. Every call that ends in _sync, every mma, ldmatrix and barrier is reached by whole warps
 *    (whole blocks for __syncthreads) with the full mask: predicate the data, never the call, and leave no thread out early.
 *  - Lanes that exchange through shared memory have __syncwarp() between writing and reading; shuffles order no memory.
 *  - No block waits for another one. Register arrays are indexed by constants (unrolled loops).
 *  - 16-byte access only through qn_load16, qn_store16 and qn_cp_async16; addresses are multiples of 16.
 *  - One struct type per kernel for shared memory: QN_SHARED(type, name) for up to 48 KiB, QN_SHARED_DYN(type, name) for more.
 *  - __shfl_*_sync, __syncthreads, __syncwarp, __ballot_sync, __any_sync, atomicAdd/Max/Min/CAS, __threadfence, __dp4a, __ldg,
 *    __half, __half2, __nv_bfloat16 and their conversions keep CUDA's names.
 *  - Of libm only what is exact (fmaf, sqrtf, fabsf, copysignf, fmaxf, fminf): qn_exp and qn_tanh below for the rest.
 *
 * Fragments, g = lane / 4, t = lane % 4 (PTX ISA, "Matrix fragments"). m16n8k16 of 16-bit floats: a[i] holds row g + 8*(i & 1), columns
 * 2t + 8*(i >> 1) and the next one; b[i] rows 2t + 8i and the next one, column g; c[0], c[1] row g, columns 2t, 2t + 1; c[2], c[3] row
 * g + 8. m16n8k32 of s8: a[i] row g + 8*(i & 1), columns 4t + 16*(i >> 1) .. + 3; b[i] rows 4t + 16i .. + 3, column g. m16n8k16 of s8:
 * a[i] row g + 8i, columns 4t .. + 3; b rows 4t .. + 3, column g. Low half or byte first. */
#ifndef QN_CUDA_PORTABLE_CUH
#define QN_CUDA_PORTABLE_CUH

#include <stddef.h>
#include <stdint.h>

struct alignas(16) qn_vec16 { uint32_t x[4]; };

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define QN_KERNEL(threads, blocks) static __global__ void __launch_bounds__(threads, blocks)
#define QN_DEVICE static __device__ __forceinline__
#define QN_CONST_TABLE static __device__ const
#define QN_SHARED(type, name) __shared__ type name##_here; type &name = name##_here
#define QN_SHARED_DYN(type, name) extern __shared__ __align__(128) unsigned char qn_shared_dyn[]; type &name = *reinterpret_cast<type *>(qn_shared_dyn)
/* Launches kernel<<<grid, block, dynamic bytes, stream>>>(...). Grid and block are dim3 or numbers. Errors stay in cudaGetLastError. */
#define QN_LAUNCH(kernel, grid, block, bytes, stream, ...) kernel<<<(grid), (block), (bytes), (stream)>>>(__VA_ARGS__)
/* Once a kernel, before its first launch with more than 48 KiB; 0 or -1. */
#define QN_ALLOW_SHARED(kernel, bytes) (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)) == cudaSuccess ? 0 : -1)

QN_DEVICE qn_vec16 qn_load16(const void *p) {
    uint4 v = *reinterpret_cast<const uint4 *>(p);
    return qn_vec16{{v.x, v.y, v.z, v.w}};
}
/* Of memory that nobody writes during the kernel and that is read once: weights. */
QN_DEVICE qn_vec16 qn_load16_stream(const void *p) {
    qn_vec16 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x[0]), "=r"(v.x[1]), "=r"(v.x[2]), "=r"(v.x[3]) : "l"(__cvta_generic_to_global(p)));
    return v;
}
QN_DEVICE void qn_store16(void *p, qn_vec16 v) { *reinterpret_cast<uint4 *>(p) = make_uint4(v.x[0], v.x[1], v.x[2], v.x[3]); }

/* 16 bytes from global to shared memory behind the thread's back; zeros if !take (then `from` is not read). */
QN_DEVICE void qn_cp_async16(void *to, const void *from, bool take) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(__cvta_generic_to_global(from)), "r"(take ? 16 : 0) : "memory");
}
QN_DEVICE void qn_cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Until at most N of the thread's groups are under way; others see the bytes after a barrier. */
template <int N> QN_DEVICE void qn_cp_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8 (16 bytes, shared memory). */
QN_DEVICE void qn_ldmatrix_x4(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}
QN_DEVICE void qn_ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"((unsigned)__cvta_generic_to_shared(row)) : "memory");
}
/* c += a . b */
QN_DEVICE void qn_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
QN_DEVICE void qn_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
QN_DEVICE void qn_mma_s8_k32(int32_t c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
QN_DEVICE void qn_mma_s8_k16(int32_t c[4], const uint32_t a[2], uint32_t b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b));
}
/* 2^x and 1/sqrt(x), approximate: 2 ulp on a card, exact here and there on the host. */
QN_DEVICE float qn_exp2(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
QN_DEVICE float qn_rsqrt(float x) { return rsqrtf(x); }

#else

#include "engine/cuda/emu/emu.h" /* the same names; see there for what it checks */

#endif

/* e^x to 2^-21 where 2^x has 2 ulp; 0 and infinity where it leaves the normal floats. The steps are written out, so that host and card part
 * in ex2.approx alone, which expf of the two libraries does not promise. x log2(e) is rounded, and what that left out is made up for. */
QN_DEVICE float qn_exp(float x) {
    const float log2e = 1.44269504f, more = 1.92596299e-8f, ln2 = 0.693147181f;
    float t = x * log2e, low = fmaf(x, more, fmaf(x, log2e, -t)), y = qn_exp2(t);
    y = fmaf(y, low * ln2, y);
    return x > 88.72f ? INFINITY : x < -87.33f ? 0.0f : y;
}
/* Cephes' tanhf, to 2^-21 as well: a polynomial near 0, where 1 - 2 / (e^2x + 1) would have nothing left. */
QN_DEVICE float qn_tanh(float x) {
    float z = x * x, p = fmaf(fmaf(fmaf(fmaf(-5.70498872745e-3f, z, 2.06390887954e-2f), z, -5.37397155531e-2f), z, 1.33314422036e-1f), z, -3.33332819422e-1f);
    float far = copysignf(1.0f - 2.0f / (qn_exp(2.0f * fabsf(x)) + 1.0f), x);
    return fabsf(x) < 0.625f ? fmaf(p * z, x, x) : far;
}

/* Over the 32 lanes, by xor butterfly from 16 down to 1: one fixed order of sums; every lane gets the result. */
QN_DEVICE float qn_warp_sum(float x) {
    for (int m = 16; m > 0; m >>= 1) x += __shfl_xor_sync(0xffffffffu, x, m);
    return x;
}
QN_DEVICE float qn_warp_max(float x) {
    for (int m = 16; m > 0; m >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, m));
    return x;
}

#endif
