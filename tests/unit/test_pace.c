/* The pace of prefill beside decodes on a machine whose costs are known here and not to it: noise, spikes, a context that
 * costs other than assumed, a neighbour that comes and goes. */
#include "engine/base/rng.h"
#include "engine/engine_impl.h"
#include "tests/run.h"

#include <stdlib.h>

enum { STEPS_MAX = 4000, N_DECODE = 8, CHUNK = 256 };

struct machine {
    double decode_s, row_s;
    double row_ctx;         /* the true one */
    double slow;            /* what a neighbour makes of it */
    int noisy;
    uint32_t n;
    struct qn_pace pace;
};

static double noise(struct machine *m) { /* a fifth either way; one step in fifty takes four times as long */
    uint32_t ctr[4] = {m->n++, 0, 0, 0}, key[2] = {3, 5}, r[4];
    qn_philox4x32(ctr, key, r);
    if (!m->noisy) return 1;
    if (m->noisy == 2) return (0.7 + 0.6 * r[0] * 0x1p-32) * (r[1] % 10 == 0 ? 8 : r[1] % 10 < 4 ? 3 : 1); /* a core comes and goes */
    return (0.8 + 0.4 * r[0] * 0x1p-32) * (r[1] % 50 == 0 ? 4 : 1);
}

static double decode(struct machine *m) {
    double s = m->slow * noise(m) * m->decode_s;
    qn_pace_note(&m->pace, N_DECODE, 0, s);
    return s;
}

static int in_order(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A prompt's rows from..to beside the decodes, as the planner would cut them. The nth percentile of the steps' lengths over
 * what decoding alone takes; *share: the prefill's part of the whole time. */
static double prefill(struct machine *m, int from, int to, int n_waiting, int percentile, double *share) {
    static double ratio[STEPS_MAX];
    double whole = 0, own = 0;
    int n = 0;
    while (from < to && n < STEPS_MAX) {
        if (qn_pace_stale(&m->pace)) {
            whole += decode(m);
            continue;
        }
        int rows = (int)((double)qn_pace_chunk(&m->pace, 2, n_waiting, CHUNK) * m->pace.row_ctx / (m->pace.row_ctx + from));
        if (rows < 2) rows = 2;
        if (rows > to - from) rows = to - from;
        double prefill_s = rows * m->row_s * (1 + from / m->row_ctx), s = m->slow * noise(m) * (m->decode_s + prefill_s);
        qn_pace_note(&m->pace, N_DECODE, rows * (1 + (double)from / m->pace.row_ctx), s);
        ratio[n++] = s / (m->slow * m->decode_s);
        whole += s, own += m->slow * prefill_s;
        from += rows;
    }
    ASSERT(n > 0 && from == to);
    qsort(ratio, (size_t)n, sizeof *ratio, in_order);
    if (share) *share = own / whole;
    return ratio[(n - 1) * percentile / 100];
}

static struct machine new_machine(double true_row_ctx, int noisy) {
    struct machine m = {.decode_s = 0.011, .row_s = 0.0005, .row_ctx = true_row_ctx, .slow = 1, .noisy = noisy, .pace = {.row_ctx = 1000}};
    for (int i = 0; i < 50; i++) decode(&m);
    return m;
}

TEST(pace, steps_keep_to_the_stretch_however_dear_context_is) {
    const double true_ctx[] = {400, 1000, 3000};
    for (int k = 0; k < 6; k++) {
        struct machine m = new_machine(true_ctx[k / 2], k % 2);
        for (int round = 0; round < 3; round++) {
            double share, q = prefill(&m, 0, 4000, 0, 95, &share);
            EXPECT(q <= (k % 2 ? 3 : 2.2));
            EXPECT(share >= 0.35 && share <= 0.6); /* neither starves */
        }
        EXPECT(prefill(&m, 0, 120, 0, 50, NULL) <= 3.3); /* a short one after a long one */
        EXPECT(prefill(&m, 3500, 3900, 0, 95, NULL) <= 3.3); /* and the end of a long one that was cached */
    }
}

TEST(pace, the_first_prefill_begins_with_care) {
    struct machine m = new_machine(1000, 0);
    EXPECT(qn_pace_chunk(&m.pace, 2, 0, CHUNK) <= N_DECODE); /* no row has been seen, and 256 would take eleven steps' time */
    EXPECT(prefill(&m, 0, 2000, 0, 100, NULL) <= 2.3);
    struct qn_pace fresh = {.row_ctx = 1000};
    EXPECT_EQ(qn_pace_chunk(&fresh, 2, 0, CHUNK), CHUNK); /* nobody decodes yet */
}

/* The whole machine becomes five times slower while a prompt is under way, and quick again: rows are not to blame. */
TEST(pace, a_neighbour_does_not_starve_the_prompt) {
    for (int noisy = 0; noisy < 2; noisy++) {
        struct machine m = new_machine(1000, noisy);
        double share;
        prefill(&m, 0, 1000, 0, 95, NULL);
        m.slow = 5;
        prefill(&m, 1000, 1500, 0, 95, NULL); /* it learns */
        EXPECT(prefill(&m, 1500, 4000, 0, 95, &share) <= 3);
        EXPECT(share >= 0.3);
        m.slow = 1;
        prefill(&m, 0, 4000, 0, 95, NULL);
        EXPECT(prefill(&m, 0, 4000, 0, 95, &share) <= 3);
        EXPECT(share >= 0.3);
    }
}

TEST(pace, a_core_that_comes_and_goes_starves_nobody) {
    for (int k = 0; k < 3; k++) {
        const double true_ctx[] = {400, 1000, 3000};
        struct machine m = new_machine(true_ctx[k], 2);
        double share;
        for (int round = 0; round < 3; round++) {
            prefill(&m, 0, 4000, 0, 95, &share);
            EXPECT(share >= 0.15 && share <= 0.7);
        }
    }
}

TEST(pace, a_crowd_stretches_steps_up_to_the_chunk) {
    struct machine m = new_machine(1000, 0);
    prefill(&m, 0, 1000, 0, 95, NULL);
    int alone = qn_pace_chunk(&m.pace, 2, 0, CHUNK), crowd = qn_pace_chunk(&m.pace, 2, 8, CHUNK);
    EXPECT(crowd >= 8 * alone && crowd <= 10 * alone);
    EXPECT_EQ(qn_pace_chunk(&m.pace, 2, 1000, CHUNK), CHUNK);
}

TEST(pace, context_weighs_by_the_models_shape) {
    static struct qn_model_desc d = {.n_layers = 30, .n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .d_model = 576, .d_ff = 1536};
    int all = qn_pace_row_ctx(&d);
    EXPECT(all > 500 && all < 2000);
    for (int i = 0; i < 25; i++) d.window[i] = 512; /* only five layers look all the way back */
    EXPECT(abs(qn_pace_row_ctx(&d) - 6 * all) <= 6);
}
