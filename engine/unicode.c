/* Canonical composition (UAX #15): decompose fully, order each run of marks by combining class, then join a starter with
 * what follows where nothing of the same or a higher class stands between. Hangul by arithmetic (The Unicode Standard,
 * section 3.12). Runs of marks may be as long as the text, so they are ordered by counting, not by exchange. */
#include "engine/unicode.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/err.h"

enum {
    S_BASE = 0xAC00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11A7,
    L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = L_COUNT * V_COUNT * T_COUNT,
    RAW_BYTE = 0x110000, /* + byte: a byte that is no character, carried through */
    SHORT_RUN = 32,
};

int qn_uni_is_nfc(const char *s, size_t n) {
    size_t i = 0;
    while (i < n && (unsigned char)s[i] < 0xCC) i++; /* below U+0300 nothing is active */
    while (i < n) {
        uint32_t r;
        i += qn_uni_next(s + i, n - i, &r);
        if (qn_uni(r) & QN_UNI_ACTIVE) return 0;
    }
    return 1;
}

static unsigned ccc(uint32_t r) {
    if (r < 0x300 || r >= RAW_BYTE) return 0;
    unsigned lo = 0, hi = qn_uni_n_marks;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (qn_uni_mark[mid].to < r) lo = mid + 1;
        else hi = mid;
    }
    return lo < qn_uni_n_marks && qn_uni_mark[lo].from <= r ? qn_uni_mark[lo].ccc : 0;
}

/* Writes the decomposition of r to out, at most 4 long; returns its length. */
static size_t decompose(uint32_t r, uint32_t *out) {
    if (r >= S_BASE && r < S_BASE + S_COUNT) {
        uint32_t s = r - S_BASE;
        out[0] = L_BASE + s / (V_COUNT * T_COUNT);
        out[1] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
        out[2] = T_BASE + s % T_COUNT;
        return s % T_COUNT ? 3 : 2;
    }
    unsigned lo = 0, hi = r < 0xC0 || r >= RAW_BYTE ? 0 : qn_uni_n_decomp;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (qn_uni_decomp[mid].from < r) lo = mid + 1;
        else hi = mid;
    }
    if (lo < qn_uni_n_decomp && qn_uni_decomp[lo].from == r) {
        memcpy(out, qn_uni_pool + qn_uni_decomp[lo].at, qn_uni_decomp[lo].n * sizeof *out);
        return qn_uni_decomp[lo].n;
    }
    out[0] = r;
    return 1;
}

/* 0 when a and b do not join. */
static uint32_t join(uint32_t a, uint32_t b) {
    if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT) return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a - S_BASE < S_COUNT && (a - S_BASE) % T_COUNT == 0 && b - T_BASE - 1 < T_COUNT - 1) return a + (b - T_BASE);
    unsigned lo = 0, hi = qn_uni_n_compose;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        const struct qn_uni_compose *c = &qn_uni_compose[mid];
        if (c->a < a || (c->a == a && c->b < b)) lo = mid + 1;
        else hi = mid;
    }
    return lo < qn_uni_n_compose && qn_uni_compose[lo].a == a && qn_uni_compose[lo].b == b ? qn_uni_compose[lo].to : 0;
}

/* Orders r[0..n), all marks, by class, keeping the order of equals; tmp has room for n. */
static void order(uint32_t *r, size_t n, uint32_t *tmp) {
    if (n <= SHORT_RUN) {
        for (size_t i = 1; i < n; i++)
            for (size_t j = i; j > 0 && ccc(r[j - 1]) > ccc(r[j]); j--) {
                uint32_t t = r[j];
                r[j] = r[j - 1];
                r[j - 1] = t;
            }
        return;
    }
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++) at[ccc(r[i]) + 1]++;
    for (int c = 0; c < 256; c++) at[c + 1] += at[c];
    for (size_t i = 0; i < n; i++) tmp[at[ccc(r[i])]++] = r[i];
    memcpy(r, tmp, n * sizeof *r);
}

static void order_all(uint32_t *r, size_t n, uint32_t *tmp) {
    for (size_t i = 0; i < n;) {
        size_t j = i;
        while (j < n && ccc(r[j])) j++;
        if (j - i > 1) order(r + i, j - i, tmp);
        i = j + (j == i);
    }
}

static size_t compose(uint32_t *r, size_t n) {
    size_t o = 0, starter = 0;
    int have = 0;       /* r[starter] is a starter */
    unsigned last = 0;  /* class of the last mark kept after it; 0: none yet */
    for (size_t i = 0; i < n; i++) {
        unsigned c = ccc(r[i]);
        int adjacent = have && o == starter + 1;
        if (have && (adjacent || last < c)) {
            uint32_t to = join(r[starter], r[i]);
            if (to) {
                r[starter] = to;
                continue;
            }
        }
        if (c == 0) {
            starter = o;
            have = 1;
        }
        last = c;
        r[o++] = r[i];
    }
    return o;
}

int qn_uni_nfc(const char *s, size_t n, char **out, size_t *n_out) {
    /* The longest decomposition from one byte of text: U+0390 and the like give 3 of 2 bytes, U+1F82 4 of 3. */
    size_t cap = 2 * n + 4, k = 0;
    if (n > SIZE_MAX / 32) return QN_E_NOMEM;
    uint32_t *r = malloc(2 * cap * sizeof *r);
    char *p = malloc(4 * cap);
    if (!r || !p) {
        free(r);
        free(p);
        return QN_E_NOMEM;
    }
    for (size_t i = 0; i < n;) {
        uint32_t c = 0;
        int len = qn_utf8_decode(s + i, n - i, &c);
        k += decompose(len ? c : (uint32_t)RAW_BYTE + (unsigned char)s[i], r + k);
        i += len ? (size_t)len : 1;
    }
    order_all(r, k, r + cap);
    k = compose(r, k);
    size_t o = 0;
    for (size_t i = 0; i < k; i++) {
        if (r[i] >= RAW_BYTE) p[o++] = (char)(r[i] - RAW_BYTE);
        else o += (size_t)qn_utf8_encode(r[i], p + o);
    }
    free(r);
    *out = p;
    *n_out = o;
    return 0;
}
