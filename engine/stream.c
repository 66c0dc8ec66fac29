/* Text assembly and the record ring of one request (stream.h).
 *
 * Held-back text: after each token the branch's bytes are searched for stop strings; the longest suffix that could still
 * grow into one, and a character that is not complete, stay behind. What is sent is therefore final: it never contains
 * a stop string, never ends inside a character, and bytes that can never become a character leave as U+FFFD.
 *
 * A record is a header, then its log-probabilities if asked for, then its text. Records of one step for one branch are
 * bounded by record_max, which has_room() asks for before the step is planned, so writing can never fail. */
#include "engine/stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/utf8.h"
#include "engine/ends.h"

struct record {
    uint32_t kind, branch, id, n_text;
    int32_t reason, stop_index, n_output, n_cached, n_accepted, n_rejected, n_thinking;
    uint32_t has_lp;
};

/* A step writes at most a TOKEN and a FINISHED for each branch, and a PROMPT for each row that it scores. One record more
 * is counted, since the ring may give up that much at its end. */
enum { REST_FIRST = 8, REST_MOST = 256, GUESS_FIRST = 4 };
enum { SCORE_RECORD = sizeof(struct record) + sizeof(struct qn_logprobs), RECORDS_A_STEP = 2, RING_UNIT = 32 };

/* --- making and freeing ------------------------------------------------------------------------------------------ */

static size_t round16(size_t n) { return (n + 15) & ~(size_t)15; }

static const uint32_t *put_ids(char **p, const uint32_t *ids, size_t n) {
    uint32_t *to = (uint32_t *)(void *)*p;
    if (n) memcpy(to, ids, n * sizeof *ids);
    *p += round16(n * sizeof *ids);
    return to;
}

static int copy_lists(struct qn_stream *st, const struct qn_job *job, const uint32_t *ends, int n_ends) {
    size_t n_ban = job->min_tokens > 0 ? (size_t)n_ends + (size_t)job->n_stop_ids : 0;
    size_t ids = round16((size_t)job->n_stop_ids * sizeof(uint32_t));
    size_t ban = round16(n_ban * sizeof(uint32_t)), shown = round16(job->n_shown * sizeof(uint32_t)), text = 0;
    const struct qn_thinking *t = &job->thinking;
    size_t more = round16(t->on ? t->n_more * sizeof(uint32_t) : 0), hand_in = round16(t->on ? t->n_hand_in * sizeof(uint32_t) : 0);
    for (int i = 0; i < job->n_stops; i++) text += job->stop_n[i] + 1;
    if (t->on) text += t->n_open + t->n_close;
    char *p = calloc(1, ids + ban + shown + more + hand_in + text + 1);
    if (!p) return QN_E_NOMEM;
    st->copies = p;
    if (job->n_stop_ids) memcpy(p, job->stop_ids, (size_t)job->n_stop_ids * sizeof(uint32_t));
    st->job.stop_ids = (uint32_t *)(void *)p;
    p += ids;
    st->ban = (uint32_t *)(void *)p;
    st->n_ban = (uint32_t)n_ban;
    if (n_ban) {
        memcpy(st->ban, ends, (size_t)n_ends * sizeof(uint32_t));
        if (job->n_stop_ids) memcpy(st->ban + n_ends, job->stop_ids, (size_t)job->n_stop_ids * sizeof(uint32_t));
    }
    p += ban;
    st->job.shown = put_ids(&p, job->shown, job->n_shown);
    if (t->on) {
        st->job.thinking.more = put_ids(&p, t->more, t->n_more);
        st->job.thinking.hand_in = put_ids(&p, t->hand_in, t->n_hand_in);
        st->job.thinking.open = memcpy(p, t->open, t->n_open);
        st->job.thinking.close = memcpy(p + t->n_open, t->close, t->n_close);
        p += t->n_open + t->n_close;
    }
    for (int i = 0; i < job->n_stops; i++) {
        memcpy(p, job->stop[i], job->stop_n[i]);
        st->job.stop[i] = p;
        p += job->stop_n[i] + 1;
        if (job->stop_n[i] > st->stop_bytes_max) st->stop_bytes_max = (uint32_t)job->stop_n[i];
    }
    return 0;
}

static int make_branches(struct qn_stream *st, size_t piece_max) {
    st->branches = calloc((size_t)st->job.n_branches, sizeof *st->branches);
    if (!st->branches) return QN_E_NOMEM;
    uint32_t cap = st->stop_bytes_max + (uint32_t)piece_max + 16;
    char *bytes = calloc((size_t)st->job.n_branches, cap);
    if (!bytes) return QN_E_NOMEM;
    for (int i = 0; i < st->job.n_branches; i++) {
        st->branches[i].held = bytes + (size_t)i * cap;
        st->branches[i].cap = cap;
        st->branches[i].mu = 2 * st->job.sampling.mirostat_tau;
        for (int k = 0; k < st->job.n_stop_regex; k++) st->branches[i].regex[k] = qn_constraint_start(st->job.stop_regex[k]);
    }
    if (qn_guided(&st->steer)) {
        uint32_t *ahead = calloc((size_t)st->job.n_branches * QN_CERTAIN_MOST, sizeof *ahead);
        if (!ahead) return QN_E_NOMEM;
        for (int i = 0; i < st->job.n_branches; i++) {
            st->branches[i].ahead = ahead + (size_t)i * QN_CERTAIN_MOST;
            qn_guide_init(&st->branches[i].guide, &st->steer);
        }
    }
    /* Mending can turn one bad byte into three. */
    st->record_max = (uint32_t)(sizeof(struct record) + sizeof(struct qn_logprobs)) + 3 * cap + 64;
    return 0;
}

static int make_group(struct qn_stream *st, const struct qn_job *job) {
    int32_t *ids = malloc(job->n_prompt * sizeof *ids);
    if (!ids) return QN_E_NOMEM;
    for (size_t i = 0; i < job->n_prompt; i++) ids[i] = (int32_t)job->prompt[i];
    struct qn_group_spec spec = {
        .prompt = ids, .n_prompt = (int)job->n_prompt, .max_tokens = job->max_tokens, .n_branches = job->n_branches,
        .priority_class = job->priority_class, .deadline_ns = job->deadline_ns, .tenant = job->tenant, .salt = job->salt,
        .cache_prompt = job->cache_prompt, .score_prompt = job->prompt_logprobs >= 0, .user = st,
    };
    int rc = qn_group_new(&st->group, &spec);
    free(ids);
    return rc;
}

static const char *piece_of(const void *tok, uint32_t id, size_t *n) { return qn_tokenizer_piece(tok, id, n); }

int qn_stream_new(struct qn_stream **out, struct qn_engine *e, const struct qn_job *job, const struct qn_tokenizer *tok,
                  const uint32_t *ends, int n_ends, int step_rows, int n_steps) {
    struct qn_stream *st = aligned_alloc(64, (sizeof *st + 63) & ~(size_t)63); /* the ring keeps its ends on lines of their own */
    if (!st) return QN_E_NOMEM;
    memset(st, 0, sizeof *st);
    st->engine = e;
    st->job = *job;
    st->job.prompt = NULL;
    for (int i = 0; i < job->n_stop_regex; i++) qn_constraint_ref(job->stop_regex[i]);
    if (job->sampling.mirostat) st->job.speculate = 0; /* a pick must know what the one before it taught */
    int rc = qn_sampling_own(&st->job.sampling, qn_tokenizer_n_vocab(tok), piece_of, tok, &st->sampling_lists);
    if (rc == 0) rc = copy_lists(st, job, ends, n_ends);
    st->steer = (struct qn_guide_plan){.constraint = job->constraint ? qn_constraint_ref(job->constraint) : NULL, .thinking = st->job.thinking, .tok = tok,
                                         .no_jump = job->sampling.n_bad || job->sampling.allowed || (job->min_tokens > 0 && job->n_stop_ids)};
    if (rc == 0) rc = make_branches(st, qn_tokenizer_piece_max(tok));
    uint32_t ahead = qn_guided(&st->steer) ? QN_CERTAIN_STEP : 0;
    uint32_t records = (uint32_t)job->n_branches * (RECORDS_A_STEP + ahead) + 1 + (st->job.speculate ? QN_DRAFT_MOST : 0);
    st->step_bytes = records * (st->record_max + RING_UNIT);
    if (job->prompt_logprobs >= 0) st->score_bytes = (uint32_t)(step_rows + 1) * (SCORE_RECORD + RING_UNIT);
    size_t ring = 2 * ((size_t)n_steps * st->step_bytes + st->score_bytes);
    if (rc == 0) rc = qn_ring_init(&st->ring, ring > QN_STREAM_BYTES ? ring : QN_STREAM_BYTES);
    if (rc == 0) rc = make_group(st, job);
    if (rc == 0 && st->job.speculate && job->n_branches == 1 && job->max_tokens > 1) {
        st->guess = (struct qn_guesser){.draft = qn_draft_new(job->n_prompt + (size_t)job->max_tokens, job->prediction, job->n_prediction),
                                        .length = GUESS_FIRST, .penalty = REST_FIRST};
        if (!st->guess.draft) rc = QN_E_NOMEM;
    }
    if (rc < 0) qn_stream_free(st);
    else *out = st;
    return rc;
}

void qn_stream_free(struct qn_stream *st) {
    if (!st) return;
    qn_group_free(st->group);
    qn_draft_free(st->guess.draft);
    qn_ring_done(&st->ring);
    if (st->branches) {
        free(st->branches[0].held);
        free(st->branches[0].ahead);
    }
    qn_constraint_unref(st->steer.constraint);
    free(st->branches);
    for (int i = 0; i < st->job.n_stop_regex; i++) qn_constraint_unref(st->job.stop_regex[i]);
    free(st->copies);
    free(st->sampling_lists);
    free(st);
}

/* --- the engine's side ------------------------------------------------------------------------------------------- */

static int room(struct qn_stream *st, int n_steps) {
    uint64_t need = (uint64_t)n_steps * st->step_bytes;
    if (st->job.prompt_logprobs >= 0 && st->n_scored < st->group->spec.n_prompt) need += st->score_bytes;
    uint32_t used = atomic_load_explicit(&st->ring.tail, memory_order_relaxed) - atomic_load_explicit(&st->ring.head, memory_order_acquire);
    return st->ring.cap - used >= need;
}

int qn_stream_has_room(struct qn_stream *st, int n_steps) {
    if (room(st, n_steps)) return 1;
    atomic_store(&st->paused, 1);
    if (!room(st, n_steps)) return 0; /* looked again: the consumer may have made room before it could see the flag */
    atomic_store(&st->paused, 0);
    return 1;
}

/* Writes a record with `n` bytes of raw text mended to UTF-8. */
static void put(struct qn_stream *st, struct record r, const struct qn_logprobs *lp, const char *text, size_t n) {
    uint32_t fixed = (uint32_t)sizeof r + (lp ? (uint32_t)sizeof *lp : 0);
    char mended[0x4000];
    if (n > sizeof mended / 3) n = sizeof mended / 3; /* pieces are bounded far below this by the tokenizer */
    r.n_text = (uint32_t)qn_utf8_mend(text, n, mended);
    r.has_lp = lp != NULL;
    char *p = qn_ring_reserve(&st->ring, fixed + r.n_text);
    assert(p); /* has_room() was asked before the step */
    if (!p) return;
    memcpy(p, &r, sizeof r);
    if (lp) memcpy(p + sizeof r, lp, sizeof *lp);
    memcpy(p + fixed, mended, r.n_text);
    qn_ring_commit(&st->ring);
}

void qn_stream_started(struct qn_stream *st, int n_cached) {
    put(st, (struct record){.kind = QN_EV_STARTED, .n_cached = n_cached, .stop_index = -1}, NULL, "", 0);
}

void qn_stream_prompt(struct qn_stream *st, uint32_t id, const struct qn_logprobs *lp) {
    static const struct qn_logprobs none = {.rank = UINT32_MAX};
    put(st, (struct record){.kind = QN_EV_PROMPT, .id = id, .stop_index = -1}, lp ? lp : &none, "", 0);
    st->n_scored++;
}

/* The earliest stop string in the held bytes, looked for where the newest n_new bytes take part. */
static int find_stop(const struct qn_stream *st, const struct qn_branch *b, uint32_t n_new, uint32_t *at) {
    int found = -1;
    for (int i = 0; i < st->job.n_stops; i++) {
        uint32_t n = (uint32_t)st->job.stop_n[i], from = b->n_held - n_new;
        if (b->n_held < n) continue;
        from = from > n - 1 ? from - (n - 1) : 0;
        for (uint32_t p = from; p + n <= b->n_held && (found < 0 || p < *at); p++)
            if (!memcmp(b->held + p, st->job.stop[i], n)) {
                found = i;
                *at = p;
                break;
            }
    }
    return found;
}

/* How many of the last held bytes could be the start of a stop string. */
static uint32_t hold_for_stops(const struct qn_stream *st, const struct qn_branch *b) {
    uint32_t hold = 0;
    for (int i = 0; i < st->job.n_stops; i++) {
        uint32_t most = (uint32_t)st->job.stop_n[i] - 1;
        if (most > b->n_held) most = b->n_held;
        for (uint32_t k = most; k > hold; k--)
            if (!memcmp(b->held + b->n_held - k, st->job.stop[i], k)) {
                hold = k;
                break;
            }
    }
    return hold;
}

static int is_stop_id(const struct qn_job *j, uint32_t id) {
    for (int i = 0; i < j->n_stop_ids; i++)
        if (j->stop_ids[i] == id) return 1;
    return 0;
}

static int is_shown(const struct qn_job *j, uint32_t id) {
    for (size_t i = 0; i < j->n_shown; i++)
        if (j->shown[i] == id) return 1;
    return 0;
}

static void put_finished(struct qn_stream *st, int branch, enum qn_finish reason, int stop_index, uint32_t id, const char *text, size_t n) {
    struct qn_branch *b = &st->branches[branch];
    put(st, (struct record){.kind = QN_EV_FINISHED, .branch = (uint32_t)branch, .id = id, .reason = (int32_t)reason,
                            .stop_index = stop_index, .n_output = b->n_output,
                            .n_thinking = b->guide.phase == QN_PHASE_BEFORE ? 0 : b->guide.n_thinking,
                            .n_accepted = b->n_accepted, .n_rejected = b->n_drafted - b->n_accepted}, NULL, text, n);
    b->done = 1;
}

/* The last record of text, and the end. Returns the reason. */
static int end_with(struct qn_stream *st, struct record r, const struct qn_logprobs *lp, uint32_t n_text, enum qn_finish reason, int index) {
    put(st, r, lp, st->branches[r.branch].held, n_text);
    put_finished(st, (int)r.branch, reason, index, 0, "", 0);
    return (int)reason;
}

/* The token's text joins what is held; returns how many bytes. */
static uint32_t hold(struct qn_branch *b, const struct qn_job *j, uint32_t id, const struct qn_tokenizer *tok) {
    size_t n_piece = 0;
    const char *piece = qn_tokenizer_piece(tok, id, &n_piece);
    enum qn_token_kind kind = qn_tokenizer_kind(tok, id);
    if (j->hide_special && (kind == QN_TOKEN_CONTROL || kind == QN_TOKEN_UNKNOWN || kind == QN_TOKEN_UNUSED) && !is_shown(j, id)) return 0;
    if (n_piece > b->cap - b->n_held) n_piece = b->cap - b->n_held;
    memcpy(b->held + b->n_held, piece, n_piece);
    b->n_held += (uint32_t)n_piece;
    return (uint32_t)n_piece;
}

/* A match before min_tokens is none: the search begins anew. */
static int find_regex(const struct qn_stream *st, struct qn_branch *b, uint32_t n_new, uint32_t *at) {
    const struct qn_job *j = &st->job;
    size_t used = 0;
    int i = qn_ends_regex(j->stop_regex, j->n_stop_regex, b->regex, b->held + b->n_held - n_new, n_new, &used);
    *at = b->n_held - n_new + (uint32_t)used;
    if (i < 0 || b->n_output > j->min_tokens) return i;
    for (int k = 0; k < j->n_stop_regex; k++) b->regex[k] = qn_constraint_start(j->stop_regex[k]);
    return -1;
}

static int repeats(const struct qn_stream *st, int branch, uint32_t id) {
    const struct qn_branch *b = &st->branches[branch];
    if (!st->job.repetition.max_size || b->n_output <= st->job.min_tokens) return 0;
    return qn_ends_repeat(&st->job.repetition, st->group->seqs[branch].tokens + st->group->spec.n_prompt, (size_t)b->n_output - 1, (int32_t)id);
}

int qn_stream_token(struct qn_stream *st, int branch, uint32_t id, const struct qn_logprobs *lp, const struct qn_tokenizer *tok) {
    struct qn_branch *b = &st->branches[branch];
    const struct qn_job *j = &st->job;
    int n_out = ++b->n_output;
    struct record r = {.kind = QN_EV_TOKEN, .branch = (uint32_t)branch, .id = id, .stop_index = -1};
    if (is_stop_id(j, id) || (!j->ignore_eos && qn_tokenizer_ends(tok, id))) {
        if (j->keep_stop) hold(b, j, id, tok);
        put(st, r, lp, "", 0);
        put_finished(st, branch, QN_FINISH_STOP, -1, id, b->held, b->n_held);
        return QN_FINISH_STOP;
    }
    uint32_t n_piece = hold(b, j, id, tok), at = 0;
    int stop = n_out > j->min_tokens ? find_stop(st, b, n_piece, &at) : -1;
    if (stop >= 0) return end_with(st, r, lp, at + (j->keep_stop ? (uint32_t)j->stop_n[stop] : 0), QN_FINISH_STOP_STRING, stop);
    if (j->n_stop_regex && (stop = find_regex(st, b, n_piece, &at)) >= 0) return end_with(st, r, lp, at, QN_FINISH_STOP_REGEX, stop);
    if (n_out >= j->max_tokens) return end_with(st, r, lp, b->n_held, QN_FINISH_LENGTH, -1);
    if (repeats(st, branch, id)) return end_with(st, r, lp, b->n_held, QN_FINISH_REPETITION, -1);
    uint32_t send = b->n_held - hold_for_stops(st, b);
    if (send == b->n_held) send = (uint32_t)qn_utf8_whole(b->held, send);
    put(st, r, lp, b->held, send);
    memmove(b->held, b->held + send, b->n_held - send);
    b->n_held -= send;
    return -1;
}

void qn_stream_finish(struct qn_stream *st, int branch, enum qn_finish reason) {
    put_finished(st, branch, reason, -1, UINT32_MAX, st->branches[branch].held, st->branches[branch].n_held);
}

/* --- certain tokens ------------------------------------------------------------------------------------------------ */

int qn_stream_certain(const struct qn_stream *st, int branch) {
    uint32_t n = st->branches[branch].guide.n_certain;
    return n > QN_CERTAIN_STEP ? QN_CERTAIN_STEP : (int)n;
}

int qn_stream_take_certain(struct qn_stream *st, int branch, int32_t *out, int most) {
    const struct qn_guide *g = &st->branches[branch].guide;
    int n = qn_stream_certain(st, branch);
    if (n > most) n = most;
    for (int i = 0; i < n; i++) out[i] = (int32_t)g->certain[i];
    return n;
}

/* --- guessing ------------------------------------------------------------------------------------------------------ */

int qn_stream_guess(struct qn_stream *st, const int32_t *tokens, size_t n, int32_t *out, int most) {
    struct qn_guesser *g = &st->guess;
    if (!g->draft) return 0;
    if (g->rest > 0) {
        g->rest--;
        return 0;
    }
    qn_draft_feed(g->draft, tokens, n);
    return qn_draft_guess(g->draft, out, most < g->length ? most : g->length);
}

int qn_stream_guesses(const struct qn_stream *st) { return st->guess.draft && st->guess.rest == 0; }

void qn_stream_rested(struct qn_stream *st) { st->guess.rest -= st->guess.rest > 0; }

/* Longer while all comes true; where little does, a rest that doubles, so that text which only looks repetitive costs
 * almost nothing. */
void qn_stream_guessed(struct qn_stream *st, int n_drafted, int n_accepted) {
    struct qn_guesser *g = &st->guess;
    if (n_accepted == n_drafted) {
        g->length = g->length * 2 < QN_DRAFT_MOST ? g->length * 2 : QN_DRAFT_MOST;
        g->penalty = REST_FIRST;
    } else if (n_accepted * 3 < n_drafted) {
        g->length = GUESS_FIRST;
        g->rest = g->penalty;
        g->penalty = g->penalty * 2 < REST_MOST ? g->penalty * 2 : REST_MOST;
    } else {
        g->length = n_accepted + 1;
    }
}

/* --- the consumer's side ------------------------------------------------------------------------------------------ */

int qn_stream_ready(const struct qn_stream *st) {
    struct qn_stream *s = (struct qn_stream *)(uintptr_t)st;
    return !qn_ring_empty(&s->ring) || (atomic_load(&s->failed) && !s->fail_told);
}

int qn_stream_next(struct qn_stream *st, struct qn_event *ev) {
    if (st->peeked) {
        st->peeked = 0;
        qn_ring_consume(&st->ring);
        if (atomic_load_explicit(&st->paused, memory_order_relaxed) && atomic_exchange(&st->paused, 0)) qn_engine_nudge(st->engine);
    }
    uint32_t n;
    const char *p = qn_ring_peek(&st->ring, &n);
    int failed = p ? 0 : atomic_load(&st->failed);
    if (!p && failed) p = qn_ring_peek(&st->ring, &n); /* what was written just before it failed */
    if (p) {
        struct record r;
        memcpy(&r, p, sizeof r);
        *ev = (struct qn_event){
            .kind = (enum qn_event_kind)r.kind, .branch = (int)r.branch, .id = r.id, .n_text = r.n_text,
            .text = p + sizeof r + (r.has_lp ? sizeof(struct qn_logprobs) : 0),
            .lp = r.has_lp ? (const struct qn_logprobs *)(const void *)(p + sizeof r) : NULL,
            .reason = (enum qn_finish)r.reason, .stop_index = r.stop_index, .n_cached = r.n_cached,
            .n_prompt = st->group->spec.n_prompt, .n_output = r.n_output, .n_accepted = r.n_accepted, .n_rejected = r.n_rejected,
            .n_thinking = r.n_thinking,
        };
        st->peeked = 1;
        st->n_finished += r.kind == QN_EV_FINISHED;
        return 1;
    }
    if (!failed || st->fail_told || st->n_finished == st->job.n_branches) return 0;
    st->fail_told = 1;
    *ev = (struct qn_event){.kind = QN_EV_FAILED, .code = failed, .stop_index = -1, .text = ""};
    return 1;
}
