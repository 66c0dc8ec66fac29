/* The engine thread: take what came in, plan, forward, sample, tell. One turn of the loop is one step of the batch; over a device
 * that goes on by itself, what a step drew is told in the next turn (pipeline.c).
 *
 * Nothing here allocates, logs, or takes a lock once warm; it sleeps on a futex when there is nothing to do. What a
 * request yields depends on its own tokens and seed only, so this file never lets the shape of the batch reach the
 * numbers: rows go down and logits come back by row.
 *
 * A request leaves by one of three doors: its branches finish, it fails (deadline, no room, an impossible draw), or its
 * consumer closes the stream. The stream itself is freed only after the consumer closed it AND the scheduler let go. */
#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/engine_impl.h"

/* --- telling ------------------------------------------------------------------------------------------------------ */

static void push(_Atomic(struct qn_stream *) *list, struct qn_stream *st, struct qn_stream **next) {
    struct qn_stream *old = atomic_load_explicit(list, memory_order_relaxed);
    do *next = old;
    while (!atomic_compare_exchange_weak(list, &old, st));
}

static void tell(struct qn_engine *e, struct qn_stream *st) {
    e->told = 1;
    if (!atomic_exchange(&st->queued, 1)) push(&e->news, st, &st->next_news);
}

static void wake_consumers(struct qn_engine *e) {
    if (e->told && e->opts.wake) e->opts.wake(e->opts.wake_user);
    e->told = 0;
}

static void uncount(struct qn_engine *e, struct qn_stream *st) {
    if (!st->counted) return;
    st->counted = 0;
    atomic_fetch_sub(&e->pending, 1);
    atomic_fetch_sub(&e->pending_tokens, st->group->spec.n_prompt);
}

/* The scheduler has let go of the group already. */
static void fail(struct qn_engine *e, struct qn_stream *st, int code) {
    uncount(e, st);
    st->place = QN_ST_OUT;
    e->now.finished_error++;
    atomic_store(&st->failed, code);
    tell(e, st);
}

/* --- taking what came in ------------------------------------------------------------------------------------------ */

static void take_submitted(struct qn_engine *e, struct qn_stream *list, int64_t now) {
    struct qn_stream *in_order = NULL;
    while (list) {
        struct qn_stream *next = list->next_submitted;
        list->next_submitted = in_order;
        in_order = list;
        list = next;
    }
    for (struct qn_stream *st = in_order; st; st = st->next_submitted) {
        st->place = QN_ST_SCHEDULED;
        int rc = qn_sched_admit(e->sched, st->group, now);
        if (rc < 0) fail(e, st, rc);
    }
}

static void take_closed(struct qn_engine *e, struct qn_stream *list) {
    while (list) {
        struct qn_stream *st = list;
        list = st->next_closed;
        if (st->place == QN_ST_SCHEDULED) {
            qn_sched_remove(e->sched, st->group);
            e->now.finished_abort++;
        }
        uncount(e, st);
        st->place = QN_ST_OUT;
        qn_pipeline_forget(e, st);
        push(&e->dead, st, &st->next_dead);
        e->told = 1; /* so that somebody comes to free it */
    }
}

/* --- one step ----------------------------------------------------------------------------------------------------- */

static void do_copies(struct qn_engine *e, const struct qn_plan *p) {
    for (int i = 0; i < p->n_copies; i++)
        e->backend->ops->kv_copy(e->backend, p->copies[i].from, p->copies[i].to, p->copies[i].n_tokens);
}

static void do_drops(struct qn_engine *e, const struct qn_plan *p) {
    static const int code[] = {[QN_DROP_DEADLINE] = QN_E_DEADLINE, [QN_DROP_WAIT] = QN_E_FULL, [QN_DROP_NO_BLOCKS] = QN_E_TOO_LONG};
    for (int i = 0; i < p->n_drops; i++) fail(e, p->drops[i].group->spec.user, code[p->drops[i].reason]);
}

static void tell_started(struct qn_engine *e, const struct qn_plan *p) {
    for (int i = 0; i < p->n_started; i++) {
        struct qn_group *g = p->started[i];
        struct qn_stream *st = g->spec.user;
        uncount(e, st);
        e->now.prompt_tokens += (uint64_t)g->spec.n_prompt;
        e->now.cached_tokens += (uint64_t)g->n_cached;
        for (int b = 0; b < g->spec.n_branches && st->steer.constraint; b++)
            qn_guide_look_ahead(&st->branches[b].guide, &st->steer, NULL, 0, st->branches[b].ahead);
        qn_stream_started(st, g->n_cached);
        tell(e, st);
    }
}

/* Fills the arrays that the backend reads. Returns the number of rows whose logits are wanted. */
static int fill_batch(struct qn_engine *e, const struct qn_plan *p, struct qn_batch *b) {
    int row = 0, n_out = 0;
    for (int i = 0; i < p->n_items; i++) {
        const struct qn_plan_item *it = &p->items[i];
        e->batch_seqs[i] = (struct qn_batch_seq){.row0 = row, .n_rows = it->n_rows, .n_ctx = it->start + it->n_rows, .blocks = it->seq->blocks};
        for (int k = 0; k < it->n_rows; k++) {
            e->tokens[row + k] = it->seq->tokens[it->start + k];
            e->positions[row + k] = it->start + k;
            assert((uint32_t)e->tokens[row + k] < (uint32_t)e->model->desc.n_vocab || -1 - e->tokens[row + k] < e->flight.n_picks);
        }
        for (int k = it->n_rows - it->logits; k < it->n_rows; k++) e->out_rows[n_out++] = row + k;
        row += it->n_rows;
    }
    *b = (struct qn_batch){.n_rows = row, .n_seqs = p->n_items, .token = e->tokens, .pos = e->positions, .seqs = e->batch_seqs,
                           .n_out = n_out, .out_row = e->out_rows};
    return n_out;
}

static int take_sampler(struct qn_engine *e) {
    for (int i = 0;; i = (i + 1) % e->n_samplers)
        if (!atomic_exchange_explicit(&e->sampler_busy[i], 1, memory_order_acquire)) return i;
}

static uint32_t n_banned(const struct qn_pick *k) {
    return (int)k->position - k->seq->group->spec.n_prompt < k->st->job.min_tokens ? k->st->n_ban : 0;
}

/* One pick; runs on a compute thread. Which scratch it gets does not change what it yields. */
static void pick_one(void *arg, int i) {
    struct qn_engine *e = arg;
    struct qn_pick *k = &e->picks[i];
    const struct qn_job *j = &k->st->job;
    if (k->done) return;
    const float *row = e->logits + (size_t)k->logits_row * (size_t)e->model->desc.n_vocab;
    int s = take_sampler(e);
    if (k->score_id >= 0) {
        qn_sampler_score(e->samplers[s], row, (uint32_t)k->score_id, j->prompt_logprobs, &k->lp);
    } else if (qn_guided(&k->st->steer)) {
        qn_pick_guided(e, k, s, row, k->st->ban, n_banned(k));
    } else {
        float *own = (float *)(uintptr_t)row;
        if (k->copy) own = memcpy(e->sampler_row[s], row, (size_t)e->info.n_vocab * sizeof *row);
        int n_prompt = k->seq->group->spec.n_prompt;
        struct qn_history h = {.tokens = k->seq->tokens, .n_prompt = (size_t)n_prompt, .n = k->position, .mu = &k->st->branches[k->branch].mu};
        uint32_t n_ban = n_banned(k);
        k->id = qn_sampler_pick(e->samplers[s], &j->sampling, own, &h, (uint32_t)k->branch, k->position, k->st->ban, n_ban, NULL,
                                j->n_logprobs < 0 ? 0 : j->n_logprobs, j->n_logprobs < 0 ? NULL : &k->lp);
    }
    atomic_store_explicit(&e->sampler_busy[s], 0, memory_order_release);
}

static void end_branch(struct qn_engine *e, struct qn_stream *st, struct qn_seq *q, int reason) {
    if (reason == QN_FINISH_LENGTH) e->now.finished_length++;
    else e->now.finished_stop++;
    if (qn_sched_finish(e->sched, q)) st->place = QN_ST_OUT;
}

/* Nothing can be chosen: the constraint gave up, the request's bans left nothing, or the logits are not numbers. */
static int why_none(const struct qn_pick *k) {
    const struct qn_job *j = &k->st->job;
    if (k->st->steer.constraint && qn_constraint_failed(k->st->steer.constraint)) return QN_E_LIMIT;
    return j->sampling.n_bad || j->sampling.allowed || j->sampling.n_bias || n_banned(k) ? QN_E_RANGE : QN_E_INTERNAL;
}

void qn_step_use_pick(struct qn_engine *e, const struct qn_pick *k) {
    struct qn_stream *st = k->st;
    if (st->place != QN_ST_SCHEDULED || st->branches[k->branch].done) return; /* it ended in this very step */
    if (k->follows && !st->branches[k->branch].chain) return; /* a guess before it was wrong */
    if (k->score_id >= 0) {
        qn_stream_prompt(st, (uint32_t)k->score_id, &k->lp);
    } else if (k->id < 0 || (uint32_t)k->id >= e->info.n_vocab) {
        qn_sched_remove(e->sched, st->group);
        fail(e, st, why_none(k));
        return;
    } else {
        struct qn_branch *b = &st->branches[k->branch];
        e->now.output_tokens++;
        b->n_accepted += k->follows && !b->certain;
        int reason = qn_stream_token(st, k->branch, (uint32_t)k->id, st->job.n_logprobs < 0 ? NULL : &k->lp, e->tok);
        if (reason < 0) {
            qn_sched_append(e->sched, k->seq, k->id);
            if (qn_guided(&st->steer) && qn_pick_took(e, k)) {
                reason = QN_FINISH_STOP;
                qn_stream_finish(st, k->branch, QN_FINISH_STOP);
            }
        }
        b->chain = reason < 0 && k->draft == k->id;
        if (reason >= 0) end_branch(e, st, k->seq, reason);
    }
    tell(e, st);
}

void qn_step_describe_picks(struct qn_engine *e, int n_picks) {
    for (int i = 0; i < n_picks; i++) {
        struct qn_pick *k = &e->picks[i];
        const struct qn_job *j = &k->st->job;
        int scored = k->score_id >= 0, n_top = scored ? j->prompt_logprobs : j->n_logprobs;
        e->drawn[i] = (struct qn_backend_pick){.row = k->logits_row, .given = k->score_id, .sampling = &j->sampling, .branch = (uint32_t)k->branch,
                                               .position = k->position, .ban = k->st->ban, .n_ban = scored ? 0 : n_banned(k), .host = !scored && qn_guided(&k->st->steer), .n_top = n_top < 0 ? 0 : n_top,
                                               .lp = scored || n_top >= 0 ? &k->lp : NULL};
    }
}

/* Logits, and the picks that the backend draws itself; 1: some are left for the host. */
static int draw(struct qn_engine *e, const int32_t *rows, int n_rows, int n_picks) {
    if (!e->drawn) {
        e->logits = qn_forward_logits(e->forward, rows, n_rows);
        return 1;
    }
    qn_step_describe_picks(e, n_picks);
    e->logits = qn_forward_sample(e->forward, rows, n_rows, (int)e->info.n_vocab, e->drawn, n_picks);
    for (int i = 0; i < n_picks; i++) {
        e->picks[i].done = e->drawn[i].done;
        if (e->drawn[i].done) e->picks[i].id = e->drawn[i].id;
    }
    return e->logits != NULL;
}

/* Runs the picks gathered so far against one logits call. */
static void flush_picks(struct qn_engine *e, const int32_t *rows, int n_rows, int n_picks) {
    if (n_rows == 0) return;
    if (draw(e, rows, n_rows, n_picks)) e->backend->ops->parallel(e->backend, n_picks, pick_one, e);
    for (int i = 0; i < n_picks; i++) qn_step_use_pick(e, &e->picks[i]);
}

static struct qn_pick *next_pick(struct qn_engine *e, int *n) {
    assert(*n < e->picks_max);
    return &e->picks[(*n)++];
}

void qn_step_add_picks(struct qn_engine *e, const struct qn_plan_item *it, int k, int logits_row, int *n) {
    struct qn_seq *q = it->seq;
    struct qn_group *g = q->group;
    struct qn_stream *st = g->spec.user;
    int pos = it->start + k;
    if (pos + 1 < g->spec.n_prompt) { /* a prompt that is scored: this row knows the next token's odds */
        if (g->spec.score_prompt && pos + 1 >= st->n_scored)
            *next_pick(e, n) = (struct qn_pick){.st = st, .seq = q, .logits_row = logits_row, .score_id = q->tokens[pos + 1]};
        return;
    }
    if (!it->sample) return;
    struct qn_pick p = {.st = st, .seq = q, .branch = q->branch, .logits_row = logits_row, .score_id = -1, .position = (uint32_t)(pos + 1),
                        .follows = k >= it->n_rows - it->n_draft, .draft = k < it->n_rows - 1 ? q->tokens[pos + 1] : -1};
    if (!it->fork) *next_pick(e, n) = p;
    for (int b = 0; it->fork && b < g->spec.n_branches; b++) {
        if (!qn_sched_first(&g->seqs[b])) continue;
        p.seq = &g->seqs[b];
        p.branch = b;
        p.copy = 1;
        *next_pick(e, n) = p;
    }
}

/* Drafts without logits of their own: nothing was to be drawn. */
static void tell_certain(struct qn_engine *e, const struct qn_plan_item *it) {
    struct qn_stream *st = it->seq->group->spec.user;
    for (int k = 0; k < it->n_draft; k++) {
        uint32_t position = (uint32_t)(it->start + k + 1);
        qn_step_use_pick(e, &(struct qn_pick){.st = st, .seq = it->seq, .branch = it->seq->branch, .score_id = -1, .position = position,
                                      .follows = k > 0, .draft = it->seq->tokens[position], .id = it->seq->tokens[position]});
    }
}

static void sample(struct qn_engine *e, const struct qn_plan *p) {
    int row = 0, out = 0, n_rows = 0, n_picks = 0;
    int32_t *rows = e->out_rows;
    for (int i = 0; i < p->n_items; i++) {
        const struct qn_plan_item *it = &p->items[i];
        struct qn_stream *st = it->seq->group->spec.user;
        if (it->n_draft) {
            struct qn_branch *b = &st->branches[it->seq->branch];
            b->n_drafted += b->certain ? 0 : it->n_draft;
            b->n_accepted_before = b->n_accepted;
            if (it->logits == 1) tell_certain(e, it);
        }
        if (it->seq->group->spec.score_prompt && it->logits == it->n_rows && st->n_scored == 0) {
            qn_stream_prompt(st, (uint32_t)it->seq->tokens[0], NULL);
            tell(e, st);
        }
        for (int k = it->n_rows - it->logits; k < it->n_rows; k++) {
            if (n_rows == e->out_max) {
                flush_picks(e, rows + out - n_rows, n_rows, n_picks);
                n_rows = n_picks = 0;
            }
            assert(rows[out] == row + k);
            qn_step_add_picks(e, it, k, n_rows, &n_picks);
            n_rows++;
            out++;
        }
        row += it->n_rows;
    }
    flush_picks(e, rows + out - n_rows, n_rows, n_picks);
}

/* Requests that only score their prompt end when it is computed. */
static void end_scored(struct qn_engine *e, const struct qn_plan *p) {
    for (int i = 0; i < p->n_items; i++) {
        struct qn_seq *q = p->items[i].seq;
        struct qn_stream *st = q->group->spec.user;
        if (q->group->spec.max_tokens || q->state != QN_SEQ_DECODE || st->place != QN_ST_SCHEDULED) continue;
        for (int b = 0; b < q->group->spec.n_branches; b++) {
            if (q->group->seqs[b].state == QN_SEQ_DONE) continue;
            qn_stream_finish(st, b, QN_FINISH_LENGTH);
            end_branch(e, st, &q->group->seqs[b], QN_FINISH_LENGTH);
        }
        tell(e, st);
    }
}

/* Tells each guesser how it did. */
static void judge_drafts(struct qn_engine *e, const struct qn_plan *p) {
    for (int i = 0; i < p->n_items; i++) {
        if (p->items[i].n_draft == 0) continue;
        struct qn_stream *st = p->items[i].seq->group->spec.user;
        struct qn_branch *b = &st->branches[p->items[i].seq->branch];
        if (b->certain) continue;
        int n_accepted = b->n_accepted - b->n_accepted_before;
        qn_stream_guessed(st, p->items[i].n_draft, n_accepted);
        e->now.spec_drafts++;
        e->now.spec_draft_tokens += (uint64_t)p->items[i].n_draft;
        e->now.spec_accepted_tokens += (uint64_t)n_accepted;
    }
}

static void refresh_counts(struct qn_engine *e) {
    struct qn_kv_counts kv;
    struct qn_sched_counts sc;
    qn_kvcache_counts(e->kv, &kv);
    qn_sched_counts(e->sched, &sc);
    e->now.kv_total = kv.total;
    e->now.kv_free = kv.free;
    e->now.kv_held = kv.held;
    e->now.kv_cached = kv.cached;
    e->now.prefix_queries = kv.queries_tokens;
    e->now.prefix_hits = kv.hits_tokens;
    e->now.running = sc.running;
    e->n_waiting = sc.waiting + (sc.prompts > 1 ? sc.prompts - 1 : 0);
    e->now.preemptions = sc.preemptions;
    atomic_store(&e->running, sc.running);
}

static void run(struct qn_engine *e, const struct qn_plan *p) {
    int64_t t0 = qn_clock_ns();
    if (!e->now.busy_since_ns) e->now.busy_since_ns = t0;
    qn_engine_publish(e);
    struct qn_batch b;
    do_copies(e, p);
    fill_batch(e, p, &b);
    qn_forward_step(e->forward, &b);
    qn_sched_computed(e->sched, p);
    struct qn_step_cost cost = qn_step_cost_of(e, p, t0);
    if (e->drawn) qn_pick_prepare(e, p);
    if (qn_pipeline_step(e, p, &cost)) return;
    sample(e, p);
    judge_drafts(e, p);
    end_scored(e, p);
    qn_step_count(e, &cost, qn_clock_ns());
}

/* --- the loop ----------------------------------------------------------------------------------------------------- */

static void nap(struct qn_engine *e, uint32_t seen, int64_t until_ns) {
    atomic_store(&e->asleep, 1);
    if (atomic_load(&e->signal) == seen) {
        int64_t left = until_ns ? until_ns - qn_clock_ns() : 0;
        struct timespec ts = {.tv_sec = left / QN_S, .tv_nsec = left % QN_S};
        if (!until_ns || left > 0) syscall(SYS_futex, &e->signal, FUTEX_WAIT_PRIVATE, seen, until_ns ? &ts : NULL, NULL, 0);
    }
    atomic_store(&e->asleep, 0);
}

/* Sizes the prefill of the next step; 1: it may have none. */
static int set_pace(struct qn_engine *e) {
    qn_sched_set_chunk(e->sched, qn_pace_chunk(&e->pace, e->opts.stretch, e->n_waiting, e->opts.prefill_chunk));
    int stale = qn_pace_stale(&e->pace);
    if (stale) qn_sched_hold_prefill(e->sched);
    return stale;
}

static void turn(struct qn_engine *e) {
    uint32_t seen = atomic_load(&e->signal);
    /* Closed before submitted: what is closed was submitted before, so the second list or the scheduler knows it. */
    struct qn_stream *closed = atomic_exchange(&e->closed, NULL);
    atomic_store(&e->submitted_since, 0);
    struct qn_stream *submitted = atomic_exchange(&e->submitted, NULL);
    int64_t now = qn_clock_ns();
    take_submitted(e, submitted, now);
    take_closed(e, closed);
    if (e->opts.preempt_every && e->now.steps % (uint64_t)e->opts.preempt_every == (uint64_t)e->opts.preempt_every - 1)
        qn_sched_preempt_one(e->sched);
    int held = e->opts.stretch > 0 && set_pace(e);
    const struct qn_plan *p = qn_sched_plan(e->sched, now);
    do_drops(e, p);
    tell_started(e, p);
    int did = p->n_items;
    int64_t wake_ns = p->wake_ns;
    if (did) run(e, p);
    else if (!(did = qn_pipeline_land(e))) e->now.busy_since_ns = 0;
    refresh_counts(e);
    qn_engine_publish(e);
    wake_consumers(e);
    if (!did && !held) nap(e, seen, wake_ns);
}

void *qn_engine_thread(void *engine) {
    struct qn_engine *e = engine;
    if (e->backend->ops->attach) e->backend->ops->attach(e->backend);
    while (!atomic_load(&e->stop)) turn(e);
    struct qn_stream *closed = atomic_exchange(&e->closed, NULL);
    take_submitted(e, atomic_exchange(&e->submitted, NULL), qn_clock_ns());
    take_closed(e, closed);
    return NULL;
}

/* --- scratch and the warm-up token -------------------------------------------------------------------------------- */

/* Touches every weight and every kernel once, so that the first request finds them warm and a model that cannot run is
 * found at start. */
static int warm_up(struct qn_engine *e, struct qn_err *err) {
    int32_t block = qn_kvcache_alloc(e->kv), pos = 0, row = 0;
    int64_t bos = qn_tokenizer_bos(e->tok);
    int32_t token = bos >= 0 && bos < e->info.n_vocab ? (int32_t)bos : 0;
    if (block < 0) return qn_fail(err, QN_E_INTERNAL, "the KV pool is empty");
    struct qn_batch_seq seq = {.n_rows = 1, .n_ctx = 1, .blocks = &block};
    struct qn_batch b = {.n_rows = 1, .n_seqs = 1, .token = &token, .pos = &pos, .seqs = &seq, .n_out = 1, .out_row = &row};
    qn_forward_step(e->forward, &b);
    struct qn_sampling greedy = {.top_p = 1, .repetition_penalty = 1};
    float *logits = (float *)(uintptr_t)qn_forward_logits(e->forward, &row, 1);
    struct qn_history h = {.tokens = &token, .n_prompt = 1, .n = 1};
    int32_t id = qn_sampler_pick(e->samplers[0], &greedy, logits, &h, 0, 1, NULL, 0, NULL, 0, NULL);
    struct qn_backend_pick pick = {.given = -1, .sampling = &greedy, .position = 1, .id = id};
    if (e->drawn) qn_forward_sample(e->forward, &row, 1, (int)e->info.n_vocab, &pick, 1);
    qn_kvcache_unref(e->kv, block);
    const char *lost = e->backend->ops->lost ? e->backend->ops->lost(e->backend) : NULL;
    if (lost) return qn_fail(err, QN_E_DEVICE, "%s does not compute: %s", e->info.device, lost);
    if (id < 0) return qn_fail(err, QN_E_DATA, "the model's first token is not a number: its weights are damaged");
    return pick.id == id ? 0 : qn_fail(err, QN_E_DEVICE, "%s does not compute: it draws token %d where the host draws %d", e->info.device, pick.id, id);
}

int qn_engine_step_open(struct qn_engine *e, struct qn_err *err) {
    size_t rows = (size_t)e->opts.step_rows, seqs = (size_t)e->opts.max_seqs + rows;
    e->n_samplers = e->backend->opts.n_threads;
    if (e->n_samplers < 1) e->n_samplers = 1;
    if (e->n_samplers > QN_SAMPLERS_MAX) e->n_samplers = QN_SAMPLERS_MAX;
    e->tokens = calloc(rows, sizeof *e->tokens);
    e->positions = calloc(rows, sizeof *e->positions);
    e->out_rows = calloc(rows, sizeof *e->out_rows);
    e->batch_seqs = calloc(seqs, sizeof *e->batch_seqs);
    /* Each logits row gives one pick, but for prompts that fork; all branches together hold at most max_seqs slots. */
    e->picks_max = e->out_max + e->opts.max_seqs;
    e->picks = calloc((size_t)e->picks_max, sizeof *e->picks);
    if (e->backend->ops->sample) e->drawn = calloc((size_t)e->picks_max, sizeof *e->drawn);
    if (!e->tokens || !e->positions || !e->out_rows || !e->batch_seqs || !e->picks || (e->backend->ops->sample && !e->drawn)) return qn_fail(err, QN_E_NOMEM, "no memory for a step");
    for (int i = 0; i < e->n_samplers; i++) {
        e->sampler_row[i] = malloc((size_t)e->model->desc.n_vocab * sizeof(float));
        e->sampler_mask[i] = calloc((size_t)e->info.n_vocab / 32 + 1, sizeof(uint32_t));
        if (!e->sampler_row[i] || !e->sampler_mask[i] || qn_sampler_open(&e->samplers[i], e->info.n_vocab) < 0 || qn_sampler_reserve(e->samplers[i], (size_t)e->info.n_ctx) < 0) return qn_fail(err, QN_E_NOMEM, "no memory for the samplers");
    }
    int rc = warm_up(e, err);
    if (rc == 0) rc = qn_pipeline_open(e, err);
    if (rc == 0) refresh_counts(e);
    qn_engine_note_load(e);
    qn_engine_publish(e);
    return rc;
}

void qn_engine_step_close(struct qn_engine *e) {
    for (int i = 0; i < e->n_samplers; i++) {
        qn_sampler_close(e->samplers[i]);
        free(e->sampler_row[i]);
        free(e->sampler_mask[i]);
    }
    free(e->tokens);
    free(e->positions);
    free(e->out_rows);
    free(e->batch_seqs);
    free(e->picks);
    free(e->drawn);
    qn_pipeline_close(e);
}
