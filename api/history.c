/* See history.h. Messages that need no change are shared with the request. */
#include "api/history.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/buf.h"

static const char INTRO[] =
    "You can call functions to help with the user's request. These are their descriptions, one JSON object a line:\n<tools>\n";
static const char HOW[] =
    "</tools>\nTo call functions, write for each call a JSON object with its name and its arguments inside of tags:\n"
    "<tool_call>\n{\"name\": \"the function's name\", \"arguments\": {\"argument\": \"value\"}}\n</tool_call>\n"
    "Each result will be given to you inside of <tool_response></tool_response>. Call a function only when it helps.";
static const size_t TEXT_MAX = 64u << 20;

static const char *role_of(const json_t *m) {
    const char *r = json_string_value(json_object_get(m, "role"));
    return r ? r : "";
}

static json_t *text_of(struct qn_buf *b) {
    json_t *s = b->failed ? NULL : json_stringn(b->p ? b->p : "", b->n);
    qn_buf_done(b);
    return s;
}

static void put_json(struct qn_buf *b, const json_t *j) {
    char *s = json_dumps(j, JSON_ENCODE_ANY);
    if (s) qn_buf_puts(b, s);
    else b->failed = QN_E_NOMEM;
    free(s);
}

/* A content's text: the string, or its text parts. */
static void put_content(struct qn_buf *b, const json_t *c) {
    if (json_is_string(c)) qn_buf_put(b, json_string_value(c), json_string_length(c));
    for (size_t i = 0; json_is_array(c) && i < json_array_size(c); i++) {
        const json_t *t = json_object_get(json_array_get(c, i), "text");
        if (i) qn_buf_putc(b, '\n');
        if (json_is_string(t)) qn_buf_put(b, json_string_value(t), json_string_length(t));
    }
}

/* --- spellings of calls ------------------------------------------------------------------------------------------- */

static json_t *as_call(const json_t *call) {
    const json_t *c = json_object_get(call, "custom"), *input = json_object_get(c, "input");
    if (!json_is_object(c)) return json_incref((json_t *)(uintptr_t)call);
    json_t *out = json_copy((json_t *)(uintptr_t)call);
    json_t *f = json_pack("{s:O?, s:{s:O?}}", "name", json_object_get(c, "name"), "arguments", "input", input);
    if (!out || !f || json_object_del(out, "custom") || json_object_set(out, "function", f) ||
        json_object_set_new(out, "type", json_string("function"))) {
        json_decref(out);
        out = NULL;
    }
    json_decref(f);
    return out;
}

/* The message's calls as tool_calls; NULL: none. */
static json_t *calls_of(const json_t *m) {
    const json_t *old = json_object_get(m, "function_call"), *calls = json_object_get(m, "tool_calls");
    if (json_is_object(old))
        return json_pack("[{s:s, s:s, s:O}]", "id", "call00000", "type", "function", "function", old);
    if (!json_array_size(calls)) return NULL;
    json_t *out = json_array();
    for (size_t i = 0; i < json_array_size(calls); i++) json_array_append_new(out, as_call(json_array_get(calls, i)));
    return out;
}

static int has_custom(const json_t *m) {
    const json_t *calls = json_object_get(m, "tool_calls");
    for (size_t i = 0; i < json_array_size(calls); i++)
        if (json_is_object(json_object_get(json_array_get(calls, i), "custom"))) return 1;
    return 0;
}

/* Content and calls as the model would have written them. */
static json_t *as_text(const json_t *m, const json_t *calls) {
    struct qn_buf b;
    qn_buf_init(&b, TEXT_MAX);
    put_content(&b, json_object_get(m, "content"));
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *f = json_object_get(json_array_get(calls, i), "function"), *a = json_object_get(f, "arguments");
        if (b.n) qn_buf_putc(&b, '\n');
        qn_buf_puts(&b, "<tool_call>\n{\"name\": ");
        put_json(&b, json_object_get(f, "name"));
        qn_buf_puts(&b, ", \"arguments\": ");
        if (json_is_string(a)) qn_buf_put(&b, json_string_value(a), json_string_length(a));
        else if (a) put_json(&b, a);
        else qn_buf_puts(&b, "{}");
        qn_buf_puts(&b, "}\n</tool_call>");
    }
    return text_of(&b);
}

static int is_result(const json_t *m) {
    return !strcmp(role_of(m), "tool") || !strcmp(role_of(m), "function");
}

static json_t *result_text(const json_t *messages, size_t *i) {
    struct qn_buf b;
    qn_buf_init(&b, TEXT_MAX);
    for (; *i < json_array_size(messages) && is_result(json_array_get(messages, *i)); ++*i) {
        qn_buf_puts(&b, b.n ? "\n<tool_response>\n" : "<tool_response>\n");
        put_content(&b, json_object_get(json_array_get(messages, *i), "content"));
        qn_buf_puts(&b, "\n</tool_response>");
    }
    --*i;
    return text_of(&b);
}

/* The message at i as it is to be shown; may take several results at once. A new reference. */
static json_t *fitted(const json_t *messages, size_t *i, int generic) {
    const json_t *m = json_array_get(messages, *i);
    int old = json_is_object(json_object_get(m, "function_call"));
    if (generic && is_result(m)) return json_pack("{s:s, s:o}", "role", "user", "content", result_text(messages, i));
    if (!strcmp(role_of(m), "function")) {
        json_t *r = json_copy((json_t *)(uintptr_t)m);
        json_object_set_new(r, "role", json_string("tool"));
        json_object_set_new(r, "tool_call_id", json_string("call00000"));
        return r;
    }
    if (!old && !has_custom(m) && !(generic && json_array_size(json_object_get(m, "tool_calls"))))
        return json_incref((json_t *)(uintptr_t)m);
    json_t *r = json_copy((json_t *)(uintptr_t)m), *calls = calls_of(m);
    json_object_del(r, "function_call");
    if (generic) {
        json_object_set_new(r, "content", as_text(m, calls));
        json_object_del(r, "tool_calls");
        json_decref(calls);
    } else {
        json_object_set_new(r, "tool_calls", calls);
    }
    return r;
}

/* --- the description ---------------------------------------------------------------------------------------------- */

static json_t *description(const json_t *tools) {
    struct qn_buf b;
    qn_buf_init(&b, TEXT_MAX);
    qn_buf_puts(&b, INTRO);
    for (size_t i = 0; i < json_array_size(tools); i++) {
        put_json(&b, json_array_get(tools, i));
        qn_buf_putc(&b, '\n');
    }
    qn_buf_puts(&b, HOW);
    return text_of(&b);
}

/* `text` before or behind the content of message i, which is copied. */
static int add_text(json_t *messages, size_t i, const json_t *text, int before) {
    json_t *m = json_copy(json_array_get(messages, i));
    struct qn_buf b;
    qn_buf_init(&b, TEXT_MAX);
    if (before) qn_buf_put(&b, json_string_value(text), json_string_length(text));
    if (before) qn_buf_puts(&b, "\n\n");
    put_content(&b, json_object_get(m, "content"));
    if (!before) qn_buf_puts(&b, "\n\n");
    if (!before) qn_buf_put(&b, json_string_value(text), json_string_length(text));
    return json_object_set_new(m, "content", text_of(&b)) || json_array_set_new(messages, i, m) ? -1 : 0;
}

static int describe(json_t *messages, const json_t *tools, enum qn_history_place place) {
    json_t *text = description(tools);
    const char *first = role_of(json_array_get(messages, 0));
    int bad = !text;
    if (!bad && place == QN_IN_USER) {
        size_t i = 0;
        while (i < json_array_size(messages) && strcmp(role_of(json_array_get(messages, i)), "user")) i++;
        bad = i < json_array_size(messages) ? add_text(messages, i, text, 1) : 0;
    } else if (!bad && (!strcmp(first, "system") || !strcmp(first, "developer"))) {
        bad = add_text(messages, 0, text, 0);
    } else if (!bad) {
        bad = json_array_insert_new(messages, 0, json_pack("{s:s, s:O}", "role", "system", "content", text));
    }
    json_decref(text);
    return bad;
}

int qn_history(const json_t *messages, int generic, const json_t *tools, enum qn_history_place place, json_t **out) {
    json_t *list = json_array();
    int changed = tools != NULL, bad = !list;
    *out = NULL;
    for (size_t i = 0; !bad && i < json_array_size(messages); i++) {
        const json_t *was = json_array_get(messages, i);
        json_t *m = fitted(messages, &i, generic);
        changed |= m != was;
        bad = !m || json_array_append_new(list, m);
    }
    if (!bad && tools) bad = describe(list, tools, place);
    if (bad || !changed) json_decref(list);
    else *out = list;
    return bad ? QN_E_NOMEM : 0;
}
