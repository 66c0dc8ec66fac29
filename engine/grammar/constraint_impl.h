/* What constraint.c and mask.c share; nobody else includes it. */
#ifndef QN_CONSTRAINT_IMPL_H
#define QN_CONSTRAINT_IMPL_H

#include <pthread.h>

#include "engine/grammar/constraint.h"
#include "engine/grammar/states.h"
#include "engine/grammar/trie.h"

struct qn_mask { /* of a state */
    const uint32_t *v;  /* words of the mask, or ids when they are few */
    uint32_t n_allowed, n_ids;
    int is_list;
};

struct qn_step { /* a state on the path of a walk, opened for speed */
    const uint8_t *of;  /* class by byte */
    const uint32_t *to; /* state by class */
    qn_cstate state;
};

struct qn_constraint {
    struct qn_grammar *g;
    struct qn_states states;
    const struct qn_token_trie *trie;
    qn_cstate start;
    int refs;
    pthread_mutex_t lock;
    struct qn_garena masks;      /* the words; counted in g->used */
    struct qn_mask *mask;        /* [n_masks], state.mask - 1 */
    uint32_t n_masks, masks_cap;
    struct qn_step *path;        /* [depth_max + 1] along a walk */
    struct qn_constraint_counts counts;
};

int qn_mask_init(struct qn_constraint *c, struct qn_err *err);
void qn_mask_done(struct qn_constraint *c);
/* Forgets all masks. */
void qn_mask_drop(struct qn_constraint *c);
/* s is alive. */
uint32_t qn_mask_of(struct qn_constraint *c, qn_cstate s, uint32_t *mask);

#endif
