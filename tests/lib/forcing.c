/* See forcing.h. */
#include "tests/lib/forcing.h"

#include "tests/run.h"

struct forcing forcing_open(const char *path, forcing_open_fn open, const struct qn_backend_opts *o) {
    struct forcing s = {0};
    struct qn_err err = {0};
    int got;
    ASSERT(o->rows_max <= FORCING_ROWS_MAX && o->kv_blocks <= FORCING_BLOCKS_MAX);
    int rc = qn_model_open(&s.m, path, &err);
    if (rc == 0) rc = open(&s.b, &s.m->desc, o, &err);
    if (rc == 0) rc = qn_forward_open(&s.f, s.m, s.b, &err);
    if (rc == 0 && s.b->ops->kv_pool) rc = s.b->ops->kv_pool(s.b, o->kv_blocks, o->kv_blocks, &got, &err);
    if (rc < 0) printf("    %s: %s\n", path, err.text);
    ASSERT_EQ(rc, 0);
    return s;
}

void forcing_close(struct forcing *s) {
    const char *lost = s->b->ops->lost ? s->b->ops->lost(s->b) : NULL;
    EXPECT_STR(lost ? lost : "works", "works");
    qn_forward_close(s->f);
    s->b->ops->close(s->b);
    qn_model_close(s->m);
}

void forcing_keep(void *arg, int pos, const float *logits, int n_vocab) {
    memcpy((float *)arg + (size_t)pos * (size_t)n_vocab, logits, (size_t)n_vocab * sizeof *logits);
}

void forcing_run(struct forcing *s, const int32_t *ids, int n, int cut, void (*use)(void *arg, int pos, const float *logits, int n_vocab), void *arg) {
    int32_t blocks[FORCING_BLOCKS_MAX], pos[FORCING_ROWS_MAX], rows[FORCING_ROWS_MAX];
    int n_blocks = s->b->opts.kv_blocks, out_max = s->b->opts.out_max, n_vocab = s->m->desc.n_vocab;
    ASSERT(n <= n_blocks * QN_KV_BLOCK && cut <= s->b->opts.rows_max);
    for (int i = 0; i < n_blocks; i++) blocks[i] = n_blocks - 1 - i; /* any order will do */
    for (int at = 0; at < n; at += cut) {
        int k = n - at < cut ? n - at : cut;
        for (int i = 0; i < k; i++) pos[i] = at + i, rows[i] = i;
        struct qn_batch_seq seq = {.n_rows = k, .n_ctx = at + k, .blocks = blocks};
        struct qn_batch b = {.n_rows = k, .n_seqs = 1, .token = ids + at, .pos = pos, .seqs = &seq, .n_out = k, .out_row = rows};
        qn_forward_step(s->f, &b);
        for (int r = 0; r < k; r += out_max) {
            int m = k - r < out_max ? k - r : out_max;
            const float *logits = qn_forward_logits(s->f, rows + r, m);
            for (int i = 0; i < m; i++) use(arg, at + r + i, logits + (size_t)i * (size_t)n_vocab, n_vocab);
        }
    }
}

void forcing_beside(struct forcing *s, const int32_t *ids, int n, int a, int b, int some, float *out) {
    int32_t blocks[2][FORCING_BLOCKS_MAX / 2], token[FORCING_ROWS_MAX], pos[FORCING_ROWS_MAX], rows[FORCING_ROWS_MAX];
    int half = s->b->opts.kv_blocks / 2;
    size_t n_vocab = (size_t)s->m->desc.n_vocab;
    ASSERT(a + b <= s->b->opts.rows_max && n <= half * QN_KV_BLOCK);
    for (int i = 0; i < half; i++) blocks[0][i] = 2 * (i * 37 % half), blocks[1][i] = 2 * i + 1;
    for (int at = 0, other = 0; at < n;) {
        int k = n - at < a ? n - at : a, j = n - other < b ? n - other : b, m = 0;
        struct qn_batch_seq seqs[2] = {{.row0 = 0, .n_rows = j, .n_ctx = other + j, .blocks = blocks[1]}, {.row0 = j, .n_rows = k, .n_ctx = at + k, .blocks = blocks[0]}};
        if (!j) seqs[0] = seqs[1];
        for (int i = 0; i < j; i++) token[i] = ids[n - 1 - other - i], pos[i] = other + i;
        for (int i = 0; i < k; i++) token[j + i] = ids[at + i], pos[j + i] = at + i;
        int first = some ? k - 1 - at % k : 0, mine = k - first;
        if (j && mine < s->b->opts.out_max) rows[m++] = j - 1;
        for (int i = first; i < k; i++) rows[m++] = j + i;
        struct qn_batch batch = {.n_rows = j + k, .n_seqs = j ? 2 : 1, .token = token, .pos = pos, .seqs = seqs, .n_out = m, .out_row = rows};
        qn_forward_step(s->f, &batch);
        memcpy(out + (size_t)(at + first) * n_vocab, qn_forward_logits(s->f, rows + m - mine, mine), (size_t)mine * n_vocab * sizeof *out);
        at += k;
        other += j;
    }
}
