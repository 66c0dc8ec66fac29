/* From what a request says to ids: messages through the template, plain prompts, lists of ids.
 *
 * Messages are checked here so that the template sees known roles and text only; members that are not known are left in
 * place, since some templates read more than others (tool_calls, name, reasoning_content). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/exchange.h"
#include "api/history.h"
#include "engine/base/clock.h"
#include "engine/base/utf8.h"

enum { MESSAGES_MAX = 4096, PARTS_MAX = 4096, CALLS_MAX = 128, PATH_MAX_ = 96 };

static const char *const roles[] = {"developer", "system", "user", "assistant", "tool", "function"};

static int missing(struct qn_refusal *r, const char *param) {
    return qn_refuse(r, 400, "missing_required_parameter", param, "Missing required parameter: '%s'.", param);
}

static int need_string(const json_t *obj, const char *name, const char *path, struct qn_refusal *r) {
    char param[QN_PARAM_MAX];
    const json_t *v = json_object_get(obj, name);
    snprintf(param, sizeof param, "%s.%s", path, name);
    if (!v) return missing(r, param);
    return json_is_string(v) ? 0 : qn_refuse_type(r, param, "a string", v);
}

static int check_part(const json_t *part, const char *path, int assistant, struct qn_refusal *r) {
    char param[QN_PARAM_MAX];
    static const char *const media[] = {"image_url",   "input_image", "input_audio", "video_url",
                                        "input_video", "audio_url",   "file",        "input_file"};
    if (!json_is_object(part)) return qn_refuse_type(r, path, "an object", part);
    int rc = need_string(part, "type", path, r);
    if (rc < 0) return rc;
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!strcmp(type, "text") || !strcmp(type, "input_text") || !strcmp(type, "output_text"))
        return need_string(part, "text", path, r);
    if (!strcmp(type, "refusal") && assistant) return need_string(part, "refusal", path, r);
    snprintf(param, sizeof param, "%.140s.type", path);
    for (size_t i = 0; i < sizeof media / sizeof *media; i++)
        if (!strcmp(type, media[i]))
            return qn_refuse(r, 400, "unsupported_value", param,
                             "This model takes text only: content parts of type '%s' are not supported.", type);
    return qn_refuse(r, 400, "invalid_value", param, "Invalid value for '%s': the supported type is 'text'.", param);
}

static int check_content(const json_t *msg, const char *role, const char *path, struct qn_refusal *r) {
    char param[QN_PARAM_MAX];
    int assistant = !strcmp(role, "assistant");
    const json_t *c = json_object_get(msg, "content");
    snprintf(param, sizeof param, "%s.content", path);
    if (!c || json_is_null(c)) {
        if (assistant || (c && (!strcmp(role, "tool") || !strcmp(role, "function")))) return 0;
        return c ? qn_refuse_type(r, param, "a string or an array of content parts", c) : missing(r, param);
    }
    if (json_is_string(c)) return 0;
    if (!json_is_array(c)) return qn_refuse_type(r, param, "a string or an array of content parts", c);
    size_t n = json_array_size(c);
    if (n == 0 && !assistant)
        return qn_refuse(r, 400, "empty_array", param, "Invalid '%s': empty array. Expected at least one content part.", param);
    if (n > PARTS_MAX)
        return qn_refuse(r, 400, "array_above_max_length", param,
                         "Invalid '%s': array too long. Expected at most %d, but got %zu.", param, PARTS_MAX, n);
    for (size_t i = 0; i < n; i++) {
        snprintf(param, sizeof param, "%s.content[%zu]", path, i);
        int rc = check_part(json_array_get(c, i), param, assistant, r);
        if (rc < 0) return rc;
    }
    return 0;
}

static int check_calls(const json_t *msg, const char *path, struct qn_refusal *r) {
    char param[QN_PARAM_MAX], sub[QN_PARAM_MAX];
    const json_t *calls = json_object_get(msg, "tool_calls");
    if (!calls || json_is_null(calls)) return 0;
    snprintf(param, sizeof param, "%s.tool_calls", path);
    if (!json_is_array(calls)) return qn_refuse_type(r, param, "an array", calls);
    if (json_array_size(calls) > CALLS_MAX)
        return qn_refuse(r, 400, "array_above_max_length", param, "Invalid '%s': array too long. Expected at most %d.", param,
                         CALLS_MAX);
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i), *f = json_object_get(call, "function");
        snprintf(param, sizeof param, "%s.tool_calls[%zu]", path, i);
        if (!json_is_object(call)) return qn_refuse_type(r, param, "an object", call);
        const json_t *custom = json_object_get(call, "custom");
        if (custom) {
            snprintf(sub, sizeof sub, "%.120s.custom", param);
            int rc = json_is_object(custom) ? need_string(custom, "name", sub, r) : qn_refuse_type(r, sub, "an object", custom);
            if (rc == 0) rc = need_string(custom, "input", sub, r);
            if (rc < 0) return rc;
            continue;
        }
        snprintf(sub, sizeof sub, "%.120s.function", param);
        if (!f) return missing(r, sub);
        if (!json_is_object(f)) return qn_refuse_type(r, sub, "an object", f);
        int rc = need_string(f, "name", sub, r);
        if (rc < 0) return rc;
        const json_t *args = json_object_get(f, "arguments"); /* peers also send the object itself */
        snprintf(param, sizeof param, "%.140s.arguments", sub);
        if (args && !json_is_string(args) && !json_is_object(args) && !json_is_null(args))
            return qn_refuse_type(r, param, "a string", args);
    }
    return 0;
}

static int check_message(const json_t *msg, const char *path, struct qn_refusal *r) {
    char param[QN_PARAM_MAX];
    if (!json_is_object(msg)) return qn_refuse_type(r, path, "an object", msg);
    int rc = need_string(msg, "role", path, r);
    if (rc < 0) return rc;
    const char *role = json_string_value(json_object_get(msg, "role"));
    size_t k = 0;
    while (k < sizeof roles / sizeof *roles && strcmp(role, roles[k])) k++;
    snprintf(param, sizeof param, "%s.role", path);
    if (k == sizeof roles / sizeof *roles)
        return qn_refuse(
            r, 400, "invalid_value", param,
            "Invalid value for '%s'. Supported values are: 'developer', 'system', 'user', 'assistant', 'tool', and 'function'.",
            param);
    const json_t *name = json_object_get(msg, "name");
    snprintf(param, sizeof param, "%s.name", path);
    if (name && !json_is_string(name) && !json_is_null(name)) return qn_refuse_type(r, param, "a string", name);
    if (!strcmp(role, "tool")) rc = need_string(msg, "tool_call_id", path, r);
    if (rc == 0) rc = check_content(msg, role, path, r);
    if (rc == 0 && !strcmp(role, "assistant")) rc = check_calls(msg, path, r);
    return rc;
}

int qn_messages_check(const json_t *messages, struct qn_refusal *r) {
    if (!messages) return missing(r, "messages");
    if (!json_is_array(messages)) return qn_refuse_type(r, "messages", "an array of objects", messages);
    size_t n = json_array_size(messages);
    if (n == 0)
        return qn_refuse(r, 400, "empty_array", "messages", "Invalid 'messages': empty array. Expected at least one message.");
    if (n > MESSAGES_MAX)
        return qn_refuse(r, 400, "array_above_max_length", "messages",
                         "Invalid 'messages': array too long. Expected at most %d, but got %zu.", MESSAGES_MAX, n);
    for (size_t i = 0; i < n; i++) {
        char path[PATH_MAX_];
        snprintf(path, sizeof path, "messages[%zu]", i);
        int rc = check_message(json_array_get(messages, i), path, r);
        if (rc < 0) return rc;
    }
    return 0;
}

/* --- the template ------------------------------------------------------------------------------------------------- */

/* chat_template_kwargs with the top-level spellings added. A new reference, or NULL when there are none. */
static int make_kwargs(struct qn_exchange *x, json_t **out) {
    const struct qn_params *p = &x->params;
    const struct qn_chars *e = &p->reasoning_effort;
    int none = e->p && e->n == 4 && !memcmp(e->p, "none", 4), thinking = x->thought.wanted;
    static const char *const switches[] = {"enable_thinking", "thinking"};
    *out = p->kwargs ? json_copy((json_t *)(uintptr_t)p->kwargs) : json_object();
    if (!*out) return qn_refuse_code(&x->refusal, QN_E_NOMEM, NULL);
    for (int i = 0; thinking >= 0 && i < 2; i++)
        if (!json_object_get(*out, switches[i])) json_object_set_new(*out, switches[i], json_boolean(thinking));
    if (!e->p || none) return 0;
    if (!qn_template_mentions(x->api->tmpl, "reasoning_effort")) {
        json_decref(*out);
        *out = NULL;
        return qn_refuse(&x->refusal, 400, "unsupported_value", "reasoning_effort",
                         "'reasoning_effort' is not supported by this model: leave it out or send \"none\".");
    }
    if (!json_object_get(*out, "reasoning_effort")) json_object_set_new(*out, "reasoning_effort", json_stringn(e->p, e->n));
    return 0;
}

/* With the history's calls as this template knows them. */
static int render(struct qn_exchange *x, struct qn_template_input *in, struct qn_rendered *text, struct qn_err *err) {
    int generic = qn_call_generic(&x->api->marks), rc = 0;
    const json_t *messages = in->messages, *tools = generic && qn_tools_called(&x->tools) ? x->tools.allowed : NULL;
    for (int place = QN_IN_SYSTEM; place <= QN_IN_USER; place++) {
        json_t *fitted = NULL;
        rc = qn_history(messages, generic, tools, (enum qn_history_place)place, &fitted);
        if (rc < 0) return rc;
        in->messages = fitted ? fitted : messages;
        *err = (struct qn_err){0};
        rc = qn_template_render(x->api->tmpl, in, text, err);
        json_decref(fitted);
        if (rc != QN_E_RAISED || !tools) break;
    }
    return rc;
}

static int too_long(struct qn_refusal *r, int n_ctx, size_t most) {
    return qn_refuse(r, 400, "context_length_exceeded", NULL,
                     "This model's maximum context length is %d tokens, but the prompt has more than %zu.", n_ctx, most);
}

/* Counting far past the context costs time and tells nobody anything new. */
static size_t ids_most(const struct qn_api *a) {
    return (size_t)a->info->n_ctx * 4 + 1024;
}

static int encode(const struct qn_api *a, const struct qn_text *text, unsigned flags, struct qn_ids *ids, struct qn_refusal *r) {
    struct qn_err err = {0};
    int rc = qn_tokenizer_encode(a->tok, text, flags, ids_most(a), ids, &err);
    if (rc == QN_E_LIMIT) return too_long(r, a->info->n_ctx, ids_most(a));
    return rc < 0 ? qn_refuse_code(r, rc, &err) : 0;
}

int qn_messages_prompt(struct qn_exchange *x, struct qn_rendered *text, struct qn_ids *ids) {
    const struct qn_params *p = &x->params;
    struct qn_err err = {0};
    json_t *kwargs = NULL;
    int rc = qn_messages_check(p->messages, &x->refusal);
    if (rc == 0) rc = qn_tools_read(x);
    if (rc == 0) rc = qn_thinking_read(x);
    if (rc == 0) rc = make_kwargs(x, &kwargs);
    if (rc < 0) return rc;
    struct qn_template_input in = {
        .messages = p->messages,
        .tools = json_array_size(x->tools.list) ? x->tools.list : NULL,
        .kwargs = kwargs,
        .documents = p->documents && json_array_size(p->documents) ? p->documents : NULL,
        .continue_final_message = p->continue_final_message == 1,
        .add_generation_prompt = p->add_generation_prompt >= 0 ? p->add_generation_prompt : p->continue_final_message != 1,
        .now_s = qn_clock_wall_ns() / QN_S,
    };
    rc = render(x, &in, text, &err);
    json_decref(kwargs);
    if (rc < 0) {
        qn_refuse_code(&x->refusal, rc, &err);
        if (x->refusal.status == 400 && !x->refusal.param[0]) snprintf(x->refusal.param, sizeof x->refusal.param, "messages");
        return rc;
    }
    if (!ids) return 0;
    int add = p->add_special_tokens >= 0 ? p->add_special_tokens : !qn_template_writes_bos(x->api->tmpl);
    struct qn_text t = {
        .p = text->text.p ? text->text.p : "", .n = text->text.n, .trusted = text->trusted, .n_trusted = text->n_trusted};
    rc = encode(x->api, &t, add ? QN_TOK_ADD_SPECIAL : 0, ids, &x->refusal);
    if (rc < 0) qn_rendered_done(text);
    return rc;
}

/* --- plain prompts and ids ---------------------------------------------------------------------------------------- */

int qn_plain_ids(const struct qn_api *a, const char *s, size_t n, int add_special, int parse_special, struct qn_ids *ids,
                 struct qn_refusal *r) {
    struct qn_range all = {0, n};
    struct qn_text t = {.p = s, .n = n, .trusted = parse_special ? &all : NULL, .n_trusted = parse_special ? 1 : 0};
    return encode(a, &t, add_special ? QN_TOK_ADD_SPECIAL : 0, ids, r);
}

int qn_read_ids(const struct qn_api *a, const json_t *list, const char *path, struct qn_ids *ids, struct qn_refusal *r) {
    size_t n = json_array_size(list);
    if (n > ids_most(a)) return too_long(r, a->info->n_ctx, ids_most(a));
    ids->v = calloc(n ? n : 1, sizeof *ids->v);
    if (!ids->v) return qn_refuse_code(r, QN_E_NOMEM, NULL);
    ids->cap = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        char param[QN_PARAM_MAX];
        if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < (json_int_t)a->info->n_vocab) {
            ids->v[ids->n++] = (uint32_t)json_integer_value(v);
            continue;
        }
        double id;
        snprintf(param, sizeof param, "%.120s[%zu]", path, i);
        int rc = qn_field_number(v, param, 0, (double)a->info->n_vocab - 1, 1, &id, r);
        if (rc < 0) return rc;
        ids->v[ids->n++] = (uint32_t)id;
    }
    return 0;
}

static int hidden(const struct qn_api *a, uint32_t id) {
    enum qn_token_kind k = qn_tokenizer_kind(a->tok, id);
    return k == QN_TOKEN_CONTROL || k == QN_TOKEN_UNKNOWN || k == QN_TOKEN_UNUSED;
}

void qn_ids_text(const struct qn_api *a, const uint32_t *ids, size_t n, int hide_special, struct qn_buf *out) {
    struct qn_buf raw;
    qn_buf_init(&raw, out->max);
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        const char *piece = qn_tokenizer_piece(a->tok, ids[i], &k);
        if (hide_special && hidden(a, ids[i])) continue;
        size_t skip = raw.n == 0 && k > 0 && piece[0] == ' ' && qn_tokenizer_strips_space(a->tok) ? 1 : 0;
        qn_buf_put(&raw, piece + skip, k - skip);
    }
    if (raw.failed) out->failed = raw.failed;
    char *to = raw.n ? qn_buf_reserve(out, 3 * raw.n) : NULL;
    if (to) {
        out->n += qn_utf8_mend(raw.p, raw.n, to);
        out->p[out->n] = 0;
    }
    qn_buf_done(&raw);
}
