/* The grammar of an answer with calls, built from a format's row and the tools' schemas, so that a call that is required, or of a
 * strict tool, parses and validates.
 *
 * Marks that the vocabulary has as control tokens are those tokens; all else is bytes. Arguments of JSON shapes are qn_schema_node's
 * text. Between marks a string is its own text, which ends before the closing mark; keywords that such a text cannot be held to
 * are refused. Text before a call may be anything that does not begin one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/calls_impl.h"

enum { BLANKS_MAX = 4, DIGITS_MAX = 3, MORE_CALLS_MAX = 127 };

struct build {
    struct qn_grammar *g;
    const struct qn_call_format *f;
    const struct qn_tokenizer *tok;
    const struct qn_tool_choice *c;
    const struct qn_schema_opts *o;
    struct qn_refusal *r;
    char path[QN_PARAM_MAX]; /* of the tool at hand */
};

/* --- marks -------------------------------------------------------------------------------------------------------- */

/* The control token at the start of s and its length, or -1. */
static int64_t control_at(const struct qn_tokenizer *tok, const char *s, size_t n, size_t *len) {
    for (size_t k = n; tok && k > 1; k--) {
        int64_t id = qn_tokenizer_find(tok, s, k);
        if (id < 0 || qn_tokenizer_kind(tok, (uint32_t)id) != QN_TOKEN_CONTROL) continue;
        *len = k;
        return id;
    }
    return -1;
}

static qn_gnode digits(struct qn_grammar *g) {
    struct qn_codes c = {'0', '9'};
    return qn_g_repeat(g, qn_g_chars(g, &c, 1), 1, DIGITS_MAX);
}

/* The mark s as it comes out of the model. `holes`: # stands for digits. */
static qn_gnode mark(struct qn_grammar *g, const struct qn_tokenizer *tok, const char *s, int holes) {
    qn_gnode out = QN_G_EMPTY;
    size_t n = strlen(s), from = 0, len = 0;
    for (size_t i = 0; i <= n; i++) {
        int64_t id = i < n ? control_at(tok, s + i, n - i, &len) : -1;
        int hole = holes && i < n && s[i] == '#';
        if (i < n && id < 0 && !hole) continue;
        if (i > from) out = qn_g_cat(g, out, qn_g_bytes(g, s + from, i - from));
        if (i == n) break;
        out = qn_g_cat(g, out, hole ? digits(g) : qn_g_token(g, (uint32_t)id));
        i += hole ? 0 : len - 1;
        from = i + 1;
    }
    return out;
}

/* Text in which s does not stand. */
static qn_gnode text_without(struct qn_grammar *g, const struct qn_tokenizer *tok, const char *s) {
    size_t len, n = strlen(s), k = 0;
    while (k < n && control_at(tok, s + k, n - k, &len) < 0) k++;
    if (k < n) return qn_g_text(g); /* no text spells a control token */
    qn_gnode text = qn_g_text(g), with = qn_g_cat(g, text, qn_g_cat(g, qn_g_bytes(g, s, n), text));
    return qn_g_and(g, text, qn_g_not(g, with));
}

static qn_gnode blanks(struct qn_grammar *g) {
    static const struct qn_codes c[] = {{'\n', '\n'}, {' ', ' '}};
    return qn_g_repeat(g, qn_g_chars(g, c, 2), 0, BLANKS_MAX);
}

/* A newline that some models of a format write and others do not. */
static qn_gnode newline(const struct build *b) {
    int some = b->f->shape == QN_SHAPE_TAGS && !strcmp(b->f->gap, "\n");
    return some ? qn_g_repeat(b->g, qn_g_bytes(b->g, "\n", 1), 0, 1) : QN_G_EMPTY;
}

static qn_gnode cat3(struct qn_grammar *g, qn_gnode a, qn_gnode b, qn_gnode c) {
    return qn_g_cat(g, a, qn_g_cat(g, b, c));
}

static qn_gnode put(const struct build *b, const char *s) {
    return mark(b->g, b->tok, s, 0);
}

/* --- schemas of arguments ----------------------------------------------------------------------------------------- */

static int refuse(const struct build *b, const char *keyword, const char *why) {
    char param[QN_PARAM_MAX];
    snprintf(param, sizeof param, "%.110s.%.40s", b->path, keyword);
    return qn_refuse(b->r, 400, "unsupported_value", param, "Invalid schema: '%s' %s.", param, why);
}

static int is_strict(const json_t *tool) {
    return json_is_true(json_object_get(json_object_get(tool, "function"), "strict"));
}

static const json_t *grammar_of(const struct qn_tool_choice *c, const char *name) {
    const json_t *f = json_object_get(json_object_get(c->custom, name), "format"), *g = json_object_get(f, "grammar");
    const char *type = json_string_value(json_object_get(f, "type"));
    return !type || strcmp(type, "grammar") ? NULL : g ? g : f;
}

int qn_calls_constrained(const struct qn_tool_choice *c) {
    if (c->mode != QN_TOOLS_AUTO) return c->mode == QN_TOOLS_REQUIRED;
    for (size_t i = 0; i < json_array_size(c->tools); i++) {
        const json_t *tool = json_array_get(c->tools, i);
        if (is_strict(tool) || grammar_of(c, json_string_value(json_object_get(json_object_get(tool, "function"), "name")))) return 1;
    }
    return 0;
}

/* 0: it can be read. Else refused here, by the request's own names and with places in what the request says. */
static int check_pattern(struct build *b, const json_t *grammar) {
    struct qn_err err = {0};
    const json_t *re = json_object_get(grammar, "definition");
    if (strlen(json_string_value(re)) != json_string_length(re)) return refuse(b, "grammar.definition", "has a NUL character");
    qn_g_regex(b->g, json_string_value(re), json_string_length(re), NULL, &err);
    return err.code ? refuse(b, "grammar.definition", err.text) : 0;
}

/* A custom tool's regular expression as the schema of its one parameter. */
static json_t *pattern_schema(const json_t *grammar) {
    const char *re = json_string_value(json_object_get(grammar, "definition"));
    size_t n = strlen(re) + 8;
    char *whole = malloc(n);
    if (!whole) return NULL;
    snprintf(whole, n, "^(?:%s)$", re);
    json_t *s = json_pack("{s:s, s:{s:{s:s, s:s}}, s:[s], s:b}", "type", "object", "properties", "input", "type", "string", "pattern", whole,
                          "required", "input", "additionalProperties", 0);
    free(whole);
    return s;
}

/* The schema that a call of this tool must keep; NULL with *any: an object of any kind. A new reference. */
static json_t *schema_of(struct build *b, const json_t *tool, int *any, int *rc) {
    const json_t *f = json_object_get(tool, "function"), *params = json_object_get(f, "parameters");
    const char *name = json_string_value(json_object_get(f, "name"));
    const json_t *grammar = grammar_of(b->c, name);
    size_t at = 0;
    while (at < json_array_size(b->c->all) && json_array_get(b->c->all, at) != tool) at++;
    snprintf(b->path, sizeof b->path, "tools[%zu].%s", at, grammar ? "custom.format" : "function.parameters");
    *any = 0;
    if (grammar) {
        if (!strcmp(json_string_value(json_object_get(grammar, "syntax")), "regex"))
            return (*rc = check_pattern(b, grammar)) < 0 ? NULL : pattern_schema(grammar);
        *rc = refuse(b, "grammar", "of syntax 'lark' cannot be kept in this model's format of calls; use 'regex'");
        return NULL;
    }
    int one_by_one = b->f->shape == QN_SHAPE_TAGS || b->f->shape == QN_SHAPE_LITERAL;
    if (b->c->mode == QN_TOOLS_AUTO && !is_strict(tool) && !json_object_get(b->c->custom, name) && !one_by_one) {
        *any = 1;
        return NULL;
    }
    if (!json_is_object(params)) return json_pack("{s:s, s:{}, s:b}", "type", "object", "properties", "additionalProperties", 0);
    json_t *s = json_copy((json_t *)(uintptr_t)params);
    if (s) json_object_set_new(s, "type", json_string("object")); /* where it says more types or none, too */
    return s;
}

static int json_value(const struct build *b, const json_t *schema, const char *path, int strict, qn_gnode *out) {
    struct qn_schema_opts o = b->o ? *b->o : (struct qn_schema_opts){0};
    o.strict |= strict;
    return qn_schema_node(b->g, schema, &o, path, out, b->r);
}

/* --- parameters one by one ---------------------------------------------------------------------------------------- */

static int only(const struct build *b, const json_t *schema, const char *const *words, const char *why) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)schema, key, v) {
        size_t i = 0;
        while (words[i] && strcmp(words[i], key)) i++;
        if (!words[i]) return refuse(b, key, why);
    }
    return 0;
}

/* A string between marks. */
static int text_value(const struct build *b, const json_t *schema, qn_gnode *out) {
    static const char *const words[] = {"type",    "enum",     "const",   "pattern",  "minLength", "maxLength", "description",
                                        "title",   "default",  "examples", "$comment", "deprecated", NULL};
    struct qn_grammar *g = b->g;
    const json_t *all = json_object_get(schema, "enum"), *is = json_object_get(schema, "const"), *p = json_object_get(schema, "pattern");
    const json_t *lo = json_object_get(schema, "minLength"), *hi = json_object_get(schema, "maxLength");
    int rc = only(b, schema, words, "cannot be kept where a call's strings are plain text");
    if (rc < 0) return rc;
    *out = text_without(g, b->tok, b->f->value_end);
    if (json_is_array(all)) {
        qn_gnode any = QN_G_NONE;
        for (size_t i = 0; i < json_array_size(all); i++) {
            const json_t *v = json_array_get(all, i);
            if (json_is_string(v)) any = qn_g_alt(g, any, qn_g_bytes(g, json_string_value(v), json_string_length(v)));
        }
        *out = qn_g_and(g, *out, any);
    }
    if (json_is_string(is)) *out = qn_g_and(g, *out, qn_g_bytes(g, json_string_value(is), json_string_length(is)));
    if (json_is_integer(lo) || json_is_integer(hi)) {
        json_int_t from = json_is_integer(lo) ? json_integer_value(lo) : 0, to = json_is_integer(hi) ? json_integer_value(hi) : -1;
        *out = qn_g_and(g, *out, qn_g_repeat(g, qn_g_any_char(g), from < 0 ? 0 : (uint32_t)(from > 1 << 30 ? 1 << 30 : from),
                                             to < 0 || to > 1 << 30 ? QN_G_INF : (uint32_t)to));
    }
    if (!json_is_string(p)) return 0;
    struct qn_regex_opts o = {.search = 1};
    struct qn_err err = {0};
    qn_gnode re = qn_g_regex(g, json_string_value(p), json_string_length(p), &o, &err);
    if (err.text[0]) return refuse(b, "pattern", err.text);
    *out = qn_g_and(g, *out, re);
    return 0;
}

/* What a format says of a value's type beside its key. */
static const char *attribute(const struct build *b, const json_t *schema, int text) {
    const char *type = json_string_value(json_object_get(schema, "type"));
    static const char *const kinds[][2] = {{"string", " type=\"string\""}, {"integer", " type=\"number\""}, {"number", " type=\"number\""},
                                           {"boolean", " type=\"boolean\""}, {"array", " type=\"array\""}, {"object", " type=\"object\""}};
    if (strstr(b->f->name, "deepseek")) return text ? " string=\"true\"" : " string=\"false\"";
    if (strcmp(b->f->name, "kimi-k3")) return "";
    for (size_t i = 0; type && i < 6; i++)
        if (!strcmp(kinds[i][0], type)) return kinds[i][1];
    return " type=\"object\"";
}

/* One property with its marks. */
static int param_node(const struct build *b, const char *key, const json_t *schema, const json_t *root, int strict, qn_gnode *out) {
    const struct qn_call_format *f = b->f;
    const char *line = f->flags & QN_CF_NEWLINES ? "\n" : "";
    struct build in = *b;
    qn_gnode value;
    snprintf(in.path, sizeof in.path, "%.80s.properties.%.60s", b->path, key);
    int text = f->shape == QN_SHAPE_TAGS && qn_schema_is_text(schema) > 0, rc;
    if (text) {
        rc = text_value(&in, schema, &value);
    } else { /* definitions are the root's */
        json_t *s = json_is_object(schema) ? json_copy((json_t *)(uintptr_t)schema) : json_incref((json_t *)(uintptr_t)schema);
        static const char *const defs[] = {"$defs", "definitions"};
        for (int i = 0; i < 2 && json_is_object(s); i++)
            if (json_object_get(root, defs[i]) && !json_object_get(s, defs[i])) json_object_set(s, defs[i], json_object_get(root, defs[i]));
        rc = json_value(&in, s, in.path, strict, &value);
        json_decref(s);
    }
    if (rc < 0) return rc;
    if (f->shape == QN_SHAPE_LITERAL) {
        *out = cat3(b->g, put(b, key), put(b, f->value), value);
        return 0;
    }
    qn_gnode head = cat3(b->g, put(b, f->param), qn_g_bytes(b->g, key, strlen(key)), put(b, f->key_end));
    head = cat3(b->g, head, put(b, attribute(b, schema, text)), f->value[0] == '<' ? newline(b) : QN_G_EMPTY);
    head = cat3(b->g, qn_g_cat(b->g, head, put(b, f->value)), put(b, line), value);
    *out = cat3(b->g, head, put(b, line), put(b, f->value_end));
    if (f->flags & QN_CF_NESTED) *out = cat3(b->g, *out, qn_g_bytes(b->g, key, strlen(key)), put(b, ">"));
    return 0;
}

static int is_required(const json_t *schema, const char *key) {
    const json_t *r = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(r); i++) {
        const char *s = json_string_value(json_array_get(r, i));
        if (s && !strcmp(s, key)) return 1;
    }
    return 0;
}

/* The properties in their order, those that are not required left out at will. From the last to the first: `some` is what may
 * follow a parameter, `none` what may follow when none came before. */
static int params_node(struct build *b, const json_t *schema, int strict, qn_gnode *out) {
    static const char *const words[] = {"type", "properties", "required", "additionalProperties", "description", "title", "$schema", "$id",
                                        "default", "examples", "$defs", "definitions", "$comment", NULL};
    const json_t *props = json_object_get(schema, "properties");
    const char *keys[512], *key;
    json_t *v;
    size_t n = 0;
    int rc = only(b, schema, words, "cannot be kept where parameters are written one by one");
    json_object_foreach((json_t *)(uintptr_t)props, key, v) if (n < 512) keys[n++] = key;
    if (rc == 0 && n < json_object_size(props)) rc = refuse(b, "properties", "are too many");
    qn_gnode between = b->f->shape == QN_SHAPE_LITERAL ? put(b, b->f->flags & QN_CF_ARRAY ? ", " : ",") : newline(b);
    int literal = b->f->shape == QN_SHAPE_LITERAL;
    qn_gnode some = QN_G_EMPTY, none = QN_G_EMPTY;
    while (rc == 0 && n-- > 0) {
        qn_gnode p;
        rc = param_node(b, keys[n], json_object_get(props, keys[n]), schema, strict, &p);
        if (rc < 0) break;
        int must = is_required(schema, keys[n]);
        qn_gnode here = qn_g_cat(b->g, p, some), with = qn_g_cat(b->g, between, here);
        if (literal) {
            none = must ? here : qn_g_alt(b->g, here, none);
            some = must ? with : qn_g_alt(b->g, with, some);
        } else {
            some = none = must ? with : qn_g_alt(b->g, with, some);
        }
    }
    *out = literal ? none : some;
    return rc;
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

static const char *or_else(const char *a, const char *b) {
    return a ? a : b ? b : "";
}

/* "key": with its separator, as a row of JSON has it. */
static qn_gnode member(const struct build *b, const char *before, const char *key, const char *value) {
    char s[256];
    snprintf(s, sizeof s, value ? "%s\"%s\": \"%s\"" : "%s\"%s\": ", before, key, value);
    return qn_g_bytes(b->g, s, strlen(s));
}

static int call_node(struct build *b, const json_t *tool, int first, qn_gnode *out) {
    const struct qn_call_format *f = b->f;
    const char *name = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
    int any, rc = 0, one_by_one = f->shape == QN_SHAPE_TAGS || f->shape == QN_SHAPE_LITERAL;
    json_t *schema = schema_of(b, tool, &any, &rc);
    qn_gnode args = QN_G_EMPTY;
    if (rc == 0 && any) {
        args = qn_schema_object(b->g, b->o);
    } else if (rc == 0) {
        int strict = is_strict(tool);
        rc = !schema ? QN_E_NOMEM : one_by_one ? params_node(b, schema, strict, &args) : json_value(b, schema, b->path, strict, &args);
    }
    json_decref(schema);
    if (rc < 0) return rc == QN_E_NOMEM ? qn_refuse_code(b->r, rc, NULL) : rc;
    if (f->shape == QN_SHAPE_JSON) {
        qn_gnode head = qn_g_cat(b->g, member(b, "{", f->name_key, name), member(b, ", ", f->args_key, NULL));
        *out = cat3(b->g, head, args, put(b, "}"));
    } else if (f->shape == QN_SHAPE_KEYED) {
        *out = cat3(b->g, member(b, "{", name, NULL), args, put(b, "}"));
    } else {
        int opened = first && f->flags & QN_CF_HEAD_FIRST;
        qn_gnode head = cat3(b->g, put(b, opened ? "" : f->open), mark(b->g, b->tok, or_else(f->pre, f->drop), 1), put(b, name));
        *out = cat3(b->g, qn_g_cat(b->g, head, mark(b->g, b->tok, or_else(f->post, f->sep), 1)), args,
                    qn_g_cat(b->g, newline(b), put(b, or_else(f->fin, f->close))));
    }
    return 0;
}

static int any_call(struct build *b, int first, qn_gnode *out) {
    *out = QN_G_NONE;
    for (size_t i = 0; i < json_array_size(b->c->tools); i++) {
        qn_gnode one = QN_G_NONE;
        int rc = call_node(b, json_array_get(b->c->tools, i), first, &one);
        if (rc < 0) return rc;
        *out = qn_g_alt(b->g, *out, one);
    }
    return 0;
}

/* Calls with what stands around them. */
static int calls_node(struct build *b, qn_gnode *out) {
    const struct qn_call_format *f = b->f;
    if (f->flags & QN_CF_FRAMED)
        return qn_refuse(b->r, 400, "unsupported_value", "tool_choice", "Calls of this model (format '%s') can be neither required nor strict.", f->name);
    struct qn_grammar *g = b->g;
    qn_gnode first, more;
    int many = b->c->parallel && !(f->flags & QN_CF_ONE), each = f->flags & QN_CF_EACH, json = f->shape == QN_SHAPE_JSON;
    int list = f->flags & QN_CF_ARRAY, bare = f->flags & QN_CF_BARE;
    int rc = any_call(b, 1, &first);
    more = first;
    if (rc == 0 && f->flags & QN_CF_HEAD_FIRST) rc = any_call(b, 0, &more);
    if (rc < 0) return rc;
    const char *line = !list && f->begin[0] && f->begin[0][0] && !strcmp(f->gap, "\n") && (json || f->shape == QN_SHAPE_TAGS) ? "\n" : "";
    if (f->shape == QN_SHAPE_JSON && bare) line = "";
    qn_gnode open = qn_g_cat(g, put(b, bare || !f->begin[0] ? "" : f->begin[0]), put(b, list ? "[" : line));
    qn_gnode close = qn_g_cat(g, put(b, list ? "]" : line), put(b, f->end)), gap = put(b, f->gap);
    if (each) {
        qn_gnode section = cat3(g, open, first, close);
        *out = many ? qn_g_cat(g, section, qn_g_repeat(g, qn_g_cat(g, gap, section), 0, MORE_CALLS_MAX)) : section;
    } else {
        qn_gnode rest = many ? qn_g_repeat(g, qn_g_cat(g, gap, more), 0, MORE_CALLS_MAX) : QN_G_EMPTY;
        *out = cat3(g, open, qn_g_cat(g, first, rest), close);
    }
    return 0;
}

int qn_calls_node(struct qn_grammar *g, const struct qn_call_marks *m, const struct qn_tokenizer *tok, const struct qn_tool_choice *c,
                  const struct qn_schema_opts *o, qn_gnode text, qn_gnode *out, struct qn_refusal *r) {
    struct build b = {.g = g, .f = m->calls, .tok = tok, .c = c, .o = o, .r = r};
    qn_gnode calls = QN_G_NONE;
    int rc = calls_node(&b, &calls);
    if (rc < 0) return rc;
    if (c->mode == QN_TOOLS_REQUIRED) {
        *out = calls;
        return 0;
    }
    if (text != qn_g_text(g)) {
        *out = qn_g_alt(g, text, calls);
        return 0;
    }
    const char *first = m->calls->begin[0] && m->calls->begin[0][0] ? m->calls->begin[0] : m->calls->open;
    if (m->calls->flags & QN_CF_BARE || !first[0])
        return qn_refuse(r, 400, "unsupported_value", "tools",
                         "Strict tools need 'tool_choice' to be \"required\" or to name one: nothing marks a call in this model's format.");
    *out = qn_g_cat(g, text_without(g, tok, first), qn_g_alt(g, QN_G_EMPTY, calls));
    return 0;
}

qn_gnode qn_thinking_node(struct qn_grammar *g, const struct qn_call_marks *m, const struct qn_tokenizer *tok, int opened, qn_gnode rest) {
    const struct qn_think_format *t = m->think;
    if (!t) return rest;
    qn_gnode close = qn_g_cat(g, mark(g, tok, t->close, 0), blanks(g));
    if (m->calls->header) close = qn_g_cat(g, close, mark(g, tok, m->calls->header, 0));
    qn_gnode inside = cat3(g, text_without(g, tok, t->close), close, rest);
    if (opened) return inside;
    return qn_g_alt(g, cat3(g, blanks(g), mark(g, tok, t->open, 0), inside), rest);
}
