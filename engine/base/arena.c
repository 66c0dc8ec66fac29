/* Chunks double up to 256 KiB; a larger request gets a chunk of its own behind the current one. */
#include "engine/base/arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_FIRST = 4096, CHUNK_MOST = 256 * 1024 };

struct qn_arena_chunk {
    struct qn_arena_chunk *next;
    size_t n, cap;
    alignas(max_align_t) char bytes[];
};

void qn_arena_init(struct qn_arena *a, size_t max) { *a = (struct qn_arena){.max = max}; }

void qn_arena_done(struct qn_arena *a) {
    if (!a) return;
    for (struct qn_arena_chunk *c = a->head, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *a = (struct qn_arena){.max = a->max};
}

static struct qn_arena_chunk *grow(struct qn_arena *a, size_t n) {
    size_t cap = a->head ? a->head->cap * 2 : CHUNK_FIRST;
    if (cap > CHUNK_MOST) cap = CHUNK_MOST;
    if (cap < n) cap = n;
    struct qn_arena_chunk *c = calloc(1, sizeof *c + cap);
    if (!c) return NULL;
    c->cap = cap;
    int keep_head = a->head && n > CHUNK_MOST / 2; /* the current chunk still has room for small things */
    c->next = keep_head ? a->head->next : a->head;
    if (keep_head) a->head->next = c;
    else a->head = c;
    return c;
}

void *qn_arena_alloc(struct qn_arena *a, size_t n) {
    size_t align = alignof(max_align_t);
    if (n > a->max || a->used > a->max - n || n > (size_t)-1 - align) return NULL;
    n = (n + align - 1) & ~(align - 1);
    struct qn_arena_chunk *c = a->head;
    if (!c || c->cap - c->n < n) c = grow(a, n);
    if (!c) return NULL;
    void *p = c->bytes + c->n;
    c->n += n;
    a->used += n;
    return p;
}

char *qn_arena_dup(struct qn_arena *a, const char *s, size_t n) {
    char *p = n < (size_t)-1 ? qn_arena_alloc(a, n + 1) : NULL;
    if (p && n) memcpy(p, s, n);
    return p;
}
