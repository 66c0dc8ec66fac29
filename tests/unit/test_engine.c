/* The engine as its consumer sees it, on tiny models of every family and on the real SmolLM2: batch-invariance first,
 * then streams, stops, forks, cancelling and limits. */
#include <sched.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tests/lib/mix.h"
#include "tests/run.h"

static struct said said[MIX_MOST], *list[MIX_MOST];

static const char *tiny(const char *family) {
    static char path[256];
    snprintf(path, sizeof path, "tests/data/tiny-%s.gguf", family);
    return path;
}

static struct mix_answer want[MIX_MOST];

/* Alone, all at once, with prefix hits, in other chunks, with other numbers of threads, and with somebody preempted all
 * the time: ids and log-probabilities to the bit. */
static void invariance(const char *path, const char *device, struct mix mix) {
    if (access(path, R_OK)) {
        qn_test_fail(__FILE__, __LINE__, "%s is missing", path);
        return;
    }
    static const struct { const char *what; int alone, rows, chunk, threads, preempt, seqs, no_cache; } ways[] = {
        {"alone", 1, 512, 256, 1, 0, 8, 1},
        {"all at once", 0, 512, 256, 2, 0, 32, 0},
        {"small chunks, three threads", 0, 64, 7, 3, 0, 32, 1},
        {"odd chunks, few slots", 0, 40, 33, 2, 0, 5, 0},
        {"preempted", 0, 128, 48, 2, 3, 32, 0},
    };
    memset(want, 0, sizeof want);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        struct qn_engine *e = client_open((struct qn_engine_opts){
            .model_path = path, .device = device, .n_threads = ways[w].threads, .step_rows = ways[w].rows, .prefill_chunk = ways[w].chunk,
            .max_seqs = ways[w].seqs, .preempt_every = ways[w].preempt, .no_prefix_cache = ways[w].no_cache, .n_ctx = 512,
            .stretch = w % 2 ? -1 : 0});
        ASSERT(e != NULL);
        mix_run(e, &mix, ways[w].alone, want, ways[w].what);
        if (w == 1) mix_run(e, &mix, 0, want, "again, with prefix hits");
        struct qn_engine_stats s;
        qn_engine_stats(e, &s);
        if (w == 1) EXPECT(s.cached_tokens > 0);
        if (ways[w].no_cache) EXPECT_EQ(s.cached_tokens, 0);
        if (ways[w].preempt) EXPECT(s.preemptions > 0);
        EXPECT_EQ(s.kv_held, 0);
        EXPECT_EQ(s.kv_free + s.kv_cached, s.kv_total);
        qn_engine_close(e);
    }
}

TEST_SLOW(engine, invariant_tiny_llama, 120) { invariance(tiny("llama"), "cpu", (struct mix){32, 200, 24, 0}); }
TEST_SLOW(engine, invariant_tiny_qwen2, 120) { invariance(tiny("qwen2"), "cpu", (struct mix){32, 200, 24, 0}); }
TEST_SLOW(engine, invariant_tiny_qwen3, 120) { invariance(tiny("qwen3"), "cpu", (struct mix){32, 200, 24, 0}); }
TEST_SLOW(engine, invariant_tiny_gemma3, 120) { invariance(tiny("gemma3"), "cpu", (struct mix){32, 200, 24, 0}); }
TEST_SLOW(engine, invariant_reference_backend, 120) { invariance(tiny("llama"), "cpu-ref", (struct mix){12, 100, 12, 0}); }
TEST_SLOW(engine, invariant_smollm2, 300) {
    const char *path = client_model("smollm2-135m-instruct-q4_1");
    ASSERT(path != NULL);
    invariance(path, "cpu", (struct mix){32, 160, 12, 0});
}

TEST(engine, computes_on_given_cores_and_refuses_others) {
    cpu_set_t before, after;
    char one[16];
    int core = CPU_SETSIZE - 1;
    sched_getaffinity(0, sizeof before, &before);
    while (!CPU_ISSET((size_t)core, &before)) core--;
    snprintf(one, sizeof one, "%d", core);
    struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = tiny("llama"), .n_threads = 2, .cores = one, .n_ctx = 512});
    ASSERT(e != NULL);
    mix_run(e, &(struct mix){4, 40, 8, 0}, 0, want, "on one core");
    struct qn_engine_stats s;
    qn_engine_stats(e, &s);
    EXPECT(s.threads_active >= 1 && s.threads_active <= 2);
    sched_getaffinity(0, sizeof after, &after); /* this thread is not the engine's */
    EXPECT(CPU_EQUAL(&before, &after));
    qn_engine_close(e);
    struct qn_err err = {0};
    struct qn_engine_opts o = {.model_path = tiny("llama"), .cores = "0-1023"};
    EXPECT_EQ(qn_engine_open(&e, &o, &err), QN_E_RANGE);
    EXPECT(strstr(err.text, "affinity '0-1023'"));
}

static struct qn_engine *open_tiny(struct qn_engine_opts o) {
    o.model_path = tiny("llama");
    if (!o.n_threads) o.n_threads = 1;
    struct qn_engine *e = client_open(o);
    ASSERT(e != NULL);
    return e;
}

/* What the engine says of a prompt by itself; the yardstick of the stop tests. */
static void plain(struct qn_engine *e, struct said *s, int n_out) {
    struct qn_job j = mix_job(e, 5, 30, n_out);
    ASSERT_EQ(client_submit(e, s, j), 0);
    ASSERT_EQ(client_wait(e, &s, 1, 30), 1);
}

TEST(engine, stop_strings_cut_exactly_and_are_never_shown) {
    struct qn_engine *e = open_tiny((struct qn_engine_opts){0});
    static struct said all, cut;
    struct said *p = &cut;
    plain(e, &all, 48);
    ASSERT(all.b[0].n_text > 24);
    client_close(&all);
    const char *text = all.b[0].text;
    size_t n_text = all.b[0].n_text;
    for (size_t at = 0; at + 4 < n_text; at++) {
        for (size_t len = 1; len <= 4; len += 3) {
            char stop[8];
            memcpy(stop, text + at, len);
            /* Stops are whole characters, and are looked for in the model's own bytes: U+FFFD is what we wrote for others. */
            if (((unsigned char)stop[0] & 0xC0) == 0x80 || ((unsigned char)text[at + len] & 0xC0) == 0x80) continue;
            if (memmem(stop, len, "\xEF", 1) || memmem(stop, len, "\xBF", 1)) continue;
            struct qn_job j = mix_job(e, 5, 30, 48);
            j.stop[0] = stop;
            j.stop_n[0] = len;
            j.n_stops = 1;
            ASSERT_EQ(client_submit(e, &cut, j), 0);
            ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
            const char *first = memmem(text, n_text, stop, len);
            EXPECT_MEM(cut.b[0].text, cut.b[0].n_text, text, (size_t)(first - text));
            EXPECT_EQ(cut.b[0].reason, QN_FINISH_STOP_STRING);
            EXPECT_EQ(cut.b[0].stop_index, 0);
            EXPECT_EQ(cut.b[0].n_output, cut.b[0].n);
            EXPECT_EQ(cut.broken, 0);
            client_close(&cut);
        }
    }
    qn_engine_close(e);
}

TEST(engine, stop_ids_end_and_min_tokens_forbids_them) {
    struct qn_engine *e = open_tiny((struct qn_engine_opts){0});
    static struct said all, s;
    struct said *p = &s;
    plain(e, &all, 20);
    client_close(&all);
    uint32_t id = all.b[0].ids[3];
    int first = 0;
    while (all.b[0].ids[first] != id) first++;
    struct qn_job j = mix_job(e, 5, 30, 20);
    j.stop_ids = &id;
    j.n_stop_ids = 1;
    ASSERT_EQ(client_submit(e, &s, j), 0);
    ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
    EXPECT_EQ(s.b[0].n, first + 1);
    EXPECT_EQ(s.b[0].reason, QN_FINISH_STOP);
    client_close(&s);
    j.min_tokens = 10;
    ASSERT_EQ(client_submit(e, &s, j), 0);
    ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
    EXPECT(s.b[0].n > 10 || s.b[0].reason == QN_FINISH_LENGTH);
    for (int k = 0; k < 10 && k < s.b[0].n; k++) EXPECT(s.b[0].ids[k] != id);
    client_close(&s);
    qn_engine_close(e);
}

TEST(engine, branches_share_one_prefill_and_draw_apart) {
    struct qn_engine *e = open_tiny((struct qn_engine_opts){.n_ctx = 256});
    static struct said four, one;
    struct said *p = &four, *q = &one;
    struct qn_job j = mix_job(e, 7, 100, 20);
    j.sampling.temperature = 1.5f;
    j.n_branches = 4;
    ASSERT_EQ(client_submit(e, &four, j), 0);
    ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
    struct qn_engine_stats st;
    qn_engine_stats(e, &st);
    EXPECT_EQ(st.prompt_tokens, j.n_prompt);
    EXPECT_EQ(st.output_tokens, 80);
    EXPECT(memcmp(four.b[0].ids, four.b[1].ids, 20 * sizeof(uint32_t)) != 0);
    j.n_branches = 1; /* branch 0 is what n = 1 gives */
    ASSERT_EQ(client_submit(e, &one, j), 0);
    ASSERT_EQ(client_wait(e, &q, 1, 30), 1);
    EXPECT_MEM(four.b[0].ids, 20 * sizeof(uint32_t), one.b[0].ids, 20 * sizeof(uint32_t));
    EXPECT_MEM(four.b[0].logprob, 20 * sizeof(float), one.b[0].logprob, 20 * sizeof(float));
    client_close(&four);
    client_close(&one);
    qn_engine_close(e);
}

/* Scoring a prompt that the engine itself wrote gives the log-probabilities it wrote it with. */
TEST(engine, prompt_scores_are_the_scores_of_generation) {
    struct qn_engine *e = open_tiny((struct qn_engine_opts){.step_rows = 16});
    static struct said made, scored;
    struct said *p = &scored;
    struct qn_job j = mix_job(e, 6, 40, 24);
    ASSERT_EQ(client_submit(e, &made, j), 0);
    struct said *m = &made;
    ASSERT_EQ(client_wait(e, &m, 1, 30), 1);
    static uint32_t all[128];
    memcpy(all, j.prompt, j.n_prompt * sizeof *all);
    memcpy(all + j.n_prompt, made.b[0].ids, 24 * sizeof *all);
    client_close(&made);
    struct qn_job k = client_job(all, j.n_prompt + 24, 0);
    k.prompt_logprobs = 0;
    ASSERT_EQ(client_submit(e, &scored, k), 0);
    ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
    EXPECT_EQ(scored.n_prompt_lp, (int)j.n_prompt + 24);
    for (int i = 0; i < 24; i++) EXPECT(scored.prompt_lp[j.n_prompt + (size_t)i] == made.b[0].logprob[i]);
    EXPECT_EQ(scored.b[0].reason, QN_FINISH_LENGTH);
    EXPECT_EQ(scored.b[0].n_output, 0);
    client_close(&scored);
    qn_engine_close(e);
}

/* Repetitive prompts, so that guesses come true often: the same ids and log-probabilities as without guessing. */
static void guess_and_compare(int max_seqs) {
    static struct mix_answer plain_answer[12];
    uint64_t steps[2];
    for (int on = 0; on < 2; on++) {
        struct qn_engine *e = open_tiny((struct qn_engine_opts){.n_ctx = 512, .no_prefix_cache = 1, .max_seqs = max_seqs});
        int n_accepted = 0;
        for (int i = 0; i < 12; i++) {
            struct said *p = &said[i];
            struct qn_job j = mix_job(e, i, 60, 60);
            mix_repeat(&j, i, 8);
            j.speculate = on;
            j.ignore_eos = i % 4 != 0;
            j.min_tokens = i % 5 == 0 ? 12 : 0;
            ASSERT_EQ(client_submit(e, p, j), 0);
            if (i % 2) continue; /* some alone, some together */
            ASSERT_EQ(client_wait(e, &p, 1, 60), 1);
        }
        for (int i = 0; i < 12; i++) list[i] = &said[i];
        ASSERT_EQ(client_wait(e, list, 12, 100), 12);
        for (int i = 0; i < 12; i++) {
            EXPECT_EQ(said[i].broken, 0);
            if (!on) mix_keep(&plain_answer[i], &said[i]);
            else if (!mix_same(&plain_answer[i], &said[i])) qn_test_fail(__FILE__, __LINE__, "request %d differs with speculation", i);
            n_accepted += said[i].n_accepted;
            client_close(&said[i]);
        }
        struct qn_engine_stats s;
        qn_engine_stats(e, &s);
        steps[on] = s.steps;
        EXPECT_EQ(s.spec_accepted_tokens, n_accepted);
        EXPECT_EQ(s.kv_held, 0);
        if (on) EXPECT(n_accepted > 0);
        qn_engine_close(e);
    }
    EXPECT(steps[1] < steps[0]);
}

TEST_SLOW(engine, speculation_changes_nothing_but_the_number_of_steps, 120) { guess_and_compare(0); }

/* Few sequences, few rows of logits at a time: the guesses of one are judged in several calls. */
TEST_SLOW(engine, guesses_that_need_several_calls_for_their_logits_change_nothing, 120) {
    guess_and_compare(1);
    guess_and_compare(3);
}

TEST(engine, a_stalled_reader_pauses_only_itself) {
    struct qn_engine *e = open_tiny((struct qn_engine_opts){.n_ctx = 2048});
    static struct said slow, quick[3];
    struct qn_job j = mix_job(e, 1, 30, 2000);
    j.n_logprobs = 20; /* fat records fill the ring soon */
    ASSERT_EQ(client_submit(e, &slow, j), 0);
    slow.hold = 1;
    for (int round = 0; round < 3; round++) {
        struct said *p = &quick[round];
        ASSERT_EQ(client_submit(e, p, mix_job(e, 2 + round, 30, 400)), 0);
        ASSERT_EQ(client_wait(e, &p, 1, 60), 1);
        EXPECT_EQ(p->b[0].n, 400);
        client_close(p);
    }
    struct qn_engine_stats st;
    for (int i = 0; i < 50; i++) client_poll(e, 10);
    qn_engine_stats(e, &st);
    EXPECT(st.output_tokens < 1200 + 1900); /* it did stop somewhere */
    uint64_t before = st.output_tokens;
    for (int i = 0; i < 10; i++) client_poll(e, 10);
    qn_engine_stats(e, &st);
    EXPECT_EQ(st.output_tokens, before);
    EXPECT_EQ(st.busy_since_ns, 0); /* a paused reader is not a stalled engine */
    slow.hold = 0;
    struct said *p = &slow;
    ASSERT_EQ(client_wait(e, &p, 1, 60), 1);
    EXPECT_EQ(slow.b[0].n, 2000);
    EXPECT_EQ(slow.broken, 0);
    client_close(&slow);
    qn_engine_close(e);
}

TEST(engine, closing_frees_blocks_and_leaves_others_alone) {
    struct qn_engine *e = open_tiny((struct qn_engine_opts){.n_ctx = 512, .no_prefix_cache = 1});
    static struct said kept, gone[6];
    struct said *p = &kept;
    plain(e, &kept, 40);
    static struct mix_answer alone;
    mix_keep(&alone, &kept);
    client_close(&kept);
    for (int round = 0; round < 20; round++) {
        ASSERT_EQ(client_submit(e, &kept, mix_job(e, 5, 30, 40)), 0);
        for (int i = 0; i < 6; i++) ASSERT_EQ(client_submit(e, &gone[i], mix_job(e, 10 + i, 200, 300)), 0);
        for (int i = 0; i < 6; i++) {
            usleep((unsigned)(round * 137 + i * 61) % 1500);
            client_close(&gone[i]);
        }
        ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
        EXPECT(mix_same(&alone, &kept));
        client_close(&kept);
    }
    struct qn_engine_stats st;
    int64_t end = qn_clock_ns() + 5 * QN_S;
    do {
        client_poll(e, 5);
        qn_engine_stats(e, &st);
    } while ((st.kv_held || st.running) && qn_clock_ns() < end);
    EXPECT_EQ(st.kv_held, 0);
    EXPECT_EQ(st.running, 0);
    EXPECT_EQ(st.waiting, 0);
    qn_engine_close(e);
}

TEST(engine, bad_jobs_are_refused_by_name) {
    struct qn_engine *e = open_tiny((struct qn_engine_opts){.n_ctx = 64, .max_seqs = 4});
    static struct said s;
    uint32_t ok[80] = {1, 2, 3}, bad[2] = {1, 0xFFFFFFFF};
    struct qn_job j = client_job(ok, 3, 8);
    struct { struct qn_job j; int rc; } cases[10] = {{j, QN_E_RANGE}, {j, QN_E_TOO_LONG}, {j, QN_E_RANGE}, {j, QN_E_RANGE}, {j, QN_E_RANGE},
                                                     {j, QN_E_TOO_LONG}, {j, QN_E_RANGE}, {j, QN_E_RANGE}, {j, QN_E_RANGE}, {j, QN_E_RANGE}};
    cases[0].j.n_prompt = 0;
    cases[1].j.max_tokens = 62;
    cases[2].j.prompt = bad;
    cases[2].j.n_prompt = 2;
    cases[3].j.n_branches = 129;
    cases[4].j.sampling.temperature = NAN;
    cases[5].j.n_prompt = 65;
    cases[6].j.stop_ids = bad + 1;
    cases[6].j.n_stop_ids = 1;
    cases[7].j.min_tokens = 9;
    cases[8].j.n_logprobs = 21;
    cases[9].j.sampling.top_p = 0;
    for (int i = 0; i < 10; i++) EXPECT_EQ(client_submit(e, &s, cases[i].j), cases[i].rc);
    j.max_tokens = 61; /* exactly full is fine */
    struct said *p = &s;
    j.ignore_eos = 1;
    ASSERT_EQ(client_submit(e, &s, j), 0);
    ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
    EXPECT_EQ(s.b[0].n, 61);
    client_close(&s);
    qn_engine_close(e);
}

TEST(engine, the_queue_is_bounded_and_deadlines_hold) {
    struct qn_engine *e = open_tiny((struct qn_engine_opts){.n_ctx = 2048, .max_seqs = 1, .waiting_max = 2});
    static struct said s[8];
    int accepted = 0, refused = 0;
    for (int i = 0; i < 8; i++) {
        struct qn_job j = mix_job(e, i, 30, 1500);
        if (i == 0) j.n_logprobs = 20; /* fat records that nobody reads: it soon pauses, and keeps the only slot for a second */
        if (i == 1) j.deadline_ns = qn_clock_ns() + 200 * QN_MS;
        int rc = client_submit(e, &s[i], j);
        if (i == 0) s[0].hold = 1;
        struct qn_engine_stats st = {0};
        while (i == 0 && !st.running) qn_engine_stats(e, &st); /* else the one with the deadline would go first */
        if (rc == 0) accepted++;
        else if (rc == QN_E_FULL) refused++;
    }
    EXPECT(accepted >= 3 && accepted <= 4);
    EXPECT_EQ(accepted + refused, 8);
    struct said *p = &s[1];
    ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
    EXPECT_EQ(s[1].failed, QN_E_DEADLINE);
    for (int i = 0; i < 8; i++) client_close(&s[i]);
    qn_engine_drain(e);
    EXPECT_EQ(client_submit(e, &s[0], mix_job(e, 0, 30, 5)), QN_E_CLOSED);
    qn_engine_close(e);
}

TEST(engine, salts_share_nothing) {
    struct qn_engine *e = open_tiny((struct qn_engine_opts){0});
    static struct said s;
    struct said *p = &s;
    for (int round = 0; round < 3; round++) {
        struct qn_job j = mix_job(e, 8, 200, 4);
        j.salt = round == 1 ? 0 : 99;
        ASSERT_EQ(client_submit(e, &s, j), 0);
        ASSERT_EQ(client_wait(e, &p, 1, 30), 1);
        EXPECT(round == 2 ? s.n_cached > 0 : s.n_cached == 0);
        client_close(&s);
    }
    qn_engine_close(e);
}

TEST(engine, kv_types_size_the_pool_and_bad_ones_are_refused) {
    static const struct { const char *ask, *name; } types[] = {{NULL, "f16"}, {"auto", "f16"}, {"f16", "f16"}, {"bf16", "bf16"}, {"q8_0", "q8_0"}};
    uint64_t bytes[5];
    for (int i = 0; i < 5; i++) {
        struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = tiny("qwen2"), .kv_type = types[i].ask, .n_ctx = 256, .kv_bytes = 1 << 20});
        ASSERT(e != NULL);
        const struct qn_engine_info *info = qn_engine_info(e);
        bytes[i] = info->kv_bytes / (uint64_t)info->kv_blocks;
        EXPECT_STR(info->kv_type, types[i].name);
        EXPECT(info->kv_bytes <= 1 << 20 && info->kv_bytes + 2 * bytes[i] > 1 << 20); /* what was given, and all of it */
        qn_engine_close(e);
    }
    EXPECT_EQ(bytes[3], bytes[2]);
    struct qn_engine *e = NULL;
    struct qn_err err = {0};
    struct qn_engine_opts o = {.model_path = tiny("qwen2"), .kv_type = "q4_0"};
    EXPECT_EQ(qn_engine_open(&e, &o, &err), QN_E_RANGE);
    EXPECT(strstr(err.text, "kv_type 'q4_0' is not one of auto, f16, bf16, q8_0") != NULL);
}

/* Each type keeps every promise: alone, in one batch, preempted. */
TEST(engine, kv_types_are_batch_invariant) {
    static const char *const types[] = {"bf16", "q8_0"};
    for (int i = 0; i < 2; i++) {
        memset(want, 0, sizeof want);
        for (int k = 0; k < 2; k++) {
            struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = tiny("llama"), .kv_type = types[i], .n_threads = 2, .preempt_every = k ? 7 : 0});
            ASSERT(e != NULL);
            mix_run(e, &(struct mix){12, 80, 12, 0}, !k, want, types[i]);
            qn_engine_close(e);
        }
    }
}
