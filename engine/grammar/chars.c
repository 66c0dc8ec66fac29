/* Sets of characters as expressions over the bytes of UTF-8: for each length of encoding a tree over the 6-bit groups, equal
 * subtrees joined under one set of bytes, so that equal sets of characters give one node however they were written. */
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/node.h"

struct ranges {
    const struct qn_codes *v;
    size_t n;
};

/* Characters base .. base + 64^k - 1 are the continuation bytes that are asked for: the node of those in r. */
static qn_gnode block(struct qn_grammar *g, struct ranges r, uint32_t base, unsigned k);

/* Sets of bytes `lead + i`, i < n, grouped by what may follow each. */
static qn_gnode fan(struct qn_grammar *g, struct ranges r, uint32_t base, unsigned k, unsigned lead, unsigned n, int mark) {
    qn_gnode child[64], group[64];
    uint32_t width = 1u << (6 * k), n_groups = 0;
    for (unsigned i = 0; i < n; i++) child[i] = block(g, r, base + i * width, k);
    for (unsigned i = 0; i < n && !g->error; i++) {
        uint64_t set[4] = {0};
        if (!child[i]) continue;
        for (unsigned j = i; j < n; j++) {
            if (child[j] != child[i]) continue;
            set[(lead + j) >> 6] |= 1ull << ((lead + j) & 63);
            if (j > i) child[j] = QN_G_NONE;
        }
        qn_gnode x = qn_g_cat(g, qn_gn_set(g, set), child[i]);
        if (mark && x) qn_gn(g, x)->flags |= QN_F_TEXT;
        group[n_groups++] = x;
    }
    return qn_g_alt_n(g, group, n_groups);
}

static qn_gnode block(struct qn_grammar *g, struct ranges r, uint32_t base, unsigned k) {
    static const uint64_t continuation[4] = {0, 0, ~0ull, 0};
    uint32_t last = base + (1u << (6 * k)) - 1;
    while (r.n > 0 && r.v[0].to < base) r.v++, r.n--;
    while (r.n > 0 && r.v[r.n - 1].from > last) r.n--;
    if (r.n == 0 || g->error) return QN_G_NONE;
    if (k == 0) return QN_G_EMPTY;
    if (r.v[0].from > base || r.v[0].to < last) return fan(g, r, base, k - 1, 0x80, 64, 0);
    qn_gnode x = QN_G_EMPTY;
    while (k-- > 0) x = qn_g_cat(g, qn_gn_set(g, continuation), x);
    return x;
}

static int by_from(const void *a, const void *b) {
    const struct qn_codes *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

/* The ranges sorted, joined, without surrogates, in out (room for n + 1). Returns how many. */
static size_t normal(struct qn_codes *out, const struct qn_codes *v, size_t n) {
    enum { LAST = 0x10FFFF, SURROGATES = 0xD800, AFTER = 0xE000 };
    size_t k = 0;
    for (size_t i = 0; i < n; i++) { /* each piece on its side of the surrogates; one that spans them is two */
        struct qn_codes c = {v[i].from, v[i].to < LAST ? v[i].to : LAST};
        struct qn_codes low = {c.from, c.to < SURROGATES ? c.to : SURROGATES - 1}, high = {c.from > AFTER ? c.from : AFTER, c.to};
        if (low.from <= low.to) out[k++] = low;
        if (high.from <= high.to) out[k++] = high;
    }
    qsort(out, k, sizeof *out, by_from);
    n = 0;
    for (size_t i = 0; i < k; i++) {
        if (n > 0 && out[i].from <= out[n - 1].to + 1) {
            if (out[i].to > out[n - 1].to) out[n - 1].to = out[i].to;
        } else {
            out[n++] = out[i];
        }
    }
    return n;
}

/* Those of r whose encoding takes k + 1 bytes; `piece` has room for them. */
static qn_gnode of_length(struct qn_grammar *g, struct ranges r, unsigned k, struct qn_codes *piece) {
    static const struct { uint32_t from, to; uint8_t lead, n; } form[] = {
        {0, 0x7F, 0, 0}, {0x80, 0x7FF, 0xC0, 32}, {0x800, 0xFFFF, 0xE0, 16}, {0x10000, 0x10FFFF, 0xF0, 5}};
    uint64_t ascii[4] = {0};
    size_t n = 0;
    for (size_t i = 0; i < r.n; i++) {
        struct qn_codes c = {r.v[i].from > form[k].from ? r.v[i].from : form[k].from, r.v[i].to < form[k].to ? r.v[i].to : form[k].to};
        if (c.from <= c.to) piece[n++] = c;
    }
    if (k > 0) return n ? fan(g, (struct ranges){piece, n}, 0, k, form[k].lead, form[k].n, 1) : QN_G_NONE;
    for (size_t i = 0; i < n; i++)
        for (uint32_t c = piece[i].from; c <= piece[i].to; c++) ascii[c >> 6] |= 1ull << (c & 63);
    return qn_gn_set(g, ascii);
}

qn_gnode qn_g_chars(struct qn_grammar *g, const struct qn_codes *ranges, size_t n) {
    if (g->error || n == 0) return QN_G_NONE;
    if (n > g->bytes_max / (4 * sizeof *ranges)) return qn_g_fail(g, QN_E_LIMIT), QN_G_NONE;
    struct qn_codes *v = malloc((4 * n + 1) * sizeof *v);
    if (!v) return qn_g_fail(g, QN_E_NOMEM), QN_G_NONE;
    struct ranges r = {v, normal(v, ranges, n)};
    qn_gnode part[4];
    for (unsigned k = 0; k < 4; k++) part[k] = of_length(g, r, k, v + 2 * n);
    free(v);
    return qn_g_alt_n(g, part, 4);
}
