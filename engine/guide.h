/* What steers one branch beyond sampling: its constraint, the budget of its thinking, and tokens that are certain.
 *
 * A guide is a small value: a copy is a branch's future under the assumption that certain tokens come next, which is how
 * drafts and certain tokens are judged in the step that computes them. Internal to engine/. Thread: engine; reading
 * (qn_guide_mask, _certain, _replaces) also from compute threads while nobody writes. */
#ifndef QN_GUIDE_H
#define QN_GUIDE_H

#include "engine/engine.h"

enum { QN_CERTAIN_MOST = 32, QN_CERTAIN_STEP = 16 /* at most so many join one step */, QN_MARK_MAX = 64 };

enum qn_guide_phase { QN_PHASE_BEFORE /* a thinking may open */, QN_PHASE_THINKING, QN_PHASE_ANSWER };

struct qn_guide {
    qn_cstate state;        /* of the constraint */
    enum qn_guide_phase phase;
    int n_match;            /* bytes of the mark looked for (open, or close) that the text ends with */
    int n_thought;          /* tokens between the marks */
    int n_thinking;         /* the same, marks included; final once phase is ANSWER */
    const uint32_t *certain; /* what comes next whatever the logits say; n_certain of them */
    uint32_t n_certain;
};

struct qn_guide_plan {      /* of a request; copies live as long as it does */
    struct qn_constraint *constraint;
    struct qn_thinking thinking;
    const struct qn_tokenizer *tok;
    int no_jump; /* the request bans ids: each is chosen, so that one which may not come is not taken for certain */
};

/* 1 when the host must see each token before the next step is planned. */
static inline int qn_guided(const struct qn_guide_plan *p) { return p->constraint != NULL || p->thinking.on; }

void qn_guide_init(struct qn_guide *g, const struct qn_guide_plan *p);
/* Goes on by a token; replaced: it stands where qn_guide_replaces put it. */
void qn_guide_took(struct qn_guide *g, const struct qn_guide_plan *p, uint32_t id, int replaced);
/* Looks for tokens that the constraint makes certain, when none are pending: written to room[QN_CERTAIN_MOST], which must live as
 * long as they are pending. out[n_out]: the branch's output so far. Takes only what the tokenizer makes of the text however it
 * goes on, so the answer is spelled as the model would have read it. Costs some encodings of short texts, and allocates. */
void qn_guide_look_ahead(struct qn_guide *g, const struct qn_guide_plan *p, const int32_t *out, size_t n_out, uint32_t *room);
/* The token that stands in for a sampled one that would end the thinking too early; else `id` itself. */
uint32_t qn_guide_replaces(const struct qn_guide *g, const struct qn_guide_plan *p, uint32_t id);
/* 1: the answer is complete and nothing may follow. */
int qn_guide_over(const struct qn_guide *g, const struct qn_guide_plan *p);

#endif
