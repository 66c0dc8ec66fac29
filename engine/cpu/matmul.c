/* Matrix products over a step's rows: who computes which tile for which rows, and what happens to the sums.
 *
 * An item is one tile (16 outputs; 32 with both matrices of the gated unit) times some of the groups of rows. Items run
 * along the rows of a tile first; a thread that took a run of items covers whole tiles, and does them a few tiles at a
 * time for each group, so that both the weights of these tiles and the group's activations stay in its L2. Each tile and
 * group is one call of a kernel whose sums do not depend on how all of this was cut. */
#include <assert.h>
#include <string.h>

#include "engine/cpu/cpu.h"

enum {
    L2_WEIGHTS = 384 * 1024,        /* of a thread's L2, for the weights of the tiles in hand */
    ITEM_OPS = 2 * 1000 * 1000,     /* multiply-adds of an item: some 10 us */
    GRAIN_BYTES = 16 * 1024,        /* weights worth handing to another thread */
    LINEARS_MAX = 8,
};

struct product {
    struct qn_cpu *b;
    int n, rows, n_groups;
    int cut, groups_of_cut;         /* items of a tile, and their groups */
    const struct qn_act *act;
    struct part { const struct qn_weight *w; const float *bias; float *out; size_t stride; int first_tile; } part[LINEARS_MAX];
    int by_row_tail;                /* out rows are not padded: the last tile is copied */
    float scale, cap;               /* logits */
    const struct qn_weight *up;     /* gated unit: part[0] is the gate */
    enum qn_act_kind kind;
    struct qn_act *out_act;
};

static const void *group_of(const struct qn_act *a, const struct qn_weight *w, int r0) {
    if (w->fmt == QN_FMT_BF16) return a->h + (size_t)r0 * (size_t)qn_pairs(a->width);
    if (qn_fmt_is_float(w->fmt)) return a->f + (size_t)r0 * (size_t)a->width;
    return a->q + (size_t)r0 * (size_t)a->n_blocks * QN_AREC;
}

static const uint8_t *tile_of(const struct qn_weight *w, int tile) { return w->data + (size_t)tile * w->tile_bytes; }

static void run_tile(const struct product *p, const struct qn_weight *w, int tile, const uint8_t *next, int r0, int g, float *out, size_t stride) {
    p->b->isa->tile[w->fmt](tile_of(w, tile), w->steps, next, group_of(p->act, w, r0), g, out, stride);
}

static void finish_tail(const struct product *p, float *out, int n) {
    if (p->scale != 1.0f || p->cap > 0.0f) p->b->isa->scale_cap(out, n, p->scale, p->cap);
}

static void linear_tile(const struct product *p, const struct part *part, int tile, int r0, int g) {
    const struct qn_weight *w = part->w;
    float tail[QN_GROUP * QN_LANES], *out = part->out + (size_t)r0 * part->stride + (size_t)tile * QN_LANES, *o = out;
    int lanes = w->n_out - tile * QN_LANES < QN_LANES ? w->n_out - tile * QN_LANES : QN_LANES;
    size_t stride = part->stride;
    int copy = p->by_row_tail && lanes < QN_LANES;
    if (copy) o = tail, stride = QN_LANES;
    run_tile(p, w, tile, tile + 1 < w->n_tiles || part == &p->part[p->n - 1] ? tile_of(w, tile + 1) : part[1].w->data, r0, g, o, stride);
    float bias[QN_LANES] = { 0 }; /* a copy, which `o` cannot alias: so the sums are vectors */
    if (part->bias) memcpy(bias, part->bias + tile * QN_LANES, sizeof bias);
    for (int c = 0; c < g; c++) {
        float *oc = o + (size_t)c * stride;
        if (part->bias)
            for (int i = 0; i < QN_LANES; i++) oc[i] += bias[i];
        if (p->by_row_tail) finish_tail(p, oc, lanes);
        if (copy) memcpy(out + (size_t)c * part->stride, oc, (size_t)lanes * sizeof *oc);
    }
}

/* 32 outputs of act(gate) * up for one group, straight into the output's records. */
static void glu_unit(const struct product *p, int unit, int r0, int g) {
    _Alignas(64) float h[2][QN_GROUP][32];
    const struct qn_weight *gate = p->part[0].w, *up = p->up;
    int tile = unit * 2, end = tile + 2 < gate->n_tiles ? tile + 2 : gate->n_tiles;
    for (int t = tile; t < end; t++) run_tile(p, gate, t, t + 1 < end ? tile_of(gate, t + 1) : tile_of(up, tile), r0, g, &h[0][0][(t - tile) * 16], 32);
    for (int t = tile; t < end; t++) run_tile(p, up, t, t + 1 < end ? tile_of(up, t + 1) : tile_of(gate, end), r0, g, &h[1][0][(t - tile) * 16], 32);
    if (end - tile == 1)
        for (int c = 0; c < g; c++) memset(&h[0][c][16], 0, 64), memset(&h[1][c][16], 0, 64);
    for (int c = 0; c < g; c++) {
        p->b->isa->glu(h[0][c], h[0][c], h[1][c], 32, p->kind);
        qn_act_put(p->b, p->out_act, p->rows, r0 + c, unit, 1, h[0][c]);
    }
}

static void one(const struct product *p, int tile, int gi) {
    int r0 = qn_group_at(p->rows, gi), g = qn_group_at(p->rows, gi + 1) - r0;
    if (p->up) {
        glu_unit(p, tile, r0, g);
        return;
    }
    int i = p->n - 1;
    while (tile < p->part[i].first_tile) i--;
    linear_tile(p, &p->part[i], tile - p->part[i].first_tile, r0, g);
}

static void groups_of_tiles(const struct product *p, int t0, int t1, int g0, int g1) {
    size_t bytes = p->part[0].w->tile_bytes * (p->up ? 4 : 1);
    int most = bytes >= L2_WEIGHTS ? 1 : (int)(L2_WEIGHTS / bytes);
    if (g1 - g0 == 1) most = t1 - t0;
    for (int t = t0; t < t1; t += most)
        for (int g = g0; g < g1; g++)
            for (int i = t; i < t + most && i < t1; i++) one(p, i, g);
}

static void range(void *arg, int begin, int end, int thread) {
    const struct product *p = arg;
    (void)thread;
    while (begin < end) {
        int t = begin / p->cut, at = begin % p->cut;
        if (at == 0 && end - begin >= p->cut) { /* whole tiles */
            int t1 = end / p->cut;
            groups_of_tiles(p, t, t1, 0, p->n_groups);
            begin = t1 * p->cut;
        } else {
            int stop = end - t * p->cut < p->cut ? end - t * p->cut : p->cut;
            int g0 = at * p->groups_of_cut, g1 = stop * p->groups_of_cut;
            groups_of_tiles(p, t, t + 1, g0, g1 < p->n_groups ? g1 : p->n_groups);
            begin = t * p->cut + stop;
        }
    }
}

static void run(struct product *p, int tiles) {
    const struct qn_weight *w = p->part[0].w;
    int64_t ops = (int64_t)w->n_in * QN_LANES * (p->up ? 4 : 1), bytes = (int64_t)w->tile_bytes * (p->up ? 4 : 1);
    p->n_groups = qn_groups(p->rows);
    int64_t groups = ITEM_OPS / (ops * QN_GROUP) + 1;
    p->groups_of_cut = groups < p->n_groups ? (int)groups : p->n_groups;
    p->cut = (p->n_groups + p->groups_of_cut - 1) / p->groups_of_cut;
    int64_t grain = GRAIN_BYTES / (bytes * p->rows) + 1;
    qn_pool_run(p->b->pool, tiles * p->cut, (int)grain, range, p);
}

void qn_cpu_linear(struct qn_backend *base, const struct qn_act *a, const struct qn_linear *l, int n) {
    struct qn_cpu *b = qn_cpu_of(base);
    struct product p = { .b = b, .n = n, .rows = b->batch->n_rows, .act = a, .scale = 1.0f };
    int tiles = 0;
    assert(n >= 1 && n <= LINEARS_MAX);
    for (int i = 0; i < n; i++) {
        const struct qn_weight *w = l[i].w;
        assert(w->data && w->n_in == a->width && w->n_out == l[i].out->width && (!l[i].bias || l[i].bias->n_out == w->n_out));
        p.part[i] = (struct part){ w, l[i].bias ? l[i].bias->vec : NULL, l[i].out->p, (size_t)l[i].out->stride, tiles };
        tiles += w->n_tiles;
    }
    run(&p, tiles);
}

void qn_cpu_glu(struct qn_backend *base, const struct qn_act *a, const struct qn_weight *gate, const struct qn_weight *up,
                enum qn_act_kind kind, struct qn_act *out) {
    struct qn_cpu *b = qn_cpu_of(base);
    assert(gate->n_in == a->width && up->n_in == a->width && gate->n_out == out->width && up->n_out == out->width);
    struct product p = { .b = b, .n = 1, .rows = b->batch->n_rows, .act = a, .part = { { .w = gate } }, .up = up, .kind = kind, .out_act = out };
    run(&p, (gate->n_tiles + 1) / 2);
}

const float *qn_cpu_logits(struct qn_backend *base, const struct qn_vec *x, const int32_t *rows, int n, const struct qn_weight *gain,
                           float eps, const struct qn_weight *w, const struct qn_weight *bias) {
    struct qn_cpu *b = qn_cpu_of(base);
    const struct qn_model_desc *d = b->base.desc;
    assert(n >= 1 && n <= b->base.opts.out_max && w->n_out == d->n_vocab && w->n_in == x->width);
    float *out = b->scratch;
    memset(out + x->width, 0, (size_t)(x->stride - x->width) * sizeof *out);
    for (int i = 0; i < n; i++) {
        b->isa->add_norm(x->p + (size_t)rows[i] * (size_t)x->stride, NULL, NULL, 0.0f, gain->vec, eps, x->width, out);
        qn_act_put(b, &b->out_act, n, i, 0, b->out_act.n_blocks, out);
    }
    struct product p = { .b = b, .n = 1, .rows = n, .act = &b->out_act, .by_row_tail = 1, .scale = d->logit_scale, .cap = d->logit_softcap };
    p.part[0] = (struct part){ w, bias ? bias->vec : NULL, b->logits, (size_t)d->n_vocab, 0 };
    run(&p, w->n_tiles);
    return b->logits;
}
