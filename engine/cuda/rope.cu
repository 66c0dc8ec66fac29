/* Query and key heads before attention: norm, rotation, and keys and values into their pages (backend.h, rope_kv).
 *
 * A warp has one head of one row, a lane pairs of its elements: those that turn together, (2i, 2i + 1) or (i, i + rope_dim / 2), and
 * behind rope_dim neighbours that stay. So a pair never leaves its lane and a head is read once, by whole sectors. For a row
 * 8 * n_heads * head_dim bytes move for q, 4 + 2 bytes an element for k and for v, and 4 * rope_dim of the table, which all heads share.
 *
 * Cosines and sines come from a table made in double on the host: sines of large angles are slow and inexact on a card. f16 pages hold
 * at most 65504, as on the CPU; NaN stays NaN. RoPE: arXiv:2104.09864. */
#include "engine/cuda/rows.h"

#include "engine/cuda/rows.cuh"

#include <assert.h>
#include <math.h>

enum { ROPE_WARPS = 4 };

struct rope_args {
    qn_cuda_rope r;
    const int32_t *count, *pos, *seq, *blocks;
    int32_t blocks_stride;
};

/* What one warp does. */
struct head {
    float *from;            /* the head in f32 */
    uint16_t *page;         /* where it goes; NULL: back to `from` */
    const float *gain;      /* NULL: no norm */
    int half;               /* pairs that turn */
};

/* The two elements of pair j. */
QN_DEVICE int first_of(const head &h, int neox, int j) { return neox && j < h.half ? j : 2 * j; }
QN_DEVICE int second_of(const head &h, int neox, int j) { return neox && j < h.half ? j + h.half : 2 * j + 1; }

QN_DEVICE float2 load_pair(const float *p, int a, int b) {
    if (b != a + 1) return make_float2(p[a], p[b]);
    uint64_t v = *reinterpret_cast<const uint64_t *>(p + a);
    return make_float2(__uint_as_float((uint32_t)v), __uint_as_float((uint32_t)(v >> 32)));
}

QN_DEVICE uint32_t to16(float x, int is_bf16) {
    if (is_bf16) return __bfloat16_as_ushort(__float2bfloat16_rn(x));
    return __half_as_ushort(__float2half_rn(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x));
}

QN_DEVICE head head_of(const rope_args &a, size_t row, int h) {
    const qn_cuda_rope &r = a.r;
    int hd = r.kv.head_dim, kv_head = h - r.kv.n_heads, is_v = kv_head >= r.kv.n_kv_heads;
    if (h < r.kv.n_heads) return head{r.q.v + row * (size_t)r.q.width + (size_t)(h * hd), nullptr, r.q_norm, r.rope_dim / 2};
    if (is_v) kv_head -= r.kv.n_kv_heads;
    int pos = a.pos[row];
    size_t block = (size_t)a.blocks[(size_t)a.seq[row] * (size_t)a.blocks_stride + (size_t)(pos / QN_CUDA_PAGE)];
    size_t slab = ((block * (size_t)r.kv.n_layers + (size_t)r.layer) * (size_t)r.kv.n_kv_heads + (size_t)kv_head) * 2 + (size_t)is_v;
    uint16_t *page = r.kv.pages + (slab * QN_CUDA_PAGE + (size_t)(pos % QN_CUDA_PAGE)) * (size_t)r.kv.head_pad;
    const qn_cuda_vec &v = is_v ? r.v : r.k;
    return head{v.v + row * (size_t)v.width + (size_t)(kv_head * hd), page, is_v ? nullptr : r.k_norm, is_v ? 0 : r.rope_dim / 2};
}

template <int NP> QN_DEVICE void norm_head(float2 *x, const head &h, const qn_cuda_rope &r, int lane) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < NP; i++) sum = fmaf(x[i].y, x[i].y, fmaf(x[i].x, x[i].x, sum));
    float inv = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(qn_warp_sum(sum), (float)r.kv.head_dim), r.eps)));
#pragma unroll
    for (int i = 0; i < NP; i++) {
        int j = lane + 32 * i;
        if (2 * j >= r.kv.head_dim) break;
        x[i].x = __fmul_rn(__fmul_rn(x[i].x, inv), h.gain[first_of(h, r.neox, j)]);
        x[i].y = __fmul_rn(__fmul_rn(x[i].y, inv), h.gain[second_of(h, r.neox, j)]);
    }
}

QN_DEVICE float2 turn(float2 x, float2 cs) {
    return make_float2(fmaf(x.x, cs.x, -__fmul_rn(x.y, cs.y)), fmaf(x.x, cs.y, __fmul_rn(x.y, cs.x)));
}

QN_DEVICE void store_pair(const head &h, const qn_cuda_rope &r, int j, float2 x) {
    int a = first_of(h, r.neox, j), b = second_of(h, r.neox, j);
    if (!h.page) {
        if (b == a + 1) *reinterpret_cast<uint64_t *>(h.from + a) = (uint64_t)__float_as_uint(x.x) | (uint64_t)__float_as_uint(x.y) << 32;
        else h.from[a] = x.x, h.from[b] = x.y;
    } else if (b == a + 1) {
        *reinterpret_cast<uint32_t *>(h.page + a) = to16(x.x, r.kv.is_bf16) | to16(x.y, r.kv.is_bf16) << 16;
    } else {
        h.page[a] = (uint16_t)to16(x.x, r.kv.is_bf16);
        h.page[b] = (uint16_t)to16(x.y, r.kv.is_bf16);
    }
}

/* Grid [heads / ROPE_WARPS, rows]; NP: pairs of a lane. */
template <int NP> QN_KERNEL(32 * ROPE_WARPS, 4) rope_kv(rope_args a) {
    size_t row = blockIdx.y;
    int lane = (int)threadIdx.x % 32, which = (int)blockIdx.x * ROPE_WARPS + (int)threadIdx.x / 32, hd = a.r.kv.head_dim;
    if ((int)row >= *a.count || which >= a.r.kv.n_heads + 2 * a.r.kv.n_kv_heads) return;
    head h = head_of(a, row, which);
    float2 x[NP];
#pragma unroll
    for (int i = 0; i < NP; i++) {
        int j = lane + 32 * i;
        x[i] = 2 * j < hd ? load_pair(h.from, first_of(h, a.r.neox, j), second_of(h, a.r.neox, j)) : make_float2(0.0f, 0.0f);
    }
    if (h.gain) norm_head<NP>(x, h, a.r, lane);
    const float *table = a.r.table + (size_t)a.pos[row] * (size_t)a.r.rope_dim;
#pragma unroll
    for (int i = 0; i < NP; i++) {
        int j = lane + 32 * i;
        if (j < h.half) x[i] = turn(x[i], load_pair(table, 2 * j, 2 * j + 1));
        if (2 * j < (h.page ? a.r.kv.head_pad : hd)) store_pair(h, a.r, j, x[i]); /* behind head_dim: zeros */
    }
}

extern "C" void qn_cuda_rope_kv(const qn_cuda_rope *r, const qn_cuda_step *step, int rows_bound, qn_cuda_stream stream) {
    rope_args a = {*r, &step->head->n_rows, step->pos, step->seq, step->blocks, step->blocks_stride};
    int hd = r->kv.head_dim, heads = r->kv.n_heads + 2 * r->kv.n_kv_heads;
    assert(hd % 2 == 0 && hd <= QN_CUDA_HEAD_MAX && r->rope_dim % 2 == 0 && r->rope_dim <= hd && (r->rope_dim == 0 || r->table));
    if (rows_bound <= 0) return;
    dim3 grid((unsigned)((heads + ROPE_WARPS - 1) / ROPE_WARPS), (unsigned)rows_bound);
    void (*kernel)(rope_args) = hd <= 64 ? rope_kv<1> : hd <= 128 ? rope_kv<2> : hd <= 256 ? rope_kv<4> : rope_kv<8>;
    QN_LAUNCH(kernel, grid, 32 * ROPE_WARPS, 0, stream, a);
}

extern "C" void qn_cuda_rope_table(float *table, const float *inv_freq, int rope_dim, float mscale, int from, int to) {
    for (int p = from; p < to; p++)
        for (int i = 0; i < rope_dim / 2; i++) {
            double angle = (double)p * (double)inv_freq[i];
            float *cs = table + ((size_t)(p - from) * (size_t)(rope_dim / 2) + (size_t)i) * 2;
            cs[0] = (float)(cos(angle) * (double)mscale);
            cs[1] = (float)(sin(angle) * (double)mscale);
        }
}
