/* Rows of token embeddings out of the repacked form (weight.h): the same bytes serve the logits of models that tie the two.
 * A block a row; values are qn_dequant's to the bit (F32: rounded as weight.h says), then scaled. Reads and writes are small beside
 * everything else of a step, so nothing is staged. */
#include "engine/cuda/matmul.cuh"

enum { QN_EMBED_THREADS = 128 };

/* Eight values of group g: elements 4t .. + 3 of either half, at out[0] and out[16]. */
template <class F> QN_DEVICE void qn_embed_values(float *out, const qn_cuda_weight &w, const uint8_t *tile, int lane, int g, int t, float scale) {
    const uint8_t *mine = tile + lane * QN_MM_CHUNK;
    const uint32_t *q = reinterpret_cast<const uint32_t *>(mine + (size_t)(g * F::q_chunks) * QN_MM_PLANE) + t;
    uint32_t h0 = 0, h1 = 0, byte[2] = {0, 0}, super = 0, bits;
    if (F::high_groups > 0) {
        const int per = F::high_groups > 0 ? F::high_groups : 1;
        const uint32_t *h = reinterpret_cast<const uint32_t *>(mine + w.high_at + (size_t)(g / per) * QN_MM_PLANE) + g % per * (4 / per);
        h0 = h[0], h1 = h[F::high_groups == 2 ? 1 : 0];
    }
    if (F::bits == 8) byte[0] = q[0], byte[1] = q[QN_MM_PLANE / 4];
    else qn_mm_bytes<F>(q[0], h0, h1, t, byte[0], byte[1]);
    const uint8_t *c = mine + w.scale_at + (size_t)(g / 8 * F::scale_chunks) * QN_MM_PLANE;
    if (F::scales == QN_MM_F16_MIN) bits = reinterpret_cast<const uint32_t *>(c + g % 8 / 4 * QN_MM_PLANE)[g % 4];
    else bits = reinterpret_cast<const uint16_t *>(c)[g % 8];
    if (F::has_super) super = reinterpret_cast<const uint32_t *>(tile + w.super_at)[g / 8 * QN_MM_TILE + lane];
    qn_mm_scale s = qn_mm_scale_of<F>(bits, super);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int v = (int8_t)(byte[i / 4] >> (i % 4 * 8) & 0xffu), code = i < 4 ? s.code0 : s.code1;
        float min = F::scales == QN_MM_CODE16_MIN ? s.min * (float)(i < 4 ? s.min0 : s.min1) : s.min;
        out[i / 4 * 16 + i % 4] = scale * fmaf(s.scale * (float)code, (float)v, min);
    }
}

struct qn_embed_args {
    qn_cuda_weight w;
    qn_cuda_vec x;
    const int32_t *token, *n_rows;
    float scale;
};

template <int FORM> QN_KERNEL(QN_EMBED_THREADS, 4) qn_embed_kernel(qn_embed_args a) {
    int row = (int)blockIdx.x;
    if (row >= __ldg(a.n_rows)) return;
    int token = __ldg(a.token + row), lane = token % QN_MM_TILE;
    const uint8_t *tile = a.w.tiles + (size_t)(token / QN_MM_TILE) * a.w.tile_bytes;
    float *out = a.x.v + (size_t)row * a.x.width;
    for (int i = (int)threadIdx.x; i < a.w.n_groups * 4; i += QN_EMBED_THREADS)
        qn_embed_values<qn_mm_form<FORM>>(out + i / 4 * QN_MM_GROUP + i % 4 * 4, a.w, tile, lane, i / 4, i % 4, a.scale);
}

template <bool BF16> QN_KERNEL(QN_EMBED_THREADS, 4) qn_embed_wide_kernel(qn_embed_args a) {
    int row = (int)blockIdx.x;
    if (row >= __ldg(a.n_rows)) return;
    int token = __ldg(a.token + row);
    const uint8_t *tile = a.w.tiles + (size_t)(token / QN_MM_TILE) * a.w.tile_bytes;
    for (int k = (int)threadIdx.x; k < a.w.n_in; k += QN_EMBED_THREADS) {
        uint32_t h = reinterpret_cast<const uint16_t *>(tile)[((size_t)(k / QN_MM_GROUP) * QN_MM_TILE + token % QN_MM_TILE) * QN_MM_GROUP + k % QN_MM_GROUP];
        a.x.v[(size_t)row * a.x.width + k] = a.scale * ((BF16 ? __uint_as_float(h << 16) : qn_mm_half(h)) * a.w.scale);
    }
}

extern "C" void qn_cuda_embed(const qn_cuda_vec *x, const qn_cuda_weight *w, float scale, const qn_cuda_step *step, int rows_bound, qn_cuda_stream stream) {
    qn_embed_args a = {*w, *x, step->token, &step->head->n_rows, scale};
    if (rows_bound <= 0) return;
    switch (w->form) {
#define QN_EMBED_CASE(form) case form: QN_LAUNCH((qn_embed_kernel<form>), rows_bound, QN_EMBED_THREADS, 0, stream, a); break
    QN_EMBED_CASE(QN_CW_4);
    QN_EMBED_CASE(QN_CW_4M);
    QN_EMBED_CASE(QN_CW_4K);
    QN_EMBED_CASE(QN_CW_4K16);
    QN_EMBED_CASE(QN_CW_4K16M);
    QN_EMBED_CASE(QN_CW_5);
    QN_EMBED_CASE(QN_CW_5M);
    QN_EMBED_CASE(QN_CW_5K);
    QN_EMBED_CASE(QN_CW_6K16);
    QN_EMBED_CASE(QN_CW_8);
    case QN_CW_F16: QN_LAUNCH((qn_embed_wide_kernel<false>), rows_bound, QN_EMBED_THREADS, 0, stream, a); break;
    case QN_CW_BF16: QN_LAUNCH((qn_embed_wide_kernel<true>), rows_bound, QN_EMBED_THREADS, 0, stream, a); break;
    }
}
