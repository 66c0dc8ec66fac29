/* Every family has its TYPE line: llm-d's scraper reads only what is typed, and reads a family that is not as 0. Bucket
 * bounds are vLLM's with finer ones below, where its first bound is coarser than our figures. */
#include "api/metrics.h"

#include <stdio.h>
#include <string.h>

#include "api/constrain.h"

static const double ttft[] = {.001, .002, .005, .01, .02, .04, .06, .08, .1,  .25, .5,  .75,
                              1,    2.5,  5,    7.5, 10,  20,  40,  80,  160, 640, 2560};
static const double itl[] = {.0005, .001, .002, .005, .01, .025, .05, .075, .1, .15, .2, .3,
                             .4,    .5,   .75,  1,    2.5, 5,    7.5, 10,   20, 40,  80};
static const double latency[] = {.001, .005, .01, .05, .1, .3, .5, .8,  1,   1.5, 2,   2.5,  5,
                                 10,   15,   20,  30,  40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double tokens[] = {1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                                2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
static const double few[] = {1, 2, 5, 10, 20, 50, 100};

#define BOUNDS(a) a, sizeof a / sizeof *a
static const struct {
    const char *vllm, *own, *help;
    const double *bound;
    size_t n;
} hists[QN_HISTS] = {
    [QN_HIST_TTFT] = {"time_to_first_token_seconds", "ttft_seconds", "From the request's head to its first token.", BOUNDS(ttft)},
    [QN_HIST_ITL] = {"inter_token_latency_seconds", "itl_seconds", "Between two tokens of one answer.", BOUNDS(itl)},
    [QN_HIST_TPOT] = {"request_time_per_output_token_seconds", "tpot_seconds",
                      "Mean time of a token after the first, for each answer.", BOUNDS(itl)},
    [QN_HIST_E2E] = {"e2e_request_latency_seconds", "e2e_seconds", "From the request's head to its last token.", BOUNDS(latency)},
    [QN_HIST_QUEUE] = {"request_queue_time_seconds", "queue_seconds", "From submission to the first step.", BOUNDS(latency)},
    [QN_HIST_PREFILL] = {"request_prefill_time_seconds", "prefill_seconds", "From the first step to the first token.",
                         BOUNDS(latency)},
    [QN_HIST_DECODE] = {"request_decode_time_seconds", "decode_seconds", "From the first token to the last.", BOUNDS(latency)},
    [QN_HIST_INFERENCE] = {"request_inference_time_seconds", "inference_seconds", "From the first step to the last token.",
                           BOUNDS(latency)},
    [QN_HIST_PROMPT] = {"request_prompt_tokens", "request_prompt_tokens", "Prompt tokens of a request.", BOUNDS(tokens)},
    [QN_HIST_GENERATION] = {"request_generation_tokens", "request_generation_tokens", "Tokens of an answer.", BOUNDS(tokens)},
    [QN_HIST_PARAM_N] = {"request_params_n", "request_params_n", "n of a request.", BOUNDS(few)},
    [QN_HIST_PARAM_MAX] = {"request_params_max_tokens", "request_params_max_tokens", "Output bound of a request.",
                           BOUNDS(tokens)},
};

void qn_metrics_init(struct qn_metrics *m) {
    memset(m, 0, sizeof *m);
}

void qn_metrics_add(struct qn_metrics *m, enum qn_hist_id id, double v, uint64_t times) {
    struct qn_histogram *h = &m->hist[id];
    size_t b = 0;
    while (b < hists[id].n && v > hists[id].bound[b]) b++;
    h->bucket[b] += times;
    h->count += times;
    h->sum += v * (double)times;
}

void qn_metrics_refused(struct qn_metrics *m, int status) {
    if (status >= 500)
        m->refused_we++;
    else
        m->refused_you++;
}

/* --- the text ----------------------------------------------------------------------------------------------------- */

struct text {
    struct qn_buf *out;
    char labels[1200]; /* model_name="…",engine="0" */
};

/* Label values: backslash, quote and newline escaped. */
static void make_labels(struct text *t, const char *model) {
    size_t n = (size_t)snprintf(t->labels, sizeof t->labels, "model_name=\"");
    for (; *model && n < sizeof t->labels - 24; model++) {
        if (*model == '\\' || *model == '"') t->labels[n++] = '\\';
        if (*model == '\n') t->labels[n++] = '\\';
        t->labels[n++] = *model == '\n' ? 'n' : *model;
    }
    snprintf(t->labels + n, sizeof t->labels - n, "\",engine=\"0\"");
}

static void head(const struct text *t, const char *name, const char *type, const char *help) {
    qn_buf_printf(t->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(const struct text *t, const char *name, const char *extra, double v) {
    qn_buf_printf(t->out, "%s{%s%s%s} %.15g\n", name, t->labels, extra[0] ? "," : "", extra, v);
}

static void plain(const struct text *t, const char *type, const char *name, const char *help, double v) {
    head(t, name, type, help);
    one(t, name, "", v);
}

static void histogram(const struct text *t, const char *prefix, const char *name, enum qn_hist_id id,
                      const struct qn_histogram *h) {
    char full[96], series[112], le[48];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    head(t, full, "histogram", hists[id].help);
    uint64_t sum = 0;
    snprintf(series, sizeof series, "%s_bucket", full);
    for (size_t b = 0; b <= hists[id].n; b++) {
        sum += h->bucket[b];
        if (b < hists[id].n)
            snprintf(le, sizeof le, "le=\"%g\"", hists[id].bound[b]);
        else
            snprintf(le, sizeof le, "le=\"+Inf\"");
        one(t, series, le, (double)sum);
    }
    snprintf(series, sizeof series, "%s_sum", full);
    one(t, series, "", h->sum);
    snprintf(series, sizeof series, "%s_count", full);
    one(t, series, "", (double)h->count);
}

static void finishes(const struct text *t, const char *name, const struct qn_engine_stats *s) {
    head(t, name, "counter", "Answers by the reason of their end.");
    one(t, name, "finished_reason=\"stop\"", (double)s->finished_stop);
    one(t, name, "finished_reason=\"length\"", (double)s->finished_length);
    one(t, name, "finished_reason=\"abort\"", (double)s->finished_abort);
    one(t, name, "finished_reason=\"error\"", (double)s->finished_error);
}

static void engine_rows(const struct text *t, const struct qn_engine_stats *s, const struct qn_engine_info *info) {
    const struct {
        const char *type, *own, *vllm, *help;
        double v;
    } rows[] = {
        {"gauge", "quern_requests_running", "vllm:num_requests_running", "Sequences in the batch.", s->running},
        {"gauge", "quern_requests_waiting", "vllm:num_requests_waiting", "Requests that have not started.", s->waiting},
        {"gauge", "quern_waiting_tokens", NULL, "Prompt tokens of requests that have not started.", (double)s->waiting_tokens},
        {"gauge", "quern_kv_usage_ratio", "vllm:kv_cache_usage_perc", "Share of KV blocks that requests hold, 0 to 1.",
         s->kv_total ? (double)s->kv_held / s->kv_total : 0},
        {"gauge", "quern_kv_blocks_cached", NULL, "KV blocks that only the prefix cache keeps.", s->kv_cached},
        {"gauge", "quern_kv_blocks_total", NULL, "KV blocks of the pool.", s->kv_total},
        {"gauge", "quern_kv_pool_bytes", NULL, "Memory of all KV blocks; it is taken from the system as they are used.", (double)info->kv_bytes},
        {"counter", "quern_steps_total", NULL, "Steps of the engine.", (double)s->steps},
        {"counter", "quern_steps_overlapped_total", NULL, "Steps that the device was given before the tokens of the step before were read.",
         (double)s->steps_overlapped},
        {"counter", "quern_prompt_tokens_total", "vllm:prompt_tokens_total", "Prompt tokens of started requests.",
         (double)s->prompt_tokens},
        {"counter", "quern_cached_tokens_total", "vllm:prompt_tokens_cached_total", "Prompt tokens found in the prefix cache.",
         (double)s->cached_tokens},
        {"counter", "quern_output_tokens_total", "vllm:generation_tokens_total", "Tokens sampled.", (double)s->output_tokens},
        {"counter", "quern_prefix_queries_total", "vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache.",
         (double)s->prefix_queries},
        {"counter", "quern_prefix_hits_total", "vllm:prefix_cache_hits_total", "Tokens found in the prefix cache.",
         (double)s->prefix_hits},
        {"counter", "quern_preemptions_total", "vllm:num_preemptions_total", "Sequences that gave up their blocks.",
         (double)s->preemptions},
        {"counter", "quern_certain_tokens_total", NULL, "Output tokens that were not sampled: a constraint or a thinking's budget left no choice.",
         (double)s->certain_tokens},
        {"counter", "quern_spec_drafts_total", "vllm:spec_decode_num_drafts_total", "Drafts verified.", (double)s->spec_drafts},
        {"counter", "quern_spec_draft_tokens_total", "vllm:spec_decode_num_draft_tokens_total", "Tokens guessed.",
         (double)s->spec_draft_tokens},
        {"counter", "quern_spec_accepted_tokens_total", "vllm:spec_decode_num_accepted_tokens_total", "Guesses that came true.",
         (double)s->spec_accepted_tokens},
        {"gauge", "quern_step_ms", NULL, "Moving average of a step's time.", s->step_ms_mean},
        {"gauge", "quern_threads_active", NULL, "Compute threads in use: fewer than there are while fewer are faster.", s->threads_active},
        {"counter", "quern_stalled_seconds_total", NULL, "Waited for compute threads whose core somebody else had.", (double)s->stalled_ns / 1e9},
        {"counter", "quern_rescues_total", NULL, "Compute threads that lost their core and were moved to another one.", (double)s->rescues},
        {"gauge", "quern_prefill_tokens_per_second", NULL, "Moving average.", s->prefill_tok_s},
        {"gauge", "quern_decode_tokens_per_second", NULL, "Moving average.", s->decode_tok_s},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        plain(t, rows[i].type, rows[i].own, rows[i].help, rows[i].v);
        if (rows[i].vllm) plain(t, rows[i].type, rows[i].vllm, rows[i].help, rows[i].v);
    }
    finishes(t, "quern_finished_total", s);
    finishes(t, "vllm:request_success_total", s);
    char extra[128];
    head(t, "vllm:admission_rejections_total", "counter", "Requests refused because the queue was full.");
    one(t, "vllm:admission_rejections_total", "reason=\"queue_full\"", (double)s->rejected);
    head(t, "vllm:cache_config_info", "gauge", "Shape of the KV pool.");
    snprintf(extra, sizeof extra, "block_size=\"%d\",cache_dtype=\"%s\",num_gpu_blocks=\"%d\"", info->block_tokens, info->kv_type, info->kv_blocks);
    one(t, "vllm:cache_config_info", extra, 1);
    head(t, "vllm:lora_requests_info", "gauge", "Adapters in use: none.");
    one(t, "vllm:lora_requests_info", "max_lora=\"0\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"", 0);
}

void qn_metrics_text(const struct qn_metrics *m, const struct qn_engine *e, const struct qn_constraints_counts *c, const char *model,
                     const char *version, struct qn_buf *out) {
    struct text t = {.out = out};
    struct qn_engine_stats s;
    char extra[192];
    const char *device = qn_engine_info(e)->device;
    qn_engine_stats(e, &s);
    make_labels(&t, model);
    head(&t, "quern_info", "gauge", "The build, and what computes.");
    snprintf(extra, sizeof extra, "version=\"%.64s\",device=\"%.64s\"", version ? version : "", device ? device : "");
    one(&t, "quern_info", extra, 1);
    engine_rows(&t, &s, qn_engine_info(e));
    plain(&t, "counter", "quern_requests_total", "Generating requests that were submitted.", (double)m->requests);
    plain(&t, "gauge", "quern_open_answers", "Answers that are being made or sent.", m->open_streams);
    head(&t, "quern_refused_total", "counter", "Refusals by whose fault: the request (4xx) or the server (5xx).");
    one(&t, "quern_refused_total", "class=\"4xx\"", (double)m->refused_you);
    one(&t, "quern_refused_total", "class=\"5xx\"", (double)m->refused_we);
    plain(&t, "counter", "quern_cancelled_total", "Answers whose client left.", (double)m->cancelled);
    head(&t, "quern_constraints_total", "counter", "Forms of answers that requests asked for: compiled, found compiled, refused.");
    one(&t, "quern_constraints_total", "result=\"compiled\"", (double)c->compiled);
    one(&t, "quern_constraints_total", "result=\"found\"", (double)c->found);
    one(&t, "quern_constraints_total", "result=\"refused\"", (double)c->refused);
    plain(&t, "gauge", "quern_constraints_kept", "Compiled forms in the cache.", c->kept);
    plain(&t, "gauge", "quern_constraints_bytes", "Their memory.", (double)c->bytes);
    plain(&t, "counter", "quern_invalid_outputs_total", "Complete answers that were not of the form asked for: a bug of ours.",
          (double)m->invalid_outputs);
    for (int i = 0; i < QN_HISTS; i++) {
        histogram(&t, "quern_", hists[i].own, (enum qn_hist_id)i, &m->hist[i]);
        histogram(&t, "vllm:", hists[i].vllm, (enum qn_hist_id)i, &m->hist[i]);
    }
}
