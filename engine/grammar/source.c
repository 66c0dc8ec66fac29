/* Places, names and messages of grammar files. Names are found by a hash (FNV-1a) whose table is at most half full. */
#include "engine/grammar/source.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/utf8.h"

int qn_source_open(struct qn_source *s, struct qn_grammar *g, const char *what, const char *p, size_t n, struct qn_err *err) {
    *s = (struct qn_source){.g = g, .what = what, .p = p, .n = n, .line = 1, .err = err};
    if (n > QN_SOURCE_BYTES_MAX) return s->rc = qn_fail(err, QN_E_LIMIT, "%s: %zu bytes, at most %d", what, n, QN_SOURCE_BYTES_MAX);
    if (!qn_utf8_valid(p, n)) return s->rc = qn_fail(err, QN_E_DATA, "%s: bytes that are not UTF-8", what);
    return 0;
}

int qn_source_fail(struct qn_source *s, int code, const char *fmt, ...) {
    char text[QN_ERR_TEXT_MAX];
    va_list ap;
    if (s->rc) return s->rc;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    text[qn_utf8_whole(text, strlen(text))] = 0;
    return s->rc = qn_fail(s->err, code, "%s, line %d: %.200s", s->what, s->line, text);
}

int qn_source_skip(struct qn_source *s, const char *word) {
    size_t n = strlen(word);
    if (s->n - s->at < n || memcmp(s->p + s->at, word, n) != 0) return 0;
    while (n--) qn_source_step(s);
    return 1;
}

uint32_t qn_source_char(struct qn_source *s) {
    uint32_t c = 0;
    int n = s->at < s->n ? qn_utf8_decode(s->p + s->at, s->n - s->at, &c) : 0;
    if (n == 0) return (uint32_t)(qn_source_fail(s, QN_E_DATA, "the text ends too soon") * 0);
    s->line += c == '\n';
    s->at += (size_t)n;
    return c;
}

int qn_source_number(struct qn_source *s, uint32_t *out) {
    uint64_t v = 0;
    size_t start = s->at;
    for (int c; (c = qn_source_peek(s, 0)) >= '0' && c <= '9'; s->at++) {
        v = v * 10 + (uint64_t)(c - '0');
        if (v > QN_SOURCE_COUNT_MAX) return qn_source_fail(s, QN_E_LIMIT, "a number above %d", QN_SOURCE_COUNT_MAX), 0;
    }
    *out = (uint32_t)v;
    return s->at > start;
}

uint32_t qn_source_hex(struct qn_source *s, int digits) {
    uint32_t v = 0;
    for (int i = 0; i < digits; i++) {
        int c = qn_source_peek(s, 0), low = c | 32;
        int d = c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
        if (d < 0) return (uint32_t)(qn_source_fail(s, QN_E_DATA, "%d hexadecimal digits wanted", digits) * 0);
        v = v * 16 + (uint32_t)d;
        s->at++;
    }
    if (v > 0x10FFFF) qn_source_fail(s, QN_E_DATA, "no character has the number %X", v);
    return v;
}

uint32_t qn_source_escape(struct qn_source *s) {
    static const struct { char letter; uint8_t c; } plain[] = {{'n', 10}, {'r', 13}, {'t', 9}, {'f', 12}, {'v', 11}, {'b', 8}, {'0', 0}};
    uint32_t c = qn_source_char(s);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (c == (unsigned char)plain[i].letter) return plain[i].c;
    if (c == 'x') return qn_source_hex(s, 2);
    if (c == 'u') return qn_source_hex(s, 4);
    if (c == 'U') return qn_source_hex(s, 8);
    if ((c >= '1' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z')) qn_source_fail(s, QN_E_DATA, "an unknown escape \\%c", (int)c);
    return c;
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static size_t slot_of(const struct qn_names *t, const char *p, size_t n) {
    uint64_t h = 14695981039346656037ull;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 1099511628211ull;
    size_t at = (size_t)(h ^ h >> 32) & (t->n_slots - 1);
    while (t->slots[at]) {
        const struct qn_name *v = &t->v[t->slots[at] - 1];
        if (v->n == n && memcmp(v->p, p, n) == 0) break;
        at = (at + 1) & (t->n_slots - 1);
    }
    return at;
}

static int grow(struct qn_names *t) {
    size_t cap = t->cap ? t->cap * 2 : 32;
    struct qn_name *v = realloc(t->v, cap * sizeof *v);
    if (v) t->v = v;
    uint32_t *slots = v ? calloc(cap * 2, sizeof *slots) : NULL;
    if (!slots) return QN_E_NOMEM;
    free(t->slots);
    t->slots = slots;
    t->n_slots = cap * 2;
    t->cap = cap;
    for (size_t i = 0; i < t->n; i++) t->slots[slot_of(t, t->v[i].p, t->v[i].n)] = (uint32_t)i + 1;
    return 0;
}

int qn_names_find(const struct qn_names *t, const char *p, size_t n) { return t->n_slots ? (int)t->slots[slot_of(t, p, n)] - 1 : -1; }

int qn_names_get(struct qn_names *t, struct qn_source *s, const char *p, size_t n, int line) {
    int found = qn_names_find(t, p, n);
    if (found >= 0) return found;
    if (t->n == t->cap && grow(t) < 0) return qn_source_fail(s, QN_E_NOMEM, "no memory"), -1;
    t->v[t->n] = (struct qn_name){.p = p, .n = n, .line = line, .rule = qn_g_rule(s->g)};
    t->slots[slot_of(t, p, n)] = (uint32_t)t->n + 1;
    return (int)t->n++;
}

void qn_names_done(struct qn_names *t) {
    free(t->v);
    free(t->slots);
    *t = (struct qn_names){0};
}
