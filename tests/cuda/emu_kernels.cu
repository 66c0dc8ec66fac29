/* Kernels for the emulator's own tests: each uses one primitive, plainly. nvcc compiles them too. */
#include "engine/cuda/portable.cuh"
#include "tests/cuda/emu_kernels.h"

static const unsigned ALL = 0xffffffffu;

struct reversed { float v[256]; };
QN_KERNEL(256, 2) add(float *out, const float *a, const float *b, int n) {
    QN_SHARED(reversed, s);
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x), t = (int)threadIdx.x;
    s.v[255 - t] = i < n ? a[i] : 0.0f;
    __syncthreads();
    if (i < n) out[i] = s.v[255 - t] + b[i];
}
extern "C" void emu_add(float *out, const float *a, const float *b, int n, cudaStream_t s) { QN_LAUNCH(add, (n + 255) / 256, 256, 0, s, out, a, b, n); }

QN_KERNEL(64, 1) inc(int *v, int n, int by) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) v[i] += by;
}
extern "C" void emu_inc(int *v, int n, int by, cudaStream_t s) { QN_LAUNCH(inc, (n + 63) / 64, 64, 0, s, v, n, by); }

QN_KERNEL(32, 1) shuffles(int *out, const int *in, const int *arg, int by, int width) {
    int l = (int)threadIdx.x, v = in[l];
    out[l] = __shfl_sync(ALL, v, arg[l], width);
    out[32 + l] = __shfl_up_sync(ALL, v, (unsigned)by, width);
    out[64 + l] = __shfl_down_sync(ALL, v, (unsigned)by, width);
    out[96 + l] = __shfl_xor_sync(ALL, v, by, width);
}
extern "C" void emu_shuffles(int *out, const int *in, const int *arg, int by, int width, cudaStream_t s) { QN_LAUNCH(shuffles, 1, 32, 0, s, out, in, arg, by, width); }

QN_KERNEL(32, 1) votes(unsigned *out, const int *in, int limit) {
    int l = (int)threadIdx.x, yes = in[l] > limit;
    out[l] = __ballot_sync(ALL, yes);
    out[32 + l] = (unsigned)__any_sync(ALL, yes);
    out[64 + l] = (unsigned)__all_sync(ALL, yes);
    out[96 + l] = __ballot_sync(l < 16 ? 0xffffu : 0xffff0000u, yes);
}
extern "C" void emu_votes(unsigned *out, const int *in, int limit, cudaStream_t s) { QN_LAUNCH(votes, 1, 32, 0, s, out, in, limit); }

QN_KERNEL(64, 1) atomics(int *i, unsigned *u, unsigned long long *l, float *f, int *ext, int *turns) {
    int me = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(i, -me);
    atomicAdd(u, (unsigned)me);
    atomicAdd(l, (unsigned long long)me << 20);
    atomicAdd(f, (float)me);
    atomicMax(&ext[0], me);
    atomicMin(&ext[1], -me);
    for (int seen = 0, old; (old = atomicCAS(turns, seen, seen + 1)) != seen;) seen = old;
}
extern "C" void emu_atomics(int *i, unsigned *u, unsigned long long *l, float *f, int *ext, int *turns, int blocks, cudaStream_t s) {
    QN_LAUNCH(atomics, blocks, 64, 0, s, i, u, l, f, ext, turns);
}

/* PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type": element i of a lies in row g or g + 8, of b in column g. */
QN_KERNEL(32, 1) mma_16(float *d, const uint16_t *a, const uint16_t *b, const float *c, int bf16) {
    int l = (int)threadIdx.x, g = l >> 2, t = l % 4;
    uint32_t fa[4] = {0, 0, 0, 0}, fb[2] = {0, 0};
    float fc[4];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? g : g + 8, col = t * 2 + (i & 1) + (i >= 4 ? 8 : 0);
        fa[i / 2] |= (uint32_t)a[row * 16 + col] << (16 * (i & 1));
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = t * 2 + (i & 1) + (i >= 2 ? 8 : 0);
        fb[i / 2] |= (uint32_t)b[row * 8 + g] << (16 * (i & 1));
        fc[i] = c[(i < 2 ? g : g + 8) * 8 + t * 2 + (i & 1)];
    }
    if (bf16) qn_mma_bf16(fc, fa, fb);
    else qn_mma_f16(fc, fa, fb);
#pragma unroll
    for (int i = 0; i < 4; i++) d[(i < 2 ? g : g + 8) * 8 + t * 2 + (i & 1)] = fc[i];
}
extern "C" void emu_mma_f16(float *d, const uint16_t *a, const uint16_t *b, const float *c, int bf16, cudaStream_t s) { QN_LAUNCH(mma_16, 1, 32, 0, s, d, a, b, c, bf16); }

QN_KERNEL(32, 1) mma_8(int32_t *d, const int8_t *a, const int8_t *b, const int32_t *c, int k) {
    int l = (int)threadIdx.x, g = l >> 2, t = l % 4;
    uint32_t fa[4] = {0, 0, 0, 0}, fb[2] = {0, 0};
    int32_t fc[4];
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int row = i < 4 || (i >= 8 && i < 12) ? g : g + 8, col = t * 4 + (i & 3) + (i >= 8 ? 16 : 0);
        if (col < k) fa[i / 4] |= (uint32_t)(uint8_t)a[row * k + col] << (8 * (i & 3));
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int row = t * 4 + (i & 3) + (i >= 4 ? 16 : 0);
        if (row < k) fb[i / 4] |= (uint32_t)(uint8_t)b[row * 8 + g] << (8 * (i & 3));
    }
#pragma unroll
    for (int i = 0; i < 4; i++) fc[i] = c[(i < 2 ? g : g + 8) * 8 + t * 2 + (i & 1)];
    if (k == 32) qn_mma_s8_k32(fc, fa, fb);
    else qn_mma_s8_k16(fc, fa, fb[0]);
#pragma unroll
    for (int i = 0; i < 4; i++) d[(i < 2 ? g : g + 8) * 8 + t * 2 + (i & 1)] = fc[i];
}
extern "C" void emu_mma_s8(int32_t *d, const int8_t *a, const int8_t *b, const int32_t *c, int k, cudaStream_t s) { QN_LAUNCH(mma_8, 1, 32, 0, s, d, a, b, c, k); }

/* Matrices of a in the order that the fragment wants: rows 0-7, rows 8-15, then the right halves. b lies [k][n]: transposed. */
struct alignas(16) tiles { uint16_t a[16][16], b[16][8]; };
QN_KERNEL(32, 1) mma_ldmatrix(float *d, const uint16_t *a, const uint16_t *b, const float *c) {
    QN_SHARED(tiles, s);
    int l = (int)threadIdx.x, g = l / 4, t = l % 4;
    for (int i = l; i < 256; i += 32) s.a[i / 16][i % 16] = a[i];
    for (int i = l; i < 128; i += 32) s.b[i / 8][i % 8] = b[i];
    __syncwarp();
    uint32_t fa[4], fb[4];
    qn_ldmatrix_x4(fa, &s.a[l % 16][l / 16 * 8]);
    qn_ldmatrix_x4_trans(fb, &s.b[l % 16][0]);
    float fc[4];
    for (int i = 0; i < 4; i++) fc[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    qn_mma_f16(fc, fa, fb);
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fc[i];
}
extern "C" void emu_mma_ldmatrix(float *d, const uint16_t *a, const uint16_t *b, const float *c, cudaStream_t s) { QN_LAUNCH(mma_ldmatrix, 1, 32, 0, s, d, a, b, c); }

struct alignas(16) stages { float v[3][128]; };
QN_KERNEL(32, 1) pipeline(float *out, const float *in, int n_tiles, int n_loops) {
    QN_SHARED(stages, s);
    int t = (int)threadIdx.x;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = 0; i < 2; i++) {
        qn_cp_async16(&s.v[i][4 * t], in + i * 128 + 4 * t, i < n_tiles);
        qn_cp_commit();
    }
    for (int i = 0; i < n_loops; i++) {
        qn_cp_wait<1>();
        __syncthreads();
        qn_cp_async16(&s.v[(i + 2) % 3][4 * t], in + (i + 2) * 128 + 4 * t, i + 2 < n_tiles);
        qn_cp_commit();
        for (int j = 0; j < 4; j++) sum[j] += s.v[i % 3][(4 * t + j + 5) % 128]; /* in part the neighbour's copy */
    }
    qn_cp_wait<0>();
    for (int j = 0; j < 4; j++) out[(4 * t + j + 5) % 128] = sum[j];
}
extern "C" void emu_pipeline(float *out, const float *in, int n_tiles, int n_loops, cudaStream_t s) { QN_LAUNCH(pipeline, 1, 32, 0, s, out, in, n_tiles, n_loops); }

QN_KERNEL(64, 1) intrinsics(uint32_t *out, const uint32_t *a, const uint32_t *b, const uint32_t *c, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    uint32_t x = a[i], y = b[i], z = c[i];
    out[0 * n + i] = __byte_perm(x, y, z);
    out[1 * n + i] = (uint32_t)__dp4a((int)x, (int)y, (int)z);
    out[2 * n + i] = __dp4a(x, y, z);
    out[3 * n + i] = (uint32_t)__popc(x);
    out[4 * n + i] = (uint32_t)__clz((int)x);
    out[5 * n + i] = (uint32_t)__ffs((int)x);
    out[6 * n + i] = __funnelshift_l(x, y, z);
    out[7 * n + i] = __funnelshift_r(x, y, z);
    out[8 * n + i] = __umulhi(x, y);
    out[9 * n + i] = (uint32_t)min((int)x, (int)y);
    out[10 * n + i] = max(x, y);
    out[11 * n + i] = (uint32_t)__float2int_rn(__uint_as_float(x));
    out[12 * n + i] = __brev(x);
    out[13 * n + i] = (uint32_t)__mulhi((int)x, (int)y);
}
extern "C" void emu_intrinsics(uint32_t *out, const uint32_t *a, const uint32_t *b, const uint32_t *c, int n, cudaStream_t s) {
    QN_LAUNCH(intrinsics, (n + 63) / 64, 64, 0, s, out, a, b, c, n);
}

QN_KERNEL(256, 1) widen(uint32_t *out) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = __float_as_uint(__half2float(__ushort_as_half((unsigned short)i)));
    out[65536 + i] = __float_as_uint(__bfloat162float(__ushort_as_bfloat16((unsigned short)i)));
}
extern "C" void emu_widen(uint32_t *out, cudaStream_t s) { QN_LAUNCH(widen, 256, 256, 0, s, out); }
QN_KERNEL(256, 1) narrow(uint16_t *out, const uint32_t *in, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    out[i] = __half_as_ushort(__float2half_rn(__uint_as_float(in[i])));
    out[n + i] = __bfloat16_as_ushort(__float2bfloat16_rn(__uint_as_float(in[i])));
}
extern "C" void emu_narrow(uint16_t *out, const uint32_t *in, int n, cudaStream_t s) { QN_LAUNCH(narrow, (n + 255) / 256, 256, 0, s, out, in, n); }

QN_KERNEL(256, 1) functions(float *out, const float *in, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) out[i] = qn_exp(in[i]), out[n + i] = qn_tanh(in[i]);
}
extern "C" void emu_functions(float *out, const float *in, int n, cudaStream_t s) { QN_LAUNCH(functions, (n + 255) / 256, 256, 0, s, out, in, n); }

struct one { float v[1]; };
QN_KERNEL(128, 1) big_shared(float *out, const float *in, int n) {
    QN_SHARED_DYN(one, s);
    for (int i = (int)threadIdx.x; i < n; i += 128) s.v[i] = in[i];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n; i += 128) out[i] = s.v[n - 1 - i];
}
extern "C" void emu_big_shared(float *out, const float *in, int n, int allow, cudaStream_t s) {
    if (!allow || QN_ALLOW_SHARED(big_shared, (size_t)n * 4) == 0) QN_LAUNCH(big_shared, 1, 128, (size_t)n * 4, s, out, in, n);
}

struct alignas(16) banks { float v[1024]; };
QN_KERNEL(32, 1) strides(float *out, const float *in, int stride) {
    QN_SHARED(banks, s);
    int l = (int)threadIdx.x;
    out[l] = in[l * stride];
    for (int i = l; i < 1024; i += 32) s.v[i] = 0.0f;
    __syncwarp();
    s.v[l * stride % 1024] += 1.0f;
    __syncwarp();
    unsigned long long two = *reinterpret_cast<unsigned long long *>(&s.v[2 * l * stride % 1024]); /* a float2 the host compiler would split */
    qn_vec16 four = qn_load16(&s.v[4 * l * stride % 1024]);
    out[l] += (float)two + __uint_as_float(four.x[0]);
}
extern "C" void emu_strides(float *out, const float *in, int stride, cudaStream_t s) { QN_LAUNCH(strides, 1, 32, 0, s, out, in, stride); }

struct last { int is; };
QN_KERNEL(64, 1) last_block(float *out, float *partial, unsigned *count, const float *in) {
    QN_SHARED(last, s);
    int t = (int)threadIdx.x;
    float v = t < 32 ? in[blockIdx.x * 64 + threadIdx.x] + in[blockIdx.x * 64 + threadIdx.x + 32] : 0.0f;
    v = qn_warp_sum(v);
    if (t == 0) {
        partial[blockIdx.x] = v;
        __threadfence();
        s.is = atomicAdd(count, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!s.is) return;
    __threadfence();
    if (t == 0) {
        float sum = 0.0f;
        for (unsigned i = 0; i < gridDim.x; i++) sum += partial[i];
        *out = sum;
    }
}
extern "C" void emu_last_block(float *out, float *partial, unsigned *count, const float *in, int blocks, cudaStream_t s) { QN_LAUNCH(last_block, blocks, 64, 0, s, out, partial, count, in); }
