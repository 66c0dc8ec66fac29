/* The shapes that name each parameter: pairs of marks around a value, and Python's or gemma's literals. Arguments become JSON as
 * they come: a text's characters at once, other values when they are complete.
 *
 * Which of both a value is, the tool's schema says, or the model itself where its format has a word for it. A message that ends
 * inside a call by the model's own will is completed, so that its arguments are JSON. */
#include <string.h>

#include "api/calls_impl.h"
#include "api/json_out.h"

enum { KEY_MAX = 1024 };

static void give(struct qn_call_parser *p, const char *s) {
    qn_cp_give(p, QN_PIECE_ARGUMENTS, s, strlen(s));
}

/* `{"key": ` or `, "key": `, and what the schema says of it. */
static void give_key(struct qn_call_parser *p) {
    give(p, p->n_params++ ? ", " : "{");
    p->gave_args = 1;
    qn_buf_reset(&p->tmp);
    qn_json_string(&p->tmp, p->key.p ? p->key.p : "", p->key.n);
    qn_cp_give(p, QN_PIECE_ARGUMENTS, p->tmp.p, p->tmp.n);
    give(p, ": ");
}

static int end_call(struct qn_call_parser *p, size_t at, enum qn_cp_state next) {
    if (p->n_params) give(p, "}");
    p->at = at;
    return qn_cp_call_end(p, next);
}

/* Something else where a parameter or the end must be: the call ends, and text goes on. */
static int broken(struct qn_call_parser *p) {
    size_t at = p->at;
    end_call(p, at, CP_TEXT);
    return p->st == CP_TEXT ? qn_cp_leave(p, at) : 1;
}

/* --- marks -------------------------------------------------------------------------------------------------------- */

static int says(const char *s, size_t n, const char *what) {
    return memmem(s, n, what, strlen(what)) != NULL;
}

static int is_text(const struct qn_call_parser *p, const char *attr, size_t n) {
    if (says(attr, n, "string=\"true\"") || says(attr, n, "type=\"string\"")) return 1;
    if (says(attr, n, "string=\"false\"") || says(attr, n, "type=\"")) return 0;
    return qn_schema_is_text(qn_schema_property(p->schema, p->key.p ? p->key.p : "")) > 0;
}

static int begin_param(struct qn_call_parser *p, size_t at) {
    const struct qn_call_format *f = p->m.calls;
    size_t safe, from = at + strlen(f->param), end = qn_cp_find(p, from, f->key_end, &safe), value = end;
    if (end != SIZE_MAX && memchr(p->in.p + from, 0, end - from)) return broken(p);
    if (end == SIZE_MAX || end - from > KEY_MAX) return p->in.n - from > KEY_MAX || p->last == QN_ENDED ? broken(p) : 0;
    size_t attr = end + strlen(f->key_end);
    value = f->value[0] ? qn_cp_find(p, attr, f->value, &safe) : attr;
    if (value == SIZE_MAX) return p->in.n - attr > KEY_MAX || p->last == QN_ENDED ? broken(p) : 0;
    size_t begin = value + strlen(f->value);
    if (f->flags & QN_CF_NEWLINES) { /* one more byte tells whether there is a newline to drop */
        if (begin == p->in.n && p->last != QN_ENDED) return 0;
        if (begin < p->in.n && p->in.p[begin] == '\n') begin++;
    }
    int cdata = f->flags & QN_CF_CDATA ? qn_cp_match(p, begin, "<![CDATA[") : 0;
    if (cdata < 0) return 0;
    qn_buf_reset(&p->key);
    qn_buf_put(&p->key, p->in.p + from, end - from);
    qn_buf_reset(&p->end);
    if (cdata) qn_buf_puts(&p->end, "]]>");
    qn_buf_puts(&p->end, f->value_end);
    if (f->flags & QN_CF_NESTED) {
        qn_buf_put(&p->end, p->key.p, p->key.n);
        qn_buf_putc(&p->end, '>');
    }
    if (p->key.failed || p->end.failed) { /* the feeder is told */
        p->st = CP_OVER;
        return 1;
    }
    int text = is_text(p, p->in.p + attr, value - attr);
    p->at = cdata ? begin + 9 : begin;
    give_key(p);
    if (text) give(p, "\"");
    p->st = text ? CP_PARAM_TEXT : CP_PARAM_HELD;
    return 1;
}

int qn_cp_params(struct qn_call_parser *p) {
    const struct qn_call_format *f = p->m.calls;
    size_t at = qn_cp_blanks(p, p->at);
    if (at == p->in.n) return p->last == QN_ENDED ? end_call(p, at, CP_SECTION) : 0;
    int close = qn_cp_match(p, at, f->close);
    if (close > 0) return end_call(p, at + strlen(f->close), CP_SECTION);
    int param = qn_cp_match(p, at, f->param);
    if (close < 0 || param < 0) return 0;
    return param ? begin_param(p, at) : broken(p);
}

/* One newline before the mark is the format's, not the value's. */
static size_t trimmed(const struct qn_call_parser *p, size_t end) {
    return (p->m.calls->flags & QN_CF_NEWLINES) && end > p->at && p->in.p[end - 1] == '\n' ? end - 1 : end;
}

int qn_cp_param_text(struct qn_call_parser *p) {
    size_t safe, at = qn_cp_find(p, p->at, p->end.p, &safe);
    int over = at != SIZE_MAX || p->last == QN_ENDED;
    size_t end = trimmed(p, at != SIZE_MAX ? at : safe);
    qn_buf_reset(&p->tmp);
    char *to = qn_buf_reserve(&p->tmp, (end - p->at) * QN_ESCAPE_MAX + 1);
    if (to) qn_cp_give(p, QN_PIECE_ARGUMENTS, p->tmp.p, (size_t)(qn_json_escape(to, p->in.p + p->at, end - p->at) - to));
    p->at = end;
    if (!over) return 0;
    give(p, "\"");
    p->at = at != SIZE_MAX ? at + p->end.n : p->in.n;
    p->st = CP_PARAMS;
    return 1;
}

int qn_cp_param_held(struct qn_call_parser *p) {
    size_t safe, at = qn_cp_find(p, p->at, p->end.p, &safe);
    if (at == SIZE_MAX && p->last != QN_ENDED) return 0;
    size_t end = trimmed(p, at != SIZE_MAX ? at : p->in.n);
    const json_t *schema = qn_schema_property(p->schema, p->key.p ? p->key.p : "");
    qn_buf_reset(&p->tmp);
    if (p->m.calls->flags & QN_CF_NESTED) qn_nested_json(schema, p->m.calls->param, p->in.p + p->at, end - p->at, &p->tmp);
    else qn_param_json(schema, p->in.p + p->at, end - p->at, &p->tmp);
    qn_cp_give(p, QN_PIECE_ARGUMENTS, p->tmp.p, p->tmp.n);
    p->at = at != SIZE_MAX ? at + p->end.n : p->in.n;
    p->st = CP_PARAMS;
    return 1;
}

/* --- literals ----------------------------------------------------------------------------------------------------- */

/* The key at `at` into p->key: the place behind it and its blanks; 0: more is needed; SIZE_MAX: none. */
static size_t literal_key(struct qn_call_parser *p, size_t at) {
    const char *s = p->in.p;
    size_t from = at, n = p->in.n;
    if (s[at] == '"' || s[at] == '\'') {
        const char *q = memchr(s + at + 1, s[at], n - at - 1);
        if (!q) return n - at > KEY_MAX || p->last == QN_ENDED ? SIZE_MAX : 0;
        from = at + 1;
        at = (size_t)(q - s);
    } else {
        while (at < n && at - from < KEY_MAX && (unsigned char)s[at] > ' ' && !memchr(":=,(){}[]\"'", s[at], 11)) at++;
        if (at == n && p->last != QN_ENDED) return 0;
        if (at == from) return SIZE_MAX;
    }
    qn_buf_reset(&p->key);
    qn_buf_put(&p->key, s + from, at - from);
    at += from > 0 && (s[from - 1] == '"' || s[from - 1] == '\'') && s[at] == s[from - 1];
    at = qn_cp_blanks(p, at);
    return at == n ? (p->last == QN_ENDED ? SIZE_MAX : 0) : at;
}

int qn_cp_literals(struct qn_call_parser *p) {
    const struct qn_call_format *f = p->m.calls;
    size_t at = qn_cp_blanks(p, p->at);
    while (at < p->in.n && p->in.p[at] == ',' && p->n_params) at = qn_cp_blanks(p, at + 1);
    if (at == p->in.n) return p->last == QN_ENDED ? end_call(p, at, CP_SECTION) : 0;
    if (p->in.p[at] == f->close[0]) return end_call(p, at + 1, CP_SECTION);
    size_t value = literal_key(p, at);
    if (!value) return 0;
    if (value == SIZE_MAX || p->in.p[value] != f->value[0]) return broken(p);
    value = qn_cp_blanks(p, value + 1);
    const char stops[] = {',', f->close[0], 0};
    size_t n = qn_literal_end(p->in.p + value, p->in.n - value, stops);
    if (n == SIZE_MAX && p->last != QN_ENDED) return 0;
    if (n == SIZE_MAX) n = p->in.n - value;
    give_key(p);
    qn_buf_reset(&p->tmp);
    if (qn_literal_json(p->in.p + value, n, &p->tmp) < 0) {
        const char *s = p->in.p + value; /* quotes that were not escaped inside */
        int quoted = n >= 2 && (s[0] == '\'' || s[0] == '"') && s[n - 1] == s[0];
        qn_buf_reset(&p->tmp);
        qn_json_string(&p->tmp, s + quoted, n - 2 * (size_t)quoted);
    }
    qn_cp_give(p, QN_PIECE_ARGUMENTS, p->tmp.p, p->tmp.n);
    p->at = value + n;
    return 1;
}
