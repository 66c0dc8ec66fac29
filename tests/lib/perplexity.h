/* Perplexity of a text under a model, from the engine's own log-probabilities of a prompt. For tests and tools. */
#ifndef QN_TESTS_PERPLEXITY_H
#define QN_TESTS_PERPLEXITY_H

#include "tests/lib/engine_client.h"

struct perplexity {
    int n_tokens;           /* of the text, BOS included where the model adds it; the first one is not scored */
    double value;           /* exp(-mean log-probability) */
};

/* Scores the first n_most tokens (0: all, at most SAID_TOKENS_MAX) of the file's text as one prompt: every token sees all before it.
 * 0, or -1 after printing the reason. */
int client_perplexity(struct qn_engine *e, const char *path, int n_most, struct perplexity *out);

#endif
