/* How much of a long prompt may ride along with running streams. A stream's gap between tokens is the length of a step, so
 * the prefill rows of a mixed step are sized by what rows have cost lately: the step may grow to `stretch` times that of
 * decoding alone (chunked prefill as in Sarathi-Serve, arXiv:2403.02310, with the budget in time instead of tokens).
 *
 * A row far into a prompt costs more: it attends to all before it. How much more follows from the model's shape but for one
 * measured constant; the planner counts rows in units of one at position 0 (sched.h, row_ctx), and the average here is of
 * such units, so that it holds when a short prompt follows a long one.
 *
 * When a crowd arrives at once its last ones would wait long for the sake of its first ones' even gaps; so the stretch
 * grows with the number that waits, up to the chunk's own bound.
 *
 * Both averages follow the machine. To tell a slower machine from dearer rows, one step in MIXED_MOST leaves the prefill
 * out while one is under way. A step during which another process had the core must not count for many: what is far above an
 * average moves it no more than twice the average would. Rows are believed to be dear sooner than to be cheap: a step that
 * came out short costs nobody anything. */
#include "engine/engine_impl.h"

static const double KEEP = 0.8, KEEP_STALE = 0.65, KEEP_DEARER = 0.75, KEEP_CHEAPER = 0.9, JUMP = 2;
static const double ATTENTION_DEARER = 3; /* an attention product against one of the int8 matrices, measured; CPU */
enum { UNITS_LEAST = 4, ROW_CTX_LEAST = 64, ROW_CTX_MOST = 1 << 20, MIXED_MOST = 16, ASKED = -1 };

static void average(double *a, double v, double keep) {
    if (*a > 0 && v > JUMP * *a) v = JUMP * *a;
    *a = *a > 0 ? keep * *a + (1 - keep) * v : v;
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
        average(&p->decode_s, seconds, p->n_mixed < 0 ? KEEP_STALE : KEEP);
        p->decode_rows = decode_rows;
        p->n_mixed = 0;
        return;
    }
    if (decode_rows > 0 && p->decode_s == 0) return; /* what decoding would have taken is not known yet */
    p->n_mixed = decode_rows > 0 && p->n_mixed >= 0 ? p->n_mixed + 1 : 0;
    double extra = seconds - (decode_rows > 0 ? p->decode_s : 0);
    if (prefill_units >= UNITS_LEAST && extra > 0) average(&p->unit_s, extra / prefill_units, extra / prefill_units > p->unit_s ? KEEP_DEARER : KEEP_CHEAPER);
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
    double units = (stretch - 1) * (1 + n_waiting / 2) * p->decode_s / unit_s;
    return units >= most ? most : units > UNITS_LEAST ? (int)units : UNITS_LEAST;
}
