/* Speed is not to be bought with answers: the perplexity of tests/data/perplexity.txt (written for this: prose and some C) stays within
 * 0.1 % of what the engine had before its kernels, caches and schedules were made faster (tests/tools/perplexity prints the same).
 * A change that moves a figure on purpose says so in its commit and proves with tests/unit/test_logits.c that it got no worse. */
#include "tests/lib/perplexity.h"
#include "tests/run.h"

struct figure {
    int n;                  /* tokens scored */
    double perplexity;
};

static int under_sanitizer(void) {
    const char *build = getenv("QN_BUILD");
    return build && strstr(build, "san") != NULL;
}

/* Sanitizers make all this ten times slower, so they see the beginning only: so few tokens move by a few tenths of a percent with every
 * change in the order of a sum (each log-probability lies 0.05 from the unquantised model's), and are held to one percent. */
static void holds(const char *name, struct figure beginning, struct figure most) {
    const char *path = client_model(name);
    if (!path) printf("    the model %s is not in the cache: scripts/fetch-model.sh %s\n", name, name);
    ASSERT(path != NULL);
    struct qn_engine *e = client_open((struct qn_engine_opts){.model_path = path, .max_seqs = 1});
    ASSERT(e != NULL);
    struct figure want = under_sanitizer() ? beginning : most;
    struct perplexity p;
    ASSERT_EQ(client_perplexity(e, "tests/data/perplexity.txt", want.n, &p), 0);
    printf("    %s: %d tokens, %.5f (was %.5f)\n", name, p.n_tokens, p.value, want.perplexity);
    EXPECT_EQ(p.n_tokens, want.n);
    EXPECT_NEAR(p.value, want.perplexity, want.perplexity * (under_sanitizer() ? 1e-2 : 1e-3));
    qn_engine_close(e);
}

/* Qwen2.5-Coder-1.5B, which make test does not fetch, had 14.19171. */
TEST_SLOW(perplexity, smollm2_is_what_it_was, 240) {
    holds("smollm2-135m-instruct-q4_1", (struct figure){128, 62.02519}, (struct figure){1836, 22.38662});
}
TEST_SLOW(perplexity, qwen_is_what_it_was, 240) {
    holds("qwen2.5-coder-0.5b-instruct-q4_k_m", (struct figure){128, 78.17719}, (struct figure){1764, 28.19591});
}
TEST_SLOW(perplexity, gemma_is_what_it_was, 240) {
    holds("gemma-3-270m-q4_k_m", (struct figure){128, 56.50406}, (struct figure){1793, 21.68921});
}
