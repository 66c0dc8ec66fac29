/* llama.cpp's GBNF (grammars/README.md there): `name ::= alternatives`, one rule a line; sequences of "literals", [classes], `.`,
 * names, (groups) and <[token ids]>, each with * + ? {n} {n,} {n,m}; # comments. A line ends a rule, but not inside parentheses nor
 * around a bar. Left recursion is allowed here. Names may have _ too, and a line may begin with the bar, as xgrammar writes them.
 *
 * Not here: <spelling> of a token, for want of a vocabulary, and negated tokens. Thread: the grammar's. */
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/regex_set.h"
#include "engine/grammar/source.h"

struct gbnf {
    struct qn_source s;
    struct qn_names names;
};

static int is_word(int c) { return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '-' || c == '_'; }

static void space(struct qn_source *s, int lines) {
    for (int c; (c = qn_source_peek(s, 0)) == ' ' || c == '\t' || c == '#' || (lines && (c == '\r' || c == '\n'));) {
        if (c == '#')
            while ((c = qn_source_peek(s, 0)) >= 0 && c != '\r' && c != '\n') s->at++;
        else qn_source_step(s);
    }
}

static qn_gnode alternatives(struct gbnf *b);

static uint32_t character(struct qn_source *s) {
    uint32_t c = qn_source_char(s);
    return c == '\\' ? qn_source_escape(s) : c;
}

static qn_gnode literal(struct qn_source *s) {
    size_t n = 0;
    int line = s->line;
    size_t start = ++s->at;
    for (size_t i = start; i < s->n && s->p[i] != '"'; i++, n++) i += s->p[i] == '\\';
    uint32_t *v = calloc(n + 1, sizeof *v); /* n: at least as many characters */
    if (!v) return (qn_gnode)(qn_source_fail(s, QN_E_NOMEM, "no memory") * 0);
    size_t k = 0;
    while (s->rc == 0 && qn_source_peek(s, 0) != '"') {
        if (s->at >= s->n) s->line = line, qn_source_fail(s, QN_E_DATA, "a string without its closing quote");
        else v[k++] = character(s);
    }
    s->at++;
    qn_gnode out = QN_G_EMPTY;
    while (k-- > 0) out = qn_g_cat(s->g, qn_g_chars(s->g, &(struct qn_codes){v[k], v[k]}, 1), out);
    free(v);
    return out;
}

static qn_gnode class(struct qn_source *s) {
    struct qn_set set = {0};
    int line = s->line, inverted = qn_source_peek(s, 1) == '^';
    s->at += inverted ? 2 : 1;
    while (s->rc == 0 && qn_source_peek(s, 0) != ']') {
        if (s->at >= s->n) {
            s->line = line;
            qn_source_fail(s, QN_E_DATA, "a class without its ]");
            break;
        }
        uint32_t from = character(s), to = from;
        if (qn_source_peek(s, 0) == '-' && qn_source_peek(s, 1) != ']') {
            s->at++;
            to = character(s);
            if (from > to) qn_source_fail(s, QN_E_DATA, "a range that runs backwards");
        }
        qn_set_add(&set, from, to);
    }
    s->at++;
    if (inverted) qn_set_invert(&set);
    if (set.failed) qn_source_fail(s, set.failed, "no memory");
    qn_gnode out = s->rc ? QN_G_NONE : qn_g_chars(s->g, set.v, set.n);
    qn_set_done(&set);
    return out;
}

static qn_gnode token(struct qn_source *s) {
    uint32_t id;
    if (!qn_source_skip(s, "<[") || !qn_source_number(s, &id) || !qn_source_skip(s, "]>"))
        return (qn_gnode)(qn_source_fail(s, QN_E_UNSUPPORTED, "tokens are written by their id, as <[id]>, and not negated") * 0);
    return qn_g_token(s->g, id);
}

static qn_gnode group(struct gbnf *b) {
    struct qn_source *s = &b->s;
    int line = s->line;
    if (s->depth >= QN_SOURCE_DEPTH_MAX) return (qn_gnode)(qn_source_fail(s, QN_E_LIMIT, "groups nested too deep") * 0);
    s->depth++;
    s->at++;
    space(s, 1);
    qn_gnode out = alternatives(b);
    if (s->rc == 0 && qn_source_peek(s, 0) != ')') s->line = line, qn_source_fail(s, QN_E_DATA, "a group without its )");
    s->at++;
    s->depth--;
    return out;
}

static qn_gnode name(struct gbnf *b) {
    struct qn_source *s = &b->s;
    size_t from = s->at;
    while (is_word(qn_source_peek(s, 0))) s->at++;
    int i = qn_names_get(&b->names, s, s->p + from, s->at - from, s->line);
    return i < 0 ? QN_G_NONE : b->names.v[i].rule;
}

/* 0: nothing that a sequence may hold stands here. */
static int item(struct gbnf *b, qn_gnode *out) {
    struct qn_source *s = &b->s;
    switch (qn_source_peek(s, 0)) {
    case '"': *out = literal(s); return 1;
    case '[': *out = class(s); return 1;
    case '(': *out = group(b); return 1;
    case '.': s->at++; *out = qn_g_any_char(s->g); return 1;
    case '<': case '!': *out = token(s); return 1;
    default:
        if (!is_word(qn_source_peek(s, 0))) return 0;
        *out = name(b);
        return 1;
    }
}

/* {n} {n,} {n,m}, blanks between them. */
static void braces(struct qn_source *s, uint32_t *min, uint32_t *max, int lines) {
    s->at++;
    space(s, lines);
    int ok = qn_source_number(s, min);
    *max = *min;
    space(s, lines);
    if (ok && qn_source_skip(s, ",")) {
        *max = QN_G_INF;
        space(s, lines);
        if (qn_source_peek(s, 0) != '}') ok = qn_source_number(s, max);
        space(s, lines);
    }
    if (!ok || !qn_source_skip(s, "}")) qn_source_fail(s, QN_E_DATA, "a repeat is {n}, {n,} or {n,m}");
    if (*min > *max) qn_source_fail(s, QN_E_DATA, "a repeat whose bounds run backwards");
}

static qn_gnode repeats(struct qn_source *s, qn_gnode a, int lines) {
    for (;;) {
        uint32_t min = 0, max = QN_G_INF;
        space(s, lines);
        switch (qn_source_peek(s, 0)) {
        case '*': s->at++; break;
        case '+': s->at++; min = 1; break;
        case '?': s->at++; max = 1; break;
        case '{': braces(s, &min, &max, lines); break;
        default: return a;
        }
        if (s->rc) return QN_G_NONE;
        a = qn_g_repeat(s->g, a, min, max);
    }
}

/* Built from its end, so that equal tails are one node: collected first. */
static qn_gnode sequence(struct gbnf *b) {
    struct qn_source *s = &b->s;
    qn_gnode few[16], *v = few, out = QN_G_EMPTY, a;
    size_t n = 0, cap = sizeof few / sizeof *few;
    int lines = s->depth > 0;
    while (s->rc == 0 && item(b, &a)) {
        a = repeats(s, a, lines);
        if (qn_grammar_tick(s->g) < 0) qn_source_fail(s, QN_E_LIMIT, "it takes too long");
        if (n == cap) {
            qn_gnode *more = malloc(cap * 2 * sizeof *more);
            if (more) memcpy(more, v, n * sizeof *v);
            if (v != few) free(v);
            v = more;
            cap *= 2;
            if (!more) return (qn_gnode)(qn_source_fail(s, QN_E_NOMEM, "no memory") * 0);
        }
        v[n++] = a;
    }
    while (n > 0) out = qn_g_cat(s->g, v[--n], out);
    if (v != few) free(v);
    return s->rc ? QN_G_NONE : out;
}

static int at_bar(struct qn_source *s) {
    struct qn_source before = *s;
    space(s, 1);
    if (qn_source_peek(s, 0) == '|') return 1;
    *s = before;
    return 0;
}

static qn_gnode alternatives(struct gbnf *b) {
    struct qn_source *s = &b->s;
    qn_gnode out = sequence(b);
    while (s->rc == 0 && at_bar(s)) {
        s->at++;
        space(s, 1);
        out = qn_g_alt(s->g, out, sequence(b));
    }
    return out;
}

static void rule(struct gbnf *b) {
    struct qn_source *s = &b->s;
    size_t from = s->at;
    int line = s->line;
    while (is_word(qn_source_peek(s, 0))) s->at++;
    size_t n = s->at - from;
    space(s, 0);
    if (n == 0 || !qn_source_skip(s, "::=")) {
        qn_source_fail(s, QN_E_DATA, "a rule's `name ::=` wanted");
        return;
    }
    int i = qn_names_get(&b->names, s, s->p + from, n, line);
    if (i < 0) return;
    if (b->names.v[i].defined) qn_source_fail(s, QN_E_DATA, "the rule '%.*s' is defined twice", QN_NAME_ARGS(n, s->p + from));
    b->names.v[i].defined = 1;
    space(s, 1);
    qn_gnode body = alternatives(b);
    if (s->rc == 0) qn_g_rule_set(s->g, b->names.v[i].rule, body);
    space(s, 0);
    if (s->at < s->n && qn_source_peek(s, 0) != '\n' && qn_source_peek(s, 0) != '\r')
        qn_source_fail(s, QN_E_DATA, "a line's end wanted");
    space(s, 1);
}

qn_gnode qn_g_gbnf(struct qn_grammar *g, const char *p, size_t n, struct qn_err *err) {
    struct gbnf b = {0};
    qn_gnode out = QN_G_NONE;
    qn_source_open(&b.s, g, "GBNF", p, n, err);
    if (b.s.rc == 0) space(&b.s, 1);
    while (b.s.rc == 0 && b.s.at < n) rule(&b);
    for (size_t i = 0; b.s.rc == 0 && i < b.names.n; i++) {
        const struct qn_name *v = &b.names.v[i];
        b.s.line = v->line;
        if (!v->defined) qn_source_fail(&b.s, QN_E_DATA, "there is no rule '%.*s'", QN_NAME_ARGS(v->n, v->p));
    }
    int root = qn_names_find(&b.names, "root", 4);
    if (b.s.rc == 0 && root < 0) qn_source_fail(&b.s, QN_E_DATA, "there is no rule 'root', with which it starts");
    if (b.s.rc == 0) out = b.names.v[root].rule;
    qn_names_done(&b.names);
    if (b.s.rc == 0 && qn_grammar_error(g) < 0) qn_fail(err, qn_grammar_error(g), "GBNF: too large, or it took too long");
    return qn_grammar_error(g) < 0 ? QN_G_NONE : out;
}
