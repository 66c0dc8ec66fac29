/* The scheduler and the block cache under a fake clock and a fake model, through many seeds.
 *
 * The fake model writes into each KV slot the hash of the token chain that the slot stands for (chained from the salt, or
 * from the request itself when it must not share). Each step all rows are written first and all reads checked after, as a
 * layer of a real model does; a row reads every slot before it through its block table and derives the next token from
 * what it FOUND there. So a block that is shared, copied, evicted or reused wrongly shows as a wrong slot at once and as
 * a wrong token in the end: tokens must be those of the same request alone, whatever was planned or guessed around it.
 *
 * In some seeds tokens are read late, as from a device that goes on by itself: the scheduler gets a stand-in, the next step is planned and
 * carried out, and only then the token is told; what a step reads of the one before it reads as a device would, by the stand-in's number.
 *
 * QN_SEEDS: how many seeds (10,000). QN_SEED: only this one. A failure prints its seed. */
#include "engine/sched.h"
#include "tests/run.h"

#include <stdlib.h>

enum { REQS_MAX = 96, BLOCKS_MAX = 96, BT_MAX = 16, CTX = 160, ROWS_FREE = 2 /* of a prefill that no budget takes away */, VOCAB = 3, STEPS_MAX = 60000 };

static uint64_t mix(uint64_t a, uint64_t b) { /* splitmix64's finaliser over both */
    uint64_t z = a * 0x9E3779B97F4A7C15ULL + b + 0x632BE59BD9B4E019ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

struct req {
    struct qn_group *g;      /* NULL: gone */
    uint64_t root;           /* where its chain of hashes starts */
    int n_prompt, max_tokens, n_branches, score, n_scored, cache;
    int n_out[QN_BRANCHES_MAX], finished[QN_BRANCHES_MAX], finishes;
    int64_t deadline_ns, arrived_ns;
    int held;                /* its reader is slow now */
    int started, admitted;
    int32_t prompt[CTX];
};

struct flying {              /* a token that was drawn and not told yet */
    struct req *r;
    struct qn_seq *q;
    int branch;
    uint64_t found;
};

struct sim {
    uint64_t seed, n_draws, twin_family;
    int twins, twin_rate;    /* still to come of one family; how often a family starts */
    struct qn_sched_cfg cfg;
    struct qn_kvcache *kv;
    struct qn_sched *s;
    struct req reqs[REQS_MAX];
    int n_reqs, n_blocks;
    int64_t now;
    uint64_t slots[BLOCKS_MAX][BT_MAX]; /* what the fake model's KV memory holds */
    int hold_prefill_rate, holding; /* plans that are to be without prefill */
    int preempt_every, hold_rate, cancel_rate;
    struct flying flight[64];
    int32_t feed[64];        /* the same as the device has them; stand-in -1 - i is feed[i] */
    int n_flight, late_rate; /* steps of 100 whose tokens are told late */
    uint64_t late, in_vain;  /* tokens told late; drawn for a branch that had ended */
    int guess_right;         /* per cent of the drafted tokens that are the true ones */
    uint64_t steps, rows, guessed, taken, certain;
};

static struct sim *M;
static char why[256];

static uint64_t draw(uint64_t n) { return n ? mix(M->seed, ++M->n_draws) % n : 0; }
static int chance(int per_cent) { return (int)draw(100) < per_cent; }

#define FAIL(...) return (snprintf(why, sizeof why, __VA_ARGS__), 0)

static int may_run(const struct qn_seq *q) {
    const struct req *r = q->group->spec.user;
    return !r->held;
}

static int32_t next_token(const struct req *r, uint64_t found, int branch) {
    return (int32_t)(mix(found, mix(r->root, (uint64_t)branch * 7 + 1)) % VOCAB);
}

/* The length is a property of the request too: an early end by "EOS". */
static int ends(const struct req *r, uint64_t found, int branch) {
    return mix(found ^ 0x55, mix(r->root, (uint64_t)branch)) % 24 == 0;
}

/* How many tokens are certain behind these: a matter of the request and of how far it is. */
static int n_certain(const struct qn_seq *q, int *logits) {
    const struct req *r = q->group->spec.user;
    uint64_t h = mix(r->root, (uint64_t)q->n_tokens * 3 + (uint64_t)q->branch);
    *logits = (int)(r->root >> 5 & 1);
    return M->cfg.certain && h % 4 == 0 ? 1 + (int)(h / 4 % 16) : 0;
}

static int certain(const struct qn_seq *q, int *logits) {
    if (qn_sched_is_late(q)) abort();
    return n_certain(q, logits);
}

/* Guesses what follows: the truth, as often as this seed says, else anything; or what is certain. */
static int draft(const struct qn_seq *q, int32_t *out, int most) {
    const struct req *r = q->group->spec.user;
    uint64_t h = r->root, found = r->root;
    int logits, sure = n_certain(q, &logits), n = sure ? (most < sure ? most : sure) : (int)draw((uint64_t)most + 1);
    if (qn_sched_is_late(q)) abort(); /* nobody can guess what follows a token that nobody knows */
    for (int p = 0; p < q->n_tokens + n; p++) {
        if (p >= q->n_tokens) out[p - q->n_tokens] = sure || chance(M->guess_right) ? next_token(r, found, q->branch) : (int32_t)draw(VOCAB);
        h = mix(h, (uint64_t)(p < q->n_tokens ? q->tokens[p] : out[p - q->n_tokens]));
        found = mix(found, h);
    }
    *(sure ? &M->certain : &M->guessed) += (uint64_t)n;
    return n;
}

static void setup(uint64_t seed) {
    memset(M, 0, sizeof *M);
    M->seed = seed;
    struct qn_sched_cfg *c = &M->cfg;
    c->block_tokens = chance(50) ? 8 : 16;
    c->seqs_max = 1 + (int)draw(chance(50) ? 4 : 12);
    c->step_rows_max = c->seqs_max + 1 + (int)draw(chance(50) ? 8 : chance(50) ? 64 : 300);
    c->prefill_chunk_max = chance(50) ? 0 : 1 + (int)draw(24);
    c->row_ctx = chance(50) ? 0 : 1 + (int)draw(chance(50) ? 20 : 300);
    c->waiting_max = 2 + (int)draw(30);
    c->waiting_tokens_max = chance(30) ? 200 + (int64_t)draw(1000) : 0;
    c->wait_ns_max = chance(20) ? 200000000 : 0;
    c->age_ns = chance(20) ? -1 : (int64_t)(1 + draw(400)) * 1000000;
    c->n_ctx = CTX;
    c->may_run = may_run;
    c->draft = chance(40) ? draft : NULL;
    c->certain = c->draft && chance(50) ? certain : NULL;
    c->draft_rows_max = (int)draw(24);
    M->guess_right = (int)draw(101);
    M->twin_rate = chance(50) ? (int)draw(60) : 0;
    int least = CTX / c->block_tokens + 1;
    M->n_blocks = chance(50) ? least / 2 + (int)draw((uint64_t)least) : least + (int)draw((uint64_t)(BLOCKS_MAX - least));
    if (chance(25) && c->seqs_max > 3) c->reserved_seqs[draw(3)] = 1 + (int)draw(2);
    if (chance(25)) c->reserved_blocks[draw(3)] = 1 + (int)draw((uint64_t)(M->n_blocks / 4));
    M->late_rate = chance(50) ? 0 : chance(50) ? 100 : (int)draw(101);
    M->preempt_every = chance(30) ? 1 + (int)draw(10) : 0;
    M->hold_prefill_rate = chance(30) ? (int)draw(40) : 0;
    M->hold_rate = chance(40) ? (int)draw(20) : 0;
    M->cancel_rate = chance(50) ? (int)draw(6) : 0;
    uint64_t secret[2] = {mix(seed, 1), mix(seed, 2)};
    if (qn_kvcache_open(&M->kv, M->n_blocks, c->block_tokens, secret) < 0 || qn_sched_open(&M->s, c, M->kv) < 0) abort();
}

static int arrive(void) {
    struct req *r = &M->reqs[M->n_reqs++];
    r->n_prompt = 1 + (int)draw(chance(70) ? 40 : 110);
    r->max_tokens = chance(5) ? 0 : 1 + (int)draw(chance(70) ? 20 : (uint64_t)(CTX - r->n_prompt));
    if (r->n_prompt + r->max_tokens > CTX) r->max_tokens = CTX - r->n_prompt;
    r->n_branches = chance(75) ? 1 : 1 + (int)draw(chance(80) ? 4 : 20);
    r->score = r->max_tokens == 0 || chance(8);
    r->cache = chance(85);
    uint64_t salt = draw(2), family = draw(3);
    if (chance(M->twin_rate) || M->twins > 0) { /* several come together, with one prefix that nobody had before */
        if (M->twins == 0) M->twins = 1 + (int)draw(5), M->twin_family++;
        M->twins--;
        family = 100 + M->twin_family;
        salt = M->twin_family % 2;
        r->n_prompt = 24 + (int)draw(70);
        if (r->n_prompt + r->max_tokens > CTX) r->max_tokens = CTX - r->n_prompt;
    }
    r->root = r->cache ? mix(salt, 77) : mix((uint64_t)M->n_reqs, M->seed);
    int shared = family >= 100 ? r->n_prompt - (int)draw(8) : (int)draw((uint64_t)r->n_prompt + 1); /* a prefix that many have, then its own */
    for (int i = 0; i < r->n_prompt; i++)
        r->prompt[i] = (int32_t)(i < shared ? mix(family, (uint64_t)i) % VOCAB : draw(VOCAB));
    r->arrived_ns = M->now;
    r->deadline_ns = chance(15) ? M->now + (int64_t)(1 + draw(800)) * 1000000 : 0;
    struct qn_group_spec spec = {.prompt = r->prompt, .n_prompt = r->n_prompt, .max_tokens = r->max_tokens, .n_branches = r->n_branches,
        .priority_class = (int)draw(QN_CLASSES), .deadline_ns = r->deadline_ns, .tenant = draw(4), .salt = salt,
        .cache_prompt = r->cache, .score_prompt = r->score, .user = r};
    if (qn_group_new(&r->g, &spec) < 0) FAIL("no group");
    struct qn_sched_counts n;
    qn_sched_counts(M->s, &n);
    int rc = qn_sched_admit(M->s, r->g, M->now);
    if (rc == 0) {
        r->admitted = 1;
        return 1;
    }
    qn_group_free(r->g);
    r->g = NULL;
    int bt = M->cfg.block_tokens, need = (r->n_prompt + (r->max_tokens ? r->max_tokens - 1 : 0) + bt - 1) / bt, kept = 0;
    for (int k = 0; k < spec.priority_class; k++) kept += M->cfg.reserved_blocks[k];
    if (rc == QN_E_TOO_LONG && need <= M->n_blocks - kept) FAIL("refused as too long: %d of %d - %d blocks", need, M->n_blocks, kept);
    if (rc == QN_E_FULL && n.waiting < M->cfg.waiting_max &&
        (M->cfg.waiting_tokens_max == 0 || n.waiting_tokens + r->n_prompt <= M->cfg.waiting_tokens_max))
        FAIL("refused as full: %d waiting", n.waiting);
    if (rc != QN_E_FULL && rc != QN_E_TOO_LONG) FAIL("admit says %s", qn_err_name(rc));
    return 1;
}

/* ---- one step of the fake model ---- */

static uint64_t *slot(const struct qn_seq *q, int pos) {
    return &M->slots[q->blocks[pos / M->cfg.block_tokens]][pos % M->cfg.block_tokens];
}

static uint64_t token_of(const struct qn_seq *q, int p) {
    int32_t t = q->tokens[p];
    return (uint64_t)(t < 0 ? M->feed[-1 - t] : t);
}

static void write_rows(const struct qn_plan_item *it) {
    const struct req *r = it->seq->group->spec.user;
    uint64_t h = r->root;
    for (int p = 0; p < it->start + it->n_rows; p++) {
        h = mix(h, token_of(it->seq, p));
        if (p >= it->start) *slot(it->seq, p) = h;
    }
}

/* What the last row finds, and what each row before it that is to be sampled too; 0: some slot does not hold this seq's
 * own prefix. */
static int read_rows(const struct qn_plan_item *it, uint64_t *found) {
    const struct req *r = it->seq->group->spec.user;
    uint64_t h = r->root, f = r->root;
    for (int p = 0; p < it->start + it->n_rows; p++) {
        h = mix(h, token_of(it->seq, p));
        if (*slot(it->seq, p) != h) return 0;
        f = mix(f, *slot(it->seq, p));
        int k = p - (it->start + it->n_rows - 1 - it->n_draft);
        if (k >= 0) found[k] = f;
    }
    return 1;
}

static int is_decode(const struct qn_plan_item *it) { return it->seq->state == QN_SEQ_DECODE; }

/* `a` starts on at least two whole blocks that `b`, planned before it, computes in the same step, and might share them. */
static int computes_again(const struct qn_plan_item *a, const struct qn_plan_item *b) {
    const struct req *r = a->seq->group->spec.user, *s = b->seq->group->spec.user;
    int bt = M->cfg.block_tokens, to = a->start + 2 * bt;
    return !is_decode(a) && !is_decode(b) && r->cache && s->cache && !r->score && a->seq->group->spec.salt == b->seq->group->spec.salt &&
           a->start % bt == 0 && b->start <= a->start && b->start + b->n_rows >= to && a->start + a->n_rows > to &&
           !memcmp(a->seq->tokens, b->seq->tokens, (size_t)to * sizeof(int32_t));
}

static int check_items(const struct qn_plan *p) {
    int64_t prefill_cost = 0;
    int rows = 0, prefill_rows = 0, n_decodes = 0, decode_rows = 0, sure_rows = 0;
    for (int i = 0; i < p->n_items; i++) {
        const struct qn_plan_item *it = &p->items[i];
        const struct qn_seq *q = it->seq;
        struct req *r = q->group->spec.user;
        if (r->g != q->group) FAIL("an item of a group that is gone");
        if (r->held) FAIL("an item of a seq that may not run");
        if (it->n_rows < 1 || it->start != q->n_computed || (it->n_draft && it->start != q->n_tokens - 1))
            FAIL("rows %d+%d of %d, computed %d", it->start, it->n_rows, q->n_tokens, q->n_computed);
        if (it->start + it->n_rows > q->n_tokens + it->n_draft || q->n_tokens + it->n_draft >= r->n_prompt + r->max_tokens + !it->n_draft)
            FAIL("%d guesses behind %d tokens", it->n_draft, q->n_tokens);
        if (it->start + it->n_rows > q->n_blocks * M->cfg.block_tokens) FAIL("rows without blocks");
        if (qn_sched_is_late(q) && -1 - q->tokens[q->n_tokens - 1] >= M->n_flight) FAIL("a stand-in of no draw");
        for (int k = 0; k < i; k++)
            if (p->items[k].seq == q) FAIL("a seq is planned twice");
        for (int b = it->start / M->cfg.block_tokens; b * M->cfg.block_tokens < it->start + it->n_rows; b++)
            if (!qn_kvcache_writable(M->kv, q->blocks[b])) FAIL("rows go to a block that others see");
        rows += it->n_rows;
        int wants_logits = 1, sure = is_decode(it) && it->n_draft ? n_certain(q, &wants_logits) : 0;
        if (is_decode(it)) {
            if (it->n_rows != 1 + it->n_draft || it->logits != (sure && !wants_logits ? 1 : it->n_rows) || !it->sample) FAIL("a decode of %d rows, %d logits", it->n_rows, it->logits);
            if (sure && it->n_draft > sure) FAIL("%d tokens where %d are certain", it->n_draft, sure);
            decode_rows += sure ? 1 : it->n_rows;
            sure_rows += sure ? it->n_draft : 0;
            if (prefill_rows) FAIL("a decode behind a prefill");
            n_decodes++;
        } else {
            prefill_rows += it->n_rows;
            prefill_cost += (int64_t)it->n_rows * (M->cfg.row_ctx + it->start);
        }
        if (r->score && it->start < r->n_prompt) {
            int to = it->start + it->n_rows;
            if (it->start == 0 && q->group->n_cached) FAIL("a scored prompt took prefix hits");
            if (to <= r->n_scored && it->logits > it->sample) FAIL("prompt rows scored twice");
            if (to > r->n_scored) {
                if (it->start != r->n_scored || to > r->n_prompt || it->logits != it->n_rows) FAIL("prompt rows %d+%d not scored", it->start, it->n_rows);
                r->n_scored = to;
            }
        } else if (it->logits != it->sample + (sure && !wants_logits ? 0 : it->n_draft)) {
            FAIL("%d logits of which %d sampled", it->logits, it->sample);
        }
    }
    if (rows != p->n_rows || rows > M->cfg.step_rows_max) FAIL("%d rows, said %d, budget %d", rows, p->n_rows, M->cfg.step_rows_max);
    if (n_decodes && M->cfg.prefill_chunk_max && prefill_rows + sure_rows > M->cfg.prefill_chunk_max) FAIL("%d prefill and certain rows beside decodes", prefill_rows + sure_rows);
    if (n_decodes && M->cfg.prefill_chunk_max && M->cfg.row_ctx && prefill_rows > ROWS_FREE &&
        prefill_cost > (int64_t)M->cfg.prefill_chunk_max * M->cfg.row_ctx)
        FAIL("prefill rows that cost %lld of %d x %d", (long long)prefill_cost, M->cfg.prefill_chunk_max, M->cfg.row_ctx);
    if (M->holding && n_decodes && prefill_rows) FAIL("%d prefill rows in a step without", prefill_rows);
    if (p->n_items > M->cfg.seqs_max) FAIL("%d items", p->n_items);
    for (int i = 0; i < p->n_items; i++)
        for (int k = 0; k < i; k++)
            if (computes_again(&p->items[i], &p->items[k])) FAIL("rows from %d are computed twice in one step", p->items[i].start);
    if (decode_rows > n_decodes && decode_rows > M->cfg.draft_rows_max) FAIL("%d rows of decodes and guesses", decode_rows);
    M->rows += (uint64_t)rows;
    return 1;
}

static int do_drops(const struct qn_plan *p) {
    for (int i = 0; i < p->n_drops; i++) {
        struct req *r = p->drops[i].group->spec.user;
        if (p->drops[i].reason == QN_DROP_NO_BLOCKS) FAIL("dropped for want of blocks that it was promised");
        if (p->drops[i].reason == QN_DROP_DEADLINE && (r->deadline_ns == 0 || M->now < r->deadline_ns)) FAIL("dropped before its deadline");
        if (p->drops[i].reason == QN_DROP_WAIT && (r->started || M->now < r->arrived_ns + M->cfg.wait_ns_max)) FAIL("dropped before its time");
        qn_group_free(r->g);
        r->g = NULL;
    }
    for (int i = 0; i < p->n_started; i++) {
        struct req *r = p->started[i]->spec.user;
        if (r->started++) FAIL("started twice");
    }
    return 1;
}

/* Tokens so far are those of this request alone. */
static int check_output(const struct req *r, const struct qn_seq *q) {
    uint64_t h = r->root, found = r->root;
    for (int p = 0; p < q->n_tokens - qn_sched_is_late(q); p++) {
        if (p >= r->n_prompt && q->tokens[p] != next_token(r, found, q->branch)) FAIL("token %d of branch %d depends on the plan", p, q->branch);
        if (p < r->n_prompt && q->tokens[p] != r->prompt[p]) FAIL("the prompt changed");
        h = mix(h, (uint64_t)q->tokens[p]);
        found = mix(found, h);
    }
    return 1;
}

static int give(struct req *r, struct qn_seq *q, uint64_t found, int late) {
    int b = q->branch;
    if (!late && (q->state != QN_SEQ_DECODE || q->n_computed != q->n_tokens)) FAIL("a token for a branch that is not there yet");
    if (r->finished[b]) FAIL("a token after the finish");
    if (q->n_tokens - qn_sched_is_late(q) - r->n_prompt != r->n_out[b]) FAIL("a branch lost tokens");
    int32_t t = next_token(r, found, b);
    r->n_out[b]++;
    if (r->n_out[b] == r->max_tokens || ends(r, found, b)) {
        if (!check_output(r, q)) return 0;
        r->finished[b] = 1;
        r->finishes++;
        int last = qn_sched_finish(M->s, q);
        if (last != (r->finishes == r->n_branches)) FAIL("the last branch's end is not told");
        if (last) {
            qn_group_free(r->g);
            r->g = NULL;
        }
        return 1;
    }
    qn_sched_append(M->s, q, t);
    return 1;
}

/* of[i]: whose item i is. Draws that were told meanwhile, if any, may have ended some. */
static int sample(const struct qn_plan *p, uint64_t found[][CTX], struct req *const *of, int told) {
    for (int i = 0; i < p->n_items; i++) {
        const struct qn_plan_item *it = &p->items[i];
        struct req *r = of[i];
        struct qn_group *g = r->g;
        if (!g || !it->sample || (!it->fork && r->finished[it->seq->branch])) continue;
        if (!it->fork) {
            int32_t guess[CTX];
            int logits, sure = n_certain(it->seq, &logits);
            for (int k = 0; k < it->n_draft; k++) guess[k] = it->seq->tokens[it->start + 1 + k];
            for (int k = 0; k <= it->n_draft; k++) {
                int at = it->seq->n_tokens;
                M->taken += k > 0 && !sure;
                if (!give(r, it->seq, found[i][k], 0)) return 0;
                if (!r->g || r->finished[it->seq->branch] || k == it->n_draft || it->seq->tokens[at] != guess[k]) break;
            }
            continue;
        }
        int n = 0;
        for (int b = 0; r->g && b < r->n_branches; b++) {
            if (r->finished[b]) {
                n += told; /* it ended just now, perhaps */
            } else if (qn_sched_first(&g->seqs[b])) {
                n++;
                if (!give(r, &g->seqs[b], found[i][0], 0)) return 0;
            }
        }
        if (n == 0) FAIL("a fork without a branch to sample");
    }
    for (int i = 0; i < p->n_items; i++) { /* score only */
        struct req *r = NULL;
        for (int k = 0; k < M->n_reqs; k++)
            if (M->reqs[k].g && M->reqs[k].max_tokens == 0 && p->items[i].seq >= M->reqs[k].g->seqs &&
                p->items[i].seq < M->reqs[k].g->seqs + M->reqs[k].n_branches)
                r = &M->reqs[k];
        if (!r || p->items[i].seq->state != QN_SEQ_DECODE) continue;
        if (r->n_scored != r->n_prompt) FAIL("prompt done, %d of %d rows scored", r->n_scored, r->n_prompt);
        for (int b = 0; b < r->n_branches; b++)
            if (qn_sched_finish(M->s, &r->g->seqs[b])) {
                qn_group_free(r->g);
                r->g = NULL;
                break;
            }
        if (r->g) FAIL("a scored prompt does not end");
    }
    return 1;
}

/* ---- tokens that are told late ---- */

static int may_be_late(const struct qn_plan *p) {
    for (int i = 0; i < p->n_items; i++) {
        const struct req *r = p->items[i].seq->group->spec.user;
        if (p->items[i].n_draft || r->score || r->max_tokens == 0) return 0;
    }
    return chance(M->late_rate);
}

static void fly(struct flying *to, int *n, struct qn_seq *q, uint64_t found) {
    to[(*n)++] = (struct flying){.r = q->group->spec.user, .q = q, .branch = q->branch, .found = found};
}

/* What this step draws, in the order of its rows. */
static int draws(const struct qn_plan *p, uint64_t found[][CTX], struct flying *to) {
    int n = 0;
    for (int i = 0; i < p->n_items; i++) {
        const struct qn_plan_item *it = &p->items[i];
        struct qn_group *g = it->seq->group;
        if (it->sample && !it->fork) fly(to, &n, it->seq, found[i][0]);
        for (int b = 0; it->sample && it->fork && b < g->spec.n_branches; b++)
            if (qn_sched_first(&g->seqs[b])) fly(to, &n, &g->seqs[b], found[i][0]);
    }
    return n;
}

/* The draws of the step before are read: tells them, but for branches that are gone. */
static int land(void) {
    for (int i = 0; i < M->n_flight; i++) {
        struct flying *f = &M->flight[i];
        if (!f->r->g || f->r->finished[f->branch]) M->in_vain++;
        else if (!give(f->r, f->q, f->found, 1)) return 0;
    }
    M->late += (uint64_t)M->n_flight;
    M->n_flight = 0;
    return 1;
}

/* The step that was just carried out takes the place of the one before, whose draws are read. */
static int go_on(const struct qn_plan *p, uint64_t found[][CTX]) {
    static struct flying next[64];
    static struct req *of[64];
    for (int i = 0; i < p->n_items; i++) of[i] = p->items[i].seq->group->spec.user;
    int late = may_be_late(p), n = late ? draws(p, found, next) : 0, told = M->n_flight > 0;
    if (!land()) return 0;
    if (!late) return sample(p, found, of, told);
    for (int i = 0; i < n; i++) {
        struct flying *f = &next[i];
        M->feed[i] = next_token(f->r, f->found, f->branch);
        M->flight[i] = *f;
        if (f->r->g && !f->r->finished[f->branch] && f->q->n_tokens + 1 < f->r->n_prompt + f->r->max_tokens) qn_sched_append_late(f->q, -1 - i);
    }
    M->n_flight = n;
    return 1;
}

static int live_and_free(void) { /* requests that could go on */
    int n = 0;
    for (int i = 0; i < M->n_reqs; i++) n += M->reqs[i].g && !M->reqs[i].held;
    return n;
}

static int held_now(void) {
    int n = 0;
    for (int i = 0; i < M->n_reqs; i++) n += M->reqs[i].g && M->reqs[i].held;
    return n;
}

static int step(void) {
    static uint64_t found[64][CTX];
    M->holding = M->hold_prefill_rate && chance(M->hold_prefill_rate);
    if (M->holding) qn_sched_hold_prefill(M->s);
    const struct qn_plan *p = qn_sched_plan(M->s, M->now);
    M->steps++;
    if (!do_drops(p) || !check_items(p)) return 0;
    if (p->n_items == 0) {
        if (M->n_flight) return land();
        if (M->holding) return 1;
        if (live_and_free() && !held_now()) FAIL("nothing is planned though %d could run", live_and_free());
        if (p->wake_ns && p->wake_ns <= M->now) FAIL("wake in the past");
        /* Whoever is held holds up others for a bounded time: the plan says until when. */
        if (live_and_free() && !p->wake_ns) FAIL("work waits behind held readers and no time to wake");
        M->now = p->wake_ns && chance(50) ? p->wake_ns : M->now + 5000000;
        return 1;
    }
    for (int i = 0; i < p->n_copies; i++)
        memcpy(M->slots[p->copies[i].to], M->slots[p->copies[i].from], (size_t)p->copies[i].n_tokens * sizeof(uint64_t));
    for (int i = 0; i < p->n_items; i++) write_rows(&p->items[i]);
    for (int i = 0; i < p->n_items; i++)
        if (!read_rows(&p->items[i], found[i])) FAIL("a row attends to a slot that is not of its own prefix");
    qn_sched_computed(M->s, p);
    if (!go_on(p, found)) return 0;
    const char *bad = qn_sched_audit(M->s);
    if (bad) FAIL("%s", bad);
    M->now += 1000000 + (int64_t)draw(9) * 1000000;
    return 1;
}

static int disturb(int draining) {
    for (int i = 0; i < M->n_reqs; i++) {
        struct req *r = &M->reqs[i];
        if (!r->g) continue;
        if (r->held ? chance(25) : (!draining && chance(M->hold_rate))) r->held = !r->held;
        if (!draining && M->cancel_rate && draw(1000) < (uint64_t)M->cancel_rate) {
            for (int b = 0; b < r->n_branches; b++)
                if (!check_output(r, &r->g->seqs[b])) return 0;
            qn_sched_remove(M->s, r->g);
            qn_group_free(r->g);
            r->g = NULL;
        } else if (!draining && M->cancel_rate && draw(1000) < (uint64_t)M->cancel_rate) { /* one branch only */
            struct qn_seq *q = &r->g->seqs[draw((uint64_t)r->n_branches)];
            if (r->max_tokens == 0 || q->state == QN_SEQ_DONE) continue;
            r->finished[q->branch] = 1;
            r->finishes++;
            if (qn_sched_finish(M->s, q)) {
                qn_group_free(r->g);
                r->g = NULL;
            }
        }
    }
    if (M->preempt_every && M->steps % (uint64_t)M->preempt_every == 0) qn_sched_preempt_one(M->s);
    const char *bad = qn_sched_audit(M->s);
    if (bad) FAIL("%s", bad);
    return 1;
}

static int run(uint64_t seed) {
    setup(seed);
    int n_reqs = 4 + (int)draw(chance(50) ? 12 : REQS_MAX - 4), per_step = 1 + (int)draw(30);
    uint64_t last_arrival = 0;
    why[0] = 0;
    for (;;) {
        int draining = M->n_reqs == n_reqs, live = 0;
        while (M->n_reqs < n_reqs && (M->twins || chance(per_step)))
            if (!arrive()) return 0;
        if (!disturb(draining) || !step()) return 0;
        if (!draining) last_arrival = M->steps;
        for (int i = 0; i < M->n_reqs; i++) {
            struct req *r = &M->reqs[i];
            live += r->g != NULL;
            if (r->g && M->steps % 16 == 0)
                for (int b = 0; b < r->n_branches; b++)
                    if (!check_output(r, &r->g->seqs[b])) return 0;
        }
        if (draining && !live) break;
        if (M->steps - last_arrival > STEPS_MAX) FAIL("no end: %d live after %llu steps", live, (unsigned long long)M->steps);
    }
    struct qn_kv_counts kv;
    struct qn_sched_counts n;
    qn_kvcache_counts(M->kv, &kv);
    qn_sched_counts(M->s, &n);
    if (kv.held || kv.free + kv.cached != kv.total) FAIL("%d blocks are still held", kv.held);
    if (n.waiting || n.running || n.waiting_tokens) FAIL("somebody is still counted");
    qn_kvcache_flush(M->kv);
    qn_kvcache_counts(M->kv, &kv);
    if (kv.free != kv.total) FAIL("a flush leaves blocks");
    return 1;
}

static void clean(void) {
    for (int i = 0; i < M->n_reqs; i++) {
        if (M->reqs[i].g) qn_sched_remove(M->s, M->reqs[i].g);
        qn_group_free(M->reqs[i].g);
    }
    qn_sched_close(M->s);
    qn_kvcache_close(M->kv);
}

TEST_SLOW(sim, sched_and_cache_through_many_seeds, 900) {
    const char *only = getenv("QN_SEED"), *many = getenv("QN_SEEDS");
    uint64_t from = only ? strtoull(only, NULL, 0) : 1, n = only ? 1 : many ? strtoull(many, NULL, 0) : 10000;
    uint64_t steps = 0, rows = 0, preemptions = 0, hits = 0, evictions = 0, guessed = 0, taken = 0, n_sure = 0, joins = 0, late = 0, in_vain = 0;
    M = calloc(1, sizeof *M);
    ASSERT(M);
    for (uint64_t seed = from; seed < from + n; seed++) {
        if (!run(seed)) {
            printf("    seed %llu, step %llu: %s (replay: QN_SEED=%llu)\n", (unsigned long long)seed, (unsigned long long)M->steps, why,
                   (unsigned long long)seed);
            ASSERT(!"the seed above");
        }
        struct qn_kv_counts kv;
        struct qn_sched_counts c;
        qn_kvcache_counts(M->kv, &kv);
        qn_sched_counts(M->s, &c);
        steps += M->steps;
        rows += M->rows;
        preemptions += c.preemptions;
        hits += kv.hits_tokens;
        evictions += kv.evictions;
        joins += c.joins;
        guessed += M->guessed;
        n_sure += M->certain;
        taken += M->taken;
        late += M->late;
        in_vain += M->in_vain;
        clean();
    }
    printf("    %llu seeds: %llu steps, %llu rows, %llu preemptions, %llu tokens found cached, %llu evictions, %llu joins, %llu of %llu guesses taken, %llu certain, %llu tokens told late and %llu in vain\n", (unsigned long long)n,
           (unsigned long long)steps, (unsigned long long)rows, (unsigned long long)preemptions, (unsigned long long)hits,
           (unsigned long long)evictions, (unsigned long long)joins, (unsigned long long)taken, (unsigned long long)guessed, (unsigned long long)n_sure,
           (unsigned long long)late, (unsigned long long)in_vain);
    if (n >= 1000) EXPECT(preemptions > n && hits > 100 * n && evictions > n && taken > n && guessed > 2 * taken && n_sure > n && joins > n / 20 && late > 20 * n && in_vain > n); /* the seeds do reach the corners */
    free(M);
}
