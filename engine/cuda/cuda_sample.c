/* Draws where the logits are: what comes back is an id and a few log-probabilities a row, not a vocabulary; at once (sample), or
 * when the next step is on its way (draw_late, read_late): then each pick leaves its id on the card too, for that step's tokens.
 *
 * Whether a pick is drawn here depends on its request alone, so that its bits do not depend on the batch. Those with penalties are
 * left to the host, as they need the counts of their whole history; then the logits come back too. Thread: engine. */
#include "engine/cuda/cuda.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BAN_MAX = 128, ALIGN = 64 }; /* bans of one pick; more are the host's */

static int drawn_here(const struct qn_backend_pick *k) {
    return k->given >= 0 || (!k->host && qn_sampling_plain(k->sampling) && k->n_ban <= BAN_MAX);
}

static size_t up_to(size_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

int qn_cuda_sample_open(struct qn_cuda *c, int picks_max) {
    size_t n = (size_t)picks_max, bytes = ALIGN + up_to(n * sizeof(struct qn_cuda_pick)) + up_to(n * QN_BIAS_MAX * sizeof(struct qn_cuda_bias)) + n * BAN_MAX * sizeof(uint32_t);
    int64_t scratch = qn_cuda_sample_scratch(picks_max, c->base.desc->n_vocab);
    c->sampling = (struct qn_cuda_sampling){.logits = c->logits, .logits_stride = c->base.desc->n_vocab, .picks_max = picks_max,
                                            .feed = qn_cuda_take(c, n * sizeof(int32_t)), .out = qn_cuda_take(c, n * sizeof(struct qn_cuda_picked)), .scratch = qn_cuda_take(c, (size_t)scratch)};
    int rc = c->sampling.feed && c->sampling.out && c->sampling.scratch ? qn_cuda_upload_open(c, &c->up_picks, bytes) : -1;
    for (int i = 0; i < 2 && rc == 0; i++) {
        rc = qn_cuda_ok(c, cudaHostAlloc((void **)&c->picked_host[i], n * sizeof *c->picked_host[i], cudaHostAllocDefault));
        if (rc == 0) rc = qn_cuda_ok(c, cudaEventCreateWithFlags(&c->picked[i], cudaEventDisableTiming));
    }
    return rc;
}

static struct qn_cuda_pick describe(const struct qn_backend_pick *k, int bias0, int ban0, int feed) {
    struct qn_cuda_pick p = {.branch = k->branch, .position = k->position, .row = k->row, .given = k->given, .n_top = k->lp ? k->n_top : -1, .counts = -1, .mask = -1, .feed = feed};
    if (k->given >= 0) {
        p.top_p = p.repetition = 1;
        return p;
    }
    const struct qn_sampling *s = k->sampling;
    p.seed = s->seed, p.temperature = s->temperature, p.top_p = s->top_p, p.min_p = s->min_p, p.top_k = s->top_k, p.repetition = 1;
    p.bias0 = bias0, p.n_bias = (int32_t)s->n_bias, p.ban0 = ban0, p.n_ban = (int32_t)k->n_ban;
    return p;
}

/* Number, picks, biases, bans, side by side; returns the bytes, and where each part begins in c->sampling. */
static size_t fill(struct qn_cuda *c, uint8_t *host, const struct qn_backend_pick *picks, int n, int n_here, int late) {
    struct qn_cuda_pick *to = (void *)(host + ALIGN);
    size_t bias_at = ALIGN + up_to((size_t)n_here * sizeof *to), ban_at;
    struct qn_cuda_bias *bias = (void *)(host + bias_at);
    int n_bias = 0, n_ban = 0;
    memcpy(host, &n_here, sizeof n_here);
    for (int i = 0; i < n; i++) {
        if (!drawn_here(&picks[i])) continue;
        *to++ = describe(&picks[i], n_bias, n_ban, late ? i : -1);
        if (picks[i].given >= 0) continue;
        for (uint32_t k = 0; k < picks[i].sampling->n_bias; k++) bias[n_bias++] = (struct qn_cuda_bias){picks[i].sampling->bias[k].id, picks[i].sampling->bias[k].add};
        n_ban += (int)picks[i].n_ban;
    }
    ban_at = bias_at + up_to((size_t)n_bias * sizeof *bias);
    uint32_t *ban = (void *)(host + ban_at);
    for (int i = 0; i < n; i++) {
        if (!drawn_here(&picks[i]) || picks[i].given >= 0 || !picks[i].n_ban) continue;
        memcpy(ban, picks[i].ban, picks[i].n_ban * sizeof *ban);
        ban += picks[i].n_ban;
    }
    const uint8_t *dev = c->up_picks.dev;
    c->sampling.n_picks = (const void *)dev;
    c->sampling.picks = (const void *)(dev + ALIGN);
    c->sampling.bias = (const void *)(dev + bias_at);
    c->sampling.ban = (const void *)(dev + ban_at);
    return ban_at + (size_t)n_ban * sizeof *ban;
}

static void take(struct qn_backend_pick *k, const struct qn_cuda_picked *p) {
    k->done = 1;
    k->id = p->id;
    if (!k->lp) return;
    k->lp->logprob = p->logprob;
    k->lp->rank = p->rank;
    k->lp->n_top = p->n_top;
    for (uint32_t i = 0; i < p->n_top && i < QN_LOGPROBS_MAX; i++) k->lp->top[i] = (struct qn_top){p->top[i].id, p->top[i].logprob};
}

/* Everything up to the copy of n_here picks to pinned memory; nothing waits. Returns that memory. */
static const struct qn_cuda_picked *launch(struct qn_cuda *c, int n_vocab, const struct qn_backend_pick *picks, int n, int n_here, int late) {
    struct qn_cuda_picked *to = c->picked_host[c->n_drawn % 2];
    assert(n <= c->sampling.picks_max && c->n_drawn - c->n_read < 2);
    uint8_t *host = qn_cuda_next_host(c, &c->up_picks);
    size_t bytes = fill(c, host, picks, n, n_here, late);
    qn_cuda_send(c, &c->up_picks, bytes);
    c->sampling.n_vocab = n_vocab;
    if (c->lost) return to;
    qn_cuda_sample(&c->sampling, n_here, c->compute);
    qn_cuda_ok(c, cudaMemcpyAsync(to, c->sampling.out, (size_t)n_here * sizeof *to, cudaMemcpyDeviceToHost, c->compute));
    return to;
}

const float *qn_cuda_op_sample(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n_rows, const struct qn_weight *gain, float eps,
                               const struct qn_weight *w, const struct qn_weight *bias, int n_vocab, struct qn_backend_pick *picks, int n) {
    struct qn_cuda *c = qn_cuda_of(b);
    int n_here = 0, at = 0;
    for (int i = 0; i < n; i++) {
        picks[i].done = 0;
        n_here += drawn_here(&picks[i]);
    }
    if (!n_here || c->lost) return b->ops->logits(b, x, rows, n_rows, gain, eps, w, bias);
    qn_cuda_make_logits(c, x, rows, n_rows, gain, eps, w, bias);
    const struct qn_cuda_picked *picked = launch(c, n_vocab, picks, n, n_here, 0);
    const float *logits = n_here < n ? qn_cuda_fetch_logits(c, n_rows) : NULL;
    if (!logits) qn_cuda_wait(c);
    for (int i = 0; i < n && !c->lost; i++)
        if (drawn_here(&picks[i])) take(&picks[i], &picked[at++]);
    return c->lost ? qn_cuda_fetch_logits(c, n_rows) : logits;
}

int qn_cuda_op_draw_late(struct qn_backend *b, const struct qn_vec *x, const int32_t *rows, int n_rows, const struct qn_weight *gain, float eps,
                         const struct qn_weight *w, const struct qn_weight *bias, int n_vocab, struct qn_backend_pick *picks, int n) {
    struct qn_cuda *c = qn_cuda_of(b);
    for (int i = 0; i < n; i++)
        if (!drawn_here(&picks[i])) return 0;
    if (c->lost) return 0;
    if (n) {
        qn_cuda_make_logits(c, x, rows, n_rows, gain, eps, w, bias);
        launch(c, n_vocab, picks, n, n, 1);
    }
    qn_cuda_ok(c, cudaEventRecord(c->picked[c->n_drawn % 2], c->compute));
    c->n_drawn++;
    return 1;
}

void qn_cuda_op_read_late(struct qn_backend *b, struct qn_backend_pick *picks, int n) {
    struct qn_cuda *c = qn_cuda_of(b);
    unsigned turn = c->n_read++ % 2;
    if (!c->lost) qn_cuda_ok(c, cudaEventSynchronize(c->picked[turn]));
    if (!c->lost) qn_cuda_ok(c, cudaGetLastError());
    for (int i = 0; i < n; i++) {
        if (c->lost) picks[i].id = -1;
        else take(&picks[i], &c->picked_host[turn][i]);
    }
}
