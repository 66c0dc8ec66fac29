/* A streamed answer as server-sent events, formatted into the reader's own buffer.
 *
 * A text chunk is prefix, index, escaped text, suffix; prefix and suffix are rendered once a request, so a token costs a
 * few copies. While records of one choice wait they go into one chunk. Everything that is rare or may be large (roles,
 * log-probabilities, ends, usage, errors) is formatted into `carry` first and copied from there, across as many reads as
 * it takes; so is a text chunk that does not fit a whole buffer. A record that does not fit what is left of a buffer stays
 * where it is for the next read. */
#include <stdio.h>
#include <string.h>

#include "api/extras.h"
#include "api/gen.h"
#include "api/json_out.h"
#include "engine/base/clock.h"

enum { USAGE_BYTES_MAX = 384, INDEX_BYTES_MAX = 12 };

struct writer {
    char *p, *end;
    int open; /* the choice whose text chunk is open, or -1 */
};

static const char ping[] = ": ping\n\n", done[] = "data: [DONE]\n\n";

int qn_gen_chunks_open(struct qn_exchange *x) {
    struct qn_gen *g = x->gen;
    qn_buf_printf(&g->head, "data: {\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", g->id, g->shape->chunk_object,
                  (long long)g->created_s);
    qn_json_string(&g->head, x->api->model_name, strlen(x->api->model_name));
    qn_buf_printf(&g->head, ",\"system_fingerprint\":\"%s\",\"choices\":[", x->api->fingerprint);
    qn_buf_printf(&g->tail, "%s,\"logprobs\":null,\"finish_reason\":null}]", g->shape->text_close);
    return g->head.failed ? g->head.failed : g->tail.failed;
}

/* --- pieces that go into carry ------------------------------------------------------------------------------------ */

static void end_event(const struct qn_exchange *x, int last, struct qn_buf *out) {
    const struct qn_params *p = &x->params;
    if (p->include_usage || p->continuous_usage) {
        qn_buf_puts(out, ",\"usage\":");
        if (last || p->continuous_usage)
            qn_gen_usage(x->gen, out);
        else
            qn_buf_puts(out, "null");
    }
    qn_buf_puts(out, "}\n\n");
}

static void begin_choice(const struct qn_gen *g, int i, struct qn_buf *out) {
    qn_buf_put(out, g->head.p, g->head.n);
    qn_buf_printf(out, "{\"index\":%d", i);
}

/* The role, or the prompt that is to be echoed. */
static void put_first(struct qn_exchange *x, int i) {
    struct qn_gen *g = x->gen;
    struct qn_part *p = &g->parts[i / g->n];
    struct qn_buf *out = &g->carry;
    begin_choice(g, i, out);
    if (g->shape->first) {
        qn_buf_puts(out, g->shape->first);
    } else {
        qn_buf_puts(out, ",\"text\":");
        qn_json_string(out, p->echo.p ? p->echo.p : "", p->echo.n);
    }
    qn_buf_puts(out, ",\"logprobs\":");
    if (p->prompt_lp.n)
        qn_lp_write(NULL, &p->prompt_lp, g->shape->chat, out);
    else
        qn_buf_puts(out, "null");
    qn_buf_puts(out, ",\"finish_reason\":null");
    qn_extras_first(x, p, out);
    end_event(x, 0, out);
}

static void put_text(struct qn_exchange *x, int i, const char *text, size_t n, const struct qn_lp *lp) {
    struct qn_gen *g = x->gen;
    struct qn_buf *out = &g->carry;
    begin_choice(g, i, out);
    qn_buf_put(out, g->shape->text_open, strlen(g->shape->text_open) - 1); /* its quote is the string's */
    qn_json_string(out, text, n);
    qn_buf_puts(out, g->shape->text_close + 1);
    qn_buf_puts(out, ",\"logprobs\":");
    if (lp)
        qn_lp_write(NULL, lp, g->shape->chat, out);
    else
        qn_buf_puts(out, "null");
    qn_buf_puts(out, ",\"finish_reason\":null");
    qn_extras_delta(x, &g->choices[i], out);
    qn_buf_puts(out, "}]");
    end_event(x, 0, out);
}

/* A delta for each part of the message that became certain; log-probabilities go with the first, or wait for it. */
static void put_parts(struct qn_exchange *x, int i, const struct qn_event *ev, const enum qn_finish *end) {
    struct qn_gen *g = x->gen;
    struct qn_choice *c = &g->choices[i];
    struct qn_buf *out = &g->carry;
    if (qn_answer_feed(c->answer, ev->text, ev->n_text, end) < 0) out->failed = QN_E_NOMEM;
    for (int more = 1; more && !out->failed;) {
        size_t begun = out->n;
        begin_choice(g, i, out);
        qn_buf_puts(out, ",\"delta\":{");
        more = qn_answer_delta(c->answer, out);
        if (!more && !(end && c->lp.n)) { /* nothing to say: as if it had not begun */
            out->n = begun;
            break;
        }
        qn_buf_puts(out, "},\"logprobs\":");
        if (c->lp.n)
            qn_lp_write(NULL, &c->lp, g->shape->chat, out);
        else
            qn_buf_puts(out, "null");
        qn_lp_reset(&c->lp);
        qn_buf_puts(out, ",\"finish_reason\":null");
        qn_extras_delta(x, c, out);
        qn_buf_puts(out, "}]");
        end_event(x, 0, out);
    }
}

static void put_last(struct qn_exchange *x, int i) {
    struct qn_gen *g = x->gen;
    struct qn_buf *out = &g->carry;
    begin_choice(g, i, out);
    qn_buf_puts(out, g->shape->last);
    qn_buf_puts(out, ",\"logprobs\":null,");
    qn_gen_reason(x, &g->choices[i], out);
    qn_extras_delta(x, &g->choices[i], out);
    qn_buf_puts(out, "}]");
    end_event(x, 0, out);
}

static void put_end(struct qn_exchange *x) {
    struct qn_gen *g = x->gen;
    if (x->params.include_usage) {
        qn_buf_put(&g->carry, g->head.p, g->head.n);
        qn_buf_putc(&g->carry, ']');
        end_event(x, 1, &g->carry);
    }
    qn_buf_puts(&g->carry, done);
    g->over = QN_GEN_DONE;
}

/* After the 200 an error is one event, and the connection ends without [DONE]. */
static void put_failure(struct qn_exchange *x, int code) {
    struct qn_gen *g = x->gen;
    const struct qn_refusal *r = &x->refusal;
    qn_refuse_code(&x->refusal, code, NULL);
    x->facts.finish = r->code;
    qn_buf_puts(&g->carry, "data: ");
    qn_api_error_body(&g->carry, r->status, r->code, r->param, r->message);
    qn_buf_puts(&g->carry, "\n\n");
    g->over = QN_GEN_CUT;
    qn_gen_stop(x);
}

/* --- the writer --------------------------------------------------------------------------------------------------- */

static size_t room(const struct writer *w) {
    return (size_t)(w->end - w->p);
}

static char *copy(char *to, const void *p, size_t n) {
    memcpy(to, p, n);
    return to + n;
}

static size_t tail_bytes(const struct qn_exchange *x) {
    return x->gen->tail.n + USAGE_BYTES_MAX;
}

/* There is room: it was kept when the chunk was opened and at each addition. */
static void close_chunk(struct qn_exchange *x, struct writer *w) {
    if (w->open < 0) return;
    struct qn_gen *g = x->gen;
    w->open = -1;
    w->p = copy(w->p, g->tail.p, g->tail.n);
    if (x->params.continuous_usage) {
        char usage[USAGE_BYTES_MAX];
        struct qn_buf b = {.p = usage, .cap = sizeof usage, .max = sizeof usage - 1};
        qn_buf_puts(&b, ",\"usage\":");
        qn_gen_usage(g, &b);
        w->p = copy(w->p, usage, b.n);
    } else if (x->params.include_usage) {
        w->p = copy(w->p, ",\"usage\":null", 13);
    }
    w->p = copy(w->p, "}\n\n", 3);
}

/* 1: the text is in the buffer (or there was none). 0: it does not fit what is left. */
static int add_text(struct qn_exchange *x, struct writer *w, int i, const char *text, size_t n) {
    struct qn_gen *g = x->gen;
    if (n == 0) return 1;
    size_t need = n * QN_ESCAPE_MAX + tail_bytes(x);
    if (w->open == i && need <= room(w)) {
        w->p = qn_json_escape(w->p, text, n);
        return 1;
    }
    close_chunk(x, w);
    size_t n_open = strlen(g->shape->text_open);
    if (need + g->head.n + INDEX_BYTES_MAX + 16 + n_open > room(w)) return 0;
    w->p = copy(w->p, g->head.p, g->head.n);
    w->p = copy(w->p, "{\"index\":", 9);
    w->p = qn_json_u64(w->p, (uint64_t)i);
    w->p = copy(w->p, g->shape->text_open, n_open);
    w->p = qn_json_escape(w->p, text, n);
    w->open = i;
    return 1;
}

/* Empties as much of carry as fits; 1 when nothing is left. */
static int flush_carry(struct qn_gen *g, struct writer *w) {
    size_t left = g->carry.n - g->carry_at, n = left < room(w) ? left : room(w);
    if (n) w->p = copy(w->p, g->carry.p + g->carry_at, n);
    g->carry_at += n;
    if (g->carry_at < g->carry.n) return 0;
    qn_buf_reset(&g->carry);
    g->carry_at = 0;
    return 1;
}

/* --- records ------------------------------------------------------------------------------------------------------ */

/* The next record of any part, round robin, left in part->ev until it is written. */
static struct qn_part *next_record(struct qn_gen *g) {
    for (int k = 0; k < g->n_parts; k++) {
        struct qn_part *p = &g->parts[(g->next_part + k) % g->n_parts];
        if (!p->has_ev) p->has_ev = qn_gen_next(p, &p->ev);
        if (!p->has_ev) continue;
        g->next_part = (int)(p - g->parts);
        return p;
    }
    return NULL;
}

static void finish(struct qn_exchange *x, struct qn_part *p, int i) {
    struct qn_gen *g = x->gen;
    const struct qn_event *ev = &p->ev;
    if (g->choices[i].answer)
        put_parts(x, i, ev, &ev->reason);
    else if (ev->n_text)
        put_text(x, i, ev->text, ev->n_text, NULL);
    qn_gen_finished(p, ev);
    if (qn_gen_check(x, &g->choices[i]) < 0) {
        put_failure(x, QN_E_INTERNAL);
        return;
    }
    put_last(x, i);
    qn_gen_part_over(p);
    if (g->n_finished == g->n_choices) put_end(x);
}

/* What qn_gen_check will look at; an answer (answer.h) keeps its content itself. */
static void keep_text(const struct qn_exchange *x, struct qn_choice *c, const struct qn_event *ev) {
    if (x->form.form != QN_FORM_FREE && !c->answer) qn_buf_put(&c->text, ev->text, ev->n_text);
}

/* Writes the record, or part of what belongs before it. 0: no room now; the record stays. */
static int write_record(struct qn_exchange *x, struct writer *w, const char *from, struct qn_part *p) {
    struct qn_gen *g = x->gen;
    const struct qn_event *ev = &p->ev;
    int i = (int)(p - g->parts) * g->n + ev->branch;
    struct qn_choice *c = &g->choices[i];
    int ends = ev->kind == QN_EV_FINISHED;
    if ((ev->kind == QN_EV_TOKEN || ends) && !c->opened) {
        c->opened = 1;
        if (g->shape->first || x->params.echo || x->params.return_token_ids) {
            close_chunk(x, w);
            put_first(x, i);
            return 1;
        }
    }
    if (ev->kind == QN_EV_TOKEN && !ev->lp && !c->answer && !x->params.return_token_ids) {
        if (!add_text(x, w, i, ev->text, ev->n_text)) {
            if (w->p > from) return 0;
            put_text(x, i, ev->text, ev->n_text, NULL); /* larger than the whole buffer */
        }
        keep_text(x, c, ev);
        p->has_ev = 0;
        return 1;
    }
    close_chunk(x, w);
    p->has_ev = 0;
    if (ev->kind == QN_EV_TOKEN || ends) keep_text(x, c, ev);
    if (ev->kind == QN_EV_TOKEN) {
        qn_extras_token(x, c, ev);
        if (!c->answer) qn_lp_reset(&c->lp);
        if (ev->lp) {
            qn_lp_add(&c->lp, x->api->tok, g->shape->chat, ev->id, ev->lp, c->chars);
            c->chars += qn_lp_chars(x->api->tok, ev->id, x->params.skip_special_tokens);
        }
        if (c->answer)
            put_parts(x, i, ev, NULL);
        else
            put_text(x, i, ev->text, ev->n_text, ev->lp ? &c->lp : NULL);
        if (qn_lp_failed(&c->lp)) g->carry.failed = QN_E_NOMEM;
    } else if (ev->kind == QN_EV_PROMPT && ev->lp) {
        qn_lp_add(&p->prompt_lp, x->api->tok, g->shape->chat, ev->id, ev->lp, c->chars);
        for (int k = 0; k < g->n; k++) c[k].chars += qn_lp_chars(x->api->tok, ev->id, 0);
    } else if (ends) {
        finish(x, p, i);
    } else if (ev->kind == QN_EV_FAILED) {
        qn_gen_explain(x, ev->code);
        put_failure(x, ev->code);
    }
    return 1;
}

long qn_gen_read(struct qn_exchange *x, char *to, size_t max) {
    struct qn_gen *g = x->gen;
    struct writer w = {to, to + max, -1};
    for (;;) {
        if (!flush_carry(g, &w) || g->over) break;
        struct qn_part *p = next_record(g);
        if (!p || !write_record(x, &w, to, p)) break;
        if (g->carry.failed) return QN_READ_ABORT; /* no memory for what must be said */
        if (g->carry.n && w.open >= 0) close_chunk(x, &w);
    }
    close_chunk(x, &w);
    if (w.p == to && g->want_ping && !g->over) w.p = copy(w.p, ping, sizeof ping - 1);
    if (w.p > to) {
        g->want_ping = 0;
        g->last_write_ns = qn_clock_ns();
        return (long)(w.p - to);
    }
    return g->over == QN_GEN_DONE ? QN_READ_END : g->over == QN_GEN_CUT ? QN_READ_ABORT : QN_READ_WAIT;
}
