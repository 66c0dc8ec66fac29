/* See thinking.h. Bounds under several spellings must agree. A model whose template has no switch is kept from thinking by a
 * bound of 0, so that "off" is never ignored. */
#include "api/thinking.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/calls_impl.h"
#include "api/exchange.h"

enum { BUDGET_MOST = 1 << 24, ANTHROPIC_MIN = 1024, TEXT_MOST = 4096 };

static int no_thoughts(struct qn_exchange *x, const char *param) {
    return qn_refuse(&x->refusal, 400, "unsupported_value", param, "'%s' is not supported by this model: it does not think.", param);
}

/* --- bounds ------------------------------------------------------------------------------------------------------- */

static int bound(struct qn_exchange *x, int64_t n, const char *param) {
    struct qn_thought *t = &x->thought;
    if (n < 0) return 0;
    if (!t->on) return no_thoughts(x, param);
    if (t->max_tokens >= 0 && t->max_tokens != n)
        return qn_refuse(&x->refusal, 400, "invalid_value", param, "'%s' says another bound than another member does.", param);
    t->max_tokens = n;
    return 0;
}

static int bound_in(struct qn_exchange *x, const json_t *o, const char *outer, const char *name, double lo, int strict) {
    char param[QN_PARAM_MAX];
    const char *key;
    json_t *v;
    double n = -1;
    int rc = 0;
    if (!o) return 0;
    if (!json_is_object(o)) return qn_refuse_type(&x->refusal, outer, "an object", o);
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        if (!strcmp(key, name) || json_is_null(v) || !strict) continue;
        snprintf(param, sizeof param, "%s.%.60s", outer, key);
        return qn_refuse(&x->refusal, 400, "unknown_parameter", param, "Unknown parameter: '%s'.", param);
    }
    const json_t *b = json_object_get(o, name);
    snprintf(param, sizeof param, "%s.%s", outer, name);
    if (b && !json_is_null(b)) rc = qn_field_number(b, param, lo, BUDGET_MOST, 1, &n, &x->refusal);
    return rc < 0 ? rc : bound(x, (int64_t)n, param);
}

/* Anthropic's {type, budget_tokens}. */
static int read_thinking(struct qn_exchange *x) {
    const json_t *o = x->params.thinking;
    struct qn_refusal *r = &x->refusal;
    const char *key;
    json_t *v;
    if (!o) return 0;
    if (!json_is_object(o)) return qn_refuse_type(r, "thinking", "an object", o);
    const char *type = json_string_value(json_object_get(o, "type"));
    int on = type && !strcmp(type, "enabled"), off = type && !strcmp(type, "disabled");
    if (!on && !off && !(type && (!strcmp(type, "adaptive") || !strcmp(type, "auto"))))
        return qn_refuse(r, 400, "invalid_value", "thinking.type",
                         "Invalid value for 'thinking.type': supported are 'enabled', 'disabled' and 'adaptive'.");
    if (on && !x->thought.on) return no_thoughts(x, "thinking.type");
    if ((on || off) && x->thought.wanted >= 0 && x->thought.wanted != on)
        return qn_refuse(r, 400, "invalid_value", "thinking.type", "'thinking.type' says another thing than 'enable_thinking' or 'reasoning_effort' does.");
    if (on || off) x->thought.wanted = on;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        char param[QN_PARAM_MAX];
        snprintf(param, sizeof param, "thinking.%.60s", key);
        if (strcmp(key, "type") && strcmp(key, "budget_tokens")) qn_ignored_add(&x->ignored, param);
    }
    v = json_object_get(o, "budget_tokens");
    if (off && v && !json_is_null(v))
        return qn_refuse(r, 400, "invalid_value", "thinking.budget_tokens", "'thinking.budget_tokens' is only allowed where thinking is not disabled.");
    return off ? 0 : bound_in(x, o, "thinking", "budget_tokens", ANTHROPIC_MIN, 0);
}

/* --- ids of what may be forced ------------------------------------------------------------------------------------ */

/* text, which is the request's, then mark, which is ours: its control tokens count. */
static int make_ids(struct qn_exchange *x, const char *text, size_t n, const char *mark, struct qn_ids *out) {
    struct qn_buf b;
    struct qn_err err = {0};
    qn_buf_init(&b, 64 * 1024);
    qn_buf_put(&b, text, n);
    qn_buf_puts(&b, mark);
    struct qn_range ours = {n, b.n};
    struct qn_text t = {.p = b.p ? b.p : "", .n = b.n, .trusted = &ours, .n_trusted = 1};
    int rc = b.failed ? b.failed : qn_tokenizer_encode(x->api->tok, &t, 0, TEXT_MOST, out, &err);
    qn_buf_done(&b);
    return rc < 0 ? qn_refuse_code(&x->refusal, rc, &err) : 0;
}

static int hand_in(struct qn_exchange *x, const char *text, size_t n) {
    const struct qn_think_format *f = x->api->marks.think;
    char mark[160];
    const char *at = n ? memmem(text, n, f->close, strlen(f->close)) : NULL;
    if (at) /* it ends the thinking itself */
        return make_ids(x, text, (size_t)(at - text), at, &x->thought.hand_in);
    snprintf(mark, sizeof mark, "%s%s%s", f->close[0] == '<' && f->close[1] == '|' ? "" : "\n", f->close, f->after);
    return make_ids(x, text, n, mark, &x->thought.hand_in);
}

static const char *text_of(struct qn_exchange *x, const json_t *o, const char *name, const char *otherwise, size_t *n, int *rc) {
    const json_t *v = json_object_get(o, name);
    char param[QN_PARAM_MAX];
    snprintf(param, sizeof param, "quern.thinking.%s", name);
    *n = strlen(otherwise);
    if (!v || json_is_null(v)) return otherwise;
    if (!json_is_string(v)) *rc = qn_refuse_type(&x->refusal, param, "a string", v);
    else if (json_string_length(v) > TEXT_MOST)
        *rc = qn_refuse(&x->refusal, 400, "string_above_max_length", param, "Invalid '%s': string too long. Expected at most %d bytes.",
                        param, TEXT_MOST);
    else *n = json_string_length(v);
    return *rc < 0 ? otherwise : json_string_value(v);
}

/* The two texts: strings, and each beside what it belongs to. */
static int check_texts(struct qn_exchange *x, const json_t *o, double min) {
    struct qn_refusal *r = &x->refusal;
    size_t n;
    int rc = 0;
    text_of(x, o, "continue", "", &n, &rc);
    if (rc == 0 && n && !(min > 0))
        rc = qn_refuse(r, 400, "invalid_value", "quern.thinking.continue", "'quern.thinking.continue' needs 'quern.thinking.min_tokens'.");
    if (rc == 0) text_of(x, o, "hand_in", "", &n, &rc);
    if (rc == 0 && n && x->params.budget_message.n)
        rc = qn_refuse(r, 400, "invalid_value", "quern.thinking.hand_in", "'quern.thinking.hand_in' and 'reasoning_budget_message' say the same: send one of them.");
    if (rc == 0 && n && x->thought.max_tokens < 0)
        rc = qn_refuse(r, 400, "invalid_value", "quern.thinking.hand_in", "'quern.thinking.hand_in' needs a bound, like 'quern.thinking.max_tokens'.");
    return rc;
}

/* quern.thinking. */
static int read_own(struct qn_exchange *x) {
    static const char *const names[] = {"min_tokens", "max_tokens", "continue", "hand_in"};
    const json_t *o = x->params.own_thinking;
    struct qn_refusal *r = &x->refusal;
    const char *key;
    json_t *v;
    double min = 0, max = -1;
    if (!o) return 0;
    if (!json_is_object(o)) return qn_refuse_type(r, "quern.thinking", "an object", o);
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        char param[QN_PARAM_MAX], quoted[QN_QUOTE_MAX + 4];
        size_t i = 0;
        while (i < 4 && strcmp(names[i], key)) i++;
        snprintf(param, sizeof param, "quern.thinking.%s", qn_quote(quoted, key, strlen(key)));
        if (i == 4) return qn_refuse(r, 400, "unknown_parameter", param, "Unknown parameter: '%s'.", param);
        int rc = i > 1 || json_is_null(v) ? 0 : qn_field_number(v, param, i ? -1 : 0, BUDGET_MOST, 1, i ? &max : &min, r);
        if (rc < 0) return rc;
    }
    if (!x->thought.on) return no_thoughts(x, "quern.thinking");
    x->thought.min_tokens = (int64_t)min;
    int rc = bound(x, (int64_t)max, "quern.thinking.max_tokens");
    if (rc == 0 && x->thought.max_tokens >= 0 && x->thought.min_tokens > x->thought.max_tokens)
        rc = qn_refuse(r, 400, "invalid_value", "quern.thinking.min_tokens", "'quern.thinking.min_tokens' is above the upper bound (%lld).",
                       (long long)x->thought.max_tokens);
    return rc == 0 ? check_texts(x, o, min) : rc;
}

/* --- switches ----------------------------------------------------------------------------------------------------- */

static int read_format(struct qn_exchange *x) {
    const struct qn_chars *f = &x->params.reasoning_format;
    static const struct { const char *word; int apart; } words[] = {{"none", 0}, {"auto", 1}, {"deepseek", 1}};
    x->thought.apart = x->params.separate_reasoning;
    if (!f->p) return 0;
    for (size_t i = 0; i < 3; i++)
        if (f->n == strlen(words[i].word) && !memcmp(f->p, words[i].word, f->n)) {
            x->thought.apart &= words[i].apart;
            return 0;
        }
    return qn_refuse(&x->refusal, 400, "unsupported_value", "reasoning_format",
                     "Invalid value for 'reasoning_format': supported are 'none', 'auto' and 'deepseek'.");
}

int qn_thinking_read(struct qn_exchange *x) {
    const struct qn_params *p = &x->params;
    struct qn_thought *t = &x->thought;
    const struct qn_chars *e = &p->reasoning_effort;
    int none = e->p && e->n == 4 && !memcmp(e->p, "none", 4);
    const struct { int64_t n; const char *name; } said[] = {{p->thinking_token_budget, "thinking_token_budget"},
                                                            {p->reasoning_budget_tokens, "reasoning_budget_tokens"},
                                                            {p->thinking_budget_tokens, "thinking_budget_tokens"}};
    t->on = x->api->marks.think != NULL;
    t->show = p->include_reasoning;
    t->piecewise = p->stream_reasoning;
    t->max_tokens = -1;
    const json_t *kw = json_object_get(p->kwargs, "enable_thinking");
    t->wanted = p->enable_thinking >= 0 ? p->enable_thinking : json_is_boolean(kw) ? json_is_true(kw) : none ? 0 : -1;
    int rc = read_format(x);
    if (rc == 0 && none && t->wanted == 1)
        rc = qn_refuse(&x->refusal, 400, "invalid_value", "reasoning_effort", "'reasoning_effort' is 'none' where 'enable_thinking' is true.");
    for (size_t i = 0; rc == 0 && i < 3; i++) rc = bound(x, said[i].n, said[i].name);
    if (rc == 0) rc = read_thinking(x);
    if (rc == 0) rc = bound_in(x, p->custom_params, "custom_params", "thinking_budget", -1, 1);
    if (rc == 0) rc = bound_in(x, p->nvext, "nvext", "max_thinking_tokens", -1, 1);
    if (rc == 0) rc = read_own(x);
    if (rc == 0 && p->budget_message.n && !t->on) rc = no_thoughts(x, "reasoning_budget_message");
    t->apart = t->apart && t->on;
    return rc;
}

/* The final message, to be continued, has begun to think and not ended. */
static int final_thinks(const struct qn_exchange *x) {
    const struct qn_think_format *f = x->api->marks.think;
    const json_t *list = x->params.messages, *m = json_array_get(list, json_array_size(list) - 1), *c = json_object_get(m, "content");
    if (x->params.continue_final_message != 1 || !json_is_string(c)) return 0;
    const char *p = json_string_value(c), *open = NULL;
    for (const char *at = p; (at = strstr(at, f->open)) != NULL; at++) open = at;
    return open && !strstr(open, f->close);
}

int qn_thinking_prompt(struct qn_exchange *x, const struct qn_rendered *text) {
    struct qn_thought *t = &x->thought;
    const json_t *own = x->params.own_thinking;
    size_t n;
    int rc = 0;
    if (!t->on) return 0;
    t->opened = qn_call_opens_thinking(&x->api->marks, text->text.p ? text->text.p : "", text->text.n) || final_thinks(x);
    if (t->wanted == 0 && t->opened) t->max_tokens = t->min_tokens = 0; /* the template has no switch */
    if (t->min_tokens > 0) {
        const char *s = text_of(x, own, "continue", "Wait", &n, &rc);
        if (rc == 0) rc = make_ids(x, s, n, "", &t->more);
    }
    if (rc == 0 && t->max_tokens >= 0) {
        const struct qn_chars *m = &x->params.budget_message;
        const char *s = text_of(x, own, "hand_in", "", &n, &rc);
        if (rc == 0) rc = m->p && !n ? hand_in(x, m->p, m->n) : hand_in(x, s, n);
    }
    return rc;
}

void qn_thinking_job(const struct qn_exchange *x, struct qn_job *job) {
    const struct qn_thought *t = &x->thought;
    const struct qn_think_format *f = x->api->marks.think;
    job->shown = x->api->shown;
    job->n_shown = x->api->n_shown;
    job->thinking = (struct qn_thinking){.max_tokens = -1};
    if (!t->on) return;
    job->thinking = (struct qn_thinking){.on = 1,
                                         .opened = t->opened,
                                         .open = f->open,
                                         .n_open = strlen(f->open),
                                         .close = f->close,
                                         .n_close = strlen(f->close),
                                         .min_tokens = (int)t->min_tokens,
                                         .max_tokens = (int)t->max_tokens,
                                         .more = t->more.v,
                                         .n_more = t->more.n,
                                         .hand_in = t->hand_in.v,
                                         .n_hand_in = t->hand_in.n};
}

void qn_thinking_done(struct qn_thought *t) {
    free(t->more.v);
    free(t->hand_in.v);
    t->more = t->hand_in = (struct qn_ids){0};
}
