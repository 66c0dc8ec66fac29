/* What steps hold and take, and the engine's counters as a snapshot that any thread may read while the engine thread goes on: a sequence lock whose
 * words are atomics, so that neither side waits and no read is torn (Boehm, MSPC 2012, section 4). */
#include <string.h>

#include "engine/engine_impl.h"

static const double RATE_KEEP = 0.9; /* weight of the past in the moving averages */

/* --- steps -------------------------------------------------------------------------------------------------------- */

void qn_engine_note_load(struct qn_engine *e) {
    struct qn_backend_load l = {.threads_active = 1};
    if (e->backend->ops->load) e->backend->ops->load(e->backend, &l);
    e->now.threads_active = l.threads_active;
    e->now.stalled_ns = l.stalled_ns;
    e->now.rescues = l.rescues;
}

static void note_lost(struct qn_engine *e) {
    const char *why = e->backend->ops->lost ? e->backend->ops->lost(e->backend) : NULL;
    if (!why) return;
    atomic_store(&e->lost, why);
    e->told = 1;
}

static int is_decode(const struct qn_plan_item *it) { return it->sample && it->n_rows == 1 + it->n_draft; }

static double prefill_units(const struct qn_engine *e, const struct qn_plan *p) {
    double sum = 0;
    for (int i = 0; i < p->n_items; i++) {
        const struct qn_plan_item *it = &p->items[i];
        if (!is_decode(it)) sum += it->n_rows * (1 + (double)it->start / e->pace.row_ctx);
    }
    return sum;
}

struct qn_step_cost qn_step_cost_of(const struct qn_engine *e, const struct qn_plan *p, int64_t t0) {
    struct qn_step_cost c = {.t0 = t0, .prefill_units = prefill_units(e, p)};
    for (int i = 0; i < p->n_items; i++) c.decode_rows += is_decode(&p->items[i]) ? p->items[i].n_rows : 0;
    c.prefill_rows = p->n_rows - c.decode_rows;
    return c;
}

/* A step that was planned while another one ran began when that one was over. */
void qn_step_count(struct qn_engine *e, const struct qn_step_cost *c, int64_t t1) {
    int64_t t0 = c->t0 > e->now.last_step_ns ? c->t0 : e->now.last_step_ns;
    double s = (double)(t1 - t0) / 1e9 + 1e-9, mix = e->now.steps ? RATE_KEEP : 0;
    e->now.step_ms_mean = mix * e->now.step_ms_mean + (1 - mix) * s * 1e3;
    if (c->decode_rows) e->now.decode_tok_s = mix * e->now.decode_tok_s + (1 - mix) * c->decode_rows / s;
    if (c->prefill_rows) e->now.prefill_tok_s = mix * e->now.prefill_tok_s + (1 - mix) * c->prefill_rows / s;
    qn_pace_note(&e->pace, c->decode_rows, c->prefill_units, s);
    qn_engine_note_load(e);
    note_lost(e);
    e->now.steps++;
    e->now.last_step_ns = t1;
    e->now.busy_since_ns = t1; /* progress was made; set to 0 when there is nothing left to run */
}

/* --- the snapshot ------------------------------------------------------------------------------------------------- */

void qn_engine_publish(struct qn_engine *e) {
    uint64_t words[QN_STATS_WORDS] = {0};
    memcpy(words, &e->now, sizeof e->now);
    uint32_t v = atomic_load_explicit(&e->stats_version, memory_order_relaxed);
    atomic_store_explicit(&e->stats_version, v + 1, memory_order_relaxed);
    for (int i = 0; i < QN_STATS_WORDS; i++) atomic_store_explicit(&e->stats_words[i], words[i], memory_order_release);
    atomic_store_explicit(&e->stats_version, v + 2, memory_order_release);
}

void qn_engine_stats(const struct qn_engine *engine, struct qn_engine_stats *out) {
    struct qn_engine *e = (struct qn_engine *)(uintptr_t)engine;
    uint64_t words[QN_STATS_WORDS];
    for (;;) {
        uint32_t v = atomic_load_explicit(&e->stats_version, memory_order_acquire);
        for (int i = 0; i < QN_STATS_WORDS; i++) words[i] = atomic_load_explicit(&e->stats_words[i], memory_order_acquire);
        if (!(v & 1) && atomic_load_explicit(&e->stats_version, memory_order_relaxed) == v) break;
    }
    memcpy(out, words, sizeof *out);
    out->waiting = atomic_load(&e->pending);
    out->waiting_tokens = atomic_load(&e->pending_tokens);
    out->rejected = atomic_load(&e->rejected);
    int64_t since = atomic_load(&e->submitted_since);
    if (since && (!out->busy_since_ns || since < out->busy_since_ns)) out->busy_since_ns = since;
}
