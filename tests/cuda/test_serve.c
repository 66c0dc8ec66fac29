/* The engine over the CUDA plug-in: what a request yields is the same bits alone, among others, with prefix hits, in other chunks, guessed
 * ahead or not, and with somebody preempted all the time. As tests/unit/test_engine.c asks of the CPU. */
#include <unistd.h>

#include "tests/lib/mix.h"
#include "tests/run.h"

enum { N_PROMPT = 90, N_OUT = 12 };

#ifdef QN_CUDA_EMU
static const char *const device = "cuda-emu";
#else
static const char *const device = "cuda";
#endif

static const char *build_folder(void) {
    const char *b = getenv("QN_BUILD");
    return b ? b : "build/release";
}

static void invariance(const char *path) {
    static const struct { const char *what; int alone, rows, chunk, preempt, seqs, no_cache, no_spec; } ways[] = {
        {"alone", 1, 128, 64, 0, 8, 1, 1}, {"all at once", 0, 128, 64, 0, 16, 0, 0}, {"small chunks", 0, 40, 7, 0, 16, 1, 0},
        {"few slots", 0, 24, 20, 0, 3, 0, 1}, {"preempted", 0, 64, 33, 3, 16, 0, 0},
    };
    static struct mix_answer want[MIX_MOST];
    static const struct mix mix = {14, N_PROMPT, N_OUT, 1};
    memset(want, 0, sizeof want);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        struct qn_engine *e = client_open((struct qn_engine_opts){
            .model_path = path, .device = device, .plugin_dir = build_folder(), .step_rows = ways[w].rows, .prefill_chunk = ways[w].chunk, .max_seqs = ways[w].seqs,
            .preempt_every = ways[w].preempt, .no_prefix_cache = ways[w].no_cache, .no_speculation = ways[w].no_spec, .n_ctx = 128, .kv_bytes = 4 << 20, .stretch = -1});
        ASSERT(e != NULL);
        EXPECT(strstr(qn_engine_info(e)->device, "cuda"));
        mix_run(e, &mix, ways[w].alone, want, ways[w].what);
        if (w == 1) mix_run(e, &mix, 0, want, "again, with prefix hits");
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
        struct qn_job j = mix_job(e, 1, N_PROMPT, N_OUT);
        j.n_branches = branches;
        ASSERT_EQ(client_submit(e, &s, j), 0);
        ASSERT_EQ(client_wait(e, &p, 1, 60), 1);
        EXPECT_EQ(s.failed, 0);
        if (branches == 1) memcpy(first, s.b[0].ids, sizeof first);
        else EXPECT_MEM(s.b[0].ids, sizeof first, first, sizeof first);
        client_close(&s);
    }
    qn_engine_close(e);
}
