/* Memory of a grammar, all of it counted: arenas, growing arrays, hash tables; and the two fuels of building, bytes and time.
 * Nothing about nodes. The first failure sticks in g->error. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/grammar/node.h"

enum { CHUNK = 32 << 10 };

struct qn_garena_chunk {
    struct qn_garena_chunk *next;
    size_t size;
    char at[];
};

int qn_g_fail(struct qn_grammar *g, int code) {
    if (!g->error) g->error = code;
    return g->error;
}

int qn_g_charge(struct qn_grammar *g, size_t n) {
    enum { LOOK = 8192 };
    if (g->error) return g->error;
    g->fuel -= (int64_t)n;
    if (g->fuel > g->look) return 0;
    if (g->fuel < 0) return qn_g_fail(g, QN_E_LIMIT);
    g->look = g->fuel - LOOK;
    return g->deadline_ns && qn_clock_thread_ns() > g->deadline_ns ? qn_g_fail(g, QN_E_LIMIT) : 0;
}

int qn_grammar_tick(struct qn_grammar *g) { return qn_g_charge(g, 32); }

static int may_hold(struct qn_grammar *g, size_t more) {
    if (g->error) return 0;
    if (more > g->bytes_max || g->used > g->bytes_max - more) qn_g_fail(g, QN_E_LIMIT);
    return !g->error;
}

void *qn_g_take(struct qn_grammar *g, struct qn_garena *a, size_t n) {
    n = (n + 7) & ~(size_t)7;
    if (!a->head || a->head->size - a->at < n) {
        size_t size = n > CHUNK / 4 ? n : a->bytes < CHUNK ? CHUNK / 8 : CHUNK;
        if (size < n) size = n;
        if (!may_hold(g, size + sizeof(struct qn_garena_chunk))) return NULL;
        struct qn_garena_chunk *c = malloc(sizeof *c + size);
        if (!c) return qn_g_fail(g, QN_E_NOMEM), NULL;
        *c = (struct qn_garena_chunk){.next = a->head, .size = size};
        a->head = c;
        a->at = 0;
        a->bytes += sizeof *c + size;
        g->used += sizeof *c + size;
    }
    void *p = a->head->at + a->at;
    a->at += n;
    return p;
}

void qn_garena_empty(struct qn_grammar *g, struct qn_garena *a) {
    while (a->head) {
        struct qn_garena_chunk *c = a->head;
        a->head = c->next;
        free(c);
    }
    g->used -= a->bytes;
    a->bytes = a->at = 0;
}

int qn_g_room(struct qn_grammar *g, void *p, uint32_t *cap, uint32_t need, size_t size) {
    if (need <= *cap) return 0;
    uint32_t want = *cap + *cap / 2 + 16;
    if (want < need) want = need;
    if (!may_hold(g, (size_t)(want - *cap) * size)) return g->error;
    void *old, *v;
    memcpy(&old, p, sizeof old);
    v = realloc(old, (size_t)want * size);
    if (!v) return qn_g_fail(g, QN_E_NOMEM);
    memcpy(p, &v, sizeof v);
    g->used += (size_t)(want - *cap) * size;
    *cap = want;
    return 0; /* cppcheck-suppress memleak ; it lies where p points */
}

int qn_g_push(struct qn_grammar *g, struct qn_gpile *p, uint32_t v) {
    if (p->n == p->cap && qn_g_room(g, &p->v, &p->cap, p->n + 1, sizeof *p->v) < 0) return g->error;
    p->v[p->n++] = v;
    return 0;
}

uint32_t qn_g_hash(const struct qn_grammar *g, const uint32_t *v, size_t n) {
    uint64_t h = g->key ^ n;
    for (size_t i = 0; i < n; i++) {
        unsigned __int128 m = (unsigned __int128)(h ^ v[i]) * 0x9E3779B97F4A7C15u;
        h = (uint64_t)m ^ (uint64_t)(m >> 64);
    }
    return (uint32_t)(h ^ h >> 32);
}

int qn_gtable_room(struct qn_grammar *g, struct qn_gtable *t, uint32_t (*hash_of)(const void *user, uint32_t id), const void *user) {
    if (t->slot && t->n < (t->mask + 1) / 4 * 3) return 0;
    uint32_t size = t->slot ? (t->mask + 1) * 2 : 256;
    if (!may_hold(g, size * sizeof *t->slot)) return g->error;
    uint32_t *slot = calloc(size, sizeof *slot);
    if (!slot) return qn_g_fail(g, QN_E_NOMEM);
    for (uint32_t i = 0; t->slot && i <= t->mask; i++) {
        if (!t->slot[i]) continue;
        uint32_t k = hash_of(user, t->slot[i]) & (size - 1);
        while (slot[k]) k = (k + 1) & (size - 1);
        slot[k] = t->slot[i];
    }
    g->used += size * sizeof *slot - (t->slot ? (t->mask + 1) * sizeof *slot : 0);
    free(t->slot);
    t->slot = slot;
    t->mask = size - 1;
    return 0;
}

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

void qn_g_sort(uint32_t *v, uint32_t n) {
    uint32_t sorted = n > 0;
    while (sorted < n && v[sorted - 1] <= v[sorted]) sorted++;
    if (n > 24 && n - sorted > 4) { /* what is in order but for the last few is often added to */
        qsort(v, n, sizeof *v, by_number);
        return;
    }
    for (uint32_t i = 1; i < n; i++) {
        uint32_t x = v[i], k = i;
        for (; k > 0 && v[k - 1] > x; k--) v[k] = v[k - 1];
        v[k] = x;
    }
}

uint32_t qn_g_sort_unique(uint32_t *v, uint32_t n) {
    uint32_t k = 0;
    qn_g_sort(v, n);
    for (uint32_t i = 0; i < n; i++)
        if (k == 0 || v[k - 1] != v[i]) v[k++] = v[i];
    return k;
}
