/* Where to cut a set of weighted entries that is taken from its greatest down, without sorting it. Top-k (weights of 1),
 * top-p (weights are probabilities) and the list of most likely tokens are all this one question. Pure; any thread. */
#ifndef QN_SAMPLER_CUT_H
#define QN_SAMPLER_CUT_H

#include <stdint.h>

struct qn_cut {              /* the last entry that is kept: x and index; kept are those above, and equal ones up to it */
    float x;
    uint32_t at;
};

/* Entries list[0..n) of x (finite, n >= 1), in the order (x descending, index ascending): the shortest run from the start
 * whose weights add up to `target` or more, at least one entry; all of them if no run does. w NULL: each weighs 1.
 * `list` ascends; it is used as scratch. */
struct qn_cut qn_sampler_cut(const float *x, const float *w, uint32_t *list, uint32_t n, double target);

static inline int qn_cut_keeps(struct qn_cut c, float x, uint32_t at) {
    return x > c.x || (x == c.x && at <= c.at);
}

#endif
