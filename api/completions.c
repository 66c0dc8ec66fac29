/* POST /v1/completions: one prompt or many, as text or ids; the shape of its answers and chunks.
 *
 * A prompt here is text that a user sent, so the spelling of a control token in it is text unless parse_special says
 * otherwise; who wants control tokens can also send ids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/beam.h"
#include "api/gen.h"
#include "api/json_out.h"
#include "api/select.h"

static void whole(const struct qn_choice *c, const struct qn_part *p, struct qn_buf *out) {
    qn_buf_puts(out, ",\"text\":");
    if (p->echo.n == 0) {
        qn_json_string(out, c->text.p ? c->text.p : "", c->text.n);
        return;
    }
    /* Both are whole characters: two strings, the quotes between them dropped. */
    qn_json_string(out, p->echo.p, p->echo.n);
    if (out->failed) return;
    out->n--;
    size_t at = out->n;
    qn_json_string(out, c->text.p ? c->text.p : "", c->text.n);
    if (out->failed) return;
    memmove(out->p + at, out->p + at + 1, out->n - at);
    out->n--;
}

const struct qn_shape qn_shape_completions = {
    .id_prefix = "cmpl-",
    .object = "text_completion",
    .chunk_object = "text_completion",
    .prompt_member = "prompt",
    .text_open = ",\"text\":\"",
    .text_close = "\"",
    .last = ",\"text\":\"\"",
    .max_default = 16,
    .whole = whole,
};

enum { OF_STRINGS, OF_IDS, OF_LISTS, ONE_STRING };

static int wrong(const json_t *v, struct qn_refusal *r, const char *param) {
    return qn_refuse_type(r, param, "a string, an array of strings, an array of token ids, or an array of such arrays", v);
}

static int kind_of(const json_t *v, struct qn_refusal *r) {
    if (!v) return qn_refuse(r, 400, "missing_required_parameter", "prompt", "Missing required parameter: 'prompt'.");
    if (json_is_string(v)) return ONE_STRING;
    if (!json_is_array(v)) return wrong(v, r, "prompt");
    if (json_array_size(v) == 0)
        return qn_refuse(r, 400, "empty_array", "prompt", "Invalid 'prompt': empty array. Expected at least one prompt.");
    const json_t *first = json_array_get(v, 0);
    if (json_is_string(first)) return OF_STRINGS;
    if (json_is_array(first)) return OF_LISTS;
    return json_is_number(first) ? OF_IDS : wrong(first, r, "prompt[0]");
}

static int from_string(struct qn_exchange *x, struct qn_part *p, const json_t *s) {
    const struct qn_params *q = &x->params;
    int rc = qn_plain_ids(x->api, json_string_value(s), json_string_length(s), q->add_special_tokens != 0, q->parse_special == 1,
                          &p->ids, &x->refusal);
    if (rc == 0 && q->echo) qn_buf_put(&p->echo, json_string_value(s), json_string_length(s));
    return rc;
}

static int from_ids(struct qn_exchange *x, struct qn_part *p, const json_t *list, const char *path) {
    int rc = qn_read_ids(x->api, list, path, &p->ids, &x->refusal);
    if (rc == 0 && x->params.echo) qn_ids_text(x->api, p->ids.v, p->ids.n, 0, &p->echo);
    return rc;
}

static int read_prompts(struct qn_exchange *x, int kind) {
    const json_t *v = x->params.prompt;
    struct qn_part *parts = x->gen->parts;
    if (kind == ONE_STRING) return from_string(x, &parts[0], v);
    if (kind == OF_IDS) return from_ids(x, &parts[0], v, "prompt");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(v); i++) {
        char path[32];
        const json_t *one = json_array_get(v, i);
        snprintf(path, sizeof path, "prompt[%zu]", i);
        if (kind == OF_STRINGS)
            rc = json_is_string(one) ? from_string(x, &parts[i], one) : qn_refuse_type(&x->refusal, path, "a string", one);
        else
            rc = json_is_array(one) ? from_ids(x, &parts[i], one, path)
                                    : qn_refuse_type(&x->refusal, path, "an array of token ids", one);
    }
    return rc;
}

int qn_completions_prepare(struct qn_exchange *x) {
    int rc = qn_exchange_parse(x, QN_ON_COMPLETIONS);
    if (rc < 0) return rc;
    int kind = kind_of(x->params.prompt, &x->refusal);
    if (kind < 0) return kind;
    size_t n = kind == OF_STRINGS || kind == OF_LISTS ? json_array_size(x->params.prompt) : 1;
    if (n > QN_PROMPTS_MAX)
        return qn_refuse(&x->refusal, 400, "array_above_max_length", "prompt",
                         "Invalid 'prompt': array too long. Expected at most %d, but got %zu.", QN_PROMPTS_MAX, n);
    rc = qn_gen_new(x, &qn_shape_completions, n);
    if (rc == 0) rc = read_prompts(x, kind);
    if (rc == 0) rc = qn_gen_fit(x);
    if (rc == 0) rc = qn_constrain(x, &x->gen->constraint);
    if (rc == 0) rc = qn_select_check(x);
    return rc < 0 ? rc : qn_beam_check(x);
}
