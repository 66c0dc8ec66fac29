/* Logits to a token id, seeded; no allocation, no strings.
 *
 * Order (vLLM's): bias and masks, min_tokens mask, repetition, frequency and presence penalties, temperature, min_p,
 * top_k (exactly k; equal logits: lowest ids), top_p, draw. The draw is one uniform number (48 bits) of the counter-based
 * generator (seed, branch, position), taken through the cumulative sum of the kept tokens in order of id, so a token is a
 * pure function of logits, history and those three, on every machine. temperature 0 is the greatest logit after bias and penalties, lowest id on ties.
 * Log-probabilities reported are those of the model's own distribution, before any of this.
 * Thread: any, one scratch each. */
#ifndef QN_SAMPLER_H
#define QN_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/err.h"

enum { QN_LOGPROBS_MAX = 20, QN_BIAS_MAX = 300, QN_STOP_IDS_MAX = 64 };

struct qn_bias {
    uint32_t id;
    float add;              /* -100..100; -100 or less bans */
};

struct qn_sampling {        /* ranges are checked where it enters (qn_sampling_check) */
    float temperature;      /* 0..2; 0: greedy */
    float top_p;            /* (0, 1]; 1: off */
    float min_p;            /* [0, 1]; 0: off */
    int32_t top_k;          /* 0 or -1: off; else >= 1 */
    float repetition_penalty; /* (0, 2]; 1: off; over prompt and output */
    float frequency_penalty, presence_penalty; /* -2..2; 0: off; over output */
    uint64_t seed;
    const struct qn_bias *bias; /* borrowed for the request's life */
    uint32_t n_bias;
};

struct qn_top {
    uint32_t id;
    float logprob;
};

struct qn_logprobs {
    float logprob;          /* of the chosen (or given) token; floor -9999 */
    uint32_t rank;          /* 0: the most likely */
    uint32_t n_top;
    struct qn_top top[QN_LOGPROBS_MAX]; /* descending, lowest id first on ties */
};

/* Everything about the history of one branch that penalties need. Owned by the sequence. */
struct qn_history {
    const int32_t *tokens;  /* prompt then output */
    size_t n_prompt, n;
};

struct qn_sampler;          /* scratch for one thread: counts and candidate lists of n_vocab */

int qn_sampler_open(struct qn_sampler **out, uint32_t n_vocab);
void qn_sampler_close(struct qn_sampler *s);

/* Names the first field outside its range in err. n_vocab bounds the bias ids. Returns 0 or QN_E_RANGE. */
int qn_sampling_check(const struct qn_sampling *p, uint32_t n_vocab, struct qn_err *err);

/* Returns the id. `logits` [n_vocab] may be overwritten. `ban` [n_ban]: ids that may not be chosen now (min_tokens);
 * `mask`: bitmap of allowed ids or NULL (constraints). If `lp`, n_top 0..QN_LOGPROBS_MAX entries are filled from the
 * logits as given. NaN logits count as -inf; if nothing at all can be chosen the result is -1 (a value, not an abort). */
int32_t qn_sampler_pick(struct qn_sampler *s, const struct qn_sampling *p, float *logits, const struct qn_history *h,
                        uint32_t branch, uint32_t position, const uint32_t *ban, uint32_t n_ban, const uint32_t *mask,
                        int n_top, struct qn_logprobs *lp);

/* What pick() draws from, with the same arguments: ids, ascending, and probabilities (both [n_vocab]); returns how many.
 * `logits` is overwritten. For tests and for looking at a distribution. */
uint32_t qn_sampler_dist(struct qn_sampler *s, const struct qn_sampling *p, float *logits, const struct qn_history *h,
                         const uint32_t *ban, uint32_t n_ban, const uint32_t *mask, uint32_t *ids, double *probs);

/* Log-probabilities of a given id (prompt scoring). */
void qn_sampler_score(struct qn_sampler *s, const float *logits, uint32_t id, int n_top, struct qn_logprobs *lp);

#endif
