/* The merge list names pairs by spelling; at open they become pairs of ids in an open-addressed table, so that a word is
 * merged without touching a string. Most words of a text are one token: those are found by their bytes alone, once it is
 * known that merging would give the same (`whole`), which halves the time on English. */
#include "engine/bpe.h"

#include <stdatomic.h>

#include "engine/base/utf8.h"

void qn_merge_done(struct qn_merge *m) {
    free(m->block);
    *m = (struct qn_merge){0};
}

int qn_merge_reserve(struct qn_merge *m, size_t n) {
    if (n <= m->cap) return 0;
    size_t cap = n < 256 ? 256 : n + n / 4, heap = cap + cap / 2 + 8;
    if (n >= (size_t)1 << 31) return QN_E_LIMIT;
    free(m->block);
    *m = (struct qn_merge){.block = malloc(heap * sizeof(uint64_t) + (6 * cap + 1) * sizeof(uint32_t))};
    if (!m->block) return QN_E_NOMEM;
    m->cap = cap;
    m->heap = m->block;
    m->heap_cap = heap;
    m->id = (uint32_t *)(m->heap + heap);
    m->rank = m->id + cap;
    m->to = m->rank + cap;
    m->prev = m->to + cap;
    m->next = m->prev + cap;
    m->start = m->next + cap;
    return 0;
}

static uint32_t home(const struct qn_bpe *b, uint32_t left, uint32_t right) {
    return (uint32_t)(qn_fold(((uint64_t)left << 32 | right) ^ b->v->key[0], b->v->key[1]) >> 20) & b->mask;
}

static uint32_t pair(const void *ctx, const struct qn_merge *m, size_t i, size_t j, uint32_t end, uint32_t *to) {
    const struct qn_bpe *b = ctx;
    (void)end;
    for (uint32_t s = home(b, m->id[i], m->id[j]);; s = (s + 1) & b->mask) {
        const struct qn_bpe_slot *e = &b->slot[s];
        if (e->rank == QN_NO_RANK) return QN_NO_RANK;
        if (e->left == m->id[i] && e->right == m->id[j]) {
            *to = e->to;
            return e->rank;
        }
    }
}

/* Of a pair that is listed twice the later rank counts, as in the reference. */
static void put(struct qn_bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t to) {
    uint32_t s = home(b, left, right);
    while (b->slot[s].rank != QN_NO_RANK && (b->slot[s].left != left || b->slot[s].right != right)) s = (s + 1) & b->mask;
    b->slot[s] = (struct qn_bpe_slot){left, right, rank, to};
}

/* The id of one side of a merge. */
static uint32_t side(const struct qn_vocab *v, const char *p, size_t n) {
    uint32_t id = qn_vocab_find(v, p, n);
    return id == QN_NO_ID && n == 1 ? v->byte_id[(unsigned char)*p] : id;
}

static int read_merges(struct qn_bpe *b, const struct qn_str *merges, uint64_t n, struct qn_err *err) {
    const struct qn_vocab *v = b->v;
    char *raw = malloc(v->piece_max * 4 + 8); /* longer sides are no tokens anyway */
    if (!raw) return qn_fail(err, QN_E_NOMEM, "merges: no memory");
    for (uint64_t i = 0; i < n; i++) {
        struct qn_str s = merges[i];
        const char *gap = s.n > 1 ? memchr(s.p + 1, ' ', s.n - 1) : NULL;
        if (!gap) {
            free(raw);
            return qn_fail(err, QN_E_DATA, "tokenizer.ggml.merges[%llu]: not two parts with a space between",
                           (unsigned long long)i);
        }
        struct qn_str left = {s.p, (size_t)(gap - s.p)}, right = {gap + 1, s.n - left.n - 1};
        if (s.n > v->piece_max * 4) continue;
        size_t nl = qn_vocab_raw(v->spelling, left, raw), nr = qn_vocab_raw(v->spelling, right, raw + nl);
        if (qn_vocab_unreachable(v->spelling, left, nl) || qn_vocab_unreachable(v->spelling, right, nr)) continue;
        uint32_t l = side(v, raw, nl), r = side(v, raw + nl, nr), to = qn_vocab_find(v, raw, nl + nr);
        if (l != QN_NO_ID && r != QN_NO_ID && to != QN_NO_ID) put(b, l, r, (uint32_t)i, to);
    }
    free(raw);
    return 0;
}

int qn_bpe_init(struct qn_bpe *b, const struct qn_vocab *v, const struct qn_str *merges, uint64_t n, int whole_words,
                struct qn_err *err) {
    *b = (struct qn_bpe){.v = v, .whole_words = whole_words};
    if (n > (1u << 26)) return qn_fail(err, QN_E_LIMIT, "tokenizer.ggml.merges: %llu merges", (unsigned long long)n);
    uint32_t cap = 64;
    while (cap < n + n / 2) cap *= 2;
    b->mask = cap - 1;
    b->slot = malloc(cap * sizeof *b->slot);
    b->whole = calloc(v->n, 1);
    if (!b->slot || !b->whole) return qn_fail(err, QN_E_NOMEM, "merges: no memory");
    memset(b->slot, 0xFF, cap * sizeof *b->slot);
    return read_merges(b, merges, n, err);
}

void qn_bpe_done(struct qn_bpe *b) {
    free(b->slot);
    free((void *)b->whole);
    *b = (struct qn_bpe){0};
}

/* One symbol a byte; bytes without a token are left out first, so that their neighbours may join. */
static size_t byte_symbols(const struct qn_vocab *v, struct qn_merge *m, const char *p, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        m->id[k] = v->byte_id[(unsigned char)p[i]];
        m->start[k] = (uint32_t)i;
        k += m->id[k] != QN_NO_ID;
    }
    m->start[k] = (uint32_t)n;
    return k;
}

/* One symbol a character; one a byte for a character that is no token. */
static size_t char_symbols(const struct qn_vocab *v, struct qn_merge *m, const char *p, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        uint32_t r;
        int len = qn_utf8_decode(p + i, n - i, &r);
        uint32_t id = len ? qn_vocab_find(v, p + i, (size_t)len) : QN_NO_ID;
        for (int j = 0; j < (len ? len : 1); j++) {
            m->start[k] = (uint32_t)i + (uint32_t)j;
            m->id[k++] = id != QN_NO_ID ? id : v->byte_id[(unsigned char)p[i + (size_t)j]];
            if (id != QN_NO_ID) break;
        }
        i += len ? (size_t)len : 1;
    }
    m->start[k] = (uint32_t)n;
    return k;
}

int qn_bpe_word(const struct qn_bpe *b, struct qn_merge *m, const char *p, size_t n, size_t ids_max, struct qn_ids *out) {
    const struct qn_vocab *v = b->v;
    uint32_t id = qn_vocab_find(v, p, n);
    if (id != QN_NO_ID && (b->whole_words || atomic_load_explicit(&b->whole[id], memory_order_relaxed)))
        return qn_ids_push(out, ids_max, id);
    int rc = qn_merge_reserve(m, n + 1);
    if (rc < 0) return rc;
    size_t k = v->spelling == QN_SPELL_BYTES ? byte_symbols(v, m, p, n) : char_symbols(v, m, p, n);
    k = qn_merge_run(m, k, pair, b);
    if (k == 1 && id != QN_NO_ID && m->id[0] == id) atomic_store_explicit(&b->whole[id], 1, memory_order_relaxed);
    for (size_t i = 0; i < k && rc == 0; i++) {
        uint32_t one = m->id[i] != QN_NO_ID ? m->id[i] : v->unk;
        rc = one == QN_NO_ID ? QN_E_DATA : qn_ids_push(out, ids_max, one);
    }
    return rc;
}
