/* Texts that end a repetition for DRY: what stood before one is another passage. Borrows everything; any thread. */
#ifndef QN_BREAKERS_H
#define QN_BREAKERS_H

#include <stddef.h>
#include <stdint.h>

enum { QN_BREAKERS_MAX = 16, QN_BREAKER_BYTES_MAX = 40 };

struct qn_breakers {
    int n;
    const char *text[QN_BREAKERS_MAX];
    size_t bytes[QN_BREAKERS_MAX]; /* 1..QN_BREAKER_BYTES_MAX */
    const char *(*piece)(const void *of, uint32_t id, size_t *n); /* the bytes of a token */
    const void *of;
};

/* How many of the last tokens come after the last breaker: where one ends inside a token, that token is not among them. */
size_t qn_breakers_since(const struct qn_breakers *b, const int32_t *tokens, size_t n);
/* 1: the token has a whole breaker in itself. */
int qn_breakers_in(const struct qn_breakers *b, uint32_t id);

#endif
