/* GET /v1/models and /v1/models/{id}: one model, in OpenAI's shape with the members that routers and UIs read; in
 * Anthropic's when its SDK asks. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/exchange.h"
#include "api/json_out.h"

static void put_str(struct qn_buf *out, const char *s) {
    qn_json_string(out, s, strlen(s));
}

static void put_model(const struct qn_api *a, struct qn_buf *out) {
    const struct qn_engine_info *i = a->info;
    qn_buf_puts(out, "{\"id\":");
    put_str(out, a->model_name);
    qn_buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"quern\",\"root\":", (long long)a->created_s);
    put_str(out, a->model_name);
    qn_buf_printf(
        out,
        ",\"parent\":null,\"max_model_len\":%d,\"context_length\":%d,\"permission\":[],"
        "\"architecture\":{\"input_modalities\":[\"text\"],\"output_modalities\":[\"text\"]},\"status\":{\"value\":\"loaded\"},"
        "\"meta\":{\"n_vocab\":%u,\"n_ctx\":%d,\"n_ctx_train\":%d,\"n_embd\":%d,\"n_params\":%llu,\"size\":%llu}}",
        i->n_ctx, i->n_ctx, i->n_vocab, i->n_ctx, i->n_ctx_train, i->d_model, (unsigned long long)i->n_params,
        (unsigned long long)i->weight_bytes);
}

static void put_anthropic(const struct qn_api *a, struct qn_buf *out) {
    char date[32];
    time_t t = (time_t)a->created_s;
    struct tm tm;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
    qn_buf_puts(out, "{\"type\":\"model\",\"id\":");
    put_str(out, a->model_name);
    qn_buf_puts(out, ",\"display_name\":");
    put_str(out, a->model_name);
    qn_buf_printf(out, ",\"created_at\":\"%s\"}", date);
}

void qn_models_start(struct qn_exchange *x) {
    const struct qn_api *a = x->api;
    qn_buf_puts(&x->out, x->anthropic ? "{\"data\":[" : "{\"object\":\"list\",\"data\":[");
    if (x->anthropic) {
        put_anthropic(a, &x->out);
        qn_buf_puts(&x->out, "],\"has_more\":false,\"first_id\":");
        put_str(&x->out, a->model_name);
        qn_buf_puts(&x->out, ",\"last_id\":");
        put_str(&x->out, a->model_name);
        qn_buf_puts(&x->out, "}");
    } else {
        put_model(a, &x->out);
        qn_buf_puts(&x->out, "]}");
    }
    qn_exchange_send_out(x);
}

/* SDKs escape the id in the path ("org%2Fname"). Returns the length, or 0 when the escape is broken or too long. */
static size_t unescape(const char *s, char *to, size_t room) {
    size_t n = 0;
    for (; *s && n < room; s++) {
        unsigned hex;
        if (*s != '%')
            to[n++] = *s;
        else if (strspn(s + 1, "0123456789abcdefABCDEF") >= 2 && sscanf(s + 1, "%2x", &hex) == 1) {
            to[n++] = (char)hex;
            s += 2;
        } else
            return 0;
    }
    return *s ? 0 : n;
}

void qn_model_start(struct qn_exchange *x) {
    const char *name = x->api->model_name;
    char id[sizeof x->arg], quoted[QN_QUOTE_MAX + 4];
    size_t n = unescape(x->arg, id, sizeof id);
    if (n != strlen(name) || memcmp(id, name, n)) {
        qn_refuse(&x->refusal, 404, "model_not_found", "model", "The model '%s' does not exist; this server has '%s'.",
                  qn_quote(quoted, x->arg, strlen(x->arg)), name);
        qn_exchange_refused(x);
        return;
    }
    if (x->anthropic)
        put_anthropic(x->api, &x->out);
    else
        put_model(x->api, &x->out);
    qn_exchange_send_out(x);
}
