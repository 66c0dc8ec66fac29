/* Tenants are found by chained hashing under no secret: ids come from our own key table, and the table is bounded by the
 * queue's bound anyway. Present tenants form one list (walked only when a tenant comes back), absent ones another, oldest
 * first, from which places are taken again. */
#include "engine/vtc.h"

#include <assert.h>
#include <stdlib.h>

enum { NONE = -1, ABSENT_MAX = 256 };

struct tenant {
    uint64_t id, counter;
    int refs;
    int next, prev;          /* the present list or the absent list */
    int hash_next;
};

struct list {
    int head, tail;
};

struct qn_vtc {
    struct tenant *t;
    int *buckets;
    uint32_t mask;
    int cap, n_used;
    struct list present, absent;
    uint64_t floor;          /* counter of whoever left last: where to start when nobody is present */
};

int qn_vtc_open(struct qn_vtc **out, int n_active) {
    if (n_active < 1 || n_active > (1 << 24)) return QN_E_RANGE;
    struct qn_vtc *v = calloc(1, sizeof *v);
    if (!v) return QN_E_NOMEM;
    v->cap = n_active + ABSENT_MAX;
    uint32_t n = 16;
    while (n < 2u * (uint32_t)v->cap) n *= 2;
    v->mask = n - 1;
    v->t = calloc((size_t)v->cap, sizeof *v->t);
    v->buckets = malloc(n * sizeof *v->buckets);
    if (!v->t || !v->buckets) {
        qn_vtc_close(v);
        return QN_E_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++) v->buckets[i] = NONE;
    v->present.head = v->present.tail = v->absent.head = v->absent.tail = NONE;
    *out = v;
    return 0;
}

void qn_vtc_close(struct qn_vtc *v) {
    if (!v) return;
    free(v->t);
    free(v->buckets);
    free(v);
}

static void add(struct qn_vtc *v, struct list *l, int i) {
    v->t[i].next = NONE;
    v->t[i].prev = l->tail;
    if (l->tail != NONE) v->t[l->tail].next = i;
    else l->head = i;
    l->tail = i;
}

static void drop(struct qn_vtc *v, struct list *l, int i) {
    struct tenant *t = &v->t[i];
    if (t->prev != NONE) v->t[t->prev].next = t->next;
    else l->head = t->next;
    if (t->next != NONE) v->t[t->next].prev = t->prev;
    else l->tail = t->prev;
}

static int *bucket_of(struct qn_vtc *v, uint64_t id) {
    return &v->buckets[(uint32_t)((id * 0x9E3779B97F4A7C15ULL) >> 32) & v->mask];
}

/* A place for a new tenant: a fresh one, or that of whoever has been absent longest. */
static int place(struct qn_vtc *v) {
    if (v->n_used < v->cap) return v->n_used++;
    int i = v->absent.head;
    assert(i != NONE); /* the scheduler holds at most n_active requests */
    drop(v, &v->absent, i);
    int *at = bucket_of(v, v->t[i].id);
    while (*at != i) at = &v->t[*at].hash_next;
    *at = v->t[i].hash_next;
    return i;
}

static uint64_t least_present(const struct qn_vtc *v) {
    if (v->present.head == NONE) return v->floor;
    uint64_t least = UINT64_MAX;
    for (int i = v->present.head; i != NONE; i = v->t[i].next)
        if (v->t[i].counter < least) least = v->t[i].counter;
    return least;
}

int qn_vtc_join(struct qn_vtc *v, uint64_t id) {
    int *bucket = bucket_of(v, id), i = *bucket;
    while (i != NONE && v->t[i].id != id) i = v->t[i].hash_next;
    if (i != NONE && v->t[i].refs > 0) {
        v->t[i].refs++;
        return i;
    }
    uint64_t least = least_present(v);
    if (i != NONE) {
        drop(v, &v->absent, i);
    } else {
        i = place(v);
        v->t[i] = (struct tenant){.id = id, .hash_next = *bucket};
        *bucket = i;
    }
    if (v->t[i].counter < least) v->t[i].counter = least;
    v->t[i].refs = 1;
    add(v, &v->present, i);
    return i;
}

void qn_vtc_leave(struct qn_vtc *v, int i) {
    assert(v->t[i].refs > 0);
    if (--v->t[i].refs > 0) return;
    v->floor = v->t[i].counter;
    drop(v, &v->present, i);
    add(v, &v->absent, i);
}

void qn_vtc_charge(struct qn_vtc *v, int i, uint64_t cost) {
    v->t[i].counter += cost;
}

uint64_t qn_vtc_counter(const struct qn_vtc *v, int i) {
    return v->t[i].counter;
}
