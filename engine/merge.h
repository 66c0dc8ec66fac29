/* The loop that both tokenizers share: join the best adjacent pair of symbols until none joins, leftmost first among
 * equals. It is inlined into bpe.c and spm.c with their own notion of a pair (by ids, by text).
 *
 * Short words scan for the best pair, which beats a queue below some dozens of symbols. Long ones (a megabyte of one
 * letter) use a binary heap with stale entries, O(n log n) whatever the text is. The heap has room for 1.5 entries a symbol:
 * a join takes one out and puts two in at most, so when it is full half of the symbols are gone, and refilling it from
 * those left (once a word at most) makes room for all that can follow. A scratch belongs to one call. */
#ifndef QN_MERGE_H
#define QN_MERGE_H

#include <stdlib.h>
#include <string.h>

#include "engine/vocab.h"

#define QN_NO_RANK UINT32_MAX
enum { QN_MERGE_SHORT = 40 };

struct qn_merge {
    uint32_t *id;           /* [n] token of each symbol, QN_NO_ID where it is none (yet) */
    uint32_t *start;        /* [n + 1] first byte of each symbol; start[n] is the length */
    uint32_t *rank, *to;    /* [n] of the pair (i, next[i]): rank or QN_NO_RANK, and the token it makes */
    uint32_t *prev, *next;  /* [n] long words only; n: none */
    size_t cap;
    uint64_t *heap;         /* rank << 32 | left symbol */
    size_t heap_n, heap_cap;
    void *block;
};

void qn_merge_done(struct qn_merge *m);
/* Room for n symbols; forgets what was there. n < 2^31. */
int qn_merge_reserve(struct qn_merge *m, size_t n);

/* Rank and token of the pair of symbols i and j = next(i), where j ends at byte `end`. Lower ranks join first. */
typedef uint32_t (*qn_merge_pair)(const void *ctx, const struct qn_merge *m, size_t i, size_t j, uint32_t end, uint32_t *to);

static inline size_t qn_merge_short(struct qn_merge *m, size_t n, qn_merge_pair pair, const void *ctx) {
    for (size_t i = 0; i + 1 < n; i++) m->rank[i] = pair(ctx, m, i, i + 1, m->start[i + 2], &m->to[i]);
    while (n > 1) {
        size_t b = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (m->rank[i] < m->rank[b]) b = i;
        if (m->rank[b] == QN_NO_RANK) break;
        m->id[b] = m->to[b];
        for (size_t i = b + 1; i + 1 < n; i++) {
            m->id[i] = m->id[i + 1];
            m->start[i] = m->start[i + 1];
            m->rank[i] = m->rank[i + 1];
            m->to[i] = m->to[i + 1];
        }
        m->start[n - 1] = m->start[n];
        n--;
        if (b + 1 < n) m->rank[b] = pair(ctx, m, b, b + 1, m->start[b + 2], &m->to[b]);
        if (b > 0) m->rank[b - 1] = pair(ctx, m, b - 1, b, m->start[b + 1], &m->to[b - 1]);
    }
    return n;
}

static inline void qn_heap_down(uint64_t *h, size_t n, size_t i) {
    uint64_t v = h[i];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && h[c + 1] < h[c]) c++;
        if (h[c] >= v) break;
        h[i] = h[c];
    }
    h[i] = v;
}
static inline void qn_heap_order(uint64_t *h, size_t n) {
    for (size_t i = n / 2; i-- > 0;) qn_heap_down(h, n, i);
}
static inline int qn_merge_fresh(const struct qn_merge *m, uint64_t e) { return m->rank[(uint32_t)e] == (uint32_t)(e >> 32); }
static inline void qn_merge_push(struct qn_merge *m, size_t n, size_t i) {
    if (m->rank[i] == QN_NO_RANK) return;
    if (m->heap_n == m->heap_cap) { /* refill with what is fresh, i included */
        m->heap_n = 0;
        for (size_t j = 0; j < n; j = m->next[j])
            if (m->rank[j] != QN_NO_RANK) m->heap[m->heap_n++] = (uint64_t)m->rank[j] << 32 | j;
        qn_heap_order(m->heap, m->heap_n);
        return;
    }
    uint64_t v = (uint64_t)m->rank[i] << 32 | i;
    size_t at = m->heap_n++;
    for (; at > 0 && m->heap[(at - 1) / 2] > v; at = (at - 1) / 2) m->heap[at] = m->heap[(at - 1) / 2];
    m->heap[at] = v;
}

static inline size_t qn_merge_long(struct qn_merge *m, size_t n, qn_merge_pair pair, const void *ctx) {
    m->heap_n = 0;
    for (size_t i = 0; i < n; i++) {
        m->prev[i] = i ? (uint32_t)i - 1 : (uint32_t)n;
        m->next[i] = (uint32_t)i + 1;
        m->rank[i] = i + 1 < n ? pair(ctx, m, i, i + 1, m->start[i + 2], &m->to[i]) : QN_NO_RANK;
        if (m->rank[i] != QN_NO_RANK) m->heap[m->heap_n++] = (uint64_t)m->rank[i] << 32 | i;
    }
    qn_heap_order(m->heap, m->heap_n);
    while (m->heap_n > 0) {
        uint64_t e = m->heap[0];
        m->heap[0] = m->heap[--m->heap_n];
        if (m->heap_n > 0) qn_heap_down(m->heap, m->heap_n, 0);
        if (!qn_merge_fresh(m, e)) continue;
        size_t i = (uint32_t)e, j = m->next[i], k = m->next[j];
        m->id[i] = m->to[i];
        m->next[i] = (uint32_t)k;
        m->rank[j] = m->rank[i] = QN_NO_RANK;
        if (k < n) {
            m->prev[k] = (uint32_t)i;
            m->rank[i] = pair(ctx, m, i, k, m->start[m->next[k]], &m->to[i]);
            qn_merge_push(m, n, i);
        }
        size_t h = m->prev[i];
        if (h < n) {
            m->rank[h] = pair(ctx, m, h, i, m->start[k], &m->to[h]);
            qn_merge_push(m, n, h);
        }
    }
    size_t o = 0;
    for (size_t i = 0; i < n; i = m->next[i]) { /* next[i] > i, so this may be done in place */
        m->id[o] = m->id[i];
        m->start[o++] = m->start[i];
    }
    m->start[o] = m->start[n];
    return o;
}

/* Joins the symbols 0..n) and returns how many are left, again from 0. */
static inline size_t qn_merge_run(struct qn_merge *m, size_t n, qn_merge_pair pair, const void *ctx) {
    return n <= QN_MERGE_SHORT ? qn_merge_short(m, n, pair, ctx) : qn_merge_long(m, n, pair, ctx);
}

#endif
