/* Builds the trie: the pieces sorted, then each adds what it does not share with the one before it. */
#include "engine/grammar/trie.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_MAX = 4096 }; /* a longer token is never allowed: bounds the depth of a walk */

struct entry {
    const char *p;
    uint32_t n, id;
};

static int by_bytes(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    uint32_t n = x->n < y->n ? x->n : y->n;
    int c = memcmp(x->p, y->p, n);
    if (c) return c;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int may_be_text(const struct qn_tokenizer *tok, uint32_t id, size_t n) {
    enum qn_token_kind k = qn_tokenizer_kind(tok, id);
    return n > 0 && n <= PIECE_MAX && !qn_tokenizer_guarded(tok, id) && !qn_tokenizer_ends(tok, id) && k != QN_TOKEN_CONTROL &&
           k != QN_TOKEN_UNKNOWN && k != QN_TOKEN_UNUSED;
}

int qn_trie_is_text(const struct qn_token_trie *t, uint32_t id) {
    size_t n;
    qn_tokenizer_piece(t->tok, id, &n);
    return may_be_text(t->tok, id, n);
}

/* The sorted pieces of text tokens; *bytes: an upper bound of the trie's nodes. */
static uint32_t collect(struct qn_token_trie *t, struct entry *e, size_t *bytes) {
    uint32_t n = 0;
    *bytes = 0;
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        size_t len;
        const char *p = qn_tokenizer_piece(t->tok, id, &len);
        if (qn_tokenizer_ends(t->tok, id)) t->ends[t->n_ends++] = id;
        if (!may_be_text(t->tok, id, len)) continue;
        e[n++] = (struct entry){p, (uint32_t)len, id};
        *bytes += len;
    }
    qsort(e, n, sizeof *e, by_bytes);
    return n;
}

static void grow_trie(struct qn_token_trie *t, const struct entry *e, uint32_t n) {
    uint32_t path[PIECE_MAX + 1], depth = 0; /* nodes of the piece before */
    struct entry last = {0};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = 0;
        while (k < last.n && k < e[i].n && last.p[k] == e[i].p[k]) k++;
        if (k == e[i].n) { /* sorted: the same bytes again */
            t->twin[e[i].id] = t->node[path[k]].token;
            t->node[path[k]].token = e[i].id;
            continue;
        }
        for (; depth > k; depth--) t->node[path[depth]].skip = t->n;
        for (; depth < e[i].n; path[depth] = t->n++) {
            t->node[t->n] = (struct qn_trie_node){.token = QN_TRIE_NO_TOKEN, .byte = (uint8_t)e[i].p[depth], .depth = (uint16_t)(depth + 1)};
            depth++;
        }
        t->node[path[depth]].token = e[i].id;
        if (depth > t->depth_max) t->depth_max = depth;
        last = e[i];
    }
    for (; depth > 0; depth--) t->node[path[depth]].skip = t->n;
}

int qn_token_trie_open(struct qn_token_trie **out, const struct qn_tokenizer *tok, struct qn_err *err) {
    uint32_t n = qn_tokenizer_n_vocab(tok);
    size_t bytes = 0;
    struct qn_token_trie *t = calloc(1, sizeof *t);
    struct entry *e = calloc((size_t)n + 1, sizeof *e);
    if (t && e) {
        t->tok = tok;
        t->n_vocab = n;
        t->twin = malloc(((size_t)n + 1) * sizeof *t->twin);
        t->ends = malloc(((size_t)n + 1) * sizeof *t->ends);
    }
    if (t && e && t->twin && t->ends) {
        memset(t->twin, 0xFF, n * sizeof *t->twin);
        n = collect(t, e, &bytes);
        t->node = malloc((bytes + 1) * sizeof *t->node);
    }
    if (!t || !t->node) {
        free(e);
        qn_token_trie_close(t);
        return qn_fail(err, QN_E_NOMEM, "vocabulary trie: no memory");
    }
    grow_trie(t, e, n);
    free(e);
    struct qn_trie_node *fit = realloc(t->node, ((size_t)t->n + 1) * sizeof *fit);
    if (fit) t->node = fit;
    *out = t;
    return 0;
}

void qn_token_trie_close(struct qn_token_trie *t) {
    if (!t) return;
    free(t->node);
    free(t->twin);
    free(t->ends);
    free(t);
}
