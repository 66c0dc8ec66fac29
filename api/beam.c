/* Every step asks the engine for each beam's likeliest next tokens: a request of one token whose prompt is the beam so far. The prefix
 * cache holds what beams share and what they had computed, in blocks of 16 tokens; the rest of a block, 8 rows in the mean, is computed
 * again. So a step of w beams costs about 9 w rows where beams held by the scheduler would cost w (one batch either way); vLLM's
 * beam search works this way too.
 *
 * The rules are transformers' (generate with num_beams and do_sample False): of all continuations those that end are kept if
 * they are among the first `width`, by sum of log-probabilities / length ^ length_penalty, the end token counted; the best `width` others go
 * on; early_stopping false ends when the best running beam, at its present length, scores below the worst kept. */
#include "api/beam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOPS = QN_BEAMS_MAX * QN_LOGPROBS_MAX, ENDS_MOST = 6 /* ids of a model that end its text */ };

struct hypothesis {
    uint32_t *ids;          /* the prompt's, then the answer's */
    int n;                  /* of the answer */
    double sum, score;
    enum qn_finish reason;
};

struct probe {              /* one beam's request */
    struct qn_exchange *x;
    struct qn_stream *st;
    int n_top, done;
    struct qn_top top[QN_LOGPROBS_MAX];
};

struct qn_beam {
    int width, n_running, n_kept, n_open, max_tokens;
    size_t n_prompt;
    struct hypothesis running[QN_BEAMS_MAX], next[QN_BEAMS_MAX], kept[QN_BEAMS_MAX + 1];
    struct probe probes[QN_BEAMS_MAX];
};

struct candidate {
    double sum;
    int beam;
    uint32_t id;
};

/* --- what may be asked for ---------------------------------------------------------------------------------------- */

int qn_beam_check(struct qn_exchange *x) {
    const struct qn_params *p = &x->params;
    if (!p->use_beam_search) return 0;
    const struct { const char *name; int is_set; } not_with[] = {
        {"stream", p->stream}, {"temperature", p->temperature != 0 && p->temperature != 1}, {"top_p", p->top_p < 1}, {"top_k", p->top_k > 0}, {"min_p", p->min_p > 0},
        {"typical_p", p->typical_p < 1}, {"top_n_sigma", p->top_n_sigma > 0}, {"xtc_probability", p->xtc_probability > 0}, {"dynatemp_range", p->dynatemp_range > 0},
        {"mirostat", p->mirostat != 0}, {"repetition_penalty", p->repetition_penalty != 1}, {"frequency_penalty", p->frequency_penalty != 0},
        {"presence_penalty", p->presence_penalty != 0}, {"dry_multiplier", p->dry_multiplier > 0}, {"logit_bias", p->n_bias > 0}, {"bad_words", p->n_bad > 0},
        {"allowed_token_ids", p->allowed != NULL}, {"stop", p->n_stops > 0}, {"stop_regex", p->n_stop_regex > 0}, {"repetition_detection", p->max_pattern_size > 0},
        {"min_tokens", p->min_tokens > 0}, {"logprobs", p->n_logprobs >= 0}, {"prompt_logprobs", p->prompt_logprobs != QN_ABSENT}, {"quern.samples", p->samples != QN_ABSENT},
        {"cache_prompt", !p->cache_prompt}, {"prediction", x->gen->prediction.n > 0}, {"include_stop_str_in_output", p->keep_stop},
    };
    for (size_t i = 0; i < sizeof not_with / sizeof *not_with; i++)
        if (not_with[i].is_set)
            return qn_refuse(&x->refusal, 400, "unsupported_value", not_with[i].name, "'%s' is not supported with 'use_beam_search'.", not_with[i].name);
    if (x->gen->constraint || x->gen->choices[0].answer)
        return qn_refuse(&x->refusal, 400, "unsupported_value", "use_beam_search", "'use_beam_search' is not supported with structured output, tools or thinking.");
    if (x->gen->n_parts > 1) return qn_refuse(&x->refusal, 400, "unsupported_value", "use_beam_search", "'use_beam_search' needs a single prompt.");
    if (x->gen->n > QN_BEAMS_MAX) return qn_refuse(&x->refusal, 400, "integer_above_max_value", p->best_of != QN_ABSENT ? "best_of" : "n", "'use_beam_search' has at most %d beams.", QN_BEAMS_MAX);
    if (x->gen->n + p->n_stop_ids > QN_LOGPROBS_MAX - ENDS_MOST) /* what may end a beam must not hide what goes on */
        return qn_refuse(&x->refusal, 400, "array_above_max_length", "stop_token_ids", "'use_beam_search': beams and stop ids are at most %d together.", QN_LOGPROBS_MAX - ENDS_MOST);
    if (x->gen->parts[0].max_tokens < 1) return qn_refuse(&x->refusal, 400, "integer_below_min_value", "max_tokens", "'use_beam_search' needs at least one token to search for.");
    return 0;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static int open_ids(struct hypothesis *h, const struct qn_part *p) {
    h->ids = malloc((p->ids.n + (size_t)p->max_tokens) * sizeof *h->ids);
    if (!h->ids) return QN_E_NOMEM;
    memcpy(h->ids, p->ids.v, p->ids.n * sizeof *h->ids);
    return 0;
}

void qn_beam_stop(struct qn_exchange *x) {
    struct qn_beam *b = x->gen->beam;
    for (int i = 0; b && i < b->width; i++) {
        qn_stream_close(b->probes[i].st);
        b->probes[i].st = NULL;
    }
}

void qn_beam_free(struct qn_exchange *x) {
    struct qn_beam *b = x->gen->beam;
    if (!b) return;
    qn_beam_stop(x);
    for (int i = 0; i < QN_BEAMS_MAX; i++) {
        free(b->running[i].ids);
        free(b->next[i].ids);
    }
    for (int i = 0; i <= QN_BEAMS_MAX; i++) free(b->kept[i].ids);
    free(b);
    x->gen->beam = NULL;
}

/* --- one step ----------------------------------------------------------------------------------------------------- */

static int is_end(const struct qn_exchange *x, uint32_t id, int *own) {
    for (int i = 0; i < x->params.n_stop_ids; i++)
        if (x->params.stop_ids[i] == id) return *own = 1;
    *own = 0;
    return !x->params.ignore_eos && qn_tokenizer_ends(x->api->tok, id);
}

static double score(const struct qn_exchange *x, double sum, int n) { return sum / pow((double)n, x->params.length_penalty); }

/* All continuations, the likeliest first; equal ones by beam, then as the beam has them. */
static int collect(const struct qn_beam *b, struct candidate *c) {
    int n = 0;
    for (int i = 0; i < b->n_running; i++)
        for (int k = 0; k < b->probes[i].n_top; k++) {
            struct candidate v = {b->running[i].sum + (double)b->probes[i].top[k].logprob, i, b->probes[i].top[k].id};
            int at = n++;
            for (; at > 0 && c[at - 1].sum < v.sum; at--) c[at] = c[at - 1];
            c[at] = v;
        }
    return n;
}

static void extend(const struct qn_beam *b, struct hypothesis *to, const struct candidate *c) {
    const struct hypothesis *from = &b->running[c->beam];
    uint32_t *ids = to->ids;
    *to = *from;
    to->ids = ids;
    memcpy(ids + b->n_prompt, from->ids + b->n_prompt, (size_t)from->n * sizeof *ids);
    ids[b->n_prompt + (size_t)to->n++] = c->id;
    to->sum = c->sum;
}

/* Keeps it if it is among the best `width`; equal scores: the earlier one stays before. */
static void keep(const struct qn_exchange *x, struct qn_beam *b, const struct candidate *c, enum qn_finish reason) {
    struct hypothesis *last = &b->kept[b->n_kept], h;
    extend(b, last, c);
    last->score = score(x, last->sum, last->n);
    last->reason = reason;
    int at = b->n_kept++;
    for (; at > 0 && b->kept[at - 1].score < b->kept[at].score; at--) {
        h = b->kept[at];
        b->kept[at] = b->kept[at - 1];
        b->kept[at - 1] = h;
    }
    if (b->n_kept > b->width) b->n_kept = b->width;
}

/* 1: the search is over. */
static int advance(const struct qn_exchange *x, struct qn_beam *b) {
    struct candidate c[TOPS];
    int n = collect(b, c), n_next = 0, length = b->running[0].n + 1, last = length >= b->max_tokens, own;
    for (int i = 0; i < n && (i < b->width || n_next < b->width); i++) {
        int end = is_end(x, c[i].id, &own);
        if (end || last) {
            if (i < b->width) keep(x, b, &c[i], end ? QN_FINISH_STOP : QN_FINISH_LENGTH);
        } else if (n_next < b->width) {
            extend(b, &b->next[n_next++], &c[i]);
        }
    }
    if (last || n_next == 0) return 1;
    for (int i = 0; i < QN_BEAMS_MAX; i++) {
        struct hypothesis h = b->running[i];
        b->running[i] = b->next[i];
        b->next[i] = h;
    }
    b->n_running = n_next;
    if (b->n_kept < b->width) return 0;
    int most = x->params.stop_beams == QN_BEAMS_NEVER && x->params.length_penalty > 0 ? b->max_tokens : length;
    return x->params.stop_beams == QN_BEAMS_EARLY || score(x, b->running[0].sum, most) <= b->kept[b->width - 1].score;
}

/* --- with the engine ---------------------------------------------------------------------------------------------- */

static void on_probe(void *user, struct qn_stream *st);

static int submit_all(struct qn_exchange *x, struct qn_err *err) {
    struct qn_beam *b = x->gen->beam;
    int rc = 0;
    b->n_open = 0;
    for (int i = 0; rc == 0 && i < b->n_running; i++) {
        struct probe *p = &b->probes[i];
        struct qn_job job;
        *p = (struct probe){.x = x};
        qn_gen_job(x, &x->gen->parts[0], &job);
        job.prompt = b->running[i].ids;
        job.n_prompt = b->n_prompt + (size_t)b->running[i].n;
        job.max_tokens = job.n_branches = job.ignore_eos = 1;
        job.n_stop_ids = job.speculate = 0;
        job.sampling.temperature = 0;
        job.n_logprobs = QN_LOGPROBS_MAX;
        job.on_news = on_probe;
        job.user = p;
        rc = qn_engine_submit(x->api->opts.engine, &job, &p->st, err);
        b->n_open += rc == 0;
    }
    return rc;
}

static void finish(struct qn_exchange *x) {
    struct qn_gen *g = x->gen;
    struct qn_beam *b = g->beam;
    for (int i = 0; i < g->n_choices && i < b->n_kept; i++) {
        struct qn_choice *c = &g->choices[i];
        const struct hypothesis *h = &b->kept[i];
        const uint32_t *ids = h->ids + b->n_prompt;
        int ended = h->reason == QN_FINISH_STOP;
        qn_ids_text(x->api, ids, (size_t)(h->n - ended), x->params.skip_special_tokens, &c->text);
        for (int k = 0; x->params.return_token_ids && k < h->n; k++) qn_buf_printf(&c->ids, k ? ",%u" : "%u", ids[k]);
        c->finished = 1;
        c->reason = h->reason;
        c->stop_id = ended ? ids[h->n - 1] : UINT32_MAX;
        c->n_output = i < g->n_shown ? h->n : 0;
        c->sum_lp = h->score;
        c->n_lp = 1;
        x->facts.output_tokens += c->n_output;
    }
    x->facts.finish = b->kept[0].reason == QN_FINISH_LENGTH ? "length" : "stop";
    g->n_finished = g->n_choices;
    qn_gen_whole(x);
}

static void step(struct qn_exchange *x) {
    struct qn_err err = {0};
    if (advance(x, x->gen->beam)) {
        finish(x);
        return;
    }
    int rc = submit_all(x, &err);
    if (rc < 0) qn_gen_refuse(x, rc, &err);
}

static void on_probe(void *user, struct qn_stream *st) {
    struct probe *p = user;
    struct qn_exchange *x = p->x;
    struct qn_event ev;
    if (x->cancelled || x->gen->over || p->st != st) return;
    while (p->st && qn_stream_next(st, &ev)) {
        if (ev.kind == QN_EV_FAILED) {
            qn_gen_refuse(x, ev.code, NULL);
            return;
        }
        if (ev.kind == QN_EV_STARTED && x->gen->beam->running[0].n == 0) {
            x->gen->parts[0].n_cached = ev.n_cached;
            x->facts.cached_tokens = ev.n_cached;
        } else if (ev.kind == QN_EV_TOKEN && ev.lp) {
            p->n_top = (int)ev.lp->n_top;
            memcpy(p->top, ev.lp->top, sizeof p->top);
            if (!x->facts.ttft_ns) x->facts.ttft_ns = 1;
        } else if (ev.kind == QN_EV_FINISHED) {
            qn_stream_close(st);
            p->st = NULL;
        }
    }
    if (!p->st && --x->gen->beam->n_open == 0) step(x);
}

int qn_beam_start(struct qn_exchange *x, struct qn_err *err) {
    struct qn_gen *g = x->gen;
    struct qn_beam *b = g->beam = calloc(1, sizeof *b);
    if (!b) return QN_E_NOMEM;
    b->width = g->n;
    b->n_running = 1;
    b->max_tokens = g->parts[0].max_tokens;
    b->n_prompt = g->parts[0].ids.n;
    int rc = 0;
    for (int i = 0; rc == 0 && i < b->width; i++) {
        rc = open_ids(&b->running[i], &g->parts[0]);
        if (rc == 0) rc = open_ids(&b->next[i], &g->parts[0]);
    }
    for (int i = 0; rc == 0 && i <= b->width; i++) rc = open_ids(&b->kept[i], &g->parts[0]);
    return rc < 0 ? rc : submit_all(x, err);
}
