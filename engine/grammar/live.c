/* What can match at all. Rules by fixpoint once, when the grammar is sealed; intersections and complements by a search over their
 * derivatives for one that matches the empty string. A search has fuel; one that runs dry answers "may match", which costs a
 * dead end later and never a wrong text. Nothing here recurses: chains of nodes are as long as a text. */
#include <stdlib.h>

#include "engine/grammar/node.h"

enum { SEARCH_NODES = 4096 }; /* of one search */

static unsigned verdict(const struct qn_grammar *g, qn_gnode i) { return qn_gn(g, i)->flags & (QN_F_LIVE | QN_F_DEAD); }

/* The first child that must be judged before x can be, or NONE when x's own flags can be made. */
static qn_gnode open_child(const struct qn_grammar *g, const struct qn_gnode_s *x) {
    const uint32_t *v = x->more;
    if (x->kind == QN_K_CAT) return !verdict(g, x->a) ? x->a : !verdict(g, x->b) ? x->b : QN_G_NONE;
    if (x->kind == QN_K_REPEAT) return !verdict(g, x->a) ? x->a : QN_G_NONE;
    for (uint32_t k = 0; x->kind == QN_K_ALT && k < x->n; k++)
        if (!verdict(g, v[k])) return v[k];
    return QN_G_NONE;
}

/* A search keeps what it visited, and from where, in one list: breadth would lose itself in long counts, so the newest goes first. */
struct search {
    struct { qn_gnode node; uint32_t from; } *seen;
    uint32_t n, cap;
    struct qn_gpile open; /* indices of seen that were not expanded */
    struct qn_gtable table;
};

static uint32_t hash_of_seen(const void *user, uint32_t id) {
    const struct search *s = user;
    return s->seen[id].node * 2654435761u;
}

static int visit(struct qn_grammar *g, struct search *s, qn_gnode node, uint32_t from) {
    if (qn_gtable_room(g, &s->table, hash_of_seen, s) < 0) return g->error;
    uint32_t k = (node * 2654435761u) & s->table.mask;
    for (; s->table.slot[k]; k = (k + 1) & s->table.mask)
        if (s->seen[s->table.slot[k]].node == node) return 0;
    uint32_t id = s->n ? s->n : 1;
    if (qn_g_room(g, &s->seen, &s->cap, id + 1, sizeof *s->seen) < 0) return g->error;
    s->seen[id].node = node;
    s->seen[id].from = from;
    s->n = id + 1;
    s->table.slot[k] = id;
    s->table.n++;
    return qn_g_push(g, &s->open, id);
}

/* Derivatives of seen[id], by one byte of each class. */
static int expand(struct qn_grammar *g, struct search *s, uint32_t id) {
    qn_gnode x = s->seen[id].node;
    const struct qn_classes *c = qn_g_classes(g, qn_g_first(g, x, QN_FIRST_SETS));
    for (uint32_t k = 0; c && k < c->n && !g->error; k++) {
        qn_gnode d = qn_g_by_byte(g, x, c->some[k]);
        if (d && !(qn_gn(g, d)->flags & QN_F_DEAD)) visit(g, s, d, id);
    }
    return g->error;
}

static void mark_path(struct qn_grammar *g, struct search *s, uint32_t id) {
    for (; id; id = s->seen[id].from) qn_gn(g, s->seen[id].node)->flags |= QN_F_LIVE;
}

static void search_done(struct qn_grammar *g, struct search *s) {
    g->used -= s->cap * sizeof *s->seen + s->open.cap * sizeof *s->open.v + (s->table.slot ? (s->table.mask + 1) * sizeof *s->table.slot : 0);
    free(s->seen);
    free(s->open.v);
    free(s->table.slot);
}

/* Judges x, an intersection or complement. */
static void search(struct qn_grammar *g, qn_gnode x) {
    struct search s = {0};
    uint32_t spent = 0;
    visit(g, &s, x, 0);
    while (!g->error && s.open.n > 0) {
        uint32_t id = s.open.v[--s.open.n];
        if (qn_gn(g, s.seen[id].node)->flags & QN_F_LIVE || g->live_fuel == 0 || ++spent > SEARCH_NODES) {
            mark_path(g, &s, id);
            break;
        }
        g->live_fuel--;
        expand(g, &s, id);
    }
    if (!g->error && !verdict(g, x)) /* all was seen and nothing matched */
        for (uint32_t id = 1; id < s.n; id++) qn_gn(g, s.seen[id].node)->flags |= QN_F_DEAD;
    search_done(g, &s);
}

int qn_g_live(struct qn_grammar *g, qn_gnode x) {
    uint32_t at = g->pile.n;
    if (verdict(g, x)) return verdict(g, x) == QN_F_LIVE;
    qn_g_push(g, &g->pile, x);
    while (!g->error && g->pile.n > at) {
        qn_gnode i = g->pile.v[g->pile.n - 1], child = open_child(g, qn_gn(g, i));
        if (child) {
            qn_g_push(g, &g->pile, child);
            continue;
        }
        if (qn_gn(g, i)->kind == QN_K_AND || qn_gn(g, i)->kind == QN_K_NOT) search(g, i);
        else qn_gn_flags(g, i);
        g->pile.n--;
    }
    g->pile.n = at;
    return g->error || verdict(g, x) == QN_F_LIVE;
}

int qn_g_is_empty(struct qn_grammar *g, qn_gnode a) {
    if (g->error || qn_gn(g, a)->flags & QN_F_IMPURE) return -1;
    return !qn_g_live(g, a);
}

/* --- rules --- */

/* Who is made of whom, among the nodes that hold a rule; a rule's reference counts as made of its body. */
struct uses {
    uint32_t *from;       /* [n_nodes + 1] users of node i: user[from[i] .. from[i + 1]) */
    qn_gnode *user;
    uint32_t n_user;
    qn_gnode *queue;      /* [n_nodes] ring: each node is in it once at most */
    uint8_t *queued;
    uint32_t head, n_queue;
};

/* Calls `to` for each child of node i. */
static void each_child(struct qn_grammar *g, qn_gnode i, void (*to)(struct uses *u, qn_gnode child, qn_gnode user), struct uses *u) {
    const struct qn_gnode_s *x = qn_gn(g, i);
    const uint32_t *v = x->more;
    if (x->kind == QN_K_RULE) to(u, g->rules[x->a].body, i);
    if (x->kind == QN_K_CAT || x->kind == QN_K_REPEAT) to(u, x->a, i);
    if (x->kind == QN_K_CAT) to(u, x->b, i);
    for (uint32_t k = 0; x->kind == QN_K_ALT && k < x->n; k++) to(u, v[k], i);
}

static void count_use(struct uses *u, qn_gnode child, qn_gnode user) {
    (void)user;
    u->from[child + 1]++;
    u->n_user++;
}

static void note_use(struct uses *u, qn_gnode child, qn_gnode user) { u->user[--u->from[child + 1]] = user; }

static void enqueue(struct uses *u, qn_gnode i, uint32_t n) {
    if (u->queued[i]) return;
    u->queued[i] = 1;
    u->queue[(u->head + u->n_queue++) % n] = i;
}

/* Facts only grow: who gains one has those who use it looked at again. */
static void settle(struct qn_grammar *g, struct uses *u, uint32_t n) {
    const unsigned facts = QN_F_NULLABLE | QN_F_LIVE;
    while (u->n_queue > 0 && !g->error) {
        qn_gnode i = u->queue[u->head];
        struct qn_gnode_s *x = qn_gn(g, i);
        u->head = (u->head + 1) % n;
        u->n_queue--;
        u->queued[i] = 0;
        if (x->kind == QN_K_RULE) {
            g->rules[x->a].nullable = qn_gn_nullable(g, g->rules[x->a].body) != 0;
            g->rules[x->a].live = (qn_gn(g, g->rules[x->a].body)->flags & QN_F_LIVE) != 0;
        }
        unsigned was = x->flags & facts;
        qn_gn_flags(g, i);
        qn_g_charge(g, 4 + (x->kind == QN_K_ALT ? x->n : 0));
        if ((x->flags & facts) == was) continue;
        for (uint32_t k = u->from[i + 1]; k < u->from[i + 2]; k++) enqueue(u, u->user[k], n);
    }
}

static void settle_all(struct qn_grammar *g, struct uses *u) {
    uint32_t n = g->n_nodes;
    for (qn_gnode i = 0; i < n; i++)
        if (qn_gn(g, i)->flags & QN_F_IMPURE) each_child(g, i, count_use, u);
    u->user = calloc((size_t)u->n_user + 1, sizeof *u->user);
    if (!u->user) {
        qn_g_fail(g, QN_E_NOMEM);
        return;
    }
    for (qn_gnode i = 0; i <= n; i++) u->from[i + 1] += u->from[i]; /* ends; noting each use turns them into beginnings */
    for (qn_gnode i = 0; i < n; i++) {
        if (!(qn_gn(g, i)->flags & QN_F_IMPURE)) continue;
        each_child(g, i, note_use, u);
        qn_gn(g, i)->flags &= (uint8_t)~(QN_F_LIVE | QN_F_DEAD | QN_F_NULLABLE);
        enqueue(u, i, n);
    }
    settle(g, u, n);
}

int qn_g_seal(struct qn_grammar *g) {
    for (uint32_t r = 0; r < g->n_rules; r++)
        if (!g->rules[r].set) return QN_E_DATA;
    for (qn_gnode i = 0, n = g->n_nodes; i < n && !g->error; i++) /* what holds no rule is judged first */
        if (!(qn_gn(g, i)->flags & QN_F_IMPURE) && qn_gn(g, i)->flags & QN_F_BOOL) qn_g_live(g, i);
    g->sealed = 1;
    if (g->error) return g->error;
    size_t n = g->n_nodes, bytes = (n + 3) * sizeof(uint32_t) + n * (sizeof(qn_gnode) + 1);
    struct uses u = {.from = calloc(n + 3, sizeof *u.from), .queue = calloc(n, sizeof *u.queue), .queued = calloc(n, 1)};
    if (bytes > g->bytes_max - g->used) qn_g_fail(g, QN_E_LIMIT);
    else if (!u.from || !u.queue || !u.queued) qn_g_fail(g, QN_E_NOMEM);
    else settle_all(g, &u);
    free(u.from);
    free(u.user);
    free(u.queue);
    free(u.queued);
    return g->error;
}
