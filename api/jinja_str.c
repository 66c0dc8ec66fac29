/* The workhorses behind str methods and text filters. Code points are found by their UTF-8 borders; searching is memmem
 * (linear in glibc). Case mappings are full Unicode ones, with the final sigma, as in Python 3.11. */
#include "api/jinja_str.h"

#include <string.h>

#include "api/jinja_ops.h"
#include "api/jinja_show.h"
#include "api/jinja_unicode.h"
#include "engine/base/utf8.h"

static size_t rune_at(const struct qn_jstr *s, size_t i, uint32_t *r) {
    *r = (unsigned char)s->p[i];
    if (*r < 0x80) return 1;
    int k = qn_utf8_decode(s->p + i, s->n - i, r);
    return k > 0 ? (size_t)k : 1;
}

static size_t before(const struct qn_jstr *s, size_t i) {
    for (i--; i > 0 && ((unsigned char)s->p[i] & 0xC0) == 0x80;) i--;
    return i;
}

static int stripped(const struct qn_jstr *s, size_t at, size_t k, uint32_t r, const struct qn_jstr *chars) {
    if (!chars) return qn_ju_is(r, QN_JU_SPACE);
    return memmem(chars->p, chars->n, s->p + at, k) != NULL;
}

struct qn_jv qn_jstr_strip(struct qn_jx *x, struct qn_jstr *s, const struct qn_jstr *chars, int sides) {
    size_t from = 0, to = s->n;
    uint32_t r;
    if (sides & STRIP_LEFT)
        for (size_t k; from < to; from += k) {
            k = rune_at(s, from, &r);
            if (!stripped(s, from, k, r, chars)) break;
            qn_jx_fuel(x, chars ? 1 + chars->n / 64 : 0);
        }
    if (sides & STRIP_RIGHT)
        while (to > from) {
            size_t at = before(s, to);
            rune_at(s, at, &r);
            if (!stripped(s, at, to - at, r, chars)) break;
            qn_jx_fuel(x, chars ? 1 + chars->n / 64 : 0);
            to = at;
        }
    qn_jx_bytes(x, s->n - (to - from));
    if (from == 0 && to == s->n) return (struct qn_jv){.t = J_STR, .s = s};
    return qn_jstr_sub(x, s, from, to);
}

static struct qn_jv built(struct qn_jsb *b, const struct qn_jstr *like) {
    struct qn_jv v = qn_jsb_done(b);
    v.s->markup = like->markup;
    return v;
}

struct qn_jv qn_jstr_replace(struct qn_jx *x, struct qn_jstr *s, const struct qn_jstr *old, const struct qn_jstr *with,
                             int64_t times) {
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    qn_jx_bytes(x, s->n);
    if (!old->n) { /* before every character and at the end */
        for (size_t i = 0, k; times != 0; i += k, times--) {
            uint32_t r;
            qn_jx_step(x);
            qn_jsb_str(&b, with);
            if (i >= s->n) return built(&b, s);
            k = rune_at(s, i, &r);
            qn_jsb_sub(&b, s, i, i + k);
            if (times == 1) {
                qn_jsb_sub(&b, s, i + k, s->n);
                return built(&b, s);
            }
        }
        return (struct qn_jv){.t = J_STR, .s = s};
    }
    size_t from = 0;
    for (const char *hit; times != 0 && (hit = memmem(s->p + from, s->n - from, old->p, old->n)); times--) {
        size_t at = (size_t)(hit - s->p);
        qn_jx_step(x);
        qn_jsb_sub(&b, s, from, at);
        qn_jsb_str(&b, with);
        from = at + old->n;
    }
    if (!from) return (struct qn_jv){.t = J_STR, .s = s};
    qn_jsb_sub(&b, s, from, s->n);
    return built(&b, s);
}

static const char *last_hit(struct qn_jx *x, const char *p, size_t n, const struct qn_jstr *sep) {
    if (sep->n > n) return NULL;
    for (const char *c = p + (n - sep->n);; c--) {
        c = memrchr(p, sep->p[0], (size_t)(c - p) + 1);
        qn_jx_fuel(x, 1 + sep->n / 64);
        if (!c || !memcmp(c, sep->p, sep->n)) return c;
        if (c == p) return NULL;
    }
}

static void reverse(struct qn_jlist *l) {
    for (uint32_t i = 0; i < l->n / 2; i++) {
        struct qn_jv t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
}

static struct qn_jv split_blanks(struct qn_jx *x, struct qn_jstr *s, int64_t times, int right) {
    struct qn_jv l = qn_jv_list(x, J_LIST, 0);
    size_t from = 0, to = s->n;
    qn_jx_fuel(x, s->n >> 5);
    for (;;) {
        struct qn_jstr rest = {.p = s->p + from, .n = (uint32_t)(to - from)};
        struct qn_jv t = qn_jstr_strip(x, &rest, NULL, right ? STRIP_RIGHT : STRIP_LEFT);
        if (right) to -= rest.n - t.s->n;
        else from += rest.n - t.s->n;
        if (from == to) break;
        if (times == 0) { /* the rest, with its blanks at the far end */
            qn_jlist_push(x, l.l, right ? qn_jstr_sub(x, s, 0, to) : qn_jstr_sub(x, s, from, s->n));
            break;
        }
        size_t i = right ? to : from;
        uint32_t r;
        while (right ? i > from : i < to) {
            size_t at = right ? before(s, i) : i, k = rune_at(s, at, &r);
            if (qn_ju_is(r, QN_JU_SPACE)) break;
            i = right ? at : i + k;
        }
        qn_jlist_push(x, l.l, right ? qn_jstr_sub(x, s, i, to) : qn_jstr_sub(x, s, from, i));
        if (right) to = i;
        else from = i;
        times -= times > 0;
    }
    if (right) reverse(l.l);
    return l;
}

struct qn_jv qn_jstr_split(struct qn_jx *x, struct qn_jstr *s, const struct qn_jstr *sep, int64_t times, int right) {
    if (!sep) return split_blanks(x, s, times, right);
    if (!sep->n) qn_jx_fail(x, QN_E_DATA, "empty separator");
    struct qn_jv l = qn_jv_list(x, J_LIST, 0);
    size_t from = 0, to = s->n;
    qn_jx_bytes(x, s->n);
    for (; times != 0; times--) {
        const char *hit = right ? last_hit(x, s->p, to, sep) : memmem(s->p + from, to - from, sep->p, sep->n);
        if (!hit) break;
        size_t at = (size_t)(hit - s->p);
        qn_jlist_push(x, l.l, right ? qn_jstr_sub(x, s, at + sep->n, to) : qn_jstr_sub(x, s, from, at));
        if (right) to = at;
        else from = at + sep->n;
    }
    qn_jlist_push(x, l.l, qn_jstr_sub(x, s, from, to));
    if (right) reverse(l.l);
    return l;
}

static int line_end(uint32_t r) {
    return (r >= 0x0A && r <= 0x0D) || (r >= 0x1C && r <= 0x1E) || r == 0x85 || r == 0x2028 || r == 0x2029;
}

struct qn_jv qn_jstr_lines(struct qn_jx *x, struct qn_jstr *s, int keep_ends) {
    struct qn_jv l = qn_jv_list(x, J_LIST, 0);
    size_t from = 0;
    uint32_t r;
    qn_jx_fuel(x, s->n >> 5);
    for (size_t i = 0, k; i < s->n; i += k) {
        k = rune_at(s, i, &r);
        if (!line_end(r)) continue;
        if (r == '\r' && i + 1 < s->n && s->p[i + 1] == '\n') k = 2;
        qn_jlist_push(x, l.l, qn_jstr_sub(x, s, from, keep_ends ? i + k : i));
        from = i + k;
    }
    if (from < s->n) qn_jlist_push(x, l.l, qn_jstr_sub(x, s, from, s->n));
    return l;
}

struct qn_jv qn_jstr_join(struct qn_jx *x, const struct qn_jstr *sep, struct qn_jv over, int any_type) {
    struct qn_jiter it = qn_jv_iter(x, over);
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    uint32_t i = 0;
    for (struct qn_jv v; qn_jv_next(x, &it, &v); i++) {
        if (i) qn_jsb_str(&b, sep);
        if (!any_type && v.t != J_STR)
            qn_jx_fail(x, QN_E_DATA, "sequence item %u: expected str instance, %s found", i, qn_jv_type(v));
        if (sep->markup && !any_type) v = qn_jv_escape(x, v);
        qn_jv_show(x, v, &b);
    }
    struct qn_jv r = qn_jsb_done(&b);
    r.s->markup = sep->markup && !any_type;
    return r;
}

/* ---- case ---- */

static int final_sigma(const struct qn_jstr *s, size_t at, size_t k) {
    uint32_t r = 0;
    size_t i = at;
    while (i > 0) {
        i = before(s, i);
        rune_at(s, i, &r);
        if (!qn_ju_is(r, QN_JU_IGNORABLE)) break;
        r = 0;
    }
    if (!r || !qn_ju_is(r, QN_JU_CASED)) return 0;
    for (i = at + k; i < s->n;) {
        i += rune_at(s, i, &r);
        if (!qn_ju_is(r, QN_JU_IGNORABLE)) return !qn_ju_is(r, QN_JU_CASED);
    }
    return 1;
}

static int word_border(uint32_t r) { /* jinja's title filter begins a word behind one of these */
    return r == '-' || r == '(' || r == '{' || r == '[' || r == '<' || qn_ju_is(r, QN_JU_SPACE);
}

/* Which mapping the character takes; *word: state between characters. */
static int mapping(uint32_t r, int how, int *word, size_t i) {
    int was = *word;
    switch (how) {
    case CASE_UPPER: return QN_JU_TO_UPPER;
    case CASE_LOWER: return QN_JU_TO_LOWER;
    case CASE_CAPITAL: return i ? QN_JU_TO_LOWER : QN_JU_TO_TITLE;
    case CASE_SWAP: return qn_ju_is(r, QN_JU_UPPER) ? QN_JU_TO_LOWER : qn_ju_is(r, QN_JU_LOWER) ? QN_JU_TO_UPPER : -1;
    case CASE_WORDS: {
        int border = word_border(r);
        *word = !border;
        return !was && !border ? QN_JU_TO_UPPER : border && i ? -1 : QN_JU_TO_LOWER;
    }
    default: *word = qn_ju_is(r, QN_JU_CASED); return was ? QN_JU_TO_LOWER : QN_JU_TO_TITLE;
    }
}

struct qn_jv qn_jstr_case(struct qn_jx *x, struct qn_jstr *s, int how) {
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    int word = 0;
    uint32_t r, to[3];
    qn_jx_fuel(x, s->n >> 3);
    for (size_t i = 0, k, run; i < s->n; i += k) {
        k = rune_at(s, i, &r);
        int m = mapping(r, how, &word, i), n = 1;
        to[0] = r;
        if (m == QN_JU_TO_LOWER && r == 0x3A3) to[0] = final_sigma(s, i, k) ? 0x3C2 : 0x3C3;
        else if (m >= 0) n = qn_ju_case(r, (enum qn_ju_map)m, to);
        int t = qn_jstr_trusted(s, i, &run);
        for (int j = 0; j < n; j++) {
            char enc[4];
            qn_jsb_put(&b, enc, (size_t)qn_utf8_encode(to[j], enc), t);
        }
    }
    return built(&b, s);
}

int qn_jstr_has_case(struct qn_jx *x, const struct qn_jstr *s, int upper) {
    int any = 0;
    uint32_t r;
    qn_jx_fuel(x, s->n >> 4);
    for (size_t i = 0; i < s->n;) {
        i += rune_at(s, i, &r);
        if (qn_ju_is(r, upper ? QN_JU_LOWER : QN_JU_UPPER) || qn_ju_is(r, QN_JU_TITLE)) return 0;
        any |= qn_ju_is(r, upper ? QN_JU_UPPER : QN_JU_LOWER);
    }
    return any;
}

struct qn_jv qn_jstr_pad(struct qn_jx *x, struct qn_jstr *s, int64_t left, int64_t right, const struct qn_jstr *fill) {
    if (left > INT32_MAX || right > INT32_MAX) qn_jx_fail(x, QN_E_LIMIT, "a string is too long");
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    qn_jx_fuel(x, ((left > 0 ? (size_t)left : 0) + (right > 0 ? (size_t)right : 0)) >> 4);
    for (; left > 0; left--) qn_jsb_str(&b, fill);
    qn_jsb_str(&b, s);
    for (; right > 0; right--) qn_jsb_str(&b, fill);
    return built(&b, s);
}
