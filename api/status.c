/* Health that tells progress, and the version.
 *
 * A server that answers 200 while its engine hangs keeps getting work. So readiness falls when work waits and no step has
 * ended for longer than a slow step may take, and while draining; liveness falls later, since the cure is a restart. */
#include <string.h>

#include "api/exchange.h"
#include "api/json_out.h"
#include "engine/base/clock.h"

enum { READY_STALL_S = 15, LIVE_STALL_S = 120, STALL_STEPS = 20 };

/* How long work has been waiting for a step beyond what is normal, in ns; 0: all is well. */
static int64_t stalled_ns(const struct qn_api *a, int64_t limit_ns) {
    struct qn_engine_stats s;
    qn_engine_stats(a->opts.engine, &s);
    if (!s.busy_since_ns) return 0;
    int64_t age = qn_clock_ns() - s.busy_since_ns, most = limit_ns + (int64_t)(s.step_ms_mean * STALL_STEPS * 1e6);
    return age > most ? age : 0;
}

static int stalled(const struct qn_api *a, int64_t limit_ns, struct qn_refusal *r) {
    int64_t ns = stalled_ns(a, limit_ns);
    if (!ns) return 0;
    r->retry_ms = 5000;
    return qn_refuse(r, 503, "stalled", NULL, "Work waits, but no step has ended for %lld s.", (long long)(ns / QN_S));
}

int qn_health(const struct qn_api *a, struct qn_refusal *r) {
    if (a->has_host && a->host.draining && a->host.draining(a->host.ctx))
        return qn_refuse(r, 503, "draining", NULL, "The server is shutting down.");
    return stalled(a, READY_STALL_S * QN_S, r);
}

static void answer(struct qn_exchange *x, int rc) {
    if (rc < 0) {
        qn_exchange_refused(x);
        return;
    }
    qn_buf_puts(&x->out, "{\"status\":\"ok\"}");
    qn_exchange_send_out(x);
}

void qn_health_start(struct qn_exchange *x) {
    answer(x, qn_health(x->api, &x->refusal));
}

void qn_live_start(struct qn_exchange *x) {
    answer(x, stalled(x->api, LIVE_STALL_S * QN_S, &x->refusal));
}

void qn_version_start(struct qn_exchange *x) {
    const char *v = x->api->opts.version ? x->api->opts.version : "", *device = x->api->info->device ? x->api->info->device : "";
    qn_buf_puts(&x->out, "{\"version\":");
    qn_json_string(&x->out, v, strlen(v));
    qn_buf_puts(&x->out, ",\"quern\":{\"device\":");
    qn_json_string(&x->out, device, strlen(device));
    qn_buf_printf(&x->out, ",\"tool_format\":\"%s\"}}", qn_call_format_name(&x->api->marks));
    qn_exchange_send_out(x);
}

void qn_metrics_start(struct qn_exchange *x) {
    const struct qn_api *a = x->api;
    struct qn_constraints_counts counts;
    qn_constraints_counts(a->constraints, &counts);
    qn_metrics_text(&a->metrics, a->opts.engine, &counts, a->model_name, a->opts.version, &x->out);
    if (a->has_host && a->host.metrics) a->host.metrics(a->host.ctx, &x->out);
    x->out_type = "text/plain; version=0.0.4; charset=utf-8";
    qn_exchange_send_out(x);
}
