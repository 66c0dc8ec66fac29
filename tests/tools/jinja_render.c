/* Renders templates for the Python tests: a JSON object per line on stdin, one per line on stdout.
 *
 *   {"template": text, "vars": {…}, "trusted": {…}, "now": seconds}        through qn_jinja (compiled once while it repeats)
 *   {"template": text or null, "bos": s, "eos": s, "input": {messages, tools, kwargs, documents, add_generation_prompt,
 *    continue_final_message}, "now": seconds}                              through qn_template
 *   -> {"text": …, "trusted": [[from, to], …]}  or  {"error": code name, "message": …} */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/jinja.h"
#include "api/template.h"

static struct qn_jinja *jinja;
static struct qn_template *tmpl;
static char *last;

static int same(json_t *in) {
    json_t *key = json_pack("[O?O?O?b]", json_object_get(in, "template"), json_object_get(in, "bos"), json_object_get(in, "eos"),
                            json_object_get(in, "input") != NULL);
    char *s = json_dumps(key, JSON_ENCODE_ANY);
    json_decref(key);
    int eq = last && s && !strcmp(last, s);
    free(last);
    last = s;
    return eq;
}

static int compile(json_t *in, struct qn_err *err) {
    json_t *text = json_object_get(in, "template");
    const char *p = json_string_value(text);
    int rc = 0, plain = json_object_get(in, "input") == NULL;
    if (same(in) && (plain ? jinja != NULL : tmpl != NULL)) return 0;
    qn_jinja_free(jinja);
    qn_template_close(tmpl);
    jinja = NULL;
    tmpl = NULL;
    if (plain) rc = qn_jinja_compile(&jinja, p, json_string_length(text), err);
    else rc = qn_template_open_plain(&tmpl, p, json_string_length(text), json_string_value(json_object_get(in, "bos")), json_string_value(json_object_get(in, "eos")), err);
    if (rc < 0) {
        free(last);
        last = NULL;
    }
    return rc;
}

static int render(json_t *in, struct qn_rendered *out, struct qn_err *err) {
    json_t *o = json_object_get(in, "input");
    int64_t now = json_integer_value(json_object_get(in, "now"));
    if (!o) return qn_jinja_render(jinja, json_object_get(in, "vars"), json_object_get(in, "trusted"), now, NULL, out, err);
    struct qn_template_input i = {
        json_object_get(o, "messages"), json_object_get(o, "tools"), json_object_get(o, "kwargs"), json_object_get(o, "documents"),
        json_is_true(json_object_get(o, "add_generation_prompt")), json_is_true(json_object_get(o, "continue_final_message")), now};
    return qn_template_render(tmpl, &i, out, err);
}

static json_t *answer(json_t *in) {
    struct qn_err err = {0};
    struct qn_rendered out = {0};
    int rc = compile(in, &err);
    if (rc == 0) rc = render(in, &out, &err);
    if (rc < 0) return json_pack("{ssss}", "error", qn_err_name(rc), "message", err.text);
    json_t *ranges = json_array(), *text = json_stringn(out.text.p ? out.text.p : "", out.text.n);
    for (size_t i = 0; i < out.n_trusted; i++)
        json_array_append_new(ranges, json_pack("[II]", (json_int_t)out.trusted[i].from, (json_int_t)out.trusted[i].to));
    qn_rendered_done(&out);
    return json_pack("{sosb so}", "text", text ? text : json_string("<not UTF-8>"), "utf8", text != NULL, "trusted", ranges);
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    while (getline(&line, &cap, stdin) > 0) {
        json_error_t e;
        json_t *in = json_loads(line, JSON_ALLOW_NUL, &e);
        json_t *out = in ? answer(in) : json_pack("{ssss}", "error", "JSON", "message", e.text);
        char *s = json_dumps(out, JSON_COMPACT);
        puts(s ? s : "{}");
        fflush(stdout);
        free(s);
        json_decref(out);
        json_decref(in);
    }
    free(line);
    free(last);
    qn_jinja_free(jinja);
    qn_template_close(tmpl);
    return 0;
}
