/* Microseconds a pick at two sizes of vocabulary, on logits shaped like a model's (most far below a few) and on flat ones,
 * where half the vocabulary may be kept. The median of five rounds; rows alternate so that the pages come from the cache level that a step would leave them in. */
#include "engine/base/clock.h"
#include "engine/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 5, PICKS = 200, ROWS = 4, HISTORY = 4096 };

static const struct {
    const char *name;
    struct qn_sampling p;
    int n_top;               /* < 0: no logprobs */
} cases[] = {
    {"greedy", {.top_p = 1, .repetition_penalty = 1}, -1},
    {"temperature 1", {.temperature = 1, .top_p = 1, .repetition_penalty = 1}, -1},
    {"top_p 0.9", {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1}, -1},
    {"top_p 0.9 at temperature 2", {.temperature = 2, .top_p = 0.9f, .repetition_penalty = 1}, -1},
    {"top_k 40", {.temperature = 1, .top_p = 1, .top_k = 40, .repetition_penalty = 1}, -1},
    {"top_k 40, top_p 0.9, min_p 0.05", {.temperature = 1, .top_p = 0.9f, .min_p = 0.05f, .top_k = 40, .repetition_penalty = 1}, -1},
    {"greedy, penalties over 4096", {.top_p = 1, .repetition_penalty = 1.1f, .frequency_penalty = 0.5f}, -1},
    {"greedy, logprobs 5", {.top_p = 1, .repetition_penalty = 1}, 5},
    {"temperature 1, logprobs 5", {.temperature = 1, .top_p = 1, .repetition_penalty = 1}, 5},
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static float bell(unsigned *seed) { /* nearly normal */
    float sum = 0;
    for (int i = 0; i < 12; i++) sum += (float)(rand_r(seed) & 0xffff) / 65536.0f;
    return sum - 6;
}

static void run(uint32_t n, float peak, const char *shape) {
    struct qn_sampler *s;
    float *rows = malloc((size_t)n * ROWS * sizeof *rows);
    int32_t history[HISTORY];
    unsigned seed = 1;
    if (!rows || qn_sampler_open(&s, n) < 0) abort();
    for (size_t i = 0; i < (size_t)n * ROWS; i++) rows[i] = 2.5f * bell(&seed) + (i % 2503 == 0 ? peak : 0);
    for (int i = 0; i < HISTORY; i++) history[i] = (int32_t)((unsigned)rand_r(&seed) % n);
    struct qn_history h = {.tokens = history, .n_prompt = HISTORY / 2, .n = HISTORY};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double us[ROUNDS];
        for (int r = 0; r < ROUNDS; r++) {
            int64_t t0 = qn_clock_ns();
            for (uint32_t i = 0; i < PICKS; i++) {
                struct qn_logprobs lp;
                qn_sampler_pick(s, &cases[c].p, rows + (size_t)(i % ROWS) * n, &h, 0, i, NULL, 0, NULL, cases[c].n_top,
                                cases[c].n_top < 0 ? NULL : &lp);
            }
            us[r] = (double)(qn_clock_ns() - t0) / 1e3 / PICKS;
        }
        qsort(us, ROUNDS, sizeof *us, by_value);
        printf("| %u %s | %s | %.1f |\n", n, shape, cases[c].name, us[ROUNDS / 2]);
    }
    qn_sampler_close(s);
    free(rows);
}

int main(void) {
    printf("| vocabulary | sampling | us a pick |\n|---|---|---|\n");
    run(49152, 14, "peaked");
    run(151936, 14, "peaked");
    run(49152, 0, "flat");
    run(151936, 0, "flat");
    return 0;
}
