/* Members to a form. Each spelling is a row that says what it found; the second one that finds something is the refusal. Empty strings,
 * which llama.cpp's clients send for "none", are nothing; an empty schema is a schema: any JSON value. */
#include <stdio.h>
#include <string.h>

#include "api/form.h"
#include "api/json_guard.h"

enum { NAME_MAX = 64, DESCRIPTION_MAX = 8192 };

struct read {
    const struct qn_params *p;
    struct qn_answer_form *f;
    struct qn_refusal *r;
};

/* --- what was found ----------------------------------------------------------------------------------------------- */

static int found(const struct read *d, enum qn_form form, const char *path) {
    if (d->f->form != QN_FORM_FREE)
        return qn_refuse(d->r, 400, "invalid_value", path, "'%s' and '%s' both ask for a form of the answer: send one of them.", d->f->path, path);
    d->f->form = form;
    d->f->path = path;
    return 0;
}

static int missing(const struct read *d, const char *path) {
    return qn_refuse(d->r, 400, "missing_required_parameter", path, "Missing required parameter: '%s'.", path);
}

/* A schema, or a string that holds one. */
static int found_schema(const struct read *d, const json_t *v, const char *path) {
    if (!v) return missing(d, path);
    if (found(d, QN_FORM_SCHEMA, path) < 0) return QN_E_RANGE;
    if (json_is_string(v)) {
        struct qn_refusal why = {0};
        if (qn_json_parse(&d->f->own, json_string_value(v), json_string_length(v), &why) < 0)
            return qn_refuse(d->r, 400, "invalid_value", path, "Invalid '%s': a string that holds no JSON object: %.200s", path, why.message);
        v = d->f->own;
    }
    if (!json_is_object(v) && !json_is_boolean(v)) return qn_refuse_type(d->r, path, "a JSON Schema", v);
    d->f->value = v;
    return 0;
}

static int found_text(const struct read *d, enum qn_form form, struct qn_chars text, const char *path) {
    if (!text.p || text.n == 0) return 0;
    d->f->text = text;
    return found(d, form, path);
}

/* vLLM's grammars may be of either kind. */
static int found_grammar(const struct read *d, struct qn_chars text, const char *path) {
    int gbnf = text.p && memmem(text.p, text.n, "::=", 3) != NULL;
    return found_text(d, gbnf ? QN_FORM_GBNF : QN_FORM_LARK, text, path);
}

int qn_form_only(const json_t *o, const char *path, const char *const *names, struct qn_refusal *r) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        char param[QN_PARAM_MAX], quoted[QN_QUOTE_MAX + 4];
        int i = 0;
        while (names[i] && strcmp(names[i], key)) i++;
        if (names[i] || json_is_null(v)) continue;
        snprintf(param, sizeof param, "%.100s.%s", path, qn_quote(quoted, key, strlen(key)));
        return qn_refuse(r, 400, "unknown_parameter", param, "Unknown parameter: '%s'.", param);
    }
    return 0;
}

static struct qn_chars chars_of(const json_t *v) { return (struct qn_chars){json_string_value(v), json_string_length(v)}; }

static int text_member(const struct read *d, const json_t *v, const char *path) {
    if (!v) return missing(d, path);
    if (!json_is_string(v)) return qn_refuse_type(d->r, path, "a string", v);
    if (json_string_length(v) == 0) return qn_refuse(d->r, 400, "invalid_value", path, "Invalid '%s': an empty string.", path);
    return 0;
}

static int found_choice(const struct read *d, const json_t *v, const char *path) {
    if (!v) return 0;
    if (!json_is_array(v)) return qn_refuse_type(d->r, path, "an array of strings", v);
    size_t n = json_array_size(v);
    if (n == 0) return qn_refuse(d->r, 400, "empty_array", path, "Invalid '%s': empty array. Expected at least one string.", path);
    if (n > QN_CHOICES_SAID_MAX)
        return qn_refuse(d->r, 400, "array_above_max_length", path, "Invalid '%s': array too long. Expected at most %d, but got %zu.", path,
                         QN_CHOICES_SAID_MAX, n);
    for (size_t i = 0; i < n; i++)
        if (!json_is_string(json_array_get(v, i))) return qn_refuse_type(d->r, path, "an array of strings", json_array_get(v, i));
    d->f->value = v;
    return found(d, QN_FORM_CHOICE, path);
}

/* {type, value}: TGI's and mistral.rs' `grammar`. */
static int typed_value(const struct read *d, const json_t *v, const char *type_path, const char *value_path) {
    const json_t *type = json_object_get(v, "type"), *value = json_object_get(v, "value");
    static const char *const names[] = {"type", "value", NULL};
    const char *t = json_string_value(type);
    if (qn_form_only(v, "grammar", names, d->r) < 0) return QN_E_RANGE;
    if (!t) return type ? qn_refuse_type(d->r, type_path, "a string", type) : missing(d, type_path);
    if (!strcmp(t, "json") || !strcmp(t, "json_schema")) return found_schema(d, json_object_get(value, "schema") && json_object_get(value, "name") ? json_object_get(value, "schema") : value, value_path);
    enum qn_form form = !strcmp(t, "regex") ? QN_FORM_REGEX : !strcmp(t, "lark") ? QN_FORM_LARK : !strcmp(t, "gbnf") || !strcmp(t, "ebnf") ? QN_FORM_GBNF : QN_FORM_FREE;
    if (form == QN_FORM_FREE)
        return qn_refuse(d->r, 400, "unsupported_value", type_path, "Invalid '%s': expected json, json_schema, regex, lark, gbnf or ebnf.", type_path);
    return text_member(d, value, value_path) < 0 ? QN_E_RANGE : found_text(d, form, chars_of(value), value_path);
}

/* --- response_format ---------------------------------------------------------------------------------------------- */

static int check_name(const struct read *d, const json_t *name, const char *path) {
    if (!name) return 0;
    if (!json_is_string(name)) return qn_refuse_type(d->r, path, "a string", name);
    const char *s = json_string_value(name);
    size_t n = json_string_length(name);
    if (n == 0 || n > NAME_MAX || strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != n)
        return qn_refuse(d->r, 400, "invalid_value", path, "Invalid '%s': 1 to %d letters, digits, _ and -.", path, NAME_MAX);
    return 0;
}

/* What stands beside a schema: name, description, strict. flat: in response_format itself, as the Responses endpoint has it. */
static int read_about(const struct read *d, const json_t *s, int flat) {
    const json_t *strict = json_object_get(s, "strict"), *about = json_object_get(s, "description");
    if (check_name(d, json_object_get(s, "name"), flat ? "response_format.name" : "response_format.json_schema.name") < 0) return QN_E_RANGE;
    if (strict && !json_is_boolean(strict) && !json_is_null(strict))
        return qn_refuse_type(d->r, flat ? "response_format.strict" : "response_format.json_schema.strict", "a boolean", strict);
    if (about && !json_is_string(about) && !json_is_null(about))
        return qn_refuse_type(d->r, flat ? "response_format.description" : "response_format.json_schema.description", "a string", about);
    d->f->opts.strict = json_is_true(strict);
    return 0;
}

/* {json_schema: {name, description, schema, strict}}; llama.cpp's {schema}; strict or not, the answer is constrained. */
static int json_schema(const struct read *d, const json_t *v) {
    static const char *const inner[] = {"name", "description", "schema", "strict", NULL}, *const outer[] = {"type", "json_schema", NULL};
    const json_t *s = json_object_get(v, "json_schema"), *schema = json_object_get(v, "schema");
    if (!s && schema) return read_about(d, v, 1) < 0 ? QN_E_RANGE : found_schema(d, schema, "response_format.schema");
    if (!s) return missing(d, "response_format.json_schema");
    if (qn_form_only(v, "response_format", outer, d->r) < 0) return QN_E_RANGE;
    if (!json_is_object(s)) return qn_refuse_type(d->r, "response_format.json_schema", "an object", s);
    if (qn_form_only(s, "response_format.json_schema", inner, d->r) < 0 || read_about(d, s, 0) < 0) return QN_E_RANGE;
    schema = json_object_get(s, "schema");
    if (!schema || json_is_null(schema)) return found(d, QN_FORM_OBJECT, "response_format.json_schema"); /* OpenAI: then any object */
    return found_schema(d, schema, "response_format.json_schema.schema");
}

static int any_object(const struct read *d, const json_t *v) {
    const json_t *s = json_object_get(v, "schema");
    return s && !json_is_null(s) ? found_schema(d, s, "response_format.schema") : found(d, QN_FORM_OBJECT, "response_format");
}

static int any_json(const struct read *d, const json_t *v) { /* TGI, TensorRT-LLM */
    const json_t *s = json_object_get(v, "value");
    return s ? found_schema(d, s, "response_format.value") : found_schema(d, json_object_get(v, "schema"), "response_format.schema");
}

static int regex(const struct read *d, const json_t *v) {
    static const struct { const char *name, *path; } said[] = {
        {"value", "response_format.value"}, {"regex", "response_format.regex"}, {"pattern", "response_format.pattern"}, {"regex_schema", "response_format.regex_schema"}};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        const json_t *s = json_object_get(v, said[i].name);
        if (s) return text_member(d, s, said[i].path) < 0 ? QN_E_RANGE : found_text(d, QN_FORM_REGEX, chars_of(s), said[i].path);
    }
    return missing(d, "response_format.regex");
}

static int grammar(const struct read *d, const json_t *v) {
    const json_t *s = json_object_get(v, "ebnf"), *t = json_object_get(v, "grammar");
    if (s) return text_member(d, s, "response_format.ebnf") < 0 ? QN_E_RANGE : found_text(d, QN_FORM_GBNF, chars_of(s), "response_format.ebnf");
    return text_member(d, t, "response_format.grammar") < 0 ? QN_E_RANGE : found_grammar(d, chars_of(t), "response_format.grammar");
}

static int tags(const struct read *d, const json_t *v) {
    d->f->value = v;
    return found(d, QN_FORM_TAGS, "response_format");
}

static int text(const struct read *d, const json_t *v) {
    (void)d, (void)v;
    return 0;
}

static int response_format(const struct read *d) {
    enum { NAMES_MAX = 7 };
    static const struct { const char *type; int (*read)(const struct read *d, const json_t *v); const char *names[NAMES_MAX]; int one; } types[] = {
        {"text", text, {"type"}, 0},
        {"json_object", any_object, {"type", "schema"}, 0},
        {"json_schema", json_schema, {"type", "json_schema", "schema", "name", "description", "strict"}, 0},
        {"json", any_json, {"type", "value", "schema"}, 1},
        {"regex", regex, {"type", "value", "regex", "pattern", "regex_schema"}, 1},
        {"regex_schema", regex, {"type", "value", "regex", "pattern", "regex_schema"}, 1},
        {"ebnf", grammar, {"type", "ebnf", "grammar"}, 1},
        {"grammar", grammar, {"type", "ebnf", "grammar"}, 1},
        {"structural_tag", tags, {"type", "structures", "triggers", "format"}, 0}}; /* one: of the members beside type, one */
    const json_t *v = d->p->response_format, *type = json_object_get(v, "type");
    char quoted[QN_QUOTE_MAX + 4];
    if (!v) return 0;
    if (!json_is_object(v)) return qn_refuse_type(d->r, "response_format", "an object", v);
    if (!type) return missing(d, "response_format.type");
    if (!json_is_string(type)) return qn_refuse_type(d->r, "response_format.type", "a string", type);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].type, json_string_value(type))) {
            if (qn_form_only(v, "response_format", types[i].names, d->r) < 0) return QN_E_RANGE;
            if (types[i].one && json_object_size(v) > 2)
                return qn_refuse(d->r, 400, "invalid_value", "response_format", "Invalid 'response_format': beside 'type' it has one member, not %zu.",
                                 json_object_size(v) - 1);
            return types[i].read(d, v);
        }
    return qn_refuse(d->r, 400, "invalid_value", "response_format.type",
                     "Invalid value: '%s'. Supported values are: 'text', 'json_object', 'json_schema', 'json', 'regex', 'ebnf', 'grammar' and 'structural_tag'.",
                     qn_quote(quoted, json_string_value(type), json_string_length(type)));
}

/* --- the peers' members ------------------------------------------------------------------------------------------- */

static int structural_tag(const struct read *d, const json_t *v, const char *path) {
    if (!v) return 0;
    if (found(d, QN_FORM_TAGS, path) < 0) return QN_E_RANGE;
    if (json_is_string(v)) {
        struct qn_refusal why = {0};
        if (qn_json_parse(&d->f->own, json_string_value(v), json_string_length(v), &why) < 0)
            return qn_refuse(d->r, 400, "invalid_value", path, "Invalid '%s': a string that holds no JSON object.", path);
        v = d->f->own;
    }
    if (!json_is_object(v)) return qn_refuse_type(d->r, path, "an object", v);
    d->f->value = v;
    return 0;
}

static int structured(const struct read *d) {
    const struct qn_structured *s = &d->p->structured;
    if (!d->p->structured_value) return 0;
    int rc = s->json ? found_schema(d, s->json, "structured_outputs.json") : 0;
    if (rc == 0) rc = found_text(d, QN_FORM_REGEX, s->regex, "structured_outputs.regex");
    if (rc == 0) rc = found_choice(d, s->choice, "structured_outputs.choice");
    if (rc == 0) rc = found_grammar(d, s->grammar, "structured_outputs.grammar");
    if (rc == 0 && s->json_object) rc = found(d, QN_FORM_OBJECT, "structured_outputs.json_object");
    if (rc == 0) rc = structural_tag(d, s->structural_tag, "structured_outputs.structural_tag");
    if (rc == 0 && (!d->f->path || strncmp(d->f->path, "structured_outputs.", 19) != 0))
        rc = qn_refuse(d->r, 400, "missing_required_parameter", "structured_outputs",
                       "'structured_outputs' needs exactly one of json, regex, choice, grammar, json_object and structural_tag.");
    return rc;
}

static int others(const struct read *d) {
    const struct qn_params *p = d->p;
    int rc = p->guided_json ? found_schema(d, p->guided_json, "guided_json") : 0;
    if (rc == 0) rc = found_text(d, QN_FORM_REGEX, p->guided_regex, "guided_regex");
    if (rc == 0) rc = found_choice(d, p->guided_choice, "guided_choice");
    if (rc == 0) rc = found_grammar(d, p->guided_grammar, "guided_grammar");
    if (rc == 0 && p->json_schema && !(json_is_string(p->json_schema) && json_string_length(p->json_schema) == 0)) rc = found_schema(d, p->json_schema, "json_schema");
    if (rc == 0) rc = found_text(d, QN_FORM_REGEX, p->regex, "regex");
    if (rc == 0) rc = found_text(d, QN_FORM_GBNF, p->ebnf, "ebnf");
    if (rc == 0) rc = structural_tag(d, p->structural_tag, "structural_tag");
    if (rc < 0 || !p->grammar) return rc;
    if (json_is_string(p->grammar)) return found_grammar(d, chars_of(p->grammar), "grammar");
    return json_is_object(p->grammar) ? typed_value(d, p->grammar, "grammar.type", "grammar.value") : qn_refuse_type(d->r, "grammar", "a string or an object", p->grammar);
}

/* What rules the blanks of JSON means something beside a form of JSON or the calls of tools. */
static int options(const struct read *d) {
    const struct qn_structured *s = &d->p->structured;
    struct qn_chars own = s->whitespace_pattern, old = d->p->guided_whitespace_pattern, w = own.p ? own : old;
    const char *path = own.p ? "structured_outputs.whitespace_pattern" : "guided_whitespace_pattern";
    int json = d->f->form == QN_FORM_OBJECT || d->f->form == QN_FORM_SCHEMA || d->f->form == QN_FORM_TAGS || d->p->tools || d->p->functions;
    if (w.n && !json) return qn_refuse(d->r, 400, "invalid_value", path, "'%s' is only allowed where the answer is JSON.", path);
    if (own.p && old.p)
        return qn_refuse(d->r, 400, "invalid_value", "guided_whitespace_pattern", "'%s' and 'guided_whitespace_pattern' say the same: send one of them.", path);
    if (w.n && s->disable_any_whitespace)
        return qn_refuse(d->r, 400, "invalid_value", path, "'%s' and 'structured_outputs.disable_any_whitespace' contradict each other.", path);
    d->f->opts.no_whitespace = s->disable_any_whitespace;
    d->f->opts.strict |= s->disable_additional_properties;
    d->f->opts.whitespace = w.p;
    d->f->opts.n_whitespace = w.n;
    d->f->opts.whitespace_path = path;
    return 0;
}

int qn_answer_form_read(const struct qn_params *p, struct qn_answer_form *f, struct qn_refusal *r) {
    struct read d = {p, f, r};
    *f = (struct qn_answer_form){0};
    int rc = response_format(&d);
    if (rc == 0) rc = structured(&d);
    if (rc == 0) rc = others(&d);
    return rc == 0 ? options(&d) : rc;
}

void qn_answer_form_done(struct qn_answer_form *f) {
    json_decref(f->own);
    *f = (struct qn_answer_form){0};
}

int qn_answer_form_likely(const char *body, size_t n) {
    /* \u00: a name may be spelled with escapes of ASCII letters. */
    static const char *const marks[] = {"response_format", "structured_outputs", "\"guided_", "json_schema", "grammar", "regex", "ebnf", "structural_tag", "\"tools\"", "\"functions\"", "\\u00"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (memmem(body, n, marks[i], strlen(marks[i]))) return 1;
    return 0;
}
