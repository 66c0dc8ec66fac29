/* A mix of requests, and whether each is answered alike, ids and log-probabilities to the bit, whatever runs beside it. For tests of
 * the engine over any device. */
#ifndef QN_TESTS_MIX_H
#define QN_TESTS_MIX_H

#include "tests/lib/engine_client.h"

enum { MIX_MOST = 32, MIX_PROMPT_MOST = 320, MIX_OUT_MOST = 64 };

struct mix {
    int n;                      /* requests, at most MIX_MOST */
    int n_prompt, n_out;        /* prompts of 3..n_prompt tokens; each answer has n_out */
    int guessed;                /* prompts that repeat themselves, and speculation */
};

/* Request i: half are greedy, half sampled in different ways, with penalties too; every fourth has a prefix of all the others. Its prompt
 * lives until the next one with this i. */
struct qn_job mix_job(const struct qn_engine *e, int i, int n_prompt, int n_out);
/* Makes a prompt of mix_job repeat its first `period` tokens. */
void mix_repeat(struct qn_job *j, int i, size_t period);

struct mix_answer {
    int n;
    uint32_t ids[MIX_OUT_MOST];
    float lp[MIX_OUT_MOST], top[MIX_OUT_MOST];
};
void mix_keep(struct mix_answer *a, const struct said *s);
int mix_same(const struct mix_answer *a, const struct said *s);

/* Runs the mix, each request alone or all at once, and compares with want[MIX_MOST]; what is empty there is filled in. `what` is said
 * of a difference. */
void mix_run(struct qn_engine *e, const struct mix *m, int alone, struct mix_answer *want, const char *what);

#endif
