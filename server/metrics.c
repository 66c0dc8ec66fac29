/* Names are quern_http_*; text format 0.0.4. Rows of one table, so that name, kind and help stand together. */
#include "server/metrics.h"

#include <stddef.h>

#include "server/log.h"

static const double bound[12] = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600 };

static const struct { const char *name, *kind, *help; size_t offset; } rows[] = {
    { "quern_http_connections_total", "counter", "Connections accepted.", offsetof(struct qn_metrics, connections) },
    { "quern_http_connections_open", "gauge", "Connections that are open.", offsetof(struct qn_metrics, open) },
    { "quern_http_requests_active", "gauge", "Requests that are being received, worked on or answered.", offsetof(struct qn_metrics, active) },
    { "quern_http_received_bytes_total", "counter", "Bytes received, heads and bodies.", offsetof(struct qn_metrics, in_bytes) },
    { "quern_http_sent_bytes_total", "counter", "Bytes of reply bodies.", offsetof(struct qn_metrics, out_bytes) },
    { "quern_http_heads_refused_total", "counter", "Requests refused for their head or framing.", offsetof(struct qn_metrics, refused) },
    { "quern_http_deadlines_total", "counter", "Connections closed because a head or a body did not come in time.", offsetof(struct qn_metrics, timed_out) },
    { "quern_http_stalled_readers_total", "counter", "Clients cut because they took none of their reply.", offsetof(struct qn_metrics, stalled) },
    { "quern_http_connections_over_limit_total", "counter", "Connections refused above server.connections_max.", offsetof(struct qn_metrics, over_limit) },
    { "quern_http_clients_gone_total", "counter", "Requests whose client left before the end.", offsetof(struct qn_metrics, gone) },
};

void qn_metrics_observe(struct qn_metrics *m, int status, int64_t ns) {
    double s = (double)ns / 1e9;
    m->requests[status == 499 ? 0 : status >= 100 && status < 600 ? status / 100 : 5]++;
    for (int i = 0; i < 12; i++)
        if (s <= bound[i]) m->request_s_bucket[i]++;
    m->request_n++;
    m->request_s_sum += s;
}

void qn_metrics_print(const struct qn_metrics *m, struct qn_buf *out) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const int64_t *v = (const int64_t *)(const void *)((const char *)m + rows[i].offset);
        qn_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %lld\n", rows[i].name, rows[i].help, rows[i].name, rows[i].kind, rows[i].name, (long long)*v);
    }
    qn_buf_puts(out, "# HELP quern_http_requests_total Requests answered, by status class; 499: the client left.\n# TYPE quern_http_requests_total counter\n");
    static const char *const class_name[6] = { "499", "1xx", "2xx", "3xx", "4xx", "5xx" };
    for (int i = 0; i < 6; i++)
        if (i != 1) qn_buf_printf(out, "quern_http_requests_total{status=\"%s\"} %llu\n", class_name[i], (unsigned long long)m->requests[i]);
    qn_buf_puts(out, "# HELP quern_http_request_seconds Time from a request's head to its end.\n# TYPE quern_http_request_seconds histogram\n");
    for (int i = 0; i < 12; i++) qn_buf_printf(out, "quern_http_request_seconds_bucket{le=\"%g\"} %llu\n", bound[i], (unsigned long long)m->request_s_bucket[i]);
    qn_buf_printf(out, "quern_http_request_seconds_bucket{le=\"+Inf\"} %llu\nquern_http_request_seconds_sum %.6f\nquern_http_request_seconds_count %llu\n",
                  (unsigned long long)m->request_n, m->request_s_sum, (unsigned long long)m->request_n);
    qn_buf_printf(out, "# HELP quern_log_lines_lost_total Log lines that nobody took.\n# TYPE quern_log_lines_lost_total counter\nquern_log_lines_lost_total %llu\n", (unsigned long long)qn_log_lost());
}
