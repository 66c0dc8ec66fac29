/* For tests of attention on a card: KV pages in which only written slots are numbers, batches over shuffled page tables, and the
 * definition in double with a bound on what the kernels may differ from it. */
#ifndef QN_TESTS_CUDA_ATTN_KIT_H
#define QN_TESTS_CUDA_ATTN_KIT_H

#include "engine/backend.h"
#include "engine/cuda/attention.h"
#include "tests/cuda/kit.h"
#include "tests/run.h"

enum { SEQS_MAX = 16, CTX_MAX = 1200, PAGES_MAX = CTX_MAX / QN_KV_BLOCK, LAYERS = 2, LAYER = 1 };

struct shape { /* of a model's attention, and how large its numbers are */
    int heads, kv_heads, head_dim, bf16, window;
    float softcap, k_bias; /* k_bias: added to every fourth element of k, and a tenth of it to q */
};

/* Sequences with keys and values, on the host as the 16-bit numbers that the pages hold, and q for each position. */
struct world {
    struct shape sh;
    int n_seqs, n_ctx[SEQS_MAX];
    uint16_t *k[SEQS_MAX], *v[SEQS_MAX]; /* [n_ctx][kv_heads][head_dim] */
    float *q[SEQS_MAX];                  /* [n_ctx][heads * head_dim] */
    int32_t blocks[SEQS_MAX][PAGES_MAX];
    struct qn_cuda_kv kv;
    float scale;
};

static double kv_value(const struct world *w, uint16_t h) { return w->sh.bf16 ? bf16_value(h) : half_value(h); }
static uint16_t kv_of(const struct world *w, float x) { return w->sh.bf16 ? bf16_of(x) : half_of(x); }

/* Writes positions [from, to) of a sequence into its pages, padding included; other slots keep whatever they hold. */
static void write_pages(const struct world *w, int s, int from, int to) {
    int hd = w->sh.head_dim, pad = w->kv.head_pad;
    uint16_t *slots = calloc((size_t)(QN_KV_BLOCK * pad), sizeof *slots);
    for (int p = from, n; p < to; p += n) {
        int slot = p % QN_KV_BLOCK;
        n = QN_KV_BLOCK - slot < to - p ? QN_KV_BLOCK - slot : to - p;
        for (int h = 0; h < w->sh.kv_heads; h++)
            for (int v = 0; v < 2; v++) {
                for (int i = 0; i < n; i++)
                    memcpy(slots + i * pad, (v ? w->v : w->k)[s] + ((size_t)(p + i) * (size_t)w->sh.kv_heads + (size_t)h) * (size_t)hd, (size_t)hd * sizeof *slots);
                size_t head = ((size_t)w->blocks[s][p / QN_KV_BLOCK] * LAYERS + LAYER) * (size_t)w->sh.kv_heads + (size_t)h;
                uint16_t *to_page = w->kv.pages + ((head * 2 + (size_t)v) * QN_KV_BLOCK + (size_t)slot) * (size_t)pad;
                if (cudaMemcpy(to_page, slots, (size_t)(n * pad) * sizeof *slots, cudaMemcpyHostToDevice)) abort();
            }
    }
    free(slots);
}

static struct world *world_new(struct shape sh, int n_seqs, const int *n_ctx) {
    struct world *w = calloc(1, sizeof *w);
    int pages = 0, order[SEQS_MAX * PAGES_MAX];
    w->sh = sh, w->n_seqs = n_seqs, w->scale = 1.0f / sqrtf((float)sh.head_dim);
    for (int s = 0; s < n_seqs; s++) pages += (n_ctx[s] + QN_KV_BLOCK - 1) / QN_KV_BLOCK;
    for (int i = 0; i < pages; i++) {
        int k = (int)(rnd() % (uint32_t)(i + 1));
        order[i] = order[k], order[k] = i + 1; /* page 0 belongs to nobody */
    }
    int pad = (sh.head_dim + 15) / 16 * 16;
    size_t elems = (size_t)(pages + 1) * LAYERS * (size_t)sh.kv_heads * 2 * QN_KV_BLOCK * (size_t)pad;
    w->kv = (struct qn_cuda_kv){dev_new(elems * 2), LAYERS, sh.kv_heads, sh.heads, sh.head_dim, pad, sh.bf16}; /* all NaN */
    for (int s = 0; s < n_seqs; s++) {
        size_t n = (size_t)n_ctx[s] * (size_t)sh.kv_heads * (size_t)sh.head_dim, nq = (size_t)n_ctx[s] * (size_t)(sh.heads * sh.head_dim);
        w->n_ctx[s] = n_ctx[s];
        w->k[s] = malloc(n * sizeof **w->k), w->v[s] = malloc(n * sizeof **w->v), w->q[s] = malloc(nq * sizeof **w->q);
        for (size_t i = 0; i < n; i++) w->k[s][i] = kv_of(w, 2 * rnd_float() + (i % 4 == 1 ? sh.k_bias : 0)), w->v[s][i] = kv_of(w, rnd_float() * (rnd() % 61 == 0 ? 12.0f : 1.0f));
        for (size_t i = 0; i < nq; i++) w->q[s][i] = 3 * rnd_float() + (i % 4 == 1 ? 0.1f * sh.k_bias : 0);
        for (int i = 0; i * QN_KV_BLOCK < n_ctx[s]; i++) w->blocks[s][i] = order[--pages];
        write_pages(w, s, 0, n_ctx[s]);
    }
    if (qn_cuda_attention_open(&w->kv)) abort();
    return w;
}

static void world_free(struct world *w) {
    for (int s = 0; s < w->n_seqs; s++) free(w->k[s]), free(w->v[s]), free(w->q[s]);
    cudaFree(w->kv.pages);
    free(w);
}

/* Rows of a step: n of sequence seq, the last at position n_ctx - 1. */
struct part { int seq, n_rows, n_ctx; };

struct load { /* on the planner */
    int n_sms, records_max, extra_items /* beyond what the plan has */, kinds /* beside the plan's */;
};

/* Runs one step and returns [rows][heads * head_dim], to be freed; `plan` may be NULL. */
static float *run_step(const struct world *w, const struct part *parts, int n_parts, struct load load, struct qn_cuda_attn_plan *plan_out) {
    struct qn_batch_seq seqs[SEQS_MAX];
    static int32_t pos[4096], blocks[SEQS_MAX][PAGES_MAX];
    int rows = 0, wide = w->sh.heads * w->sh.head_dim;
    for (int i = 0; i < n_parts; i++) {
        seqs[i] = (struct qn_batch_seq){rows, parts[i].n_rows, parts[i].n_ctx, w->blocks[parts[i].seq]};
        for (int r = 0; r < parts[i].n_rows; r++) pos[rows++] = parts[i].n_ctx - parts[i].n_rows + r;
        memcpy(blocks[i], w->blocks[parts[i].seq], sizeof blocks[i]);
    }
    size_t row_bytes = (size_t)wide * sizeof(float), bytes = (size_t)rows * row_bytes;
    float *q = malloc(bytes), *out = malloc(bytes);
    for (int i = 0; i < n_parts; i++)
        memcpy(q + (size_t)seqs[i].row0 * (size_t)wide, w->q[parts[i].seq] + (size_t)(parts[i].n_ctx - parts[i].n_rows) * (size_t)wide, (size_t)parts[i].n_rows * row_bytes);

    struct qn_batch batch = {.n_rows = rows, .n_seqs = n_parts, .pos = pos, .seqs = seqs};
    struct qn_cuda_attn_limits lim = {w->sh.heads, w->sh.kv_heads, w->sh.head_dim, w->sh.window, load.n_sms, 0, load.records_max};
    lim.items_max = qn_cuda_attn_items(&lim, rows);
    struct qn_cuda_item *items = calloc((size_t)lim.items_max, sizeof *items);
    struct qn_cuda_attn_plan plan;
    qn_cuda_attn_plan(&batch, &lim, items, &plan);
    struct qn_cuda_head head = {.n_rows = rows, .n_seqs = n_parts, .n_items = plan.n_items};
    void *d[] = {dev_copy(&head, sizeof head), dev_copy(pos, (size_t)rows * sizeof *pos), dev_copy(blocks, (size_t)n_parts * sizeof blocks[0]), dev_copy(items, (size_t)plan.n_items * sizeof *items),
                 dev_copy(q, bytes), dev_new(bytes), plan.n_records ? dev_new((size_t)qn_cuda_attn_record_bytes(&w->kv, load.records_max)) : NULL};
    struct qn_cuda_attn a = {.step = {.head = d[0], .pos = d[1], .blocks = d[2], .items = d[3], .rows_max = rows, .seqs_max = n_parts, .blocks_stride = PAGES_MAX}, .kv = w->kv,
                             .q = d[4], .out = d[5], .records = d[6], .records_max = load.records_max, .layer = LAYER, .window = w->sh.window, .scale = w->scale, .softcap = w->sh.softcap};
    EXPECT_EQ(qn_cuda_attention(&a, plan.n_items + load.extra_items, plan.kinds | load.kinds, NULL), 0);
    dev_read(out, d[5], bytes);
    for (size_t i = 0; i < sizeof d / sizeof *d; i++) cudaFree(d[i]);
    free(items);
    free(q);
    if (plan_out) *plan_out = plan;
    return out;
}

/* A row's head from the definition: softmax over its positions, all in double. bound[i]: what out[i] may be off by.
 *
 * With weights w_j = 2^s_j the kernels compute sum w~_j v_j / sum w~_j, numerator and denominator of the same w~_j = w_j (1 + e_j), so
 * they are off by sum (w~_j - w_j)(v_j - out) / sum w~_j, plus the rounding of the two sums. |e_j| is bounded by
 *   - P in 16 bits: half an ulp, 2^-11 or 2^-8, or in f16 the half of its least number, 2^-25 of the chunk's largest weight;
 *   - q in 11 (f16) or 16 (two bf16) bits: off by r_d <= |q_d| * 2^-11 or 2^-16. What r adds to all scores alike changes no weight, so
 *     of k only the distance to some c counts, here the mean of the keys: scale * sum |q_d| |k_d - c_d| * 2^-11 or 2^-16;
 *   - products and their sum in f32, to nearest or truncated (a card may), and scale * log2(e) in f32: scale * sum |q_d k_d| * (head_dim + 8) * 2^-23;
 *   - softcap: does not enlarge that; tanh itself to 2^-20;
 *   - maxima and differences of scores in f32, 2 ulp of the larger, and exp2 itself: 2^-21 * (|s| + |most| + 1), in powers of two. */
static void define(const struct world *w, int seq, int pos, int head, double *out, double *bound) {
    const struct shape *sh = &w->sh;
    int hd = sh->head_dim, kvh = head / (sh->heads / sh->kv_heads), first = sh->window && pos + 1 > sh->window ? pos + 1 - sh->window : 0;
    static double s[CTX_MAX], slack[CTX_MAX];
    const float *q = w->q[seq] + ((size_t)pos * (size_t)sh->heads + (size_t)head) * (size_t)hd;
    double most = -INFINITY, total = 0, low = 0, u_q = sh->bf16 ? 0x1p-16 : 0x1p-11, u_p = sh->bf16 ? 0x1p-8 : 0x1p-11, l2e = 1.4426950408889634;
    double mean[256] = {0};
    for (int p = first; p <= pos && !(sh->softcap > 0); p++) /* a softcap bends scores: then c = 0 */
        for (int i = 0; i < hd; i++) mean[i] += kv_value(w, w->k[seq][((size_t)p * (size_t)sh->kv_heads + (size_t)kvh) * (size_t)hd + (size_t)i]) / (pos + 1 - first);
    for (int p = first; p <= pos; p++) {
        const uint16_t *k = w->k[seq] + ((size_t)p * (size_t)sh->kv_heads + (size_t)kvh) * (size_t)hd;
        double sum = 0, size = 0, off = 0;
        for (int i = 0; i < hd; i++) {
            double x = (double)q[i], y = kv_value(w, k[i]);
            sum += x * y, size += fabs(x * y), off += fabs(x * (y - mean[i]));
        }
        sum *= (double)w->scale;
        slack[p] = l2e * ((double)w->scale * (off * u_q + size * (hd + 8) * 0x1p-23) + (double)sh->softcap * 0x1p-20);
        if (sh->softcap > 0) sum = (double)sh->softcap * tanh(sum / (double)sh->softcap);
        s[p] = sum * l2e;
        if (!(s[p] <= most)) most = s[p]; /* NaN stays */
    }
    double acc[256] = {0}, size[256] = {0}, spread[256] = {0};
    for (int p = first; p <= pos; p++) {
        const uint16_t *v = w->v[seq] + ((size_t)p * (size_t)sh->kv_heads + (size_t)kvh) * (size_t)hd;
        double x = exp2(s[p] - most);
        total += x;
        for (int i = 0; i < hd; i++) acc[i] += x * kv_value(w, v[i]), size[i] += x * fabs(kv_value(w, v[i]));
    }
    for (int i = 0; i < hd; i++) out[i] = acc[i] / total;
    for (int p = first; p <= pos; p++) {
        const uint16_t *v = w->v[seq] + ((size_t)p * (size_t)sh->kv_heads + (size_t)kvh) * (size_t)hd;
        double e = exp2(slack[p] + 0x1p-21 * (fabs(s[p]) + fabs(most) + 1)) * (1 + u_p) - 1, x = exp2(s[p] - most) * e + (sh->bf16 ? 0 : 0x1p-25);
        low += x;
        for (int i = 0; i < hd; i++) spread[i] += x * fabs(kv_value(w, v[i]) - out[i]);
    }
    for (int i = 0; i < hd; i++) bound[i] = (low < total ? spread[i] / (total - low) : INFINITY) + 2 * (pos + 1 - first + 16) * 0x1p-23 * (size[i] / total + fabs(out[i]));
}

#endif
