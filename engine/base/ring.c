/* A record is a 16-byte header {size, kind} and its payload rounded up to 16, so headers never straddle the end. */
#include "engine/base/ring.h"
#include "engine/base/err.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { UNIT = 16, KIND_RECORD = 0, KIND_FILLER = 1, CAP_LEAST = 256, CAP_MOST = 1 << 30 };

struct head {
    uint32_t n, kind, pad[2];
};

static uint32_t span(uint32_t n) { return UNIT + ((n + UNIT - 1) & ~(uint32_t)(UNIT - 1)); }

int qn_ring_init(struct qn_ring *r, size_t cap_min) {
    size_t cap = CAP_LEAST;
    while (cap < cap_min && cap < CAP_MOST) cap *= 2;
    memset(r, 0, sizeof *r);
    r->p = aligned_alloc(UNIT, cap);
    if (!r->p) return QN_E_NOMEM;
    r->cap = (uint32_t)cap;
    return 0;
}

void qn_ring_done(struct qn_ring *r) {
    if (!r) return;
    free(r->p);
    r->p = NULL;
}

void *qn_ring_reserve(struct qn_ring *r, uint32_t n) {
    if (n > r->cap / 2) return NULL;
    uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    uint32_t free_bytes = r->cap - (tail - atomic_load_explicit(&r->head, memory_order_acquire));
    uint32_t at = tail & (r->cap - 1), to_end = r->cap - at, need = span(n), filler = 0;
    if (need > to_end) filler = to_end;
    if (filler + need > free_bytes) return NULL;
    if (filler) {
        struct head *f = (struct head *)(r->p + at);
        f->n = filler - UNIT;
        f->kind = KIND_FILLER;
        at = 0;
    }
    struct head *h = (struct head *)(r->p + at);
    h->n = n;
    h->kind = KIND_RECORD;
    r->reserved = filler + need;
    return h + 1;
}

void qn_ring_commit(struct qn_ring *r) {
    assert(r->reserved);
    uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    atomic_store_explicit(&r->tail, tail + r->reserved, memory_order_release);
    r->reserved = 0;
}

const void *qn_ring_peek(struct qn_ring *r, uint32_t *n) {
    for (;;) {
        uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
        if (head == atomic_load_explicit(&r->tail, memory_order_acquire)) return NULL;
        const struct head *h = (const struct head *)(r->p + (head & (r->cap - 1)));
        if (h->kind == KIND_RECORD) {
            *n = h->n;
            return h + 1;
        }
        atomic_store_explicit(&r->head, head + span(h->n), memory_order_release);
    }
}

void qn_ring_consume(struct qn_ring *r) {
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    const struct head *h = (const struct head *)(r->p + (head & (r->cap - 1)));
    assert(h->kind == KIND_RECORD);
    atomic_store_explicit(&r->head, head + span(h->n), memory_order_release);
}

int qn_ring_empty(struct qn_ring *r) {
    return atomic_load_explicit(&r->head, memory_order_acquire) == atomic_load_explicit(&r->tail, memory_order_acquire);
}
