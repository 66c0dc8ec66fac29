/* sched: one rule a test, driven step by step with a model that always says the same token. */
#include "engine/sched.h"
#include "tests/run.h"

enum { BT = 16, S = 1000 };
#define MS 1000000LL

struct world {
    struct qn_kvcache *kv;
    struct qn_sched *s;
    const struct qn_plan *p;
    int64_t now;
    struct qn_group *live[128];
    int n_live;
};
static int paused[8]; /* by tenant */

static int may_run(const struct qn_seq *q) { return !paused[q->group->spec.tenant % 8]; }

static const struct qn_sched_cfg CFG = {.step_rows_max = 64, .seqs_max = 4, .waiting_max = 8, .waiting_tokens_max = 1000, .n_ctx = 512,
                                        .block_tokens = BT, .may_run = may_run};

static struct world open_world(const struct qn_sched_cfg *cfg, int n_blocks) {
    static const uint64_t secret[2] = {1, 2};
    struct world w = {.now = 1000 * MS};
    ASSERT_EQ(qn_kvcache_open(&w.kv, n_blocks, cfg->block_tokens, secret), 0);
    ASSERT_EQ(qn_sched_open(&w.s, cfg, w.kv), 0);
    return w;
}

static void take_out(struct world *w, struct qn_group *g);

static void close_world(struct world *w) {
    while (w->n_live > 0) take_out(w, w->live[0]);
    const char *bad = qn_sched_audit(w->s);
    if (bad) qn_test_fail(__FILE__, __LINE__, "audit: %s", bad);
    qn_sched_close(w->s);
    qn_kvcache_close(w->kv);
}

static struct qn_group *group(struct qn_group_spec spec) {
    static int32_t prompt[1024];
    struct qn_group *g = NULL;
    if (!spec.prompt) {
        for (int i = 0; i < spec.n_prompt && i < 1024; i++) prompt[i] = i;
        spec.prompt = prompt;
    }
    if (spec.n_branches == 0) spec.n_branches = 1;
    ASSERT_EQ(qn_group_new(&g, &spec), 0);
    return g;
}

static struct qn_group *add(struct world *w, struct qn_group_spec spec) {
    struct qn_group *g = group(spec);
    ASSERT_EQ(qn_sched_admit(w->s, g, w->now), 0);
    w->live[w->n_live++] = g;
    return g;
}

/* The scheduler has let go of it. */
static void gone(struct world *w, struct qn_group *g) {
    int i = 0;
    while (w->live[i] != g) i++;
    w->live[i] = w->live[--w->n_live];
    qn_group_free(g);
}

static void take_out(struct world *w, struct qn_group *g) {
    qn_sched_remove(w->s, g);
    gone(w, g);
}

/* Gives q a token; a branch with all its tokens ends. Frees the group with the last. */
static void give(struct world *w, struct qn_seq *q) {
    struct qn_group *g = q->group;
    if (q->n_tokens + 1 < g->spec.n_prompt + g->spec.max_tokens) qn_sched_append(w->s, q, 5);
    else if (qn_sched_finish(w->s, q)) gone(w, g);
}

static void step(struct world *w) {
    w->p = qn_sched_plan(w->s, w->now);
    qn_sched_computed(w->s, w->p);
    for (int i = 0; i < w->p->n_items; i++) {
        const struct qn_plan_item *it = &w->p->items[i];
        if (!it->sample) continue;
        struct qn_group *g = it->seq->group;
        int n = g->spec.n_branches, last = 0;
        int more = !it->fork;
        for (int k = 0; more; k++) { /* and on while the guesses come true */
            more = k < it->n_draft && it->seq->tokens[it->start + 1 + k] == 5 && it->seq->n_tokens + 1 < g->spec.n_prompt + g->spec.max_tokens;
            give(w, it->seq);
        }
        for (int b = 0; it->fork && b < n && !last; b++) {
            if (!qn_sched_first(&g->seqs[b])) continue;
            last = g->n_alive == 1 && g->spec.max_tokens == 1;
            give(w, &g->seqs[b]);
        }
    }
    const char *bad = qn_sched_audit(w->s);
    if (bad) qn_test_fail(__FILE__, __LINE__, "audit: %s", bad);
    w->now += MS;
}

static struct qn_sched_counts counts(const struct world *w) {
    struct qn_sched_counts c;
    qn_sched_counts(w->s, &c);
    return c;
}

TEST(sched, open_refuses_a_budget_that_cannot_serve) {
    struct qn_kvcache *kv;
    struct qn_sched *s = NULL;
    static const uint64_t secret[2] = {1, 2};
    ASSERT_EQ(qn_kvcache_open(&kv, 8, BT, secret), 0);
    struct qn_sched_cfg bad[5] = {CFG, CFG, CFG, CFG, CFG};
    bad[0].step_rows_max = bad[0].seqs_max; /* no row would be left for a prompt */
    bad[1].seqs_max = 0;
    bad[2].reserved_seqs[0] = 2, bad[2].reserved_seqs[2] = 2; /* nothing left for the lowest class */
    bad[3].reserved_blocks[1] = 8;
    bad[4].block_tokens = QN_SCHED_BLOCK_MIN - 1;
    for (int i = 0; i < 5; i++) EXPECT_EQ(qn_sched_open(&s, &bad[i], kv), QN_E_RANGE);
    EXPECT(!s);
    qn_sched_close(NULL);
    qn_kvcache_close(kv);
    struct qn_group *g = NULL;
    struct qn_group_spec spec = {.n_prompt = 0, .n_branches = 1};
    EXPECT_EQ(qn_group_new(&g, &spec), QN_E_RANGE);
    spec.n_prompt = 1, spec.n_branches = QN_BRANCHES_MAX + 1;
    EXPECT_EQ(qn_group_new(&g, &spec), QN_E_RANGE);
    spec.n_branches = 1, spec.priority_class = QN_CLASSES;
    EXPECT_EQ(qn_group_new(&g, &spec), QN_E_RANGE);
}

TEST(sched, admits_only_what_the_cache_can_hold) {
    struct world w = open_world(&CFG, 8); /* 128 tokens; the last token sampled is never computed */
    struct { int n_prompt, max_tokens, rc; } c[] = {{128, 0, 0}, {128, 1, 0}, {100, 29, 0}, {129, 0, QN_E_TOO_LONG}, {128, 2, QN_E_TOO_LONG},
        {100, 30, QN_E_TOO_LONG}, {500, 13, QN_E_TOO_LONG}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        struct qn_group *g = group((struct qn_group_spec){.n_prompt = c[i].n_prompt, .max_tokens = c[i].max_tokens});
        EXPECT_EQ(qn_sched_admit(w.s, g, w.now), c[i].rc);
        if (c[i].rc == 0) qn_sched_remove(w.s, g);
        qn_group_free(g);
    }
    EXPECT_EQ(counts(&w).rejected, 4);
    close_world(&w);
}

TEST(sched, the_queue_is_bounded_in_requests_and_tokens) {
    struct world w = open_world(&CFG, 64);
    struct qn_group *g[8], *more;
    for (int i = 0; i < 7; i++) g[i] = add(&w, (struct qn_group_spec){.n_prompt = 130, .max_tokens = 1});
    more = group((struct qn_group_spec){.n_prompt = 91, .max_tokens = 1});
    EXPECT_EQ(qn_sched_admit(w.s, more, w.now), QN_E_FULL); /* 910 + 91 > 1000 */
    qn_group_free(more);
    g[7] = add(&w, (struct qn_group_spec){.n_prompt = 90, .max_tokens = 1});
    EXPECT_EQ(counts(&w).waiting_tokens, 1000);
    take_out(&w, g[0]);
    g[0] = add(&w, (struct qn_group_spec){.n_prompt = 1, .max_tokens = 1});
    more = group((struct qn_group_spec){.n_prompt = 1, .max_tokens = 1});
    EXPECT_EQ(qn_sched_admit(w.s, more, w.now), QN_E_FULL); /* the ninth */
    qn_group_free(more);
    for (int i = 0; i < 8; i++) take_out(&w, g[i]);
    EXPECT_EQ(counts(&w).waiting, 0);
    EXPECT_EQ(counts(&w).waiting_tokens, 0);
    close_world(&w);
}

/* With one slot the order of starting is the order. */
TEST(sched, order_is_class_deadline_share_arrival) {
    struct qn_sched_cfg cfg = CFG;
    cfg.seqs_max = 1;
    struct world w = open_world(&cfg, 64);
    struct qn_group_spec spec[] = {
        {.n_prompt = 40, .max_tokens = 1, .priority_class = 3, .tenant = 1},
        {.n_prompt = 40, .max_tokens = 1, .priority_class = 1, .tenant = 1},
        {.n_prompt = 40, .max_tokens = 1, .priority_class = 1, .tenant = 1},
        {.n_prompt = 40, .max_tokens = 1, .priority_class = 1, .tenant = 2}, /* its tenant has had less than tenant 1 */
        {.n_prompt = 40, .max_tokens = 1, .priority_class = 1, .tenant = 1, .deadline_ns = 9 * S * MS},
        {.n_prompt = 40, .max_tokens = 1, .priority_class = 1, .tenant = 1, .deadline_ns = 8 * S * MS},
        {.n_prompt = 40, .max_tokens = 1, .priority_class = 0, .tenant = 1},
    };
    static const int want[] = {6, 5, 4, 3, 1, 2, 0};
    for (int i = 0; i < 7; i++) {
        spec[i].user = &spec[i];
        add(&w, spec[i]);
    }
    for (int i = 0; i < 7; i++) {
        const struct qn_plan *p = qn_sched_plan(w.s, w.now);
        ASSERT_EQ(p->n_started, 1);
        struct qn_group *g = p->started[0];
        EXPECT_EQ((struct qn_group_spec *)g->spec.user - spec, want[i]);
        qn_sched_computed(w.s, p);
        if (qn_sched_finish(w.s, &g->seqs[0])) gone(&w, g);
    }
    close_world(&w);
}

TEST(sched, decodes_go_first_and_prompts_fill_the_rest) {
    struct qn_sched_cfg cfg = CFG;
    cfg.prefill_chunk_max = 24;
    struct world w = open_world(&cfg, 64);
    struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 10, .max_tokens = 50});
    step(&w);
    struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 60, .max_tokens = 50, .salt = 1});
    struct qn_group *c = add(&w, (struct qn_group_spec){.n_prompt = 60, .max_tokens = 50, .salt = 2});
    static const int rows_b[] = {24, 24, 12, 1, 1}, rows_c[] = {0, 0, 12, 24, 24};
    for (int i = 0; i < 5; i++) {
        step(&w);
        int got_b = 0, got_c = 0;
        EXPECT(w.p->items[0].seq == &a->seqs[0] && w.p->items[0].n_rows == 1 && w.p->items[0].logits == 1);
        for (int k = 0; k < w.p->n_items; k++) {
            if (w.p->items[k].seq == &b->seqs[0]) got_b = w.p->items[k].n_rows;
            if (w.p->items[k].seq == &c->seqs[0]) got_c = w.p->items[k].n_rows;
        }
        EXPECT_EQ(got_b, rows_b[i]);
        EXPECT_EQ(got_c, rows_c[i]);
    }
    take_out(&w, a);
    take_out(&w, b);
    step(&w); /* nobody decodes: no chunk bound; c's whole rest had come */
    EXPECT_EQ(w.p->n_items, 1);
    take_out(&w, c);
    struct qn_group *d = add(&w, (struct qn_group_spec){.n_prompt = 63, .max_tokens = 2, .salt = 3});
    step(&w);
    EXPECT_EQ(w.p->items[0].n_rows, 63);
    take_out(&w, d);
    close_world(&w);
}

TEST(sched, the_lowest_class_and_youngest_yields) {
    struct world w = open_world(&CFG, 8);
    struct qn_group *old_low = add(&w, (struct qn_group_spec){.n_prompt = 32, .max_tokens = 60, .priority_class = 2, .salt = 1});
    step(&w);
    struct qn_group *high = add(&w, (struct qn_group_spec){.n_prompt = 32, .max_tokens = 60, .priority_class = 1, .salt = 2});
    step(&w);
    struct qn_group *low = add(&w, (struct qn_group_spec){.n_prompt = 14, .max_tokens = 60, .priority_class = 2, .salt = 3});
    int n_low = 0, n_old = 0;
    for (int i = 0; i < 40; i++) {
        step(&w);
        if (low->n_preempted && !n_low) n_low = high->n_preempted == 0 && old_low->n_preempted == 0 ? 1 : 2;
        if (old_low->n_preempted && !n_old) n_old = i;
    }
    EXPECT_EQ(n_low, 1);
    EXPECT(high->n_preempted == 0);
    EXPECT(low->seqs[0].n_tokens > 14); /* it kept what it had */
    EXPECT_EQ(high->seqs[0].n_tokens, 32 + 41);
    take_out(&w, old_low);
    take_out(&w, high);
    for (int i = 0; i < 3; i++) step(&w);
    EXPECT(low->running && low->seqs[0].n_tokens > 15);
    take_out(&w, low);
    close_world(&w);
}

TEST(sched, a_higher_class_takes_the_place_of_a_lower) {
    struct world w = open_world(&CFG, 64);
    struct qn_group *low[4], *high[2];
    for (int i = 0; i < 4; i++) low[i] = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 50, .priority_class = i < 2 ? 1 : 3});
    step(&w);
    EXPECT_EQ(counts(&w).running, 4);
    for (int i = 0; i < 2; i++) high[i] = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 50, .priority_class = 1});
    step(&w);
    EXPECT(high[0]->running && high[1]->running && low[0]->running && low[1]->running && !low[2]->running && !low[3]->running);
    struct qn_group *same = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 50, .priority_class = 1});
    step(&w);
    EXPECT(!same->running); /* its own class it waits for */
    EXPECT_EQ(counts(&w).preemptions, 2);
    for (int i = 0; i < 4; i++) take_out(&w, low[i]);
    for (int i = 0; i < 2; i++) take_out(&w, high[i]);
    take_out(&w, same);
    close_world(&w);
}

TEST(sched, reserved_slots_and_blocks_stay_free_for_their_class) {
    struct qn_sched_cfg cfg = CFG;
    cfg.reserved_seqs[0] = 1, cfg.reserved_seqs[1] = 1;
    cfg.reserved_blocks[0] = 4;
    struct world w = open_world(&cfg, 16);
    struct qn_group *g[5], *top;
    for (int i = 0; i < 3; i++) g[i] = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 8, .priority_class = 3});
    step(&w);
    EXPECT(g[0]->running && g[1]->running && !g[2]->running); /* two of four slots */
    g[3] = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 8, .priority_class = 1});
    g[4] = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 8, .priority_class = 0});
    step(&w);
    EXPECT(g[3]->running && g[4]->running && g[0]->running && g[1]->running);
    EXPECT_EQ(counts(&w).preemptions, 0);
    for (int i = 0; i < 5; i++) take_out(&w, g[i]);
    top = group((struct qn_group_spec){.n_prompt = 193, .max_tokens = 0, .priority_class = 1});
    EXPECT_EQ(qn_sched_admit(w.s, top, w.now), QN_E_TOO_LONG); /* 13 blocks, 12 for its class */
    qn_group_free(top);
    top = add(&w, (struct qn_group_spec){.n_prompt = 193, .max_tokens = 0, .priority_class = 0});
    take_out(&w, top);
    close_world(&w);
}

TEST(sched, lower_classes_leave_reserved_blocks_free) {
    struct qn_sched_cfg cfg = CFG;
    cfg.reserved_blocks[0] = 4;
    struct world w = open_world(&cfg, 12);
    struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 48, .max_tokens = 80, .priority_class = 1, .salt = 1});
    struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 40, .max_tokens = 80, .priority_class = 1, .salt = 2});
    struct qn_group *c = add(&w, (struct qn_group_spec){.n_prompt = 40, .max_tokens = 8, .priority_class = 1, .salt = 3});
    for (int i = 0; i < 60; i++) {
        step(&w);
        EXPECT(qn_kvcache_available(w.kv) >= 4); /* neither starting nor growing goes below */
    }
    EXPECT(a->running && b->n_preempted > 0 && !c->started);
    struct qn_group *top = add(&w, (struct qn_group_spec){.n_prompt = 60, .max_tokens = 4, .salt = 4});
    step(&w);
    EXPECT(top->running && a->running && w.p->n_preempted == 0);
    close_world(&w);
}

/* Two prompts that cannot both be held: the second does not start on blocks that the first one's rest will need. */
TEST(sched, long_prompts_do_not_throw_each_other_out) {
    struct qn_sched_cfg cfg = CFG;
    cfg.step_rows_max = 20;
    struct world w = open_world(&cfg, 16);
    struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 160, .max_tokens = 2, .salt = 1});
    struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 160, .max_tokens = 2, .salt = 2});
    for (int i = 0; i < 8; i++) {
        step(&w);
        EXPECT(a->running && !b->started);
    }
    for (int i = 0; i < 12; i++) step(&w);
    EXPECT_EQ(counts(&w).preemptions, 0);
    EXPECT_EQ(counts(&w).running + counts(&w).waiting, 0);
    close_world(&w);
}

TEST(sched, starts_as_soon_as_there_are_blocks) {
    struct world w = open_world(&CFG, 12);
    struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 60, .max_tokens = 40, .salt = 1});
    struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 60, .max_tokens = 40, .salt = 2});
    step(&w);
    struct qn_group *big = add(&w, (struct qn_group_spec){.n_prompt = 90, .max_tokens = 4, .salt = 3});
    struct qn_group *small = add(&w, (struct qn_group_spec){.n_prompt = 4, .max_tokens = 4, .salt = 4});
    for (int i = 0; i < 5; i++) step(&w);
    EXPECT(!big->started && !small->started); /* the small one does not overtake */
    take_out(&w, a);
    step(&w);
    EXPECT(big->running && b->running);
    close_world(&w);
}

TEST(sched, the_preempted_resume_before_others_start) {
    struct qn_sched_cfg cfg = CFG;
    cfg.seqs_max = 1;
    struct world w = open_world(&cfg, 32);
    struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 60, .max_tokens = 40, .tenant = 1});
    for (int i = 0; i < 5; i++) step(&w);
    struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 4, .tenant = 2}); /* has had less */
    ASSERT_EQ(qn_sched_preempt_one(w.s), 1);
    step(&w);
    EXPECT(a->running && !b->started);
    close_world(&w);
}

TEST(sched, a_paused_seq_keeps_its_blocks_for_a_second) {
    struct qn_sched_cfg cfg = CFG;
    cfg.seqs_max = 1;
    struct world w = open_world(&cfg, 16);
    struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 20, .max_tokens = 50, .tenant = 1, .cache_prompt = 1});
    step(&w);
    paused[1] = 1;
    struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 20, .max_tokens = 50, .tenant = 2});
    step(&w);
    int64_t since = w.now - MS;
    EXPECT_EQ(w.p->n_items, 0);
    EXPECT_EQ(w.p->wake_ns, since + 1000 * MS);
    EXPECT_EQ(a->seqs[0].n_blocks, 2);
    w.now = w.p->wake_ns;
    step(&w);
    EXPECT(b->running && !a->running && a->seqs[0].n_tokens == 21);
    paused[1] = 0;
    take_out(&w, b);
    step(&w);
    EXPECT(a->running && w.p->items[0].start == 16 && w.p->items[0].n_rows == 5); /* its full block was still known */
    take_out(&w, a);
    close_world(&w);
}

TEST(sched, deadlines_and_waiting_times_drop) {
    struct qn_sched_cfg cfg = CFG;
    cfg.seqs_max = 1;
    cfg.wait_ns_max = 50 * MS;
    struct world w = open_world(&cfg, 16);
    struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 50, .deadline_ns = w.now + 80 * MS});
    struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 50});
    struct qn_group *c = add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 50, .deadline_ns = w.now + 20 * MS});
    paused[0] = 1;
    step(&w);
    EXPECT(w.p->n_items == 0 && w.p->wake_ns == c->spec.deadline_ns);
    paused[0] = 0;
    w.now = c->spec.deadline_ns;
    step(&w);
    ASSERT_EQ(w.p->n_drops, 1);
    EXPECT(w.p->drops[0].group == c && w.p->drops[0].reason == QN_DROP_DEADLINE && a->running);
    w.now = b->arrived_ns + 50 * MS - 1;
    step(&w);
    EXPECT_EQ(w.p->n_drops, 0);
    w.now = b->arrived_ns + 50 * MS;
    step(&w);
    ASSERT_EQ(w.p->n_drops, 1);
    EXPECT(w.p->drops[0].group == b && w.p->drops[0].reason == QN_DROP_WAIT);
    w.now = a->spec.deadline_ns;
    step(&w);
    ASSERT_EQ(w.p->n_drops, 1);
    EXPECT(w.p->drops[0].group == a && w.p->n_items == 0 && counts(&w).running == 0); /* wherever it is */
    EXPECT_EQ(counts(&w).dropped, 3);
    gone(&w, a);
    gone(&w, b);
    gone(&w, c);
    close_world(&w);
}

TEST(sched, a_prompt_is_never_all_found) {
    struct world w = open_world(&CFG, 16);
    struct qn_group_spec spec = {.n_prompt = 64, .max_tokens = 1, .cache_prompt = 1};
    add(&w, spec);
    step(&w);
    struct qn_group *again = add(&w, spec);
    const struct qn_plan *p = qn_sched_plan(w.s, w.now);
    EXPECT_EQ(again->n_cached, 48);
    EXPECT(p->items[0].start == 48 && p->items[0].n_rows == 16 && p->items[0].logits == 1);
    qn_sched_computed(w.s, p);
    take_out(&w, again);
    spec.score_prompt = 1;
    spec.max_tokens = 0;
    struct qn_group *score = add(&w, spec);
    p = qn_sched_plan(w.s, w.now);
    EXPECT(score->n_cached == 0 && p->items[0].start == 0 && p->items[0].logits == 64 && p->items[0].sample == 0);
    qn_sched_computed(w.s, p);
    EXPECT_EQ(score->seqs[0].state, QN_SEQ_DECODE);
    take_out(&w, score);
    spec.cache_prompt = 0;
    struct qn_group *alone = add(&w, spec);
    step(&w);
    EXPECT_EQ(alone->n_cached, 0);
    take_out(&w, alone);
    close_world(&w);
}

static const struct qn_sched_cfg WIDE = {.step_rows_max = 400, .seqs_max = 4, .waiting_max = 8, .n_ctx = 512, .block_tokens = BT};

TEST(sched, rows_far_into_a_prompt_count_for_more) {
    struct qn_sched_cfg cfg = WIDE;
    cfg.prefill_chunk_max = 40;
    cfg.row_ctx = 100;
    struct world w = open_world(&cfg, 100);
    add(&w, (struct qn_group_spec){.n_prompt = 8, .max_tokens = 100});
    step(&w);
    add(&w, (struct qn_group_spec){.n_prompt = 400, .max_tokens = 1});
    int at = 0;
    const int want[] = {40, 28, 23, 20, 18, 17, 16}; /* 40 x 100 over 100 + 0, 40, 68, 91, 111, 129, 146 */
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        step(&w);
        EXPECT_EQ(w.p->items[1].start, at);
        EXPECT_EQ(w.p->items[1].n_rows, want[i]);
        at += want[i];
    }
    qn_sched_hold_prefill(w.s);
    step(&w);
    EXPECT_EQ(w.p->n_rows, 1); /* for one step */
    step(&w);
    EXPECT_EQ(w.p->n_rows, 1 + 15);
    qn_sched_set_chunk(w.s, 4);
    step(&w);
    EXPECT_EQ(w.p->n_rows, 1 + 2);
    close_world(&w);
}

TEST(sched, equal_prompts_are_computed_once) {
    struct world w = open_world(&WIDE, 100);
    int32_t own[120];
    for (int i = 0; i < 120; i++) own[i] = i < 101 ? i : 1000 + i;
    struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 120, .max_tokens = 4, .cache_prompt = 1});
    struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 120, .max_tokens = 4, .cache_prompt = 1, .prompt = own});
    struct qn_group *c = add(&w, (struct qn_group_spec){.n_prompt = 120, .max_tokens = 4, .cache_prompt = 1, .salt = 1});
    step(&w);
    EXPECT_EQ(w.p->n_rows, 240); /* b lets a compute what both have; c's salt is another */
    EXPECT(a->started && c->started && !b->started);
    EXPECT_EQ(counts(&w).joins, 1);
    EXPECT(counts(&w).waiting == 0 && counts(&w).prompts == 1); /* b holds a slot, and still waits in truth */
    step(&w);
    EXPECT(b->started);
    EXPECT_EQ(b->n_cached, 96);
    EXPECT_EQ(w.p->n_rows, 2 + 24);
    EXPECT_EQ(b->seqs[0].blocks[5], a->seqs[0].blocks[5]);
    close_world(&w);
}

TEST(sched, nobody_waits_for_less_than_two_blocks_or_for_unshared_ones) {
    struct world w = open_world(&WIDE, 100);
    int32_t own[100];
    for (int i = 0; i < 100; i++) own[i] = i < 31 ? i : 1000 + i;
    add(&w, (struct qn_group_spec){.n_prompt = 100, .max_tokens = 4, .cache_prompt = 1});
    add(&w, (struct qn_group_spec){.n_prompt = 100, .max_tokens = 4, .cache_prompt = 1, .prompt = own});
    add(&w, (struct qn_group_spec){.n_prompt = 100, .max_tokens = 4});
    add(&w, (struct qn_group_spec){.n_prompt = 100, .max_tokens = 4, .cache_prompt = 1, .score_prompt = 1});
    step(&w);
    EXPECT_EQ(w.p->n_rows, 400);
    EXPECT_EQ(counts(&w).joins, 0);
    close_world(&w);
}

/* Three chunks: the second request follows a block at a time; when the first goes, it goes on from where that was. */
TEST(sched, who_follows_goes_on_when_the_first_leaves) {
    struct qn_sched_cfg cfg = WIDE;
    cfg.step_rows_max = 100;
    for (int how = 0; how < 3; how++) {
        cfg.may_run = how == 2 ? may_run : NULL;
        struct world w = open_world(&cfg, 100);
        struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 130, .max_tokens = 4, .cache_prompt = 1, .tenant = 1});
        struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 300, .max_tokens = 4, .cache_prompt = 1});
        step(&w);
        EXPECT_EQ(w.p->n_rows, 100);
        EXPECT(!b->started);
        if (how == 0) take_out(&w, a);
        if (how == 2) paused[1] = 1;
        step(&w);
        EXPECT(b->started);
        EXPECT_EQ(b->n_cached, 96);
        EXPECT_EQ(w.p->n_rows, 100);
        if (how == 2) paused[1] = 0;
        for (int i = 0; i < 2; i++) step(&w);
        EXPECT(b->seqs[0].n_computed >= 300);
        close_world(&w);
    }
}

TEST(sched, branches_share_the_prompt_and_part_by_copy) {
    struct world w = open_world(&CFG, 16);
    struct qn_group *g = add(&w, (struct qn_group_spec){.n_prompt = 40, .max_tokens = 10, .n_branches = 3});
    const struct qn_plan *p = qn_sched_plan(w.s, w.now);
    ASSERT_EQ(p->n_items, 1);
    EXPECT(p->items[0].n_rows == 40 && p->items[0].fork && p->items[0].sample && p->items[0].logits == 1);
    qn_sched_computed(w.s, p);
    struct qn_kv_counts k;
    qn_kvcache_counts(w.kv, &k);
    EXPECT_EQ(k.held, 3); /* for three branches */
    for (int b = 0; b < 3; b++) {
        EXPECT(qn_sched_first(&g->seqs[b]));
        qn_sched_append(w.s, &g->seqs[b], 7 + b);
        EXPECT(!qn_sched_first(&g->seqs[b]));
    }
    p = qn_sched_plan(w.s, w.now);
    EXPECT_EQ(p->n_items, 3);
    ASSERT_EQ(p->n_copies, 2); /* the last to write keeps the original */
    for (int i = 0; i < 2; i++) EXPECT(p->copies[i].from == g->seqs[2].blocks[2] && p->copies[i].to == g->seqs[i].blocks[2] && p->copies[i].n_tokens == 8);
    qn_sched_computed(w.s, p);
    qn_kvcache_counts(w.kv, &k);
    EXPECT_EQ(k.held, 5);
    EXPECT_EQ(qn_sched_finish(w.s, &g->seqs[1]), 0);
    EXPECT_EQ(qn_sched_finish(w.s, &g->seqs[0]), 0);
    EXPECT_EQ(qn_sched_finish(w.s, &g->seqs[2]), 1);
    gone(&w, g);
    EXPECT_EQ(counts(&w).running, 0);
    close_world(&w);
}

TEST(sched, more_branches_than_slots_come_in_waves) {
    struct world w = open_world(&CFG, 64);
    struct qn_group *g = add(&w, (struct qn_group_spec){.n_prompt = 40, .max_tokens = 4, .n_branches = 10, .cache_prompt = 1});
    int steps = 0, forks = 0, tokens = 0;
    for (int alive = 1; alive && steps < 100; steps++) {
        const struct qn_plan *p = qn_sched_plan(w.s, w.now);
        qn_sched_computed(w.s, p);
        for (int i = 0; i < p->n_items; i++) {
            forks += p->items[i].fork;
            for (int b = 0; b < 10 && alive; b++) {
                struct qn_seq *q = &g->seqs[b];
                if (!(p->items[i].fork ? qn_sched_first(q) : p->items[i].sample && q == p->items[i].seq)) continue;
                tokens++;
                if (q->n_tokens < 43) qn_sched_append(w.s, q, b);
                else if (qn_sched_finish(w.s, q)) alive = 0;
            }
        }
        EXPECT(counts(&w).running <= 4);
    }
    EXPECT_EQ(tokens, 40);
    EXPECT_EQ(forks, 3); /* 4 + 4 + 2 */
    EXPECT_EQ(steps, 12);
    gone(&w, g);
    close_world(&w);
}

static int all_fives(const struct qn_seq *q, int32_t *out, int most) { /* give() says 5 for ever */
    (void)q;
    for (int i = 0; i < most; i++) out[i] = i == 4 ? 6 : 5;
    return most;
}

TEST(sched, guesses_count_when_they_come_true) {
    struct qn_sched_cfg cfg = CFG;
    cfg.draft = all_fives;
    cfg.draft_rows_max = 9;
    struct world w = open_world(&cfg, 64);
    struct qn_group *g = add(&w, (struct qn_group_spec){.n_prompt = 30, .max_tokens = 40});
    step(&w); /* token 31 */
    struct qn_seq *q = &g->seqs[0];
    const struct qn_plan *p = qn_sched_plan(w.s, w.now);
    EXPECT(p->items[0].start == 30 && p->items[0].n_rows == 9 && p->items[0].logits == 9 && p->items[0].n_draft == 8);
    qn_sched_computed(w.s, p);
    for (int k = 0; k < 5; k++) {
        EXPECT(q->n_computed == q->n_tokens);
        qn_sched_append(w.s, q, 5);
    }
    EXPECT(q->n_tokens == 36 && q->n_computed == 35); /* the fifth guess was wrong: its row counts for nothing */
    for (int k = 0; k < 40 && q->n_tokens < 66; k++) { /* one at a time, to the end of its room */
        p = qn_sched_plan(w.s, w.now);
        int room = 70 - 1 - q->n_tokens;
        EXPECT_EQ(p->items[0].n_draft, room < 8 ? room : 8);
        qn_sched_computed(w.s, p);
        qn_sched_append(w.s, q, 9);
    }
    EXPECT_EQ(q->n_tokens, 66);
    close_world(&w);
}

TEST(sched, guesses_keep_no_prompt_waiting) {
    struct qn_sched_cfg cfg = CFG;
    cfg.draft = all_fives;
    cfg.draft_rows_max = cfg.step_rows_max;
    cfg.prefill_chunk_max = 8;
    struct world w = open_world(&cfg, 64);
    for (int i = 0; i < 3; i++) add(&w, (struct qn_group_spec){.n_prompt = 10, .max_tokens = 400, .salt = 1 + (uint64_t)i});
    step(&w);
    struct qn_group *late = add(&w, (struct qn_group_spec){.n_prompt = 80, .max_tokens = 4});
    for (int i = 0; i < 10; i++) { /* it gets its chunk of every step; guesses go on after it only */
        step(&w);
        int wanted = i == 0 ? w.p->n_rows : 3 + 8;
        if (w.p->n_rows != wanted || w.p->items[w.p->n_items - 1].n_rows != 8) qn_test_fail(__FILE__, __LINE__, "step %d: %d items, %d rows", i, w.p->n_items, w.p->n_rows);
    }
    EXPECT(late->seqs[0].state == QN_SEQ_DECODE);
    step(&w);
    EXPECT(w.p->n_items == 4 && w.p->n_rows > 20 && w.p->n_rows <= cfg.step_rows_max);
    close_world(&w);
}

TEST(sched, preempt_one_never_takes_what_gained_nothing) {
    struct world w = open_world(&CFG, 64);
    EXPECT_EQ(qn_sched_preempt_one(w.s), 0);
    struct qn_group *a = add(&w, (struct qn_group_spec){.n_prompt = 100, .max_tokens = 20, .salt = 1});
    struct qn_group *b = add(&w, (struct qn_group_spec){.n_prompt = 10, .max_tokens = 20, .salt = 2});
    step(&w);
    EXPECT_EQ(qn_sched_preempt_one(w.s), 0); /* in the middle of a prompt */
    step(&w);
    EXPECT_EQ(qn_sched_preempt_one(w.s), 1);
    EXPECT_EQ(qn_sched_preempt_one(w.s), 1);
    EXPECT_EQ(qn_sched_preempt_one(w.s), 0);
    EXPECT(a->n_preempted == 1 && b->n_preempted == 1 && a->seqs[0].n_tokens == 101 && a->seqs[0].n_computed == 0);
    for (int i = 0; i < 2; i++) step(&w);
    EXPECT(a->running && b->running && a->seqs[0].n_tokens == 102);
    take_out(&w, a);
    take_out(&w, b);
    close_world(&w);
}

/* ---- over time ---- */

/* Class 0 never leaves a slot idle, deadlines and all; a request of each lower class still gets its turn, no later than
 * ageing says: one class up for each age, at last above the deadlines, and then what is running there must end. */
static void flood(int64_t age_ns) {
    struct qn_sched_cfg cfg = CFG;
    cfg.seqs_max = 2;
    cfg.age_ns = age_ns;
    struct world w = open_world(&cfg, 32);
    struct qn_group *low[4];
    int64_t born = w.now, done[4] = {0};
    for (int c = 0; c < 4; c++) low[c] = add(&w, (struct qn_group_spec){.n_prompt = 20, .max_tokens = 30, .priority_class = c, .tenant = 1});
    struct qn_seq *q[4] = {&low[0]->seqs[0], &low[1]->seqs[0], &low[2]->seqs[0], &low[3]->seqs[0]};
    int flooding = 0;
    for (int i = 0; i < 900; i++) {
        while (counts(&w).waiting < 6)
            add(&w, (struct qn_group_spec){.n_prompt = 20, .max_tokens = 6, .tenant = 2, .deadline_ns = w.now + 100000 * MS}), flooding++;
        for (int c = 0; c < 4; c++) {
            if (done[c] || q[c]->n_tokens < 49) continue;
            done[c] = w.now - born; /* all but its last token */
            take_out(&w, low[c]);
        }
        step(&w);
    }
    EXPECT(flooding > 100);
    for (int c = 0; c < 4; c++) {
        if (!done[c] || done[c] > (c + 1) * cfg.age_ns + 100 * MS)
            qn_test_fail(__FILE__, __LINE__, "class %d ended after %lld ms", c, (long long)(done[c] / MS));
    }
    close_world(&w);
}

TEST(sched, nobody_starves_under_a_flood_of_class_0) {
    flood(100 * MS);
    flood(5 * MS); /* the flood itself grows old: its deadlines must not count then */
}

/* Three tenants with requests of different shapes, one of which floods: under backlog the service of each differs by no more
 * than the paper's bound, 2 * max(longest prompt, 2 * tokens that can be in flight). */
TEST(sched, tenants_share_fairly_under_backlog) {
    struct qn_sched_cfg cfg = CFG;
    cfg.waiting_max = 64;
    cfg.waiting_tokens_max = 0;
    struct world w = open_world(&cfg, 64);
    struct { int n_prompt, max_tokens, keep, waiting; long served; } t[3] = {{60, 4, 2, 0, 0}, {8, 40, 2, 0, 0}, {30, 12, 20, 0, 0}};
    long bound = 2 * 2 * (4 * (60 + 40));
    for (int i = 0; i < 4000; i++) {
        for (uint64_t k = 0; k < 3; k++)
            for (; t[k].waiting < t[k].keep; t[k].waiting++)
                add(&w, (struct qn_group_spec){.n_prompt = t[k].n_prompt, .max_tokens = t[k].max_tokens, .tenant = k, .salt = k});
        w.p = qn_sched_plan(w.s, w.now);
        for (int k = 0; k < w.p->n_started; k++) {
            uint64_t who = w.p->started[k]->spec.tenant;
            t[who].served += w.p->started[k]->spec.n_prompt;
            t[who].waiting--;
        }
        qn_sched_computed(w.s, w.p);
        for (int k = 0; k < w.p->n_items; k++) {
            if (!w.p->items[k].sample) continue;
            t[w.p->items[k].seq->group->spec.tenant].served += 2;
            give(&w, w.p->items[k].seq);
        }
        w.now += MS;
        for (int a = 0; a < 3; a++)
            for (int b = 0; b < a; b++)
                if (labs(t[a].served - t[b].served) > bound) {
                    qn_test_fail(__FILE__, __LINE__, "step %d: tenant %d has had %ld, tenant %d %ld", i, a, t[a].served, b, t[b].served);
                    return;
                }
    }
    EXPECT(t[0].served > 5000);
    close_world(&w);
}

/* Idling saves nothing up: a tenant that comes back is not owed for the time it was away. */
TEST(sched, a_tenant_that_returns_starts_level) {
    struct qn_sched_cfg cfg = CFG;
    cfg.seqs_max = 1;
    struct world w = open_world(&cfg, 64);
    for (int i = 0; i < 50; i++) {
        add(&w, (struct qn_group_spec){.n_prompt = 40, .max_tokens = 2, .tenant = 1, .salt = 1});
        step(&w);
        step(&w);
    }
    int first[3] = {0};
    struct qn_group_spec one = {.n_prompt = 40, .max_tokens = 1, .tenant = 1, .salt = 1}, two = one;
    two.tenant = 2, two.salt = 2;
    for (int i = 0; i < 4; i++) add(&w, one), add(&w, two);
    for (int i = 0; i < 8; i++) {
        w.p = qn_sched_plan(w.s, w.now);
        ASSERT_EQ(w.p->n_started, 1);
        struct qn_group *g = w.p->started[0];
        if (i < 4) first[g->spec.tenant]++;
        qn_sched_computed(w.s, w.p);
        if (qn_sched_finish(w.s, &g->seqs[0])) gone(&w, g);
    }
    EXPECT(first[1] == 2 && first[2] == 2);
    close_world(&w);
}
