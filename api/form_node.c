/* A form's grammar, and the check of a complete answer that does not ask that grammar. Structural tags (SGLang, vLLM): free text in
 * which each trigger begins one of the tags, begin + instance of its schema + end. */
#include <stdio.h>
#include <string.h>

#include "api/form.h"

/* What a front end of the grammar said, with the member's path. */
static int refuse(const struct qn_answer_form *f, struct qn_refusal *r, const struct qn_err *err) {
    if (err->code == QN_E_NOMEM || err->code == QN_E_INTERNAL) return qn_refuse_code(r, err->code, err);
    return qn_refuse(r, 400, err->code == QN_E_UNSUPPORTED ? "unsupported_value" : "invalid_value", f->path, "Invalid '%s': %s.", f->path, err->text);
}

static qn_gnode choices(struct qn_grammar *g, const json_t *list) {
    qn_gnode v[QN_CHOICES_SAID_MAX];
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++) v[i] = qn_g_bytes(g, json_string_value(json_array_get(list, i)), json_string_length(json_array_get(list, i)));
    return qn_g_alt_n(g, v, n);
}

/* --- structural tags ---------------------------------------------------------------------------------------------- */

struct tags {
    struct qn_grammar *g;
    const struct qn_answer_form *f;
    struct qn_refusal *r;
    char path[QN_PARAM_MAX];
};

static int bad_tag(const struct tags *t, const char *member, const char *what) {
    char path[QN_PARAM_MAX];
    snprintf(path, sizeof path, "%.100s%s", t->path, member);
    return qn_refuse(t->r, 400, "invalid_value", path, "Invalid '%s': %s.", path, what);
}

static int begins(const json_t *text, const json_t *triggers) {
    const char *s = json_string_value(text);
    for (size_t i = 0; i < json_array_size(triggers); i++) {
        const char *t = json_string_value(json_array_get(triggers, i));
        if (t && strncmp(s, t, strlen(t)) == 0) return 1;
    }
    return 0;
}

static qn_gnode literal(struct qn_grammar *g, const json_t *s) { return qn_g_bytes(g, json_string_value(s), json_string_length(s)); }

static int one_tag(struct tags *t, const json_t *tag, const json_t *triggers, qn_gnode *out) {
    const json_t *begin = json_object_get(tag, "begin"), *schema = json_object_get(tag, "schema"), *end = json_object_get(tag, "end");
    static const char *const names[] = {"begin", "schema", "end", NULL};
    qn_gnode body;
    if (qn_form_only(tag, t->path, names, t->r) < 0) return QN_E_RANGE;
    if (!json_is_string(begin) || !json_is_string(end)) return bad_tag(t, "", "'begin' and 'end' are strings");
    if (!begins(begin, triggers)) return bad_tag(t, ".begin", "it begins with none of the triggers");
    char path[QN_PARAM_MAX];
    snprintf(path, sizeof path, "%.100s.schema", t->path);
    if (qn_schema_node(t->g, schema ? schema : json_true(), &t->f->opts, path, &body, t->r) < 0) return QN_E_RANGE;
    *out = qn_g_cat(t->g, literal(t->g, begin), qn_g_cat(t->g, body, literal(t->g, end)));
    return 0;
}

static int tags_node(struct qn_grammar *g, const struct qn_answer_form *f, qn_gnode *out, struct qn_refusal *r) {
    enum { TAGS_MAX = 128 };
    struct tags t = {g, f, r, ""};
    const json_t *list = json_object_get(f->value, "structures"), *triggers = json_object_get(f->value, "triggers");
    qn_gnode marks = QN_G_NONE, all = QN_G_NONE, one = QN_G_NONE;
    static const char *const names[] = {"type", "structures", "triggers", NULL};
    snprintf(t.path, sizeof t.path, "%s", f->path);
    if (json_object_get(f->value, "format"))
        return qn_refuse(r, 400, "unsupported_value", f->path, "'%s' with 'format' is not supported: send 'structures' and 'triggers'.", f->path);
    if (qn_form_only(f->value, f->path, names, r) < 0) return QN_E_RANGE;
    if (!json_array_size(list) || !json_array_size(triggers) || json_array_size(list) > TAGS_MAX || json_array_size(triggers) > TAGS_MAX)
        return bad_tag(&t, "", "'structures' and 'triggers' are arrays of 1 to 128");
    for (size_t i = 0; i < json_array_size(triggers); i++) {
        const json_t *s = json_array_get(triggers, i);
        if (!json_is_string(s) || json_string_length(s) == 0) return bad_tag(&t, ".triggers", "its members are strings that are not empty");
        marks = qn_g_alt(g, marks, literal(g, s));
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        snprintf(t.path, sizeof t.path, "%.80s.structures[%zu]", f->path, i);
        if (one_tag(&t, json_array_get(list, i), triggers, &one) < 0) return QN_E_RANGE;
        all = qn_g_alt(g, all, one);
    }
    qn_gnode text = qn_g_text(g), hit = qn_g_cat(g, text, qn_g_cat(g, marks, text)), quiet = qn_g_and(g, text, qn_g_not(g, hit));
    *out = qn_g_cat(g, qn_g_repeat(g, qn_g_cat(g, quiet, all), 0, QN_G_INF), quiet);
    return 0;
}

/* --- node --------------------------------------------------------------------------------------------------------- */

int qn_answer_form_node(struct qn_grammar *g, const struct qn_answer_form *f, qn_gnode *out, struct qn_refusal *r) {
    struct qn_err err = {0};
    switch (f->form) {
    case QN_FORM_OBJECT: *out = qn_schema_object(g, &f->opts); return 0;
    case QN_FORM_SCHEMA: return qn_schema_node(g, f->value, &f->opts, f->path, out, r);
    case QN_FORM_TAGS: return tags_node(g, f, out, r);
    case QN_FORM_CHOICE: *out = choices(g, f->value); return 0;
    case QN_FORM_REGEX: *out = qn_g_regex(g, f->text.p, f->text.n, NULL, &err); break;
    case QN_FORM_GBNF: *out = qn_g_gbnf(g, f->text.p, f->text.n, &err); break;
    case QN_FORM_LARK: *out = qn_g_lark(g, f->text.p, f->text.n, &err); break;
    case QN_FORM_FREE: *out = qn_g_text(g); return 0;
    }
    return err.code ? refuse(f, r, &err) : 0;
}

/* --- check -------------------------------------------------------------------------------------------------------- */

static int say(char *why, size_t n, const char *what) {
    if (n) snprintf(why, n, "%s", what);
    return 0;
}

/* Numbers past 64 bits and NUL in a key are JSON that the parser here cannot hold: those pass. */
static int check_json(const struct qn_answer_form *f, const char *text, size_t n, char *why, size_t why_n) {
    json_error_t e;
    json_t *v = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    enum json_error_code code = v ? json_error_unknown : json_error_code(&e);
    if (!v && code == json_error_numeric_overflow) v = json_loadb(text, n, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &e);
    if (!v) return code == json_error_numeric_overflow || code == json_error_null_byte_in_key ? 1 : say(why, why_n, "it is no JSON");
    int ok = f->form == QN_FORM_OBJECT ? json_is_object(v) || say(why, why_n, "it is no object") : qn_schema_check(f->value, v, why, why_n);
    json_decref(v);
    return ok;
}

int qn_answer_form_check(const struct qn_answer_form *f, const char *text, size_t n, char *why, size_t why_n) {
    if (f->form == QN_FORM_OBJECT || f->form == QN_FORM_SCHEMA) return check_json(f, text, n, why, why_n);
    if (f->form != QN_FORM_CHOICE) return 1;
    for (size_t i = 0; i < json_array_size(f->value); i++) {
        const json_t *s = json_array_get(f->value, i);
        if (json_string_length(s) == n && memcmp(json_string_value(s), text, n) == 0) return 1;
    }
    return say(why, why_n, "it is none of the choices");
}
