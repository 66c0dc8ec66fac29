/* Steps that overlap (engine/pipeline.c), over the CUDA plug-in: every request yields to the bit what it yields when each step is read before
 * the next is planned, whoever ends, leaves, branches, stalls or is preempted around it; and the host does read one step late, counted in steps. */
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/cuda/cuda.h"
#include "engine/engine_impl.h"
#include "tests/lib/engine_client.h"
#include "tests/run.h"

enum { N_REQ = 16, PROMPT_MOST = 70, N_OUT = 14 };

static struct said said[N_REQ], want[N_REQ], *list[N_REQ];
static uint32_t prompts[N_REQ][PROMPT_MOST], expected[N_REQ][PROMPT_MOST + N_OUT];
static char stop_text[N_REQ];
static uint32_t stop_id[N_REQ];

#ifdef QN_CUDA_EMU
static const char *const device = "cuda-emu";
#else
static const char *const device = "cuda";
#endif

static struct qn_constraint *form_of; /* of the engine that is open */
static const uint32_t hand_in[] = {5, 6, 7};

static struct qn_engine *open_engine(const char *family, struct qn_engine_opts o) {
    static char path[128];
    const char *folder = getenv("QN_BUILD");
    snprintf(path, sizeof path, "tests/data/tiny-%s.gguf", family);
    o.model_path = path;
    o.device = o.device ? o.device : device;
    o.plugin_dir = folder ? folder : "build/release";
    o.n_ctx = o.n_ctx ? o.n_ctx : 128;
    o.kv_bytes = o.kv_bytes ? o.kv_bytes : 4 << 20;
    struct qn_engine *e = client_open(o);
    ASSERT(e != NULL);
    struct qn_grammar *g;
    ASSERT_EQ(qn_grammar_new(&g, NULL), 0);
    static const char form[] = "<([a-z]{2,9}[ .,]){1,3}>certain ends";
    ASSERT_EQ(qn_constraint_new(&form_of, g, qn_g_regex(g, form, sizeof form - 1, &(struct qn_regex_opts){0}, NULL), qn_engine_trie(e, NULL), NULL), 0);
    return e;
}

static void close_engine(struct qn_engine *e) {
    qn_constraint_unref(form_of); /* before the trie that it reads goes */
    qn_engine_close(e);
}

/* One of each kind: greedy and sampled, with prefixes in common, stop ids and strings, min_tokens, branches, penalties (the host's draws),
 * a scored prompt, guesses, constraints, a bounded thinking. The stops are what the request says without them. */
static struct qn_job job(const struct qn_engine *e, int i) {
    uint32_t n_vocab = qn_engine_info(e)->n_vocab;
    size_t n = 3 + (size_t)(i * 23) % (PROMPT_MOST - 2);
    for (size_t k = 0; k < n; k++) prompts[i][k] = (uint32_t)((k + 1) * 2654435761u + (uint32_t)(i % 3 && k > 36 ? i : 0) * 40503u) % n_vocab;
    struct qn_job j = client_job(prompts[i], n, i == 9 ? 1 : i == 7 ? 4 : N_OUT - i % 4);
    j.n_logprobs = i % 3;
    if (i % 2) j.sampling.temperature = 0.7f + 0.05f * (float)i, j.sampling.seed = (uint64_t)i * 77;
    if (i % 4 == 3) j.sampling.top_p = 0.8f;
    if (i % 3 == 0 && stop_id[i]) j.stop_ids = &stop_id[i], j.n_stop_ids = 1, j.min_tokens = i % 2 && i != 9 ? 3 : 0;
    if (i % 3 == 1 && stop_text[i]) j.stop[0] = &stop_text[i], j.stop_n[0] = 1, j.n_stops = 1;
    if (i == 5 || i == 9 || i == 11) j.n_branches = 3;
    if (i == 7) j.sampling.repetition_penalty = 1.2f;
    if (i == 8) j.prompt_logprobs = 0;
    if (i == 10) j.cache_prompt = 0;
    if (i == 12 || i == 14) j.constraint = form_of;
    if (i == 13) j.thinking = (struct qn_thinking){.on = 1, .opened = 1, .open = "<", .n_open = 1, .close = ">>>", .n_close = 3, .max_tokens = 4, .hand_in = hand_in, .n_hand_in = 3};
    if (i % 4 == 2) { /* told what to expect: what it said before */
        j.speculate = 1;
        memcpy(expected[i], prompts[i], n * sizeof **prompts);
        memcpy(expected[i] + n, want[i].b[0].ids, (size_t)want[i].b[0].n * sizeof **prompts);
        j.prediction = expected[i];
        j.n_prediction = n + (size_t)want[i].b[0].n;
    }
    return j;
}

static int same(const struct said *a, const struct said *b, int n_branches) {
    int same = a->failed == b->failed && !b->broken && a->n_prompt_lp == b->n_prompt_lp && !memcmp(a->prompt_lp, b->prompt_lp, sizeof a->prompt_lp);
    for (int k = 0; k < n_branches; k++) {
        const struct said_branch *x = &a->b[k], *y = &b->b[k];
        same = same && x->n == y->n && x->finished && y->finished && x->reason == y->reason && x->stop_index == y->stop_index && x->n_output == y->n_output &&
               x->n_text == y->n_text && !memcmp(x->text, y->text, x->n_text) && !memcmp(x->ids, y->ids, sizeof x->ids) &&
               !memcmp(x->logprob, y->logprob, sizeof x->logprob) && !memcmp(x->top0, y->top0, sizeof x->top0);
    }
    return same;
}

static void check(const struct qn_engine *e, int i, const char *what) {
    if (!same(&want[i], &said[i], job(e, i).n_branches)) qn_test_fail(__FILE__, __LINE__, "request %d differs: %s", i, what);
}

static int needs_host(int i) { return i == 7 || i == 8 || (i >= 12 && i <= 14); }

/* The tokens that were told. */
static uint64_t run_all(struct qn_engine *e, int alone, int no_host, const char *what) {
    uint64_t n_tokens = 0;
    int n = 0;
    for (int i = 0; i < N_REQ; i++) {
        if (no_host && needs_host(i)) continue;
        ASSERT_EQ(client_submit(e, &said[i], job(e, i)), 0);
        list[n++] = &said[i];
        if (alone) ASSERT_EQ(client_wait(e, &list[n - 1], 1, 60), 1);
    }
    ASSERT_EQ(client_wait(e, list, n, 120), n);
    for (int i = 0; i < N_REQ; i++) {
        if (no_host && needs_host(i)) continue;
        if (what) check(e, i, what);
        for (int b = 0; b < job(e, i).n_branches; b++) n_tokens += (uint64_t)said[i].b[b].n;
        client_close(&said[i]);
    }
    return n_tokens;
}

/* The streams that were closed last may not be out of the plan yet. */
static struct qn_engine_stats settled(struct qn_engine *e) {
    struct qn_engine_stats s;
    int64_t end = qn_clock_ns() + 10 * QN_S;
    do {
        client_poll(e, 2);
        qn_engine_stats(e, &s);
    } while ((s.kv_held || s.running || s.busy_since_ns) && qn_clock_ns() < end);
    EXPECT_EQ(s.kv_held, 0);
    EXPECT_EQ(s.running, 0);
    EXPECT_EQ(s.kv_free + s.kv_cached, s.kv_total);
    EXPECT(qn_engine_lost(e) == NULL);
    return s;
}

/* What all requests say alone, each step read before the next is planned; first without stops, to find some that come true. */
static void read_at_once(const char *family) {
    struct qn_engine *e = open_engine(family, (struct qn_engine_opts){.no_overlap = 1, .no_prefix_cache = 1, .no_speculation = 1, .max_seqs = 8});
    memset(stop_text, 0, sizeof stop_text);
    memset(stop_id, 0, sizeof stop_id);
    run_all(e, 1, 0, NULL);
    for (int i = 0; i < N_REQ; i++) {
        stop_id[i] = said[i].b[0].ids[said[i].b[0].n / 2];
        for (size_t at = 2; at < said[i].b[0].n_text && !stop_text[i]; at++)
            if (!(said[i].b[0].text[at] & 0x80)) stop_text[i] = said[i].b[0].text[at];
    }
    run_all(e, 1, 0, NULL);
    memcpy(want, said, sizeof want);
    struct qn_engine_stats s = settled(e);
    EXPECT_EQ(s.steps_overlapped, 0);
    int reasons[3] = {0};
    for (int i = 0; i < N_REQ; i++)
        for (int b = 0; b < job(e, i).n_branches; b++) reasons[want[i].b[b].reason]++;
    printf("    %s: %d ended by an id, %d by a string, %d by length\n", family, reasons[QN_FINISH_STOP], reasons[QN_FINISH_STOP_STRING], reasons[QN_FINISH_LENGTH]);
    EXPECT(reasons[QN_FINISH_STOP] > 1 && reasons[QN_FINISH_STOP_STRING] > 1 && reasons[QN_FINISH_LENGTH] > 1);
    close_engine(e);
}

static void late_is_the_same(const char *family) {
    /* overlap: at least so many per cent of the steps. The host's draws keep all from overlapping as long as they last. */
    static const struct { const char *what; int alone, no_host, rows, chunk, preempt, seqs, no_cache, no_spec, blocks, overlap; } ways[] = {
        {"alone", 1, 0, 128, 64, 0, 8, 1, 1, 0, 50}, {"all at once", 0, 1, 128, 64, 0, 24, 0, 1, 0, 80}, {"some by the host", 0, 0, 128, 64, 0, 24, 0, 1, 0, 0},
        {"with guesses", 0, 1, 128, 64, 0, 24, 0, 0, 0, 0}, {"small chunks", 0, 1, 40, 7, 0, 24, 1, 1, 0, 80}, {"few slots", 0, 1, 24, 20, 0, 4, 0, 1, 0, 80}, {"few slots, some by the host", 0, 0, 24, 20, 0, 4, 0, 1, 0, 0},
        {"preempted", 0, 1, 64, 33, 2, 24, 0, 1, 0, 80}, {"few blocks", 0, 1, 64, 33, 3, 24, 0, 1, 14, 80}};
    read_at_once(family);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        struct qn_engine_opts o = {.step_rows = ways[w].rows, .prefill_chunk = ways[w].chunk, .max_seqs = ways[w].seqs, .preempt_every = ways[w].preempt,
                                   .no_prefix_cache = ways[w].no_cache, .no_speculation = ways[w].no_spec, .draft_rows = 40, .stretch = w % 2 ? -1 : 0};
        struct qn_engine *e = open_engine(family, o);
        if (ways[w].blocks) { /* so few that sequences throw each other out */
            o.kv_bytes = (int64_t)(qn_engine_info(e)->kv_bytes / (uint64_t)qn_engine_info(e)->kv_blocks) * ways[w].blocks;
            close_engine(e);
            e = open_engine(family, o);
            EXPECT_EQ(qn_engine_info(e)->kv_blocks, ways[w].blocks);
        }
        uint64_t n_tokens = run_all(e, ways[w].alone, ways[w].no_host, ways[w].what);
        if (w == 1) n_tokens += run_all(e, 0, 1, "again, with prefix hits");
        struct qn_engine_stats s = settled(e);
        EXPECT_EQ(s.output_tokens, n_tokens);
        if (w == 1) EXPECT(s.cached_tokens > 0);
        if (!ways[w].no_spec) EXPECT(s.spec_draft_tokens > 0);
        if (ways[w].preempt) EXPECT(s.preemptions > 0);
        EXPECT(100 * s.steps_overlapped >= (uint64_t)ways[w].overlap * s.steps);
        printf("    %s: %llu of %llu steps overlapped, %llu preemptions\n", ways[w].what, (unsigned long long)s.steps_overlapped, (unsigned long long)s.steps, (unsigned long long)s.preemptions);
        close_engine(e);
    }
}

TEST_SLOW(pipeline, late_ids_are_the_same_ids_tiny_llama, 300) { late_is_the_same("llama"); }
TEST_SLOW(pipeline, late_ids_are_the_same_ids_tiny_gemma3, 300) { late_is_the_same("gemma3"); }
TEST_SLOW(pipeline, late_ids_are_the_same_ids_tiny_qwen3, 300) { late_is_the_same("qwen3"); }

/* Clients that leave at any time, with a step of theirs under way, change nothing for those that stay. */
TEST_SLOW(pipeline, clients_that_leave_change_nothing_for_others, 120) {
    static struct said gone[6];
    read_at_once("llama");
    struct qn_engine *e = open_engine("llama", (struct qn_engine_opts){.max_seqs = 10, .preempt_every = 7, .step_rows = 64});
    for (int round = 0; round < 30; round++) {
        int i = round % N_REQ;
        struct said *p = &said[i];
        ASSERT_EQ(client_submit(e, p, job(e, i)), 0);
        for (int k = 0; k < 6; k++) {
            struct qn_job j = job(e, (i + k + 1) % N_REQ);
            j.max_tokens = 50;
            j.n_stops = j.n_stop_ids = 0;
            j.ignore_eos = 1;
            ASSERT_EQ(client_submit(e, &gone[k], j), 0);
        }
        for (int k = 0; k < 6; k++) {
            usleep((unsigned)(round * 1370 + k * 610) % 9000);
            client_poll(e, 0);
            client_close(&gone[k]);
        }
        ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
        check(e, i, "others left");
        client_close(p);
    }
    struct qn_engine_stats s = settled(e);
    EXPECT(s.finished_abort > 60 && s.steps_overlapped > 60);
    close_engine(e);
}

/* A reader that stalls has room for what two steps may say, or is left out. */
TEST_SLOW(pipeline, a_stalled_reader_loses_nothing, 120) {
    static struct said at_once, late, *p;
    struct qn_job j;
    for (int on = 0; on < 2; on++) {
        struct qn_engine *e = open_engine("llama", (struct qn_engine_opts){.no_overlap = !on, .n_ctx = 256});
        struct said *s = on ? &late : &at_once;
        j = job(e, 1);
        j.n_branches = 6, j.n_logprobs = 20, j.max_tokens = 90;
        ASSERT_EQ(client_submit(e, s, j), 0);
        s->hold = on;
        uint64_t before = 0;
        struct qn_engine_stats st = {0};
        for (int same_for = 0; on && same_for < 20; same_for = st.output_tokens == before && before ? same_for + 1 : 0, before = st.output_tokens) {
            client_poll(e, 10);
            qn_engine_stats(e, &st);
        }
        if (on) EXPECT(st.output_tokens < 6 * 90 && st.busy_since_ns == 0); /* it did stop somewhere, and nothing is under way */
        s->hold = 0;
        p = s;
        ASSERT_EQ(client_wait(e, &p, 1, 60), 1);
        EXPECT_EQ(s->broken, 0);
        client_close(s);
        settled(e);
        close_engine(e);
    }
    EXPECT(same(&at_once, &late, 6));
}

/* One greedy stream: its prompt and eleven decodes are twelve steps; each but the first is given to the device before the one before is
 * read. With a penalty the host draws, and no step may be given early. */
TEST_SLOW(pipeline, the_host_reads_one_step_late, 60) {
    static struct said s;
    struct said *p = &s;
    for (int penalty = 0; penalty < 2; penalty++) {
        struct qn_engine *e = open_engine("llama", (struct qn_engine_opts){.no_prefix_cache = 1});
        struct qn_job j = job(e, 0);
        j.max_tokens = 12;
        if (penalty) j.sampling.presence_penalty = 0.5f;
        ASSERT_EQ(client_submit(e, &s, j), 0);
        ASSERT_EQ(client_wait(e, &p, 1, 60), 1);
        EXPECT_EQ(s.b[0].n, 12);
        client_close(&s);
        struct qn_engine_stats st = settled(e);
        EXPECT_EQ(st.steps, 12);
        EXPECT_EQ(st.steps_overlapped, penalty ? 0 : 11);
        close_engine(e);
    }
}

/* The card fails with a step under way: every request ends with an error, nothing is held, and the engine says why. */
TEST_SLOW(pipeline, a_card_that_fails_ends_all_requests, 60) {
    for (int round = 0; round < 4; round++) {
        struct qn_engine *e = open_engine("llama", (struct qn_engine_opts){.max_seqs = 24, .no_speculation = 1});
        struct qn_cuda *c = qn_cuda_of(e->backend);
        int n_failed = 0;
        for (int i = 0; i < N_REQ; i++) {
            struct qn_job j = job(e, i);
            j.max_tokens = 50;
            j.ignore_eos = 1;
            list[i] = &said[i];
            ASSERT_EQ(client_submit(e, &said[i], j), 0);
        }
        usleep((unsigned)round * 7000);
        c->lost = "it fell off the bus"; /* nothing is launched any more, and what was is not waited for */
        ASSERT_EQ(client_wait(e, list, N_REQ, 30), N_REQ);
        for (int i = 0; i < N_REQ; i++) {
            n_failed += said[i].failed == QN_E_INTERNAL;
            EXPECT_EQ(said[i].broken, 0);
            client_close(&said[i]);
        }
        EXPECT(n_failed > N_REQ / 2);
        struct qn_engine_stats s;
        int64_t end = qn_clock_ns() + 10 * QN_S;
        do qn_engine_stats(e, &s);
        while ((s.kv_held || s.running) && qn_clock_ns() < end);
        EXPECT_EQ(s.kv_held, 0);
        EXPECT_STR(qn_engine_lost(e), "it fell off the bus");
        close_engine(e);
    }
}

/* Greedy ids of SmolLM2 through the whole engine, read late: the CPU backend's. */
TEST_SLOW(pipeline, smollm2_says_what_the_cpu_says, 180) {
    static struct said cpu[2], card[2];
    static const char *const text[] = {"The capital of France is", "1, 2, 3, 4, 5, 6, 7, 8, 9,"};
    uint32_t ids[2][32];
    const char *path = client_model("smollm2-135m-instruct-q4_1"), *folder = getenv("QN_BUILD");
    if (!path) SKIP("the model smollm2-135m-instruct-q4_1 is not in the cache");
    for (int on = 0; on < 2; on++) {
        struct said *s = on ? card : cpu, *p[2] = {&s[0], &s[1]};
        struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = path, .device = on ? device : "cpu", .plugin_dir = folder ? folder : "build/release", .n_ctx = 64,
                                                                  .max_seqs = 2, .step_rows = 16, .kv_bytes = 8 << 20});
        ASSERT(e != NULL);
        for (int i = 0; i < 2; i++) ASSERT_EQ(client_submit(e, &s[i], client_job(ids[i], client_ids(e, text[i], ids[i], 32), 6)), 0);
        ASSERT_EQ(client_wait(e, p, 2, 150), 2);
        struct qn_engine_stats st;
        qn_engine_stats(e, &st);
        if (on) EXPECT(st.steps_overlapped >= 5);
        for (int i = 0; i < 2; i++) client_close(&s[i]);
        close_engine(e);
    }
    for (int i = 0; i < 2; i++) {
        EXPECT_EQ(card[i].b[0].n, cpu[i].b[0].n);
        EXPECT_MEM(card[i].b[0].ids, sizeof card[i].b[0].ids, cpu[i].b[0].ids, sizeof cpu[i].b[0].ids);
        EXPECT_STR(card[i].b[0].text, cpu[i].b[0].text);
    }
}
