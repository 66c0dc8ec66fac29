/* The cache is a list in order of use, short enough to walk: entries are compared by a keyed hash, then byte by byte. What a constraint
 * holds grows while it is used, so bytes are asked anew whenever one is added. Who is thrown out lives on in its requests. */
#include "api/constrain.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "api/gen.h"
#include "engine/base/hash.h"
#include "engine/base/rng.h"

enum { KEPT_MAX = 64 };
static const size_t BYTES_MAX = 256u << 20, KEY_MAX = 4u << 20;

struct entry {
    uint64_t hash;
    char *key; /* all that goes in; owned */
    size_t n_key;
    struct qn_constraint *c;
};

struct qn_constraints {
    pthread_mutex_t lock;
    uint64_t secret[2];
    struct entry v[KEPT_MAX]; /* the latest used first */
    int n;
    uint64_t compiled, found, refused;
};

int qn_constraints_open(struct qn_constraints **out) {
    struct qn_constraints *c = calloc(1, sizeof *c);
    if (!c) return QN_E_NOMEM;
    if (qn_rng_bytes(c->secret, sizeof c->secret) < 0) {
        free(c);
        return QN_E_IO;
    }
    pthread_mutex_init(&c->lock, NULL);
    *out = c;
    return 0;
}

static void drop(struct qn_constraints *c, int i) {
    free(c->v[i].key);
    qn_constraint_unref(c->v[i].c);
    memmove(&c->v[i], &c->v[i + 1], (size_t)(c->n - i - 1) * sizeof *c->v);
    c->n--;
}

void qn_constraints_close(struct qn_constraints *c) {
    if (!c) return;
    while (c->n) drop(c, c->n - 1);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static size_t bytes_of(const struct entry *e) {
    struct qn_constraint_counts n;
    qn_constraint_counts(e->c, &n);
    return (size_t)n.bytes + e->n_key;
}

void qn_constraints_counts(struct qn_constraints *c, struct qn_constraints_counts *out) {
    pthread_mutex_lock(&c->lock);
    *out = (struct qn_constraints_counts){c->compiled, c->found, c->refused, c->n, 0};
    for (int i = 0; i < c->n; i++) out->bytes += bytes_of(&c->v[i]);
    pthread_mutex_unlock(&c->lock);
}

/* The entry's place after it was moved to the front, or NULL. One that others have nearly used up is dropped, so that no answer fails for
 * want of the memory that answers before it took. */
static struct entry *look_up(struct qn_constraints *c, const struct qn_buf *key, uint64_t hash) {
    for (int i = 0; i < c->n; i++) {
        struct entry e = c->v[i];
        if (e.hash != hash || e.n_key != key->n || memcmp(e.key, key->p, key->n) != 0) continue;
        if (qn_constraint_worn(e.c)) {
            drop(c, i);
            return NULL;
        }
        memmove(&c->v[1], &c->v[0], (size_t)i * sizeof e);
        c->v[0] = e;
        return &c->v[0];
    }
    return NULL;
}

static struct qn_constraint *find(struct qn_constraints *c, const struct qn_buf *key, uint64_t hash) {
    pthread_mutex_lock(&c->lock);
    struct entry *e = look_up(c, key, hash);
    struct qn_constraint *out = e ? qn_constraint_ref(e->c) : NULL;
    c->found += out != NULL;
    pthread_mutex_unlock(&c->lock);
    return out;
}

/* Takes key's bytes and a reference of its own; too large a key is not kept. */
static void keep(struct qn_constraints *c, struct qn_buf *key, uint64_t hash, struct qn_constraint *made) {
    struct entry e = {.hash = hash, .c = made};
    size_t bytes = 0;
    pthread_mutex_lock(&c->lock);
    c->compiled++;
    if (!look_up(c, key, hash)) {
        e.key = qn_buf_take(key, &e.n_key);
        while (c->n == KEPT_MAX) drop(c, c->n - 1);
        memmove(&c->v[1], &c->v[0], (size_t)c->n * sizeof e);
        qn_constraint_ref(made);
        c->v[0] = e;
        c->n++;
        int fit = 0;
        while (fit < c->n && (bytes += bytes_of(&c->v[fit])) <= BYTES_MAX) fit++;
        while (c->n > fit && c->n > 1) drop(c, c->n - 1);
    }
    pthread_mutex_unlock(&c->lock);
}

/* --- a request's constraint --------------------------------------------------------------------------------------- */

static void put_bytes(struct qn_buf *key, const char *p, size_t n) {
    qn_buf_printf(key, "%zu:", n);
    if (n) qn_buf_put(key, p, n);
}

static int put_dump(const char *p, size_t n, void *key) {
    qn_buf_put(key, p, n);
    return ((struct qn_buf *)key)->failed ? -1 : 0;
}

/* In the order of the members, which is the order of the answer's. */
static void put_json(struct qn_buf *key, const json_t *v) {
    qn_buf_putc(key, '=');
    if (v && json_dump_callback(v, put_dump, key, JSON_COMPACT | JSON_ENCODE_ANY) < 0 && !key->failed) key->failed = QN_E_NOMEM;
}

/* Of a request: its form, and for chat its tools and its thinking. */
struct demand {
    struct qn_exchange *x;
    struct qn_tool_choice tools;
    int calls;    /* the answer may hold calls, and their grammar is needed */
    int thinking;
};

static struct demand demand_of(struct qn_exchange *x) {
    const struct qn_tools *t = &x->tools;
    struct demand d = {.x = x, .tools = {t->mode, t->allowed, t->list, t->custom, t->parallel}};
    if (!x->gen->shape->chat) return d;
    d.calls = qn_tools_called(t) && (x->form.form != QN_FORM_FREE || qn_calls_constrained(&d.tools));
    d.thinking = x->thought.on;
    return d;
}

/* All that goes into the grammar, one after the other, each with its length or its own end. */
static void make_key(const struct demand *d, struct qn_buf *key) {
    const struct qn_answer_form *f = &d->x->form;
    qn_buf_printf(key, "%d/%d%d/", (int)f->form, f->opts.no_whitespace, f->opts.strict);
    put_bytes(key, f->opts.whitespace, f->opts.n_whitespace);
    put_bytes(key, f->text.p, f->text.n);
    put_json(key, f->value);
    qn_buf_printf(key, "/%d%d", d->thinking, d->thinking && d->x->thought.opened);
    if (!d->calls) return;
    qn_buf_printf(key, "/%d%d", (int)d->tools.mode, d->tools.parallel);
    put_json(key, d->tools.all);
    put_json(key, d->tools.tools);
    put_json(key, d->tools.custom);
}

static int node_of(const struct demand *d, struct qn_grammar *g, qn_gnode *out) {
    const struct qn_api *a = d->x->api;
    struct qn_refusal *r = &d->x->refusal;
    int only_calls = d->calls && d->tools.mode == QN_TOOLS_REQUIRED;
    int rc = only_calls ? (*out = QN_G_NONE, 0) : qn_answer_form_node(g, &d->x->form, out, r);
    if (rc == 0 && d->calls) rc = qn_calls_node(g, &a->marks, a->tok, &d->tools, &d->x->form.opts, *out, out, r);
    if (rc == 0 && d->thinking) *out = qn_thinking_node(g, &a->marks, a->tok, d->x->thought.opened, *out);
    return rc;
}

static int compile(const struct demand *d, struct qn_constraint **out) {
    struct qn_grammar *g;
    struct qn_err err = {0};
    struct qn_refusal *r = &d->x->refusal;
    const char *path = d->x->form.path ? d->x->form.path : "tools";
    qn_gnode node;
    const struct qn_token_trie *trie = qn_engine_trie(d->x->api->opts.engine, &err);
    if (!trie || qn_grammar_new(&g, NULL) < 0) return qn_refuse_code(r, QN_E_NOMEM, NULL);
    int rc = node_of(d, g, &node);
    if (rc < 0) {
        qn_grammar_free(g);
        return rc;
    }
    rc = qn_constraint_new(out, g, node, trie, &err);
    if (rc == QN_E_NOMEM) return qn_refuse_code(r, rc, &err);
    return rc < 0 ? qn_refuse(r, 400, "invalid_value", path, "Invalid '%s': %s.", path, err.text) : 0;
}

/* From the cache, or made and kept. */
static int obtain(const struct demand *d, struct qn_constraint **out) {
    struct qn_constraints *c = d->x->api->constraints;
    struct qn_buf key;
    int rc = 0;
    qn_buf_init(&key, KEY_MAX);
    make_key(d, &key);
    uint64_t hash = key.failed ? 0 : qn_siphash(c->secret, key.p, key.n);
    if (!key.failed) *out = find(c, &key, hash);
    if (!*out) {
        rc = compile(d, out);
        if (rc == 0 && !key.failed) keep(c, &key, hash, *out);
        if (rc < 0) {
            pthread_mutex_lock(&c->lock);
            c->refused++;
            pthread_mutex_unlock(&c->lock);
        }
    }
    qn_buf_done(&key);
    return rc;
}

int qn_constrain(struct qn_exchange *x, struct qn_constraint **out) {
    *out = NULL;
    int rc = qn_answer_form_read(&x->params, &x->form, &x->refusal);
    struct demand d = demand_of(x);
    if (rc < 0 || (x->form.form == QN_FORM_FREE && !d.calls)) return rc;
    return obtain(&d, out);
}
