/* What each kernel takes on a card, beside the least that the card's memory and its matrix units allow: bench_cuda [small].
 * The backend's own operations are called as forward.c calls them, without graphs, and timed with events; weights are random, and
 * more of them than the second-level cache holds take turns. Run by `make gpu-check`. Over the emulator it only shows that it runs: it prints no times. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cuda/cuda.h"
#include "engine/quant.h"

enum { REPS = 50, WARM = 5, COPIES_MAX = 64, CTX_MAX = 8192 };
static const double CACHE_BYTES = 256e6; /* so much has to lie between two uses of a weight */

static const struct shape { const char *name; int d_model, d_ff, heads, kv_heads, head_dim, n_vocab; } shapes[] = {
    { "135M", 576, 1536, 9, 3, 64, 49152 },
    { "8B", 4096, 14336, 32, 8, 128, 128256 },
};
static const struct shape small_shape = { "small", 64, 192, 4, 2, 32, 512 };

struct card { double bytes_s, flop_s; int sms; };

/* Dense f16 products, FLOP a cycle and multiprocessor: the tuning guides' tables. */
static double flop_per_cycle(int major) { return major == 8 ? 2048 : major == 9 ? 4096 : major == 10 ? 8192 : 0; }

static struct card look(void) {
    struct card k = { 0 };
#ifndef QN_CUDA_EMU
    int clock = 0, memory = 0, width = 0, major = 0;
    cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0);
    cudaDeviceGetAttribute(&memory, cudaDevAttrMemoryClockRate, 0);
    cudaDeviceGetAttribute(&width, cudaDevAttrGlobalMemoryBusWidth, 0);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    cudaDeviceGetAttribute(&k.sms, cudaDevAttrMultiProcessorCount, 0);
    k.bytes_s = 2.0 * memory * 1e3 * width / 8;
    k.flop_s = flop_per_cycle(major) * k.sms * clock * 1e3;
#else
    (void)flop_per_cycle;
#endif
    return k;
}

/* --- a model without a file --------------------------------------------------------------------------------------- */

static struct qn_model_desc *describe(const struct shape *s) {
    struct qn_model_desc *d = calloc(1, sizeof *d);
    if (!d) abort();
    d->n_layers = 2, d->n_heads = s->heads, d->n_kv_heads = s->kv_heads, d->head_dim = s->head_dim, d->d_model = s->d_model, d->d_ff = s->d_ff, d->n_vocab = s->n_vocab;
    d->norm_eps = 1e-5f, d->embed_scale = d->logit_scale = d->residual_scale = 1, d->attn_scale = 0.1f;
    d->rope_kind = QN_ROPE_NEOX, d->rope_dim = s->head_dim, d->rope_mscale[0] = 1;
    d->inv_freq[0] = calloc((size_t)s->head_dim, sizeof(float));
    if (!d->inv_freq[0]) abort();
    for (int i = 0; i < s->head_dim / 2; i++) d->inv_freq[0][i] = 1.0f / (float)(i + 1);
    return d;
}

/* Bytes of any pattern with small scales. */
static struct qn_weight *weight(struct qn_backend *b, enum qn_type type, int n_in, int n_out) {
    const struct qn_type_info *info = qn_type_info(type);
    size_t bytes = (size_t)n_in / (size_t)info->block_elems * (size_t)n_out * (size_t)info->block_bytes;
    uint8_t *p = malloc(bytes);
    if (!p) abort();
    for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)(i * 2654435761u >> 27);
    struct qn_tensor t = { .name = { "t", 1 }, .type = type, .n_dims = 2, .dim = { (uint64_t)n_in, (uint64_t)n_out, 1, 1 }, .data = p, .n_bytes = bytes };
    struct qn_err err = { 0 };
    struct qn_weight *w = NULL;
    int keeps;
    if (b->ops->weight(b, &t, n_out == 1, &w, &keeps, &err) < 0) fprintf(stderr, "bench_cuda: %s\n", err.text), exit(1);
    free(p);
    return w;
}

/* --- measuring ---------------------------------------------------------------------------------------------------- */

struct bench {
    struct qn_backend *b;
    const struct shape *s;
    struct card card;
    struct qn_weight *w[COPIES_MAX], *up[COPIES_MAX], *gain;
    int n_w;
    struct qn_vec *x, *y, *q, *k, *v;
    struct qn_act *a, *attn, *ffn;
};

typedef void (*op_fn)(struct bench *t, int i);
static void do_linear(struct bench *t, int i) { t->b->ops->linear(t->b, t->a, &(struct qn_linear){ t->w[i % t->n_w], NULL, t->y }, 1); }
static void do_glu(struct bench *t, int i) { t->b->ops->glu(t->b, t->a, t->w[i % t->n_w], t->up[i % t->n_w], QN_ACT_SILU, t->ffn); }
static void do_norm(struct bench *t, int i) {
    (void)i;
    t->b->ops->add_norm(t->b, t->x, t->y, NULL, 1, t->gain, 1e-5f, t->a);
}
static void do_rope(struct bench *t, int i) { t->b->ops->rope_kv(t->b, i % 2, t->q, t->k, t->v, NULL, NULL, 1e-5f); }
static void do_attention(struct bench *t, int i) { t->b->ops->attention(t->b, i % 2, t->q, t->attn); }

/* One row of the table: op over n_seqs sequences of rows_each rows that end at position n_ctx. */
static void measure(struct bench *t, const char *name, op_fn op, int n_seqs, int rows_each, int n_ctx, double bytes, double flop) {
    static int32_t blocks[64][CTX_MAX / QN_KV_BLOCK], token[8192], pos[8192];
    static struct qn_batch_seq seqs[64];
    struct qn_cuda *c = qn_cuda_of(t->b);
    int n = n_seqs * rows_each, reps = t->card.sms ? REPS : 1;
    for (int s = 0; s < n_seqs; s++) {
        for (int i = 0; i < CTX_MAX / QN_KV_BLOCK; i++) blocks[s][i] = (s * 37 + i) % t->b->opts.kv_blocks;
        seqs[s] = (struct qn_batch_seq){ s * rows_each, rows_each, n_ctx, blocks[s] };
        for (int i = 0; i < rows_each; i++) pos[s * rows_each + i] = n_ctx - rows_each + i;
    }
    struct qn_batch batch = { .n_rows = n, .n_seqs = n_seqs, .token = token, .pos = pos, .seqs = seqs };
    cudaEvent_t from, to;
    float ms = 0;
    cudaEventCreate(&from), cudaEventCreate(&to);
    t->b->ops->begin(t->b, &batch);
    for (int i = 0; i < (t->card.sms ? WARM : 0); i++) op(t, i);
    cudaEventRecord(from, c->compute);
    for (int i = 0; i < reps; i++) op(t, i);
    cudaEventRecord(to, c->compute);
    t->b->ops->end(t->b);
    cudaEventSynchronize(to);
    cudaEventElapsedTime(&ms, from, to);
    cudaEventDestroy(from), cudaEventDestroy(to);
    if (c->lost) fprintf(stderr, "bench_cuda: %s: %s\n", name, c->lost), exit(1);
    printf("| %s | %s | %d x %d at %d |", t->s->name, name, n_seqs, rows_each, n_ctx);
    if (!t->card.sms) {
        puts(" ran | | | |");
        return;
    }
    double s = ms / 1e3 / reps, least = bytes / t->card.bytes_s, least_flop = t->card.flop_s > 0 ? flop / t->card.flop_s : 0;
    if (least_flop > least) least = least_flop;
    printf(" %.1f | %.1f | %.0f | %.1f |\n", s * 1e6, least * 1e6, bytes / s / 1e9, flop / s / 1e12);
}

static void products(struct bench *t, const char *name, enum qn_type type) {
    const struct shape *s = t->s;
    double one = (double)s->d_model * s->d_model / qn_type_info(type)->block_elems * qn_type_info(type)->block_bytes;
    double gate = one / s->d_model * s->d_ff * 2;
    char text[64];
    t->n_w = t->card.sms ? (int)(CACHE_BYTES / one) + 2 : 2;
    if (t->n_w > COPIES_MAX) t->n_w = COPIES_MAX;
    for (int i = 0; i < t->n_w; i++) t->w[i] = weight(t->b, type, s->d_model, s->d_model);
    static const int rows[] = { 1, 2, 8, 16, 64, 512 };
    for (size_t i = 0; i < 6 && rows[i] <= t->b->opts.rows_max; i++) {
        double r = rows[i];
        snprintf(text, sizeof text, "linear %s", name);
        measure(t, text, do_linear, 1, rows[i], rows[i], one + r * s->d_model * 5, 2 * r * s->d_model * s->d_model);
    }
    for (int i = 0; i < t->n_w; i++) t->b->ops->weight_free(t->b, t->w[i]);
    t->n_w = t->card.sms ? 4 : 1;
    for (int i = 0; i < t->n_w; i++) t->w[i] = weight(t->b, type, s->d_model, s->d_ff), t->up[i] = weight(t->b, type, s->d_model, s->d_ff);
    for (size_t i = 0; i < 6 && rows[i] <= t->b->opts.rows_max; i++) {
        double r = rows[i];
        snprintf(text, sizeof text, "glu %s", name);
        measure(t, text, do_glu, 1, rows[i], rows[i], gate + r * (s->d_model + 9.0 * s->d_ff), 4 * r * s->d_model * s->d_ff);
    }
    for (int i = 0; i < t->n_w; i++) t->b->ops->weight_free(t->b, t->w[i]), t->b->ops->weight_free(t->b, t->up[i]);
}

static void rest(struct bench *t) {
    const struct shape *s = t->s;
    int most = t->b->opts.rows_max, last = t->b->opts.n_ctx;
    double q = (double)s->heads * s->head_dim, kv = (double)s->kv_heads * s->head_dim;
    for (int n = 1; n <= most; n = n < 32 ? 32 : n * 16) {
        int m = n < most ? n : most;
        measure(t, "add_norm", do_norm, 1, m, m, m * s->d_model * 13.0, m * s->d_model * 6.0);
        measure(t, "rope_kv", do_rope, 1, m, m, m * (q * 8 + kv * 12), m * (q + kv) * 6);
    }
    for (int ctx = last / 8; ctx <= last; ctx *= 8)
        for (int n = 1; n <= 32 && n <= t->b->opts.seqs_max; n *= 32)
            measure(t, "attention, decode", do_attention, n, 1, ctx, n * (ctx * kv * 4 + q * 8), n * q * ctx * 4.0);
    int chunk = most < last ? most : last;
    measure(t, "attention, prompt", do_attention, 1, chunk, chunk, chunk * (kv * 4 + q * 8), q * chunk * chunk * 2.0);
    measure(t, "attention, prompt", do_attention, 1, chunk, last, last * kv * 4 + chunk * q * 8, q * chunk * (last - chunk / 2.0) * 4);
}

static void run(const struct shape *s, struct card card) {
    static const struct { const char *name; enum qn_type type; } types[] = { { "Q4_1", QN_Q4_1 }, { "Q8_0", QN_Q8_0 }, { "BF16", QN_BF16 } };
    struct qn_model_desc *d = describe(s);
    struct qn_err err = { 0 };
    int got, big = card.sms > 0, ctx = big ? CTX_MAX : 64;
    struct qn_backend_opts o = { .rows_max = big ? 512 : 8, .seqs_max = big ? 64 : 4, .out_max = 8, .n_ctx = ctx };
    struct bench t = { .s = s, .card = card };
    int rc = qn_cuda_open(&t.b, d, &o, &err);
    if (rc < 0) fprintf(stderr, "bench_cuda: %s\n", err.text), exit(rc == QN_E_DEVICE ? 69 : 1);
    qn_cuda_of(t.b)->no_graphs = 1;
    t.gain = weight(t.b, QN_F32, s->d_model, 1);
    for (int i = 0; i < 3; i++) t.b->ops->weight_free(t.b, weight(t.b, types[i].type, s->d_model, 32)); /* the forms that rows of this width get */
    for (int i = 0; i < 3; i++) t.b->ops->weight_free(t.b, weight(t.b, types[i].type, s->heads * s->head_dim, 32));
    t.x = t.b->ops->vec(t.b, s->d_model), t.y = t.b->ops->vec(t.b, s->d_model), t.q = t.b->ops->vec(t.b, s->heads * s->head_dim);
    t.k = t.b->ops->vec(t.b, s->kv_heads * s->head_dim), t.v = t.b->ops->vec(t.b, s->kv_heads * s->head_dim);
    t.a = t.b->ops->act(t.b, s->d_model), t.attn = t.b->ops->act(t.b, s->heads * s->head_dim), t.ffn = t.b->ops->act(t.b, s->d_ff);
    if (!t.x || !t.y || !t.q || !t.k || !t.v || !t.a || !t.attn || !t.ffn || t.b->ops->kv_pool(t.b, ctx / QN_KV_BLOCK, 4 * ctx / QN_KV_BLOCK, &got, &err) < 0)
        fprintf(stderr, "bench_cuda: %s\n", err.code ? err.text : "no memory"), exit(1);
    for (int i = 0; i < 3; i++) products(&t, types[i].name, types[i].type);
    rest(&t);
    t.b->ops->weight_free(t.b, t.gain);
    t.b->ops->close(t.b);
    free(d->inv_freq[0]);
    free(d);
}

int main(int argc, char **argv) {
    struct card card = look();
    if (card.sms) printf("%d multiprocessors, memory %.0f GB/s, f16 products %.0f TFLOP/s at the card's top clock (0: not known)\n\n", card.sms, card.bytes_s / 1e9, card.flop_s / 1e12);
    puts("| model | operation | sequences x rows at position | us | floor, us | GB/s | TFLOP/s |\n|---|---|---|---|---|---|---|");
    if (!card.sms || (argc > 1 && !strcmp(argv[1], "small"))) run(&small_shape, card);
    else
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) run(&shapes[i], card);
    return 0;
}
