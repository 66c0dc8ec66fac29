/* A small consumer of engine.h for tests and benches: submits jobs, polls, and keeps what each stream said. */
#ifndef QN_TESTS_ENGINE_CLIENT_H
#define QN_TESTS_ENGINE_CLIENT_H

#include "engine/engine.h"

enum { SAID_TOKENS_MAX = 4096, SAID_BRANCHES_MAX = 8 };

struct said_branch {
    int n, finished, reason, stop_index, n_output, n_thinking;
    uint32_t ids[SAID_TOKENS_MAX];
    float logprob[SAID_TOKENS_MAX];
    struct qn_top top0[SAID_TOKENS_MAX];
    char text[SAID_TOKENS_MAX * 8];
    size_t n_text;
};

struct said {
    struct qn_stream *st;
    int started, n_cached, failed, n_left, n_prompt_lp, n_accepted, broken; /* broken: events out of order */
    int hold;                   /* 1: do not read (a stalled consumer) */
    float prompt_lp[SAID_TOKENS_MAX];
    int64_t first_ns, done_ns;
    struct said_branch b[SAID_BRANCHES_MAX];
};

/* Opens an engine whose wake is waited for by client_wait. Prints the reason and returns NULL on failure. */
struct qn_engine *client_open(struct qn_engine_opts o);
/* A job with every default filled in; the caller sets prompt and what it cares for. */
struct qn_job client_job(const uint32_t *prompt, size_t n, int max_tokens);
/* Submits; s is zeroed first. Returns submit's code. */
int client_submit(struct qn_engine *e, struct said *s, struct qn_job job);
/* Polls until n streams are done or `seconds` passed; returns how many are done. */
int client_wait(struct qn_engine *e, struct said **s, int n, double seconds);
/* One poll that waits at most ms for news. */
void client_poll(struct qn_engine *e, int ms);
void client_close(struct said *s);
int client_done(const struct said *s);
/* Tokenises text with nothing trusted. Returns the count. */
size_t client_ids(const struct qn_engine *e, const char *text, uint32_t *out, size_t cap);
/* Path of a model in the cache by name without ".gguf"; static buffer. NULL: not there. */
const char *client_model(const char *name);

#endif
