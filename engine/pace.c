/* How much of a long prompt may ride along with running streams. A stream's gap between tokens is the length of a step, so
 * the prefill rows of a mixed step are sized by what rows have cost lately: the step may grow to `stretch` times that of
 * decoding alone (chunked prefill as in Sarathi-Serve, arXiv:2403.02310, with the budget in time instead of tokens).
 *
 * When a crowd arrives at once its last ones would wait long for the sake of its first ones' even gaps; so the stretch
 * grows with the number that waits, up to the chunk's own bound.
 *
 * Both averages follow the machine: when a neighbour takes a core, decoding slows too, and the ratio stays right. */
#include "engine/engine_impl.h"

static const double KEEP = 0.8;
enum { ROWS_STEP = 8 };

static void average(double *a, double v) { *a = *a > 0 ? KEEP * *a + (1 - KEEP) * v : v; }

void qn_pace_note(struct qn_pace *p, int decode_rows, int prefill_rows, double seconds) {
    if (prefill_rows == 0) {
        if (decode_rows > 0) average(&p->decode_s, seconds);
        return;
    }
    double extra = seconds - (decode_rows > 0 ? p->decode_s : 0);
    if (decode_rows > 0 && p->decode_s == 0) return; /* what decoding would have taken is not known yet */
    if (prefill_rows >= ROWS_STEP && extra > 0) average(&p->row_s, extra / prefill_rows);
}

int qn_pace_chunk(const struct qn_pace *p, double stretch, int n_waiting, int least, int most) {
    if (p->decode_s == 0 || p->row_s == 0) return most;
    double rows = (stretch - 1) * (1 + n_waiting / 2) * p->decode_s / p->row_s;
    if (rows >= most) return most;
    int n = (int)rows / ROWS_STEP * ROWS_STEP;
    return n > least ? n : least;
}
