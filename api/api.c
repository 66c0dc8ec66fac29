/* Exchanges as the server drives them: head, body, parts off the loop, reply, close. What is answered is the handlers'. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/exchange.h"
#include "api/gen.h"
#include "api/json_guard.h"
#include "engine/base/clock.h"
#include "engine/base/hash.h"
#include "engine/base/rng.h"

enum { INLINE_BYTES_MAX = 64 * 1024, N_MAX_DEFAULT = 16, IGNORED_MAX = 1024, HEADERS_MAX = 12 };
static const size_t BODY_DEFAULT = 8u << 20, OUT_MAX = 256u << 20;
static const int64_t PING_DEFAULT = 15000;

/* --- the api ------------------------------------------------------------------------------------------------------ */

static int open_names(struct qn_api *a, struct qn_err *err) {
    const char *name = a->opts.model_name ? a->opts.model_name : a->info->model_name;
    a->model_name = strdup(name && name[0] ? name : "model");
    if (!a->model_name) return qn_fail(err, QN_E_NOMEM, "no memory for the api");
    static const uint64_t key[2] = {0x717565726e, 0x6670};
    char text[512];
    int n = snprintf(text, sizeof text, "%s/%s/%llu/%u/%s", a->opts.version ? a->opts.version : "",
                     a->info->arch ? a->info->arch : "", (unsigned long long)a->info->n_params, a->info->n_vocab,
                     a->info->device ? a->info->device : "");
    uint64_t h = qn_siphash(key, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
    snprintf(a->fingerprint, sizeof a->fingerprint, "fp_%010llx", (unsigned long long)(h & 0xFFFFFFFFFFULL));
    return qn_rng_bytes(a->id_key, sizeof a->id_key) < 0 ? qn_fail(err, QN_E_IO, "getrandom failed") : 0;
}

int qn_api_open(struct qn_api **out, const struct qn_api_opts *o, const struct qn_api_host *host, struct qn_err *err) {
    struct qn_api *a = calloc(1, sizeof *a);
    if (!a) return qn_fail(err, QN_E_NOMEM, "no memory for the api");
    json_object_seed(0); /* before any thread parses */
    a->opts = *o;
    if (host) a->host = *host;
    a->has_host = host != NULL;
    if (!a->opts.body_bytes_max) a->opts.body_bytes_max = BODY_DEFAULT;
    if (!a->opts.n_max) a->opts.n_max = N_MAX_DEFAULT;
    if (!a->opts.ping_ms) a->opts.ping_ms = PING_DEFAULT;
    a->info = qn_engine_info(o->engine);
    a->tok = qn_engine_tokenizer(o->engine);
    a->created_s = qn_clock_wall_ns() / QN_S;
    a->bounds = (struct qn_bounds){a->tok, a->info->n_vocab, a->info->n_ctx,
                                   a->opts.n_max < QN_N_HARD_MAX ? a->opts.n_max : QN_N_HARD_MAX};
    if (a->info->max_seqs > 0 && a->bounds.n_max > a->info->max_seqs) a->bounds.n_max = a->info->max_seqs;
    qn_metrics_init(&a->metrics);
    const char *text = o->chat_template ? o->chat_template : a->info->chat_template.p;
    size_t n = o->chat_template ? strlen(o->chat_template) : a->info->chat_template.n;
    int rc = open_names(a, err);
    if (rc == 0) rc = qn_template_open(&a->tmpl, text, n, a->tok, err);
    if (rc == 0) rc = qn_call_format_find(&a->marks, a->tmpl, a->tok, o->tool_format, err);
    if (rc == 0) rc = qn_constraints_open(&a->constraints);
    if (rc == 0) a->n_shown = qn_call_shown(&a->marks, a->tok, a->shown, QN_SHOWN_MAX);
    if (rc < 0)
        qn_api_close(a);
    else
        *out = a;
    return rc;
}

void qn_api_close(struct qn_api *a) {
    if (!a) return;
    qn_template_close(a->tmpl);
    qn_constraints_close(a->constraints);
    free(a->model_name);
    free(a);
}

uint64_t qn_api_draw(struct qn_api *a, uint64_t lane) {
    uint64_t what[2] = {a->n_ids, lane};
    return qn_siphash(a->id_key, what, sizeof what);
}

/* --- replies ------------------------------------------------------------------------------------------------------ */

struct headers {
    struct qn_header h[HEADERS_MAX];
    int n;
};

static void add(struct headers *hs, const char *name, const char *value) {
    if (hs->n < HEADERS_MAX) hs->h[hs->n++] = (struct qn_header){name, value};
}

static void reply(struct qn_exchange *x, int status, struct headers *hs, char *body, size_t n_body) {
    add(hs, "x-request-id", x->request_id);
    if (x->ignored.n && !x->ignored.failed) add(hs, "Quern-Ignored", x->ignored.p);
    struct qn_reply r = {.status = status, .headers = hs->h, .n_headers = hs->n, .body = body, .n_body = n_body};
    x->replied = 1;
    x->sink.reply(x->sink_ctx, &r);
}

void qn_exchange_whole(struct qn_exchange *x, int status, struct qn_buf *out, const char *type) {
    if (x->replied || x->cancelled) {
        qn_buf_done(out);
        return;
    }
    size_t n = 0;
    char *body = qn_buf_take(out, &n);
    if (!body) {
        /* The last thing to try when there is no memory: a constant. */
        static const char oom[] = "{\"error\":{\"message\":\"The server has no memory for this request "
                                  "now.\",\"type\":\"server_error\",\"param\":null,\"code\":\"overloaded\"}}";
        body = strdup(oom);
        n = sizeof oom - 1;
        status = 503;
        type = "application/json";
    }
    struct headers hs = {.n = 0};
    add(&hs, "Content-Type", type);
    reply(x, status, &hs, body, n);
}

static void refused_with(struct qn_exchange *x, const char *allow) {
    if (x->replied || x->cancelled) return;
    const struct qn_refusal *f = &x->refusal;
    struct qn_buf out;
    struct headers hs = {.n = 0};
    char s[24], ms[24];
    qn_buf_init(&out, OUT_MAX);
    qn_api_error_body(&out, f->status, f->code, f->param, f->message);
    add(&hs, "Content-Type", "application/json");
    if (allow && allow[0]) add(&hs, "Allow", allow);
    if (f->retry_ms > 0) {
        snprintf(s, sizeof s, "%lld", (long long)((f->retry_ms + 999) / 1000));
        snprintf(ms, sizeof ms, "%lld", (long long)f->retry_ms);
        add(&hs, "Retry-After", s);
        add(&hs, "Retry-After-Ms", ms);
    }
    x->facts.finish = f->code;
    qn_metrics_refused(&x->api->metrics, f->status);
    size_t n = 0;
    char *body = qn_buf_take(&out, &n);
    reply(x, f->status, &hs, body ? body : strdup("{}"), body ? n : 2);
}

void qn_exchange_refused(struct qn_exchange *x) {
    refused_with(x, NULL);
}

void qn_exchange_streamed(struct qn_exchange *x) {
    if (x->replied || x->cancelled) return;
    struct headers hs = {.n = 0};
    add(&hs, "Content-Type", "text/event-stream; charset=utf-8");
    add(&hs, "Cache-Control", "no-cache");
    add(&hs, "X-Accel-Buffering", "no");
    reply(x, 200, &hs, NULL, 0);
}

void qn_exchange_send_out(struct qn_exchange *x) {
    qn_exchange_whole(x, 200, &x->out, x->out_type ? x->out_type : "application/json");
}

/* --- head and body ------------------------------------------------------------------------------------------------ */

/* Anything but JSON is refused, nothing said included: a web page can make a browser send the other types, or none, to a
 * local server without asking. */
static int is_json(const char *type) {
    if (!type) return 0;
    size_t n = strcspn(type, "; \t");
    const char *rest = type + n + strspn(type + n, "; \t");
    if (n != 16 || strncasecmp(type, "application/json", n)) return 0;
    if (!*rest) return 1;
    if (strncasecmp(rest, "charset=", 8)) return 1;
    rest += 8;
    if (*rest == '"') rest++;
    return !strncasecmp(rest, "utf-8", 5) || !strncasecmp(rest, "utf8", 4);
}

static int check_head(struct qn_exchange *x, const struct qn_head *head) {
    if (strcmp(x->route->method, "POST")) return 0;
    const char *type = head->header ? head->header(head->header_ctx, "content-type") : NULL;
    if (!is_json(type))
        return qn_refuse(&x->refusal, 415, "unsupported_media_type", NULL, "Content-Type must be application/json.");
    if (head->content_length > 0 && (uint64_t)head->content_length > x->api->opts.body_bytes_max)
        return qn_refuse(&x->refusal, 413, "request_too_large", NULL, "The body is larger than %zu bytes.",
                         x->api->opts.body_bytes_max);
    return 0;
}

struct qn_exchange *qn_api_begin(struct qn_api *a, const struct qn_head *head, const struct qn_sink *sink, void *sink_ctx) {
    struct qn_exchange *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    x->api = a;
    x->sink = *sink;
    x->sink_ctx = sink_ctx;
    x->begin_ns = qn_clock_ns();
    snprintf(x->request_id, sizeof x->request_id, "%s", head->request_id ? head->request_id : "");
    qn_buf_init(&x->body, a->opts.body_bytes_max);
    qn_buf_init(&x->ignored, IGNORED_MAX);
    qn_buf_init(&x->out, OUT_MAX);
    x->facts.route = "none";
    x->facts.finish = "";
    char allow[64] = "";
    x->route = qn_route_find(head->method, head->target, x, allow);
    if (x->route) {
        x->facts.route = x->route->name;
        x->anthropic = head->header && head->header(head->header_ctx, "anthropic-version") != NULL;
    }
    if (!x->route || check_head(x, head) < 0) refused_with(x, allow);
    return x;
}

int qn_exchange_feed(struct qn_exchange *x, const char *p, size_t n) {
    if (x->replied || x->cancelled) return x->refusal.status == 413 ? QN_E_LIMIT : 0;
    if (!x->route->prepare) return 0; /* a GET with a body: nobody reads it */
    qn_buf_put(&x->body, p, n);
    if (!x->body.failed) return 0;
    int rc = x->body.failed;
    if (rc == QN_E_LIMIT)
        qn_refuse(&x->refusal, 413, "request_too_large", NULL, "The body is larger than %zu bytes.", x->api->opts.body_bytes_max);
    else
        qn_refuse_code(&x->refusal, rc, NULL);
    qn_exchange_refused(x);
    return QN_E_LIMIT;
}

int qn_exchange_parse(struct qn_exchange *x, unsigned on) {
    struct qn_refusal *r = &x->refusal;
    int rc = qn_json_parse(&x->json, x->body.p, x->body.n, r);
    if (rc == 0) rc = qn_params_read(&x->params, x->json, on, &x->api->bounds, &x->ignored, r);
    if (rc < 0) return rc;
    const struct qn_chars *m = &x->params.model;
    char quoted[QN_QUOTE_MAX + 4];
    if (!m->p || (m->n == strlen(x->api->model_name) && !memcmp(m->p, x->api->model_name, m->n))) return 0;
    return qn_refuse(r, 404, "model_not_found", "model", "The model '%s' does not exist; this server has '%s'.",
                     qn_quote(quoted, m->p, m->n), x->api->model_name);
}

/* --- the work ----------------------------------------------------------------------------------------------------- */

static void prepare(void *arg) {
    struct qn_exchange *x = arg;
    x->route->prepare(x);
}

static void prepared(void *arg) {
    struct qn_exchange *x = arg;
    x->offloaded = 0;
    if (x->closing) {
        qn_exchange_close(x);
        return;
    }
    if (x->cancelled) return;
    if (x->refusal.status)
        qn_exchange_refused(x);
    else
        x->route->start(x);
}

/* What would hold the loop up: a long body, or one that may ask for a grammar to be compiled. */
static int is_long(const struct qn_exchange *x) {
    return x->body.n > INLINE_BYTES_MAX || (x->body.n && qn_answer_form_likely(x->body.p, x->body.n));
}

void qn_exchange_end(struct qn_exchange *x) {
    if (x->replied || x->cancelled || x->ended) return;
    x->ended = 1;
    if (!x->route->prepare) {
        x->route->start(x);
    } else if (x->sink.offload && is_long(x)) {
        x->offloaded = 1;
        x->sink.offload(x->sink_ctx, prepare, prepared, x);
    } else {
        prepare(x);
        prepared(x);
    }
}

long qn_exchange_read(struct qn_exchange *x, char *to, size_t max) {
    return x->gen && !x->cancelled ? qn_gen_read(x, to, max) : QN_READ_ABORT;
}

void qn_exchange_tick(struct qn_exchange *x, int64_t now_ns) {
    if (x->gen && !x->cancelled && !x->offloaded) qn_gen_tick(x, now_ns);
}

void qn_exchange_cancel(struct qn_exchange *x) {
    if (x->cancelled) return;
    x->cancelled = 1;
    x->facts.finish = "cancelled";
    if (x->gen && !x->offloaded) qn_gen_stop(x);
}

void qn_exchange_close(struct qn_exchange *x) {
    if (!x) return;
    if (x->offloaded) { /* freed when the work has come back */
        x->closing = 1;
        x->cancelled = 1;
        return;
    }
    qn_gen_free(x);
    qn_answer_form_done(&x->form);
    qn_params_done(&x->params);
    qn_tools_done(&x->tools);
    qn_thinking_done(&x->thought);
    json_decref(x->json);
    qn_buf_done(&x->body);
    qn_buf_done(&x->ignored);
    qn_buf_done(&x->out);
    free(x);
}

void qn_exchange_facts(const struct qn_exchange *x, struct qn_exchange_facts *out) {
    *out = x->facts;
}
