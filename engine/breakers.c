/* The text of the last tokens is looked through from its end, a token more at a time: a window of bytes before the newest
 * border, long enough for a breaker that begins there. llama.cpp compares with the ids that its tokenizer makes of a breaker;
 * here its bytes count, however they were cut into tokens. */
#include "engine/breakers.h"

#include <string.h>

enum { TAIL = QN_BREAKER_BYTES_MAX };

/* 1: a breaker begins in the first n_piece bytes of `text` and ends within its n. */
static int found(const struct qn_breakers *b, const char *text, size_t n_piece, size_t n, size_t *end) {
    int any = 0;
    for (int k = 0; k < b->n; k++)
        for (size_t at = 0; at < n_piece && at + b->bytes[k] <= n; at++)
            if (!memcmp(text + at, b->text[k], b->bytes[k])) {
                if (at + b->bytes[k] > *end) *end = at + b->bytes[k];
                any = 1;
            }
    return any;
}

int qn_breakers_in(const struct qn_breakers *b, uint32_t id) {
    size_t n, end = 0;
    const char *p = b->piece(b->of, id, &n);
    return found(b, p, n, n, &end);
}

/* Tokens from `first` on whose text begins after `bytes` bytes from the start of token `first`. */
static size_t after(const struct qn_breakers *b, const int32_t *tokens, size_t first, size_t n, size_t bytes) {
    size_t sum = 0;
    for (size_t i = first; i < n; i++) {
        size_t k;
        b->piece(b->of, (uint32_t)tokens[i], &k);
        if (sum >= bytes) return n - i;
        sum += k;
    }
    return 0;
}

size_t qn_breakers_since(const struct qn_breakers *b, const int32_t *tokens, size_t n) {
    char tail[TAIL] = {0}; /* the bytes that follow token i - 1: as many as a breaker that begins in it can reach */
    size_t n_tail = 0;
    for (size_t i = n; i-- > 0;) {
        char text[2 * TAIL];
        size_t k, end = 0;
        const char *p = b->piece(b->of, (uint32_t)tokens[i], &k);
        size_t skip = k > TAIL ? k - TAIL : 0, kept = k - skip;
        size_t inside = 0;
        if (skip && found(b, p, k, k, &inside)) end = inside; /* a long token by itself */
        memcpy(text, p + skip, kept);
        memcpy(text + kept, tail, n_tail);
        size_t across = 0;
        if (found(b, text, kept, kept + n_tail, &across) && skip + across > end) end = skip + across;
        if (end) return after(b, tokens, i, n, end);
        n_tail = kept + n_tail < TAIL ? kept + n_tail : TAIL;
        memcpy(tail, skip ? p : text, n_tail);
    }
    return n;
}
