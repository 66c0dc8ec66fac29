/* Steps that overlap: while the device computes one, the next is planned and handed over, so that it never waits for the host; what a
 * step drew is read and told one step late.
 *
 *   device     | step 1      | step 2      | step 3      |
 *   host    1 ─┘ 2 ─┘ read 1 ┘ 3 ─┘ read 2 ┘ 4 ─┘ read 3 ┘
 *
 * Step 2 computes tokens that only the device knows: the scheduler has a stand-in in their place (sched.h), which the backend reads as
 * "what pick i drew" (backend.h). Once step 1 is read its tokens take their places, and what they fill is published. Nothing of step 1
 * depends on step 2 being there, so all is the same as without, bit for bit; only these two are decided without knowing step 1:
 *
 *   - Whether a branch goes on. One that has ended (a stop id or string; max_tokens is known ahead), failed or was closed has a row in
 *     step 2 whose draw is dropped. Its blocks are free at once and may be another's in step 3: the device does everything in the order of the
 *     calls, so the row was computed before anybody writes to them, and nobody else reads what it wrote.
 *   - What comes in meanwhile waits for step 3.
 *
 * A step that needs the host between its logits and the next one is read at once, and the next is planned with all known: if it scores a
 * prompt, holds guesses or a request that may guess next, one whose tokens are steered (constraints, thinking budgets), or a pick that the
 * backend leaves to the host (penalties over its history; the host therefore never counts a history with a stand-in). Looking for guesses
 * costs such a step too, so when nobody finds any, all rest.
 *
 * Thread: engine. For backends with draw_late; without it nothing here does anything. */
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/engine_impl.h"

enum { LOOKOUT_REST = 8 };

int qn_pipeline_open(struct qn_engine *e, struct qn_err *err) {
    e->overlaps = e->backend->ops->draw_late && !e->opts.no_overlap;
    if (!e->overlaps) return 0;
    e->flight.picks = calloc((size_t)e->picks_max, sizeof *e->flight.picks);
    e->flight.drawn = calloc((size_t)e->picks_max, sizeof *e->flight.drawn);
    return e->flight.picks && e->flight.drawn ? 0 : qn_fail(err, QN_E_NOMEM, "no memory for a step that overlaps");
}

void qn_pipeline_close(struct qn_engine *e) {
    free(e->flight.picks);
    free(e->flight.drawn);
}

void qn_pipeline_forget(struct qn_engine *e, const struct qn_stream *st) {
    for (int i = 0; e->flight.is_on && i < e->flight.n_picks; i++)
        if (e->flight.picks[i].st == st) e->flight.picks[i].st = NULL;
}

/* --- what may be read late ---------------------------------------------------------------------------------------- */

static int needs_host(const struct qn_plan_item *it) {
    const struct qn_group_spec *spec = &it->seq->group->spec;
    const struct qn_job *j = &((const struct qn_stream *)spec->user)->job;
    return it->n_draft || spec->score_prompt || spec->max_tokens == 0 || j->constraint || j->thinking.on;
}

static int may_be_late(const struct qn_engine *e, const struct qn_plan *p) {
    int n_rows = 0;
    for (int i = 0; i < p->n_items; i++) {
        if (needs_host(&p->items[i])) return 0;
        n_rows += p->items[i].logits;
    }
    return n_rows <= e->out_max; /* else they need more than one call */
}

/* 1: some of the next plan's decodes may hold guesses if all is known by then. (The scheduler takes none beside a prompt under way, or
 * for many decodes.) */
static int wants_guesses(struct qn_engine *e, const struct qn_plan *p, const struct qn_step_cost *c) {
    int n_draws = 0, wanted = 0, found = 0;
    for (int i = 0; i < p->n_items; i++) {
        n_draws += p->items[i].sample;
        wanted |= p->items[i].sample && qn_stream_guesses(p->items[i].seq->group->spec.user);
        found |= p->items[i].n_draft;
    }
    if (e->lookout.asked) e->lookout.rest = found ? 0 : LOOKOUT_REST;
    else e->lookout.rest -= e->lookout.rest > 0;
    e->lookout.asked = wanted && !c->prefill_rows && e->lookout.rest == 0 && !e->opts.no_speculation && n_draws < e->opts.draft_rows;
    return e->lookout.asked;
}

/* --- a step goes up ----------------------------------------------------------------------------------------------- */

/* Its draws are handed over and stay under way in e->flight. 0: the backend leaves some to the host. */
static int launch(struct qn_engine *e, const struct qn_plan *p, const struct qn_step_cost *c) {
    int n_rows = 0, n_picks = 0;
    for (int i = 0; i < p->n_items; i++)
        for (int k = p->items[i].n_rows - p->items[i].logits; k < p->items[i].n_rows; k++) qn_step_add_picks(e, &p->items[i], k, n_rows++, &n_picks);
    qn_step_describe_picks(e, n_picks);
    if (!qn_forward_draw_late(e->forward, e->out_rows, n_rows, (int)e->info.n_vocab, e->drawn, n_picks)) return 0;
    for (int i = 0; i < p->n_items; i++) qn_stream_rested(p->items[i].seq->group->spec.user);
    struct qn_flight f = {.is_on = 1, .n_picks = n_picks, .picks = e->picks, .drawn = e->drawn, .cost = *c};
    e->picks = e->flight.picks;
    e->drawn = e->flight.drawn;
    e->flight = f;
    return 1;
}

/* Stand-ins for what is under way, but for branches that are gone and those that the next token ends. */
static void stand_in(const struct qn_flight *f) {
    for (int i = 0; i < f->n_picks; i++) {
        const struct qn_pick *k = &f->picks[i];
        if (k->st->place != QN_ST_SCHEDULED || k->st->branches[k->branch].done) continue;
        const struct qn_group_spec *spec = &k->seq->group->spec;
        if (k->seq->n_tokens + 1 < spec->n_prompt + spec->max_tokens) qn_sched_append_late(k->seq, -1 - i);
    }
}

/* --- and down ----------------------------------------------------------------------------------------------------- */

static void land(struct qn_engine *e, const struct qn_flight *f) {
    e->backend->ops->read_late(e->backend, f->drawn, f->n_picks);
    for (int i = 0; i < f->n_picks; i++) {
        f->picks[i].id = f->drawn[i].id;
        if (f->picks[i].st) qn_step_use_pick(e, &f->picks[i]);
    }
    qn_step_count(e, &f->cost, qn_clock_ns());
}

int qn_pipeline_step(struct qn_engine *e, const struct qn_plan *p, const struct qn_step_cost *c) {
    struct qn_flight before = e->flight;
    int late = e->overlaps && !wants_guesses(e, p, c) && may_be_late(e, p) && launch(e, p, c);
    e->now.steps_overlapped += (uint64_t)before.is_on;
    if (before.is_on) land(e, &before);
    if (late) stand_in(&e->flight);
    else e->flight.is_on = e->flight.n_picks = 0;
    return late;
}

int qn_pipeline_land(struct qn_engine *e) {
    if (!e->flight.is_on) return 0;
    e->flight.is_on = 0;
    land(e, &e->flight);
    e->flight.n_picks = 0;
    return 1;
}
