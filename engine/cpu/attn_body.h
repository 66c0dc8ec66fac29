/* Attention of one tile, written once over vec_*.h: softmax(scale * q.K^T) V for up to 16 (row, head) columns that read
 * the same KV head, so that a block of K or V is loaded and widened once for all of them.
 *
 * Positions are cut into chunks of QN_ATTN_CHUNK at fixed places. Within a chunk the scores are kept, the maximum is
 * known before the first exp, and nothing is rescaled; a column's chunk ends as a record (maximum, sum, output), and records are
 * merged one by one in the order of positions, as FlashDecoding does (Dao et al. 2023) but always, whoever computed them. So
 * a long row can be shared out between threads, scores never outgrow the L1 cache, and bits do not know either: a score is
 * one chain over the head's elements, the sum of exps runs lane by lane, each output of a chunk is one fma chain over
 * its positions. What a column yields depends on its own positions only: no slot outside lo..hi is ever multiplied in.
 *
 * q8_0: q is quantised as K is, 32 elements at a time, and multiplied in integers; V's scales go into the weights. exp is
 * taken to base 2, with log2(e) in the scale of q. */
#ifndef QN_CPU_ATTN_BODY_H
#define QN_CPU_ATTN_BODY_H

#include "engine/cpu/cpu.h"
#include "engine/cpu/kv_body.h"

#define LOG2_E 1.44269504088896341f

/* 2^x for x <= 0, below 2^-100 as 2^-100 (then nothing becomes subnormal). Relative error below 2e-7: a minimax
 * polynomial of degree 5 on -0.5..0.5 (Lawson's iteration); 1 exactly at 0, NaN stays NaN. */
V_INL v16 v_exp2(v16 x) {
    v16 y = v_max(v_set1(-100.0f), x), n = v_rint(y), r = v_sub(y, n);
    v16 p = v_set1(0x1.5bba14p-10f);
    p = v_fma(p, r, v_set1(0x1.3cea88p-7f));
    p = v_fma(p, r, v_set1(0x1.c6b752p-5f));
    p = v_fma(p, r, v_set1(0x1.ebf9bcp-3f));
    p = v_fma(p, r, v_set1(0x1.62e42ap-1f));
    return v_mul_pow2(v_fma(p, r, v_set1(1.0f)), n);
}

struct attn_scratch {
    float *q;               /* f16, bf16: [hd][nq]. q8_0: see attn_prepare */
    float *state, *record;  /* [QN_ATTN_COLS] records */
    float *s, *w;           /* [QN_ATTN_COLS][QN_ATTN_STRIDE], the weights of two blocks of 32 elements */
};

static struct attn_scratch attn_parts(const struct qn_attn_tile *t) {
    size_t record = QN_ATTN_COLS * qn_attn_record(t->page->hd);
    struct attn_scratch x = { .state = t->scratch };
    x.record = x.state + record;
    x.s = x.record + record;
    x.w = x.s + QN_ATTN_COLS * QN_ATTN_STRIDE;
    x.q = x.w + 2 * QN_ATTN_COLS * QN_ATTN_STRIDE;
    return x;
}

V_INL const uint8_t *attn_page(const struct qn_attn_tile *t, int block) {
    size_t id = (size_t)t->blocks[block];
    return t->kv + id / QN_KV_RUN * t->run + id % QN_KV_RUN * t->page->bytes;
}

/* Reads go ahead of the arithmetic, or long contexts cost the sum of both: q.k of a block fetches its values, and in a tile's
 * first chunk the keys of a block soon to come; p.v fetches the keys of a chunk later. Into L2: L1 is too small. */
enum { KEYS_AHEAD = 4 };
V_INL void attn_fetch(const void *p) { __builtin_prefetch(p, 0, 2); }

/* --- q.k ---------------------------------------------------------------------------------------------------------- */

/* Scales of q8_0 queries: for each 32 elements q [8][nq] of four s8, d [nq] f32, sum [nq] s32: 10 * nq words. */
enum { Q8_WORDS = 10 };

static void attn_prepare(const struct qn_attn_tile *t, float *q) {
    int nq = t->nq, hd = t->page->hd, head_dim = t->page->head_dim;
    float scale = t->softcap > 0.0f ? t->scale : t->scale * LOG2_E;
    for (int c = 0; c < nq; c++) {
        const float *from = t->col[c].q;
        if (t->page->type != QN_KV_Q8_0) {
            for (int d = 0; d < head_dim; d++) q[d * nq + c] = from[d] * scale;
            continue;
        }
        for (int i = 0; i < hd; i += 32) {
            float x[32], *to = q + (size_t)(i / 32 * Q8_WORDS) * (size_t)nq + c;
            int8_t b[32];
            int n = head_dim - i < 32 ? head_dim - i : 32, bad = 0;
            for (int e = 0; e < 32; e++) x[e] = e < n ? from[i + e] * scale : 0.0f;
            v16 lo = v_load(x), hi = v_load(x + 16);
            float most = v_most(v_max(v_abs(lo), v_abs(hi)));
            float id = most > 1e-30f ? 127.0f / most : 0.0f, d = most > 1e-30f ? most / 127.0f : 0.0f;
            int32_t sum = v_quant(b, v_mul(lo, v_set1(id)), &bad);
            sum += v_quant(b + 16, v_mul(hi, v_set1(id)), &bad);
            if (bad) d = NAN, sum = 0;
            for (int e = 0; e < 8; e++) memcpy(to + e * nq, b + 4 * e, 4);
            to[8 * nq] = d;
            memcpy(to + 9 * nq, &sum, 4);
        }
    }
}

/* What to fetch beside blocks b and, where `two`, b + 1. */
V_INL void attn_ahead(const struct qn_attn_tile *t, int b, const int two, const uint8_t **ahead) {
    int last = t->col[t->nq - 1].hi / 16, first = b * 16 < (t->chunk0 + 1) * QN_ATTN_CHUNK;
    for (int i = 0; i <= two; i++) ahead[i] = first && b + i + KEYS_AHEAD <= last ? attn_page(t, b + i + KEYS_AHEAD) : attn_page(t, b + i) + t->page->v;
}

/* s[c][lane] = q[c] . K[lane] of n blocks from b0 on, two at a time where `two`. */
V_INL void qk_16(const struct qn_attn_tile *t, const enum qn_kv_type type, int b0, int n, const float *q, float *s, const int nc, const int two) {
    int head_dim = t->page->head_dim, nq = t->nq;
    for (int b = 0; b < n; b += 1 + two) {
        const uint8_t *k = attn_page(t, b0 + b), *k2 = two ? attn_page(t, b0 + b + 1) : k, *ahead[2];
        attn_ahead(t, b0 + b, two, ahead);
        v16 acc[2][V_QK_COLS];
        for (int c = 0; c < nc; c++) acc[0][c] = acc[1][c] = v_zero();
        for (int d = 0; d < head_dim; d++) {
            v16 x = kv_load(type, k, (size_t)d * 16), y = two ? kv_load(type, k2, (size_t)d * 16) : x;
            for (int i = 0; i <= two; i++) attn_fetch((i ? k2 : k) + t->page->v + d * 32), attn_fetch(ahead[i] + d * 32);
            for (int c = 0; c < nc; c++) {
                v16 w = v_set1(q[(size_t)d * (size_t)nq + (size_t)c]);
                acc[0][c] = v_fma(x, w, acc[0][c]);
                if (two) acc[1][c] = v_fma(y, w, acc[1][c]);
            }
        }
        for (int c = 0; c < nc; c++) {
            v_store(s + c * QN_ATTN_STRIDE + b * 16, acc[0][c]);
            if (two) v_store(s + c * QN_ATTN_STRIDE + b * 16 + 16, acc[1][c]);
        }
    }
}

V_INL void qk_q8(const struct qn_attn_tile *t, int b0, int n, const float *q, float *s, const int nc, const int two) {
    int n_parts = t->page->hd / 32, nq = t->nq, is_first = b0 * 16 < (t->chunk0 + 1) * QN_ATTN_CHUNK;
    for (int b = 0; b < n; b += 1 + two) {
        const uint8_t *page[2] = { attn_page(t, b0 + b), attn_page(t, b0 + b + two) }, *ahead[2];
        attn_ahead(t, b0 + b, two, ahead);
        v16 sum[2][V_DOT_COLS];
        for (int c = 0; c < nc; c++) sum[0][c] = sum[1][c] = v_zero();
        for (int i = 0; i < n_parts; i++) {
            const float *qi = q + (size_t)(i * Q8_WORDS) * (size_t)nq;
            v16i acc[2][V_DOT_COLS];
            for (int c = 0; c < nc; c++) {
                int32_t q_sum;
                memcpy(&q_sum, qi + 9 * nq + c, 4);
                acc[0][c] = acc[1][c] = v_dot_start(q_sum);
            }
            for (int e = 0; e < 8; e++) {
                v16k x = v_load_k((const int8_t *)page[0] + (i * 8 + e) * 64), y = two ? v_load_k((const int8_t *)page[1] + (i * 8 + e) * 64) : x;
                if (is_first)
                    for (int k = 0; k <= two; k++) attn_fetch(page[k] + t->page->v + (i * 8 + e) * 64), attn_fetch(ahead[k] + (i * 8 + e) * 64);
                for (int c = 0; c < nc; c++) {
                    int32_t w;
                    memcpy(&w, qi + e * nq + c, 4);
                    acc[0][c] = v_dot4(acc[0][c], x, w);
                    if (two) acc[1][c] = v_dot4(acc[1][c], y, w);
                }
            }
            for (int k = 0; k <= two; k++) {
                v16 d = v_load_h((const uint16_t *)(page[k] + t->page->k_scale) + i * 16);
                for (int c = 0; c < nc; c++) sum[k][c] = v_fma(v_from_i(acc[k][c]), v_mul(d, v_set1(qi[8 * nq + c])), sum[k][c]);
            }
        }
        for (int c = 0; c < nc; c++) {
            v_store(s + c * QN_ATTN_STRIDE + b * 16, sum[0][c]);
            if (two) v_store(s + c * QN_ATTN_STRIDE + b * 16 + 16, sum[1][c]);
        }
    }
}

#define QK_CASE(n, most, pair, call, ...) \
    case n: \
        if (n > most) break; \
        if (n <= pair && blocks > 1) call(t, __VA_ARGS__ b0, blocks / 2 * 2, q, s, n <= pair ? n : 1, 1); \
        if (n > pair) call(t, __VA_ARGS__ b0, blocks, q, s, n <= most ? n : 1, 0); \
        else if (blocks % 2) call(t, __VA_ARGS__ b0 + blocks - 1, 1, q, s + (blocks - 1) * 16, n <= most ? n : 1, 0); \
        break;
#define QK_CASES(...) \
    switch (nc) { \
    QK_CASE(1, __VA_ARGS__) QK_CASE(2, __VA_ARGS__) QK_CASE(3, __VA_ARGS__) QK_CASE(4, __VA_ARGS__) QK_CASE(5, __VA_ARGS__) \
    QK_CASE(6, __VA_ARGS__) QK_CASE(7, __VA_ARGS__) QK_CASE(8, __VA_ARGS__) QK_CASE(9, __VA_ARGS__) QK_CASE(10, __VA_ARGS__) \
    QK_CASE(11, __VA_ARGS__) QK_CASE(12, __VA_ARGS__) QK_CASE(13, __VA_ARGS__) QK_CASE(14, __VA_ARGS__) QK_CASE(15, __VA_ARGS__) \
    QK_CASE(16, __VA_ARGS__) \
    }
static void qk_f16(const struct qn_attn_tile *t, int b0, int blocks, const float *q, float *s, int nc) {
    QK_CASES(V_QK_COLS, V_QK_PAIR, qk_16, QN_KV_F16,)
}
static void qk_bf16(const struct qn_attn_tile *t, int b0, int blocks, const float *q, float *s, int nc) {
    QK_CASES(V_QK_COLS, V_QK_PAIR, qk_16, QN_KV_BF16,)
}
static void qk_q8_0(const struct qn_attn_tile *t, int b0, int blocks, const float *q, float *s, int nc) {
    QK_CASES(V_DOT_COLS, V_DOT_PAIR, qk_q8, )
}

static void attn_scores(const struct qn_attn_tile *t, int c0, int c1, int b0, int blocks, const float *q, float *s) {
    enum qn_kv_type type = t->page->type;
    int most = type == QN_KV_Q8_0 ? V_DOT_COLS : V_QK_COLS, n = c1 - c0, groups = (n + most - 1) / most;
    for (int g = 0; g < groups; g++) { /* of nearly equal size */
        int a = c0 + n * g / groups, nc = c0 + n * (g + 1) / groups - a;
        (type == QN_KV_Q8_0 ? qk_q8_0 : type == QN_KV_BF16 ? qk_bf16 : qk_f16)(t, b0, blocks, q + a, s + a * QN_ATTN_STRIDE, nc);
    }
}

/* --- softmax of a column's chunk ------------------------------------------------------------------------------------ */

/* Turns the scores of positions lo..hi, of which the first block starts s, into 2^(score - max); what is outside becomes 0. Leaves
 * maximum and sum in the record. */
static void attn_softmax(float *s, int lo, int hi, float softcap, float *record) {
    int n = hi / 16 - lo / 16 + 1;
    v16 most = v_set1(-INFINITY), sum = v_zero();
    if (softcap > 0.0f)
        for (int i = 0; i < n; i++) v_store(s + i * 16, v_mul(v_set1(softcap * LOG2_E), v_tanh(v_div(v_load(s + i * 16), v_set1(softcap)))));
    int head = lo % 16, tail = hi % 16 + 1;
    if (head) v_store(s, v_keep(v_load(s), head, 16, -INFINITY));
    if (tail < 16) v_store(s + (n - 1) * 16, v_keep(v_load(s + (n - 1) * 16), 0, tail, -INFINITY));
    for (int i = 0; i < n; i++) most = v_max(most, v_load(s + i * 16));
    most = v_set1(v_most(most));
    for (int i = 0; i < n; i++) {
        v16 e = v_exp2(v_sub(v_load(s + i * 16), most));
        if ((i == 0 && head) || (i == n - 1 && tail < 16)) e = v_keep(e, i == 0 ? head : 0, i == n - 1 ? tail : 16, 0.0f);
        v_store(s + i * 16, e);
        sum = v_add(sum, e);
    }
    v_store(record, most);
    v_store(record + 16, v_set1(v_sum(sum)));
}

/* --- p.v ---------------------------------------------------------------------------------------------------------- */

/* o[c][lane] += sum over positions p0..p1-1 of w[c][position] * V[position][lane], for nl lane vectors from element e0. w
 * starts at position `first`; in q8_0 there is one for each 32 elements, from that of e0 on. o is in records. */
V_INL void pv_cols(const struct qn_attn_tile *t, const enum qn_kv_type type, int p0, int p1, const float *w, int first, int e0, float *o,
                   const int nc, const int nl) {
    size_t hd = (size_t)t->page->hd, record = qn_attn_record(t->page->hd);
    const int width = type == QN_KV_Q8_0 ? 1 : 2;
    int fetch_last = (t->col[t->nq - 1].hi < t->chunk1 * QN_ATTN_CHUNK ? t->col[t->nq - 1].hi : t->chunk1 * QN_ATTN_CHUNK - 1) / 16;
    v16 acc[V_PV_COLS][V_PV_LANES];
    for (int c = 0; c < nc; c++)
        for (int l = 0; l < nl; l++) acc[c][l] = v_load(o + (size_t)c * record + e0 + l * 16);
    for (int b = p0 / 16; b * 16 < p1; b++) {
        const uint8_t *v = attn_page(t, b) + t->page->v;
        const float *wb = w + b * 16 - first;
        const uint8_t *ahead = b + QN_ATTN_CHUNK / 16 <= fetch_last ? attn_page(t, b + QN_ATTN_CHUNK / 16) + e0 * width * 16 : v;
        if (type == QN_KV_Q8_0 && e0 == 0 && ahead != v)
            for (size_t i = t->page->k_scale; i < t->page->bytes; i += 64) attn_fetch(ahead + i);
        int s0 = p0 > b * 16 ? p0 - b * 16 : 0, s1 = p1 < b * 16 + 16 ? p1 - b * 16 : 16;
        for (int s = s0; s < s1; s++) {
            v16 x[V_PV_LANES];
            for (int l = 0; l < nl; l++) x[l] = kv_load(type, v, (size_t)s * hd + (size_t)(e0 + l * 16));
            for (int i = 0; i < nl * 16 * width; i += 64) {
                attn_fetch(ahead + s * nl * 16 * width + i);
                if (type == QN_KV_Q8_0) attn_fetch(ahead + t->page->v + s * nl * 16 * width + i);
            }
            for (int c = 0; c < nc; c++) {
                const float *wc = wb + c * QN_ATTN_STRIDE + s;
                for (int l = 0; l < nl; l++)
                    acc[c][l] = v_fma(v_set1(type == QN_KV_Q8_0 ? wc[l / 2 * QN_ATTN_COLS * QN_ATTN_STRIDE] : *wc), x[l], acc[c][l]);
            }
        }
    }
    for (int c = 0; c < nc; c++)
        for (int l = 0; l < nl; l++) v_store(o + (size_t)c * record + e0 + l * 16, acc[c][l]);
}

#define PV_CASE(n, m, type) \
    case n * 8 + m: \
        if (n <= V_PV_COLS && m <= V_PV_LANES) \
            pv_cols(t, type, p0, p1, w, first, e0, o, n <= V_PV_COLS ? n : 1, m <= V_PV_LANES ? m : 1); \
        break;
#define PV_CASES(n, type) PV_CASE(n, 1, type) PV_CASE(n, 2, type) PV_CASE(n, 3, type) PV_CASE(n, 4, type)
#define PV_KERNEL(name, type) \
    static void name(const struct qn_attn_tile *t, int p0, int p1, const float *w, int first, int e0, float *o, int nc, int nl) { \
        switch (nc * 8 + nl) { \
        PV_CASES(1, type) PV_CASES(2, type) PV_CASES(3, type) PV_CASES(4, type) PV_CASES(5, type) PV_CASES(6, type) \
        } \
    }
PV_KERNEL(pv_f16, QN_KV_F16)
PV_KERNEL(pv_bf16, QN_KV_BF16)
PV_KERNEL(pv_q8_0, QN_KV_Q8_0)

/* Columns c0..c1-1, positions p0..p1-1, nl lane vectors from e0. */
static void attn_values(const struct qn_attn_tile *t, int c0, int c1, int p0, int p1, const float *w, int first, int e0, int nl, float *records) {
    enum qn_kv_type type = t->page->type;
    int n = c1 - c0, groups = (n + V_PV_COLS - 1) / V_PV_COLS;
    if (p0 >= p1) return;
    for (int g = 0; g < groups; g++) {
        int a = c0 + n * g / groups, nc = c0 + n * (g + 1) / groups - a;
        (type == QN_KV_Q8_0 ? pv_q8_0 : type == QN_KV_BF16 ? pv_bf16 : pv_f16)(
            t, p0, p1, w + a * QN_ATTN_STRIDE, first, e0, records + (size_t)a * qn_attn_record(t->page->hd) + QN_ATTN_HEAD, nc, nl);
    }
}

/* q8_0: w[part][c][position] = s * scale of V, for the parts of 32 elements that e0 and its lanes touch. */
static void attn_scale_values(const struct qn_attn_tile *t, int c0, int c1, int b0, int blocks, int e0, const float *s, float *w) {
    int parts = t->page->hd / 32 - e0 / 32 < 2 ? 1 : 2;
    for (int k = 0; k < parts && k * 2 < V_PV_LANES; k++, w += QN_ATTN_COLS * QN_ATTN_STRIDE)
        for (int b = 0; b < blocks; b++) {
            v16 d = v_load_h((const uint16_t *)(attn_page(t, b0 + b) + t->page->v_scale) + (e0 / 32 + k) * 16);
            for (int c = c0; c < c1; c++) v_store(w + c * QN_ATTN_STRIDE + b * 16, v_mul(v_load(s + c * QN_ATTN_STRIDE + b * 16), d));
        }
}

/* --- chunks and their merging --------------------------------------------------------------------------------------- */

struct attn_span { int c0, c1, lo[QN_ATTN_COLS], hi[QN_ATTN_COLS]; };

/* The columns that see something of a chunk, and what. */
static struct attn_span attn_seen(const struct qn_attn_tile *t, int chunk) {
    int from = chunk * QN_ATTN_CHUNK, to = from + QN_ATTN_CHUNK - 1;
    struct attn_span x = { .c0 = 0, .c1 = t->nq };
    while (x.c0 < x.c1 && t->col[x.c0].hi < from) x.c0++;
    while (x.c1 > x.c0 && t->col[x.c1 - 1].lo > to) x.c1--;
    for (int c = x.c0; c < x.c1; c++) {
        x.lo[c] = t->col[c].lo > from ? t->col[c].lo : from;
        x.hi[c] = t->col[c].hi < to ? t->col[c].hi : to;
    }
    return x;
}

static void attn_chunk(const struct qn_attn_tile *t, const struct attn_scratch *m, const struct attn_span *x, float *records) {
    int c0 = x->c0, c1 = x->c1, b0 = x->lo[c0] / 16, blocks = x->hi[c1 - 1] / 16 - b0 + 1, first = b0 * 16;
    size_t record = qn_attn_record(t->page->hd);
    attn_scores(t, c0, c1, b0, blocks, m->q, m->s);
    for (int c = c0; c < c1; c++) {
        attn_softmax(m->s + c * QN_ATTN_STRIDE + x->lo[c] / 16 * 16 - first, x->lo[c], x->hi[c], t->softcap, records + (size_t)c * record);
        memset(records + (size_t)c * record + QN_ATTN_HEAD, 0, (size_t)t->page->hd * sizeof(float));
    }
    int all0 = x->lo[c1 - 1], all1 = x->hi[c0] + 1; /* seen by all */
    if (all1 < all0) all1 = all0;
    for (int e = 0; e < t->page->hd; e += 16 * V_PV_LANES) {
        int nl = (t->page->hd - e) / 16 < V_PV_LANES ? (t->page->hd - e) / 16 : V_PV_LANES;
        const float *w = m->s;
        if (t->page->type == QN_KV_Q8_0) attn_scale_values(t, c0, c1, b0, blocks, e, m->s, m->w), w = m->w;
        for (int part = 0; part < 3; part++) {
            if (part == 1) {
                attn_values(t, c0, c1, all0, all1, w, first, e, nl, records);
                continue;
            }
            for (int c = c0, n; c < c1; c += n) { /* columns of a row see the same */
                int lo = x->lo[c], hi = x->hi[c] + 1;
                for (n = 1; c + n < c1 && x->lo[c + n] == lo && x->hi[c + n] + 1 == hi;) n++;
                if (part == 0) attn_values(t, c, c + n, lo, hi < all0 ? hi : all0, w, first, e, nl, records);
                else attn_values(t, c, c + n, lo > all1 ? lo : all1, hi, w, first, e, nl, records);
            }
        }
    }
}

/* The record of what came before, and the next chunk's. */
static void attn_fold(float *state, const float *next, int hd) {
    v16 m0 = v_load(state), m1 = v_load(next), m = v_max(m0, m1);
    v16 a = v_exp2(v_sub(m0, m)), b = v_exp2(v_sub(m1, m));
    v_store(state, m);
    v_store(state + 16, v_fma(v_load(state + 16), a, v_mul(v_load(next + 16), b)));
    for (int e = QN_ATTN_HEAD; e < QN_ATTN_HEAD + hd; e += 16) v_store(state + e, v_fma(v_load(state + e), a, v_mul(v_load(next + e), b)));
}

static void attn_write(const struct qn_attn_tile *t, const float *state) {
    for (int c = 0; c < t->nq; c++, state += qn_attn_record(t->page->hd)) {
        v16 inv = v_div(v_set1(1.0f), v_load(state + 16));
        for (int e = 0; e < t->page->head_dim; e += 16) {
            int n = t->page->head_dim - e < 16 ? t->page->head_dim - e : 16;
            v_store_n(t->col[c].out + e, v_mul(v_load(state + QN_ATTN_HEAD + e), inv), n);
        }
    }
}

/* Folds a chunk's records in; a column's first chunk is its state. */
static void attn_take(const struct qn_attn_tile *t, const struct attn_span *x, int chunk, float *state, const float *records) {
    size_t n = qn_attn_record(t->page->hd);
    for (int c = x->c0; c < x->c1; c++) {
        if (t->col[c].lo / QN_ATTN_CHUNK == chunk) {
            if (state != records) memcpy(state + (size_t)c * n, records + (size_t)c * n, n * sizeof *state);
        } else {
            attn_fold(state + (size_t)c * n, records + (size_t)c * n, t->page->hd);
        }
    }
}

static void attn_tile(const struct qn_attn_tile *t) {
    struct attn_scratch m = attn_parts(t);
    attn_prepare(t, m.q);
    for (int i = t->chunk0; i < t->chunk1; i++) {
        struct attn_span x = attn_seen(t, i);
        if (x.c0 == x.c1) continue;
        if (t->records) {
            attn_chunk(t, &m, &x, t->records + (size_t)(i - t->chunk0) * QN_ATTN_COLS * qn_attn_record(t->page->hd));
            continue;
        }
        float *to = i == t->chunk0 ? m.state : m.record;
        attn_chunk(t, &m, &x, to);
        attn_take(t, &x, i, m.state, to);
    }
    if (!t->records) attn_write(t, m.state);
}

static void attn_merge(const struct qn_attn_tile *t) {
    struct attn_scratch m = attn_parts(t);
    const float *records = t->records;
    for (int i = t->chunk0; i < t->chunk1; i++, records += QN_ATTN_COLS * qn_attn_record(t->page->hd)) {
        struct attn_span x = attn_seen(t, i);
        if (x.c0 < x.c1) attn_take(t, &x, i, m.state, records);
    }
    attn_write(t, m.state);
}

#endif
