/* Regular expressions, the first half: a pattern to a tree. By recursive descent over the grammar of ECMA-262 22.2.1 with its
 * Annex B (a lone brace is itself), and of PCRE and Rust what means the same everywhere: (?i) (?s) (?P<name>…), \A \z, \x{…}, [:alpha:].
 *
 * What they read in different ways is refused rather than guessed: `]` first in a class, {,n}, octal escapes, possessive marks, and
 * flags other than i, s, u (m when no anchor follows). Lazy marks choose among matches and do not change which texts match.
 * Bounded: bytes, depth (the recursion), ranges, and how large nested counts may grow. Thread: any. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/utf8.h"
#include "engine/grammar/regex_ast.h"

enum { BYTES_MAX = 16384, DEPTH_MAX = 100, CODES_MAX = 1 << 20, PROPERTIES_MAX = 16, FLAG_I = 1, FLAG_S = 2, FLAG_M = 4 };
#define COUNT_MAX 1000000000u /* one bound */
#define NESTED_MAX 100000.0   /* the product of bounds of repeats inside each other */

struct parse {
    struct qn_rx *x;
    struct qn_grammar *g;
    struct qn_err *err;
    const char *p;
    size_t n, at;
    unsigned flags;
    int depth, rc, n_properties;
    uint32_t *open; /* kids of the concatenations and alternatives that are being read, a stack */
    size_t n_open, cap_open;
};

static int fail(struct parse *s, int code, size_t at, const char *what) {
    if (s->rc == 0) s->rc = qn_fail(s->err, code, "regular expression, at byte %zu: %s", at, what);
    return s->rc;
}

static int grow(struct parse *s, void **v, size_t *cap, size_t want, size_t size) {
    if (want <= *cap) return 0;
    size_t c = *cap ? *cap * 2 : 64;
    while (c < want) c *= 2;
    void *p = realloc(*v, c * size);
    if (!p) return s->rc = s->rc ? s->rc : qn_fail(s->err, QN_E_NOMEM, "regular expression: no memory");
    *v = p;
    *cap = c;
    return 0;
}

/* --- nodes -------------------------------------------------------------------------------------------------------- */

static uint32_t add_node(struct parse *s, struct qn_rx_node n) {
    if (grow(s, (void **)&s->x->nodes, &s->x->cap_nodes, s->x->n_nodes + 1, sizeof n) < 0) return 0;
    s->x->nodes[s->x->n_nodes] = n;
    return (uint32_t)s->x->n_nodes++;
}

static uint32_t lone(struct parse *s, enum qn_rx_kind kind) {
    static const struct { uint8_t empty, on; } facts[] = {
        [QN_RX_EMPTY] = {0xF, 0}, [QN_RX_START] = {0xC, QN_RX_ON_START}, [QN_RX_END] = {0xA, QN_RX_ON_END}};
    return add_node(s, (struct qn_rx_node){.kind = (uint8_t)kind, .empty = facts[kind].empty, .on = facts[kind].on, .most = 1});
}

/* The set as a node; one that was made shortly before is used again. */
static uint32_t set_node(struct parse *s, struct qn_set *set) {
    enum { BACK = 16 };
    struct qn_rx *x = s->x;
    qn_set_tidy(set);
    if (set->failed) s->rc = s->rc ? s->rc : qn_fail(s->err, set->failed, "regular expression: no memory");
    size_t i = x->n_sets, last = x->n_sets > BACK ? x->n_sets - BACK : 0;
    while (i > last && (x->sets[i - 1].n != set->n || (set->n && memcmp(x->codes + x->sets[i - 1].at, set->v, set->n * sizeof *set->v)))) i--;
    uint32_t found = i > last ? (uint32_t)(i - 1) : (uint32_t)x->n_sets;
    if (i == last && s->rc == 0) {
        if (x->n_codes + set->n > CODES_MAX) fail(s, QN_E_LIMIT, s->at, "too many ranges of characters");
        else if (grow(s, (void **)&x->codes, &x->cap_codes, x->n_codes + set->n + 1, sizeof *x->codes) == 0 &&
                 grow(s, (void **)&x->sets, &x->cap_sets, x->n_sets + 1, sizeof *x->sets) == 0) {
            if (set->n) memcpy(x->codes + x->n_codes, set->v, set->n * sizeof *set->v);
            x->sets[x->n_sets++] = (struct qn_rx_set){.at = x->n_codes, .n = set->n};
            x->n_codes += set->n;
        }
    }
    qn_set_done(set);
    return s->rc ? 0 : add_node(s, (struct qn_rx_node){.kind = QN_RX_SET, .kid = found, .most = 1});
}

static uint32_t one_char(struct parse *s, uint32_t c) {
    struct qn_set set = {0};
    qn_set_add(&set, c, c);
    if (s->flags & FLAG_I) qn_set_fold(&set);
    return set_node(s, &set);
}

static void push(struct parse *s, uint32_t node) {
    if (grow(s, (void **)&s->open, &s->cap_open, s->n_open + 1, sizeof *s->open) == 0) s->open[s->n_open++] = node;
}

/* The kids from `from` on as one node. */
static uint32_t close_list(struct parse *s, size_t from, enum qn_rx_kind kind) {
    struct qn_rx *x = s->x;
    size_t n = s->n_open - from;
    struct qn_rx_node out = {.kind = (uint8_t)kind, .empty = kind == QN_RX_CAT ? 0xF : 0, .kid = (uint32_t)x->n_kids, .n_kids = (uint32_t)n, .most = 1};
    if (s->rc) return 0;
    if (n == 0) return lone(s, QN_RX_EMPTY);
    s->n_open = from;
    if (n == 1) return s->open[from];
    if (grow(s, (void **)&x->kids, &x->cap_kids, x->n_kids + n, sizeof *x->kids) < 0) return 0;
    for (size_t i = 0; i < n; i++) {
        const struct qn_rx_node *kid = &x->nodes[s->open[from + i]];
        out.empty = (uint8_t)(kind == QN_RX_CAT ? out.empty & kid->empty : out.empty | kid->empty);
        out.on |= kid->on;
        if (kid->most > out.most) out.most = kid->most;
        x->kids[x->n_kids++] = s->open[from + i];
    }
    return add_node(s, out);
}

/* --- escapes ------------------------------------------------------------------------------------------------------ */

static int peek(const struct parse *s, size_t ahead) { return s->at + ahead < s->n ? (unsigned char)s->p[s->at + ahead] : -1; }

static int looking_at(const struct parse *s, const char *what) {
    size_t n = strlen(what);
    return s->n - s->at >= n && memcmp(s->p + s->at, what, n) == 0;
}

static uint32_t next_char(struct parse *s) {
    uint32_t c = 0;
    int n = qn_utf8_decode(s->p + s->at, s->n - s->at, &c);
    if (n == 0) return (uint32_t)(fail(s, QN_E_DATA, s->at, "bytes that are not UTF-8") * 0);
    s->at += (size_t)n;
    return c;
}

static int hex_digit(int c) { return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1; }

/* Exactly n hexadecimal digits, or {…}. -1: neither. */
static int64_t hex(struct parse *s, int n) {
    int64_t v = 0;
    int got = 0, braced = peek(s, 0) == '{';
    if (braced) s->at++;
    while (hex_digit(peek(s, 0)) >= 0 && (braced ? v <= QN_RUNE_MAX : got < n)) {
        v = v * 16 + hex_digit(peek(s, 0));
        s->at++;
        got++;
    }
    if (braced ? got == 0 || peek(s, 0) != '}' || v > QN_RUNE_MAX : got < n) return -1;
    if (braced) s->at++;
    return v;
}

/* \uD83D\uDE00 is one character. */
static int64_t hex_u(struct parse *s) {
    int64_t v = hex(s, 4);
    if (v < 0xD800 || v > 0xDFFF) return v;
    size_t back = s->at;
    if (v < 0xDC00 && peek(s, 0) == '\\' && peek(s, 1) == 'u') {
        s->at += 2;
        int64_t low = hex(s, 4);
        if (low >= 0xDC00 && low <= 0xDFFF) return 0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00);
    }
    s->at = back;
    return v; /* alone: no text has it */
}

static int property(struct parse *s, struct qn_set *set, int inverted, size_t start) {
    size_t from = s->at, n = 0;
    if (peek(s, 0) == '{') {
        for (from++; from + n < s->n && s->p[from + n] != '}'; n++) {}
        if (from + n >= s->n) return fail(s, QN_E_DATA, start, "\\p without its }");
        s->at = from + n + 1;
    } else if (peek(s, 0) > ' ' && peek(s, 0) < 127) {
        n = 1;
        s->at++;
    }
    if (n && s->p[from] == '^') {
        from++, n--;
        inverted = !inverted;
    }
    if (++s->n_properties > PROPERTIES_MAX) return fail(s, QN_E_LIMIT, start, "too many \\p");
    if (!qn_set_add_property(set, s->p + from, n, inverted))
        return fail(s, QN_E_UNSUPPORTED, start, "\\p knows general categories, Any, ASCII and White_Space only");
    return 0;
}

/* \W when case is ignored: whatever is no case of a word character (ECMA-262 22.2.2.9.3). */
static int not_word(struct parse *s, struct qn_set *set) {
    struct qn_set w = {0};
    qn_set_add_escape(&w, 'w');
    qn_set_fold(&w);
    qn_set_invert(&w);
    for (size_t i = 0; i < w.n; i++) qn_set_add(set, w.v[i].from, w.v[i].to);
    if (w.failed) s->rc = qn_fail(s->err, w.failed, "regular expression: no memory");
    qn_set_done(&w);
    return s->rc ? s->rc : 1;
}

/* After a backslash: a set of characters (1, added to set), one character (0, in *c); both also inside classes. Negative: refused. */
static int escape(struct parse *s, struct qn_set *set, uint32_t *c, size_t start) {
    static const struct { char letter; uint8_t c; } plain[] = {{'n', 10}, {'r', 13}, {'t', 9}, {'f', 12}, {'v', 11}};
    int k = peek(s, 0);
    int64_t v = -1;
    if (k < 0) return fail(s, QN_E_DATA, start, "a backslash at the end");
    if (k >= 0x80) return *c = next_char(s), s->rc;
    s->at++;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (plain[i].letter == k) return *c = plain[i].c, 0;
    if (k == 'W' && s->flags & FLAG_I) return not_word(s, set);
    if (qn_set_add_escape(set, (char)k)) return 1;
    switch (k) {
    case 'p': case 'P': return property(s, set, k == 'P', start) < 0 ? s->rc : 1;
    case 'x': v = hex(s, 2); break;
    case 'u': v = hex_u(s); break;
    case 'U': v = hex(s, 8); break;
    case 'c':
        v = (peek(s, 0) | 32) >= 'a' && (peek(s, 0) | 32) <= 'z' ? peek(s, 0) & 31 : -1;
        s->at++;
        break;
    case '0':
        if (peek(s, 0) >= '0' && peek(s, 0) <= '9') return fail(s, QN_E_UNSUPPORTED, start, "an octal escape; write \\x");
        v = 0;
        break;
    default:
        if (k >= '1' && k <= '9') return fail(s, QN_E_UNSUPPORTED, start, "a back reference");
        if ((k | 32) >= 'a' && (k | 32) <= 'z') return fail(s, QN_E_UNSUPPORTED, start, "an escape that is not in the common subset");
        v = k;
    }
    if (v < 0 || v > QN_RUNE_MAX) return fail(s, QN_E_DATA, start, "an escape without its digits");
    *c = (uint32_t)v;
    return 0;
}

/* --- classes ------------------------------------------------------------------------------------------------------ */

/* [:alpha:] inside a class. 1: it was one. */
static int posix(struct parse *s, struct qn_set *set) {
    const char *end;
    if (!looking_at(s, "[:")) return 0;
    size_t from = s->at + 2, inverted = from < s->n && s->p[from] == '^';
    from += inverted;
    for (end = s->p + from; end < s->p + s->n && *end >= 'a' && *end <= 'z'; end++) {}
    size_t n = (size_t)(end - s->p) - from;
    if (n == 0 || end + 1 >= s->p + s->n || end[0] != ':' || end[1] != ']') return 0;
    if (!qn_set_add_posix(set, s->p + from, n, (int)inverted)) return fail(s, QN_E_DATA, s->at, "no such [:name:]");
    s->at = from + n + 2;
    return 1;
}

/* One member of a class. 1: a set, which is no end of a range; 0: *c. */
static int member(struct parse *s, struct qn_set *set, uint32_t *c) {
    size_t start = s->at;
    int named = posix(s, set);
    if (named) return named;
    if (peek(s, 0) != '\\') return *c = next_char(s), s->rc;
    s->at++;
    if (peek(s, 0) == 'b') return s->at++, *c = 8, 0;
    return escape(s, set, c, start);
}

static uint32_t class(struct parse *s) {
    struct qn_set set = {0};
    size_t start = s->at++;
    int inverted = peek(s, 0) == '^';
    s->at += (size_t)inverted;
    if (peek(s, 0) == ']') fail(s, QN_E_UNSUPPORTED, s->at, "']' first in a class, which programs read in different ways; write \\]");
    while (s->rc == 0 && peek(s, 0) != ']') {
        uint32_t from = 0, to = 0;
        size_t at = s->at;
        if (peek(s, 0) < 0) {
            fail(s, QN_E_DATA, start, "a class without its ]");
            break;
        }
        int is_set = member(s, &set, &from);
        if (is_set || peek(s, 0) != '-' || peek(s, 1) == ']' || peek(s, 1) < 0) {
            if (is_set == 0) qn_set_add(&set, from, from);
            continue;
        }
        s->at++;
        is_set = member(s, &set, &to);
        if (is_set == 1) qn_set_add(&set, from, from), qn_set_add(&set, '-', '-');
        else if (is_set == 0 && from > to) fail(s, QN_E_DATA, at, "a range that runs backwards");
        else if (is_set == 0) qn_set_add(&set, from, to);
    }
    s->at++;
    if (s->flags & FLAG_I) qn_set_fold(&set);
    if (inverted) qn_set_invert(&set);
    return set_node(s, &set);
}

static uint32_t dot(struct parse *s) {
    struct qn_set set = {0};
    s->at++;
    if (!(s->flags & FLAG_S)) qn_set_add(&set, '\n', '\n'), qn_set_add(&set, '\r', '\r'), qn_set_add(&set, 0x2028, 0x2029);
    qn_set_invert(&set);
    return set_node(s, &set);
}

/* --- groups and repeats ------------------------------------------------------------------------------------------- */

static uint32_t alternatives(struct parse *s);

/* Flags after "(?"; ends behind ':' or ')'. 1: they hold for the rest of the group around. */
static int flags(struct parse *s, size_t start) {
    int on = 1;
    for (;; s->at++) {
        int c = peek(s, 0);
        unsigned f = c == 'i' ? FLAG_I : c == 's' ? FLAG_S : c == 'm' ? FLAG_M : 0;
        if (c == ')' || c == ':') return s->at++, c == ')';
        if (c == '-' && on) on = 0;
        else if (f) s->flags = on ? s->flags | f : s->flags & ~f;
        else if (c != 'u' || !on) return fail(s, QN_E_UNSUPPORTED, start, "a group or flag that is not in the common subset");
    }
}

static int name(struct parse *s, size_t start, size_t skip) {
    const char *end = memchr(s->p + s->at, '>', s->n - s->at);
    if (!end || end == s->p + s->at + skip) return fail(s, QN_E_DATA, start, "a group's name without its >");
    s->at = (size_t)(end - s->p) + 1;
    return 0;
}

/* What follows "(": 0 when a body comes, 1 when it was flags alone. */
static int group_kind(struct parse *s, size_t start) {
    static const struct { const char *mark, *what; } refused[] = {
        {"?=", "look-ahead"}, {"?!", "look-ahead"}, {"?<=", "look-behind"}, {"?<!", "look-behind"}, {"?>", "an atomic group"},
        {"?P=", "a back reference"}, {"?P>", "recursion"}, {"?(", "a condition"}, {"?|", "a branch reset"}, {"?#", "a comment"}, {"*", "a verb"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (looking_at(s, refused[i].mark)) return fail(s, QN_E_UNSUPPORTED, start, refused[i].what);
    if (looking_at(s, "?<")) return name(s, start, 2);
    if (looking_at(s, "?P<")) return name(s, start, 3);
    if (!looking_at(s, "?")) return 0;
    s->at++;
    return flags(s, start);
}

static uint32_t group(struct parse *s) {
    size_t start = s->at++;
    unsigned outside = s->flags;
    if (s->depth >= DEPTH_MAX) return (uint32_t)(fail(s, QN_E_LIMIT, start, "groups nested too deep") * 0);
    int kind = group_kind(s, start);
    if (kind) return kind < 0 ? 0 : lone(s, QN_RX_EMPTY);
    s->depth++;
    uint32_t out = alternatives(s);
    s->depth--;
    s->flags = outside;
    if (s->rc == 0 && peek(s, 0) != ')') fail(s, QN_E_DATA, start, "a group without its )");
    s->at++;
    return out;
}

static int number(struct parse *s, size_t *at, uint32_t *out) {
    uint64_t v = 0;
    size_t start = *at;
    while (*at < s->n && s->p[*at] >= '0' && s->p[*at] <= '9') {
        v = v * 10 + (uint64_t)(s->p[(*at)++] - '0');
        if (v > COUNT_MAX) v = (uint64_t)COUNT_MAX + 1;
    }
    if (v > COUNT_MAX) fail(s, QN_E_LIMIT, start, "a count above 1000000000");
    *out = (uint32_t)v;
    return *at > start;
}

/* {n} {n,} {n,m}. 0: the brace is itself. */
static int braces(struct parse *s, uint32_t *min, uint32_t *max) {
    size_t at = s->at + 1;
    if (!number(s, &at, min)) {
        uint32_t most;
        if (at < s->n && s->p[at++] == ',' && number(s, &at, &most) && at < s->n && s->p[at] == '}')
            return fail(s, QN_E_UNSUPPORTED, s->at, "{,n}, which programs read in different ways; write {0,n}");
        return 0;
    }
    *max = *min;
    if (at < s->n && s->p[at] == ',') {
        at++;
        if (!number(s, &at, max)) *max = QN_G_INF;
    }
    if (at >= s->n || s->p[at] != '}') return 0;
    if (*min > *max) return fail(s, QN_E_DATA, s->at, "a repeat whose bounds run backwards");
    s->at = at + 1;
    return 1;
}

static int quantifier(struct parse *s, uint32_t *min, uint32_t *max) {
    int c = peek(s, 0);
    *min = c == '+';
    *max = c == '?' ? 1 : QN_G_INF;
    if (c == '{') return braces(s, min, max);
    if (c != '*' && c != '+' && c != '?') return 0;
    s->at++;
    return 1;
}

static uint32_t repeated(struct parse *s, uint32_t kid) {
    uint32_t min, max;
    size_t start = s->at;
    if (s->rc || quantifier(s, &min, &max) <= 0) return kid;
    struct qn_rx_node a = s->x->nodes[kid], out = {.kind = QN_RX_REPEAT, .kid = kid, .min = min, .max = max};
    if ((a.kind == QN_RX_START || a.kind == QN_RX_END) && s->p[start - 1] != ')') fail(s, QN_E_DATA, start, "nothing to repeat");
    if (peek(s, 0) == '?') s->at++; /* lazy */
    else if (peek(s, 0) == '+') fail(s, QN_E_UNSUPPORTED, s->at, "a possessive repeat");
    uint32_t ignored[2];
    size_t at = s->at;
    if (s->rc == 0 && quantifier(s, &ignored[0], &ignored[1])) fail(s, QN_E_DATA, at, "a repeat of a repeat; put it into a group");
    out.empty = min == 0 ? 0xF : a.empty;
    out.on = max ? a.on : 0;
    uint32_t count = max != QN_G_INF ? max : min;
    out.most = a.most * (count > 1 ? count : 1);
    if (a.most > 1 && out.most > NESTED_MAX) fail(s, QN_E_LIMIT, start, "repeats in each other count to more than 100000");
    return s->rc ? 0 : add_node(s, out);
}

/* Anchors: the text's, not the line's. */
static uint32_t anchor(struct parse *s, enum qn_rx_kind kind, size_t n, int of_line) {
    if (of_line && s->flags & FLAG_M) fail(s, QN_E_UNSUPPORTED, s->at, "an anchor under the flag m");
    s->at += n;
    return lone(s, kind);
}

static uint32_t atom(struct parse *s) {
    struct qn_set set = {0};
    size_t start = s->at;
    uint32_t c = 0;
    switch (peek(s, 0)) {
    case '(': return group(s);
    case '[': return class(s);
    case '.': return dot(s);
    case '^': return anchor(s, QN_RX_START, 1, 1);
    case '$': return anchor(s, QN_RX_END, 1, 1);
    case '*': case '+': case '?': return (uint32_t)(fail(s, QN_E_DATA, start, "nothing to repeat") * 0);
    case '\\': break;
    case '{': {
        uint32_t min, max;
        if (braces(s, &min, &max)) return (uint32_t)(fail(s, QN_E_DATA, start, "nothing to repeat") * 0);
    } /* fall through */
    default:
        c = next_char(s);
        return s->rc ? 0 : one_char(s, c);
    }
    if (peek(s, 1) == 'A') return anchor(s, QN_RX_START, 2, 0);
    if (peek(s, 1) == 'z' || peek(s, 1) == 'Z') return anchor(s, QN_RX_END, 2, 0);
    if (peek(s, 1) == 'b' || peek(s, 1) == 'B') return (uint32_t)(fail(s, QN_E_UNSUPPORTED, start, "a word boundary") * 0);
    if (peek(s, 1) == 'k') return (uint32_t)(fail(s, QN_E_UNSUPPORTED, start, "a back reference") * 0);
    s->at++;
    int is_set = escape(s, &set, &c, start);
    if (is_set < 0) qn_set_done(&set);
    if (is_set < 0) return 0;
    if (is_set && s->flags & FLAG_I) qn_set_fold(&set);
    return is_set ? set_node(s, &set) : one_char(s, c);
}

static uint32_t concatenation(struct parse *s) {
    size_t from = s->n_open;
    while (s->rc == 0 && s->at < s->n && peek(s, 0) != '|' && !(peek(s, 0) == ')' && s->depth)) {
        uint32_t a = 0;
        if (peek(s, 0) == ')') fail(s, QN_E_DATA, s->at, "a ) without its group");
        else a = atom(s);
        a = repeated(s, a);
        if (s->rc == 0) push(s, a);
        if (qn_grammar_tick(s->g) < 0) fail(s, QN_E_LIMIT, s->at, "it takes too long");
    }
    return close_list(s, from, QN_RX_CAT);
}

static uint32_t alternatives(struct parse *s) {
    size_t from = s->n_open;
    do {
        if (s->n_open > from) s->at++; /* the bar */
        uint32_t a = concatenation(s);
        if (s->rc == 0) push(s, a);
    } while (s->rc == 0 && peek(s, 0) == '|');
    return close_list(s, from, QN_RX_ALT);
}

int qn_rx_parse(struct qn_rx *x, struct qn_grammar *g, const char *p, size_t n, int ignore_case, struct qn_err *err) {
    struct parse s = {.x = x, .g = g, .err = err, .p = p, .n = n, .flags = ignore_case ? FLAG_I : 0};
    if (n > BYTES_MAX) return qn_fail(err, QN_E_LIMIT, "regular expression: %zu bytes, at most %d", n, BYTES_MAX);
    x->root = alternatives(&s);
    free(s.open);
    return s.rc;
}

void qn_rx_done(struct qn_rx *x) {
    free(x->nodes);
    free(x->kids);
    free(x->sets);
    free(x->codes);
    *x = (struct qn_rx){0};
}
