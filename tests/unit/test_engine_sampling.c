/* engine: requests with every sampler at once draw the same tokens alone, in one batch, and when they are preempted: no
 * sampler's state is anybody else's, and none is lost with the blocks. Bad words and allowed ids hold over whole outputs. */
#include "engine/breakers.h"
#include "tests/lib/engine_client.h"
#include "tests/run.h"

enum { N_JOBS = 10, N_OUT = 40 };

static struct said *told;

static struct qn_sampling sampling(int i) {
    static const struct qn_breakers breakers = {.n = 2, .text = {"\n", "a"}, .bytes = {1, 1}};
    struct qn_sampling p = {.temperature = 0.9f, .top_p = 1, .repetition_penalty = 1, .seed = (uint64_t)i + 7, .typical_p = 1};
    switch (i) {
    case 0: p.mirostat = 2, p.mirostat_tau = 3, p.mirostat_eta = 0.3f; break;
    case 1: p.mirostat = 1, p.mirostat_tau = 4, p.mirostat_eta = 0.2f; break;
    case 2: p.dry_multiplier = 0.8f, p.dry_base = 1.75f, p.dry_allowed_length = 1, p.dry_breakers = &breakers; break;
    case 3: p.temperature = 0, p.dry_multiplier = 2, p.dry_base = 1.1f, p.dry_allowed_length = 1; break;
    case 4: p.xtc_probability = 0.5f, p.xtc_threshold = 0.05f; break;
    case 5: p.typical_p = 0.5f, p.min_keep = 3; break;
    case 6: p.top_n_sigma = 1; break;
    case 7: p.dynatemp_range = 0.5f, p.dynatemp_exponent = 1.5f, p.top_p = 0.9f; break;
    case 8: p.repetition_penalty = 1.3f, p.penalty_window = 9, p.frequency_penalty = 0.4f; break;
    default: break;
    }
    return p;
}

static void run(struct qn_engine *e, int alone, uint32_t out[N_JOBS][2][N_OUT]) {
    struct said *all[N_JOBS];
    uint32_t prompt[64];
    for (int i = 0; i < N_JOBS; i++) {
        size_t n = 20 + (size_t)i * 3;
        for (size_t k = 0; k < n; k++) prompt[k] = (uint32_t)(k * 7 + (size_t)i * 13) % 200 + 30;
        struct qn_job job = client_job(prompt, n, N_OUT);
        job.sampling = sampling(i);
        job.n_branches = 1 + i % 2;
        job.ignore_eos = 1;
        all[i] = &told[i];
        ASSERT_EQ(client_submit(e, &told[i], job), 0);
        if (alone) ASSERT_EQ(client_wait(e, &all[i], 1, 60), 1);
    }
    ASSERT_EQ(client_wait(e, all, N_JOBS, 120), N_JOBS);
    for (int i = 0; i < N_JOBS; i++) {
        for (int b = 0; b <= i % 2; b++) {
            ASSERT_EQ(told[i].b[b].n, N_OUT);
            memcpy(out[i][b], told[i].b[b].ids, sizeof out[i][b]);
        }
        client_close(&told[i]);
    }
}

TEST_SLOW(engine_sampling, every_sampler_is_batch_invariant, 180) {
    static uint32_t want[N_JOBS][2][N_OUT], got[N_JOBS][2][N_OUT];
    told = calloc(N_JOBS, sizeof *told);
    ASSERT(told != NULL);
    for (int k = 0; k < 3; k++) {
        struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = "tests/data/tiny-llama.gguf", .n_threads = 2, .n_ctx = 256, .preempt_every = k == 2 ? 3 : 0,
                                                                  .max_seqs = k == 1 ? 32 : 6});
        ASSERT(e != NULL);
        run(e, k == 0, k ? got : want);
        for (int i = 0; k && i < N_JOBS; i++)
            for (int b = 0; b <= i % 2; b++) EXPECT_MEM(got[i][b], sizeof got[i][b], want[i][b], sizeof want[i][b]);
        struct qn_engine_stats s;
        qn_engine_stats(e, &s);
        if (k == 2) EXPECT(s.preemptions > 0);
        qn_engine_close(e);
    }
    for (int i = 0; i < N_JOBS - 1; i++) EXPECT(memcmp(want[i][0], want[N_JOBS - 1][0], sizeof want[0][0])); /* none is a no-op */
    free(told);
}

TEST(engine_sampling, lists_hold_over_an_output) {
    told = calloc(2, sizeof *told);
    struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = "tests/data/tiny-llama.gguf", .n_threads = 1});
    ASSERT(told && e);
    uint32_t prompt[] = {40, 41, 42}, allowed[512] = {0}, bad[] = {2, 100, 101, 1, 103, 2, 102, 102};
    for (uint32_t id = 100; id < 104; id++) allowed[id / 32] |= 1u << id % 32;
    struct qn_job job = client_job(prompt, 3, 200);
    job.sampling.temperature = 2;
    job.sampling.allowed = allowed;
    job.sampling.bad = bad;
    job.sampling.n_bad = sizeof bad / sizeof *bad;
    ASSERT_EQ(client_submit(e, &told[0], job), 0);
    memset(allowed, 0, sizeof allowed); /* they were copied */
    memset(bad, 0, sizeof bad);
    ASSERT_EQ(client_wait(e, &(struct said *){&told[0]}, 1, 60), 1);
    const uint32_t *ids = told[0].b[0].ids;
    int seen[3] = {0};
    ASSERT_EQ(told[0].b[0].n, 200);
    for (int i = 0; i < 200; i++) {
        ASSERT(ids[i] >= 100 && ids[i] <= 102);
        seen[ids[i] - 100]++;
        if (i) EXPECT(!(ids[i - 1] == 100 && ids[i] == 101) && !(ids[i - 1] == 102 && ids[i] == 102));
    }
    EXPECT(seen[0] && seen[1] && seen[2]);
    client_close(&told[0]);
    qn_engine_close(e);
    free(told);
}
