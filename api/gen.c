/* Life of a generating request: fit, submit, hold the status until the engine has begun or refused, gather, end.
 *
 * All parts are submitted or none: when one is refused those before it are closed. The status is held back until the
 * first part starts, so a full queue or a deadline is a true 503 or 504 and not an error inside a 200. */
#include "api/gen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/beam.h"
#include "api/extras.h"
#include "api/json_out.h"
#include "api/select.h"
#include "engine/base/clock.h"
#include "engine/base/hash.h"

static const size_t TEXT_MAX = 256u << 20;
enum { CALL_LANE = 1000 /* of qn_api_draw */, RETRY_MS_MIN = 1000, RETRY_MS_MAX = 60000 };

/* --- making ------------------------------------------------------------------------------------------------------- */

int qn_gen_new(struct qn_exchange *x, const struct qn_shape *shape, size_t n_parts) {
    size_t n = (size_t)qn_params_branches(&x->params), n_choices = n_parts * n;
    if (n_choices > QN_CHOICES_MAX)
        return qn_refuse(&x->refusal, 400, "invalid_value", x->params.samples != QN_ABSENT ? "quern.samples" : n > (size_t)x->params.n ? "best_of" : "n",
                         "Too many choices: %zu prompts times n = %zu; at most %d in all.", n_parts, n, QN_CHOICES_MAX);
    struct qn_gen *g = calloc(1, sizeof *g);
    if (!g) return qn_refuse_code(&x->refusal, QN_E_NOMEM, NULL);
    x->gen = g;
    g->shape = shape;
    g->n = (int)n;
    g->n_parts = (int)n_parts;
    g->n_choices = (int)n_choices;
    g->n_shown = (int)x->params.n;
    g->shown = calloc(n_choices, sizeof *g->shown);
    g->parts = calloc(n_parts, sizeof *g->parts);
    g->choices = calloc(n_choices, sizeof *g->choices);
    if (!g->parts || !g->choices || !g->shown) return qn_refuse_code(&x->refusal, QN_E_NOMEM, NULL);
    for (size_t i = 0; i < n_parts; i++) {
        g->parts[i].x = x;
        qn_buf_init(&g->parts[i].echo, TEXT_MAX);
        qn_lp_init(&g->parts[i].prompt_lp);
        qn_buf_init(&g->parts[i].prompt_list, TEXT_MAX);
        g->parts[i].prompt_lp.as_ids = x->params.tokens_as_ids;
    }
    for (size_t i = 0; i < n_choices; i++) {
        qn_buf_init(&g->choices[i].text, TEXT_MAX);
        qn_lp_init(&g->choices[i].lp);
        qn_buf_init(&g->choices[i].ids, TEXT_MAX);
        qn_buf_init(&g->choices[i].canon, TEXT_MAX);
        g->choices[i].lp.as_ids = x->params.tokens_as_ids;
        g->choices[i].stop_index = -1;
    }
    qn_buf_init(&g->head, 4096);
    qn_buf_init(&g->tail, 4096);
    qn_buf_init(&g->carry, TEXT_MAX);
    return 0;
}

static int fit_part(struct qn_exchange *x, struct qn_part *p) {
    const struct qn_shape *s = x->gen->shape;
    const char *name; /* which spelling was used does not matter here */
    int n_ctx = x->api->info->n_ctx;
    int64_t asked = qn_params_max_tokens(&x->params, &name), rest = (int64_t)n_ctx - (int64_t)p->ids.n;
    if (p->ids.n == 0) return qn_refuse(&x->refusal, 400, "invalid_prompt", s->prompt_member, "The prompt has no tokens.");
    if (rest < (asked == 0 ? 0 : 1))
        return qn_refuse(&x->refusal, 400, "context_length_exceeded", s->prompt_member,
                         "This model's maximum context length is %d tokens, but the prompt has %zu tokens.", n_ctx, p->ids.n);
    if (asked == QN_ABSENT) asked = s->max_default != QN_ABSENT && s->max_default < rest ? s->max_default : rest;
    /* n_predict -1; and a bound beyond the context is a bound all the same: agents send 32,000 to any model, and the
     * finish reason "length" tells when the context's end came first. */
    if (asked < 0 || asked > rest) asked = rest;
    if (x->params.min_tokens > asked)
        return qn_refuse(&x->refusal, 400, "integer_above_max_value", "min_tokens",
                         "Invalid 'min_tokens': at most %lld tokens can be generated.", (long long)asked);
    p->max_tokens = (int)asked;
    return 0;
}

int qn_gen_fit(struct qn_exchange *x) {
    int rc = 0;
    for (int i = 0; rc == 0 && i < x->gen->n_parts; i++) qn_extras_cut(x, &x->gen->parts[i]);
    for (int i = 0; rc == 0 && i < x->gen->n_parts; i++) rc = fit_part(x, &x->gen->parts[i]);
    return rc;
}

/* --- ending ------------------------------------------------------------------------------------------------------- */

void qn_gen_stop(struct qn_exchange *x) {
    struct qn_gen *g = x->gen;
    int ran = g->beam != NULL;
    qn_beam_stop(x);
    for (int i = 0; i < g->n_parts; i++) {
        struct qn_part *p = &g->parts[i];
        ran |= p->st != NULL;
        qn_stream_close(p->st);
        p->st = NULL;
        p->has_ev = 0;
    }
    if (ran && x->cancelled) x->api->metrics.cancelled++;
}

void qn_gen_free(struct qn_exchange *x) {
    struct qn_gen *g = x->gen;
    if (!g) return;
    if (g->parts) qn_gen_stop(x);
    qn_beam_free(x);
    if (g->id[0]) x->api->metrics.open_streams--;
    for (int i = 0; g->parts && i < g->n_parts; i++) {
        free(g->parts[i].ids.v);
        qn_buf_done(&g->parts[i].echo);
        qn_lp_done(&g->parts[i].prompt_lp);
        qn_buf_done(&g->parts[i].prompt_list);
    }
    for (int i = 0; g->choices && i < g->n_choices; i++) {
        qn_buf_done(&g->choices[i].text);
        qn_answer_close(g->choices[i].answer);
        qn_lp_done(&g->choices[i].lp);
        qn_buf_done(&g->choices[i].ids);
        qn_buf_done(&g->choices[i].canon);
    }
    qn_constraint_unref(g->constraint);
    free(g->prediction.v);
    qn_buf_done(&g->head);
    qn_buf_done(&g->tail);
    qn_buf_done(&g->carry);
    free(g->parts);
    free(g->choices);
    free(g->shown);
    free(g);
    x->gen = NULL;
}

/* When to try again: as long as the waiting prompts need at the present rate. */
static int64_t retry_ms(const struct qn_api *a) {
    struct qn_engine_stats s;
    qn_engine_stats(a->opts.engine, &s);
    double ms = s.prefill_tok_s > 0 ? (double)s.waiting_tokens / s.prefill_tok_s * 1e3 : RETRY_MS_MIN;
    return ms < RETRY_MS_MIN ? RETRY_MS_MIN : ms > RETRY_MS_MAX ? RETRY_MS_MAX : (int64_t)ms;
}

void qn_gen_refuse(struct qn_exchange *x, int code, const struct qn_err *err) {
    qn_refuse_code(&x->refusal, code, err);
    if (x->refusal.status == 503 && !x->refusal.retry_ms) x->refusal.retry_ms = retry_ms(x->api);
    qn_gen_stop(x);
    x->gen->over = QN_GEN_CUT;
    qn_exchange_refused(x);
}

/* --- figures ------------------------------------------------------------------------------------------------------ */

static void note_started(struct qn_part *p, const struct qn_event *ev) {
    struct qn_exchange *x = p->x;
    if (p->started) return;
    p->started = 1;
    p->start_ns = qn_clock_ns();
    p->n_cached = ev->n_cached;
    x->gen->n_started++;
    x->facts.cached_tokens += ev->n_cached;
    qn_metrics_add(&x->api->metrics, QN_HIST_QUEUE, (double)(p->start_ns - p->submit_ns) / 1e9, 1);
}

static void note_token(struct qn_part *p, const struct qn_event *ev) {
    struct qn_exchange *x = p->x;
    struct qn_gen *g = x->gen;
    struct qn_choice *c = &g->choices[(p - g->parts) * g->n + ev->branch];
    struct qn_metrics *m = &x->api->metrics;
    int64_t now = qn_clock_ns();
    if (!c->first_ns) {
        c->first_ns = now;
        if (ev->branch == 0) {
            qn_metrics_add(m, QN_HIST_TTFT, (double)(now - x->begin_ns) / 1e9, 1);
            qn_metrics_add(m, QN_HIST_PREFILL, (double)(now - p->start_ns) / 1e9, 1);
        }
        if (!x->facts.ttft_ns) x->facts.ttft_ns = now - x->begin_ns > 0 ? now - x->begin_ns : 1;
    } else {
        qn_metrics_add(m, QN_HIST_ITL, (double)(now - c->last_ns) / 1e9, 1);
    }
    c->last_ns = now;
    c->n_seen++;
    x->facts.output_tokens++;
}

void qn_gen_finished(struct qn_part *p, const struct qn_event *ev) {
    struct qn_exchange *x = p->x;
    struct qn_gen *g = x->gen;
    struct qn_choice *c = &g->choices[(p - g->parts) * g->n + ev->branch];
    struct qn_metrics *m = &x->api->metrics;
    if (c->finished) return;
    c->finished = 1;
    c->reason = ev->reason;
    c->stop_index = ev->stop_index;
    c->stop_id = ev->id;
    c->n_output = ev->n_output;
    p->n_finished++;
    g->n_finished++;
    g->n_accepted += ev->n_accepted;
    g->n_rejected += ev->n_rejected;
    g->n_thinking += ev->n_thinking;
    if (g->n_finished == g->n_choices) x->facts.finish = ev->reason == QN_FINISH_LENGTH ? "length" : "stop";
    int64_t last = c->last_ns ? c->last_ns : qn_clock_ns();
    qn_metrics_add(m, QN_HIST_E2E, (double)(last - x->begin_ns) / 1e9, 1);
    qn_metrics_add(m, QN_HIST_INFERENCE, (double)(last - p->start_ns) / 1e9, 1);
    qn_metrics_add(m, QN_HIST_GENERATION, ev->n_output, 1);
    if (c->first_ns) qn_metrics_add(m, QN_HIST_DECODE, (double)(last - c->first_ns) / 1e9, 1);
    if (ev->n_output > 1 && c->first_ns)
        qn_metrics_add(m, QN_HIST_TPOT, (double)(last - c->first_ns) / 1e9 / (ev->n_output - 1), 1);
}

void qn_gen_part_over(struct qn_part *p) {
    if (p->n_finished < p->x->gen->n) return;
    qn_stream_close(p->st);
    p->st = NULL;
}

int qn_gen_next(struct qn_part *p, struct qn_event *ev) {
    if (!p->st || !qn_stream_next(p->st, ev)) return 0;
    if (ev->kind == QN_EV_STARTED)
        note_started(p, ev);
    else if (ev->kind == QN_EV_TOKEN)
        note_token(p, ev);
    return 1;
}

/* --- whole answers ------------------------------------------------------------------------------------------------ */

void qn_gen_usage(const struct qn_gen *g, struct qn_buf *out) {
    long long prompt = 0, cached = 0, made = 0;
    for (int i = 0; i < g->n_parts; i++) {
        prompt += (long long)g->parts[i].ids.n;
        cached += g->parts[i].n_cached;
    }
    for (int i = 0; i < g->n_choices; i++) made += g->choices[i].finished ? g->choices[i].n_output : g->choices[i].n_seen;
    qn_buf_printf(out,
                  "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,\"prompt_tokens_details\":{\"cached_"
                  "tokens\":%lld},"
                  "\"completion_tokens_details\":{\"reasoning_tokens\":%d,\"accepted_prediction_tokens\":%d,\"rejected_prediction_"
                  "tokens\":%d}}",
                  prompt, made, prompt + made, cached, g->n_thinking, g->n_accepted, g->n_rejected);
}

void qn_gen_reason(const struct qn_exchange *x, const struct qn_choice *c, struct qn_buf *out) {
    const struct qn_params *p = &x->params;
    const char *called = c->answer ? qn_answer_reason(c->answer, c->reason) : NULL;
    qn_buf_printf(out, "\"finish_reason\":\"%s\",\"stop_reason\":", c->reason == QN_FINISH_LENGTH ? "length" : called ? called : "stop");
    if (c->reason == QN_FINISH_STOP_STRING && c->stop_index >= 0 && c->stop_index < p->n_stops) {
        qn_json_string(out, p->stop[c->stop_index], p->stop_n[c->stop_index]);
        return;
    }
    if (c->reason == QN_FINISH_STOP_REGEX && c->stop_index >= 0 && c->stop_index < p->n_stop_regex) {
        const json_t *v = p->stop_regex_text[c->stop_index];
        qn_json_string(out, json_string_value(v), json_string_length(v));
        return;
    }
    int own = 0;
    for (int i = 0; c->reason == QN_FINISH_STOP && i < p->n_stop_ids; i++) own |= p->stop_ids[i] == c->stop_id;
    if (own)
        qn_buf_printf(out, "%u", c->stop_id);
    else
        qn_buf_puts(out, c->reason == QN_FINISH_REPETITION ? "\"repetition\"" : "null");
}

/* By a bound, a stop string or a stop id of the request an answer may end anywhere. */
static int is_complete(const struct qn_params *p, const struct qn_choice *c) {
    for (int i = 0; i < p->n_stop_ids; i++)
        if (p->stop_ids[i] == c->stop_id) return 0;
    return c->reason == QN_FINISH_STOP && !(c->answer && qn_answer_reason(c->answer, c->reason));
}

int qn_gen_check(struct qn_exchange *x, const struct qn_choice *c) {
    const char *text = c->text.p ? c->text.p : "";
    size_t n = c->text.n;
    char why[128];
    if (x->form.form == QN_FORM_FREE || c->text.failed || !is_complete(&x->params, c)) return 0;
    if (c->answer && qn_answer_content(c->answer, &text, &n) < 0) return 0; /* said elsewhere: no memory */
    if (x->thought.on && !x->thought.apart) { /* thoughts stand before it */
        size_t skip = qn_call_thought_end(&x->api->marks, text, n);
        text += skip;
        n -= skip;
    }
    if (qn_answer_form_check(&x->form, text, n, why, sizeof why)) return 0;
    x->api->metrics.invalid_outputs++;
    qn_refuse(&x->refusal, 500, "invalid_structured_output", x->form.path, "The answer is not of the form that '%s' asks for: %s.", x->form.path, why);
    return QN_E_INTERNAL;
}

void qn_gen_explain(struct qn_exchange *x, int code) {
    const char *path = x->form.form == QN_FORM_FREE ? "tools" : x->form.path;
    if (code == QN_E_LIMIT)
        qn_refuse(&x->refusal, 500, "structured_output_limit", path, "What '%s' asks for took too much memory or work to follow this answer.", path);
    if (code == QN_E_RANGE)
        qn_refuse(&x->refusal, 400, "invalid_value", NULL, "No token is left to go on with: bad_words, allowed_token_ids, min_tokens and the form of the answer, as far as they "
                  "are set, rule out each other's.");
}

/* Choice i of those that are shown. */
static void put_choice(const struct qn_exchange *x, int i, struct qn_buf *out) {
    const struct qn_gen *g = x->gen;
    const struct qn_choice *c = &g->choices[g->shown[i]];
    const struct qn_part *p = &g->parts[i / g->n_shown];
    qn_buf_printf(out, "%s{\"index\":%d", i ? "," : "", i);
    g->shape->whole(c, p, out);
    qn_buf_puts(out, ",\"logprobs\":");
    if (x->params.n_logprobs >= 0)
        qn_lp_write(&p->prompt_lp, &c->lp, g->shape->chat, out);
    else
        qn_buf_puts(out, "null");
    qn_buf_putc(out, ',');
    qn_gen_reason(x, c, out);
    qn_extras_choice(x, p, c, out);
    qn_buf_putc(out, '}');
    if (c->ids.failed || p->prompt_list.failed || c->text.failed || qn_lp_failed(&c->lp) || qn_lp_failed(&p->prompt_lp)) out->failed = QN_E_NOMEM;
}

void qn_gen_whole(struct qn_exchange *x) {
    struct qn_gen *g = x->gen;
    struct qn_buf *out = &x->out;
    qn_buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", g->id, g->shape->object,
                  (long long)g->created_s);
    qn_json_string(out, x->api->model_name, strlen(x->api->model_name));
    qn_buf_puts(out, ",\"choices\":[");
    qn_select_pick(x);
    for (int i = 0; i < g->n_parts * g->n_shown; i++) put_choice(x, i, out);
    qn_buf_puts(out, "],\"usage\":");
    qn_gen_usage(g, out);
    qn_buf_printf(out, ",\"system_fingerprint\":\"%s\"", x->api->fingerprint);
    char *meta = x->params.metadata ? json_dumps(x->params.metadata, JSON_COMPACT) : NULL;
    if (meta) {
        qn_buf_puts(out, ",\"metadata\":");
        qn_buf_puts(out, meta);
        free(meta);
    }
    qn_select_write(x, out);
    qn_extras_whole(x, out);
    qn_buf_putc(out, '}');
    g->over = QN_GEN_DONE;
    qn_exchange_send_out(x);
}

static void gather_text(struct qn_choice *c, const struct qn_event *ev, const enum qn_finish *end) {
    if (!c->answer) {
        qn_buf_put(&c->text, ev->text, ev->n_text);
        return;
    }
    if (qn_answer_feed(c->answer, ev->text, ev->n_text, end) < 0) c->text.failed = QN_E_NOMEM;
    qn_answer_gather(c->answer);
}

static void gather(struct qn_part *p, const struct qn_event *ev) {
    struct qn_exchange *x = p->x;
    struct qn_gen *g = x->gen;
    struct qn_choice *c = &g->choices[(p - g->parts) * g->n + ev->branch];
    int hide = x->params.skip_special_tokens;
    struct qn_logprobs at_most;
    switch (ev->kind) {
    case QN_EV_PROMPT:
        if (!ev->lp) break;
        qn_extras_prompt(x, p, ev);
        if (x->params.echo <= 0 || x->params.n_logprobs < 0) break;
        at_most = *ev->lp; /* more of them were asked for in prompt_logprobs */
        if (at_most.n_top > (uint32_t)x->params.n_logprobs) at_most.n_top = (uint32_t)x->params.n_logprobs;
        qn_lp_add(&p->prompt_lp, x->api->tok, g->shape->chat, ev->id, &at_most, c->chars);
        for (int i = 0; i < g->n; i++) c[i].chars += qn_lp_chars(x->api->tok, ev->id, 0);
        break;
    case QN_EV_TOKEN:
        qn_extras_token(x, c, ev);
        gather_text(c, ev, NULL);
        if (ev->lp && x->params.n_logprobs >= 0) {
            qn_lp_add(&c->lp, x->api->tok, g->shape->chat, ev->id, ev->lp, c->chars);
            c->chars += qn_lp_chars(x->api->tok, ev->id, hide);
        }
        break;
    case QN_EV_FINISHED:
        gather_text(c, ev, &ev->reason);
        qn_gen_finished(p, ev);
        qn_gen_check(x, c);
        if (qn_select_finished(x, c) < 0) c->text.failed = QN_E_NOMEM;
        break;
    default: break;
    }
}

static void gather_all(struct qn_part *p) {
    struct qn_exchange *x = p->x;
    struct qn_event ev;
    while (qn_gen_next(p, &ev)) {
        if (ev.kind == QN_EV_FAILED) {
            qn_gen_explain(x, ev.code);
            qn_gen_refuse(x, ev.code, NULL);
            return;
        }
        gather(p, &ev);
        if (x->refusal.status) {
            qn_gen_refuse(x, QN_E_INTERNAL, NULL);
            return;
        }
    }
    qn_gen_part_over(p);
    if (!qn_select_over(x)) return;
    if (x->gen->n_finished < x->gen->n_choices) x->facts.finish = "stop"; /* the others need not */
    qn_gen_stop(x);
    qn_gen_whole(x);
}

/* --- news from the engine ----------------------------------------------------------------------------------------- */

/* Streamed, before the status: the first record decides it. */
static void begin_stream(struct qn_part *p) {
    struct qn_exchange *x = p->x;
    struct qn_event ev;
    if (!qn_gen_next(p, &ev)) return;
    if (ev.kind == QN_EV_FAILED) {
        qn_gen_explain(x, ev.code);
        qn_gen_refuse(x, ev.code, NULL);
        return;
    }
    if (ev.kind != QN_EV_STARTED) { /* keep it for the reader */
        p->ev = ev;
        p->has_ev = 1;
    }
    x->gen->last_write_ns = qn_clock_ns();
    qn_exchange_streamed(x);
}

static void on_news(void *user, struct qn_stream *st) {
    struct qn_part *p = user;
    struct qn_exchange *x = p->x;
    if (x->cancelled || x->gen->over || p->st != st) return;
    if (!x->params.stream) {
        gather_all(p);
        return;
    }
    if (!x->replied) begin_stream(p);
    if (x->cancelled) return; /* a server without memory for the reply cancels from inside it */
    if (x->replied && !x->gen->over && (p->has_ev || qn_stream_ready(p->st))) x->sink.ready(x->sink_ctx);
}

/* --- submitting --------------------------------------------------------------------------------------------------- */

void qn_gen_job(struct qn_exchange *x, struct qn_part *p, struct qn_job *out) {
    static const uint64_t salt_key[2] = {0x71756572, 0x73616c74};
    const struct qn_params *q = &x->params;
    struct qn_gen *g = x->gen;
    struct qn_job job = {.prompt = p->ids.v, .n_prompt = p->ids.n, .max_tokens = p->max_tokens, .on_news = on_news, .user = p};
    qn_params_job(q, &job);
    if (g->shape->chat) qn_thinking_job(x, &job);
    /* Each prompt of a batch has its own absent seed, or equal prompts would get equal answers. */
    int drawn = q->seed == QN_ABSENT || q->seed == -1;
    job.sampling.seed = drawn ? qn_api_draw(x->api, 2 + (uint64_t)(p - g->parts)) : (uint64_t)q->seed;
    job.salt = q->cache_salt.p ? qn_siphash(salt_key, q->cache_salt.p, q->cache_salt.n) | 1 : 0;
    job.deadline_ns = q->deadline_ms ? x->begin_ns + q->deadline_ms * QN_MS : 0;
    job.constraint = g->constraint;
    job.speculate = job.n_branches == 1;
    job.prediction = g->prediction.v;
    job.n_prediction = g->prediction.n;
    *out = job;
}

static int submit(struct qn_exchange *x, struct qn_part *p, struct qn_err *err) {
    struct qn_job job;
    qn_gen_job(x, p, &job);
    p->submit_ns = qn_clock_ns();
    return qn_engine_submit(x->api->opts.engine, &job, &p->st, err);
}

static void make_id(struct qn_exchange *x) {
    struct qn_api *a = x->api;
    struct qn_gen *g = x->gen;
    a->n_ids++;
    if (a->plain_ids)
        snprintf(g->id, sizeof g->id, "%s%024llu", g->shape->id_prefix, (unsigned long long)a->n_ids);
    else
        snprintf(g->id, sizeof g->id, "%s%016llx%08llx", g->shape->id_prefix, (unsigned long long)qn_api_draw(a, 0),
                 (unsigned long long)(qn_api_draw(a, 1) & 0xFFFFFFFFu));
    g->created_s = qn_clock_wall_ns() / QN_S;
    a->metrics.open_streams++;
}

void qn_gen_start(struct qn_exchange *x) {
    struct qn_gen *g = x->gen;
    struct qn_metrics *m = &x->api->metrics;
    struct qn_err err = {0};
    make_id(x);
    for (int i = 0; i < g->n_choices; i++)
        if (g->choices[i].answer) qn_answer_begin(g->choices[i].answer, qn_api_draw(x->api, CALL_LANE + (uint64_t)i));
    int rc = x->params.stream ? qn_gen_chunks_open(x) : 0;
    for (int i = 0; rc == 0 && i < g->n_parts; i++) {
        rc = x->params.use_beam_search ? qn_beam_start(x, &err) : submit(x, &g->parts[i], &err);
        x->facts.prompt_tokens += (int)g->parts[i].ids.n;
    }
    if (rc < 0) {
        qn_gen_refuse(x, rc, &err);
        return;
    }
    m->requests++;
    for (int i = 0; i < g->n_parts; i++) {
        qn_metrics_add(m, QN_HIST_PROMPT, (double)g->parts[i].ids.n, 1);
        qn_metrics_add(m, QN_HIST_PARAM_N, g->n, 1);
        qn_metrics_add(m, QN_HIST_PARAM_MAX, g->parts[i].max_tokens, 1);
    }
}

void qn_gen_tick(struct qn_exchange *x, int64_t now_ns) {
    struct qn_gen *g = x->gen;
    if (!x->params.stream || !x->replied || x->refusal.status || g->want_ping) return;
    if (now_ns - g->last_write_ns < x->api->opts.ping_ms * QN_MS) return;
    g->want_ping = 1;
    x->sink.ready(x->sink_ctx);
}
