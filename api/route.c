/* Method and path to a handler row. Paths are compared byte by byte as they came: nothing is unescaped, folded or
 * normalised, so that no two spellings reach one handler. */
#include <stdio.h>
#include <string.h>

#include "api/exchange.h"

#define GEN(path, name, prepare)                                                                                                 \
    { "POST", path, name, prepare, qn_gen_start }
#define TOOL(path, name, prepare)                                                                                                \
    { "POST", path, name, prepare, qn_exchange_send_out }
#define GET(path, name, start)                                                                                                   \
    { "GET", path, name, NULL, start }

static const struct qn_route routes[] = {
    GEN("/v1/chat/completions", "chat", qn_chat_prepare),
    GEN("/chat/completions", "chat", qn_chat_prepare),
    GEN("/v1/completions", "completions", qn_completions_prepare),
    GEN("/completions", "completions", qn_completions_prepare),
    TOOL("/tokenize", "tokenize", qn_tokenize_prepare),
    TOOL("/detokenize", "detokenize", qn_detokenize_prepare),
    TOOL("/apply-template", "apply-template", qn_apply_template_prepare),
    GET("/v1/models", "models", qn_models_start),
    GET("/models", "models", qn_models_start),
    GET("/v1/models/*", "model", qn_model_start),
    GET("/models/*", "model", qn_model_start),
    GET("/health", "health", qn_health_start),
    GET("/v1/health", "health", qn_health_start),
    GET("/readyz", "health", qn_health_start),
    GET("/ready", "health", qn_health_start),
    GET("/ping", "health", qn_health_start),
    GET("/livez", "live", qn_live_start),
    GET("/live", "live", qn_live_start),
    GET("/version", "version", qn_version_start),
    GET("/metrics", "metrics", qn_metrics_start),
};

const struct qn_route *qn_route_at(int i) {
    return i >= 0 && i < (int)(sizeof routes / sizeof *routes) ? &routes[i] : NULL;
}

/* 1 when the path of n bytes is r's; *rest is then where its argument begins. */
static int matches(const struct qn_route *r, const char *path, size_t n, const char **rest) {
    size_t k = strlen(r->path);
    if (r->path[k - 1] != '*') return n == k && !memcmp(path, r->path, k);
    *rest = path + k - 1;
    return n >= k && !memcmp(path, r->path, k - 1);
}

static int method_fits(const struct qn_route *r, const char *method) {
    return !strcmp(method, r->method) || (!strcmp(method, "HEAD") && !strcmp(r->method, "GET"));
}

const struct qn_route *qn_route_find(const char *method, const char *target, struct qn_exchange *x, char *allow) {
    size_t n = strcspn(target, "?");
    const struct qn_route *other = NULL;
    char quoted[QN_QUOTE_MAX + 4];
    for (int i = 0; qn_route_at(i); i++) {
        const struct qn_route *r = qn_route_at(i);
        const char *rest = target + n;
        if (!matches(r, target, n, &rest)) continue;
        if (method_fits(r, method)) {
            snprintf(x->arg, sizeof x->arg, "%.*s", (int)(target + n - rest), rest);
            return r;
        }
        other = r;
    }
    if (other) {
        snprintf(allow, 64, "%s", !strcmp(other->method, "GET") ? "GET, HEAD" : other->method);
        qn_refuse(&x->refusal, 405, "method_not_allowed", NULL, "Method not allowed: this path takes %s.", allow);
    } else {
        qn_refuse(&x->refusal, 404, "not_found", NULL,
                  "No such path: '%s'. GET /v1/models lists the models; POST /v1/chat/completions talks to one.",
                  qn_quote(quoted, target, n));
    }
    return NULL;
}
