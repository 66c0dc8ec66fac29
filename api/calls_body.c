/* Sections of calls, and the shapes whose arguments are JSON already: objects with a name in them, and names with a value behind.
 *
 * Arguments that are JSON go out byte for byte as the model wrote them; where a model writes them as a string of JSON the string is
 * undone. A call is certain once its function is known; what does not look like one before that is text. */
#include <string.h>

#include "api/calls_impl.h"

enum { HEAD_MAX = 1024, GAP_MAX = 256, STRING_MAX = 4096 };

/* --- sections ----------------------------------------------------------------------------------------------------- */

static int is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

/* Neither a call nor the end: text, be it from the section's mark on. */
static int strange(struct qn_call_parser *p) {
    if (p->begun) { /* within a call that is certain: it ends here */
        qn_cp_call_end(p, CP_TEXT);
        return p->st == CP_TEXT ? qn_cp_leave(p, p->at) : 1;
    }
    return p->calls_here ? qn_cp_leave(p, p->at) : qn_cp_no_call(p);
}

static int is_json_shape(const struct qn_call_format *f) {
    return f->shape == QN_SHAPE_JSON || f->shape == QN_SHAPE_KEYED;
}

/* Brackets and commas of a list of calls. 1: taken. */
static int list_mark(struct qn_call_parser *p, size_t at) {
    char c = p->in.p[at];
    int opens = c == '[' && !p->in_list && !p->calls_here, closes = c == ']' && p->in_list, parts = (c == ',' || c == ';') && p->calls_here;
    if (!opens && !closes && !parts) return 0;
    if (!parts) p->in_list = opens;
    p->at = at + 1;
    return 1;
}

int qn_cp_section(struct qn_call_parser *p) {
    const struct qn_call_format *f = p->m.calls;
    size_t at = qn_cp_blanks(p, p->at);
    if (at == p->in.n) return 0;
    int end = p->section_end[0] ? qn_cp_match(p, at, p->section_end) : 0, open = f->open[0] ? qn_cp_match(p, at, f->open) : 0;
    if (end > 0) return p->calls_here ? qn_cp_leave(p, at + strlen(p->section_end)) : qn_cp_no_call(p);
    if (open > 0) {
        p->at = at + strlen(f->open);
        p->st = CP_HEAD;
        return 1;
    }
    if (end < 0 || open < 0) return 0;
    int lists = is_json_shape(f) || f->shape == QN_SHAPE_LITERAL;
    if (lists && list_mark(p, at)) return 1;
    if (is_json_shape(f) && p->in.p[at] == '{') {
        p->at = at + 1;
        p->st = CP_MEMBERS;
        p->fn[0] = 0;
        p->gave_args = p->nest = 0;
        p->args_n = 0;
        return 1;
    }
    if (f->shape == QN_SHAPE_LITERAL && !f->open[0] && is_name_char(p->in.p[at])) {
        p->at = at;
        p->st = CP_HEAD;
        return 1;
    }
    return strange(p);
}

/* --- a name before its arguments ---------------------------------------------------------------------------------- */

static int known(const struct qn_call_parser *p) {
    return !(p->wary || p->o.listed_only) || qn_tool_function(p->o.tool_list, p->fn) != NULL;
}

/* There may still come what makes it a head, within max bytes; else it is none. */
static int no_head(struct qn_call_parser *p, size_t at, size_t max) {
    if (p->last != QN_ENDED && p->in.n - at < max) return 0;
    return strange(p);
}

int qn_cp_head(struct qn_call_parser *p) {
    const struct qn_call_format *f = p->m.calls;
    size_t at = p->at, safe, k = 0;
    if (f->skip_to[0]) {
        size_t to = qn_cp_find(p, at, f->skip_to, &safe);
        if (to == SIZE_MAX) return no_head(p, at, GAP_MAX);
        at = to + strlen(f->skip_to);
    }
    int drop = f->drop[0] ? qn_cp_match(p, at, f->drop) : 0;
    if (drop < 0) return 0;
    if (drop > 0) at += strlen(f->drop);
    if (f->skip_to[0] || !f->sep[0]) at = qn_cp_blanks(p, at);
    while (at + k < p->in.n && k < sizeof p->fn - 1 && is_name_char(p->in.p[at + k])) k++;
    if (at + k == p->in.n && p->last != QN_ENDED) return 0;
    if (k == 0) return no_head(p, at, 0);
    memcpy(p->fn, p->in.p + at, k);
    p->fn[k] = 0;
    at += k;
    if (f->sep[0]) {
        size_t to = qn_cp_find(p, at, f->sep, &safe);
        int direct = (f->flags & QN_CF_BARE) || f->shape == QN_SHAPE_LITERAL;
        if (to == SIZE_MAX && !(direct && safe > at)) return no_head(p, at, GAP_MAX);
        if (to == SIZE_MAX || (direct && to > at)) return no_head(p, at, 0);
        at = to + strlen(f->sep);
    }
    if (!known(p)) return no_head(p, at, 0);
    p->at = at;
    qn_cp_call(p);
    p->value_begun = 0;
    p->st = f->shape == QN_SHAPE_NAMED ? CP_VALUE : f->shape == QN_SHAPE_TAGS ? CP_PARAMS : CP_LITERALS;
    return 1;
}

/* --- JSON values -------------------------------------------------------------------------------------------------- */

/* Argument bytes of the value that is being scanned. */
static void give_args(struct qn_call_parser *p, const char *s, size_t n) {
    if (!n || p->js.kind == 'n') return; /* null: no arguments */
    if (p->js.kind == '"') {
        int over;
        size_t skip = p->gave_args ? 0 : 1; /* the opening quote */
        qn_buf_reset(&p->tmp);
        qn_json_unescape(&p->un, s + skip, n - skip, &p->tmp, &over);
        s = p->tmp.p;
        n = p->tmp.n;
    }
    p->gave_args = 1;
    qn_cp_give(p, QN_PIECE_ARGUMENTS, s, n);
}

static void begin_value(struct qn_call_parser *p) {
    p->js = (struct qn_json_scan){0};
    p->un = (struct qn_unescape){0};
    p->value_begun = 1;
}

/* More of the value at `at`. 1 when it is over. */
static int more_value(struct qn_call_parser *p) {
    size_t k = qn_json_scan(&p->js, p->in.p + p->at, p->in.n - p->at);
    if (p->is_args && p->begun) {
        give_args(p, p->in.p + p->at, k);
    } else if (p->is_args) {
        if (!p->args_n) p->args_from = p->at;
        p->args_n += k;
    }
    p->at += k;
    return p->js.over;
}

int qn_cp_value(struct qn_call_parser *p) {
    if (!p->value_begun) {
        size_t at = qn_cp_blanks(p, p->at);
        p->at = at;
        if (at == p->in.n) return 0;
        p->is_args = 1;
        begin_value(p);
        if (p->in.p[at] != '{' && p->in.p[at] != '"' && p->in.p[at] != '[') { /* no arguments at all */
            p->st = CP_CLOSE;
            return 1;
        }
    }
    if (!more_value(p)) return 0;
    p->st = CP_CLOSE;
    return 1;
}

int qn_cp_close(struct qn_call_parser *p) {
    const struct qn_call_format *f = p->m.calls;
    size_t at = qn_cp_blanks(p, p->at);
    int close = !f->close[0] ? 0 : at == p->in.n && p->last != QN_ENDED ? -1 : qn_cp_match(p, at, f->close);
    if (close < 0) return 0;
    if (close > 0) p->at = at + strlen(f->close);
    if (!f->header) return qn_cp_call_end(p, CP_SECTION);
    qn_cp_call_end(p, CP_TEXT);
    return p->st == CP_TEXT ? qn_cp_leave(p, p->at) : 1;
}

/* --- objects ------------------------------------------------------------------------------------------------------ */

static int one_of(const struct qn_buf *key, const char *const *names) {
    for (; *names; names++)
        if (key->n == strlen(*names) && !memcmp(key->p, *names, key->n)) return 1;
    return 0;
}

static const char *const name_keys[] = {"name", "tool_name", "function_name", NULL};
static const char *const args_keys[] = {"arguments", "parameters", "args", NULL};
static const char *const other_keys[] = {"type", "id", "function", "tool_call_id", NULL};

/* The string at `at`, a quote, decoded into out: the place behind it; 0: more is needed; SIZE_MAX: too long. */
static size_t whole_string(struct qn_call_parser *p, size_t at, struct qn_buf *out) {
    struct qn_unescape u = {0};
    int over = 0;
    qn_buf_reset(out);
    size_t k = qn_json_unescape(&u, p->in.p + at + 1, p->in.n - at - 1, out, &over);
    if (over) return at + 1 + k;
    return k > STRING_MAX ? SIZE_MAX : 0;
}

/* The function's name is read: what came before it can go out. */
static int named(struct qn_call_parser *p, const struct qn_buf *name) {
    if (!name->n || name->n >= sizeof p->fn || memchr(name->p, 0, name->n)) return 0;
    memcpy(p->fn, name->p, name->n);
    p->fn[name->n] = 0;
    if (!known(p)) return 0;
    size_t n = p->args_n;
    qn_cp_call(p);
    p->args_n = 0;
    p->un = (struct qn_unescape){0};
    p->js.kind = p->args_kind;
    give_args(p, p->in.p + p->args_from, n);
    return 1;
}

static int object_over(struct qn_call_parser *p) {
    p->at++;
    if (p->nest) {
        p->nest--;
        return 1;
    }
    if (!p->begun) return strange(p);
    return qn_cp_call_end(p, CP_SECTION);
}

/* What stands behind the key that was read, whose value begins at `at`. */
static int member(struct qn_call_parser *p, size_t at) {
    int keyed = p->m.calls->shape == QN_SHAPE_KEYED;
    char c = p->in.p[at];
    if (keyed && !p->begun) {
        p->args_n = 0;
        if (!named(p, &p->key)) return strange(p);
        p->is_args = 1;
    } else if (!keyed && c == '"' && !p->begun && (one_of(&p->key, name_keys) || (p->key.n == 8 && one_of(&p->key, other_keys + 2)))) {
        size_t end = whole_string(p, at, &p->tmp);
        if (!end && p->last != QN_ENDED) return 0;
        struct qn_buf name = p->tmp;
        if (!end || end == SIZE_MAX) return strange(p);
        p->tmp = (struct qn_buf){0}; /* named() uses tmp */
        qn_buf_init(&p->tmp, name.max);
        int ok = named(p, &name);
        qn_buf_done(&name);
        if (!ok) return strange(p);
        p->at = end;
        return 1;
    } else {
        p->is_args = !keyed && one_of(&p->key, args_keys) && !p->gave_args && !p->args_n;
        if (p->wary && !p->begun && !p->is_args && !one_of(&p->key, other_keys)) return strange(p);
        if (c == '{' && p->key.n == 8 && one_of(&p->key, other_keys + 2)) {
            p->nest++;
            p->at = at + 1;
            return 1;
        }
    }
    begin_value(p);
    p->at = at;
    p->st = CP_MEMBER_VALUE;
    return 1;
}

int qn_cp_members(struct qn_call_parser *p) {
    size_t at = qn_cp_blanks(p, p->at);
    p->at = at;
    if (at == p->in.n) return 0;
    if (p->in.p[at] == ',') {
        p->at++;
        return 1;
    }
    if (p->in.p[at] == '}') return object_over(p);
    if (p->in.p[at] != '"') return strange(p);
    size_t end = whole_string(p, at, &p->key);
    if (!end) return 0;
    if (end == SIZE_MAX) return strange(p);
    end = qn_cp_blanks(p, end);
    if (end == p->in.n) return 0;
    if (p->in.p[end] != ':') return strange(p);
    end = qn_cp_blanks(p, end + 1);
    if (end == p->in.n) return 0;
    return member(p, end);
}

int qn_cp_member_value(struct qn_call_parser *p) {
    if (!more_value(p)) return 0;
    if (p->is_args && !p->begun) p->args_kind = p->js.kind;
    p->st = CP_MEMBERS;
    return 1;
}
