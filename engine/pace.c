/* How much of a long prompt may ride along with running streams. A stream's gap between tokens is the length of a step, so
 * the prefill rows of a mixed step are sized by what rows have cost lately: the step may grow to `stretch` times that of
 * decoding alone (chunked prefill as in Sarathi-Serve, arXiv:2403.02310, with the budget in time instead of tokens).
 *
 * A row far into a prompt costs more: it attends to all before it. How much more follows from the model's shape but for one
 * measured constant; the planner counts rows in units of one at position 0 (sched.h, row_ctx), and what is learnt here is the
 * cost of such units, so that it holds when a short prompt follows a long one.
 *
 * When a crowd arrives at once its last ones would wait long for the sake of its first ones' even gaps; so the stretch
 * grows with the number that waits, up to the chunk's own bound.
 *
 * Both costs are medians of the last few steps: on a shared machine some steps take many times the usual, and averages, clipped
 * ones too, then take others' noise for the price of rows and starve the prompt. To tell a slower machine from dearer rows
 * one step in MIXED_MOST leaves the prefill out while one is under way. */
#include "engine/engine_impl.h"

static const double ATTENTION_DEARER = 3; /* an attention product against one of the int8 matrices, measured; CPU */
static const double CHEAPEST = 1.0 / 64;  /* a unit against a decoding row */
enum { UNITS_LEAST = 4, ROW_CTX_LEAST = 64, ROW_CTX_MOST = 1 << 20, MIXED_MOST = 12, ASKED = -1 };

/* Adds a value; the median of those kept. */
static double median(struct qn_pace_last *l, double v) {
    double sorted[QN_PACE_KEPT] = {0};
    l->v[l->n++ % QN_PACE_KEPT] = v;
    int n = l->n < QN_PACE_KEPT ? (int)l->n : QN_PACE_KEPT;
    for (int i = 0; i < n; i++) {
        int j = i;
        for (; j > 0 && sorted[j - 1] > l->v[i]; j--) sorted[j] = sorted[j - 1];
        sorted[j] = l->v[i];
    }
    return sorted[n / 2];
}

int qn_pace_row_ctx(const struct qn_model_desc *d) {
    double wide = (double)d->n_heads * d->head_dim, kv = (double)d->n_kv_heads * d->head_dim, global = 0;
    double matrices = d->n_layers * (d->d_model * (2 * wide + 2 * kv) + 3.0 * d->d_model * d->d_ff);
    for (int i = 0; i < d->n_layers; i++) global += d->window[i] == 0;
    double rows = matrices / (2 * wide * (global > 0 ? global : 1)) / ATTENTION_DEARER;
    return rows < ROW_CTX_LEAST ? ROW_CTX_LEAST : rows > ROW_CTX_MOST ? ROW_CTX_MOST : (int)rows;
}

void qn_pace_note(struct qn_pace *p, int decode_rows, double prefill_units, double seconds) {
    if (prefill_units == 0) {
        if (decode_rows == 0) return;
        p->decode_s = median(&p->decodes, seconds);
        p->decode_rows = decode_rows;
        p->n_mixed = 0;
        return;
    }
    if (decode_rows == 0) {
        p->n_mixed = 0;
        p->unit_s = median(&p->units, seconds / prefill_units);
        return;
    }
    if (p->decode_s == 0) return; /* what decoding would have taken is not known yet */
    p->n_mixed = p->n_mixed >= 0 ? p->n_mixed + 1 : 0;
    if (prefill_units < UNITS_LEAST) return;
    double most = p->decode_s / p->decode_rows; /* a row more in a step costs no more than one of few */
    double unit_s = median(&p->units, (seconds - p->decode_s) / prefill_units);
    p->unit_s = unit_s > most ? most : unit_s < most * CHEAPEST ? most * CHEAPEST : unit_s;
}

int qn_pace_stale(struct qn_pace *p) {
    if (p->n_mixed < MIXED_MOST) return 0;
    p->n_mixed = ASKED;
    return 1;
}

int qn_pace_chunk(const struct qn_pace *p, double stretch, int n_waiting, int most) {
    if (p->decode_s == 0) return most;
    /* Until a prefill was seen: a row of it costs no more than one of a small batch of decodes. */
    double unit_s = p->unit_s > 0 ? p->unit_s : p->decode_s / p->decode_rows;
    double units = (stretch - 1) * (1 + n_waiting) * p->decode_s / unit_s;
    return units >= most ? most : units > UNITS_LEAST ? (int)units : UNITS_LEAST;
}
