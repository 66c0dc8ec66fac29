/* See perplexity.h. The text goes through the whole engine (chunks of a prompt, pages, the output layer for every row), as a
 * request with echo and logprobs would. */
#include "tests/lib/perplexity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT_MAX = 1 << 20, SECONDS_MAX = 1200 };

static char *read_text(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    char *p = malloc(TEXT_MAX);
    *n = f && p ? fread(p, 1, TEXT_MAX, f) : 0;
    if (f) fclose(f);
    if (*n && *n < TEXT_MAX) return p;
    printf("    %s: not there, empty, or longer than a text to score\n", path);
    free(p);
    return NULL;
}

static int encode(const struct qn_engine *e, const char *path, struct qn_ids *ids) {
    struct qn_err err = {0};
    struct qn_text t = {0};
    char *p = read_text(path, &t.n);
    t.p = p;
    if (!p) return -1;
    int rc = qn_tokenizer_encode(qn_engine_tokenizer(e), &t, QN_TOK_ADD_SPECIAL, 0, ids, &err);
    free(p);
    if (rc < 0) printf("    tokenizer: %s\n", err.text);
    return rc < 0 ? -1 : 0;
}

int client_perplexity(struct qn_engine *e, const char *path, int n_most, struct perplexity *out) {
    static struct said said;
    struct said *list[] = {&said};
    struct qn_ids ids = {0};
    if (encode(e, path, &ids) < 0) return -1;
    if (n_most > 0 && (size_t)n_most < ids.n) ids.n = (size_t)n_most;
    if (ids.n > SAID_TOKENS_MAX) ids.n = SAID_TOKENS_MAX;
    int n = (int)ids.n;
    struct qn_job job = client_job(ids.v, ids.n, 0);
    job.n_logprobs = -1;
    job.prompt_logprobs = 0;
    job.cache_prompt = 0;
    int rc = n > 1 ? client_submit(e, &said, job) : -1;
    free(ids.v);
    if (rc < 0) {
        printf("    %d tokens were refused\n", n);
        return -1;
    }
    int done = client_wait(e, list, 1, SECONDS_MAX);
    client_close(&said);
    if (!done || said.failed || said.n_prompt_lp != n) {
        printf("    the request failed (%d) after %d of %d tokens\n", said.failed, said.n_prompt_lp, n);
        return -1;
    }
    double sum = 0;
    for (int i = 1; i < n; i++) sum += (double)said.prompt_lp[i];
    *out = (struct perplexity){.n_tokens = n, .value = exp(-sum / (n - 1))};
    return 0;
}
