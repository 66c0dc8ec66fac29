/* The engine over the CUDA plug-in: what a request yields is the same bits alone, among others, with prefix hits, in other chunks, guessed
 * ahead or not, and with somebody preempted all the time. As tests/unit/test_engine.c asks of the CPU. */
#include <unistd.h>

#include "tests/lib/engine_client.h"
#include "tests/run.h"

enum { N_REQ = 14, PROMPT_MOST = 90, N_OUT = 12 };

static struct said said[N_REQ], *list[N_REQ];
static uint32_t prompts[N_REQ][PROMPT_MOST];
static struct { int n; uint32_t ids[N_OUT]; float lp[N_OUT], top[N_OUT]; } want[N_REQ];

#ifdef QN_CUDA_EMU
static const char *const device = "cuda-emu";
#else
static const char *const device = "cuda";
#endif

static const char *build_folder(void) {
    const char *b = getenv("QN_BUILD");
    return b ? b : "build/release";
}

/* Half greedy, half sampled in different ways; some share a prefix; some repeat themselves, so that guessing ahead pays. */
static struct qn_job mixed_job(const struct qn_engine *e, int i) {
    uint32_t n_vocab = qn_engine_info(e)->n_vocab;
    size_t n = 3 + (size_t)(i * 37) % (PROMPT_MOST - 2);
    for (size_t k = 0; k < n; k++) prompts[i][k] = (uint32_t)((k % (i % 3 ? 64 : 5) + 1) * 2654435761u + (uint32_t)(i % 4 ? i : 0) * 40503u) % n_vocab;
    struct qn_job j = client_job(prompts[i], n, N_OUT);
    j.ignore_eos = 1;
    j.n_logprobs = 3;
    j.speculate = 1;
    if (i % 2) {
        j.sampling.temperature = 0.6f + 0.1f * (float)(i % 9);
        j.sampling.seed = (uint64_t)i * 77;
        if (i % 3 == 0) j.sampling.top_p = 0.8f;
        if (i % 5 == 0) j.sampling.top_k = 20;
        if (i % 7 == 0) j.sampling.repetition_penalty = 1.2f;
    }
    return j;
}

static void check(int i, const char *what) {
    const struct said_branch *b = &said[i].b[0];
    EXPECT_EQ(said[i].failed, 0);
    EXPECT_EQ(said[i].broken, 0);
    ASSERT_EQ(b->n, N_OUT);
    int same = 1;
    for (int k = 0; k < N_OUT; k++) {
        if (want[i].n) same = same && want[i].ids[k] == b->ids[k] && !memcmp(&want[i].lp[k], &b->logprob[k], 4) && !memcmp(&want[i].top[k], &b->top0[k].logprob, 4);
        else want[i].ids[k] = b->ids[k], want[i].lp[k] = b->logprob[k], want[i].top[k] = b->top0[k].logprob;
    }
    want[i].n = N_OUT;
    if (!same) qn_test_fail(__FILE__, __LINE__, "request %d differs: %s", i, what);
}

static void run_all(struct qn_engine *e, int alone, const char *what) {
    for (int i = 0; i < N_REQ; i++) {
        ASSERT_EQ(client_submit(e, &said[i], mixed_job(e, i)), 0);
        list[i] = &said[i];
        if (alone) ASSERT_EQ(client_wait(e, &list[i], 1, 60), 1);
    }
    ASSERT_EQ(client_wait(e, list, N_REQ, 120), N_REQ);
    for (int i = 0; i < N_REQ; i++) {
        check(i, what);
        client_close(&said[i]);
    }
}

static void invariance(const char *path) {
    static const struct { const char *what; int alone, rows, chunk, preempt, seqs, no_cache, no_spec; } ways[] = {
        {"alone", 1, 128, 64, 0, 8, 1, 1}, {"all at once", 0, 128, 64, 0, 16, 0, 0}, {"small chunks", 0, 40, 7, 0, 16, 1, 0},
        {"few slots", 0, 24, 20, 0, 3, 0, 1}, {"preempted", 0, 64, 33, 3, 16, 0, 0},
    };
    memset(want, 0, sizeof want);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        struct qn_engine *e = client_open((struct qn_engine_opts){
            .model_path = path, .device = device, .plugin_dir = build_folder(), .step_rows = ways[w].rows, .prefill_chunk = ways[w].chunk, .max_seqs = ways[w].seqs,
            .preempt_every = ways[w].preempt, .no_prefix_cache = ways[w].no_cache, .no_speculation = ways[w].no_spec, .n_ctx = 128, .kv_bytes = 4 << 20, .stretch = -1});
        ASSERT(e != NULL);
        EXPECT(strstr(qn_engine_info(e)->device, "cuda"));
        run_all(e, ways[w].alone, ways[w].what);
        if (w == 1) run_all(e, 0, "again, with prefix hits");
        struct qn_engine_stats s;
        qn_engine_stats(e, &s);
        if (w == 1) EXPECT(s.cached_tokens > 0 && s.spec_draft_tokens > 0);
        if (ways[w].preempt) EXPECT(s.preemptions > 0);
        EXPECT_EQ(s.kv_held, 0);
        EXPECT_EQ(s.kv_free + s.kv_cached, s.kv_total);
        EXPECT(qn_engine_lost(e) == NULL);
        qn_engine_close(e);
    }
}

TEST_SLOW(serve, invariant_tiny_llama, 90) { invariance("tests/data/tiny-llama.gguf"); }
TEST_SLOW(serve, invariant_tiny_gemma3, 90) { invariance("tests/data/tiny-gemma3.gguf"); }

/* Branches of one prompt share its blocks and copy the last one on write. */
TEST_SLOW(serve, branches_copy_what_they_share, 60) {
    static struct said s;
    struct said *p = &s;
    struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = "tests/data/tiny-llama.gguf", .device = device, .plugin_dir = build_folder(), .max_seqs = 8, .n_ctx = 128,
                                                              .kv_bytes = 4 << 20});
    ASSERT(e != NULL);
    for (int branches = 1; branches <= 4; branches += 3) {
        static uint32_t first[N_OUT];
        struct qn_job j = mixed_job(e, 1);
        j.n_branches = branches;
        j.speculate = 0;
        ASSERT_EQ(client_submit(e, &s, j), 0);
        ASSERT_EQ(client_wait(e, &p, 1, 60), 1);
        EXPECT_EQ(s.failed, 0);
        if (branches == 1) memcpy(first, s.b[0].ids, sizeof first);
        else EXPECT_MEM(s.b[0].ids, sizeof first, first, sizeof first);
        client_close(&s);
    }
    qn_engine_close(e);
}
