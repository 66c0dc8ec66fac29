/* The sampler's inside: scratch, and the two halves of a pick. sampler.c keeps and draws, sampler_edit.c changes logits,
 * sampler_filter.c finds the candidates. Not for others. */
#ifndef QN_SAMPLER_IMPL_H
#define QN_SAMPLER_IMPL_H

#include "engine/sampler.h"
#include "engine/sampler_cut.h"
#include "engine/sampler_vec.h"

#define QN_TEMPERATURE_LEAST 1e-5f /* below it exp() would overflow its range: greedy, as vLLM has it */

struct qn_sampler {
    const struct qn_vec_ops *vec;
    uint32_t n_vocab;
    float *groups;           /* [groups] greatest of each */
    double *chunks;          /* [chunks] */
    float *row;              /* [n_vocab] the edited row, when the given one must stay */
    float *x, *w, *y;        /* [n_vocab] candidates: logit and exp, by id; how typical */
    uint32_t *id, *work;     /* [n_vocab] */
    uint32_t *count;         /* [n_vocab] of the history; all 0 between calls */
    uint32_t *touched;       /* [n_vocab] */
    uint32_t *repeats;       /* [n_repeats] lengths of repetitions (DRY) */
    size_t n_repeats;
};

/* sampler_edit.c */
int qn_sampler_edits(const struct qn_sampling *p, const struct qn_history *h, uint32_t n_ban, const uint32_t *mask);
void qn_sampler_edit(struct qn_sampler *s, const struct qn_sampling *p, float *x, const struct qn_history *h, const uint32_t *ban,
                     uint32_t n_ban, const uint32_t *mask);

/* sampler_filter.c. max: the greatest of x, with groups[] of this row; t: the temperature, at least the least. */
float qn_sampler_temperature(struct qn_sampler *s, const struct qn_sampling *p, const float *x, float max);
int qn_sampler_filters(const struct qn_sampler *s, const struct qn_sampling *p);
/* Fills x, w, id with what the filters keep, by id; returns how many (>= 1). u: XTC's chance. mu: mirostat's state. */
uint32_t qn_sampler_filter(struct qn_sampler *s, const struct qn_sampling *p, const float *x, float max, float t, float u, float mu);
/* All entries but -inf, as candidates with their exp. */
uint32_t qn_sampler_all(struct qn_sampler *s, const float *x, float max, float t);
/* The n_top greatest entries of the row, as candidates: at least them. */
uint32_t qn_sampler_best(struct qn_sampler *s, const float *x, uint32_t n_top, struct qn_cut *cut);
double qn_sampler_total(const float *w, uint32_t n);

#endif
