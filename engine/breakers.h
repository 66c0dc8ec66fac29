/* Texts that end a repetition for DRY: what stood before one is another passage. Borrows everything; any thread. */
#ifndef QN_BREAKERS_H
#define QN_BREAKERS_H

#include "engine/sampler.h"

/* How many of the last tokens come after the last breaker: where one ends inside a token, that token is not among them. */
size_t qn_breakers_since(const struct qn_breakers *b, const int32_t *tokens, size_t n);
/* 1: the token has a whole breaker in itself. */
int qn_breakers_in(const struct qn_breakers *b, uint32_t id);

#endif
