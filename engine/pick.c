/* Drawing for a branch that is guided (guide.h): a mask over the logits, a token that is certain, a thinking that must not end
 * yet. Part of the engine thread's step; qn_pick_guided runs on compute threads, many at once, while nobody writes guides. Over a device that
 * computes by itself the masks are made while it does (qn_pick_prepare) and found again when its logits are there. */
#include <string.h>

#include "engine/engine_impl.h"

/* The guide as it will be if the drafts before this pick come true. Where drafts are guesses, what the constraint makes certain
 * behind each is looked for as it will be when they have come true; `room` is for that. */
static struct qn_guide guide_at(const struct qn_pick *k, uint32_t *room) {
    const struct qn_branch *b = &k->st->branches[k->branch];
    const struct qn_seq *q = k->seq;
    struct qn_guide g = b->guide;
    int n_prompt = q->group->spec.n_prompt;
    for (int i = q->n_tokens; i < (int)k->position; i++) {
        qn_guide_took(&g, &k->st->steer, (uint32_t)q->tokens[i], 0);
        if (!b->certain) qn_guide_look_ahead(&g, &k->st->steer, q->tokens + n_prompt, (size_t)(i + 1 - n_prompt), room);
    }
    return g;
}

static void score(struct qn_engine *e, struct qn_pick *k, const float *row, int s) {
    if (k->st->job.n_logprobs >= 0) qn_sampler_score(e->samplers[s], row, (uint32_t)k->id, k->st->job.n_logprobs, &k->lp);
}

void qn_pick_guided(struct qn_engine *e, struct qn_pick *k, int s, const float *row, const uint32_t *ban, uint32_t n_ban) {
    const struct qn_job *j = &k->st->job;
    const struct qn_guide_plan *p = &k->st->steer;
    uint32_t room[QN_CERTAIN_MOST], *mask = p->constraint ? e->sampler_mask[s] : NULL;
    struct qn_guide g = guide_at(k, room);
    if (g.n_certain) {
        k->id = (int32_t)g.certain[0];
        score(e, k, row, s);
        return;
    }
    k->id = -1;
    if (mask && qn_constraint_mask(p->constraint, g.state, mask) == 0) return;
    int may_replace = j->thinking.on && g.phase == QN_PHASE_THINKING && j->thinking.min_tokens > 0;
    float *own = (float *)(uintptr_t)row;
    if (k->copy || may_replace) own = memcpy(e->sampler_row[s], row, (size_t)e->info.n_vocab * sizeof *row);
    struct qn_history h = {.tokens = k->seq->tokens, .n_prompt = (size_t)k->seq->group->spec.n_prompt, .n = k->position};
    k->id = qn_sampler_pick(e->samplers[s], &j->sampling, own, &h, (uint32_t)k->branch, k->position, ban, n_ban, mask,
                            j->n_logprobs < 0 ? 0 : j->n_logprobs, j->n_logprobs < 0 ? NULL : &k->lp);
    if (k->id < 0 || !may_replace) return;
    uint32_t id = qn_guide_replaces(&g, p, (uint32_t)k->id);
    if (id == (uint32_t)k->id) return;
    k->id = (int32_t)id;
    k->replaced = 1;
    score(e, k, row, s);
}

void qn_pick_prepare(struct qn_engine *e, const struct qn_plan *p) {
    for (int i = 0; i < p->n_items; i++) {
        const struct qn_plan_item *it = &p->items[i];
        struct qn_stream *st = it->seq->group->spec.user;
        if (!it->sample || !st->steer.constraint) continue;
        uint32_t room[QN_CERTAIN_MOST];
        struct qn_pick k = {.st = st, .seq = it->seq, .branch = it->seq->branch, .position = (uint32_t)(it->start + it->n_rows)};
        struct qn_guide g = guide_at(&k, room);
        if (!g.n_certain) qn_constraint_mask(st->steer.constraint, g.state, e->sampler_mask[0]);
    }
}

int qn_pick_took(struct qn_engine *e, const struct qn_pick *k) {
    struct qn_stream *st = k->st;
    struct qn_branch *b = &st->branches[k->branch];
    int n_prompt = k->seq->group->spec.n_prompt;
    e->now.certain_tokens += b->guide.n_certain > 0;
    qn_guide_took(&b->guide, &st->steer, (uint32_t)k->id, k->replaced);
    if (qn_guide_over(&b->guide, &st->steer)) return 1;
    qn_guide_look_ahead(&b->guide, &st->steer, k->seq->tokens + n_prompt, (size_t)((int)k->position + 1 - n_prompt), b->ahead);
    return 0;
}
