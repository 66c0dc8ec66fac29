/* A growable byte buffer that is born with a maximum. Once it fails (no memory, or past its maximum) it stays failed and
 * further writes do nothing, so that a writer checks once at the end. Thread: its owner's. */
#ifndef QN_BASE_BUF_H
#define QN_BASE_BUF_H

#include <stddef.h>

struct qn_buf {
    char *p;       /* owned; NUL-terminated whenever it is not NULL (the NUL is not counted in n) */
    size_t n, cap;
    size_t max;    /* bytes of content allowed */
    int failed;    /* 0, QN_E_NOMEM or QN_E_LIMIT */
};

void qn_buf_init(struct qn_buf *b, size_t max);
void qn_buf_done(struct qn_buf *b);
/* Forgets the content and a failure, keeps the memory. */
void qn_buf_reset(struct qn_buf *b);
/* Room for `n` more bytes; returns where they go or NULL. The caller then adds to b->n and terminates with NUL. */
char *qn_buf_reserve(struct qn_buf *b, size_t n);
void qn_buf_put(struct qn_buf *b, const void *p, size_t n);
void qn_buf_puts(struct qn_buf *b, const char *s);
void qn_buf_putc(struct qn_buf *b, char c);
__attribute__((format(printf, 2, 3)))
void qn_buf_printf(struct qn_buf *b, const char *fmt, ...);
/* Hands the bytes over (free()), leaves the buffer empty. NULL when nothing was written or it failed. */
char *qn_buf_take(struct qn_buf *b, size_t *n);

#endif
