/* Logits to a token id, seeded; no allocation, no strings.
 *
 * One order, vLLM's, with llama.cpp's samplers where they stand among them:
 *
 *   bias, allowed ids and masks, bans (min_tokens, bad words), repetition, frequency and presence penalties, DRY
 *   -> temperature (dynamic: by the entropy of the whole row) -> top_n_sigma -> min_p -> top_k (exactly k; equal logits: lowest ids)
 *   -> typical_p -> top_p -> XTC -> mirostat -> draw
 *
 * llama.cpp's own order has the temperature last: a filter that looks at probabilities cuts here at those of the tempered
 * distribution, as vLLM and transformers do. min_keep bounds min_p, typical_p, top_p and XTC. temperature 0 is the greatest logit
 * after the edits, lowest id on ties, and no filter changes that.
 *
 * The draw is one uniform number (48 bits) of the counter-based generator (seed, branch, position), taken through the cumulative
 * sum of the kept tokens in order of id; XTC's chance is another lane of the same counter. So a token is a pure function of
 * logits, history and those three, on every machine; with mirostat also of what it has learnt, which is such a function of the
 * picks before. Log-probabilities reported are those of the model's own distribution, before any of this.
 * Thread: any, one scratch each. */
#ifndef QN_SAMPLER_H
#define QN_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/err.h"

enum { QN_LOGPROBS_MAX = 20, QN_BIAS_MAX = 300, QN_STOP_IDS_MAX = 64, QN_BAD_MAX = 4096 };

struct qn_bias {
    uint32_t id;
    float add;              /* -100..100; -100 or less bans */
};

/* Texts that end a repetition for DRY: what stood before one is another passage. All is borrowed. */
enum { QN_BREAKERS_MAX = 16, QN_BREAKER_BYTES_MAX = 40 };

struct qn_breakers {
    int n;
    const char *text[QN_BREAKERS_MAX];
    size_t bytes[QN_BREAKERS_MAX]; /* 1..QN_BREAKER_BYTES_MAX */
    const char *(*piece)(const void *of, uint32_t id, size_t *n); /* the bytes of a token */
    const void *of;
};

struct qn_sampling {        /* ranges are checked where it enters (qn_sampling_check) */
    float temperature;      /* 0..2; 0: greedy */
    float top_p;            /* (0, 1]; 1: off */
    float min_p;            /* [0, 1]; 0: off */
    int32_t top_k;          /* 0 or -1: off; else >= 1 */
    float repetition_penalty; /* (0, 2]; 1: off; over prompt and output */
    float frequency_penalty, presence_penalty; /* -2..2; 0: off; over output */
    uint64_t seed;
    const struct qn_bias *bias; /* this and the pointers below: borrowed for the request's life */
    uint32_t n_bias;
    /* The rest is off when 0, and what a device draws itself has none of it (qn_sampling_plain). */
    float top_n_sigma;      /* 0..100: keeps logits of at least the greatest less so many standard deviations */
    float typical_p;        /* 0..1; 0 and 1: off. Meister et al., arXiv:2202.00666 */
    float xtc_probability, xtc_threshold; /* 0..1: how often all but the least of the tokens from there up are left out */
    float dynatemp_range, dynatemp_exponent; /* 0..2, 0..10: temperature -+ range by the share of the greatest entropy, to that power */
    float mirostat_tau, mirostat_eta; /* 0..100, 0..10 */
    int32_t mirostat;       /* 1, 2: arXiv:2007.14966 and its simpler form */
    int32_t min_keep;       /* >= 0 */
    int32_t penalty_window; /* >= 0: tokens of the history that the three penalties see; 0: all */
    float dry_multiplier, dry_base; /* 0..100, 1..100: what repeats the text's end of length n loses multiplier * base^(n - allowed) */
    int32_t dry_allowed_length, dry_window; /* >= 0; window 0: the whole history */
    const struct qn_breakers *dry_breakers; /* NULL: none */
    const uint32_t *bad;    /* [n_bad] sequences that the output may not contain: each its length, then its ids */
    uint32_t n_bad;         /* <= QN_BAD_MAX */
    const uint32_t *allowed; /* bitmap [(n_vocab + 31) / 32] of the only ids that may come; NULL: all */
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
    float *mu;              /* mirostat's state, which a pick changes: 2 tau before the first. NULL: that, and forgotten */
};

struct qn_sampler;          /* scratch for one thread: counts and candidate lists of n_vocab */

int qn_sampler_open(struct qn_sampler **out, uint32_t n_vocab);
void qn_sampler_close(struct qn_sampler *s);

/* Histories that DRY will see are of at most n tokens (n_vocab if never called; of longer ones it sees the end). QN_E_NOMEM. */
int qn_sampler_reserve(struct qn_sampler *s, size_t n);

/* 1: nothing but bias, temperature, min_p, top_k and top_p. */
int qn_sampling_plain(const struct qn_sampling *p);

/* Names the first field outside its range in err. n_vocab bounds the bias ids. Returns 0 or QN_E_RANGE. */
int qn_sampling_check(const struct qn_sampling *p, uint32_t n_vocab, struct qn_err *err);

/* Copies its lists into *mem, to be freed, and points there. The breakers get `piece` of `of`. QN_E_NOMEM. */
int qn_sampling_own(struct qn_sampling *p, uint32_t n_vocab, const char *(*piece)(const void *of, uint32_t id, size_t *n), const void *of, void **mem);

/* Returns the id. `logits` [n_vocab] may be overwritten. `ban` [n_ban]: ids that may not be chosen now (min_tokens);
 * `mask`: bitmap of allowed ids or NULL (constraints). If `lp`, n_top 0..QN_LOGPROBS_MAX entries are filled from the
 * logits as given. NaN logits count as -inf; if nothing at all can be chosen the result is -1 (a value, not an abort). */
int32_t qn_sampler_pick(struct qn_sampler *s, const struct qn_sampling *p, float *logits, const struct qn_history *h,
                        uint32_t branch, uint32_t position, const uint32_t *ban, uint32_t n_ban, const uint32_t *mask,
                        int n_top, struct qn_logprobs *lp);

/* What pick() draws from, with the same arguments: ids, ascending, and probabilities (both [n_vocab]); returns how many.
 * `logits` is overwritten. For tests and for looking at a distribution. */
uint32_t qn_sampler_dist(struct qn_sampler *s, const struct qn_sampling *p, float *logits, const struct qn_history *h, uint32_t branch,
                         uint32_t position, const uint32_t *ban, uint32_t n_ban, const uint32_t *mask, uint32_t *ids, double *probs);

/* Log-probabilities of a given id (prompt scoring). */
void qn_sampler_score(struct qn_sampler *s, const float *logits, uint32_t id, int n_top, struct qn_logprobs *lp);

#endif
