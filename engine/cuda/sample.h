/* Sampling on the card: rows of logits to ids and log-probabilities, the draws of engine/sampler.c without a sort. Launchers, plain C.
 *
 * The order is sampler.h's: bias, mask, bans, penalties, temperature, min_p, top_k, top_p, draw; the same exponential, the same uniform
 * number, ties to the lowest ids. Greedy, top_k and min_p keep exactly what the CPU keeps. The sums in float, which are what could
 * part the two (all weights; those above the levels of top_p), run in the CPU's order and have its bits. Sums in double run in another,
 * fixed order, and weights that top_p adds up are rounded to 2^-40 of the greatest or finer: a cut or a draw could differ where it falls within some
 * 1e-12 of the total beside the border of an entry. A pick depends on its row, its descriptor and its counts alone.
 *
 * Logits are not changed: rows with edits go through a copy in scratch. Thread: the owner of the stream. */
#ifndef QN_CUDA_SAMPLE_H
#define QN_CUDA_SAMPLE_H

#include "engine/cuda/step.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QN_CUDA_TOP_MAX = 20, QN_CUDA_VOCAB_MAX = 1 << 19 };

struct qn_cuda_pick {       /* ranges are those of struct qn_sampling */
    uint64_t seed;
    uint32_t branch, position;
    int32_t row;            /* of the logits; several picks may share one */
    int32_t given;          /* >= 0: nothing is drawn, this id is scored (prompts) */
    int32_t n_top;          /* -1: no log-probabilities; else so many of the best, 0..20, from the logits as they are */
    float temperature, top_p, min_p;
    int32_t top_k;          /* 0 or -1: off */
    float repetition, frequency, presence; /* 1, 0, 0: off; need counts */
    int32_t counts;         /* slot of the history's counts, -1: no history. No two picks of a launch share one. */
    int32_t counts_add;     /* the drawn token joins the counts */
    int32_t bias0, n_bias;  /* in `bias` */
    int32_t ban0, n_ban;    /* in `ban`: ids that may not be chosen now */
    int32_t mask;           /* of `masks`: bitmap of allowed ids; -1: none */
    int32_t feed;           /* slot of `feed` that gets the id (0 for -1); -1: none */
    int32_t pad[2];
};

struct qn_cuda_bias {
    uint32_t id;
    float add;              /* -100 or less bans */
};

struct qn_cuda_top {
    uint32_t id;
    float logprob;
};

struct qn_cuda_picked {
    int32_t id;             /* -1: nothing can be chosen */
    float logprob;          /* floor -9999; if n_top >= 0, as the rest */
    uint32_t rank;          /* 0: the most likely */
    uint32_t n_top;
    struct qn_cuda_top top[QN_CUDA_TOP_MAX]; /* descending, lowest id first on ties */
};

struct qn_cuda_sampling {   /* device addresses, the same for the backend's life */
    const int32_t *n_picks; /* how many there are; grids are sized for a bound */
    const struct qn_cuda_pick *picks;
    const struct qn_cuda_bias *bias;
    const uint32_t *ban;
    const uint32_t *masks;  /* [][(n_vocab + 31) / 32] */
    uint32_t *counts;       /* [slots][n_vocab]: times in the output, or-ed with QN_CUDA_IN_HISTORY */
    int32_t *feed;          /* ids for the next step's rows (qn_cuda_feed_tokens) */
    const float *logits;    /* [rows][logits_stride] */
    struct qn_cuda_picked *out; /* [picks] */
    void *scratch;          /* qn_cuda_sample_scratch bytes, 256-byte aligned */
    int32_t n_vocab, logits_stride;
    int32_t picks_max;      /* that scratch was made for */
};

#define QN_CUDA_IN_HISTORY 0x80000000u

int64_t qn_cuda_sample_scratch(int picks_max, int n_vocab);

/* Three launches. picks_bound >= *n_picks, at most picks_max; 0 launches nothing. */
void qn_cuda_sample(const struct qn_cuda_sampling *s, int picks_bound, qn_cuda_stream stream);

/* counts[slot] = those of a history: `tokens` [n] on the card, the first n_prompt of them the prompt's. Ids outside the vocabulary are left out. */
void qn_cuda_counts_set(uint32_t *counts, int n_vocab, int slot, const int32_t *tokens, int n_prompt, int n, qn_cuda_stream stream);

/* token[r] = feed[-1 - token[r]] for rows r < head->n_rows with token[r] < 0: rows whose id the host does not know yet. */
void qn_cuda_feed_tokens(int32_t *token, const int32_t *feed, const struct qn_cuda_step *step, int rows_bound, qn_cuda_stream stream);

#ifdef __cplusplus
}
#endif

#endif
