/* Variables of a render from a request: what vLLM, llama.cpp and transformers do to messages before a template sees them.
 *
 * A message that fits is shared with the request, one that does not is copied shallowly and mended. Kwargs come from
 * strangers: they may set what the template asks for (enable_thinking…) and nothing that the server sets itself. */
#include "api/template_input.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/jinja_unicode.h"
#include "engine/base/rng.h"
#include "engine/base/utf8.h"

enum { KWARGS_MAX = 64, KWARG_NAME_MAX = 64 };

static json_t *share(const json_t *j) { return json_incref((json_t *)(uintptr_t)j); }

static int no_memory(struct qn_err *err) { return qn_fail(err, QN_E_NOMEM, "chat template: no memory"); }

/* ---- kwargs ---- */

/* clang-format off */
static const char *const reserved[] = {
    "messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "bos_token", "eos_token",
    "unk_token", "pad_token",
    "sep_token", "cls_token", "mask_token", "additional_special_tokens", "chat_template", "conversation", "tokenize",
    "tokenizer_kwargs",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "raise_exception",
    "strftime_now", "namespace", "range", "dict", "cycler", "joiner", "lipsum", "loop", "caller", "kwargs", "varargs", "self",
};
/* clang-format on */

static int check_kwarg(const char *key, struct qn_err *err) {
    size_t n = strlen(key);
    int ok = n > 0 && n <= KWARG_NAME_MAX && ((key[0] | 0x20) >= 'a' && (key[0] | 0x20) <= 'z');
    for (size_t i = 0; ok && i < n; i++) {
        char c = key[i];
        ok = c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    }
    if (!ok)
        return qn_fail(err, QN_E_RANGE,
                       "chat_template_kwargs: a name must be a letter followed by at most %d letters, digits or _",
                       KWARG_NAME_MAX - 1);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (!strcmp(key, reserved[i])) return qn_fail(err, QN_E_RANGE, "chat_template_kwargs.%s: this name is reserved", key);
    return 0;
}

static int add_kwargs(json_t *vars, const json_t *kwargs, struct qn_err *err) {
    if (!kwargs || json_is_null(kwargs)) return 0;
    if (!json_is_object(kwargs)) return qn_fail(err, QN_E_RANGE, "chat_template_kwargs: must be an object");
    if (json_object_size(kwargs) > KWARGS_MAX)
        return qn_fail(err, QN_E_RANGE, "chat_template_kwargs: at most %d members", KWARGS_MAX);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)kwargs, key, v) {
        int rc = check_kwarg(key, err);
        if (rc < 0) return rc;
        if (json_object_set(vars, key, v)) return no_memory(err);
    }
    return 0;
}

/* ---- messages ---- */

static int is_text_part(const json_t *p) {
    const char *type = json_string_value(json_object_get(p, "type"));
    return json_is_string(json_object_get(p, "text")) &&
           (!type || !strcmp(type, "text") || !strcmp(type, "input_text") || !strcmp(type, "output_text"));
}

/* Text parts as one string, a newline between two. Parts of other kinds are refused: this template could not show them. */
static json_t *flattened(const json_t *parts, size_t message, int *rc, struct qn_err *err) {
    struct qn_buf b;
    qn_buf_init(&b, 64u << 20);
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *p = json_array_get(parts, i), *text = json_object_get(p, "text");
        if (!is_text_part(p)) {
            *rc = qn_fail(err, QN_E_RANGE, "messages[%zu].content[%zu]: this model's chat template takes text parts only",
                          message, i);
            qn_buf_done(&b);
            return NULL;
        }
        if (i) qn_buf_putc(&b, '\n');
        qn_buf_put(&b, json_string_value(text), json_string_length(text));
    }
    json_t *s = json_stringn(b.p ? b.p : "", b.n);
    if (b.failed || !s) *rc = no_memory(err);
    qn_buf_done(&b);
    return s;
}

/* The message itself to be changed: copied once. */
static json_t *own(json_t **m, const json_t *original) {
    if (!*m || *m == original) {
        json_t *copy = json_copy((json_t *)(uintptr_t)original);
        json_decref(*m);
        *m = copy;
    }
    return *m;
}

static int fit_content(const struct qn_template *t, const json_t *from, json_t **m, size_t i, struct qn_err *err) {
    const json_t *c = json_object_get(from, "content");
    json_t *new = NULL;
    int rc = 0;
    if (json_is_array(c) && !t->takes_lists) new = flattened(c, i, &rc, err);
    else if (json_is_string(c) && !t->takes_strings) new = json_pack("[{sssO}]", "type", "text", "text", c);
    else if ((!c || json_is_null(c)) && t->empty_for_null) new = t->takes_strings ? json_string("") : json_array();
    else return 0;
    if (rc < 0) return rc;
    return new && json_object_set_new(own(m, from), "content", new) == 0 ? 0 : no_memory(err);
}

static int fit_role(const struct qn_template *t, const json_t *from, json_t **m, struct qn_err *err) {
    const char *role = json_string_value(json_object_get(from, "role"));
    if (!role || strcmp(role, "developer") || t->knows_developer) return 0;
    return json_object_set_new(own(m, from), "role", json_string("system")) == 0 ? 0 : no_memory(err);
}

/* Reasoning arrives under three names; templates read the first, gpt-oss's reads the second. */
static int fit_reasoning(const json_t *from, json_t **m, struct qn_err *err) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *r = NULL;
    for (size_t i = 0; i < 3 && (!r || json_is_null(r)); i++) r = json_object_get(from, names[i]);
    if (!r || json_is_null(r)) return 0;
    int bad = json_object_set(own(m, from), "reasoning_content", r);
    if (!json_object_get(from, "thinking")) bad |= json_object_set(*m, "thinking", r);
    return bad ? no_memory(err) : 0;
}

/* What the template wants for a call's arguments, or NULL to leave them. */
static json_t *arguments_for(const struct qn_template *t, const json_t *a) {
    if (t->text_arguments) {
        char *s = json_is_object(a) ? json_dumps(a, JSON_REAL_PRECISION(17)) : NULL;
        json_t *text = s ? json_string(s) : NULL;
        free(s);
        return text;
    }
    if (!json_is_string(a)) return NULL;
    if (!json_string_length(a)) return json_object();
    json_t *o = json_loadb(json_string_value(a), json_string_length(a), JSON_ALLOW_NUL, NULL);
    if (o && !json_is_object(o)) {
        json_decref(o);
        o = NULL;
    }
    return o;
}

static int fit_calls(const struct qn_template *t, const json_t *from, json_t **m, struct qn_err *err) {
    const json_t *calls = json_object_get(from, "tool_calls");
    json_t *new = NULL;
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i), *f = json_object_get(call, "function");
        json_t *a = arguments_for(t, json_object_get(f, "arguments"));
        if (!a) continue;
        if (!new) new = json_copy((json_t *)(uintptr_t)calls);
        json_t *call2 = json_copy((json_t *)(uintptr_t)call), *f2 = json_copy((json_t *)(uintptr_t)f);
        int bad = json_object_set(f2, "arguments", a) || json_object_set(call2, "function", f2) || json_array_set(new, i, call2);
        json_decref(a);
        json_decref(f2);
        json_decref(call2);
        if (bad) {
            json_decref(new);
            return no_memory(err);
        }
    }
    if (!new) return 0;
    return json_object_set_new(own(m, from), "tool_calls", new) == 0 ? 0 : no_memory(err);
}

static int fit_message(const struct qn_template *t, const json_t *from, size_t i, json_t **out, struct qn_err *err) {
    if (!json_is_object(from)) return qn_fail(err, QN_E_RANGE, "messages[%zu]: must be an object", i);
    json_t *m = share(from);
    int rc = fit_content(t, from, &m, i, err);
    if (rc == 0) rc = fit_role(t, from, &m, err);
    if (rc == 0) rc = fit_reasoning(from, &m, err);
    if (rc == 0) rc = fit_calls(t, from, &m, err);
    if (rc < 0) json_decref(m);
    else *out = m;
    return rc;
}

/* ---- the final message to be continued ---- */

static json_t *tagged(const json_t *text, const struct qn_template_continue *cut) {
    size_t n = json_string_length(text), k = strlen(cut->tag);
    char *s = malloc(n + k + 1);
    if (!s) return NULL;
    memcpy(s, json_string_value(text), n);
    memcpy(s + n, cut->tag, k + 1);
    json_t *j = json_stringn(s, n + k);
    free(s);
    return j;
}

static size_t space_len(const char *p, size_t n) {
    uint32_t r;
    int k = n ? qn_utf8_decode(p, n, &r) : 0;
    return k > 0 && qn_ju_is(r, QN_JU_SPACE) ? (size_t)k : 0;
}

static size_t rstripped(const char *p, size_t n) {
    for (;;) {
        size_t k = 1;
        while (k < 4 && k < n && ((unsigned char)p[n - k] & 0xC0) == 0x80) k++;
        if (!n || space_len(p + n - k, k) != k) return n;
        n -= k;
    }
}

static int keep_text(struct qn_template_continue *cut, const json_t *text) {
    const char *p = json_string_value(text);
    size_t n = rstripped(p, json_string_length(text));
    for (size_t k; n && (k = space_len(p, n)); p += k) n -= k;
    cut->text = malloc(n + 1);
    if (!cut->text) return -1;
    memcpy(cut->text, p, n);
    cut->n = n;
    return 0;
}

/* Puts the tag behind the last text of the last message, which is the caller's own copy afterwards. */
static int tag_final(json_t *messages, struct qn_template_continue *cut, struct qn_err *err) {
    uint64_t id[2] = {0, 0};
    qn_rng_bytes(id, sizeof id);
    /* A tag that nobody can write into a message. */
    snprintf(cut->tag, sizeof cut->tag, "QN%016" PRIx64 "%016" PRIx64 "END ", id[0], id[1]);
    size_t last = json_array_size(messages) - 1;
    json_t *m = json_copy(json_array_get(messages, last)), *c = json_object_get(m, "content");
    int rc = 0, found = json_is_string(c);
    if (found) {
        rc = keep_text(cut, c) || json_object_set_new(m, "content", tagged(c, cut)) ? no_memory(err) : 0;
    } else {
        for (size_t i = json_array_size(c); i-- > 0 && !found;) {
            json_t *p = json_array_get(c, i), *text = json_object_get(p, "text");
            if (!json_is_string(text)) continue;
            found = 1;
            json_t *p2 = json_copy(p), *c2 = json_copy(c);
            int bad = keep_text(cut, text) || json_object_set_new(p2, "text", tagged(text, cut)) || json_array_set(c2, i, p2) ||
                      json_object_set(m, "content", c2);
            json_decref(p2);
            json_decref(c2);
            rc = bad ? no_memory(err) : 0;
        }
        if (!found) rc = qn_fail(err, QN_E_RANGE, "continue_final_message: the final message has no text to continue");
    }
    if (rc == 0 && json_array_set(messages, last, m)) rc = no_memory(err);
    json_decref(m);
    return rc;
}

static const char *rfind(const char *p, size_t n, const char *what, size_t k) {
    for (size_t i = n < k ? 0 : n - k + 1; i-- > 0;)
        if (p[i] == what[0] && !memcmp(p + i, what, k)) return p + i;
    return NULL;
}

int qn_template_cut(const struct qn_template_continue *cut, struct qn_rendered *r, struct qn_err *err) {
    size_t k = strlen(cut->tag) - 1, n = r->text.n;
    const char *p = r->text.p ? r->text.p : "", *at = rfind(p, n, cut->tag, k);
    if (!at || (cut->n && !memmem(p, n, cut->text, cut->n)))
        return qn_fail(err, QN_E_RANGE, "continue_final_message: the chat template does not keep the final message as it is");
    size_t end = (size_t)(at - p);
    if (end + k >= n || p[end + k] != ' ') end = rstripped(p, end); /* the template trims: so is the text before the tag */
    r->text.n = end;
    r->text.p[end] = 0;
    while (r->n_trusted && r->trusted[r->n_trusted - 1].from >= end) r->n_trusted--;
    if (r->n_trusted && r->trusted[r->n_trusted - 1].to > end) r->trusted[r->n_trusted - 1].to = end;
    return 0;
}

/* ---- all of it ---- */

static int add_messages(const struct qn_template *t, const struct qn_template_input *in, json_t *vars,
                        struct qn_template_continue *cut, struct qn_err *err) {
    json_t *messages = json_array();
    int rc = 0;
    for (size_t i = 0; i < json_array_size(in->messages) && rc == 0; i++) {
        json_t *m = NULL;
        rc = fit_message(t, json_array_get(in->messages, i), i, &m, err);
        if (rc == 0 && json_array_append_new(messages, m)) rc = no_memory(err);
    }
    if (rc == 0 && !json_array_size(messages)) rc = qn_fail(err, QN_E_RANGE, "messages: must not be empty");
    if (rc == 0 && in->continue_final_message) rc = tag_final(messages, cut, err);
    if (rc == 0) rc = json_object_set(vars, "messages", messages) ? no_memory(err) : 0;
    json_decref(messages);
    return rc;
}

int qn_template_vars(const struct qn_template *t, const struct qn_template_input *in, json_t **out,
                     struct qn_template_continue *cut, struct qn_err *err) {
    *cut = (struct qn_template_continue){0};
    if (in->add_generation_prompt && in->continue_final_message)
        return qn_fail(err, QN_E_RANGE, "continue_final_message: not together with add_generation_prompt");
    json_t *vars = json_object();
    int rc = vars ? add_kwargs(vars, in->kwargs, err) : no_memory(err);
    if (rc == 0) rc = add_messages(t, in, vars, cut, err);
    int tools = in->tools && json_array_size(in->tools) > 0, documents = in->documents && json_array_size(in->documents) > 0;
    if (rc == 0 && (json_object_set_new(vars, "tools", tools ? share(in->tools) : json_null()) ||
                    json_object_set_new(vars, "documents", documents ? share(in->documents) : json_null()) ||
                    json_object_set_new(vars, "add_generation_prompt", json_boolean(in->add_generation_prompt))))
        rc = no_memory(err);
    if (rc < 0) json_decref(vars);
    else *out = vars;
    return rc;
}
