/* Builds the trie: the pieces sorted, then each adds what it does not share with the one before it. */
#include "engine/grammar/trie.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/utf8.h"
#include "engine/grammar/node.h"

#define MIXED_ROOT (QN_TRIE_NO_NODE - 1)
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

/* Characters of a piece that is wholly plain, or 0. */
static uint32_t plain_chars(const struct entry *e) {
    uint32_t n = 0, rune;
    for (uint32_t i = 0; i < e->n; n++) {
        int len = qn_utf8_decode(e->p + i, e->n - i, &rune);
        if (len == 0 || (rune < 128 && !qn_set_has(qn_plain_ascii, rune))) return 0;
        i += (uint32_t)len;
    }
    return n <= QN_PLAIN_MAX ? n : 0;
}

static void mark_plain(struct qn_token_trie *t, const struct entry *e, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = plain_chars(&e[i]);
        if (k) t->plain[k * t->n_words + e[i].id / 32] |= 1u << (e[i].id % 32);
    }
    for (uint32_t k = 1; k <= QN_PLAIN_MAX; k++)
        for (uint32_t w = 0; w < t->n_words; w++) t->plain[k * t->n_words + w] |= t->plain[(k - 1) * t->n_words + w];
}

/* `mixed`: only what is not plain. Pieces are sorted: those of the same bytes follow each other. */
static int grow_trie(struct qn_token_trie *t, struct qn_trie *to, const struct entry *e, uint32_t n, size_t bytes, int mixed) {
    uint32_t path[PIECE_MAX + 1], depth = 0; /* nodes of the piece before */
    struct entry last = {0};
    to->node = malloc((bytes + 1) * sizeof *to->node);
    if (!to->node) return QN_E_NOMEM;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = 0;
        if (mixed && plain_chars(&e[i])) continue;
        while (k < last.n && k < e[i].n && last.p[k] == e[i].p[k]) k++;
        if (k == e[i].n) {
            t->twin[e[i].id] = to->node[path[k]].token;
            to->node[path[k]].token = e[i].id;
            continue;
        }
        for (; depth > k; depth--) to->node[path[depth]].skip = to->n;
        while (depth < e[i].n) {
            to->node[to->n] = (struct qn_trie_node){.token = QN_TRIE_NO_TOKEN, .byte = (uint8_t)e[i].p[depth], .depth = (uint16_t)(depth + 1)};
            path[++depth] = to->n++;
        }
        to->node[path[depth]].token = e[i].id;
        if (depth > t->depth_max) t->depth_max = depth;
        last = e[i];
    }
    for (; depth > 0; depth--) to->node[path[depth]].skip = to->n;
    struct qn_trie_node *fit = realloc(to->node, ((size_t)to->n + 1) * sizeof *fit);
    if (fit) to->node = fit;
    return 0;
}

static int same_bytes(const struct qn_token_trie *t, uint32_t id, const struct entry *e) {
    size_t n;
    const char *p = qn_tokenizer_piece(t->tok, id, &n);
    return n == e->n && !memcmp(p, e->p, n);
}

/* The child of a node of `mixed` by this byte. */
static uint32_t mixed_child(const struct qn_trie *x, uint32_t m, uint8_t byte) {
    uint32_t i = m == MIXED_ROOT ? 0 : m + 1, end = m == MIXED_ROOT ? x->n : m == QN_TRIE_NO_NODE ? 0 : x->node[m].skip;
    while (i < end && x->node[i].byte != byte) i = x->node[i].skip;
    return i < end ? i : QN_TRIE_NO_NODE;
}

/* A plain token of these bytes ends at node[depth]. */
static void note_below(struct qn_token_trie *t, const uint32_t *node, uint32_t depth, const char *p) {
    struct qn_leads leads = {0};
    for (uint32_t d = depth; d-- > 1;) {
        struct qn_trie_below *b = &t->below[node[d]];
        unsigned c = (unsigned char)p[d];
        if (c < 0x80 || c >= 0xC0) qn_leads_put(&leads, c);
        if (b->height < depth - d) b->height = depth - d;
        for (int w = 0; w < 3; w++) b->leads.set[w] |= leads.set[w];
    }
}

/* One pass over `all` in step with its sorted tokens. */
static int look_below(struct qn_token_trie *t, const struct entry *e, uint32_t n) {
    uint32_t path[PIECE_MAX + 1] = {MIXED_ROOT}, node[PIECE_MAX + 1], k = 0, next = 0;
    t->below = calloc((size_t)t->all.n + 1, sizeof *t->below);
    t->plain_order = malloc(((size_t)n + 1) * sizeof *t->plain_order);
    if (!t->below || !t->plain_order) return QN_E_NOMEM;
    for (uint32_t i = 0; i < t->all.n; i++) {
        const struct qn_trie_node *x = &t->all.node[i];
        path[x->depth] = path[x->depth - 1] == QN_TRIE_NO_NODE ? QN_TRIE_NO_NODE : mixed_child(&t->mixed, path[x->depth - 1], x->byte);
        node[x->depth] = i;
        t->below[i] = (struct qn_trie_below){.plain = k, .mixed = path[x->depth]};
        for (; x->token != QN_TRIE_NO_TOKEN && next < n && e[next].n == x->depth && same_bytes(t, x->token, &e[next]); next++) {
            if (!plain_chars(&e[next])) continue;
            t->plain_order[k++] = e[next].id;
            note_below(t, node, x->depth, e[next].p);
        }
    }
    t->below[t->all.n].plain = k;
    return 0;
}

static int make(struct qn_token_trie *t, struct entry *e) {
    size_t bytes;
    t->twin = malloc(((size_t)t->n_vocab + 1) * sizeof *t->twin);
    t->ends = malloc(((size_t)t->n_vocab + 1) * sizeof *t->ends);
    t->plain = calloc((size_t)t->n_words * (QN_PLAIN_MAX + 1) + 1, sizeof *t->plain);
    if (!t->twin || !t->ends || !t->plain) return QN_E_NOMEM;
    memset(t->twin, 0xFF, t->n_vocab * sizeof *t->twin);
    uint32_t n = collect(t, e, &bytes);
    mark_plain(t, e, n);
    int rc = grow_trie(t, &t->mixed, e, n, bytes, 1);
    if (rc == 0) rc = grow_trie(t, &t->all, e, n, bytes, 0);
    return rc < 0 ? rc : look_below(t, e, n);
}

int qn_token_trie_open(struct qn_token_trie **out, const struct qn_tokenizer *tok, struct qn_err *err) {
    uint32_t n = qn_tokenizer_n_vocab(tok);
    struct qn_token_trie *t = calloc(1, sizeof *t);
    struct entry *e = calloc((size_t)n + 1, sizeof *e);
    if (t) *t = (struct qn_token_trie){.tok = tok, .n_vocab = n, .n_words = (n + 31) / 32};
    int rc = t && e ? make(t, e) : QN_E_NOMEM;
    free(e);
    if (rc < 0) {
        qn_token_trie_close(t);
        return qn_fail(err, rc, "vocabulary trie: no memory");
    }
    *out = t;
    return 0;
}

void qn_token_trie_close(struct qn_token_trie *t) {
    if (!t) return;
    free(t->all.node);
    free(t->mixed.node);
    free(t->plain);
    free(t->below);
    free(t->plain_order);
    free(t->twin);
    free(t->ends);
    free(t);
}
