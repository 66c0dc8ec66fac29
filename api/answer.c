/* See answer.h. Ids of calls are SipHash of the answer's number and the call's, in the form that the model's own template takes
 * back: nine letters and digits for Mistral's, else call_ and 24. */
#include "api/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/calls_impl.h"
#include "api/exchange.h"
#include "api/gen.h"
#include "api/json_out.h"

static const size_t TEXT_MAX = 256u << 20;
enum { ID_MAX = 40 };

struct call {
    char id[ID_MAX], name[136];
    int custom;
    struct qn_buf args; /* of a custom tool: its text */
};

struct inner { /* finds the text in {"input": "…"} as it streams */
    int state;
    struct qn_unescape u;
};
enum { IN_BEFORE, IN_COLON, IN_TEXT, IN_OVER };

struct qn_answer {
    const struct qn_exchange *x;
    struct qn_call_parser *p;
    int n_calls, lost;
    int open; /* the last call has begun and not ended */
    uint64_t seed;
    struct call *calls;
    size_t cap_calls;
    struct inner in;
    struct qn_buf content, reasoning; /* reasoning: whole, or what is kept back until it is over */
    struct qn_buf tmp;
    struct qn_piece ahead; /* a piece that waits behind kept-back reasoning */
    int has_ahead, ended;
};

/* --- life --------------------------------------------------------------------------------------------------------- */

int qn_answer_open(struct qn_answer **out, const struct qn_exchange *x) {
    const struct qn_thought *t = &x->thought;
    int tools = qn_tools_called(&x->tools) && x->params.parse_tool_calls;
    *out = NULL;
    if (!tools && !t->apart && !qn_call_frames(&x->api->marks)) return 0;
    struct qn_answer *a = calloc(1, sizeof *a);
    if (!a) return QN_E_NOMEM;
    a->x = x;
    qn_buf_init(&a->content, TEXT_MAX);
    qn_buf_init(&a->reasoning, TEXT_MAX);
    qn_buf_init(&a->tmp, TEXT_MAX);
    struct qn_call_parser_opts o = {.tools = tools, .thinking = t->apart, .in_thinking = t->opened, .exact = x->gen->constraint != NULL,
                                    .listed_only = json_array_size(x->tools.allowed) < json_array_size(x->tools.list),
                                    .one_call = !x->tools.parallel,
                                    .tool_list = x->tools.allowed};
    int rc = qn_call_parser_new(&a->p, &x->api->marks, &o);
    if (rc < 0) qn_answer_close(a);
    else *out = a;
    return rc;
}

void qn_answer_begin(struct qn_answer *a, uint64_t seed) {
    a->seed = seed;
}

void qn_answer_close(struct qn_answer *a) {
    if (!a) return;
    qn_call_parser_free(a->p);
    for (int i = 0; i < a->n_calls; i++) qn_buf_done(&a->calls[i].args);
    free(a->calls);
    qn_buf_done(&a->content);
    qn_buf_done(&a->reasoning);
    qn_buf_done(&a->tmp);
    free(a);
}

int qn_answer_feed(struct qn_answer *a, const char *text, size_t n, const enum qn_finish *end) {
    enum qn_last last = !end ? QN_MORE : *end == QN_FINISH_LENGTH ? QN_CUT : QN_ENDED;
    a->ended |= end != NULL;
    int rc = qn_call_parser_feed(a->p, text, n, last);
    if (rc < 0) a->lost = 1;
    return rc;
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

static void make_id(const struct qn_answer *a, int call, char out[ID_MAX]) {
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    int nine = a->x->api->marks.calls->flags & QN_CF_NINE, n = nine ? 9 : 24;
    uint64_t h[2] = {a->seed, (uint64_t)call + 1};
    char *to = out;
    if (a->x->api->plain_ids) {
        snprintf(out, ID_MAX, "%s%0*d", nine ? "" : "call_", n, call + 1);
        return;
    }
    if (!nine) to += snprintf(out, ID_MAX, "call_");
    for (int i = 0; i < n; i++) {
        h[1] = h[1] * 6364136223846793005u + h[0] + 1442695040888963407u;
        *to++ = digits[(h[1] >> 40) % 62];
    }
    *to = 0;
}

static struct call *new_call(struct qn_answer *a, const struct qn_piece *p) {
    if ((size_t)a->n_calls == a->cap_calls) {
        size_t cap = a->cap_calls ? 2 * a->cap_calls : 4;
        struct call *c = realloc(a->calls, cap * sizeof *c);
        if (!c) {
            a->lost = 1;
            return NULL;
        }
        a->calls = c;
        a->cap_calls = cap;
    }
    struct call *c = &a->calls[a->n_calls];
    *c = (struct call){0};
    make_id(a, a->n_calls++, c->id);
    snprintf(c->name, sizeof c->name, "%.*s", (int)p->n, p->text);
    c->custom = json_object_get(a->x->tools.custom, c->name) != NULL;
    a->open = 1;
    qn_buf_init(&c->args, TEXT_MAX);
    a->in = (struct inner){0};
    return c;
}

/* Of arguments {"input": "text"} the text, into tmp. */
static void take_inner(struct qn_answer *a, const char *s, size_t n) {
    qn_buf_reset(&a->tmp);
    for (size_t i = 0; i < n;) {
        int over;
        if (a->in.state == IN_TEXT) {
            i += qn_json_unescape(&a->in.u, s + i, n - i, &a->tmp, &over);
            if (over) a->in.state = IN_OVER;
            continue;
        }
        if (a->in.state == IN_BEFORE && s[i] == ':') a->in.state = IN_COLON;
        else if (a->in.state == IN_COLON && s[i] == '"') a->in.state = IN_TEXT;
        i++;
    }
}

/* A call's bytes as its kind has them. */
static void take_args(struct qn_answer *a, const struct call *c, struct qn_piece *p) {
    if (!c->custom) return;
    take_inner(a, p->text, p->n);
    p->text = a->tmp.p ? a->tmp.p : "";
    p->n = a->tmp.n;
}

static int next(struct qn_answer *a, struct qn_piece *p) {
    const struct qn_thought *t = &a->x->thought;
    while (qn_call_parser_next(a->p, p))
        if (p->kind != QN_PIECE_REASONING || t->show) return 1;
    return 0;
}

/* --- streamed ----------------------------------------------------------------------------------------------------- */

static void string_member(struct qn_buf *out, const char *name, const char *s, size_t n) {
    qn_buf_printf(out, "\"%s\":", name);
    qn_json_string(out, s, n);
}

static void reasoning_delta(struct qn_buf *out, const char *s, size_t n) {
    string_member(out, "reasoning_content", s, n);
    qn_buf_putc(out, ',');
    string_member(out, "reasoning", s, n);
}

static void call_delta(struct qn_answer *a, const struct qn_piece *p, struct qn_buf *out) {
    struct call *c = new_call(a, p);
    if (!c) return;
    if (a->x->tools.legacy) {
        qn_buf_printf(out, "\"function_call\":{\"name\":\"%s\",\"arguments\":\"\"}", c->name);
        return;
    }
    const char *kind = c->custom ? "custom" : "function";
    qn_buf_printf(out, "\"tool_calls\":[{\"index\":%d,\"id\":\"%s\",\"type\":\"%s\",\"%s\":{", p->call, c->id, kind, kind);
    string_member(out, "name", c->name, strlen(c->name));
    qn_buf_printf(out, ",\"%s\":\"\"}}]", c->custom ? "input" : "arguments");
}

static void args_delta(const struct qn_answer *a, const struct call *c, const struct qn_piece *p, struct qn_buf *out) {
    if (a->x->tools.legacy) {
        qn_buf_puts(out, "\"function_call\":{");
        string_member(out, "arguments", p->text, p->n);
        qn_buf_putc(out, '}');
        return;
    }
    qn_buf_printf(out, "\"tool_calls\":[{\"index\":%d,\"%s\":{", p->call, c->custom ? "custom" : "function");
    string_member(out, c->custom ? "input" : "arguments", p->text, p->n);
    qn_buf_puts(out, "}}]");
}

/* 1: something was written. */
static int piece_delta(struct qn_answer *a, struct qn_piece *p, struct qn_buf *out) {
    switch (p->kind) {
    case QN_PIECE_TEXT:
        if (a->x->form.form != QN_FORM_FREE) qn_buf_put(&a->content, p->text, p->n); /* for its check in the end */
        string_member(out, "content", p->text, p->n);
        return 1;
    case QN_PIECE_REASONING:
        if (a->x->thought.piecewise) {
            reasoning_delta(out, p->text, p->n);
            return 1;
        }
        qn_buf_put(&a->reasoning, p->text, p->n);
        return 0;
    case QN_PIECE_CALL: call_delta(a, p, out); return 1;
    case QN_PIECE_ARGUMENTS:
        if (!a->n_calls) return 0;
        take_args(a, &a->calls[a->n_calls - 1], p);
        if (!p->n) return 0;
        args_delta(a, &a->calls[a->n_calls - 1], p, out);
        return 1;
    case QN_PIECE_CALL_END: a->open = 0; return 0;
    default: return 0;
    }
}

static int flush_reasoning(struct qn_answer *a, struct qn_buf *out) {
    if (a->x->thought.piecewise || !a->reasoning.n) return 0;
    reasoning_delta(out, a->reasoning.p, a->reasoning.n);
    qn_buf_reset(&a->reasoning);
    return 1;
}

int qn_answer_delta(struct qn_answer *a, struct qn_buf *out) {
    struct qn_piece p;
    for (;;) {
        if (a->has_ahead) {
            p = a->ahead;
            a->has_ahead = 0;
        } else {
            if (!next(a, &p)) return a->ended && flush_reasoning(a, out);
            if (p.kind != QN_PIECE_REASONING && flush_reasoning(a, out)) {
                a->ahead = p;
                return a->has_ahead = 1;
            }
        }
        if (piece_delta(a, &p, out)) return 1;
    }
}

/* --- whole -------------------------------------------------------------------------------------------------------- */

void qn_answer_gather(struct qn_answer *a) {
    struct qn_piece p;
    while (next(a, &p)) {
        struct call *c = a->n_calls ? &a->calls[a->n_calls - 1] : NULL;
        if (p.kind == QN_PIECE_TEXT) qn_buf_put(&a->content, p.text, p.n);
        else if (p.kind == QN_PIECE_REASONING) qn_buf_put(&a->reasoning, p.text, p.n);
        else if (p.kind == QN_PIECE_CALL) new_call(a, &p);
        else if (p.kind == QN_PIECE_ARGUMENTS && c) {
            take_args(a, c, &p);
            qn_buf_put(&c->args, p.text, p.n);
        } else if (p.kind == QN_PIECE_CALL_END) a->open = 0;
    }
}

static void put_call(const struct call *c, struct qn_buf *out) {
    const char *kind = c->custom ? "custom" : "function", *args = c->args.p ? c->args.p : "";
    qn_buf_printf(out, "{\"id\":\"%s\",\"type\":\"%s\",\"%s\":{", c->id, kind, kind);
    string_member(out, "name", c->name, strlen(c->name));
    qn_buf_putc(out, ',');
    string_member(out, c->custom ? "input" : "arguments", args, c->args.n);
    qn_buf_puts(out, "}}");
}

void qn_answer_message(const struct qn_answer *a, struct qn_buf *out) {
    qn_buf_puts(out, "\"content\":");
    if (a->content.n || !a->n_calls) qn_json_string(out, a->content.p ? a->content.p : "", a->content.n);
    else qn_buf_puts(out, "null");
    if (a->reasoning.n) {
        qn_buf_putc(out, ',');
        reasoning_delta(out, a->reasoning.p, a->reasoning.n);
    }
    if (!a->n_calls) return;
    if (a->x->tools.legacy) {
        const struct call *c = &a->calls[0];
        qn_buf_puts(out, ",\"function_call\":{");
        string_member(out, "name", c->name, strlen(c->name));
        qn_buf_putc(out, ',');
        string_member(out, "arguments", c->args.p ? c->args.p : "", c->args.n);
        qn_buf_putc(out, '}');
        return;
    }
    qn_buf_puts(out, ",\"tool_calls\":[");
    for (int i = 0; i < a->n_calls; i++) {
        if (i) qn_buf_putc(out, ',');
        put_call(&a->calls[i], out);
    }
    qn_buf_putc(out, ']');
}

const char *qn_answer_reason(const struct qn_answer *a, enum qn_finish end) {
    if (a->open && end != QN_FINISH_STOP) return NULL; /* a stop string cut it: nobody should run that */
    return !a->n_calls ? NULL : a->x->tools.legacy ? "function_call" : "tool_calls";
}

int qn_answer_content(const struct qn_answer *a, const char **text, size_t *n) {
    *text = a->content.p ? a->content.p : "";
    *n = a->content.n;
    int lost = a->lost || a->content.failed || a->reasoning.failed;
    for (int i = 0; i < a->n_calls; i++) lost |= a->calls[i].args.failed != 0;
    return lost ? QN_E_NOMEM : 0;
}
