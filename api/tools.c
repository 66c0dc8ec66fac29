/* See tools.h. Every check names the member's path, as OpenAI's service does. */
#include "api/tools.h"

#include <stdio.h>
#include <string.h>

#include "api/exchange.h"

enum { NAME_MAX_ = 64, PATH_N = 64 };

static int missing(struct qn_refusal *r, const char *param) {
    return qn_refuse(r, 400, "missing_required_parameter", param, "Missing required parameter: '%s'.", param);
}

static int need_object(const json_t *o, const char *param, struct qn_refusal *r) {
    if (!o || json_is_null(o)) return missing(r, param);
    return json_is_object(o) ? 0 : qn_refuse_type(r, param, "an object", o);
}

/* A name of functions and tools at path.name. */
static int check_name(const json_t *f, const char *path, struct qn_refusal *r) {
    char param[QN_PARAM_MAX];
    const json_t *v = json_object_get(f, "name");
    snprintf(param, sizeof param, "%s.name", path);
    if (!v) return missing(r, param);
    if (!json_is_string(v)) return qn_refuse_type(r, param, "a string", v);
    const char *s = json_string_value(v);
    size_t n = json_string_length(v), k = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    if (n > NAME_MAX_)
        return qn_refuse(r, 400, "string_above_max_length", param,
                         "Invalid '%s': string too long. Expected at most %d bytes, but got %zu.", param, NAME_MAX_, n);
    if (n == 0 || k != n)
        return qn_refuse(r, 400, "invalid_value", param, "Invalid '%s': expected 1 to %d of letters, digits, _ and -.", param,
                         NAME_MAX_);
    return 0;
}

static int check_optional(const json_t *o, const char *name, int json, const char *wanted, const char *path, struct qn_refusal *r) {
    char param[QN_PARAM_MAX];
    const json_t *v = json_object_get(o, name);
    snprintf(param, sizeof param, "%s.%s", path, name);
    if (!v || json_is_null(v)) return 0;
    int ok = json == JSON_TRUE ? json_is_boolean(v) : json_typeof(v) == (json_type)json;
    return ok ? 0 : qn_refuse_type(r, param, wanted, v);
}

/* Arguments are an object: a schema that says otherwise is none of arguments. */
static int check_parameters(const json_t *f, const char *path, struct qn_refusal *r) {
    char param[QN_PARAM_MAX];
    const json_t *type = json_object_get(json_object_get(f, "parameters"), "type");
    const char *word = json_string_value(type);
    int is = !type || (word && !strcmp(word, "object"));
    for (size_t i = 0; !is && i < json_array_size(type); i++) {
        word = json_string_value(json_array_get(type, i));
        is = word && !strcmp(word, "object");
    }
    if (is) return 0;
    snprintf(param, sizeof param, "%.100s.parameters.type", path);
    return qn_refuse(r, 400, "invalid_value", param, "Invalid '%s': arguments are an object, so the type is 'object'.", param);
}

static int check_function(const json_t *f, const char *path, struct qn_refusal *r) {
    int rc = need_object(f, path, r);
    if (rc == 0) rc = check_name(f, path, r);
    if (rc == 0) rc = check_optional(f, "description", JSON_STRING, "a string", path, r);
    if (rc == 0) rc = check_optional(f, "parameters", JSON_OBJECT, "an object", path, r);
    if (rc == 0) rc = check_parameters(f, path, r);
    if (rc == 0) rc = check_optional(f, "strict", JSON_TRUE, "a boolean", path, r);
    return rc;
}

/* format{type text} or {type grammar, grammar{syntax, definition}}. */
static int check_format(const json_t *custom, const char *path, struct qn_refusal *r) {
    char param[QN_PARAM_MAX], sub[QN_PARAM_MAX];
    const json_t *f = json_object_get(custom, "format");
    if (!f || json_is_null(f)) return 0;
    snprintf(param, sizeof param, "%.100s.format", path);
    if (!json_is_object(f)) return qn_refuse_type(r, param, "an object", f);
    const char *type = json_string_value(json_object_get(f, "type"));
    if (type && !strcmp(type, "text")) return 0;
    snprintf(sub, sizeof sub, "%.120s.type", param);
    if (!type || strcmp(type, "grammar"))
        return qn_refuse(r, 400, "invalid_value", sub, "Invalid value for '%s': supported are 'text' and 'grammar'.", sub);
    const json_t *g = json_object_get(f, "grammar");
    if (!g) g = f; /* the flat spelling of the Responses endpoint */
    const json_t *syntax = json_object_get(g, "syntax"), *def = json_object_get(g, "definition");
    const char *s = json_string_value(syntax);
    snprintf(sub, sizeof sub, "%.120s.grammar.syntax", param);
    if (!s || (strcmp(s, "lark") && strcmp(s, "regex")))
        return qn_refuse(r, 400, "invalid_value", sub, "Invalid value for '%s': supported are 'lark' and 'regex'.", sub);
    snprintf(sub, sizeof sub, "%.120s.grammar.definition", param);
    if (!def) return missing(r, sub);
    return json_is_string(def) ? 0 : qn_refuse_type(r, sub, "a string", def);
}

static int check_custom(const json_t *c, const char *path, struct qn_refusal *r) {
    int rc = need_object(c, path, r);
    if (rc == 0) rc = check_name(c, path, r);
    if (rc == 0) rc = check_optional(c, "description", JSON_STRING, "a string", path, r);
    return rc < 0 ? rc : check_format(c, path, r);
}

/* --- the list ----------------------------------------------------------------------------------------------------- */

static int add(struct qn_tools *t, json_t *tool, const char *path, struct qn_refusal *r) {
    char param[QN_PARAM_MAX];
    const char *name = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
    for (size_t i = 0; tool && i < json_array_size(t->list); i++) {
        const json_t *f = json_object_get(json_array_get(t->list, i), "function");
        if (strcmp(json_string_value(json_object_get(f, "name")), name)) continue;
        json_decref(tool);
        snprintf(param, sizeof param, "%s.name", path);
        return qn_refuse(r, 400, "invalid_value", param, "Invalid '%s': two tools have the same name.", param);
    }
    return tool && json_array_append_new(t->list, tool) == 0 ? 0 : qn_refuse_code(r, QN_E_NOMEM, NULL);
}

static json_t *share(const json_t *j) {
    return json_incref((json_t *)(uintptr_t)j);
}

static json_t *as_function(const json_t *custom) {
    const json_t *d = json_object_get(custom, "description");
    return json_pack("{s:s, s:{s:O, s:s, s:{s:s, s:{s:{s:s, s:s}}, s:[s]}}}", "type", "function", "function", "name",
                     json_object_get(custom, "name"), "description", json_is_string(d) ? json_string_value(d) : "", "parameters",
                     "type", "object", "properties", "input", "type", "string", "description", "The tool's input, as plain text.",
                     "required", "input");
}

/* Members that mean nothing here, like a `strict` beside the function and not in it: the template sees them, nobody else. */
static void note_unknown(struct qn_exchange *x, const json_t *o, const char *path, const char *const *names) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        char param[QN_PARAM_MAX];
        int i = 0;
        while (names[i] && strcmp(names[i], key)) i++;
        snprintf(param, sizeof param, "%s.%.60s", path, key);
        if (!names[i]) qn_ignored_add(&x->ignored, param);
    }
}

static int add_tool(struct qn_exchange *x, const json_t *tool, size_t i) {
    static const char *const outer[] = {"type", "function", "custom", NULL}, *const inner[] = {"name", "description", "parameters", "strict", NULL};
    struct qn_tools *t = &x->tools;
    struct qn_refusal *r = &x->refusal;
    char path[PATH_N], plain[PATH_N], param[QN_PARAM_MAX];
    snprintf(path, sizeof path, "tools[%zu]", i);
    if (!json_is_object(tool)) return qn_refuse_type(r, path, "an object", tool);
    const json_t *type = json_object_get(tool, "type");
    snprintf(param, sizeof param, "%s.type", path);
    if (!type) return missing(r, param);
    if (!json_is_string(type)) return qn_refuse_type(r, param, "a string", type);
    const char *kind = json_string_value(type);
    snprintf(param, sizeof param, "%s.%s", path, kind[0] == 'c' ? "custom" : "function");
    snprintf(plain, sizeof plain, "tools.%zu", i); /* brackets are no header's */
    if (!strcmp(kind, "function")) {
        const json_t *f = json_object_get(tool, "function");
        int rc = check_function(f, param, r);
        if (rc < 0) return rc;
        note_unknown(x, tool, plain, outer);
        snprintf(plain, sizeof plain, "tools.%zu.function", i);
        note_unknown(x, f, plain, inner);
        return add(t, share(tool), param, r);
    }
    if (strcmp(kind, "custom")) { /* it runs elsewhere */
        qn_ignored_add(&x->ignored, plain);
        return 0;
    }
    const json_t *c = json_object_get(tool, "custom");
    int rc = check_custom(c, param, r);
    if (rc == 0) rc = add(t, as_function(c), param, r);
    if (rc == 0 && json_object_set(t->custom, json_string_value(json_object_get(c, "name")), (json_t *)(uintptr_t)c))
        rc = qn_refuse_code(r, QN_E_NOMEM, NULL);
    return rc;
}

static int read_list(struct qn_exchange *x, const json_t *list, const char *name) {
    struct qn_refusal *r = &x->refusal;
    int legacy = !strcmp(name, "functions"), rc = 0;
    if (!json_is_array(list)) return qn_refuse_type(r, name, "an array", list);
    size_t n = json_array_size(list);
    if (n > QN_TOOLS_MAX)
        return qn_refuse(r, 400, "array_above_max_length", name,
                         "Invalid '%s': array too long. Expected at most %d, but got %zu.", name, QN_TOOLS_MAX, n);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const json_t *v = json_array_get(list, i);
        char path[PATH_N];
        snprintf(path, sizeof path, "functions[%zu]", i);
        if (!legacy) rc = add_tool(x, v, i);
        else if ((rc = check_function(v, path, r)) == 0)
            rc = add(&x->tools, json_pack("{s:s, s:O}", "type", "function", "function", v), path, r);
    }
    return rc;
}

/* --- the choice --------------------------------------------------------------------------------------------------- */

static const json_t *tool_named(const json_t *list, const char *name) {
    for (size_t i = 0; name && i < json_array_size(list); i++) {
        const json_t *tool = json_array_get(list, i);
        if (!strcmp(json_string_value(json_object_get(json_object_get(tool, "function"), "name")), name)) return tool;
    }
    return NULL;
}

/* The tool that {name} at path means, added to the allowed ones. */
static int allow(struct qn_exchange *x, const json_t *named, const char *path) {
    char param[QN_PARAM_MAX];
    struct qn_refusal *r = &x->refusal;
    int rc = need_object(named, path, r);
    if (rc < 0) return rc;
    const json_t *name = json_object_get(named, "name");
    snprintf(param, sizeof param, "%s.name", path);
    if (!name) return missing(r, param);
    if (!json_is_string(name)) return qn_refuse_type(r, param, "a string", name);
    const json_t *tool = tool_named(x->tools.list, json_string_value(name));
    char quoted[QN_QUOTE_MAX + 4];
    if (!tool)
        return qn_refuse(r, 400, "invalid_value", param, "Invalid value for '%s': no tool is named '%s'.", param,
                         qn_quote(quoted, json_string_value(name), json_string_length(name)));
    if (tool_named(x->tools.allowed, json_string_value(name))) return 0;
    return json_array_append(x->tools.allowed, (json_t *)(uintptr_t)tool) ? qn_refuse_code(r, QN_E_NOMEM, NULL) : 0;
}

static int mode_of(const char *word, enum qn_tool_mode *mode) {
    static const struct { const char *word; enum qn_tool_mode mode; } words[] = {
        {"none", QN_TOOLS_NONE}, {"auto", QN_TOOLS_AUTO}, {"required", QN_TOOLS_REQUIRED}};
    for (size_t i = 0; word && i < 3; i++)
        if (!strcmp(words[i].word, word)) return *mode = words[i].mode, 1;
    return 0;
}

static int read_allowed(struct qn_exchange *x, const json_t *choice) {
    const json_t *a = json_object_get(choice, "allowed_tools"), *tools;
    struct qn_refusal *r = &x->refusal;
    char path[PATH_N];
    if (!a) a = choice; /* flat, as the Responses endpoint has it */
    int rc = need_object(a, "tool_choice.allowed_tools", r);
    if (rc < 0) return rc;
    if (!mode_of(json_string_value(json_object_get(a, "mode")), &x->tools.mode) || x->tools.mode == QN_TOOLS_NONE)
        return qn_refuse(r, 400, "invalid_value", "tool_choice.allowed_tools.mode",
                         "Invalid value for 'tool_choice.allowed_tools.mode': supported are 'auto' and 'required'.");
    tools = json_object_get(a, "tools");
    if (!json_is_array(tools) || !json_array_size(tools))
        return qn_refuse(r, 400, "invalid_value", "tool_choice.allowed_tools.tools",
                         "Invalid 'tool_choice.allowed_tools.tools': expected an array of at least one tool.");
    for (size_t i = 0; rc == 0 && i < json_array_size(tools); i++) {
        const json_t *t = json_array_get(tools, i), *f = json_object_get(t, "function");
        if (!f) f = json_object_get(t, "custom");
        snprintf(path, sizeof path, "tool_choice.allowed_tools.tools[%zu]", i);
        rc = allow(x, f ? f : t, path);
    }
    return rc;
}

static int read_choice(struct qn_exchange *x, const json_t *v) {
    struct qn_refusal *r = &x->refusal;
    const json_t *type = json_object_get(v, "type");
    const char *kind = json_string_value(type);
    if (json_is_string(v)) {
        if (mode_of(json_string_value(v), &x->tools.mode)) return 0;
        return qn_refuse(r, 400, "invalid_value", "tool_choice",
                         "Invalid value for 'tool_choice': supported are 'none', 'auto', 'required' and an object.");
    }
    if (!json_is_object(v)) return qn_refuse_type(r, "tool_choice", "a string or an object", v);
    if (!type) return missing(r, "tool_choice.type");
    if (kind && !strcmp(kind, "allowed_tools")) return read_allowed(x, v);
    if (!kind || (strcmp(kind, "function") && strcmp(kind, "custom")))
        return qn_refuse(r, 400, "invalid_value", "tool_choice.type",
                         "Invalid value for 'tool_choice.type': supported are 'function', 'custom' and 'allowed_tools'.");
    x->tools.mode = QN_TOOLS_REQUIRED;
    x->tools.parallel = 0;
    return allow(x, json_object_get(v, kind), kind[0] == 'c' ? "tool_choice.custom" : "tool_choice.function");
}

static int read_legacy_choice(struct qn_exchange *x, const json_t *v) {
    struct qn_refusal *r = &x->refusal;
    x->tools.parallel = 0;
    if (json_is_string(v)) {
        if (mode_of(json_string_value(v), &x->tools.mode) && x->tools.mode != QN_TOOLS_REQUIRED) return 0;
        return qn_refuse(r, 400, "invalid_value", "function_call",
                         "Invalid value for 'function_call': supported are 'none', 'auto' and an object.");
    }
    if (!json_is_object(v)) return qn_refuse_type(r, "function_call", "a string or an object", v);
    x->tools.mode = QN_TOOLS_REQUIRED;
    return allow(x, v, "function_call");
}

/* function_call speaks of functions, tool_choice of tools; the words that ask for nothing may stand alone. */
static int check_pairs(const struct qn_params *p, struct qn_refusal *r) {
    const char *word = json_string_value(p->function_call);
    if (p->tools && p->functions)
        return qn_refuse(r, 400, "invalid_value", "functions", "'functions' is deprecated: not together with 'tools'.");
    if (p->functions && p->tool_choice)
        return qn_refuse(r, 400, "invalid_value", "tool_choice", "'tool_choice' is only allowed with 'tools': 'functions' have 'function_call'.");
    if (p->functions || !p->function_call || (!p->tools && word && (!strcmp(word, "none") || !strcmp(word, "auto")))) return 0;
    return qn_refuse(r, 400, "invalid_value", "function_call", "'function_call' is only allowed when 'functions' are specified.");
}

int qn_tools_read(struct qn_exchange *x) {
    const struct qn_params *p = &x->params;
    struct qn_tools *t = &x->tools;
    struct qn_refusal *r = &x->refusal;
    const json_t *choice = p->functions ? p->function_call : p->tool_choice;
    if (check_pairs(p, r) < 0) return QN_E_RANGE;
    *t = (struct qn_tools){.list = json_array(), .allowed = json_array(), .custom = json_object(), .parallel = p->parallel_tool_calls,
                           .legacy = p->functions != NULL};
    if (!t->list || !t->allowed || !t->custom) return qn_refuse_code(r, QN_E_NOMEM, NULL);
    int rc = p->functions ? read_list(x, p->functions, "functions") : p->tools ? read_list(x, p->tools, "tools") : 0;
    if (rc < 0) return rc;
    size_t n = json_array_size(t->list);
    t->mode = n ? QN_TOOLS_AUTO : QN_TOOLS_NONE;
    if (t->legacy) t->parallel = 0;
    if (!n) {
        const char *word = json_string_value(choice);
        if (choice && !(word && (!strcmp(word, "none") || !strcmp(word, "auto"))))
            return qn_refuse(r, 400, "invalid_value", t->legacy ? "function_call" : "tool_choice",
                             "'%s' is only allowed when '%s' are specified.", t->legacy ? "function_call" : "tool_choice",
                             t->legacy ? "functions" : "tools");
        return 0;
    }
    if (choice) rc = t->legacy ? read_legacy_choice(x, choice) : read_choice(x, choice);
    if (rc == 0 && !json_array_size(t->allowed) && json_array_extend(t->allowed, t->list)) rc = qn_refuse_code(r, QN_E_NOMEM, NULL);
    return rc;
}

void qn_tools_done(struct qn_tools *t) {
    json_decref(t->list);
    json_decref(t->allowed);
    json_decref(t->custom);
    *t = (struct qn_tools){0};
}

int qn_tools_called(const struct qn_tools *t) {
    return t->mode != QN_TOOLS_NONE && json_array_size(t->list) > 0;
}
