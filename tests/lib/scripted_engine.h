/* A fake of engine/engine.h and engine/tokenizer.h for tests of api/: it says what a test wrote down, in the pieces that
 * the test chose, and computes nothing. Include it in ONE file of a program. It defines every function of both headers, so
 * the linker takes none of them from the archive.
 *
 * Tokens: 0..255 are bytes, then a few control tokens; the prompt is whatever api/ made, and what it asked for stays in
 * script.job. Records: STARTED, a PROMPT for each scored token, then piece by piece a TOKEN for each branch, FINISHED. */
#ifndef QN_SCRIPTED_ENGINE_H
#define QN_SCRIPTED_ENGINE_H

#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/engine.h"

enum { SCRIPT_IM_START = 256, SCRIPT_IM_END, SCRIPT_BOS, SCRIPT_VOCAB, SCRIPT_CTX = 1024, SCRIPT_SEQS = 8, SCRIPT_STREAMS = 256 };

static struct {
    const char *text; /* of every branch */
    size_t n_text;
    const size_t *cuts; /* ends of the pieces, ascending, the last one n_text; NULL: every character */
    int n_cuts;
    size_t held; /* the last bytes come with FINISHED */
    enum qn_finish reason;
    int stop_index;
    uint32_t stop_id;
    int refuse, refuse_from; /* submit returns this, from the n-th on (0: always) */
    int fail_at, fail_code;  /* FAILED in place of record fail_at (0: STARTED); fail_code 0: never */
    int per_poll;            /* records that each poll lets through; 0: all */
    int n_cached;
    struct qn_engine_stats stats;
    /* What api/ did. */
    struct qn_job job; /* of the last submit; its pointers are gone but for what follows */
    uint32_t prompt[4096];
    size_t n_prompt;
    char stop0[64];
    int submits, open;
} script;

struct qn_stream {
    struct qn_job job;
    int step, branch, scored, started, finished, failed, released;
    size_t at;
    char *stop_copy;
    uint32_t first;
    struct qn_logprobs lp;
};
static struct qn_stream *script_streams[SCRIPT_STREAMS];

/* --- tokenizer ---------------------------------------------------------------------------------------------------- */

struct qn_tokenizer {
    int unused;
};
static const struct qn_tokenizer script_tok;
static const char *const script_special[] = {"<|im_start|>", "<|im_end|>", "<s>"};
static char script_bytes[256];

int qn_tokenizer_open(struct qn_tokenizer **out, const struct qn_gguf *g, struct qn_err *err) {
    (void)out, (void)g;
    return qn_fail(err, QN_E_UNSUPPORTED, "scripted");
}
void qn_tokenizer_close(struct qn_tokenizer *t) {
    (void)t;
}

static int script_trusted(const struct qn_text *t, size_t from, size_t to) {
    for (size_t i = 0; i < t->n_trusted; i++)
        if (t->trusted[i].from <= from && to <= t->trusted[i].to) return 1;
    return 0;
}

int qn_tokenizer_encode(const struct qn_tokenizer *t, const struct qn_text *text, unsigned flags, size_t ids_max,
                        struct qn_ids *out, struct qn_err *err) {
    (void)t, (void)flags;
    if (out->cap < out->n + text->n) {
        uint32_t *v = realloc(out->v, (out->n + text->n + 1) * sizeof *v);
        if (!v) return QN_E_NOMEM;
        out->v = v;
        out->cap = out->n + text->n + 1;
    }
    for (size_t i = 0; i < text->n;) {
        uint32_t id = (unsigned char)text->p[i];
        size_t n = 1;
        for (uint32_t k = 0; k < sizeof script_special / sizeof *script_special; k++) {
            size_t len = strlen(script_special[k]);
            if (text->n - i >= len && !memcmp(text->p + i, script_special[k], len) && script_trusted(text, i, i + len)) {
                id = SCRIPT_IM_START + k;
                n = len;
            }
        }
        if (ids_max && out->n == ids_max) return qn_fail(err, QN_E_LIMIT, "too many");
        out->v[out->n++] = id;
        i += n;
    }
    return 0;
}

uint32_t qn_tokenizer_n_vocab(const struct qn_tokenizer *t) {
    return (void)t, SCRIPT_VOCAB;
}
const char *qn_tokenizer_piece(const struct qn_tokenizer *t, uint32_t id, size_t *n) {
    (void)t;
    if (id >= SCRIPT_IM_START) return *n = strlen(script_special[id - SCRIPT_IM_START]), script_special[id - SCRIPT_IM_START];
    script_bytes[id] = (char)id;
    return *n = 1, &script_bytes[id];
}
enum qn_token_kind qn_tokenizer_kind(const struct qn_tokenizer *t, uint32_t id) {
    return (void)t, id >= SCRIPT_IM_START ? QN_TOKEN_CONTROL : QN_TOKEN_NORMAL;
}
size_t qn_tokenizer_piece_max(const struct qn_tokenizer *t) {
    return (void)t, 16;
}
int qn_tokenizer_strips_space(const struct qn_tokenizer *t) {
    return (void)t, 0;
}
int64_t qn_tokenizer_bos(const struct qn_tokenizer *t) {
    return (void)t, SCRIPT_BOS;
}
int64_t qn_tokenizer_eos(const struct qn_tokenizer *t) {
    return (void)t, SCRIPT_IM_END;
}
int qn_tokenizer_ends(const struct qn_tokenizer *t, uint32_t id) {
    return (void)t, id == SCRIPT_IM_END;
}
int qn_tokenizer_guarded(const struct qn_tokenizer *t, uint32_t id) {
    return (void)t, id >= SCRIPT_IM_START;
}
size_t qn_tokenizer_settled(const struct qn_tokenizer *t, const char *p, size_t n) {
    return (void)t, (void)p, (void)n, 0;
}
int qn_tokenizer_adds_bos(const struct qn_tokenizer *t) {
    return (void)t, 0;
}
int qn_tokenizer_adds_eos(const struct qn_tokenizer *t) {
    return (void)t, 0;
}
int64_t qn_tokenizer_find(const struct qn_tokenizer *t, const char *s, size_t n) {
    (void)t;
    for (uint32_t k = 0; k < sizeof script_special / sizeof *script_special; k++)
        if (strlen(script_special[k]) == n && !memcmp(script_special[k], s, n)) return SCRIPT_IM_START + k;
    return -1;
}

/* --- engine ------------------------------------------------------------------------------------------------------- */

struct qn_engine {
    int unused;
};
static struct qn_engine script_engine;
static const struct qn_engine_info script_info = {
    .model_name = "scripted",
    .arch = "none",
    .device = "none",
    .n_vocab = SCRIPT_VOCAB,
    .n_ctx = SCRIPT_CTX,
    .n_ctx_train = 2 * SCRIPT_CTX,
    .n_layers = 1,
    .d_model = 8,
    .max_seqs = SCRIPT_SEQS,
    .block_tokens = 16,
    .kv_blocks = 64,
    .kv_type = "f16",
    .kv_bytes = 4096,
    .n_params = 1000,
    .weight_bytes = 2000,
};

int qn_engine_open(struct qn_engine **out, const struct qn_engine_opts *o, struct qn_err *err) {
    return (void)o, (void)err, *out = &script_engine, 0;
}
void qn_engine_close(struct qn_engine *e) {
    (void)e;
}
const struct qn_engine_info *qn_engine_info(const struct qn_engine *e) {
    return (void)e, &script_info;
}
const struct qn_tokenizer *qn_engine_tokenizer(const struct qn_engine *e) {
    return (void)e, &script_tok;
}
const struct qn_token_trie *qn_engine_trie(struct qn_engine *e, struct qn_err *err) {
    static struct qn_token_trie *trie; /* of the process, like the script */
    (void)e;
    if (!trie) qn_token_trie_open(&trie, &script_tok, err);
    return trie;
}
void qn_engine_stats(const struct qn_engine *e, struct qn_engine_stats *out) {
    (void)e, *out = script.stats;
}
const char *qn_engine_lost(const struct qn_engine *e) {
    (void)e;
    return NULL;
}

void qn_engine_drain(struct qn_engine *e) {
    (void)e;
}

int qn_engine_submit(struct qn_engine *e, const struct qn_job *job, struct qn_stream **out, struct qn_err *err) {
    (void)e;
    script.submits++;
    if (script.refuse && script.submits >= script.refuse_from) return qn_fail(err, script.refuse, "scripted refusal");
    int slot = 0;
    while (slot < SCRIPT_STREAMS && script_streams[slot]) slot++;
    struct qn_stream *st = slot < SCRIPT_STREAMS ? calloc(1, sizeof *st) : NULL;
    if (!st) return QN_E_NOMEM;
    st->job = *job;
    st->first = job->prompt[0];
    script.job = *job;
    script.n_prompt = job->n_prompt < 4096 ? job->n_prompt : 4096;
    memcpy(script.prompt, job->prompt, script.n_prompt * sizeof *job->prompt);
    if (job->n_stops && job->stop_n[0] < sizeof script.stop0)
        memcpy(script.stop0, job->stop[0], job->stop_n[0]), script.stop0[job->stop_n[0]] = 0;
    script_streams[slot] = st;
    script.open++;
    *out = st;
    return 0;
}

void qn_engine_poll(struct qn_engine *e) {
    (void)e;
    for (int i = 0; i < SCRIPT_STREAMS; i++) {
        struct qn_stream *st = script_streams[i];
        if (!st) continue;
        st->released += script.per_poll ? script.per_poll : 1 << 20;
        st->job.on_news(st->job.user, st);
    }
}

static size_t script_end_of(size_t at, int k) {
    if (script.cuts) return script.cuts[k];
    size_t to = at + 1;
    while (to < script.n_text && ((unsigned char)script.text[to] & 0xC0) == 0x80) to++;
    return to;
}

static const struct qn_logprobs *script_lp(struct qn_stream *st, uint32_t id, int n) {
    st->lp = (struct qn_logprobs){.logprob = -0.25f * (float)(id % 7), .rank = id % 3, .n_top = (uint32_t)n};
    for (int i = 0; i < n; i++)
        st->lp.top[i] = (struct qn_top){(id + (uint32_t)i) % SCRIPT_VOCAB, -0.25f * (float)(id % 7) - (float)i};
    return &st->lp;
}

static int script_fill(struct qn_stream *st, struct qn_event *ev) {
    size_t whole = script.n_text - script.held;
    if (!st->started) {
        st->started = 1;
        *ev = (struct qn_event){
            .kind = QN_EV_STARTED, .n_cached = script.n_cached, .n_prompt = (int)st->job.n_prompt, .stop_index = -1, .text = ""};
        return 1;
    }
    if (st->job.prompt_logprobs >= 0 && st->scored < (int)st->job.n_prompt) {
        uint32_t id = st->scored ? 'x' : st->first;
        *ev = (struct qn_event){
            .kind = QN_EV_PROMPT, .id = id, .stop_index = -1, .text = "", .lp = script_lp(st, id, st->job.prompt_logprobs)};
        if (st->scored++ == 0) st->lp.rank = UINT32_MAX;
        return 1;
    }
    if (st->at < whole && st->job.max_tokens > 0) {
        size_t to = script_end_of(st->at, st->step);
        if (to > whole) to = whole;
        uint32_t id = (unsigned char)script.text[st->at < script.n_text ? st->at : 0];
        *ev = (struct qn_event){.kind = QN_EV_TOKEN,
                                .branch = st->branch,
                                .id = id,
                                .text = script.text + st->at,
                                .n_text = to - st->at,
                                .stop_index = -1,
                                .lp = st->job.n_logprobs >= 0 ? script_lp(st, id, st->job.n_logprobs) : NULL};
        if (++st->branch == st->job.n_branches) {
            st->branch = 0;
            st->at = to;
            st->step++;
        }
        return 1;
    }
    if (st->finished == st->job.n_branches) return 0;
    *ev = (struct qn_event){.kind = QN_EV_FINISHED,
                            .branch = st->finished++,
                            .reason = script.reason,
                            .stop_index = script.stop_index,
                            .id = script.stop_id,
                            .text = script.text ? script.text + whole : "",
                            .n_text = st->job.max_tokens > 0 ? script.held : 0,
                            .n_output = st->step};
    return 1;
}

int qn_stream_next(struct qn_stream *st, struct qn_event *ev) {
    if (st->failed || st->released <= 0) return 0;
    st->released--;
    if (script.fail_code && script.fail_at == st->scored + st->started + (int)st->at + st->branch) {
        st->failed = 1;
        *ev = (struct qn_event){.kind = QN_EV_FAILED, .code = script.fail_code, .stop_index = -1, .text = ""};
        return 1;
    }
    return script_fill(st, ev);
}

int qn_stream_ready(const struct qn_stream *st) {
    return !st->failed && st->released > 0 && !(st->started && st->finished == st->job.n_branches);
}

void qn_stream_close(struct qn_stream *st) {
    for (int i = 0; st && i < SCRIPT_STREAMS; i++)
        if (script_streams[i] == st) {
            script_streams[i] = NULL;
            script.open--;
            free(st);
            return;
        }
}

#endif
