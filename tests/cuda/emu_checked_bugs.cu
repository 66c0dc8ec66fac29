/* Kernels with one planted bug each that only the checked build sees (test_emu_checked.c). Not for a card. */
#include "engine/cuda/portable.cuh"
#include "tests/cuda/emu_kernels.h"

static const unsigned ALL = 0xffffffffu;
struct alignas(16) words { int v[64]; };
#define BUG_KERNEL(name) QN_KERNEL(64, 1) name(int *mem, int n, int *fresh, int *host)
#define UNUSED (void)mem, (void)n, (void)fresh, (void)host

/* mem: n ints, 0. What is right: each block writes its part, the last one adds up under a lock-free count. */
BUG_KERNEL(none) {
    QN_SHARED(words, s);
    UNUSED;
    int t = (int)threadIdx.x;
    s.v[t] = t;
    __syncthreads();
    int v = s.v[63 - t];
    __syncthreads();
    s.v[t] = v;
    __syncwarp();
    mem[64 + blockIdx.x * 64 + threadIdx.x] = s.v[t ^ 1];
    atomicAdd(&mem[0], s.v[t]);
}
BUG_KERNEL(no_barrier) {
    QN_SHARED(words, s);
    UNUSED;
    s.v[threadIdx.x] = 1;
    mem[64 + blockIdx.x * 64 + threadIdx.x] = s.v[63 - threadIdx.x];
}
BUG_KERNEL(no_syncwarp) {
    QN_SHARED(words, s);
    UNUSED;
    s.v[threadIdx.x] = 1;
    mem[64 + blockIdx.x * 64 + threadIdx.x] = s.v[threadIdx.x ^ 1];
}
BUG_KERNEL(shuffle_orders_nothing) {
    QN_SHARED(words, s);
    UNUSED;
    s.v[threadIdx.x] = 1;
    int sum = __shfl_xor_sync(ALL, 1, 1);
    mem[64 + blockIdx.x * 64 + threadIdx.x] = s.v[threadIdx.x ^ 1] + sum;
}
BUG_KERNEL(write_after_read) {
    QN_SHARED(words, s);
    UNUSED;
    s.v[threadIdx.x] = 1;
    __syncthreads();
    int v = s.v[(threadIdx.x + 32) % 64];
    s.v[threadIdx.x] = v;
}
BUG_KERNEL(blocks_race) {
    UNUSED;
    if (threadIdx.x == 0) mem[0] = (int)blockIdx.x;
}
BUG_KERNEL(plain_for_atomic) {
    UNUSED;
    if (threadIdx.x == 0 && blockIdx.x == 0) mem[0] = mem[0] + 1;
    else atomicAdd(&mem[0], 1);
}
template <bool FENCE, bool BARRIER> QN_DEVICE void last_block(int *mem) {
    QN_SHARED(words, s);
    mem[64 + blockIdx.x * 64 + threadIdx.x] = 1;
    if (BARRIER) __syncthreads();
    else __syncwarp();
    if (threadIdx.x == 0) {
        if (FENCE) __threadfence();
        s.v[0] = atomicAdd(&mem[0], 1);
    }
    __syncthreads();
    if (s.v[0] == 1) mem[1 + threadIdx.x % 32] = threadIdx.x < 32 ? mem[64 + threadIdx.x] + mem[96 + threadIdx.x] + mem[128 + threadIdx.x] : 0;
}
BUG_KERNEL(last_block_no_fence) { UNUSED; last_block<false, true>(mem); }
BUG_KERNEL(last_block_no_barrier) { UNUSED; last_block<true, false>(mem); }
BUG_KERNEL(unwritten_shared) {
    QN_SHARED(words, s);
    UNUSED;
    if (threadIdx.x < 63) s.v[threadIdx.x] = 1;
    __syncthreads();
    mem[64 + blockIdx.x * 64 + threadIdx.x] = s.v[threadIdx.x];
}
BUG_KERNEL(unwritten_device) {
    UNUSED;
    mem[64 + blockIdx.x * 64 + threadIdx.x] = fresh[0];
}
BUG_KERNEL(one_past_device) {
    UNUSED;
    if (threadIdx.x == 0) mem[n] = 1;
}
struct odd { int v[33]; };
BUG_KERNEL(one_past_shared) {
    QN_SHARED(odd, s);
    UNUSED;
    if (threadIdx.x < 33) s.v[threadIdx.x + (unsigned)(n > 0)] = 1;
}
BUG_KERNEL(host_memory) {
    UNUSED;
    mem[64 + blockIdx.x * 64 + threadIdx.x] = host[0];
}
BUG_KERNEL(other_stack) {
    UNUSED;
    volatile int mine = 5;
    unsigned long long at = __shfl_sync(ALL, (unsigned long long)(uintptr_t)&mine, 0);
    mem[64 + blockIdx.x * 64 + threadIdx.x] = *reinterpret_cast<volatile int *>((uintptr_t)at);
}
BUG_KERNEL(cp_before_wait) {
    QN_SHARED(words, s);
    UNUSED;
    int t = (int)threadIdx.x % 16;
    if (threadIdx.x < 16) qn_cp_async16(&s.v[4 * t], mem + 64 + 4 * t, true);
    qn_cp_commit();
    if (threadIdx.x < 16) fresh[blockIdx.x * 64 + threadIdx.x] = s.v[4 * t];
    qn_cp_wait<0>();
}
BUG_KERNEL(cp_no_barrier) {
    QN_SHARED(words, s);
    UNUSED;
    int t = (int)threadIdx.x;
    if (t < 16) qn_cp_async16(&s.v[4 * t], mem + 64 + 4 * t, true);
    qn_cp_commit();
    __syncthreads();
    qn_cp_wait<0>();
    fresh[blockIdx.x * 64 + threadIdx.x] = s.v[63 - t];
}
BUG_KERNEL(unaligned) {
    UNUSED;
    mem[64 + blockIdx.x * 64 + threadIdx.x] = *reinterpret_cast<const int *>(reinterpret_cast<const char *>(mem) + 2);
}
BUG_KERNEL(ldmatrix_no_sync) {
    QN_SHARED(words, s);
    UNUSED;
    uint32_t r[4];
    s.v[threadIdx.x] = 1;
    if (threadIdx.x < 32) {
        qn_ldmatrix_x4(r, &s.v[threadIdx.x % 4 * 4]);
        mem[64 + blockIdx.x * 64 + threadIdx.x] = (int)r[0];
    }
}

extern "C" void emu_checked_bug(enum emu_checked_bug which, int *mem, int n, int *fresh, int *host, cudaStream_t s) {
    switch (which) {
#define CASE(name, kernel) case CHECKED_##name: QN_LAUNCH(kernel, 2, 64, 0, s, mem, n, fresh, host); break;
    CASE(NONE, none)
    CASE(NO_BARRIER, no_barrier)
    CASE(NO_SYNCWARP, no_syncwarp)
    CASE(SHUFFLE_ORDERS_NOTHING, shuffle_orders_nothing)
    CASE(WRITE_AFTER_READ, write_after_read)
    CASE(BLOCKS_RACE, blocks_race)
    CASE(PLAIN_FOR_ATOMIC, plain_for_atomic)
    CASE(LAST_BLOCK_NO_FENCE, last_block_no_fence)
    CASE(LAST_BLOCK_NO_BARRIER, last_block_no_barrier)
    CASE(UNWRITTEN_SHARED, unwritten_shared)
    CASE(UNWRITTEN_DEVICE, unwritten_device)
    CASE(ONE_PAST_DEVICE, one_past_device)
    CASE(ONE_PAST_SHARED, one_past_shared)
    CASE(HOST_MEMORY, host_memory)
    CASE(OTHER_STACK, other_stack)
    CASE(CP_BEFORE_WAIT, cp_before_wait)
    CASE(CP_NO_BARRIER, cp_no_barrier)
    CASE(UNALIGNED, unaligned)
    CASE(LDMATRIX_NO_SYNC, ldmatrix_no_sync)
    case CHECKED_COUNT: break;
    }
}
