/* Kernels with one planted bug each, which the emulator has to report (test_emu.c lists what it says). Not for a card. */
#include "engine/cuda/portable.cuh"
#include "tests/cuda/emu_kernels.h"

static const unsigned ALL = 0xffffffffu;
#define BUG_KERNEL(name) QN_KERNEL(64, 1) name(int *mem)

BUG_KERNEL(lane_outside_mask) { mem[threadIdx.x] = __shfl_sync(0xffu, (int)threadIdx.x, 0); }
BUG_KERNEL(different_sites) {
    if (threadIdx.x < 16) mem[threadIdx.x] = __shfl_sync(ALL, 1, 0);
    else mem[threadIdx.x] = __shfl_sync(ALL, 2, 0);
}
BUG_KERNEL(partial_warp) { mem[threadIdx.x] = __shfl_sync(ALL, 1, 0); }
BUG_KERNEL(left_before_shuffle) {
    if (threadIdx.x == 40) return;
    mem[threadIdx.x] = __shfl_sync(ALL, 1, 0);
}
BUG_KERNEL(barrier_left) {
    if (threadIdx.x == 63) return;
    __syncthreads();
    mem[threadIdx.x] = 1;
}
BUG_KERNEL(barrier_after_leaving) {
    if (threadIdx.x == 0) return;
    __syncthreads();
    mem[threadIdx.x] = 1;
}
BUG_KERNEL(barrier_sites) {
    if (threadIdx.x < 32) __syncthreads();
    else
        __syncthreads();
    mem[threadIdx.x] = 1;
}
BUG_KERNEL(deadlock) {
    if (threadIdx.x < 32) __syncthreads();
    else mem[threadIdx.x] = __shfl_sync(ALL, 1, threadIdx.x == 40 ? (__syncthreads(), 0) : 0);
}
BUG_KERNEL(overlapping_masks) {
    if (threadIdx.x < 8) __syncwarp(0xffffu);
    else if (threadIdx.x < 32) __syncwarp(0xfffffff0u);
    mem[threadIdx.x] = 1;
}
struct alignas(16) words { int v[64]; };
BUG_KERNEL(no_wait) {
    QN_SHARED(words, s);
    qn_cp_async16(&s.v[4 * (threadIdx.x % 16)], mem, threadIdx.x < 16);
    qn_cp_commit();
}
BUG_KERNEL(misaligned) {
    qn_vec16 v = qn_load16(mem + 1);
    mem[threadIdx.x] = (int)v.x[0];
}
BUG_KERNEL(shuffle_outside) {
    if (threadIdx.x < 32) mem[threadIdx.x] = __shfl_xor_sync(threadIdx.x < 16 ? 0xffffu : 0xffff0000u, 1, 16);
}
struct too_large { int v[49 * 256]; };
BUG_KERNEL(static_too_large) {
    QN_SHARED(too_large, s);
    mem[0] = s.v[0];
}
BUG_KERNEL(dynamic_too_small) {
    QN_SHARED_DYN(words, s);
    mem[0] = s.v[0];
}
BUG_KERNEL(two_shared) {
    QN_SHARED(words, s);
    QN_SHARED(words, u);
    mem[0] = s.v[0] + u.v[0];
}
BUG_KERNEL(beyond_device) { mem[1024 + threadIdx.x] = 1; }
BUG_KERNEL(beyond_shared) {
    QN_SHARED(words, s);
    s.v[64 + threadIdx.x + (unsigned)(mem == nullptr)] = 1;
    __syncthreads();
    mem[threadIdx.x] = s.v[64 + threadIdx.x];
}
BUG_KERNEL(cp_target) {
    qn_cp_async16(mem + 16, mem, true);
    qn_cp_commit();
    qn_cp_wait<0>();
}
BUG_KERNEL(ldmatrix_global) {
    uint32_t r[4];
    qn_ldmatrix_x4(r, mem + 4 * (threadIdx.x % 32));
    mem[threadIdx.x] = (int)r[0];
}

extern "C" void emu_bug(enum emu_bug which, int *mem, cudaStream_t s) {
    switch (which) {
    case BUG_LANE_OUTSIDE_MASK: QN_LAUNCH(lane_outside_mask, 1, 64, 0, s, mem); break;
    case BUG_DIFFERENT_SITES: QN_LAUNCH(different_sites, 1, 64, 0, s, mem); break;
    case BUG_PARTIAL_WARP: QN_LAUNCH(partial_warp, 1, 40, 0, s, mem); break;
    case BUG_LEFT_BEFORE_SHUFFLE: QN_LAUNCH(left_before_shuffle, 1, 64, 0, s, mem); break;
    case BUG_BARRIER_LEFT: QN_LAUNCH(barrier_left, 1, 64, 0, s, mem); break;
    case BUG_BARRIER_AFTER_LEAVING: QN_LAUNCH(barrier_after_leaving, 1, 64, 0, s, mem); break;
    case BUG_BARRIER_SITES: QN_LAUNCH(barrier_sites, 1, 64, 0, s, mem); break;
    case BUG_DEADLOCK: QN_LAUNCH(deadlock, 1, 64, 0, s, mem); break;
    case BUG_OVERLAPPING_MASKS: QN_LAUNCH(overlapping_masks, 1, 64, 0, s, mem); break;
    case BUG_NO_WAIT: QN_LAUNCH(no_wait, 1, 64, 0, s, mem); break;
    case BUG_MISALIGNED: QN_LAUNCH(misaligned, 1, 64, 0, s, mem); break;
    case BUG_SHUFFLE_OUTSIDE: QN_LAUNCH(shuffle_outside, 1, 64, 0, s, mem); break;
    case BUG_STATIC_TOO_LARGE: QN_LAUNCH(static_too_large, 1, 64, 0, s, mem); break;
    case BUG_DYNAMIC_TOO_SMALL: QN_LAUNCH(dynamic_too_small, 1, 64, 128, s, mem); break;
    case BUG_TWO_SHARED: QN_LAUNCH(two_shared, 1, 64, 0, s, mem); break;
    case BUG_BEYOND_DEVICE: QN_LAUNCH(beyond_device, 1, 64, 0, s, mem); break;
    case BUG_BEYOND_SHARED: QN_LAUNCH(beyond_shared, 1, 64, 0, s, mem); break;
    case BUG_CP_TARGET: QN_LAUNCH(cp_target, 1, 64, 0, s, mem); break;
    case BUG_LDMATRIX_GLOBAL: QN_LAUNCH(ldmatrix_global, 1, 64, 0, s, mem); break;
    case BUG_COUNT: break;
    }
}
QN_KERNEL(1024, 1) nothing(int) {}
extern "C" void emu_nothing(int gx, int gy, int block, int bytes, cudaStream_t s) { QN_LAUNCH(nothing, dim3((unsigned)gx, (unsigned)gy), block, (size_t)bytes, s, 0); }
