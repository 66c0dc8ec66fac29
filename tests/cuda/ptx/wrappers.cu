/* A small kernel for every wrapper of portable.cuh that is inline assembly on a card, so that test_ptx_wrappers.c can run it on L3 with
 * numbers of its own; and kernels whose lanes part ways, for what nvcc's front ends make of them. One warp each unless said. */
#include "engine/cuda/portable.cuh"

struct wr_rows { uint16_t m[32][8]; };
struct wr_bytes { unsigned char b[2][512]; };

QN_KERNEL(32, 1) wr_load16_stream(uint32_t *out, const uint8_t *in) { qn_store16(out + threadIdx.x * 4, qn_load16_stream(in + (31 - threadIdx.x) * 16)); }

/* Two groups of copies; the first is waited for while the second is under way. out: what lies in shared memory after each wait. */
QN_KERNEL(32, 1) wr_cp_async(uint32_t *out, const uint8_t *in, int taken) {
    QN_SHARED(wr_bytes, s);
    int t = (int)threadIdx.x;
    qn_cp_async16(s.b[0] + t * 16, in + t * 16, t < taken);
    qn_cp_commit();
    qn_cp_async16(s.b[1] + t * 16, in + 512 + t * 16, true);
    qn_cp_commit();
    qn_cp_wait<1>();
    __syncwarp();
    for (int half = 0; half < 2; half++) qn_store16(out + half * 128 + t * 4, qn_load16(s.b[half] + t * 16));
    __syncwarp();
    qn_cp_wait<0>();
    __syncwarp();
    qn_store16(out + 256 + t * 4, qn_load16(s.b[1] + (31 - t) * 16));
}

/* in: 32 rows of 8 halves, matrix m rows 8m.. */
QN_KERNEL(32, 1) wr_ldmatrix(uint32_t *out, const uint16_t *in, int trans) {
    QN_SHARED(wr_rows, s);
    int t = (int)threadIdx.x;
    uint32_t r[4];
    for (int j = 0; j < 8; j++) s.m[t][j] = in[t * 8 + j];
    __syncwarp();
    if (trans) qn_ldmatrix_x4_trans(r, s.m[t]);
    else qn_ldmatrix_x4(r, s.m[t]);
    for (int j = 0; j < 4; j++) out[t * 4 + j] = r[j];
}

/* Row-major matrices to fragments as portable.cuh's opening lays them out: a[16][k], b[k][8], c[16][8]. */
QN_DEVICE uint32_t pair(const uint16_t *lo, const uint16_t *hi) { return *lo | (uint32_t)*hi << 16; }
QN_DEVICE uint32_t quad(const int8_t *p, int step) { return (uint8_t)p[0] | (uint32_t)(uint8_t)p[step] << 8 | (uint32_t)(uint8_t)p[2 * step] << 16 | (uint32_t)(uint8_t)p[3 * step] << 24; }
QN_KERNEL(32, 1) wr_mma16(float *c, const uint16_t *a, const uint16_t *b, int bf16) {
    int g = (int)threadIdx.x / 4, t = (int)threadIdx.x % 4;
    uint32_t fa[4], fb[2];
    float fc[4];
    for (int i = 0; i < 4; i++) {
        const uint16_t *p = a + (g + 8 * (i & 1)) * 16 + 2 * t + 8 * (i >> 1);
        fa[i] = pair(p, p + 1);
        fc[i] = c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)];
    }
    for (int i = 0; i < 2; i++) fb[i] = pair(b + (2 * t + 8 * i) * 8 + g, b + (2 * t + 8 * i + 1) * 8 + g);
    if (bf16) qn_mma_bf16(fc, fa, fb);
    else qn_mma_f16(fc, fa, fb);
    for (int i = 0; i < 4; i++) c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = fc[i];
}
QN_KERNEL(32, 1) wr_mma8(int32_t *c, const int8_t *a, const int8_t *b, int k) {
    int g = (int)threadIdx.x / 4, t = (int)threadIdx.x % 4;
    int32_t fc[4];
    for (int i = 0; i < 4; i++) fc[i] = c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)];
    if (k == 32) {
        uint32_t fa[4], fb[2];
        for (int i = 0; i < 4; i++) fa[i] = quad(a + (g + 8 * (i & 1)) * 32 + 4 * t + 16 * (i >> 1), 1);
        for (int i = 0; i < 2; i++) fb[i] = quad(b + (4 * t + 16 * i) * 8 + g, 8);
        qn_mma_s8_k32(fc, fa, fb);
    } else {
        uint32_t fa[2];
        for (int i = 0; i < 2; i++) fa[i] = quad(a + (g + 8 * i) * 16 + 4 * t, 1);
        qn_mma_s8_k16(fc, fa, quad(b + 4 * t * 8 + g, 8));
    }
    for (int i = 0; i < 4; i++) c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = fc[i];
}

QN_KERNEL(32, 1) wr_exp2(float *out, const float *in) { out[threadIdx.x] = qn_exp2(in[threadIdx.x]); }
QN_KERNEL(32, 1) wr_rsqrt(float *out, const float *in) { out[threadIdx.x] = qn_rsqrt(in[threadIdx.x]); }
QN_KERNEL(32, 1) wr_warp(float *out, const float *in) {
    float x = in[threadIdx.x], s = qn_warp_sum(x), m = qn_warp_max(x);
    out[threadIdx.x] = s;
    out[32 + threadIdx.x] = m;
    out[64 + threadIdx.x] = __shfl_sync(0xffffffffu, x, (int)(threadIdx.x * 7 % 32));
    out[96 + threadIdx.x] = __shfl_up_sync(0xffffffffu, x, 3) + __shfl_down_sync(0xffffffffu, x, 5) + __shfl_xor_sync(0xffffffffu, x, 6, 8);
    out[128 + threadIdx.x] = (float)__popc(__ballot_sync(0xffffffffu, x > 0)) + (__any_sync(0xffffffffu, x > 0.5f) ? 100 : 0) + (__all_sync(0xffffffffu, x < 2) ? 1000 : 0);
}

/* Lanes part by a chain of conditions, loop for different lengths, meet, and only then shuffle. 4 warps. */
QN_KERNEL(128, 1) wr_diverge(int *out, const int *in, int n) {
    QN_SHARED(wr_rows, s);
    int t = (int)threadIdx.x, x = in[t], sum = 0, steps = 0;
    uint16_t *flat = &s.m[0][0];
    for (int i = 0; i < x % 11; i++) {
        if ((i + t) % 3 == 0) continue;
        switch ((x + i) % 7) {
        case 0: sum += 3; break;
        case 1: sum = sum * 5 + i; break;
        case 2: sum ^= x; break;
        case 3: if (sum & 1) sum += t; else sum -= i; break;
        case 4: while (sum > 100) sum /= 2, steps++; break;
        case 5: sum += 1000; break;
        default: sum++;
        }
        if (sum > 5000) break;
    }
    if (t < n) flat[t] = (uint16_t)(sum + steps);
    else flat[t] = 7;
    __syncthreads();
    int all = flat[(t * 37 + 5) % 128];
    for (int m = 16; m > 0; m >>= 1) all += __shfl_xor_sync(0xffffffffu, all, m);
    out[t] = sum;
    out[128 + t] = all;
}

/* Types that are widened, arguments of every size, local arrays, atomics, constants. */
QN_CONST_TABLE int8_t wr_table[5] = {-1, 2, -3, 100, -128};
struct wr_mixed { int8_t a; int16_t b; int32_t c; int64_t d; uint8_t e[3]; float f; };
QN_KERNEL(64, 1) wr_types(long long *out, wr_mixed m, int8_t a, uint16_t b, unsigned long long c, const int16_t *in, unsigned *counter, float *sum) {
    int t = (int)threadIdx.x;
    long long part[6] = {m.a, m.b, m.c, m.d, m.e[t % 3], (long long)m.f};
    long long x = part[(t + in[t]) % 6 < 0 ? 0 : (t + in[t] + 600) % 6] + a * b + (long long)(c >> (t % 64)) + wr_table[t % 5];
    atomicAdd(counter, (unsigned)t);
    atomicMax(counter + 1, (unsigned)(t * 77 % 64));
    atomicAdd(sum, 0.5f);
    out[t] = x;
    if (t == 0) out[64] = (long long)atomicCAS(counter + 2, 5u, 9u);
}

extern "C" void wr_launch(void *p, cudaStream_t stream) { /* nvcc drops static kernels that nobody launches */
    uint32_t *u = (uint32_t *)p;
    float *f = (float *)p;
    QN_LAUNCH(wr_load16_stream, dim3(1), dim3(32), 0, stream, u, (uint8_t *)p);
    QN_LAUNCH(wr_cp_async, dim3(1), dim3(32), 0, stream, u, (uint8_t *)p, 1);
    QN_LAUNCH(wr_ldmatrix, dim3(1), dim3(32), 0, stream, u, (uint16_t *)p, 1);
    QN_LAUNCH(wr_mma16, dim3(1), dim3(32), 0, stream, f, (uint16_t *)p, (uint16_t *)p, 1);
    QN_LAUNCH(wr_mma8, dim3(1), dim3(32), 0, stream, (int32_t *)p, (int8_t *)p, (int8_t *)p, 32);
    QN_LAUNCH(wr_exp2, dim3(1), dim3(32), 0, stream, f, f);
    QN_LAUNCH(wr_rsqrt, dim3(1), dim3(32), 0, stream, f, f);
    QN_LAUNCH(wr_warp, dim3(1), dim3(32), 0, stream, f, f);
    QN_LAUNCH(wr_diverge, dim3(1), dim3(128), 0, stream, (int *)p, (int *)p, 1);
    QN_LAUNCH(wr_types, dim3(1), dim3(64), 0, stream, (long long *)p, wr_mixed{}, (int8_t)1, (uint16_t)1, 1ull, (int16_t *)p, u, f);
}
