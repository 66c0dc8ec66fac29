/* Template text to tokens, with Jinja's whitespace rules: trim_blocks (a newline behind a block or comment goes),
 * lstrip_blocks (blanks between a line's start and a block or comment go), the signs - and +, raw blocks, comments.
 *
 * Follows lexer.py of Jinja2 3.1.6 in behaviour: newlines are normalised first and one at the very end is dropped; a tag
 * ends only where brackets are balanced; string literals know Python's escapes. All tokens are made at once, since
 * they are few next to the text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_unicode.h"
#include "engine/base/utf8.h"

enum { BRACKETS_MAX = 512 };

struct lex {
    struct qn_jparse *p;
    const char *s;
    size_t n, i;
    uint32_t line;
    char close[BRACKETS_MAX];
    int n_close;
};

static struct qn_jtoken *add(struct lex *l, int t) {
    struct qn_jparse *p = l->p;
    if (p->n_tok == p->cap_tok) {
        uint32_t cap = p->cap_tok ? p->cap_tok * 2 : 256;
        struct qn_jtoken *v = qn_jparse_alloc(p, cap * sizeof *v);
        if (p->n_tok) memcpy(v, p->tok, p->n_tok * sizeof *v);
        p->tok = v;
        p->cap_tok = cap;
    }
    struct qn_jtoken *k = &p->tok[p->n_tok++];
    *k = (struct qn_jtoken){.t = (uint8_t)t, .line = l->line};
    return k;
}

static void move(struct lex *l, size_t to) {
    for (; l->i < to; l->i++) l->line += l->s[l->i] == '\n';
}

static int at(const struct lex *l, size_t i, const char *what) {
    size_t n = strlen(what);
    return i <= l->n && l->n - i >= n && !memcmp(l->s + i, what, n);
}

/* Python's str.isspace of the character at i; its length, or 0. */
static size_t space_at(const struct lex *l, size_t i) {
    if (i >= l->n) return 0;
    uint32_t r = (unsigned char)l->s[i];
    int k = 1;
    if (r >= 0x80) k = qn_utf8_decode(l->s + i, l->n - i, &r);
    return k > 0 && qn_ju_is(r, QN_JU_SPACE) ? (size_t)k : 0;
}

static size_t skip_space(const struct lex *l, size_t i) {
    for (size_t k; (k = space_at(l, i)); i += k) {}
    return i;
}

static size_t rstrip(const struct lex *l, size_t from, size_t to) {
    while (to > from) {
        size_t i = to - 1;
        while (i > from && ((unsigned char)l->s[i] & 0xC0) == 0x80) i--;
        size_t k = space_at(l, i);
        if (!k || i + k != to) break;
        to = i;
    }
    return to;
}

/* Text before a tag whose sign is `sign`. */
static void data(struct lex *l, size_t from, size_t to, char sign, int lstrip) {
    size_t end = to;
    if (sign == '-') {
        end = rstrip(l, from, to);
    } else if (sign != '+' && lstrip) {
        size_t bol = to;
        while (bol > from && l->s[bol - 1] != '\n') bol--;
        int starts = bol > from || from == 0 || l->s[from - 1] == '\n';
        if (starts && rstrip(l, bol, to) == bol) end = bol;
    }
    if (end > from) {
        struct qn_jtoken *k = add(l, TOK_DATA);
        k->p = l->s + from;
        k->n = (uint32_t)(end - from);
    }
    move(l, to);
}

/* ---- inside tags ---- */

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static size_t put_escape(struct lex *l, const char *s, size_t n, char *to, size_t *o) {
    static const char from[] = "\\'\"abfnrtv", what[] = "\\'\"\a\b\f\n\r\t\v";
    char c = s[1];
    const char *hit = c ? strchr(from, c) : NULL;
    if (hit) {
        to[(*o)++] = what[hit - from];
        return 2;
    }
    if (c == '\n') return 2;
    uint32_t r = 0;
    size_t used = 2;
    if (c >= '0' && c <= '7') {
        for (used = 1; used < 4 && used < n && s[used] >= '0' && s[used] <= '7'; used++) r = r * 8 + (uint32_t)(s[used] - '0');
    } else if (c == 'x' || c == 'u' || c == 'U') {
        size_t want = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (n < 2 + want) qn_jparse_fail(l->p, QN_E_DATA, l->line, "truncated \\%c escape", c);
        for (; used < 2 + want; used++) {
            if (hex(s[used]) < 0) qn_jparse_fail(l->p, QN_E_DATA, l->line, "truncated \\%c escape", c);
            r = r << 4 | (uint32_t)hex(s[used]);
        }
        if (r > 0x10FFFF) qn_jparse_fail(l->p, QN_E_DATA, l->line, "\\U escape outside Unicode");
        if (r >= 0xD800 && r < 0xE000) qn_jparse_fail(l->p, QN_E_UNSUPPORTED, l->line, "surrogate in a string literal");
    } else if (c == 'N') {
        qn_jparse_fail(l->p, QN_E_UNSUPPORTED, l->line, "\\N{…} in a string literal");
    } else if ((unsigned char)c >= 0x80) { /* Python escapes the character first and then sees an escaped backslash */
        int k = qn_utf8_decode(s + 1, n - 1, &r);
        static const char *const fmt[] = {"\\x%02x", "\\u%04x", "\\U%08x"};
        char text[12];
        int w = snprintf(text, sizeof text, fmt[r < 0x100 ? 0 : r < 0x10000 ? 1 : 2], r);
        memcpy(to + *o, text, (size_t)w);
        *o += (size_t)w;
        return 1 + (size_t)k;
    } else {
        to[(*o)++] = '\\';
        to[(*o)++] = c;
        return 2;
    }
    *o += (size_t)qn_utf8_encode(r, to + *o);
    return used;
}

static void string(struct lex *l) {
    char quote = l->s[l->i];
    size_t end = l->i + 1;
    while (end < l->n && l->s[end] != quote) end += l->s[end] == '\\' ? 2 : 1;
    if (end >= l->n) qn_jparse_fail(l->p, QN_E_DATA, l->line, "a string literal does not end");
    size_t from = l->i + 1, o = 0;
    struct qn_jtoken *k = add(l, TOK_STRING);
    if (!memchr(l->s + from, '\\', end - from)) {
        k->p = l->s + from;
        k->n = (uint32_t)(end - from);
    } else {
        char *to = qn_jparse_alloc(l->p, (end - from) * 5 + 1);
        for (size_t i = from; i < end;) {
            if (l->s[i] == '\\') i += put_escape(l, l->s + i, end - i, to, &o);
            else to[o++] = l->s[i++];
        }
        k->p = to;
        k->n = (uint32_t)o;
    }
    move(l, end + 1);
}

static int is_digit(char c) { return c >= '0' && c <= '9'; }

/* End of digits with single underscores between them. */
static size_t digits(const struct lex *l, size_t i) {
    if (i >= l->n || !is_digit(l->s[i])) return i;
    for (i++; i < l->n; i++) {
        if (l->s[i] == '_' && i + 1 < l->n && is_digit(l->s[i + 1])) continue;
        if (!is_digit(l->s[i])) break;
    }
    return i;
}

static size_t float_end(const struct lex *l) {
    if (l->i && l->s[l->i - 1] == '.') return 0;
    size_t i = digits(l, l->i), end = 0;
    if (i + 1 < l->n && l->s[i] == '.' && is_digit(l->s[i + 1])) i = end = digits(l, i + 1);
    if (i < l->n && (l->s[i] == 'e' || l->s[i] == 'E')) {
        size_t e = i + 1;
        if (e < l->n && (l->s[e] == '+' || l->s[e] == '-')) e++;
        if (e < l->n && is_digit(l->s[e])) end = digits(l, e);
    }
    return end;
}

static void number(struct lex *l) {
    char text[64];
    size_t end = float_end(l), o = 0;
    int is_float = end != 0, base = 10;
    if (!is_float) {
        char c = l->i + 1 < l->n && l->s[l->i] == '0' ? (char)(l->s[l->i + 1] | 0x20) : 0;
        base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 10;
        if (base != 10) {
            end = l->i + 2;
            while (end < l->n && (l->s[end] == '_' || (hex(l->s[end]) >= 0 && hex(l->s[end]) < base))) end++;
        } else {
            end = digits(l, l->i);
            if (l->s[l->i] == '0') /* a leading zero ends at the first other digit */
                for (end = l->i + 1; end < l->n && (l->s[end] == '0' || l->s[end] == '_'); end++) {}
        }
    }
    for (size_t i = l->i + (base == 10 ? 0 : 2); i < end; i++) {
        if (l->s[i] == '_') continue;
        if (o + 1 >= sizeof text) qn_jparse_fail(l->p, QN_E_UNSUPPORTED, l->line, "a number is too long");
        text[o++] = l->s[i];
    }
    text[o] = 0;
    struct qn_jtoken *k = add(l, is_float ? TOK_FLOAT : TOK_INT);
    if (is_float) {
        k->f = strtod(text, NULL);
    } else {
        for (size_t i = 0; i < o; i++)
            if (__builtin_mul_overflow(k->i, (int64_t)base, &k->i) || __builtin_add_overflow(k->i, (int64_t)hex(text[i]), &k->i))
                qn_jparse_fail(l->p, QN_E_UNSUPPORTED, l->line, "an integer does not fit 64 bits");
    }
    move(l, end);
}

static void name(struct lex *l) {
    size_t end = l->i;
    while (end < l->n && (l->s[end] == '_' || is_digit(l->s[end]) || ((l->s[end] | 0x20) >= 'a' && (l->s[end] | 0x20) <= 'z') ||
                          (unsigned char)l->s[end] >= 0x80))
        end++;
    struct qn_jtoken *k = add(l, TOK_NAME);
    k->p = l->s + l->i;
    k->n = (uint32_t)(end - l->i);
    move(l, end);
}

static void op(struct lex *l) {
/* clang-format off */
    static const struct { char text[3]; uint8_t t; } ops[] = { /* longer first */
        {"//", TOK_FLOORDIV}, {"**", TOK_POW}, {"==", TOK_EQ}, {"!=", TOK_NE}, {">=", TOK_GE}, {"<=", TOK_LE}, {"+", TOK_ADD},
        {"-", TOK_SUB}, {"/", TOK_DIV}, {"*", TOK_MUL}, {"%", TOK_MOD}, {"~", TOK_TILDE}, {"[", TOK_LBRACKET},
        {"]", TOK_RBRACKET},
        {"(", TOK_LPAREN}, {")", TOK_RPAREN}, {"{", TOK_LBRACE}, {"}", TOK_RBRACE}, {">", TOK_GT}, {"<", TOK_LT},
        {"=", TOK_ASSIGN},
        {".", TOK_DOT}, {":", TOK_COLON}, {"|", TOK_PIPE}, {",", TOK_COMMA}, {";", TOK_SEMICOLON},
    };
/* clang-format on */
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
        if (!at(l, l->i, ops[k].text)) continue;
        char c = ops[k].text[0];
        if (c == '(' || c == '[' || c == '{') {
            if (l->n_close == BRACKETS_MAX) qn_jparse_fail(l->p, QN_E_LIMIT, l->line, "brackets nest too deeply");
            l->close[l->n_close++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (!l->n_close || l->close[--l->n_close] != c) qn_jparse_fail(l->p, QN_E_DATA, l->line, "unexpected '%c'", c);
        }
        add(l, ops[k].t);
        move(l, l->i + strlen(ops[k].text));
        return;
    }
    unsigned char c = (unsigned char)l->s[l->i];
    if (c > 0x20 && c < 0x7F) qn_jparse_fail(l->p, QN_E_DATA, l->line, "unexpected char '%c'", c);
    qn_jparse_fail(l->p, QN_E_DATA, l->line, "unexpected char");
}

/* Where the tag's end (close: "%}" or "}}") at i reaches, with what it strips behind it; 0: no end here. */
static size_t tag_end(const struct lex *l, size_t i, const char *close, int block) {
    if (at(l, i, "-") && at(l, i + 1, close)) return skip_space(l, i + 1 + 2);
    if (block && at(l, i, "+") && at(l, i + 1, close)) return i + 3;
    if (!at(l, i, close)) return 0;
    return i + 2 + (block && i + 2 < l->n && l->s[i + 2] == '\n');
}

static void tag(struct lex *l, const char *close, int block) {
    add(l, block ? TOK_BLOCK_BEGIN : TOK_VAR_BEGIN);
    for (;;) {
        size_t end = l->n_close ? 0 : tag_end(l, l->i, close, block);
        if (end) {
            add(l, block ? TOK_BLOCK_END : TOK_VAR_END);
            move(l, end);
            return;
        }
        size_t sp = skip_space(l, l->i);
        if (sp > l->i) {
            move(l, sp);
            continue;
        }
        if (l->i >= l->n) return; /* the parser sees the end of the template */
        char c = l->s[l->i];
        if (is_digit(c)) number(l);
        else if (c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (unsigned char)c >= 0x80) name(l);
        else if (c == '\'' || c == '"') string(l);
        else op(l);
    }
}

static void comment(struct lex *l) {
    for (size_t i = l->i; i < l->n; i++) {
        size_t end = tag_end(l, i, "#}", 1);
        if (end) {
            move(l, end);
            return;
        }
    }
    qn_jparse_fail(l->p, QN_E_DATA, l->line, "Missing end of comment tag");
}

/* "{% raw %}" at i: where its text starts, or 0. */
static size_t raw_begin(const struct lex *l, size_t i, const char *word, char *sign) {
    if (!at(l, i, "{%")) return 0;
    i += 2;
    *sign = at(l, i, "-") ? '-' : at(l, i, "+") ? '+' : 0;
    if (*sign) i++;
    i = skip_space(l, i);
    if (!at(l, i, word)) return 0;
    return skip_space(l, i + strlen(word));
}

static void raw(struct lex *l) {
    size_t from = l->i, after;
    char sign;
    for (size_t i = from; i < l->n; i++) {
        if (l->s[i] != '{' || !(after = raw_begin(l, i, "endraw", &sign))) continue;
        size_t end = tag_end(l, after, "%}", 1);
        if (!end) continue;
        data(l, from, i, sign, 1);
        move(l, end);
        return;
    }
    qn_jparse_fail(l->p, QN_E_DATA, l->line, "Missing end of raw directive");
}

void qn_jparse_lex(struct qn_jparse *p) {
    struct lex *l = qn_jparse_alloc(p, sizeof *l);
    *l = (struct lex){.p = p, .s = p->src, .n = p->n, .line = 1};
    while (l->i < l->n) {
        size_t i = l->i;
        while (i < l->n && !(l->s[i] == '{' && i + 1 < l->n && (l->s[i + 1] == '{' || l->s[i + 1] == '%' || l->s[i + 1] == '#')))
            i++;
        if (i >= l->n) {
            data(l, l->i, l->n, '+', 0);
            break;
        }
        char what = l->s[i + 1], sign, raw_sign;
        size_t after = raw_begin(l, i, "raw", &raw_sign);
        size_t raw_text = !after ? 0 : at(l, after, "-%}") ? skip_space(l, after + 3) : at(l, after, "%}") ? after + 2 : 0;
        sign = i + 2 < l->n && (l->s[i + 2] == '-' || l->s[i + 2] == '+') ? l->s[i + 2] : 0;
        data(l, l->i, i, raw_text ? raw_sign : sign, what != '{');
        move(l, raw_text ? raw_text : i + 2 + (sign != 0));
        if (raw_text) raw(l);
        else if (what == '#') comment(l);
        else tag(l, what == '%' ? "%}" : "}}", what == '%');
    }
    add(l, TOK_EOF);
}
