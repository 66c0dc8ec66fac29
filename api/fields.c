/* Error codes are OpenAI's finer ones (integer_above_max_value and so on): the SDKs only look at the status, but people
 * and their tests read the code. A value is repeated only when it is a number. */
#include "api/fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IGNORED_BYTES_MAX = 512, IGNORED_NAME_MAX = 64 };

const char *qn_json_kind(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a decimal number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

int qn_refuse_type(struct qn_refusal *r, const char *param, const char *wanted, const json_t *got) {
    return qn_refuse(r, 400, "invalid_type", param, "Invalid type for '%s': expected %s, but got %s instead.", param, wanted,
                     qn_json_kind(got));
}

static int outside(const char *param, double v, double lo, double hi, int integer, int above, struct qn_refusal *r) {
    static const char *const code[2][2] = {{"decimal_below_min_value", "decimal_above_max_value"},
                                           {"integer_below_min_value", "integer_above_max_value"}};
    return qn_refuse(r, 400, code[integer][above], param,
                     "Invalid '%s': %s %s value. Expected a value from %.15g to %.15g, but got %.15g instead.", param,
                     integer ? "integer" : "decimal", above ? "above maximum" : "below minimum", lo, hi, v);
}

int qn_field_number(const json_t *v, const char *param, double lo, double hi, int integer, double *out, struct qn_refusal *r) {
    if (!json_is_number(v)) return qn_refuse_type(r, param, integer ? "an integer" : "a number", v);
    double d = json_number_value(v);
    if (integer && d != floor(d)) return qn_refuse_type(r, param, "an integer", v);
    if (d < lo || d > hi) return outside(param, d, lo, hi, integer, d > hi, r);
    *out = d;
    return 0;
}

/* --- one member --------------------------------------------------------------------------------------------------- */

static int store_number(const struct qn_field *f, const char *param, const json_t *v, char *to, struct qn_refusal *r) {
    double d;
    int rc = qn_field_number(v, param, f->lo, f->hi, f->kind == QN_F_INT, &d, r);
    if (rc < 0) return rc;
    if (f->lo_open && d <= f->lo)
        return qn_refuse(
            r, 400, "decimal_below_min_value", param,
            "Invalid '%s': decimal below minimum value. Expected a value above %.15g and at most %.15g, but got %.15g instead.",
            param, f->lo, f->hi, d);
    if (f->kind == QN_F_INT) {
        /* A double holds 53 bits; a seed has 64. */
        int64_t i = json_is_integer(v) ? (int64_t)json_integer_value(v) : (int64_t)d;
        memcpy(to + f->at, &i, sizeof i);
    } else {
        memcpy(to + f->at, &d, sizeof d);
    }
    return 0;
}

static int store(const struct qn_field *f, const char *param, const json_t *v, char *to, struct qn_refusal *r) {
    switch (f->kind) {
    case QN_F_BOOL: {
        if (!json_is_boolean(v)) return qn_refuse_type(r, param, "a boolean", v);
        int b = json_is_true(v);
        memcpy(to + f->at, &b, sizeof b);
        return 0;
    }
    case QN_F_INT:
    case QN_F_NUM: return store_number(f, param, v, to, r);
    case QN_F_STR: {
        if (!json_is_string(v)) return qn_refuse_type(r, param, "a string", v);
        struct qn_chars s = {json_string_value(v), json_string_length(v)};
        if (f->hi > 0 && (double)s.n > f->hi)
            return qn_refuse(r, 400, "string_above_max_length", param,
                             "Invalid '%s': string too long. Expected at most %.0f bytes, but got %zu.", param, f->hi, s.n);
        memcpy(to + f->at, &s, sizeof s);
        return 0;
    }
    default: memcpy(to + f->at, &v, sizeof v); return 0;
    }
}

/* Is v the alternative [a, end) of a `passes` list? `*` stands for anything. */
static int is_value(const json_t *v, const char *a, const char *end) {
    size_t n = (size_t)(end - a);
    switch (*a) {
    case '*': return 1;
    case 't': return json_is_true(v);
    case 'f': return json_is_false(v);
    case '"': return json_is_string(v) && json_string_length(v) == n - 2 && !memcmp(json_string_value(v), a + 1, n - 2);
    case '[':
    case '{': {
        json_t *want = json_loadb(a, n, 0, NULL);
        int same = want && json_equal(want, (json_t *)(uintptr_t)v);
        json_decref(want);
        return same;
    }
    default: /* a number; clients that hold floats send 0.1 as 0.10000000149 */
        return json_is_number(v) && fabs(json_number_value(v) - strtod(a, NULL)) < 1e-6;
    }
}

static int passes(const struct qn_field *f, const json_t *v) {
    for (const char *a = f->passes; *a;) {
        const char *end = strchr(a, '|');
        if (!end) end = a + strlen(a);
        if (end > a && is_value(v, a, end)) return 1;
        a = *end ? end + 1 : end;
    }
    return 0;
}

static int refuse_unbuilt(const struct qn_field *f, const char *param, struct qn_refusal *r) {
    char values[96];
    snprintf(values, sizeof values, "%s", f->passes);
    return qn_refuse(r, 400, "unsupported_value", param, "'%s' is not supported yet%s%s: leave it out%s%s.", param,
                     f->note[0] ? ": " : "", f->note, values[0] ? " or send " : "", values);
}

/* --- the object --------------------------------------------------------------------------------------------------- */

static const struct qn_field *find(const struct qn_walk *w, const char *name) {
    for (size_t i = 0; i < w->n; i++)
        if ((w->table[i].on & w->on) && w->table[i].name[0] == name[0] && !strcmp(w->table[i].name, name)) return &w->table[i];
    return NULL;
}

/* Two spellings of one thing may both be sent, but not with different values. */
static int check_aliases(const struct qn_walk *w, const struct qn_field *f, const json_t *obj, const json_t *v,
                         const char *param) {
    for (size_t i = 0; i < w->n; i++) {
        const struct qn_field *o = &w->table[i];
        if (o == f || o->use != QN_F_HONOURED || o->at != f->at || !(o->on & w->on)) continue;
        json_t *other = json_object_get(obj, o->name);
        if (!other || json_is_null(other) || json_equal(other, (json_t *)(uintptr_t)v)) continue;
        if (json_is_number(other) && json_is_number(v) && json_number_value(other) == json_number_value(v)) continue;
        return qn_refuse(w->r, 400, "invalid_value", param, "'%s' and '%s' mean the same, but their values differ.", o->name,
                         f->name);
    }
    return 0;
}

static int walk_one(const struct qn_walk *w, const json_t *obj, const char *name, const json_t *v, void *into) {
    char param[QN_PARAM_MAX], quoted[QN_QUOTE_MAX + 4];
    const struct qn_field *f = find(w, name);
    snprintf(param, sizeof param, "%s%s", w->path, f ? name : qn_quote(quoted, name, strlen(name)));
    if (!f && w->strict) return qn_refuse(w->r, 400, "unknown_parameter", param, "Unknown parameter: '%s'.", param);
    if (!f || f->use == QN_F_IGNORED) {
        qn_ignored_add(w->ignored, param);
        return 0;
    }
    if (json_is_null(v) || f->use == QN_F_NO_EFFECT) return 0;
    if (f->use == QN_F_DEFAULT_ONLY) return passes(f, v) ? 0 : refuse_unbuilt(f, param, w->r);
    int rc = store(f, param, v, into, w->r);
    return rc < 0 ? rc : check_aliases(w, f, obj, v, param);
}

int qn_fields_walk(const struct qn_walk *w, const json_t *obj, void *into) {
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)obj, name, v) {
        int rc = walk_one(w, obj, name, v, into);
        if (rc < 0) return rc;
    }
    return 0;
}

void qn_ignored_add(struct qn_buf *list, const char *name) {
    static const char more[] = ", ...";
    if (list->n >= sizeof more && !strcmp(list->p + list->n - 3, "...")) return;
    if (list->n + IGNORED_NAME_MAX + sizeof more > IGNORED_BYTES_MAX) {
        qn_buf_puts(list, more);
        return;
    }
    if (list->n) qn_buf_puts(list, ", ");
    for (size_t i = 0; name[i] && i < IGNORED_NAME_MAX; i++) {
        char c = name[i];
        int plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
        qn_buf_putc(list, plain ? c : '?');
    }
}

/* --- documentation ------------------------------------------------------------------------------------------------ */

static void put_range(struct qn_buf *out, const struct qn_field *f) {
    if (f->use != QN_F_HONOURED) return;
    if (f->kind == QN_F_STR && f->hi > 0) qn_buf_printf(out, "at most %.0f bytes", f->hi);
    if (f->kind != QN_F_INT && f->kind != QN_F_NUM) return;
    if (f->hi > 1e15)
        qn_buf_printf(out, "64-bit");
    else
        qn_buf_printf(out, "%s%.10g..%.10g", f->lo_open ? "above " : "", f->lo, f->hi);
}

/* A `|` would end the cell. */
static void put_cell(struct qn_buf *out, const char *s) {
    for (; *s; s++)
        if (*s == '|')
            qn_buf_puts(out, ", ");
        else
            qn_buf_putc(out, *s);
}

void qn_fields_markdown(struct qn_buf *out, const struct qn_field *table, size_t n, unsigned on) {
    static const char *const kind[] = {"boolean", "integer", "number", "string", "any"};
    static const char *const use[] = {"honoured", "not built: only the default passes", "accepted, changes nothing",
                                      "ignored, named in `Quern-Ignored`"};
    qn_buf_puts(out, "| member | what happens | type | range | default or what passes | |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < n; i++) {
        const struct qn_field *f = &table[i];
        if (!(f->on & on)) continue;
        qn_buf_printf(out, "| `%s` | %s | %s | ", f->name, use[f->use], kind[f->kind]);
        put_range(out, f);
        qn_buf_puts(out, " | ");
        put_cell(out, f->passes);
        qn_buf_puts(out, " | ");
        put_cell(out, f->note);
        qn_buf_puts(out, " |\n");
    }
}
