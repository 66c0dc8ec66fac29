/* Memory of one request: many small allocations, freed together. Not thread-safe: one owner at a time. */
#ifndef QN_BASE_ARENA_H
#define QN_BASE_ARENA_H

#include <stddef.h>

struct qn_arena {
    struct qn_arena_chunk *head;
    size_t used, max; /* bytes handed out, and the most that may be */
};

void qn_arena_init(struct qn_arena *a, size_t max);
void qn_arena_done(struct qn_arena *a);
/* Zeroed, aligned for any type; NULL when there is no memory or the maximum is met. Lives until done(). */
void *qn_arena_alloc(struct qn_arena *a, size_t n);
/* A NUL-terminated copy of s[0..n). */
char *qn_arena_dup(struct qn_arena *a, const char *s, size_t n);

#endif
