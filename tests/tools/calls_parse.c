/* Takes model output apart for the Python tests: a JSON object per line on stdin, one per line on stdout.
 *
 *   {"template": text, "format": name or null, "text": output, "tools": […], "prompt": what stands before it, "one_call": bool, "cuts": n random splits}
 *   -> {"format": …, "thinks": [open, close], "message": {content, reasoning, calls: [{name, arguments}]},
 *       "same": true or the first split that gives another message, "cut": true or the first length at which what is given is no prefix}
 *
 * With "accept": true also "accepts": true, or where the grammar of required calls stops.
 *
 * Every two-piece split, single bytes and random splits must give the same message; and the text cut at each byte a part of it. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/calls_impl.h"
#include "engine/engine.h"

struct got {
    struct qn_buf content, reasoning;
    struct qn_buf name[130], args[130];
    int ended[130], n, bad;
};

static void start(struct got *g) {
    memset(g, 0, sizeof *g);
    qn_buf_init(&g->content, 1 << 24);
    qn_buf_init(&g->reasoning, 1 << 24);
}

static void stop(struct got *g) {
    qn_buf_done(&g->content);
    qn_buf_done(&g->reasoning);
    for (int i = 0; i < g->n; i++) {
        qn_buf_done(&g->name[i]);
        qn_buf_done(&g->args[i]);
    }
}

static void take(struct got *g, const struct qn_piece *p) {
    switch (p->kind) {
    case QN_PIECE_TEXT: qn_buf_put(&g->content, p->text, p->n); break;
    case QN_PIECE_REASONING: qn_buf_put(&g->reasoning, p->text, p->n); break;
    case QN_PIECE_CALL:
        if (p->call != g->n || g->n == 130) {
            g->bad = 1;
            return;
        }
        qn_buf_init(&g->name[g->n], 4096);
        qn_buf_init(&g->args[g->n], 1 << 24);
        qn_buf_put(&g->name[g->n++], p->text, p->n);
        break;
    case QN_PIECE_ARGUMENTS:
        if (p->call != g->n - 1 || g->ended[p->call]) g->bad = 1;
        else qn_buf_put(&g->args[p->call], p->text, p->n);
        break;
    case QN_PIECE_CALL_END:
        if (p->call != g->n - 1) g->bad = 1;
        else g->ended[p->call]++;
        break;
    }
}

static int same_buf(const struct qn_buf *a, const struct qn_buf *b) {
    return a->n == b->n && (!a->n || !memcmp(a->p, b->p, a->n));
}

static int same(const struct got *a, const struct got *b) {
    int ok = same_buf(&a->content, &b->content) && same_buf(&a->reasoning, &b->reasoning) && a->n == b->n && !a->bad && !b->bad;
    for (int i = 0; ok && i < a->n; i++)
        ok = same_buf(&a->name[i], &b->name[i]) && same_buf(&a->args[i], &b->args[i]) && a->ended[i] == b->ended[i];
    return ok;
}

static int prefix(const struct qn_buf *a, const struct qn_buf *b) {
    return a->n <= b->n && (!a->n || !memcmp(a->p, b->p, a->n));
}

/* a, of a text that was cut, is a part of b; its content may end with what would have become a mark. */
static int part(const struct got *a, const struct got *b, const char *text, size_t n) {
    size_t k = 0, rest;
    while (k < a->content.n && k < b->content.n && a->content.p[k] == b->content.p[k]) k++;
    rest = a->content.n - k;
    int ok = prefix(&a->reasoning, &b->reasoning) && a->n <= b->n && !a->bad;
    ok = ok && rest < 64 && rest <= n && (!rest || !memcmp(text + n - rest, a->content.p + k, rest));
    for (int i = 0; ok && i < a->n; i++) ok = same_buf(&a->name[i], &b->name[i]) && prefix(&a->args[i], &b->args[i]);
    return ok;
}

struct ask {
    struct qn_call_marks m;
    struct qn_call_parser_opts o;
    const char *text;
    size_t n;
};

/* ends: n_ends places in ascending order. */
static void run(const struct ask *q, const size_t *ends, size_t n_ends, size_t n, enum qn_last last, struct got *g) {
    struct qn_call_parser *p;
    struct qn_piece piece;
    size_t at = 0;
    start(g);
    if (qn_call_parser_new(&p, &q->m, &q->o) < 0) exit(1);
    for (size_t i = 0; i <= n_ends; i++) {
        size_t to = i < n_ends ? ends[i] : n;
        char *exact = malloc(to - at + 1); /* so that a sanitizer sees a read past it */
        memcpy(exact, q->text + at, to - at);
        if (qn_call_parser_feed(p, exact, to - at, i < n_ends ? QN_MORE : last) < 0) exit(1);
        free(exact);
        while (qn_call_parser_next(p, &piece)) take(g, &piece);
        at = to;
    }
    qn_call_parser_free(p);
}

static json_t *try_splits(const struct ask *q, const struct got *want, int n_random) {
    size_t *ends = malloc((q->n + 1) * sizeof *ends), n;
    struct got g;
    unsigned seed = 12345;
    json_t *bad = NULL;
    for (size_t i = 0; i <= q->n && !bad; i++) {
        run(q, &i, 1, q->n, QN_ENDED, &g);
        if (!same(&g, want)) bad = json_pack("[I]", (json_int_t)i);
        stop(&g);
    }
    for (int k = 0; k <= n_random && !bad; k++) {
        n = 0;
        for (size_t i = 1; i < q->n; i++) {
            seed = seed * 1664525u + 1013904223u;
            if (k == 0 || (seed >> 16) % (2 + (unsigned)k % 7) == 0) ends[n++] = i;
        }
        run(q, ends, n, q->n, QN_ENDED, &g);
        if (!same(&g, want)) {
            bad = json_array();
            for (size_t i = 0; i < n; i++) json_array_append_new(bad, json_integer((json_int_t)ends[i]));
        }
        stop(&g);
    }
    free(ends);
    return bad ? bad : json_true();
}

static json_t *try_cuts(const struct ask *q, const struct got *want) {
    for (size_t i = 0; i < q->n; i++) {
        struct got g, h;
        run(q, NULL, 0, i, QN_CUT, &g);
        int ok = part(&g, want, q->text, i);
        size_t *ends = malloc((i + 1) * sizeof *ends);
        for (size_t k = 0; k < i; k++) ends[k] = k + 1;
        run(q, ends, i ? i - 1 : 0, i, QN_CUT, &h);
        ok = ok && same(&g, &h);
        free(ends);
        stop(&g);
        stop(&h);
        if (!ok) return json_integer((json_int_t)i);
    }
    return json_true();
}

static json_t *buf_json(const struct qn_buf *b) {
    json_t *s = json_stringn(b->p ? b->p : "", b->n);
    return s ? s : json_string("<not UTF-8>");
}

/* Would the grammar of required calls let the model write this? */
static json_t *accepted(const struct ask *q, int parallel) {
    struct qn_grammar *g;
    struct qn_constraint *c = NULL;
    struct qn_tool_choice choice = {.mode = QN_TOOLS_REQUIRED, .tools = q->o.tool_list, .all = q->o.tool_list, .parallel = parallel};
    struct qn_refusal r = {0};
    struct qn_err err = {0};
    struct qn_schema_opts o = {0};
    qn_gnode root;
    if (qn_grammar_new(&g, NULL) < 0) exit(1);
    if (qn_calls_node(g, &q->m, NULL, &choice, &o, qn_g_text(g), &root, &r) < 0) {
        qn_grammar_free(g);
        return json_string(r.message);
    }
    if (qn_constraint_new(&c, g, root, NULL, &err) < 0) return json_string(err.text);
    qn_cstate s = qn_constraint_start(c);
    size_t at = 0;
    for (; at < q->n && s != QN_C_DEAD; at++) s = qn_constraint_text(c, s, q->text + at, 1);
    json_t *out = s == QN_C_DEAD ? json_integer((json_int_t)at - 1) : qn_constraint_accepts(c, s) ? json_true() : json_string("not at its end");
    qn_constraint_unref(c);
    return out;
}

static json_t *answer(json_t *in) {
    struct qn_err err = {0};
    struct qn_template *t = NULL;
    struct ask q = {0};
    struct got want;
    const json_t *text = json_object_get(in, "text"), *tmpl = json_object_get(in, "template");
    const char *prompt = json_string_value(json_object_get(in, "prompt"));
    if (!prompt) prompt = "";
    int rc = qn_template_open_plain(&t, json_string_value(tmpl), json_string_length(tmpl), "<s>", "</s>", &err);
    if (rc == 0) rc = qn_call_format_find(&q.m, t, NULL, json_string_value(json_object_get(in, "format")), &err);
    if (rc < 0) {
        qn_template_close(t);
        return json_pack("{ss}", "error", err.text);
    }
    q.o = (struct qn_call_parser_opts){.tools = 1, .thinking = 1, .in_thinking = qn_call_opens_thinking(&q.m, prompt, strlen(prompt)),
                                       .one_call = json_is_true(json_object_get(in, "one_call")), .tool_list = json_object_get(in, "tools")};
    q.text = json_string_value(text);
    q.n = json_string_length(text);
    run(&q, NULL, 0, q.n, QN_ENDED, &want);
    json_t *calls = json_array();
    for (int i = 0; i < want.n; i++)
        json_array_append_new(calls, json_pack("{soso}", "name", buf_json(&want.name[i]), "arguments", buf_json(&want.args[i])));
    json_t *out = json_pack("{ss s[ss] s{sososo} soso}", "format", qn_call_format_name(&q.m), "thinks", q.m.think ? q.m.think->open : "",
                            q.m.think ? q.m.think->close : "", "message", "content", buf_json(&want.content), "reasoning",
                            buf_json(&want.reasoning), "calls", calls, "same",
                            want.bad ? json_string("order") : try_splits(&q, &want, (int)json_integer_value(json_object_get(in, "cuts"))), "cut",
                            try_cuts(&q, &want));
    if (json_is_true(json_object_get(in, "accept"))) json_object_set_new(out, "accepts", accepted(&q, want.n > 1));
    stop(&want);
    qn_template_close(t);
    return out;
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    while (getline(&line, &cap, stdin) > 0) {
        json_error_t e;
        json_t *in = json_loads(line, JSON_ALLOW_NUL, &e);
        json_t *out = in ? answer(in) : json_pack("{ss}", "error", e.text);
        char *s = json_dumps(out, JSON_COMPACT);
        puts(s ? s : "{}");
        fflush(stdout);
        free(s);
        json_decref(out);
        json_decref(in);
    }
    free(line);
    return 0;
}
