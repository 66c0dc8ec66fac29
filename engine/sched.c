/* Groups come, are computed, gain tokens, go: everything but the choice of who runs (sched_plan.c).
 *
 * A row of speculation is computed behind a seq's last token; append() turns it into a computed row when the token that was
 * sampled is the guessed one, and the rest is overwritten by later rows.
 *
 * Steps may be planned and their blocks given away while earlier ones still run, if the device does everything in the order
 * of the plans: then whoever gets a block writes to it after the last reader, and "computed" means "will be, before anybody
 * can ask". What is known late is only the token (append_late).
 *
 * What a running group holds:
 *
 *   before the fork          leader ── b0 b1 b2~        others: nothing        (~: partly filled)
 *   after it                 leader ── b0 b1 b2~
 *                            branch ── b0 b1 b2~        the same ids, one more reference each
 *   after their first write  leader ── b0 b1 b2~
 *                            branch ── b0 b1 b7~ b8     the plan copied b2 to b7; the last to write kept b2
 *
 * A preempted group forgets its blocks but no token; when it starts again its prompt and output are prefill, the prompt
 * once for all branches. Full blocks were published as they filled, so most of that is found again. */
#include "engine/sched_core.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- groups ---- */

int qn_group_new(struct qn_group **out, const struct qn_group_spec *spec) {
    if (spec->n_prompt < 1 || spec->max_tokens < 0 || spec->n_branches < 1 || spec->n_branches > QN_BRANCHES_MAX ||
        spec->priority_class < 0 || spec->priority_class >= QN_CLASSES || spec->max_tokens > INT32_MAX / 2 ||
        spec->n_prompt > INT32_MAX / 2)
        return QN_E_RANGE;
    size_t n_tokens = (size_t)spec->n_prompt + (size_t)spec->max_tokens, n_blocks = n_tokens / QN_SCHED_BLOCK_MIN + 1;
    size_t n = (size_t)spec->n_branches;
    struct qn_group *g = calloc(1, sizeof *g);
    if (!g) return QN_E_NOMEM;
    g->spec = *spec;
    g->seqs = calloc(n, sizeof *g->seqs);
    int32_t *words = calloc(n * (n_tokens + n_blocks), sizeof *words); /* every branch's tokens, then every branch's blocks */
    if (!g->seqs || !words) {
        free(words);
        free(g->seqs);
        free(g);
        return QN_E_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        struct qn_seq *q = &g->seqs[i];
        q->group = g;
        q->branch = (int)i;
        q->tokens = words + i * n_tokens;
        q->blocks = words + n * n_tokens + i * n_blocks;
        q->n_tokens = spec->n_prompt;
        memcpy(q->tokens, spec->prompt, (size_t)spec->n_prompt * sizeof *words);
    }
    g->spec.prompt = words;
    g->n_alive = spec->n_branches;
    g->tenant = -1;
    *out = g;
    return 0;
}

void qn_group_free(struct qn_group *g) {
    if (!g) return;
    free(g->seqs[0].tokens); /* the block that all arrays lie in */
    free(g->seqs);
    free(g);
}

int qn_sched_target(const struct qn_group *g) {
    return g->n_wave > 1 ? g->spec.n_prompt : qn_sched_leader(g)->n_tokens;
}

struct qn_seq *qn_sched_leader(const struct qn_group *g) {
    for (int i = 0; i < g->spec.n_branches; i++)
        if (g->seqs[i].in_wave) return &g->seqs[i];
    return NULL;
}

int qn_sched_blocks(const struct qn_sched *s, int n_tokens) {
    return (n_tokens + s->cfg.block_tokens - 1) / s->cfg.block_tokens;
}

/* ---- open, close ---- */

static int reserves_fit(const struct qn_sched_cfg *cfg, int total_blocks) {
    int64_t seqs = 0, blocks = 0;
    for (int c = 0; c < QN_CLASSES; c++) {
        if (cfg->reserved_seqs[c] < 0 || cfg->reserved_blocks[c] < 0) return 0;
        if (c == QN_CLASSES - 1) break; /* the lowest class has nobody below */
        seqs += cfg->reserved_seqs[c];
        blocks += cfg->reserved_blocks[c];
    }
    return seqs < cfg->seqs_max && blocks < total_blocks;
}

int qn_sched_open(struct qn_sched **out, const struct qn_sched_cfg *cfg, struct qn_kvcache *kv) {
    struct qn_kv_counts k;
    qn_kvcache_counts(kv, &k);
    if (cfg->seqs_max < 1 || cfg->seqs_max >= cfg->step_rows_max || cfg->waiting_max < 1 || cfg->waiting_max > (1 << 20) ||
        cfg->seqs_max > (1 << 16) || cfg->n_ctx < 1 || cfg->block_tokens < QN_SCHED_BLOCK_MIN || cfg->prefill_chunk_max < 0 ||
        !reserves_fit(cfg, k.total))
        return QN_E_RANGE;
    struct qn_sched *s = calloc(1, sizeof *s);
    if (!s) return QN_E_NOMEM;
    s->cfg = *cfg;
    if (s->cfg.age_ns == 0) s->cfg.age_ns = 30000000000LL;
    s->kv = kv;
    s->expires_ns = INT64_MAX;
    for (int c = 1; c < QN_CLASSES; c++) {
        s->slots_kept[c] = s->slots_kept[c - 1] + cfg->reserved_seqs[c - 1];
        s->blocks_kept[c] = s->blocks_kept[c - 1] + cfg->reserved_blocks[c - 1];
    }
    size_t n = (size_t)cfg->seqs_max, n_groups = n + (size_t)cfg->waiting_max;
    s->run = calloc(n, sizeof *s->run);
    s->items = calloc(n, sizeof *s->items);
    s->prefills = calloc(n, sizeof *s->prefills);
    s->copies = calloc(n, sizeof *s->copies);
    s->drops = calloc(n_groups, sizeof *s->drops);
    s->started = calloc(n, sizeof *s->started);
    s->seen = calloc((size_t)k.total, sizeof *s->seen);
    int rc = qn_vtc_open(&s->vtc, (int)n_groups);
    if (rc < 0 || !s->run || !s->items || !s->prefills || !s->copies || !s->drops || !s->started || !s->seen) {
        qn_sched_close(s);
        return QN_E_NOMEM;
    }
    *out = s;
    return 0;
}

void qn_sched_close(struct qn_sched *s) {
    if (!s) return;
    qn_vtc_close(s->vtc);
    free(s->run);
    free(s->items);
    free(s->prefills);
    free(s->copies);
    free(s->drops);
    free(s->started);
    free(s->seen);
    free(s);
}

/* ---- waiting and running ---- */

static void wait_push(struct qn_sched *s, struct qn_group *g) {
    g->next = NULL;
    g->prev = s->last;
    if (s->last) s->last->next = g;
    else s->first = g;
    s->last = g;
    s->n_waiting++;
    s->waiting_tokens += g->spec.n_prompt;
}

void qn_sched_unwait(struct qn_sched *s, struct qn_group *g) {
    if (g->prev) g->prev->next = g->next;
    else s->first = g->next;
    if (g->next) g->next->prev = g->prev;
    else s->last = g->prev;
    g->next = g->prev = NULL;
    s->n_waiting--;
    s->waiting_tokens -= g->spec.n_prompt;
}

static void unrun(struct qn_sched *s, struct qn_group *g) {
    int i = 0;
    while (s->run[i] != g) i++;
    memmove(&s->run[i], &s->run[i + 1], (size_t)(s->n_run - i - 1) * sizeof *s->run);
    s->n_run--;
    g->running = g->forked = 0;
}

/* From the end of the chain: the cheap order, and the one in which blocks should be evicted. */
static void release(struct qn_sched *s, struct qn_seq *q) {
    while (q->n_blocks > 0) qn_kvcache_unref(s->kv, q->blocks[--q->n_blocks]);
    q->n_computed = q->n_published = q->n_ahead = 0;
}

static void leave_wave(struct qn_sched *s, struct qn_seq *q) {
    release(s, q);
    if (q->in_wave) {
        q->in_wave = 0;
        q->group->n_wave--;
        s->n_slots--;
    }
    q->state = QN_SEQ_WAITING;
}

static void wait_again(struct qn_sched *s, struct qn_group *g) {
    unrun(s, g);
    g->fresh = 0;
    if (g->lack_ns < 0) g->lack_ns = s->now_ns;
    wait_push(s, g);
}

void qn_sched_yield(struct qn_sched *s, int i) {
    struct qn_group *g = s->run[i];
    for (int b = g->spec.n_branches - 1; b >= 0; b--)
        if (g->seqs[b].in_wave) leave_wave(s, &g->seqs[b]);
    wait_again(s, g);
    g->resumes = g->started;
    g->n_preempted++;
    s->preemptions++;
}

int qn_sched_preempt_one(struct qn_sched *s) {
    unsigned n = (unsigned)s->n_run;
    for (unsigned k = 0; k < n; k++) {
        unsigned i = (s->preempt_turn + k) % n;
        if (s->run[i]->fresh == 0) continue; /* or a group could be thrown back for ever */
        s->preempt_turn += k + 1;
        qn_sched_yield(s, (int)i);
        return 1;
    }
    return 0;
}

/* ---- coming ---- */

/* The most branches that can be held at once by slots and blocks, were nobody else here; 0: not even one. */
static int widest_wave(const struct qn_sched *s, const struct qn_group *g) {
    const struct qn_group_spec *spec = &g->spec;
    struct qn_kv_counts k;
    qn_kvcache_counts(s->kv, &k);
    int pool = k.total - s->blocks_kept[spec->priority_class];
    int held = spec->n_prompt + (spec->max_tokens > 0 ? spec->max_tokens - 1 : 0); /* the last token is never computed */
    int shared = spec->n_prompt / s->cfg.block_tokens, own = qn_sched_blocks(s, held) - shared;
    int wave = s->cfg.seqs_max - s->slots_kept[spec->priority_class];
    if (shared + own > pool) return 0;
    if (own > 0 && wave > (pool - shared) / own) wave = (pool - shared) / own;
    return wave < spec->n_branches ? wave : spec->n_branches;
}

static void note_expiry(struct qn_sched *s, int64_t at_ns) {
    if (at_ns < s->expires_ns) s->expires_ns = at_ns;
}

int qn_sched_admit(struct qn_sched *s, struct qn_group *g, int64_t now_ns) {
    int rc = 0, wave = widest_wave(s, g);
    if ((int64_t)g->spec.n_prompt + g->spec.max_tokens > s->cfg.n_ctx || wave < 1) rc = QN_E_TOO_LONG;
    else if (s->n_waiting >= s->cfg.waiting_max) rc = QN_E_FULL;
    else if (s->cfg.waiting_tokens_max > 0 && s->n_waiting > 0 &&
             s->waiting_tokens + g->spec.n_prompt > s->cfg.waiting_tokens_max)
        rc = QN_E_FULL;
    if (rc < 0) {
        s->rejected++;
        return rc;
    }
    g->wave_max = wave;
    g->order = ++s->n_orders;
    g->arrived_ns = g->lack_ns = now_ns;
    g->paused_ns = -1;
    g->tenant = qn_vtc_join(s->vtc, g->spec.tenant);
    wait_push(s, g);
    if (g->spec.deadline_ns > 0) note_expiry(s, g->spec.deadline_ns);
    if (s->cfg.wait_ns_max > 0) note_expiry(s, now_ns + s->cfg.wait_ns_max);
    return 0;
}

void qn_sched_set_chunk(struct qn_sched *s, int rows) {
    s->cfg.prefill_chunk_max = rows < 1 ? 1 : rows < s->cfg.step_rows_max ? rows : s->cfg.step_rows_max;
}

void qn_sched_hold_prefill(struct qn_sched *s) { s->hold_prefill = 1; }

/* ---- the step was computed ---- */

static void publish(struct qn_sched *s, struct qn_seq *q) {
    const struct qn_group_spec *spec = &q->group->spec;
    int n_known = q->n_tokens - qn_sched_is_late(q), n = q->n_computed < n_known ? q->n_computed : n_known;
    if (!spec->cache_prompt) return;
    while ((q->n_published + 1) * s->cfg.block_tokens <= n) {
        qn_kvcache_publish(s->kv, spec->salt, q->tokens, q->blocks, q->n_published);
        q->n_published++;
    }
}

static void settle(struct qn_seq *q) {
    q->state = q->n_tokens - q->n_computed <= 1 ? QN_SEQ_DECODE : QN_SEQ_PREFILL;
}

static void fork_wave(struct qn_sched *s, struct qn_group *g, struct qn_seq *leader) {
    g->forked = 1;
    settle(leader);
    for (int i = leader->branch + 1; i < g->spec.n_branches; i++) {
        struct qn_seq *q = &g->seqs[i];
        if (!q->in_wave) continue;
        for (int b = 0; b < leader->n_blocks; b++) qn_kvcache_ref(s->kv, q->blocks[b] = leader->blocks[b]);
        q->n_blocks = leader->n_blocks;
        q->n_computed = leader->n_computed;
        q->n_published = leader->n_published;
        settle(q);
    }
}

void qn_sched_computed(struct qn_sched *s, const struct qn_plan *p) {
    for (int i = 0; i < p->n_items; i++) {
        struct qn_seq *q = p->items[i].seq;
        struct qn_group *g = q->group;
        q->n_computed = p->items[i].start + p->items[i].n_rows - p->items[i].n_draft;
        q->n_ahead = p->items[i].n_draft;
        if (g->spec.score_prompt && p->items[i].logits == p->items[i].n_rows && q->n_computed <= g->spec.n_prompt &&
            q->n_computed > g->n_scored)
            g->n_scored = q->n_computed;
        publish(s, q);
        if (g->forked) settle(q);
        else if (q->n_computed == qn_sched_target(g)) fork_wave(s, g, q);
    }
}

int qn_sched_first(const struct qn_seq *q) {
    int n = q->group->spec.n_prompt;
    return q->state == QN_SEQ_DECODE && q->n_tokens == n && q->n_computed == n;
}

/* Room for one more token of a seq that has computed all it has. */
static void check_append(const struct qn_seq *q) {
    assert(q->state == QN_SEQ_DECODE && q->n_computed == q->n_tokens && !qn_sched_is_late(q));
    assert(q->n_tokens < q->group->spec.n_prompt + q->group->spec.max_tokens);
}

void qn_sched_append_late(struct qn_seq *q, int32_t stand_in) {
    check_append(q);
    assert(stand_in < 0 && q->n_ahead == 0);
    q->tokens[q->n_tokens++] = stand_in;
    q->group->fresh++;
}

void qn_sched_append(struct qn_sched *s, struct qn_seq *q, int32_t token) {
    struct qn_group *g = q->group;
    qn_vtc_charge(s->vtc, g->tenant, QN_VTC_OUTPUT);
    if (qn_sched_is_late(q)) { /* its row may be computed by now, its blocks may be gone */
        q->tokens[q->n_tokens - 1] = token;
        publish(s, q);
        return;
    }
    check_append(q);
    int guessed = q->n_ahead > 0 && q->tokens[q->n_tokens] == token;
    q->tokens[q->n_tokens++] = token;
    q->n_ahead = guessed ? q->n_ahead - 1 : 0;
    q->n_computed += guessed;
    g->fresh++;
}

/* ---- going ---- */

/* The leader goes before the prompt is complete: the next branch takes over what it has. */
static void hand_over(struct qn_seq *from, struct qn_seq *to) {
    memcpy(to->blocks, from->blocks, (size_t)from->n_blocks * sizeof *to->blocks);
    to->n_blocks = from->n_blocks;
    to->n_computed = from->n_computed;
    to->n_published = from->n_published;
    to->state = from->state;
    from->n_blocks = 0;
}

static void forget(struct qn_sched *s, struct qn_group *g) {
    if (g->running) unrun(s, g);
    else qn_sched_unwait(s, g);
    qn_vtc_leave(s->vtc, g->tenant);
    g->tenant = -1;
}

int qn_sched_finish(struct qn_sched *s, struct qn_seq *q) {
    struct qn_group *g = q->group;
    assert(q->state != QN_SEQ_DONE);
    if (q->in_wave && !g->forked && g->n_wave > 1 && q == qn_sched_leader(g)) {
        q->in_wave = 0;
        struct qn_seq *heir = qn_sched_leader(g);
        q->in_wave = 1;
        hand_over(q, heir);
    }
    leave_wave(s, q);
    q->state = QN_SEQ_DONE;
    if (--g->n_alive == 0) {
        forget(s, g);
        return 1;
    }
    if (g->running && g->n_wave == 0) wait_again(s, g); /* the next wave */
    return 0;
}

void qn_sched_remove(struct qn_sched *s, struct qn_group *g) {
    for (int i = g->spec.n_branches - 1; i >= 0; i--) {
        if (g->seqs[i].state == QN_SEQ_DONE) continue;
        leave_wave(s, &g->seqs[i]);
        g->seqs[i].state = QN_SEQ_DONE;
    }
    g->n_alive = 0;
    forget(s, g);
}

/* ---- counts and audit ---- */

void qn_sched_counts(const struct qn_sched *s, struct qn_sched_counts *out) {
    out->waiting = s->n_waiting;
    out->running = s->n_slots;
    out->waiting_tokens = s->waiting_tokens;
    out->preemptions = s->preemptions;
    out->rejected = s->rejected;
    out->dropped = s->dropped;
    out->joins = s->joins;
    out->prompts = 0;
    for (int i = 0; i < s->n_run; i++) out->prompts += !s->run[i]->forked;
}

static const char *audit_seq(const struct qn_sched *s, const struct qn_seq *q) {
    const struct qn_group *g = q->group;
    if (!q->in_wave) return q->n_blocks || q->n_computed ? "a seq without a slot holds blocks" : NULL;
    if (!g->running) return "a seq of a waiting group holds a slot";
    if (q->state != QN_SEQ_PREFILL && q->state != QN_SEQ_DECODE) {
        if (g->forked || q == qn_sched_leader(g)) return "a seq with a slot neither computes nor decodes";
        if (q->n_blocks) return "a branch holds blocks before the fork";
    }
    if (q->n_computed > q->n_tokens) return "more is computed than there are tokens";
    if (q->n_computed > q->n_blocks * s->cfg.block_tokens) return "computed tokens without blocks";
    if (q->n_published * s->cfg.block_tokens > q->n_computed) return "published before it was computed";
    if (q->n_published * s->cfg.block_tokens > q->n_tokens - qn_sched_is_late(q)) return "published before it was known";
    for (int i = 0; i < q->n_blocks; i++) s->seen[q->blocks[i]]++;
    return NULL;
}

static const char *audit_group(const struct qn_sched *s, const struct qn_group *g, int running) {
    int n_wave = 0, n_alive = 0;
    if (g->running != running) return "a group is in the wrong list";
    for (int i = 0; i < g->spec.n_branches; i++) {
        const char *bad = audit_seq(s, &g->seqs[i]);
        if (bad) return bad;
        n_wave += g->seqs[i].in_wave;
        n_alive += g->seqs[i].state != QN_SEQ_DONE;
    }
    if (n_wave != g->n_wave || (running && n_wave == 0)) return "a group's slots and their count differ";
    return n_alive == g->n_alive && n_alive > 0 ? NULL : "a group's live branches and their count differ";
}

const char *qn_sched_audit(const struct qn_sched *s) {
    struct qn_kv_counts k;
    const char *bad = qn_kvcache_audit(s->kv);
    int n_waiting = 0, n_slots = 0;
    int64_t n_tokens = 0;
    qn_kvcache_counts(s->kv, &k);
    memset(s->seen, 0, (size_t)k.total * sizeof *s->seen);
    for (const struct qn_group *g = s->first; g && !bad; g = g->next, n_waiting++) {
        bad = audit_group(s, g, 0);
        n_tokens += g->spec.n_prompt;
    }
    for (int i = 0; i < s->n_run && !bad; i++) {
        bad = audit_group(s, s->run[i], 1);
        n_slots += s->run[i]->n_wave;
    }
    for (int i = 0; i < k.total && !bad; i++)
        if (s->seen[i] != qn_kvcache_refs(s->kv, i)) bad = "a block's references and its holders differ";
    if (bad) return bad;
    if (n_slots != s->n_slots || n_slots > s->cfg.seqs_max) return "the slots and their count differ";
    if (n_waiting != s->n_waiting || n_tokens != s->waiting_tokens) return "the waiting groups and their count differ";
    return NULL;
}
