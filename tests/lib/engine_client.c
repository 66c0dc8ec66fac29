/* See engine_client.h. The wake is a condition variable, since a test has no event loop. */
#include "tests/lib/engine_client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/utf8.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int news;

static void wake(void *user) {
    (void)user;
    pthread_mutex_lock(&lock);
    news = 1;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&lock);
}

struct qn_engine *client_open(struct qn_engine_opts o) {
    struct qn_engine *e = NULL;
    struct qn_err err = {0};
    o.wake = wake;
    if (qn_engine_open(&e, &o, &err) < 0) {
        printf("    engine: %s\n", err.text);
        return NULL;
    }
    return e;
}

struct qn_job client_job(const uint32_t *prompt, size_t n, int max_tokens) {
    return (struct qn_job){
        .prompt = prompt, .n_prompt = n, .max_tokens = max_tokens, .n_branches = 1, .n_logprobs = 0, .prompt_logprobs = -1,
        .hide_special = 1, .cache_prompt = 1,
        .sampling = {.top_p = 1, .repetition_penalty = 1},
    };
}

static void take_token(struct said *s, struct said_branch *b, const struct qn_event *ev) {
    if (!s->first_ns) s->first_ns = qn_clock_ns();
    if (b->n == SAID_TOKENS_MAX) return;
    b->ids[b->n] = ev->id;
    if (ev->lp) b->logprob[b->n] = ev->lp->logprob;
    if (ev->lp && ev->lp->n_top) b->top0[b->n] = ev->lp->top[0];
    b->n++;
}

static void take(struct said *s, const struct qn_event *ev) {
    struct said_branch *b = &s->b[ev->branch];
    if (ev->kind != QN_EV_STARTED && ev->kind != QN_EV_FAILED && !s->started) s->broken = 1;
    if (!qn_utf8_valid(ev->text ? ev->text : "", ev->n_text)) s->broken = 2;
    switch (ev->kind) {
    case QN_EV_STARTED:
        if (s->started) s->broken = 3;
        s->started = 1;
        s->n_cached = ev->n_cached;
        return;
    case QN_EV_PROMPT:
        if (s->n_prompt_lp < SAID_TOKENS_MAX) s->prompt_lp[s->n_prompt_lp++] = ev->lp->rank == UINT32_MAX ? 0 : ev->lp->logprob;
        return;
    case QN_EV_FAILED:
        s->failed = ev->code;
        s->n_left = 0;
        s->done_ns = qn_clock_ns();
        return;
    default: break;
    }
    if (b->finished) s->broken = 4;
    if (ev->kind == QN_EV_TOKEN) take_token(s, b, ev);
    if (b->n_text + ev->n_text < sizeof b->text) {
        memcpy(b->text + b->n_text, ev->text, ev->n_text);
        b->n_text += ev->n_text;
    }
    if (ev->kind != QN_EV_FINISHED) return;
    b->finished = 1;
    b->reason = (int)ev->reason;
    b->stop_index = ev->stop_index;
    b->n_output = ev->n_output;
    b->n_thinking = ev->n_thinking;
    s->n_accepted += ev->n_accepted;
    if (--s->n_left == 0) s->done_ns = qn_clock_ns();
}

static void on_news(void *user, struct qn_stream *st) {
    struct said *s = user;
    struct qn_event ev;
    while (!s->hold && qn_stream_next(st, &ev)) take(s, &ev);
}

int client_submit(struct qn_engine *e, struct said *s, struct qn_job job) {
    struct qn_err err = {0};
    memset(s, 0, sizeof *s);
    s->n_left = job.n_branches;
    job.on_news = on_news;
    job.user = s;
    int rc = qn_engine_submit(e, &job, &s->st, &err);
    if (rc < 0) s->n_left = 0;
    return rc;
}

void client_poll(struct qn_engine *e, int ms) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&lock);
    while (!news && pthread_cond_timedwait(&cond, &lock, &until) == 0) {}
    news = 0;
    pthread_mutex_unlock(&lock);
    qn_engine_poll(e);
}

int client_done(const struct said *s) { return s->n_left == 0; }

int client_wait(struct qn_engine *e, struct said **s, int n, double seconds) {
    int64_t end = qn_clock_ns() + (int64_t)(seconds * 1e9);
    for (;;) {
        int done = 0;
        for (int i = 0; i < n; i++) {
            if (s[i]->st && !s[i]->hold) on_news(s[i], s[i]->st);
            done += client_done(s[i]);
        }
        if (done == n || qn_clock_ns() > end) return done;
        client_poll(e, 20);
    }
}

void client_close(struct said *s) {
    qn_stream_close(s->st);
    s->st = NULL;
}

size_t client_ids(const struct qn_engine *e, const char *text, uint32_t *out, size_t cap) {
    struct qn_ids ids = {0};
    struct qn_text t = {.p = text, .n = strlen(text)};
    struct qn_err err = {0};
    if (qn_tokenizer_encode(qn_engine_tokenizer(e), &t, 0, 0, &ids, &err) < 0) {
        printf("    tokenizer: %s\n", err.text);
        return 0;
    }
    size_t n = ids.n < cap ? ids.n : cap;
    memcpy(out, ids.v, n * sizeof *out);
    free(ids.v);
    return n;
}

const char *client_model(const char *name) {
    static char path[1024];
    const char *cache = getenv("QUERN_CACHE"), *home = getenv("HOME");
    if (cache) snprintf(path, sizeof path, "%s/models/%s.gguf", cache, name);
    else snprintf(path, sizeof path, "%s/.cache/quern/models/%s.gguf", home ? home : "", name);
    return access(path, R_OK) ? NULL : path;
}
