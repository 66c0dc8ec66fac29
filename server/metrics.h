/* The server's own counters, as Prometheus text. The engine's and the protocol's come from api/. Thread: loop. */
#ifndef QN_METRICS_H
#define QN_METRICS_H

#include <stdint.h>

#include "engine/base/buf.h"

struct qn_metrics {
    uint64_t connections, requests[6];      /* requests by status class; [0] is 499: the client left */
    uint64_t in_bytes, out_bytes;           /* out: bodies, without heads */
    uint64_t refused, timed_out, stalled, over_limit, gone; /* heads refused; deadlines; readers cut; connections above the limit; clients that left */
    int64_t open, active;                   /* connections; requests between head and end */
    uint64_t request_s_bucket[12], request_n;
    double request_s_sum;
};

void qn_metrics_observe(struct qn_metrics *m, int status, int64_t ns);
void qn_metrics_print(const struct qn_metrics *m, struct qn_buf *out);

#endif
