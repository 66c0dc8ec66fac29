/* The constraint: states behind a lock, with their masks kept while memory allows. States are made in states.c, the walk over the
 * vocabulary in mask.c. */
#include "engine/grammar/constraint.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/grammar/constraint_impl.h"

static int refuse(struct qn_constraint *c, int rc, struct qn_err *err) {
    const struct qn_grammar *g = c->g;
    if (rc == QN_E_DATA) return qn_fail(err, rc, "a rule of the grammar has no body");
    if (rc == QN_E_UNSUPPORTED) return qn_fail(err, rc, "a rule or a special token inside an intersection or complement");
    if (rc == QN_E_NOMEM) return qn_fail(err, rc, "grammar: no memory");
    if (g->deadline_ns && qn_clock_thread_ns() > g->deadline_ns) return qn_fail(err, rc, "the grammar takes too long to compile");
    return qn_fail(err, rc, "the grammar is too large or too deeply nested");
}

/* Ids come from requests; what runs a constraint writes them into batches. */
static int check_tokens(const struct qn_constraint *c, struct qn_err *err) {
    for (qn_gnode i = 0; c->trie && i < c->g->n_nodes; i++) {
        const struct qn_gnode_s *n = qn_gn(c->g, i);
        if (n->kind == QN_K_TOKEN && n->a >= c->trie->n_vocab)
            return qn_fail(err, QN_E_DATA, "there is no token %u: the vocabulary has %u", n->a, c->trie->n_vocab);
    }
    return 0;
}

static int compile(struct qn_constraint *c, qn_gnode root, struct qn_err *err) {
    struct qn_grammar *g = c->g;
    int rc = g->error;
    if (rc == 0) qn_g_rule_set(g, g->rules[0].ref, root);
    if (rc == 0) rc = qn_g_seal(g);
    if (rc == 0) c->start = qn_states_init(&c->states, g);
    if (rc == 0) rc = g->error;
    if (rc < 0) return refuse(c, rc, err);
    if (check_tokens(c, err) < 0) return QN_E_DATA;
    if (c->start == QN_C_DEAD) return qn_fail(err, QN_E_DATA, "no text matches the grammar");
    c->counts.compile_ns = qn_clock_ns() - g->started_ns;
    g->deadline_ns = 0;
    return 0;
}

int qn_constraint_new(struct qn_constraint **out, struct qn_grammar *g, qn_gnode root, const struct qn_token_trie *trie, struct qn_err *err) {
    struct qn_constraint *c = calloc(1, sizeof *c);
    if (!c) {
        qn_grammar_free(g);
        return qn_fail(err, QN_E_NOMEM, "grammar: no memory");
    }
    c->g = g;
    c->trie = trie;
    c->refs = 1;
    pthread_mutex_init(&c->lock, NULL);
    int rc = compile(c, root, err);
    if (rc == 0 && trie) rc = qn_mask_init(c, err);
    if (rc < 0) qn_constraint_unref(c);
    else *out = c;
    return rc;
}

struct qn_constraint *qn_constraint_ref(struct qn_constraint *c) {
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    return c;
}

void qn_constraint_unref(struct qn_constraint *c) {
    if (!c || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    qn_mask_done(c);
    qn_states_done(&c->states);
    qn_grammar_free(c->g);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* Work for one operation, in steps of some nanoseconds: a state that costs more, or a mask, ends in QN_E_LIMIT. By count and not by the
 * clock, so that the same request ends the same way on every machine. */
enum { FUEL_STEP = 1 << 16, FUEL_MASK = 1 << 20 };

static void refuel(struct qn_constraint *c, int64_t fuel) { c->g->fuel = c->g->look = fuel; }

/* Every operation begins here. Memory: above three quarters masks go, then rows; states stay until the end. */
static void enter(struct qn_constraint *c) {
    struct qn_grammar *g = c->g;
    pthread_mutex_lock(&c->lock);
    refuel(c, FUEL_MASK);
    if (g->used <= g->bytes_max / 4 * 3) return;
    if (c->masks.bytes > g->bytes_max / 16) qn_mask_drop(c);
    if (g->used > g->bytes_max / 4 * 3 && g->rows.bytes > g->bytes_max / 16) qn_states_drop_rows(&c->states);
}

static void leave(struct qn_constraint *c) { pthread_mutex_unlock(&c->lock); }

static int usable(const struct qn_constraint *c, qn_cstate s) { return s != QN_C_DEAD && s < c->states.n && !c->g->error; }

qn_cstate qn_constraint_start(const struct qn_constraint *c) { return c->start; }

static qn_cstate by_text(struct qn_constraint *c, qn_cstate s, const char *p, size_t n) {
    for (size_t i = 0; i < n && s != QN_C_DEAD; i++) {
        refuel(c, FUEL_STEP);
        s = qn_states_by_byte(&c->states, s, (unsigned char)p[i]);
    }
    return s;
}

qn_cstate qn_constraint_text(struct qn_constraint *c, qn_cstate s, const char *p, size_t n) {
    enter(c);
    s = usable(c, s) ? by_text(c, s, p, n) : QN_C_DEAD;
    leave(c);
    return s;
}

/* The TOKEN node of id that may come in s, or NONE. */
static qn_gnode named(struct qn_constraint *c, qn_cstate s, uint32_t id) {
    uint32_t list = qn_states_tokens(&c->states, s);
    for (uint32_t i = 0; list && i < c->g->lists[list].n; i++)
        if (qn_gn(c->g, c->g->lists[list].v[i])->a == id) return c->g->lists[list].v[i];
    return QN_G_NONE;
}

static qn_cstate by_token(struct qn_constraint *c, qn_cstate s, uint32_t id) {
    if (!c->trie || id >= c->trie->n_vocab) return QN_C_DEAD;
    qn_gnode node = named(c, s, id);
    qn_cstate to = node ? qn_states_by_token(&c->states, s, node) : QN_C_DEAD;
    if (qn_trie_is_text(c->trie, id)) {
        size_t n;
        const char *p = qn_tokenizer_piece(c->trie->tok, id, &n);
        return qn_states_union(&c->states, to, by_text(c, s, p, n));
    }
    if (to == QN_C_DEAD && qn_tokenizer_ends(c->trie->tok, id) && qn_state_at(&c->states, s)->accepts) to = s;
    return to;
}

qn_cstate qn_constraint_token(struct qn_constraint *c, qn_cstate s, uint32_t id) {
    enter(c);
    s = usable(c, s) ? by_token(c, s, id) : QN_C_DEAD;
    leave(c);
    return s;
}

int qn_constraint_accepts(struct qn_constraint *c, qn_cstate s) {
    enter(c);
    int is = usable(c, s) && qn_state_at(&c->states, s)->accepts;
    leave(c);
    return is;
}

int qn_constraint_over(struct qn_constraint *c, qn_cstate s) {
    enter(c);
    int is = usable(c, s) && qn_state_at(&c->states, s)->accepts && qn_state_at(&c->states, s)->n == 0;
    leave(c);
    return is;
}

uint32_t qn_constraint_mask(struct qn_constraint *c, qn_cstate s, uint32_t *mask) {
    size_t words = c->trie ? (c->trie->n_vocab + 31) / 32 : 0;
    uint32_t n = 0;
    enter(c);
    if (usable(c, s) && c->trie) n = qn_mask_of(c, s, mask);
    else memset(mask, 0, words * sizeof *mask);
    leave(c);
    return n;
}

/* The one byte that must come in s, or -1. */
static int forced_byte(struct qn_constraint *c, qn_cstate s, qn_cstate *next) {
    const struct qn_classes *k = qn_states_classes(&c->states, s);
    uint32_t tokens = qn_states_tokens(&c->states, s);
    int b = -1;
    if (!k || !tokens || qn_state_at(&c->states, s)->accepts || c->g->lists[tokens].n > 0) return -1;
    for (unsigned i = 0; i < k->n; i++) {
        qn_cstate to = qn_states_by_class(&c->states, s, i);
        if (to == QN_C_DEAD) continue;
        if (b >= 0 || k->size[i] > 1) return -1;
        b = k->some[i];
        *next = to;
    }
    return c->g->error ? -1 : b;
}

size_t qn_constraint_forced(struct qn_constraint *c, qn_cstate s, char *out, size_t max) {
    size_t n = 0;
    enter(c);
    for (int b; n < max && usable(c, s) && (b = forced_byte(c, s, &s)) >= 0;) out[n++] = (char)b;
    leave(c);
    return n;
}

int64_t qn_constraint_forced_token(struct qn_constraint *c, qn_cstate s) {
    int64_t id = -1;
    enter(c);
    uint32_t tokens = usable(c, s) && !qn_state_at(&c->states, s)->accepts ? qn_states_tokens(&c->states, s) : 0;
    const struct qn_classes *k = tokens && c->g->lists[tokens].n == 1 ? qn_states_classes(&c->states, s) : NULL;
    if (k) id = qn_gn(c->g, c->g->lists[tokens].v[0])->a;
    for (unsigned i = 0; k && i < k->n; i++)
        if (qn_states_by_class(&c->states, s, i) != QN_C_DEAD) id = -1;
    if (c->g->error) id = -1;
    leave(c);
    return id;
}

int qn_constraint_failed(struct qn_constraint *c) {
    pthread_mutex_lock(&c->lock);
    int rc = c->g->error;
    leave(c);
    return rc;
}

int qn_constraint_worn(struct qn_constraint *c) {
    pthread_mutex_lock(&c->lock);
    int is = c->g->error || c->g->used - c->masks.bytes - c->g->rows.bytes > c->g->bytes_max / 2;
    leave(c);
    return is;
}

void qn_constraint_counts(struct qn_constraint *c, struct qn_constraint_counts *out) {
    pthread_mutex_lock(&c->lock);
    *out = c->counts;
    out->states = c->states.n;
    out->bytes = c->g->used;
    leave(c);
}
