/* Opens a template and finds out, by rendering small conversations with it, what it expects: whether it walks a list of
 * content parts or only knows strings, whether it wants a tool call's arguments as a mapping or as JSON text, whether it
 * knows the developer role, and whether it prints "None" for an assistant message without content. A probe that raises
 * counts as "does not know". So nothing is guessed from the template's name or its text, except the developer role, which a
 * template that prints any role would seem to know.
 *
 * What a request's messages need before they fit is template_input.c's. */
#include "api/template.h"

#include <stdlib.h>
#include <string.h>

#include "api/template_input.h"

#define PROBE "qnprobe"

static const char chatml[] =
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\\n' + (m.content or '') + '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";
static const char gemma[] =
    "{{- bos_token -}}"
    "{%- set ns = namespace(lead='') -%}"
    "{%- for m in messages -%}"
    "{%- set text = (m.content or '')|trim -%}"
    "{%- if m.role == 'system' and not loop.last -%}{%- set ns.lead = ns.lead + text + '\\n\\n' -%}"
    "{%- else -%}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\\n' + ns.lead + text + '<end_of_turn>\\n' }}"
    "{%- set ns.lead = '' -%}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}";
static const char llama3[] =
    "{{- bos_token -}}{%- for m in messages -%}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + (m.content or '')|trim + '<|eot_id|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}";
static const char plain[] =
    "{{- bos_token -}}{%- for m in messages -%}{{ m.role + ': ' + (m.content or '') + '\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'assistant:' }}{%- endif -%}";
static const struct { const char *special, *text; } defaults[] = {
    {"<|im_start|>", chatml}, {"<start_of_turn>", gemma}, {"<|start_header_id|>", llama3},
};

/* ---- probes ---- */

/* The rendered text, or NULL where it raised. Takes messages. */
static char *probe(const struct qn_template *t, json_t *messages, int with_tools) {
    json_t *tools = json_null();
    if (with_tools)
        tools = json_pack("[{sss{sssss{sss{s{ss}}}}}]", "type", "function", "function", "name", "qnfn", "description", "d",
                          "parameters", "type", "object", "properties", "qnarg", "type", "string");
    json_t *vars = json_pack("{sososnsb}", "messages", messages, "tools", tools, "documents", "add_generation_prompt", 0);
    struct qn_jinja_limits lim = {.steps = 300000, .memory_bytes = 16 << 20, .out_bytes = 1 << 20};
    struct qn_rendered r = {0};
    char *text = NULL;
    if (vars && qn_jinja_render(t->j, vars, t->trusted, 0, &lim, &r, NULL) == 0) text = qn_buf_take(&r.text, NULL);
    qn_rendered_done(&r);
    json_decref(vars);
    return text;
}

static int has(const char *text, const char *what) { return text && strstr(text, what) != NULL; }

static void probe_content(struct qn_template *t) {
    char *s = probe(t, json_pack("[{ssss}]", "role", "user", "content", PROBE), 0);
    char *l = probe(t, json_pack("[{sss[{ssss}]}]", "role", "user", "content", "type", "text", "text", PROBE), 0);
    t->takes_lists = has(l, PROBE) && !has(l, "'" PROBE "'") && !has(l, "\"" PROBE "\"");
    t->takes_strings = has(s, PROBE) || !t->takes_lists;
    const char *bos = json_string_value(json_object_get(t->trusted, "bos_token"));
    t->writes_bos = s && bos && *bos && !strncmp(s, bos, strlen(bos));
    free(s);
    free(l);
}

static json_t *call_messages(json_t *arguments, json_t *content, int with_result) {
    json_t *m =
        json_pack("[{ssss}{sssos[{sssss{ssso}}]}]", "role", "user", "content", "u", "role", "assistant", "content", content,
                  "tool_calls", "id", PROBE "01", "type", "function", "function", "name", "qnfn", "arguments", arguments);
    if (m && with_result)
        json_array_append_new(
            m, json_pack("{ssssssss}", "role", "tool", "tool_call_id", PROBE "01", "name", "qnfn", "content", "r"));
    return m;
}

static char *probe_call(const struct qn_template *t, int as_text, json_t *content) {
    for (int with_result = 1; with_result >= 0; with_result--) {
        json_t *a = as_text ? json_string("{\"qnarg\": \"qnval\"}") : json_pack("{ss}", "qnarg", "qnval");
        char *s = probe(t, call_messages(a, json_incref(content), with_result), 1);
        if (s) return s;
    }
    return NULL;
}

static void probe_calls(struct qn_template *t) {
    json_t *empty = json_string("");
    char *o = probe_call(t, 0, empty), *s = probe_call(t, 1, empty);
    int object = has(o, "qnarg") && !has(o, "'qnarg'"), text = has(s, "\"qnarg\"");
    t->text_arguments = !object && text;
    char *none = probe_call(t, t->text_arguments, json_null()), *same = t->text_arguments ? s : o;
    t->empty_for_null = (!none && same) || (has(none, "None") && !has(same, "None"));
    free(o);
    free(s);
    free(none);
    json_decref(empty);
}

static void probe_developer(struct qn_template *t) {
    if (!strstr(t->text, "developer")) return;
    char *s = probe(t, json_pack("[{ssss}{ssss}]", "role", "developer", "content", PROBE, "role", "user", "content", "u"), 0);
    t->knows_developer = has(s, PROBE);
    free(s);
}

/* ---- open, close ---- */

int qn_template_open_plain(struct qn_template **out, const char *text, size_t n, const char *bos, const char *eos,
                           struct qn_err *err) {
    struct qn_template *t = calloc(1, sizeof *t);
    if (!t) return qn_fail(err, QN_E_NOMEM, "chat template: no memory");
    if (!text) {
        text = plain;
        n = strlen(plain);
    }
    t->text = calloc(1, n + 1);
    t->trusted = json_pack("{ssss}", "bos_token", bos ? bos : "", "eos_token", eos ? eos : "");
    int rc = t->text && t->trusted ? 0 : qn_fail(err, QN_E_NOMEM, "chat template: no memory");
    if (rc == 0) {
        memcpy(t->text, text, n);
        rc = qn_jinja_compile(&t->j, text, n, err);
    }
    if (rc < 0) {
        qn_template_close(t);
        return rc;
    }
    probe_content(t);
    probe_calls(t);
    probe_developer(t);
    *out = t;
    return 0;
}

static char *spelling(const struct qn_tokenizer *tok, int64_t id) {
    size_t n = 0;
    const char *p = tok && id >= 0 ? qn_tokenizer_piece(tok, (uint32_t)id, &n) : NULL;
    char *s = calloc(1, n + 1);
    if (s && p) memcpy(s, p, n);
    return s;
}

int qn_template_open(struct qn_template **out, const char *text, size_t n, const struct qn_tokenizer *tok, struct qn_err *err) {
    char *bos = spelling(tok, tok ? qn_tokenizer_bos(tok) : -1), *eos = spelling(tok, tok ? qn_tokenizer_eos(tok) : -1);
    for (size_t i = 0; tok && !text && i < sizeof defaults / sizeof *defaults; i++)
        if (qn_tokenizer_find(tok, defaults[i].special, strlen(defaults[i].special)) >= 0) {
            text = defaults[i].text;
            n = strlen(text);
        }
    int rc =
        bos && eos ? qn_template_open_plain(out, text, n, bos, eos, err) : qn_fail(err, QN_E_NOMEM, "chat template: no memory");
    free(bos);
    free(eos);
    return rc;
}

void qn_template_close(struct qn_template *t) {
    if (!t) return;
    qn_jinja_free(t->j);
    json_decref(t->trusted);
    free(t->text);
    free(t);
}

int qn_template_writes_bos(const struct qn_template *t) { return t->writes_bos; }
int qn_template_mentions(const struct qn_template *t, const char *name) { return qn_jinja_mentions(t->j, name); }
const char *qn_template_text(const struct qn_template *t) { return t->text; }

/* ---- render ---- */

int qn_template_render(const struct qn_template *t, const struct qn_template_input *in, struct qn_rendered *out,
                       struct qn_err *err) {
    struct qn_template_continue cut;
    struct qn_rendered r = {0};
    json_t *vars = NULL;
    int rc = qn_template_vars(t, in, &vars, &cut, err);
    if (rc == 0) rc = qn_jinja_render(t->j, vars, t->trusted, in->now_s, NULL, &r, err);
    if (rc == 0 && in->continue_final_message) rc = qn_template_cut(&cut, &r, err);
    json_decref(vars);
    free(cut.text);
    if (rc < 0) qn_rendered_done(&r);
    else *out = r;
    return rc;
}
