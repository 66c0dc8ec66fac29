/* Counters and histograms of requests, and the text that Prometheus and routers scrape: quern_* names and vLLM's for the
 * same figures, so that a router made for vLLM reads them. Thread: loop. */
#ifndef QN_API_METRICS_H
#define QN_API_METRICS_H

#include <stdint.h>

#include "engine/base/buf.h"
#include "engine/engine.h"

enum { QN_BUCKETS_MAX = 32 };

struct qn_histogram {
    uint64_t count, bucket[QN_BUCKETS_MAX]; /* not cumulative; the last is everything above */
    double sum;
};

enum qn_hist_id {
    QN_HIST_TTFT,
    QN_HIST_ITL,
    QN_HIST_TPOT,
    QN_HIST_E2E,
    QN_HIST_QUEUE,
    QN_HIST_PREFILL,
    QN_HIST_DECODE,
    QN_HIST_INFERENCE,
    QN_HIST_PROMPT,
    QN_HIST_GENERATION,
    QN_HIST_PARAM_N,
    QN_HIST_PARAM_MAX,
    QN_HISTS,
};

struct qn_metrics {
    struct qn_histogram hist[QN_HISTS];
    uint64_t requests, refused_you, refused_we, cancelled, invalid_outputs;
    int open_streams;
};

void qn_metrics_init(struct qn_metrics *m);
/* `times` equal observations of v (seconds or tokens). */
void qn_metrics_add(struct qn_metrics *m, enum qn_hist_id id, double v, uint64_t times);
void qn_metrics_refused(struct qn_metrics *m, int status);
/* Appends the exposition (text format 0.0.4). */
struct qn_constraints_counts;
void qn_metrics_text(const struct qn_metrics *m, const struct qn_engine *e, const struct qn_constraints_counts *c, const char *model,
                     const char *version, struct qn_buf *out);

#endif
