/* Numbers as texts. A bound becomes the set of digit strings that lie on its side, compared digit by digit from the left, exactly
 * and in decimal; multipleOf becomes an automaton that carries the remainder, written out digit by digit.
 *
 * What is written: at most 18 digits before the point, so that an integer fits 64 bits, and 15 after it; an exponent of two digits
 * only where nothing bounds the number; no negative zero where something does. With bounds a number with a fraction has 15 digits
 * in all: beyond that two texts may be one double, and `> 0.1` would be met by its own bound. */
#include "api/schema_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INT_DIGITS = 18, FRAC_DIGITS = 15, DEC_MAX = 400, DEC_FRAC_MAX = 40, MULTIPLE_STATES = 20000 };

/* A decimal: digits of the whole part without leading zeros ("0" alone), of the fraction without trailing ones. */
struct dec {
    int negative, n_whole, n_frac, cut /* the fraction was longer */;
    char whole[DEC_MAX], frac[DEC_FRAC_MAX + 1];
};

/* ---- reading ---- */

static void shortest(double x, char *buf, size_t n) {
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(buf, n, "%.*g", digits, x);
        if (strtod(buf, NULL) == x) return;
    }
}

static void dec_read(struct dec *d, const json_t *v) {
    char text[64], digits[40] = "";
    int n = 0, point = -1;
    *d = (struct dec){0};
    if (json_is_integer(v)) snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
    else shortest(json_real_value(v), text, sizeof text);
    const char *p = text + (d->negative = *text == '-');
    for (; *p && *p != 'e'; p++) {
        if (*p == '.') point = n;
        else digits[n++] = *p;
    }
    point = (point < 0 ? n : point) + (*p == 'e' ? (int)strtol(p + 1, NULL, 10) : 0); /* the point stands before digit `point` */
    for (int i = 0; i < (point > n ? point : n) && d->n_whole < DEC_MAX; i++) {
        char ch = i < n ? digits[i] : '0';
        if (i < point && (d->n_whole || ch != '0')) d->whole[d->n_whole++] = ch;
    }
    if (!d->n_whole) d->whole[d->n_whole++] = '0';
    for (int i = point; i < n; i++) {
        if (d->n_frac < DEC_FRAC_MAX) d->frac[d->n_frac++] = i < 0 ? '0' : digits[i];
        else d->cut = 1;
    }
    while (d->n_frac && d->frac[d->n_frac - 1] == '0') d->n_frac--;
    if (d->n_whole == 1 && d->whole[0] == '0' && !d->n_frac && !d->cut) d->negative = 0;
}

/* ---- digits ---- */

static qn_gnode digit(struct qn_schema *c, int from, int to) {
    uint64_t set[4] = {0};
    for (int d = from; d <= to; d++) set[0] |= 1ull << ('0' + d);
    return from > to ? QN_G_NONE : qn_g_byte_set(c->g, set);
}

static qn_gnode digits(struct qn_schema *c, int min, int max) {
    return max < 0 ? QN_G_NONE : qn_g_repeat(c->g, digit(c, 0, 9), (uint32_t)min, (uint32_t)max);
}

static qn_gnode cat(struct qn_schema *c, qn_gnode a, qn_gnode b) { return qn_g_cat(c->g, a, b); }
static qn_gnode alt(struct qn_schema *c, qn_gnode a, qn_gnode b) { return qn_g_alt(c->g, a, b); }
static qn_gnode text(struct qn_schema *c, const char *s) { return qn_g_bytes(c->g, s, strlen(s)); }
static qn_gnode maybe(struct qn_schema *c, qn_gnode a) { return alt(c, QN_G_EMPTY, a); }

static qn_gnode zeros(struct qn_schema *c) { return qn_g_repeat(c->g, digit(c, 0, 0), 0, QN_G_INF); }
static qn_gnode more_digits(struct qn_schema *c) { return qn_g_repeat(c->g, digit(c, 0, 9), 0, QN_G_INF); }
/* A fraction of any length, or none: the shape bounds it. */
static qn_gnode any_frac(struct qn_schema *c) { return maybe(c, cat(c, text(c, "."), more_digits(c))); }

/* Whole parts of min..max digits. */
static qn_gnode whole(struct qn_schema *c, int min, int max) {
    if (max < min) return QN_G_NONE;
    qn_gnode out = max >= 2 ? cat(c, digit(c, 1, 9), digits(c, min > 1 ? min - 1 : 0, max - 1)) : digit(c, 1, 9);
    return min <= 1 ? alt(c, digit(c, 0, 0), out) : out;
}

/* Digits after the point whose value is above (sign 1) or below (-1) that of d's from digit i on; equal ones too unless strict. */
static qn_gnode frac_side(struct qn_schema *c, const struct dec *d, int i, int sign, int strict) {
    if (i == d->n_frac) {
        if (sign < 0) return strict ? QN_G_NONE : zeros(c);
        return strict ? cat(c, zeros(c), cat(c, digit(c, 1, 9), more_digits(c))) : more_digits(c);
    }
    int at = d->frac[i] - '0';
    qn_gnode off = cat(c, sign > 0 ? digit(c, at + 1, 9) : digit(c, 0, at - 1), more_digits(c));
    qn_gnode out = alt(c, off, cat(c, digit(c, at, at), frac_side(c, d, i + 1, sign, strict)));
    return sign < 0 ? maybe(c, out) : out; /* what is missing is zeros, and d has other digits yet */
}

/* What may follow a whole part that equals d's. */
static qn_gnode after_whole(struct qn_schema *c, const struct dec *d, int sign, int strict) {
    qn_gnode point = cat(c, text(c, "."), frac_side(c, d, 0, sign, strict));
    int none = sign > 0 ? d->n_frac == 0 && !strict : d->n_frac > 0 || !strict;
    return none ? maybe(c, point) : point;
}

static qn_gnode whole_side(struct qn_schema *c, const struct dec *d, int i, int sign, int strict) {
    if (i == d->n_whole) return after_whole(c, d, sign, strict);
    int at = d->whole[i] - '0', least = i == 0 && d->n_whole > 1;
    qn_gnode off = sign > 0 ? digit(c, at + 1, 9) : digit(c, least, at - 1);
    off = cat(c, off, cat(c, digits(c, d->n_whole - 1 - i, d->n_whole - 1 - i), any_frac(c)));
    return alt(c, off, cat(c, digit(c, at, at), whole_side(c, d, i + 1, sign, strict)));
}

/* Numbers without sign that are above or below |d|. */
static qn_gnode side(struct qn_schema *c, const struct dec *d, int sign, int strict) {
    if (d->cut) strict = sign > 0; /* between d and what was cut from it lies nothing that we write */
    if (d->n_whole > INT_DIGITS) return sign > 0 ? QN_G_NONE : cat(c, whole(c, 1, INT_DIGITS), any_frac(c));
    qn_gnode out = whole_side(c, d, 0, sign, strict);
    qn_gnode far = sign > 0 ? whole(c, d->n_whole + 1, INT_DIGITS) : whole(c, 1, d->n_whole - 1);
    return alt(c, out, cat(c, far, any_frac(c)));
}

static qn_gnode minus(struct qn_schema *c, qn_gnode magnitude) { return cat(c, text(c, "-"), magnitude); }
static qn_gnode magnitudes(struct qn_schema *c) { return cat(c, whole(c, 1, INT_DIGITS), any_frac(c)); }

static qn_gnode above(struct qn_schema *c, const struct dec *d, int strict) {
    if (!d->negative) return side(c, d, 1, strict);
    return alt(c, magnitudes(c), minus(c, side(c, d, -1, strict)));
}

static int is_zero(const struct dec *d) { return d->n_whole == 1 && d->whole[0] == '0' && !d->n_frac && !d->cut; }

static qn_gnode below(struct qn_schema *c, const struct dec *d, int strict) {
    if (d->negative) return minus(c, side(c, d, 1, strict));
    return alt(c, minus(c, magnitudes(c)), is_zero(d) && strict ? QN_G_NONE : side(c, d, -1, strict));
}

/* Every spelling of the value. */
static qn_gnode equal_to(struct qn_schema *c, const json_t *v) {
    struct dec d;
    dec_read(&d, v);
    qn_gnode n = qn_g_and(c->g, side(c, &d, 1, 0), side(c, &d, -1, 0));
    return d.negative ? minus(c, n) : n;
}

/* ---- multiples ---- */

struct multiples {
    struct qn_schema *c;
    uint32_t p;      /* the number is a multiple of p / 10^shift */
    int shift;
    qn_gnode *whole; /* [digits left][remainder] */
    qn_gnode *frac;
};

/* For each next remainder the digits that lead there. */
static qn_gnode fan_out(struct multiples *m, uint32_t r, const qn_gnode *to) {
    qn_gnode v[10];
    size_t n = 0;
    for (uint32_t d = 0; d < 10; d++) {
        uint32_t next = (r * 10 + d) % m->p, first = 0;
        uint64_t set[4] = {0};
        while ((r * 10 + first) % m->p != next) first++;
        if (first < d) continue;
        for (uint32_t e = d; e < 10; e++)
            if ((r * 10 + e) % m->p == next) set[0] |= 1ull << ('0' + e);
        if (to[next] != QN_G_NONE) v[n++] = cat(m->c, qn_g_byte_set(m->c->g, set), to[next]);
    }
    return qn_g_alt_n(m->c->g, v, n);
}

static uint32_t shifted(const struct multiples *m, uint32_t r, int by) {
    for (int i = 0; i < by; i++) r = r * 10 % m->p;
    return r;
}

/* Fraction digits, then the whole part from its end; both by digits that may still come. */
static void fill(struct multiples *m, int whole_digits) {
    struct qn_schema *c = m->c;
    qn_gnode *now = m->frac, *next;
    for (uint32_t r = 0; r < m->p; r++) now[r] = r == 0 ? zeros(c) : QN_G_NONE;
    for (int left = 1; left <= m->shift; left++, now = next) {
        next = now + m->p;
        for (uint32_t r = 0; r < m->p && qn_s_tick(c) == 0; r++)
            next[r] = alt(c, shifted(m, r, left) == 0 ? QN_G_EMPTY : QN_G_NONE, fan_out(m, r, now));
    }
    const qn_gnode *frac = now;
    now = m->whole;
    for (uint32_t r = 0; r < m->p; r++) {
        qn_gnode point = cat(c, text(c, "."), frac[r]);
        now[r] = alt(c, shifted(m, r, m->shift) == 0 ? QN_G_EMPTY : QN_G_NONE, point);
    }
    for (int left = 1; left <= whole_digits; left++, now = next) {
        next = now + m->p;
        for (uint32_t r = 0; r < m->p && qn_s_tick(c) == 0; r++) next[r] = alt(c, m->whole[r], fan_out(m, r, now));
    }
}

/* Multiples without sign, of up to n digits before the point. The last row of `whole` is where the number begins. */
static qn_gnode multiples_of(struct qn_schema *c, const json_t *s, const char *kw, uint32_t p, int shift, int n) {
    if ((uint64_t)p * (uint64_t)(n + shift + 2) > MULTIPLE_STATES) {
        qn_s_refuse(c, s, kw, "unsupported_value", "a divisor with so many digits is not supported");
        return QN_G_NONE;
    }
    struct multiples m = {c, p, shift, qn_s_alloc(c, (size_t)p * (size_t)(n + 1) * sizeof(qn_gnode)),
                          qn_s_alloc(c, (size_t)p * (size_t)(shift + 1) * sizeof(qn_gnode))};
    if (!m.whole || !m.frac) return QN_G_NONE;
    fill(&m, n);
    return qn_g_and(c->g, m.whole[(size_t)p * (size_t)n], magnitudes(c));
}

static qn_gnode multiple(struct qn_schema *c, const json_t *s, const char *kw, int n) {
    struct dec d;
    uint64_t p = 0;
    int tens = 0;
    dec_read(&d, qn_s_kw(s, kw));
    for (int i = 0; i < d.n_whole + d.n_frac && p < 1ull << 40; i++) p = p * 10 + (uint64_t)((i < d.n_whole ? d.whole[i] : d.frac[i - d.n_whole]) - '0');
    for (; d.n_frac == 0 && p % 10 == 0 && p > 0; p /= 10) tens++;
    if (n < tens + 1 && tens < INT_DIGITS) n = tens + 1;
    if (p == 0 || p >= 1ull << 31 || tens + 1 > n || d.cut || d.n_whole > INT_DIGITS) p = UINT32_MAX;
    qn_gnode out = multiples_of(c, s, kw, (uint32_t)p, d.n_frac, n - tens);
    if (tens) { /* a multiple of the rest, then so many zeros; or zero */
        out = qn_g_and(c->g, out, cat(c, digit(c, 1, 9), more_digits(c)));
        out = cat(c, out, qn_g_repeat(c->g, digit(c, 0, 0), (uint32_t)tens, (uint32_t)tens));
        out = cat(c, alt(c, digit(c, 0, 0), out), maybe(c, cat(c, text(c, "."), zeros(c))));
    }
    return alt(c, out, minus(c, out));
}

/* ---- one case ---- */

struct numbers {
    qn_gnode all;
    int bounded, digits /* of the largest bound */, low, high;
};

static void meet(struct qn_schema *c, struct numbers *t, qn_gnode n) {
    t->all = t->bounded ? qn_g_and(c->g, t->all, n) : n;
    t->bounded = 1;
}

static void meet_bound(struct qn_schema *c, struct numbers *t, const json_t *v, int low, int strict) {
    struct dec d;
    dec_read(&d, v);
    if (d.n_whole > t->digits) t->digits = d.n_whole;
    if (low) t->low = 1;
    else t->high = 1;
    meet(c, t, low ? above(c, &d, strict) : below(c, &d, strict));
}

static void meet_atom(struct qn_schema *c, struct numbers *t, const json_t *s) {
    const json_t *lo = qn_s_kw(s, "minimum"), *hi = qn_s_kw(s, "maximum"), *xlo = qn_s_kw(s, "exclusiveMinimum"),
                 *xhi = qn_s_kw(s, "exclusiveMaximum"), *no = qn_s_kw(s, QN_KW_NOT_ENUM);
    if (lo) meet_bound(c, t, lo, 1, json_is_true(xlo));
    if (hi) meet_bound(c, t, hi, 0, json_is_true(xhi));
    if (json_is_number(xlo)) meet_bound(c, t, xlo, 1, 1);
    if (json_is_number(xhi)) meet_bound(c, t, xhi, 0, 1);
    for (size_t i = 0; i < json_array_size(no); i++)
        if (json_is_number(json_array_get(no, i))) meet(c, t, qn_g_not(c->g, equal_to(c, json_array_get(no, i))));
}

static void meet_multiples(struct qn_schema *c, struct numbers *t, const json_t *s) {
    int n = t->low && t->high && t->digits < INT_DIGITS ? t->digits : INT_DIGITS;
    if (qn_s_kw(s, "multipleOf")) meet(c, t, multiple(c, s, "multipleOf", n));
    if (qn_s_kw(s, QN_KW_NOT_MULTIPLE)) meet(c, t, qn_g_not(c->g, multiple(c, s, QN_KW_NOT_MULTIPLE, n)));
}

/* 12.5 and its like: up to 15 digits in all. */
static qn_gnode fractions(struct qn_schema *c) {
    qn_gnode v[FRAC_DIGITS] = {0};
    for (int k = 1; k < FRAC_DIGITS; k++) v[k] = cat(c, whole(c, k, k), cat(c, text(c, "."), digits(c, 1, FRAC_DIGITS - k)));
    return qn_g_alt_n(c->g, v, FRAC_DIGITS);
}

/* Numbers whose length is bounded, as their types have them. */
static qn_gnode shape(struct qn_schema *c, unsigned types) {
    qn_gnode w = whole(c, 1, INT_DIGITS), no_frac = maybe(c, cat(c, text(c, "."), zeros(c))), out = w;
    if (types == QN_T_FRACTION) out = qn_g_and(c->g, fractions(c), qn_g_not(c->g, cat(c, w, no_frac)));
    if (types == QN_T_NUMBER) out = alt(c, w, fractions(c));
    return alt(c, out, minus(c, qn_g_and(c->g, out, qn_g_not(c->g, cat(c, digit(c, 0, 0), no_frac)))));
}

/* Any number: a sign, whole part, fraction, exponent. */
static qn_gnode free_number(struct qn_schema *c) {
    qn_gnode sign = alt(c, text(c, "+"), text(c, "-")), e = alt(c, text(c, "e"), text(c, "E"));
    qn_gnode tail = maybe(c, cat(c, e, cat(c, maybe(c, sign), digits(c, 1, 2))));
    qn_gnode n = cat(c, whole(c, 1, INT_DIGITS), cat(c, maybe(c, cat(c, text(c, "."), digits(c, 1, FRAC_DIGITS))), tail));
    return cat(c, maybe(c, text(c, "-")), n);
}

qn_gnode qn_s_number(struct qn_schema *c, const struct qn_scase *k) {
    struct numbers t = {QN_G_NONE, 0, -1, 0, 0};
    unsigned types = k->types & QN_T_NUMBER;
    qn_gnode list;
    for (uint32_t i = 0; i < k->n; i++) meet_atom(c, &t, qn_s_atom(c, k, i));
    for (uint32_t i = 0; i < k->n; i++) meet_multiples(c, &t, qn_s_atom(c, k, i));
    if (qn_s_listed(c, k, types, &list)) {
        if (!t.bounded) return list;
        meet(c, &t, list);
        return qn_s_settle(c, t.all);
    }
    if (!t.bounded && types == QN_T_NUMBER) return free_number(c);
    qn_gnode s = shape(c, types);
    return t.bounded ? qn_s_settle(c, qn_g_and(c->g, t.all, s)) : s;
}

/* A value of an enum: what is between the quotes of a string, the plain decimal of a number. */
qn_gnode qn_s_value(struct qn_schema *c, const json_t *v) {
    struct dec d;
    char buf[DEC_MAX + DEC_FRAC_MAX + 4];
    if (json_is_string(v)) return qn_s_escaped(c, json_string_value(v), json_string_length(v));
    dec_read(&d, v);
    if (d.cut || d.n_whole > INT_DIGITS + 1) shortest(json_number_value(v), buf, sizeof buf);
    else snprintf(buf, sizeof buf, "%s%.*s%s%.*s", d.negative ? "-" : "", d.n_whole, d.whole, d.n_frac ? "." : "", d.n_frac, d.frac);
    return text(c, buf);
}
