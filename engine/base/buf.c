/* Doubling growth, capped by the maximum: a hostile length can cost at most what the owner allowed. */
#include "engine/base/buf.h"
#include "engine/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUF_FIRST = 64 };

void qn_buf_init(struct qn_buf *b, size_t max) {
    memset(b, 0, sizeof *b);
    b->max = max;
}

void qn_buf_done(struct qn_buf *b) {
    if (!b) return;
    free(b->p);
    memset(b, 0, sizeof *b);
}

void qn_buf_reset(struct qn_buf *b) {
    b->n = 0;
    b->failed = 0;
    if (b->p) b->p[0] = 0;
}

char *qn_buf_reserve(struct qn_buf *b, size_t n) {
    if (b->failed) return NULL;
    if (n > b->max || b->n > b->max - n) {
        b->failed = QN_E_LIMIT;
        return NULL;
    }
    size_t need = b->n + n + 1;
    if (need > b->cap) {
        size_t cap = b->cap ? b->cap : BUF_FIRST;
        while (cap < need) cap = cap > need / 2 ? need : cap * 2;
        if (cap < b->cap + b->cap / 2 && b->cap + b->cap / 2 <= b->max) cap = b->cap + b->cap / 2 + 1;
        char *p = realloc(b->p, cap);
        if (!p) {
            b->failed = QN_E_NOMEM;
            return NULL;
        }
        b->p = p;
        b->cap = cap;
    }
    return b->p + b->n;
}

void qn_buf_put(struct qn_buf *b, const void *p, size_t n) {
    char *to = qn_buf_reserve(b, n);
    if (!to) return;
    if (n) memcpy(to, p, n);
    b->n += n;
    b->p[b->n] = 0;
}

void qn_buf_puts(struct qn_buf *b, const char *s) { qn_buf_put(b, s, strlen(s)); }

void qn_buf_putc(struct qn_buf *b, char c) { qn_buf_put(b, &c, 1); }

void qn_buf_printf(struct qn_buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0) {
        char *to = qn_buf_reserve(b, (size_t)n);
        if (to) {
            vsnprintf(to, (size_t)n + 1, fmt, again);
            b->n += (size_t)n;
        }
    }
    va_end(again);
}

char *qn_buf_take(struct qn_buf *b, size_t *n) {
    char *p = b->failed ? NULL : b->p;
    if (!p) {
        free(b->p);
        if (n) *n = 0;
    } else if (n) {
        *n = b->n;
    }
    size_t max = b->max;
    qn_buf_init(b, max);
    return p;
}
