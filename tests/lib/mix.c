/* See mix.h. */
#include "tests/lib/mix.h"

#include "tests/run.h"

static uint32_t prompts[MIX_MOST][MIX_PROMPT_MOST];

struct qn_job mix_job(const struct qn_engine *e, int i, int n_prompt, int n_out) {
    uint32_t n_vocab = qn_engine_info(e)->n_vocab;
    size_t n = 3 + (size_t)(i * 37) % (size_t)(n_prompt - 2);
    ASSERT(i < MIX_MOST && n <= MIX_PROMPT_MOST);
    for (size_t k = 0; k < n; k++) prompts[i][k] = (uint32_t)((k + 1) * 2654435761u + (uint32_t)(i % 4 ? i : 0) * 40503u) % n_vocab;
    struct qn_job j = client_job(prompts[i], n, n_out);
    j.ignore_eos = 1;
    j.n_logprobs = 3;
    if (i % 2) {
        j.sampling.temperature = 0.6f + 0.1f * (float)(i % 9);
        j.sampling.seed = (uint64_t)i * 77;
        if (i % 3 == 0) j.sampling.top_p = 0.8f;
        if (i % 5 == 0) j.sampling.top_k = 20;
        if (i % 7 == 0) j.sampling.repetition_penalty = 1.2f;
    }
    return j;
}

void mix_repeat(struct qn_job *j, int i, size_t period) {
    for (size_t k = period; k < j->n_prompt; k++) prompts[i][k] = prompts[i][k % period];
}

void mix_keep(struct mix_answer *a, const struct said *s) {
    a->n = s->b[0].n;
    for (int k = 0; k < a->n && k < MIX_OUT_MOST; k++) {
        a->ids[k] = s->b[0].ids[k];
        a->lp[k] = s->b[0].logprob[k];
        a->top[k] = s->b[0].top0[k].logprob;
    }
}

int mix_same(const struct mix_answer *a, const struct said *s) {
    struct mix_answer b = {0};
    mix_keep(&b, s);
    return a->n == b.n && !memcmp(a->ids, b.ids, sizeof a->ids) && !memcmp(a->lp, b.lp, sizeof a->lp) && !memcmp(a->top, b.top, sizeof a->top);
}

void mix_run(struct qn_engine *e, const struct mix *m, int alone, struct mix_answer *want, const char *what) {
    static struct said said[MIX_MOST], *list[MIX_MOST];
    for (int i = 0; i < m->n; i++) {
        struct qn_job j = mix_job(e, i, m->n_prompt, m->n_out);
        if (m->guessed) mix_repeat(&j, i, i % 3 ? 64 : 5);
        j.speculate = m->guessed;
        ASSERT_EQ(client_submit(e, &said[i], j), 0);
        list[i] = &said[i];
        if (alone) ASSERT_EQ(client_wait(e, &list[i], 1, 120), 1);
    }
    ASSERT_EQ(client_wait(e, list, m->n, 240), m->n);
    for (int i = 0; i < m->n; i++) {
        EXPECT_EQ(said[i].failed, 0);
        EXPECT_EQ(said[i].broken, 0);
        EXPECT_EQ(said[i].b[0].n, m->n_out);
        if (want[i].n == 0) mix_keep(&want[i], &said[i]);
        else if (!mix_same(&want[i], &said[i])) qn_test_fail(__FILE__, __LINE__, "request %d differs: %s", i, what);
        client_close(&said[i]);
    }
}
