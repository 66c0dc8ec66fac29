/* The operations that make nodes, each simplifying what it is given: equal languages should be equal numbers where that is
 * cheap to see, for every state and mask is kept by number. Sequences associate to the right, alternatives are a
 * sorted set, counted repeats of one thing are joined. (Owens, Reppy and Turon 2009, section 4.1, and some more.)
 * No derivatives, no text formats. Owner: one at a time. */
#include "engine/grammar/node.h"

#include <string.h>

static uint32_t hash_of_node(const void *user, uint32_t id) { return qn_gn(user, id)->hash; }

static size_t words_more(const struct qn_gnode_s *x) { return x->kind == QN_K_SET ? 8 : x->kind == QN_K_ALT || x->kind == QN_K_AND ? x->n : 0; }

static uint32_t hash_node(const struct qn_grammar *g, const struct qn_gnode_s *x) {
    uint32_t head[6] = {x->kind, x->kind == QN_K_CAT ? 0 : x->n, x->a, x->b};
    size_t n = words_more(x);
    if (n) {
        head[4] = qn_g_hash(g, x->more, n);
        head[5] = (uint32_t)n;
    }
    return qn_g_hash(g, head, 6);
}

static int same(const struct qn_gnode_s *x, const struct qn_gnode_s *y) {
    return x->hash == y->hash && x->kind == y->kind && x->n == y->n && x->a == y->a && x->b == y->b &&
           !memcmp(x->more ? x->more : "", y->more ? y->more : "", words_more(x) * 4);
}

static unsigned flags_of_members(const struct qn_grammar *g, const struct qn_gnode_s *x) {
    const uint32_t *v = x->more;
    unsigned any = 0, all = 0xFF;
    for (uint32_t i = 0; i < x->n; i++) {
        unsigned f = qn_gn(g, v[i])->flags;
        any |= f;
        all &= f;
    }
    unsigned f = any & (QN_F_IMPURE | QN_F_TOKEN | QN_F_BOOL);
    if (x->kind == QN_K_ALT) return f | (any & (QN_F_NULLABLE | QN_F_LIVE)) | (all & (QN_F_TEXT | QN_F_DEAD));
    return f | (all & QN_F_NULLABLE) | (any & (QN_F_TEXT | QN_F_DEAD)) | QN_F_BOOL;
}

/* What is known of x from its children. */
static unsigned flags_of(const struct qn_grammar *g, const struct qn_gnode_s *x) {
    const unsigned inherit = QN_F_IMPURE | QN_F_TOKEN | QN_F_BOOL;
    unsigned a = x->kind == QN_K_CAT || x->kind == QN_K_NOT || x->kind == QN_K_REPEAT ? qn_gn(g, x->a)->flags : 0, b, f = 0;
    switch (x->kind) {
    case QN_K_NONE: return QN_F_DEAD | QN_F_TEXT;
    case QN_K_EMPTY: return QN_F_NULLABLE | QN_F_LIVE | QN_F_TEXT;
    case QN_K_SET: return QN_F_LIVE | (((const uint64_t *)x->more)[2] || ((const uint64_t *)x->more)[3] ? 0 : QN_F_TEXT);
    case QN_K_CAT:
        b = qn_gn(g, x->b)->flags;
        f = ((a | b) & (inherit | QN_F_DEAD)) | (a & b & (QN_F_NULLABLE | QN_F_LIVE | QN_F_TEXT));
        break;
    case QN_K_ALT:
    case QN_K_AND: f = flags_of_members(g, x); break;
    case QN_K_NOT: f = (a & inherit) | QN_F_BOOL | (a & QN_F_NULLABLE ? 0 : QN_F_NULLABLE); break;
    case QN_K_REPEAT:
        f = a & (inherit | QN_F_TEXT | QN_F_NULLABLE);
        f |= x->n == 0 ? QN_F_NULLABLE : a & (QN_F_LIVE | QN_F_DEAD);
        break;
    case QN_K_RULE:
        f = QN_F_IMPURE;
        if (g->sealed) f |= (g->rules[x->a].nullable ? QN_F_NULLABLE : 0) | (unsigned)(g->rules[x->a].live ? QN_F_LIVE : QN_F_DEAD);
        break;
    default: f = QN_F_IMPURE | QN_F_TOKEN | QN_F_LIVE; break;
    }
    return f & QN_F_NULLABLE ? (f | QN_F_LIVE) & ~(unsigned)QN_F_DEAD : f;
}

/* A search's verdict stays; one made from a rule's is made again, as rules are dead until they are found live. */
void qn_gn_flags(struct qn_grammar *g, qn_gnode i) {
    struct qn_gnode_s *x = qn_gn(g, i);
    int judged = (x->flags & (QN_F_BOOL | QN_F_IMPURE)) == QN_F_BOOL;
    x->flags = (uint8_t)(flags_of(g, x) | (x->flags & QN_F_TEXT) | (judged ? x->flags & (QN_F_LIVE | QN_F_DEAD) : 0));
}

/* How deep a derivative recurses: into the head of a sequence, and into what follows it when the head may be empty. */
static unsigned depth_of(const struct qn_grammar *g, const struct qn_gnode_s *x) {
    unsigned d = 0, k;
    if (x->kind == QN_K_CAT) {
        const struct qn_gnode_s *h = qn_gn(g, x->a), *t = qn_gn(g, x->b);
        d = h->depth + 1u;
        k = t->depth + (t->kind == QN_K_CAT ? 0 : 1u);
        return (h->flags & (QN_F_NULLABLE | QN_F_IMPURE)) && k > d ? k : d;
    }
    if (x->kind == QN_K_NOT || x->kind == QN_K_REPEAT) return qn_gn(g, x->a)->depth + 1u;
    const uint32_t *v = x->more;
    for (uint32_t i = 0; (x->kind == QN_K_ALT || x->kind == QN_K_AND) && i < x->n; i++) {
        k = qn_gn(g, v[i])->depth + 1u;
        if (k > d) d = k;
    }
    return d;
}

static int more_segments(struct qn_grammar *g) {
    if (qn_g_room(g, &g->seg, &g->segs_cap, g->n_segs + 1, sizeof *g->seg) < 0) return g->error;
    struct qn_gnode_s *s = qn_g_take(g, &g->keep, QN_G_SEGMENT * sizeof *s);
    if (!s) return g->error;
    g->seg[g->n_segs++] = s;
    return 0;
}

/* The node like x; x->more is copied when it is new. */
static qn_gnode intern(struct qn_grammar *g, struct qn_gnode_s *x) {
    if (qn_g_charge(g, 4 + words_more(x) / 2) < 0 || qn_gtable_room(g, &g->nodes, hash_of_node, g) < 0) return QN_G_NONE;
    x->hash = hash_node(g, x);
    uint32_t k = x->hash & g->nodes.mask;
    for (; g->nodes.slot[k]; k = (k + 1) & g->nodes.mask)
        if (same(x, qn_gn(g, g->nodes.slot[k]))) return g->nodes.slot[k];
    unsigned depth = depth_of(g, x);
    if (depth > QN_G_DEPTH_MAX) return qn_g_fail(g, QN_E_LIMIT), QN_G_NONE;
    if (g->n_nodes == g->n_segs * QN_G_SEGMENT && more_segments(g) < 0) return QN_G_NONE;
    size_t bytes = words_more(x) * 4;
    if (bytes) {
        void *copy = qn_g_take(g, &g->keep, bytes);
        if (!copy) return QN_G_NONE;
        x->more = memcpy(copy, x->more, bytes);
    }
    x->depth = (uint16_t)depth;
    x->flags = (uint8_t)flags_of(g, x);
    *qn_gn(g, g->n_nodes) = *x;
    g->nodes.slot[k] = g->n_nodes; /* NONE, number 0, is never found here, and nobody makes another */
    g->nodes.n++;
    return g->n_nodes++;
}

qn_gnode qn_gn_make(struct qn_grammar *g, int kind, uint32_t n, uint32_t a, uint32_t b) {
    struct qn_gnode_s x = {.kind = (uint8_t)kind, .n = n, .a = a, .b = b};
    return intern(g, &x);
}

qn_gnode qn_gn_set(struct qn_grammar *g, const uint64_t set[4]) {
    struct qn_gnode_s x = {.kind = QN_K_SET, .more = set};
    return set[0] | set[1] | set[2] | set[3] ? intern(g, &x) : QN_G_NONE;
}

static qn_gnode list_node(struct qn_grammar *g, int kind, const uint32_t *v, uint32_t n) {
    struct qn_gnode_s x = {.kind = (uint8_t)kind, .n = n, .more = v};
    return intern(g, &x);
}

/* Bounds added; 0 when a finite one would not fit. */
static int add_bounds(const struct qn_gnode_s *x, const struct qn_gnode_s *y, uint32_t *min, uint32_t *max) {
    uint64_t lo = (uint64_t)x->n + y->n, hi = (uint64_t)x->b + y->b;
    *max = x->b == QN_G_INF || y->b == QN_G_INF ? QN_G_INF : (uint32_t)hi;
    *min = (uint32_t)lo;
    return lo < QN_G_INF && (*max == QN_G_INF || hi < QN_G_INF);
}

/* x as a counted repeat of something. */
static struct qn_gnode_s as_repeat(const struct qn_grammar *g, qn_gnode x) {
    struct qn_gnode_s r = *qn_gn(g, x);
    if (r.kind != QN_K_REPEAT) r = (struct qn_gnode_s){.kind = r.kind, .n = 1, .a = x, .b = 1};
    return r;
}

/* a is no sequence that should be taken apart. r{a,b} r{c,d} is r{a+c,b+d}. */
static qn_gnode cat_one(struct qn_grammar *g, qn_gnode a, qn_gnode b) {
    if (b == QN_G_EMPTY) return a;
    struct qn_gnode_s t = *qn_gn(g, b);
    qn_gnode head = t.kind == QN_K_CAT ? t.a : b, rest = t.kind == QN_K_CAT ? t.b : QN_G_EMPTY;
    struct qn_gnode_s x = as_repeat(g, a), y = as_repeat(g, head);
    uint32_t min, max;
    if (x.a == y.a && (x.kind == QN_K_REPEAT || y.kind == QN_K_REPEAT) && add_bounds(&x, &y, &min, &max)) {
        a = qn_g_repeat(g, x.a, min, max);
        b = rest;
        if (b == QN_G_EMPTY || g->error) return g->error ? QN_G_NONE : a;
        t = *qn_gn(g, b);
    }
    return qn_gn_make(g, QN_K_CAT, t.kind == QN_K_CAT ? t.n + 1 : 2, a, b);
}

qn_gnode qn_g_cat(struct qn_grammar *g, qn_gnode a, qn_gnode b) {
    if (g->error || (qn_gn(g, a)->flags | qn_gn(g, b)->flags) & QN_F_DEAD) return QN_G_NONE;
    if (a == QN_G_EMPTY) return b;
    if (qn_gn(g, a)->kind != QN_K_CAT || qn_gn(g, a)->n > QN_G_CHAIN_MAX) return cat_one(g, a, b);
    qn_gnode part[QN_G_CHAIN_MAX], n = 0;
    for (; qn_gn(g, a)->kind == QN_K_CAT; a = qn_gn(g, a)->b) part[n++] = qn_gn(g, a)->a;
    b = cat_one(g, a, b);
    while (n > 0 && !g->error) b = cat_one(g, part[--n], b);
    return g->error ? QN_G_NONE : b;
}

qn_gnode qn_g_cat_n(struct qn_grammar *g, const qn_gnode *v, size_t n) {
    qn_gnode x = QN_G_EMPTY;
    while (n > 0) x = qn_g_cat(g, v[--n], x);
    return x;
}

/* --- alternatives --- */

static uint64_t head_and_tail(const struct qn_grammar *g, qn_gnode i) {
    const struct qn_gnode_s *x = qn_gn(g, i);
    return x->kind == QN_K_CAT ? (uint64_t)x->b << 32 | x->a : (uint64_t)QN_G_EMPTY << 32 | i;
}

/* One head for two that stand before the same tail, or NONE. */
static qn_gnode join_heads(struct qn_grammar *g, qn_gnode a, qn_gnode b) {
    const struct qn_gnode_s *p = qn_gn(g, a), *q = qn_gn(g, b);
    if (p->kind == QN_K_SET && q->kind == QN_K_SET) {
        uint64_t s[4];
        for (int i = 0; i < 4; i++) s[i] = ((const uint64_t *)p->more)[i] | ((const uint64_t *)q->more)[i];
        return qn_gn_set(g, s);
    }
    if (p->kind != QN_K_REPEAT && q->kind != QN_K_REPEAT) return QN_G_NONE;
    struct qn_gnode_s x = as_repeat(g, a), y = as_repeat(g, b);
    if (x.a != y.a) return QN_G_NONE;
    uint32_t lo = x.n < y.n ? x.n : y.n, lo_max = x.n < y.n ? x.b : y.b, hi_min = x.n < y.n ? y.n : x.n;
    if (lo_max != QN_G_INF && lo_max + 1 < hi_min) return QN_G_NONE;
    return qn_g_repeat(g, x.a, lo, x.b > y.b ? x.b : y.b);
}

static int joinable(const struct qn_grammar *g, qn_gnode i) {
    const struct qn_gnode_s *x = qn_gn(g, i);
    if (x->kind == QN_K_CAT) x = qn_gn(g, x->a);
    return x->kind == QN_K_SET || x->kind == QN_K_REPEAT;
}

/* Joins members of v[0..n) with a common tail: sets become one, counted repeats that touch become one. Returns how many remain. */
static uint32_t join(struct qn_grammar *g, uint32_t *v, uint32_t n) {
    uint32_t left = n;
    for (uint32_t i = 0; i < n && !g->error; i++) {
        if (!v[i] || !joinable(g, v[i])) continue;
        for (uint32_t k = i + 1; k < n; k++) {
            uint64_t x = head_and_tail(g, v[i]), y = v[k] ? head_and_tail(g, v[k]) : 0;
            if (!v[k] || x >> 32 != y >> 32) continue;
            qn_gnode head = join_heads(g, (uint32_t)x, (uint32_t)y);
            if (!head) continue;
            unsigned text = qn_gn(g, v[i])->flags & qn_gn(g, v[k])->flags & QN_F_TEXT; /* whole characters, though the parts are not */
            v[i] = cat_one(g, head, (uint32_t)(x >> 32));
            qn_gn(g, v[i])->flags |= (uint8_t)text;
            v[k] = QN_G_NONE;
            left--;
            k = i; /* the wider one may touch what it did not before */
        }
    }
    return left;
}

enum { JOIN_MAX = 24 }; /* members that are all compared with each other; wide enumerations have nothing to join */

/* The sets among v become one. */
static uint32_t join_sets(struct qn_grammar *g, uint32_t *v, uint32_t n) {
    uint64_t s[4] = {0};
    uint32_t k = 0, sets = 0, last = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (qn_gn(g, v[i])->kind != QN_K_SET) {
            v[k++] = v[i];
            continue;
        }
        for (int w = 0; w < 4; w++) s[w] |= ((const uint64_t *)qn_gn(g, v[i])->more)[w];
        sets++;
        last = v[i];
    }
    if (sets) v[k++] = sets == 1 ? last : qn_gn_set(g, s);
    return k;
}

static int is_every(const struct qn_grammar *g, qn_gnode i) { return qn_gn(g, i)->kind == QN_K_NOT && qn_gn(g, i)->a == QN_G_NONE; }

enum { FLAT_MAX = 64 };

/* Members of v on the pile, those of nested ones of up to n_max members in their place. */
static int gather(struct qn_grammar *g, int kind, const qn_gnode *v, size_t n, uint32_t n_max) {
    for (size_t i = 0; i < n; i++) {
        const struct qn_gnode_s *x = qn_gn(g, v[i]);
        if (x->kind == kind && x->n <= n_max) {
            for (uint32_t k = 0; k < x->n; k++) qn_g_push(g, &g->pile, ((const uint32_t *)x->more)[k]);
        } else {
            qn_g_push(g, &g->pile, v[i]);
        }
    }
    return g->error;
}

static qn_gnode alt_of(struct qn_grammar *g, uint32_t at) {
    if (qn_g_charge(g, g->pile.n - at) < 0) return QN_G_NONE;
    uint32_t *v = g->pile.v + at, n = qn_g_sort_unique(v, g->pile.n - at), k = 0;
    int others_nullable = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (qn_gn(g, v[i])->flags & QN_F_DEAD) continue;
        if (is_every(g, v[i])) return v[i];
        others_nullable |= v[i] != QN_G_EMPTY && qn_gn_nullable(g, v[i]);
        v[k++] = v[i];
    }
    n = k;
    if (others_nullable && v[0] == QN_G_EMPTY) memmove(v, v + 1, --n * sizeof *v);
    n = join_sets(g, v, n);
    if (n > 1 && n <= JOIN_MAX) { /* the constructors below use the pile: work on a copy */
        uint32_t w[JOIN_MAX];
        memcpy(w, v, n * sizeof *w);
        uint32_t left = join(g, w, n);
        v = g->pile.v + at;
        if (left < n)
            for (uint32_t i = k = 0; i < n; i++)
                if (w[i]) v[k++] = w[i];
        n = left;
    }
    n = qn_g_sort_unique(v, n);
    if (g->error || n == 0) return QN_G_NONE;
    if (n == 2 && v[0] == QN_G_EMPTY) return qn_g_repeat(g, v[1], 0, 1);
    return n == 1 ? v[0] : list_node(g, QN_K_ALT, v, n);
}

/* The members of nested ones replace them in the pile from `at` on. */
static int flatten_pile(struct qn_grammar *g, int kind, uint32_t at) {
    uint32_t n = g->pile.n, k = at;
    for (uint32_t i = at; i < n; i++) {
        qn_gnode m = g->pile.v[i];
        const struct qn_gnode_s *x = qn_gn(g, m);
        if (x->kind == kind) gather(g, kind, &m, 1, UINT32_MAX);
        else g->pile.v[k++] = m;
    }
    if (g->error) return g->error;
    memmove(g->pile.v + k, g->pile.v + n, (g->pile.n - n) * sizeof *g->pile.v);
    g->pile.n -= n - k;
    return 0;
}

qn_gnode qn_gn_alt_pile(struct qn_grammar *g, uint32_t at) {
    return g->error || flatten_pile(g, QN_K_ALT, at) < 0 ? QN_G_NONE : alt_of(g, at);
}

/* Who builds a long list member by member gets lists within lists, or each would be a copy of the one before. */
qn_gnode qn_g_alt_n(struct qn_grammar *g, const qn_gnode *v, size_t n) {
    if (g->error) return QN_G_NONE;
    uint32_t at = g->pile.n;
    qn_gnode x = gather(g, QN_K_ALT, v, n, FLAT_MAX) < 0 ? QN_G_NONE : alt_of(g, at);
    g->pile.n = at;
    return x;
}

qn_gnode qn_g_alt(struct qn_grammar *g, qn_gnode a, qn_gnode b) {
    if (a == b) return g->error ? QN_G_NONE : a;
    return qn_g_alt_n(g, (qn_gnode[]){a, b}, 2);
}

/* --- intersection and complement --- */

static qn_gnode not_of(struct qn_grammar *g, qn_gnode a) {
    const struct qn_gnode_s *x = qn_gn(g, a);
    return x->kind == QN_K_NOT ? x->a : qn_gn_make(g, QN_K_NOT, 0, a, 0);
}

qn_gnode qn_g_not(struct qn_grammar *g, qn_gnode a) {
    if (g->error) return QN_G_NONE;
    if (qn_gn(g, a)->flags & QN_F_IMPURE) return qn_g_fail(g, QN_E_UNSUPPORTED), QN_G_NONE;
    return not_of(g, a);
}

/* not a and not b is not (a or b): gathers the complements of v into one. */
static uint32_t join_complements(struct qn_grammar *g, uint32_t at, uint32_t n) {
    uint32_t k = 0, mark = g->pile.n, nots = 0;
    for (uint32_t i = 0; i < n; i++) nots += qn_gn(g, g->pile.v[at + i])->kind == QN_K_NOT;
    if (nots < 2) return n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t m = g->pile.v[at + i];
        if (qn_gn(g, m)->kind == QN_K_NOT) qn_g_push(g, &g->pile, qn_gn(g, m)->a);
        else g->pile.v[at + k++] = m;
    }
    if (g->error) return 0;
    qn_gnode args[2] = {QN_G_NONE, QN_G_NONE}; /* the pile moves while it is read: two at a time */
    for (uint32_t i = mark; i < mark + nots; i++) {
        args[1] = g->pile.v[i];
        args[0] = qn_g_alt_n(g, args, 2);
    }
    g->pile.n = mark;
    qn_gnode all = not_of(g, args[0]);
    g->pile.v[at + k++] = all;
    return k;
}

static qn_gnode and_of(struct qn_grammar *g, uint32_t at) {
    uint32_t n = join_complements(g, at, g->pile.n - at), k = 0;
    if (g->error) return QN_G_NONE;
    uint32_t *v = g->pile.v + at;
    n = qn_g_sort_unique(v, n);
    uint64_t s[4] = {~0ull, ~0ull, ~0ull, ~0ull};
    int sets = 0, text = 0, empty = 0, nullable = 1;
    for (uint32_t i = 0; i < n; i++) {
        const struct qn_gnode_s *x = qn_gn(g, v[i]);
        if (x->flags & QN_F_DEAD) return QN_G_NONE;
        if (is_every(g, v[i])) continue;
        nullable &= (x->flags & QN_F_NULLABLE) != 0;
        empty |= v[i] == QN_G_EMPTY;
        if (x->kind == QN_K_SET) {
            sets++;
            for (int w = 0; w < 4; w++) s[w] &= ((const uint64_t *)x->more)[w];
            continue;
        }
        text |= v[i] != g->text && x->flags & QN_F_TEXT;
        v[k++] = v[i];
    }
    if (empty) return nullable ? QN_G_EMPTY : QN_G_NONE;
    if (sets) {
        qn_gnode set = qn_gn_set(g, s);
        if (!set) return QN_G_NONE;
        v = g->pile.v + at; /* no less room than before: sets were left out */
        v[k++] = set;
        text |= qn_gn(g, set)->flags & QN_F_TEXT;
    }
    for (uint32_t i = n = 0; i < k; i++)
        if (!(text && v[i] == g->text)) v[n++] = v[i];
    n = qn_g_sort_unique(v, n);
    if (n == 0) return not_of(g, QN_G_NONE);
    for (uint32_t i = 0; i < n; i++) /* x and not x */
        for (uint32_t j = 0; qn_gn(g, v[i])->kind == QN_K_NOT && j < n; j++)
            if (qn_gn(g, v[i])->a == v[j]) return QN_G_NONE;
    return n == 1 ? v[0] : list_node(g, QN_K_AND, v, n);
}

qn_gnode qn_gn_and_pile(struct qn_grammar *g, uint32_t at) {
    return g->error || flatten_pile(g, QN_K_AND, at) < 0 ? QN_G_NONE : and_of(g, at);
}

static qn_gnode and_n(struct qn_grammar *g, const qn_gnode *v, size_t n) {
    if (g->error) return QN_G_NONE;
    uint32_t at = g->pile.n;
    qn_gnode x = gather(g, QN_K_AND, v, n, UINT32_MAX) < 0 ? QN_G_NONE : and_of(g, at);
    g->pile.n = at;
    return x;
}

qn_gnode qn_g_and(struct qn_grammar *g, qn_gnode a, qn_gnode b) {
    if (!g->error && (qn_gn(g, a)->flags | qn_gn(g, b)->flags) & QN_F_IMPURE) qn_g_fail(g, QN_E_UNSUPPORTED);
    return and_n(g, (qn_gnode[]){a, b}, 2);
}

/* --- repeats --- */

/* (r{a,b}){c,d} is r{ac,bd} when the ranges k*a..k*b, k = c..d, leave no gap. */
static int flatten_repeat(const struct qn_gnode_s *r, uint32_t *min, uint32_t *max) {
    uint64_t a = r->n, b = r->b, c = *min, d = *max;
    int whole = r->b == QN_G_INF ? (c > 0 || a <= 1) : c == 0 ? a <= 1 : (c + 1) * a <= c * b + 1;
    if (d == c) whole = 1;
    uint64_t lo = a * c, hi = r->b == QN_G_INF || *max == QN_G_INF ? QN_G_INF : b * d;
    if (!whole || lo >= QN_G_INF || (hi >= QN_G_INF && r->b != QN_G_INF && *max != QN_G_INF)) return 0;
    *min = (uint32_t)lo;
    *max = hi >= QN_G_INF ? QN_G_INF : (uint32_t)hi;
    return 1;
}

/* ALT x without its EMPTY. */
static qn_gnode without_empty(struct qn_grammar *g, qn_gnode i) {
    const struct qn_gnode_s *x = qn_gn(g, i);
    const uint32_t *v = x->more;
    if (x->kind != QN_K_ALT || v[0] != QN_G_EMPTY) return i;
    return x->n == 2 ? v[1] : list_node(g, QN_K_ALT, v + 1, x->n - 1);
}

qn_gnode qn_g_repeat(struct qn_grammar *g, qn_gnode a, uint32_t min, uint32_t max) {
    if (g->error || max < min) return QN_G_NONE;
    if (qn_gn(g, a)->flags & QN_F_DEAD) return min == 0 ? QN_G_EMPTY : QN_G_NONE;
    if (a == QN_G_EMPTY || max == 0) return QN_G_EMPTY;
    if (min == 1 && max == 1) return a;
    if (qn_gn_nullable(g, a)) {
        if (max == 1) return a;
        min = 0;
        a = without_empty(g, a);
    }
    if (min == 0 && max == 1 && qn_gn(g, a)->kind == QN_K_ALT) return qn_g_alt(g, QN_G_EMPTY, a);
    struct qn_gnode_s x = *qn_gn(g, a);
    if (x.kind == QN_K_REPEAT && flatten_repeat(&x, &min, &max)) a = x.a;
    if (min == 1 && max == 1) return a;
    return qn_gn_make(g, QN_K_REPEAT, min, a, max);
}
