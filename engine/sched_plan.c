/* One step's plan. All running groups are served in one total order (rank, deadline, arrival), waiting ones are taken in
 * where their rank puts them, and whoever needs a slot or a block takes it from the END of that order, from groups that
 * this plan has not reached yet. So a planned row is never taken back, and the first of the order can always go on:
 * nothing deadlocks, and with ageing (below) everybody is first some day. A group that finds no block and has nobody
 * behind it to take one from keeps what it has and waits for those before it.
 *
 * Rank: the class, less one for each age_ns spent without service; below class 0 deadlines no longer count. A group that
 * its reader has held up for more than PAUSE_NS stands behind all classes.
 *
 * A waiting group that is first in order and cannot start holds up those behind it, else small ones would starve it. It
 * starts only when the blocks for all its present tokens are there beside those that running prefills still need, so that
 * two long prompts do not throw each other out by turns; growth by decoding is overcommitted and paid for by preemption.
 *
 * Equal prefixes are computed once: a prefill whose next blocks an earlier item of the same plan computes gets no rows in this
 * step, and takes the blocks over in the next one (requests with one system prompt that arrive together). */
#include <assert.h>
#include <string.h>

#include "engine/sched_core.h"

#define PAUSE_NS 1000000000LL
enum { JOIN_BLOCKS = 2, ROWS_LEAST = 2 };

/* ---- order ---- */

static int is_before(const struct qn_sched *s, const struct qn_group *a, const struct qn_group *b, int fair) {
    if (a->rank != b->rank) return a->rank < b->rank;
    int64_t da = a->spec.deadline_ns, db = b->spec.deadline_ns;
    if (a->rank >= 0 && da != db) return da > 0 && (db == 0 || da < db);
    if (fair && a->resumes != b->resumes) return a->resumes; /* its readers have begun, its tenant has paid */
    if (fair && a->tenant != b->tenant) {
        uint64_t ca = qn_vtc_counter(s->vtc, a->tenant), cb = qn_vtc_counter(s->vtc, b->tenant);
        if (ca != cb) return ca < cb;
    }
    return a->order < b->order;
}

/* Asks once a plan for each branch: the answer may change at any time (a reader on another thread makes room). A group
 * whose branches have not parted runs when all of them may: the last row of its prompt yields a token for each. */
static int group_may_run(const struct qn_sched *s, struct qn_group *g) {
    int any = 0, all = 1;
    for (int i = 0; i < g->spec.n_branches; i++) {
        struct qn_seq *q = &g->seqs[i];
        if (q->state == QN_SEQ_DONE || (g->running && !q->in_wave)) continue;
        q->may_run = !s->cfg.may_run || s->cfg.may_run(q);
        any |= q->may_run;
        all &= q->may_run;
    }
    return g->forked ? any : all;
}

static void set_rank(const struct qn_sched *s, struct qn_group *g) {
    if (group_may_run(s, g)) g->paused_ns = -1;
    else if (g->paused_ns < 0) g->paused_ns = s->now_ns;
    int64_t lacked = g->lacked_ns + (g->lack_ns >= 0 ? s->now_ns - g->lack_ns : 0);
    int64_t up = s->cfg.age_ns > 0 ? lacked / s->cfg.age_ns : 0;
    g->rank = up > g->spec.priority_class ? -1 : g->spec.priority_class - (int)up;
    if (g->running && g->paused_ns >= 0 && s->now_ns - g->paused_ns >= PAUSE_NS) g->rank = QN_CLASSES;
}

static void sort_running(struct qn_sched *s) {
    for (int i = 0; i < s->n_run; i++) set_rank(s, s->run[i]);
    for (int i = 1; i < s->n_run; i++) { /* nearly sorted since the last plan */
        struct qn_group *g = s->run[i];
        int j = i;
        for (; j > 0 && is_before(s, g, s->run[j - 1], 0); j--) s->run[j] = s->run[j - 1];
        s->run[j] = g;
    }
}

static struct qn_group *first_waiting(const struct qn_sched *s) {
    struct qn_group *best = NULL;
    for (struct qn_group *g = s->first; g; g = g->next)
        if (g->paused_ns < 0 && (!best || is_before(s, g, best, 1))) best = g;
    return best;
}

/* ---- blocks ---- */

static int blocks_kept(const struct qn_sched *s, const struct qn_group *g) {
    int class = g->rank < 0 ? 0 : g->rank < QN_CLASSES ? g->rank : g->spec.priority_class;
    return s->blocks_kept[class];
}

/* One block for run[i], taken from the last group behind it if need be. */
static int32_t take(struct qn_sched *s, int i) {
    while (qn_kvcache_available(s->kv) - 1 < blocks_kept(s, s->run[i])) {
        if (s->n_run - 1 == i) return -1;
        qn_sched_yield(s, s->n_run - 1);
        s->plan.n_preempted++;
    }
    return qn_kvcache_alloc(s->kv);
}

/* Makes room for tokens [n_computed, upto) of q in blocks that it alone may write to; returns up to where there is room. */
static int grow(struct qn_sched *s, int i, struct qn_seq *q, int upto) {
    int bt = s->cfg.block_tokens, at = q->n_computed / bt, kept = q->n_computed % bt;
    if (at < q->n_blocks && !qn_kvcache_writable(s->kv, q->blocks[at])) {
        int32_t copy = take(s, i);
        if (copy < 0) return q->n_computed;
        if (kept > 0) s->copies[s->plan.n_copies++] = (struct qn_plan_copy){q->blocks[at], copy, kept};
        qn_kvcache_unref(s->kv, q->blocks[at]);
        q->blocks[at] = copy;
    }
    while (q->n_blocks * bt < upto) {
        int32_t b = take(s, i);
        if (b < 0) return q->n_blocks * bt;
        q->blocks[q->n_blocks++] = b;
    }
    return upto;
}

/* Blocks that the wave's present tokens need. */
static int blocks_wanted(const struct qn_sched *s, const struct qn_group *g) {
    if (g->n_wave == 1) return qn_sched_blocks(s, qn_sched_leader(g)->n_tokens);
    int shared = g->spec.n_prompt / s->cfg.block_tokens, n = shared;
    for (int i = 0; i < g->spec.n_branches; i++)
        if (g->seqs[i].in_wave) n += qn_sched_blocks(s, g->seqs[i].n_tokens) - shared;
    return n;
}

/* Blocks that running groups still need for tokens they have. */
static int blocks_promised(const struct qn_sched *s) {
    int n = 0;
    for (int k = 0; k < s->n_run; k++) {
        const struct qn_group *g = s->run[k];
        if (!g->forked) {
            int more = blocks_wanted(s, g) - qn_sched_leader(g)->n_blocks;
            n += more > 0 ? more : 0;
            continue;
        }
        for (int i = 0; i < g->spec.n_branches; i++) {
            const struct qn_seq *q = &g->seqs[i];
            if (!q->in_wave || q->state != QN_SEQ_PREFILL) continue;
            int more = qn_sched_blocks(s, q->n_tokens) - q->n_blocks;
            n += more > 0 ? more : 0;
        }
    }
    return n;
}

/* ---- starting ---- */

/* Slots for n branches at w's rank, were run[n_stay..] gone: those of each rank and below may hold all but what is kept
 * for the ranks above. */
static int slots_fit(const struct qn_sched *s, const struct qn_group *w, int n, int n_stay) {
    int rank = w->rank < 0 ? 0 : w->rank;
    for (int c = 0; c <= rank; c++) {
        int used = n;
        for (int k = 0; k < n_stay; k++)
            if (c == 0 || s->run[k]->rank >= c) used += s->run[k]->n_wave;
        if (used > s->cfg.seqs_max - s->slots_kept[c]) return 0;
    }
    return 1;
}

/* Blocks left free when w has started, less what others count on; negative: too few. */
static int blocks_spare(const struct qn_sched *s, const struct qn_group *w, const struct qn_seq *leader, int target) {
    int n_idle = 0, n_hit = 0;
    if (w->spec.cache_prompt && !w->spec.score_prompt)
        n_hit = qn_kvcache_peek(s->kv, w->spec.salt, leader->tokens, target - 1, &n_idle);
    int spare = qn_kvcache_available(s->kv) - n_idle - (blocks_wanted(s, w) - n_hit) - blocks_kept(s, w);
    /* Beside others: what they were promised, and a block for each new branch to grow into. */
    return s->n_run > 0 ? spare - blocks_promised(s) - w->n_wave : spare;
}

static void choose_wave(struct qn_group *g, int n) {
    g->n_wave = n;
    for (int i = 0; n > 0; i++)
        if (g->seqs[i].state != QN_SEQ_DONE) g->seqs[i].in_wave = 1, n--;
}

static void clear_wave(struct qn_group *g) {
    g->n_wave = 0;
    for (int i = 0; i < g->spec.n_branches; i++) g->seqs[i].in_wave = 0;
}

/* Lets groups behind run[i] that rank below w yield until w can start. 0: it cannot, even so. */
static int make_way(struct qn_sched *s, struct qn_group *w, int i) {
    int n_stay = s->n_run, n_freed = 0;
    while (n_stay > i && s->run[n_stay - 1]->rank > w->rank) {
        const struct qn_group *v = s->run[--n_stay];
        for (int b = 0; b < v->spec.n_branches; b++) n_freed += v->seqs[b].n_blocks;
    }
    if (!slots_fit(s, w, w->n_wave, n_stay)) return 0;
    int room = qn_kvcache_available(s->kv) - blocks_promised(s);
    if (n_stay == s->n_run && s->n_run > 0 && s->stuck_order == w->order && room <= s->stuck_room) return 0;
    struct qn_seq *leader = qn_sched_leader(w);
    int target = qn_sched_target(w), spare = blocks_spare(s, w, leader, target);
    if (n_stay == 0 || spare + n_freed >= 0) { /* else nobody need suffer: it would not help */
        while (s->n_run > n_stay && (spare < 0 || !slots_fit(s, w, w->n_wave, s->n_run))) {
            qn_sched_yield(s, s->n_run - 1);
            s->plan.n_preempted++;
            spare = blocks_spare(s, w, leader, target);
        }
        if (spare >= 0) return 1;
    }
    s->stuck_order = w->order;
    s->stuck_room = room;
    return 0;
}

/* Takes w in as run[i]. */
static int start(struct qn_sched *s, struct qn_group *w, int i) {
    choose_wave(w, w->n_alive < w->wave_max ? w->n_alive : w->wave_max);
    if (!make_way(s, w, i)) {
        clear_wave(w);
        return 0;
    }
    qn_sched_unwait(s, w);
    memmove(&s->run[i + 1], &s->run[i], (size_t)(s->n_run - i) * sizeof *s->run);
    s->run[i] = w;
    s->n_run++;
    s->n_slots += w->n_wave;
    w->running = 1;
    w->resumes = 0;
    struct qn_seq *q = qn_sched_leader(w);
    if (w->spec.cache_prompt && !w->spec.score_prompt)
        q->n_blocks = qn_kvcache_match(s->kv, w->spec.salt, q->tokens, qn_sched_target(w) - 1, q->blocks, INT32_MAX);
    q->n_published = q->n_blocks;
    q->n_computed = q->n_blocks * s->cfg.block_tokens;
    q->state = QN_SEQ_PREFILL;
    return 1;
}

/* Its first rows are planned: now it is known what the cache had, and what it costs. */
static void tell_start(struct qn_sched *s, struct qn_group *g, int n_cached) {
    if (g->started) return;
    g->started = 1;
    g->started_ns = s->now_ns;
    g->n_cached = n_cached;
    s->started[s->plan.n_started++] = g;
    qn_vtc_charge(s->vtc, g->tenant, QN_VTC_INPUT * (uint64_t)(g->spec.n_prompt - n_cached));
}

/* ---- prompts that others are computing ---- */

static int shares(const struct qn_group *g) { return g->spec.cache_prompt && !g->spec.score_prompt; }

/* Blocks that others completed since this seq looked last. */
static void follow(struct qn_sched *s, int i, struct qn_seq *q, int target) {
    int bt = s->cfg.block_tokens;
    while (q->n_computed == q->n_blocks * bt && q->n_published == q->n_blocks && q->n_computed + bt < target) {
        int idle_too = qn_kvcache_available(s->kv) - 1 >= blocks_kept(s, s->run[i]);
        int32_t b = qn_kvcache_follow(s->kv, q->group->spec.salt, q->tokens, q->blocks, q->n_blocks, idle_too);
        if (b < 0) return;
        q->blocks[q->n_blocks++] = b;
        q->n_published++;
        q->n_computed += bt;
    }
}

/* 1: a seq that is planned already computes this one's next blocks in this very step, so many of them that waiting a step is
 * cheaper than computing them twice (a step reads all weights, as dear as a few dozen rows). Nobody waits for more than what
 * is in the plan; so whoever is ahead may be cancelled, paused or preempted, and the next plan goes on without it. */
static int is_ahead(const struct qn_sched *s, const struct qn_plan_item *it, const struct qn_seq *q, int target) {
    const struct qn_group *g = it->seq->group;
    int bt = s->cfg.block_tokens, from = q->n_computed, to = it->start + it->n_rows, most = (target - 1) / bt * bt;
    if (!g->spec.cache_prompt || g->spec.salt != q->group->spec.salt || it->start > from) return 0;
    if (to > most) to = most;
    if (to - from < JOIN_BLOCKS * bt) return 0;
    return !memcmp(it->seq->tokens, q->tokens, (size_t)(from + JOIN_BLOCKS * bt) * sizeof *q->tokens);
}

static int must_wait(const struct qn_sched *s, const struct qn_seq *q, int target, int n_items) {
    if (q->n_computed % s->cfg.block_tokens) return 0;
    for (int k = 0; k < n_items; k++)
        if (is_ahead(s, &s->prefills[k], q, target)) return 1;
    return 0;
}

/* ---- rows ---- */

/* Prompt rows that are to be scored do not share an item with rows that are not. */
static int same_kind_end(const struct qn_group *g, int from, int to) {
    if (!g->spec.score_prompt) return to;
    int borders[2] = {g->n_scored, g->spec.n_prompt};
    for (int k = 0; k < 2; k++)
        if (from < borders[k] && borders[k] < to) to = borders[k];
    return to;
}

/* How many of n rows from position `from` on the budget still pays for; a few are always free for the first in line. */
static int affordable(const struct qn_sched *s, int from, int n, int n_items) {
    if (s->cost_left == INT64_MAX) return n;
    int64_t m = s->cost_left / (s->cfg.row_ctx + from);
    if (m >= n) return n;
    if (m < ROWS_LEAST) m = n_items == 0 ? ROWS_LEAST : 0;
    return m < n ? (int)m : n;
}

static void spend(struct qn_sched *s, const struct qn_plan_item *it) {
    s->rows_left -= it->n_rows;
    if (s->cost_left == INT64_MAX) return;
    s->cost_left -= (int64_t)it->n_rows * (s->cfg.row_ctx + it->start);
    if (s->cost_left < s->cfg.row_ctx) s->rows_left = 0;
}

/* Rows of a prompt, or of what a preempted seq had; 1: some were planned. */
static int plan_prefill(struct qn_sched *s, int i, struct qn_seq *q, int target, int n_items) {
    struct qn_group *g = s->run[i];
    if (shares(g)) {
        follow(s, i, q, target);
        if (must_wait(s, q, target, n_items)) {
            s->joins++;
            return 0;
        }
    }
    int from = q->n_computed, n = target - from < s->rows_left ? target - from : s->rows_left;
    n = affordable(s, from, n, n_items);
    int to = grow(s, i, q, same_kind_end(g, from, from + n));
    if (to <= from) return 0;
    tell_start(s, g, from);
    struct qn_plan_item *it = &s->prefills[n_items];
    *it = (struct qn_plan_item){.seq = q, .start = from, .n_rows = to - from};
    it->fork = !g->forked && g->n_wave > 1 && to == target;
    it->sample = g->spec.max_tokens > 0 && (it->fork || to == q->n_tokens);
    if (it->fork) { /* after a preemption perhaps nobody waits for a first token any more */
        it->sample = 0;
        for (int b = 0; b < g->spec.n_branches; b++)
            if (g->seqs[b].in_wave && g->seqs[b].n_tokens == g->spec.n_prompt) it->sample = g->spec.max_tokens > 0;
    }
    it->logits = it->sample;
    if (g->spec.score_prompt && to <= g->spec.n_prompt && from >= g->n_scored) it->logits = it->n_rows;
    spend(s, it);
    return 1;
}

/* Guesses, or certain tokens, that fit: into the budgets, the output that is left, and blocks that nobody has to give up. Certain
 * ones come out of the rows of prompts: they cost as much and pay as surely. */
static int plan_draft(struct qn_sched *s, int i, struct qn_seq *q, int *logits) {
    const struct qn_group_spec *spec = &q->group->spec;
    if (!s->cfg.draft || spec->score_prompt || qn_sched_is_late(q)) return 0;
    int certain = s->cfg.certain ? s->cfg.certain(q, logits) : 0;
    if (!certain) *logits = 1;
    int most = certain ? s->rows_left : s->draft_left, room = spec->n_prompt + spec->max_tokens - q->n_tokens - 1;
    if (certain && most > certain) most = certain;
    if (most > room) most = room;
    int n_fits = q->n_blocks * s->cfg.block_tokens - q->n_tokens;
    if (most > n_fits && qn_kvcache_available(s->kv) - 1 >= blocks_kept(s, s->run[i]) + blocks_promised(s)) n_fits += s->cfg.block_tokens;
    if (most > n_fits) most = n_fits;
    int n = most > 0 ? s->cfg.draft(q, q->tokens + q->n_tokens, most) : 0;
    if (n > 0) n = grow(s, i, q, q->n_tokens + n) - q->n_tokens;
    *(certain ? &s->rows_left : &s->draft_left) -= n;
    return n;
}

static int plan_decode(struct qn_sched *s, int i, struct qn_seq *q) {
    if (grow(s, i, q, q->n_tokens) < q->n_tokens) return 0;
    int logits = 1, n = plan_draft(s, i, q, &logits);
    s->items[s->plan.n_items++] = (struct qn_plan_item){.seq = q, .start = q->n_tokens - 1, .n_rows = 1 + n, .logits = logits ? 1 + n : 1, .n_draft = n, .sample = 1};
    return 1;
}

static int wants_decode(const struct qn_seq *q) {
    return q->in_wave && q->state == QN_SEQ_DECODE && q->n_computed < q->n_tokens && q->may_run;
}

/* Plans run[i]; returns how many prefill items there are now. */
static int plan_group(struct qn_sched *s, int i, int n_prefills) {
    struct qn_group *g = s->run[i];
    int n_before = s->plan.n_items + n_prefills, lacking = 0;
    if (g->paused_ns >= 0) return n_prefills;
    if (!g->forked) {
        lacking = 1;
        if (s->rows_left > 0) n_prefills += plan_prefill(s, i, qn_sched_leader(g), qn_sched_target(g), n_prefills);
    }
    for (int b = 0; g->forked && b < g->spec.n_branches; b++) {
        struct qn_seq *q = &g->seqs[b];
        if (!q->in_wave || q->n_computed == q->n_tokens || !q->may_run) continue;
        lacking = 1;
        if (q->state == QN_SEQ_DECODE) plan_decode(s, i, q);
        else if (s->rows_left > 0) n_prefills += plan_prefill(s, i, q, q->n_tokens, n_prefills);
    }
    if (s->plan.n_items + n_prefills > n_before) {
        if (g->lack_ns >= 0) g->lacked_ns += s->now_ns - g->lack_ns;
        g->lack_ns = -1;
    } else if (lacking && g->lack_ns < 0) {
        g->lack_ns = s->now_ns;
    }
    return n_prefills;
}

static int count_decodes(const struct qn_sched *s) {
    int n = 0;
    for (int k = 0; k < s->n_run; k++) {
        const struct qn_group *g = s->run[k];
        for (int b = 0; g->forked && b < g->spec.n_branches; b++) n += wants_decode(&g->seqs[b]);
    }
    return n;
}

/* A prompt is under way: its rows pay for themselves, guesses only if they come true. */
static int wants_prefill(const struct qn_sched *s) {
    for (int k = 0; k < s->n_run; k++) {
        const struct qn_group *g = s->run[k];
        if (g->paused_ns < 0 && !g->forked) return 1;
        for (int b = 0; g->forked && b < g->spec.n_branches; b++) {
            const struct qn_seq *q = &g->seqs[b];
            if (q->in_wave && q->state != QN_SEQ_DECODE && q->n_computed < q->n_tokens && q->may_run) return 1;
        }
    }
    return 0;
}

/* ---- what expires ---- */

static int expiry_of(const struct qn_sched *s, const struct qn_group *g, int64_t *at) {
    int reason = QN_DROP_DEADLINE;
    *at = g->spec.deadline_ns > 0 ? g->spec.deadline_ns : INT64_MAX;
    if (!g->started && s->cfg.wait_ns_max > 0 && g->arrived_ns + s->cfg.wait_ns_max < *at) {
        *at = g->arrived_ns + s->cfg.wait_ns_max;
        reason = QN_DROP_WAIT;
    }
    return reason;
}

static void drop(struct qn_sched *s, struct qn_group *g, int reason) {
    qn_sched_remove(s, g);
    s->drops[s->plan.n_drops++] = (struct qn_plan_drop){g, (enum qn_drop_reason)reason};
    s->dropped++;
}

static void expire(struct qn_sched *s) {
    if (s->now_ns < s->expires_ns) return;
    s->expires_ns = INT64_MAX;
    for (struct qn_group *g = s->first, *next; g; g = next) {
        int64_t at;
        int reason = expiry_of(s, g, &at);
        next = g->next;
        if (at <= s->now_ns) drop(s, g, reason);
        else if (at < s->expires_ns) s->expires_ns = at;
    }
    for (int k = s->n_run - 1; k >= 0; k--) {
        int64_t at;
        int reason = expiry_of(s, s->run[k], &at);
        if (at <= s->now_ns) drop(s, s->run[k], reason);
        else if (at < s->expires_ns) s->expires_ns = at;
    }
}

/* Nothing runs although somebody would: whoever holds slots and blocks is paused, and will yield once that lasts. */
static int64_t wake_at(const struct qn_sched *s) {
    int64_t at = s->expires_ns;
    for (int k = 0; k < s->n_run; k++) {
        int64_t yields = s->run[k]->paused_ns + PAUSE_NS;
        if (s->run[k]->paused_ns >= 0 && yields > s->now_ns && yields < at) at = yields;
    }
    return at == INT64_MAX ? 0 : at > s->now_ns ? at : s->now_ns + 1;
}

/* Decodes have their rows; guesses may take up to half of what is left, as somebody may be admitted yet, and nothing beside a
 * prompt that is under way. */
static void share_rows(struct qn_sched *s, int n_decodes) {
    int left = s->cfg.step_rows_max - n_decodes, draft = s->cfg.draft_rows_max - n_decodes;
    if (draft > left / 2) draft = left / 2;
    s->draft_left = s->cfg.draft && n_decodes > 0 && draft > 0 && !wants_prefill(s) ? draft : 0;
    s->rows_left = left - s->draft_left;
    s->cost_left = INT64_MAX;
    if (n_decodes > 0 && s->hold_prefill) s->rows_left = 0;
    s->hold_prefill = 0;
    if (n_decodes == 0 || s->cfg.prefill_chunk_max == 0) return;
    if (s->rows_left > s->cfg.prefill_chunk_max) s->rows_left = s->cfg.prefill_chunk_max;
    if (s->cfg.row_ctx > 0) s->cost_left = (int64_t)s->cfg.prefill_chunk_max * s->cfg.row_ctx;
}

const struct qn_plan *qn_sched_plan(struct qn_sched *s, int64_t now_ns) {
    s->now_ns = now_ns;
    s->plan = (struct qn_plan){.items = s->items, .copies = s->copies, .drops = s->drops, .started = s->started};
    expire(s);
    sort_running(s);
    for (struct qn_group *g = s->first; g; g = g->next) set_rank(s, g);
    share_rows(s, count_decodes(s));
    int n_prefills = 0;
    struct qn_group *w = first_waiting(s);
    for (int i = 0;; i++) {
        if (w && (i == s->n_run || w->rank < s->run[i]->rank)) {
            int started = s->rows_left > 0 && start(s, w, i);
            if (!started && s->n_run == 0) drop(s, w, QN_DROP_NO_BLOCKS); /* somebody outside holds this pool's blocks */
            w = started ? first_waiting(s) : NULL;
        }
        if (i == s->n_run) break;
        n_prefills = plan_group(s, i, n_prefills);
    }
    memcpy(s->items + s->plan.n_items, s->prefills, (size_t)n_prefills * sizeof *s->items);
    s->plan.n_items += n_prefills;
    for (int k = 0; k < s->plan.n_items; k++) s->plan.n_rows += s->items[k].n_rows;
    if (s->plan.n_items == 0) s->plan.wake_ns = wake_at(s);
    return &s->plan;
}
