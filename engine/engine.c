/* Life of an engine and the loop thread's side of it: open, submit, poll, close. The work itself is step.c's.
 *
 * A submission is checked completely here, on the caller's thread, and everything that the request will ever need is
 * allocated here, so the engine thread neither allocates nor finds a bad number. The queue is bounded here too, by two
 * atomic counts, so that a refusal is immediate. */
#include "engine/engine_impl.h"

#include <errno.h>
#include <linux/futex.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/rng.h"

enum {
    CTX_DEFAULT = 8192, SEQS_DEFAULT = 32, ROWS_DEFAULT = 512, CHUNK_DEFAULT = 256, WAITING_DEFAULT = 1024,
    DRAFT_ROWS_DEFAULT = 16, PIECE_BYTES_MAX = 4096, SEQS_MOST = 1024, ROWS_MOST = 8192, CTX_MOST = 1 << 22,
};
static const double STRETCH_DEFAULT = 1.5;
static const int64_t WAITING_TOKENS_DEFAULT = 4LL << 20;

/* --- opening ------------------------------------------------------------------------------------------------------ */

static int check_opts(struct qn_engine *e, struct qn_err *err) {
    struct qn_engine_opts *o = &e->opts;
    if (!o->model_path) return qn_fail(err, QN_E_RANGE, "no model given");
    if (!o->max_seqs) o->max_seqs = SEQS_DEFAULT;
    if (!o->step_rows) o->step_rows = ROWS_DEFAULT;
    if (!o->prefill_chunk) o->prefill_chunk = CHUNK_DEFAULT;
    if (!o->draft_rows) o->draft_rows = DRAFT_ROWS_DEFAULT;
    if (o->stretch == 0) o->stretch = STRETCH_DEFAULT;
    if (!o->waiting_max) o->waiting_max = WAITING_DEFAULT;
    if (!o->waiting_tokens_max) o->waiting_tokens_max = WAITING_TOKENS_DEFAULT;
    if (o->max_seqs < 1 || o->max_seqs > SEQS_MOST) return qn_fail(err, QN_E_RANGE, "max_seqs %d: 1..%d", o->max_seqs, SEQS_MOST);
    if (o->step_rows < 1 || o->step_rows > ROWS_MOST) return qn_fail(err, QN_E_RANGE, "step_rows %d: 1..%d", o->step_rows, ROWS_MOST);
    if (o->step_rows <= o->max_seqs) o->step_rows = o->max_seqs + 1; /* a row for every decode, and one for a prefill */
    if (o->prefill_chunk > o->step_rows) o->prefill_chunk = o->step_rows;
    if (o->prefill_chunk < 1) return qn_fail(err, QN_E_RANGE, "prefill_chunk %d: 1..step_rows", o->prefill_chunk);
    if (o->n_ctx < 0 || o->n_ctx > CTX_MOST) return qn_fail(err, QN_E_RANGE, "ctx %d: 1..%d", o->n_ctx, CTX_MOST);
    if (o->kv_bytes < 0) return qn_fail(err, QN_E_RANGE, "kv_bytes: 0 or more");
    const char *want = o->kv_type ? o->kv_type : qn_kv_names[QN_KV_AUTO];
    for (int t = 0; t < QN_KV_TYPES; t++)
        if (!strcmp(want, qn_kv_names[t])) {
            e->kv_type = (enum qn_kv_type)t;
            return 0;
        }
    return qn_fail(err, QN_E_RANGE, "kv_type '%s' is not one of auto, f16, bf16, q8_0", want);
}

static int find_ends(struct qn_engine *e) {
    uint32_t n = qn_tokenizer_n_vocab(e->tok);
    for (int pass = 0; pass < 2; pass++) {
        int k = 0;
        for (uint32_t id = 0; id < n && id < e->info.n_vocab; id++)
            if (qn_tokenizer_ends(e->tok, id)) {
                if (pass) e->ends[k] = id;
                k++;
            }
        if (!pass && !(e->ends = calloc((size_t)k + 1, sizeof *e->ends))) return QN_E_NOMEM;
        e->n_ends = k;
    }
    return 0;
}

static void fill_info(struct qn_engine *e) {
    const struct qn_model_desc *d = &e->model->desc;
    e->info = (struct qn_engine_info){
        .model_name = d->name, .arch = d->arch, .n_vocab = (uint32_t)d->n_vocab, .n_ctx_train = d->n_ctx_train,
        .n_layers = d->n_layers, .d_model = d->d_model, .max_seqs = e->opts.max_seqs, .block_tokens = QN_KV_BLOCK,
        .n_params = d->n_params, .weight_bytes = d->weight_bytes, .chat_template = e->model->chat_template,
    };
    e->info.n_ctx = e->opts.n_ctx ? e->opts.n_ctx : d->n_ctx_train < CTX_DEFAULT ? d->n_ctx_train : CTX_DEFAULT;
}

static int open_model(struct qn_engine *e, struct qn_err *err) {
    int rc = qn_model_open(&e->model, e->opts.model_path, err);
    if (rc == 0) rc = qn_tokenizer_open(&e->tok, e->model->gguf, err);
    if (rc < 0) return rc;
    fill_info(e);
    /* Padded output matrices are common (more rows than tokens); the other way round ids would have no row. */
    if (qn_tokenizer_n_vocab(e->tok) > e->info.n_vocab)
        return qn_fail(err, QN_E_DATA, "the tokenizer has %u tokens, the model only %u", qn_tokenizer_n_vocab(e->tok), e->info.n_vocab);
    e->info.n_vocab = qn_tokenizer_n_vocab(e->tok);
    if (qn_tokenizer_piece_max(e->tok) > PIECE_BYTES_MAX) /* stream.c's records count on it */
        return qn_fail(err, QN_E_UNSUPPORTED, "a token of %zu bytes: at most %d", qn_tokenizer_piece_max(e->tok), PIECE_BYTES_MAX);
    return find_ends(e);
}

static int may_run(const struct qn_seq *q) {
    struct qn_stream *st = q->group->spec.user;
    return qn_stream_has_room(st, 1 + st->engine->overlaps);
}

static int draft(const struct qn_seq *q, int32_t *out, int most) {
    struct qn_stream *st = q->group->spec.user;
    struct qn_branch *b = &st->branches[q->branch];
    b->certain = qn_stream_certain(st, q->branch) > 0;
    return b->certain ? qn_stream_take_certain(st, q->branch, out, most) : qn_stream_guess(st, q->tokens, (size_t)q->n_tokens, out, most);
}

static int certain(const struct qn_seq *q, int *logits) {
    const struct qn_stream *st = q->group->spec.user;
    *logits = st->job.n_logprobs >= 0;
    return qn_stream_certain(st, q->branch);
}

static int open_sched(struct qn_engine *e, struct qn_err *err) {
    uint64_t secret[2];
    if (qn_rng_bytes(secret, sizeof secret) < 0) return qn_fail(err, QN_E_IO, "getrandom failed");
    int rc = qn_kvcache_open(&e->kv, e->info.kv_blocks, QN_KV_BLOCK, secret);
    if (rc < 0) return qn_fail(err, rc, "no memory for %d KV blocks", e->info.kv_blocks);
    e->pace.row_ctx = qn_pace_row_ctx(&e->model->desc);
    struct qn_sched_cfg cfg = {
        .step_rows_max = e->opts.step_rows, .prefill_chunk_max = e->opts.prefill_chunk, .row_ctx = e->opts.stretch > 0 ? e->pace.row_ctx : 0, .seqs_max = e->opts.max_seqs,
        /* The queue is bounded by qn_engine_submit; here only the sum of both bounds may wait. */
        .waiting_max = e->opts.waiting_max + e->opts.max_seqs + 1, .waiting_tokens_max = INT64_MAX / 2,
        .wait_ns_max = e->opts.wait_ms_max * QN_MS, .n_ctx = e->info.n_ctx, .block_tokens = QN_KV_BLOCK, .may_run = may_run,
        .draft = draft, .certain = certain, .draft_rows_max = e->opts.no_speculation ? 0 : e->opts.draft_rows,
    };
    rc = qn_sched_open(&e->sched, &cfg, e->kv);
    return rc < 0 ? qn_fail(err, rc, "no memory for the scheduler") : 0;
}

static int start_thread(struct qn_engine *e, struct qn_err *err) {
    int rc = pthread_create(&e->thread, NULL, qn_engine_thread, e);
    if (rc) return qn_fail(err, QN_E_IO, "no engine thread: %s", strerror(rc));
    pthread_setname_np(e->thread, "quern-engine");
    e->thread_runs = 1;
    return 0;
}

int qn_engine_open(struct qn_engine **out, const struct qn_engine_opts *o, struct qn_err *err) {
    struct qn_engine *e = calloc(1, sizeof *e);
    if (!e) return qn_fail(err, QN_E_NOMEM, "no memory for the engine");
    pthread_mutex_init(&e->trie_lock, NULL);
    e->opts = *o;
    int rc = check_opts(e, err);
    if (rc == 0) rc = open_model(e, err);
    if (rc == 0) rc = qn_engine_place(e, err);
    if (rc == 0) rc = open_sched(e, err);
    if (rc == 0) rc = qn_engine_step_open(e, err);
    if (rc == 0) rc = start_thread(e, err);
    if (rc < 0) {
        qn_fail(err, rc, "the engine could not start (%s)", qn_err_name(rc));
        qn_engine_close(e);
    } else {
        *out = e;
    }
    return rc;
}

static void free_list(struct qn_stream *st, size_t next_offset) {
    while (st) {
        struct qn_stream *next = *(struct qn_stream **)(void *)((char *)st + next_offset);
        qn_stream_free(st);
        st = next;
    }
}

void qn_engine_close(struct qn_engine *e) {
    if (!e) return;
    if (e->thread_runs) {
        atomic_store(&e->stop, 1);
        qn_engine_nudge(e);
        pthread_join(e->thread, NULL);
    }
    free_list(atomic_exchange(&e->dead, NULL), offsetof(struct qn_stream, next_dead));
    qn_sched_close(e->sched);
    qn_kvcache_close(e->kv);
    qn_engine_step_close(e);
    qn_forward_close(e->forward);
    if (e->backend) e->backend->ops->close(e->backend);
    qn_token_trie_close(e->trie);
    pthread_mutex_destroy(&e->trie_lock);
    qn_tokenizer_close(e->tok);
    qn_model_close(e->model);
    free(e->ends);
    free(e);
}

const struct qn_engine_info *qn_engine_info(const struct qn_engine *e) { return &e->info; }
const struct qn_tokenizer *qn_engine_tokenizer(const struct qn_engine *e) { return e->tok; }

const struct qn_token_trie *qn_engine_trie(struct qn_engine *e, struct qn_err *err) {
    pthread_mutex_lock(&e->trie_lock);
    if (!e->trie) qn_token_trie_open(&e->trie, e->tok, err);
    pthread_mutex_unlock(&e->trie_lock);
    return e->trie;
}

const char *qn_engine_lost(const struct qn_engine *e) { return atomic_load(&((struct qn_engine *)(uintptr_t)e)->lost); }
void qn_engine_drain(struct qn_engine *e) { atomic_store(&e->draining, 1); }

/* --- submitting --------------------------------------------------------------------------------------------------- */

void qn_engine_nudge(struct qn_engine *e) {
    atomic_fetch_add(&e->signal, 1);
    if (atomic_load(&e->asleep)) syscall(SYS_futex, &e->signal, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int check_ids(const struct qn_engine *e, const char *what, const uint32_t *ids, size_t n, struct qn_err *err) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= e->info.n_vocab) return qn_fail(err, QN_E_RANGE, "%s token %zu: 0..%u", what, i, e->info.n_vocab - 1);
    return 0;
}

static int check_lists(const struct qn_engine *e, const struct qn_job *j, struct qn_err *err) {
    for (int i = 0; i < j->n_stop_ids; i++)
        if (j->stop_ids[i] >= e->info.n_vocab)
            return qn_fail(err, QN_E_RANGE, "stop_token_ids[%d]: 0..%u", i, e->info.n_vocab - 1);
    for (int i = 0; i < j->n_stops; i++)
        if (j->stop_n[i] < 1 || j->stop_n[i] > QN_STOP_BYTES_MAX)
            return qn_fail(err, QN_E_RANGE, "stop[%d]: 1..%d bytes", i, QN_STOP_BYTES_MAX);
    if (j->n_shown > QN_SHOWN_MAX) return qn_fail(err, QN_E_RANGE, "shown: at most %d tokens", QN_SHOWN_MAX);
    int rc = check_ids(e, "prediction", j->prediction, j->n_prediction, err);
    return rc < 0 ? rc : check_ids(e, "prompt", j->prompt, j->n_prompt, err);
}

static int check_thinking(const struct qn_engine *e, const struct qn_thinking *t, struct qn_err *err) {
    if (!t->on) return 0;
    if (t->n_open < 1 || t->n_open > QN_MARK_MAX || t->n_close < 1 || t->n_close > QN_MARK_MAX)
        return qn_fail(err, QN_E_RANGE, "thinking: marks of 1..%d bytes", QN_MARK_MAX);
    if (t->min_tokens < 0 || t->max_tokens < -1) return qn_fail(err, QN_E_RANGE, "thinking: 0 tokens or more");
    if (t->max_tokens >= 0 && t->min_tokens > t->max_tokens) return qn_fail(err, QN_E_RANGE, "thinking: at least %d tokens but at most %d", t->min_tokens, t->max_tokens);
    if ((t->min_tokens > 0 && !t->n_more) || (t->max_tokens >= 0 && !t->n_hand_in)) return qn_fail(err, QN_E_RANGE, "thinking: a bound without the text that keeps it");
    int rc = check_ids(e, "continuation", t->more, t->n_more, err);
    return rc < 0 ? rc : check_ids(e, "hand-in", t->hand_in, t->n_hand_in, err);
}

static int check_ends(const struct qn_job *j, struct qn_err *err) {
    const struct qn_repetition *r = &j->repetition;
    if (j->n_stop_regex < 0 || j->n_stop_regex > QN_STOP_REGEX_MAX) return qn_fail(err, QN_E_RANGE, "stop_regex: at most %d", QN_STOP_REGEX_MAX);
    if (r->max_size == 0) return 0;
    if (r->min_size < 1 || r->max_size < r->min_size || r->max_size > QN_REPETITION_MAX || r->min_count < 2 || r->min_count > QN_REPETITION_MAX)
        return qn_fail(err, QN_E_RANGE, "repetition_detection: sizes of 1..%d, a count of 2..%d", QN_REPETITION_MAX, QN_REPETITION_MAX);
    return 0;
}

static int check_job(const struct qn_engine *e, const struct qn_job *j, struct qn_err *err) {
    int n_ctx = e->info.n_ctx;
    if (j->n_prompt < 1) return qn_fail(err, QN_E_RANGE, "the prompt is empty");
    if (j->max_tokens < 0) return qn_fail(err, QN_E_RANGE, "max_tokens: 0 or more");
    if (j->n_prompt > (size_t)n_ctx || j->max_tokens > n_ctx || j->n_prompt + (size_t)j->max_tokens > (size_t)n_ctx)
        return qn_fail(err, QN_E_TOO_LONG, "%zu prompt tokens and %d to generate do not fit a context of %d", j->n_prompt, j->max_tokens, n_ctx);
    if (j->n_branches < 1 || j->n_branches > QN_BRANCHES_MAX) return qn_fail(err, QN_E_RANGE, "n: 1..%d", QN_BRANCHES_MAX);
    if (j->n_stops < 0 || j->n_stops > QN_STOPS_MAX) return qn_fail(err, QN_E_RANGE, "stop: at most %d strings", QN_STOPS_MAX);
    if (j->n_stop_ids < 0 || j->n_stop_ids > QN_STOP_IDS_MAX) return qn_fail(err, QN_E_RANGE, "stop_token_ids: at most %d", QN_STOP_IDS_MAX);
    if (j->n_logprobs < -1 || j->n_logprobs > QN_LOGPROBS_MAX || j->prompt_logprobs < -1 || j->prompt_logprobs > QN_LOGPROBS_MAX)
        return qn_fail(err, QN_E_RANGE, "logprobs: 0..%d", QN_LOGPROBS_MAX);
    if (j->priority_class < 0 || j->priority_class >= QN_CLASSES) return qn_fail(err, QN_E_RANGE, "class: 0..%d", QN_CLASSES - 1);
    if (j->min_tokens < 0 || j->min_tokens > j->max_tokens) return qn_fail(err, QN_E_RANGE, "min_tokens: 0..max_tokens");
    int rc = check_ends(j, err);
    if (rc == 0) rc = check_lists(e, j, err);
    if (rc == 0) rc = check_thinking(e, &j->thinking, err);
    return rc < 0 ? rc : qn_sampling_check(&j->sampling, e->info.n_vocab, err);
}

/* Counts the job as pending if the queue's bounds allow it. Slots that stand free do not count as queue. */
static int queue_it(struct qn_engine *e, const struct qn_job *j) {
    int free_slots = e->opts.max_seqs - atomic_load(&e->running);
    int before = atomic_fetch_add(&e->pending, 1);
    int64_t tokens = atomic_fetch_add(&e->pending_tokens, (int64_t)j->n_prompt);
    if (before < e->opts.waiting_max + (free_slots > 0 ? free_slots : 0) &&
        (before == 0 || tokens + (int64_t)j->n_prompt <= e->opts.waiting_tokens_max)) return 0;
    atomic_fetch_sub(&e->pending, 1);
    atomic_fetch_sub(&e->pending_tokens, (int64_t)j->n_prompt);
    atomic_fetch_add(&e->rejected, 1);
    return QN_E_FULL;
}

#define PUSH(list, st, member)                                                              \
    do {                                                                                    \
        struct qn_stream *old_ = atomic_load_explicit(&(list), memory_order_relaxed);       \
        do (st)->member = old_;                                                             \
        while (!atomic_compare_exchange_weak(&(list), &old_, (st)));                        \
    } while (0)

int qn_engine_submit(struct qn_engine *e, const struct qn_job *job, struct qn_stream **out, struct qn_err *err) {
    int rc = check_job(e, job, err);
    if (rc < 0) return rc;
    if (atomic_load(&e->draining) || atomic_load(&e->stop)) return qn_fail(err, QN_E_CLOSED, "the server is shutting down");
    if (queue_it(e, job) < 0) return qn_fail(err, QN_E_FULL, "the queue is full (%d requests or %lld tokens wait)", e->opts.waiting_max,
                                             (long long)e->opts.waiting_tokens_max);
    struct qn_stream *st = NULL;
    struct qn_job own = *job;
    if (e->opts.no_prefix_cache) own.cache_prompt = 0;
    if (e->opts.no_speculation) own.speculate = 0;
    rc = qn_stream_new(&st, e, &own, e->tok, e->ends, e->n_ends, e->opts.step_rows, 1 + e->overlaps);
    if (rc < 0) {
        atomic_fetch_sub(&e->pending, 1);
        atomic_fetch_sub(&e->pending_tokens, (int64_t)job->n_prompt);
        return qn_fail(err, rc, "no memory for the request");
    }
    st->counted = 1;
    int64_t none = 0;
    atomic_compare_exchange_strong(&e->submitted_since, &none, qn_clock_ns());
    PUSH(e->submitted, st, next_submitted);
    qn_engine_nudge(e);
    *out = st;
    return 0;
}

void qn_stream_close(struct qn_stream *st) {
    if (!st) return;
    struct qn_engine *e = st->engine;
    st->closed = 1;
    PUSH(e->closed, st, next_closed);
    qn_engine_nudge(e);
}

/* --- news --------------------------------------------------------------------------------------------------------- */

void qn_engine_poll(struct qn_engine *e) {
    /* The dead are taken before the news: whatever died was told of before, so no news can name a freed stream. */
    struct qn_stream *dead = atomic_exchange(&e->dead, NULL);
    struct qn_stream *list = atomic_exchange(&e->news, NULL), *news = NULL;
    while (list) { /* oldest first */
        struct qn_stream *next = list->next_news;
        list->next_news = news;
        news = list;
        list = next;
    }
    while (news) {
        struct qn_stream *st = news;
        news = st->next_news;
        atomic_store(&st->queued, 0);
        if (!st->closed && st->job.on_news) st->job.on_news(st->job.user, st);
    }
    free_list(dead, offsetof(struct qn_stream, next_dead));
}
