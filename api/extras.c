/* In chat these stand beside the choices, in completions inside them, where vLLM puts them. Ranks count from 1. */
#include "api/extras.h"

#include <string.h>

#include "api/json_out.h"

void qn_extras_cut(struct qn_exchange *x, struct qn_part *p) {
    const char *name;
    const struct qn_params *q = &x->params;
    if (q->truncate_prompt_tokens == QN_ABSENT) return;
    int64_t keep = q->truncate_prompt_tokens, asked = qn_params_max_tokens(q, &name);
    if (keep < 0) { /* room for what is to come, as far as that is known */
        if (asked == QN_ABSENT) asked = x->gen->shape->max_default;
        keep = x->api->info->n_ctx - (asked > 0 && asked < x->api->info->n_ctx ? asked : 1);
    }
    if ((int64_t)p->ids.n <= keep) return;
    size_t n = (size_t)keep;
    if (!q->cut_right) memmove(p->ids.v, p->ids.v + (p->ids.n - n), n * sizeof *p->ids.v);
    p->ids.n = n;
    if (!p->echo.n) return;
    qn_buf_reset(&p->echo);
    qn_ids_text(x->api, p->ids.v, p->ids.n, 0, &p->echo);
}

/* --- log-probabilities of the prompt ------------------------------------------------------------------------------ */

static void put_odds(const struct qn_exchange *x, uint32_t id, float logprob, uint32_t rank, struct qn_buf *out) {
    size_t n;
    const char *piece = qn_tokenizer_piece(x->api->tok, id, &n);
    qn_buf_printf(out, "\"%u\":{\"logprob\":", id);
    qn_json_float(out, logprob);
    qn_buf_printf(out, ",\"rank\":%u,\"decoded_token\":", rank + 1);
    qn_json_string(out, piece, n);
    qn_buf_putc(out, '}');
}

void qn_extras_prompt(const struct qn_exchange *x, struct qn_part *p, const struct qn_event *ev) {
    struct qn_buf *out = &p->prompt_list;
    const struct qn_logprobs *lp = ev->lp;
    if (x->params.prompt_logprobs == QN_ABSENT) return;
    if (out->n) qn_buf_putc(out, ',');
    if (lp->rank == UINT32_MAX) { /* the first follows nothing */
        qn_buf_puts(out, "null");
        return;
    }
    qn_buf_putc(out, '{');
    put_odds(x, ev->id, lp->logprob, lp->rank, out);
    for (uint32_t i = 0; i < lp->n_top && (int64_t)i < x->params.prompt_logprobs; i++) {
        if (lp->top[i].id == ev->id) continue;
        qn_buf_putc(out, ',');
        put_odds(x, lp->top[i].id, lp->top[i].logprob, i, out);
    }
    qn_buf_putc(out, '}');
}

void qn_extras_token(const struct qn_exchange *x, struct qn_choice *c, const struct qn_event *ev) {
    if (x->params.return_token_ids) qn_buf_printf(&c->ids, c->ids.n ? ",%u" : "%u", ev->id);
    if (!ev->lp) return;
    c->sum_lp += (double)ev->lp->logprob;
    c->n_lp++;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void put_prompt_ids(const struct qn_part *p, struct qn_buf *out) {
    qn_buf_puts(out, ",\"prompt_token_ids\":[");
    for (size_t i = 0; i < p->ids.n; i++) qn_buf_printf(out, i ? ",%u" : "%u", p->ids.v[i]);
    qn_buf_putc(out, ']');
}

static void put_list(const char *name, const struct qn_buf *b, struct qn_buf *out) {
    qn_buf_puts(out, name);
    if (b->n) qn_buf_put(out, b->p, b->n);
    qn_buf_putc(out, ']');
}

static void put_prompt(const struct qn_exchange *x, const struct qn_part *p, struct qn_buf *out) {
    if (x->params.prompt_logprobs != QN_ABSENT) put_list(",\"prompt_logprobs\":[", &p->prompt_list, out);
    if (x->params.return_token_ids) put_prompt_ids(p, out);
}

void qn_extras_choice(const struct qn_exchange *x, const struct qn_part *p, const struct qn_choice *c, struct qn_buf *out) {
    if (x->params.return_token_ids) put_list(",\"token_ids\":[", &c->ids, out);
    if (!x->gen->shape->chat) put_prompt(x, p, out);
}

void qn_extras_whole(const struct qn_exchange *x, struct qn_buf *out) {
    if (x->gen->shape->chat) put_prompt(x, &x->gen->parts[0], out);
}

void qn_extras_delta(const struct qn_exchange *x, struct qn_choice *c, struct qn_buf *out) {
    if (c->ids.failed) out->failed = c->ids.failed;
    if (!c->ids.n || !x->params.return_token_ids) return;
    put_list(",\"token_ids\":[", &c->ids, out);
    qn_buf_reset(&c->ids);
}

void qn_extras_first(const struct qn_exchange *x, const struct qn_part *p, struct qn_buf *out) {
    int ids = x->params.return_token_ids, chat = x->gen->shape->chat;
    if (ids && !chat) put_prompt_ids(p, out);
    qn_buf_puts(out, "}]");
    if (ids && chat) put_prompt_ids(p, out);
}
