/* Lark's grammar files (lark-parser.readthedocs.io, "Grammar Reference"): rules in lower case, terminals in upper case, "strings" and
 * /regexes/ with flags, ranges "a".."z", (groups), [options], * + ? ~n ~n..m, %ignore, %import common.X.
 *
 * Lark splits a text into terminals first and takes the longest; here there is no such pass. A rule's terminals stand one after
 * the other with ignored text before each of them and at the end, so every text that Lark parses is matched, and some that it would
 * have split otherwise (`"a" NAME` also matches "ax"). What does not change a text's form is read and has no meaning: priorities,
 * ?rule and !rule, aliases. Not here: templates, %declare, %override, %extend, imports of other files. `<[id]>` is a token, as in
 * llguidance's dialect.
 *
 * Two passes: the first notes where each definition begins; the second builds terminals when they are named. */
#include <stdlib.h>
#include <string.h>

#include "engine/grammar/regex_set.h"
#include "engine/grammar/source.h"

enum { FRESH, BUSY, DONE };

struct def {
    size_t at;         /* of its body */
    int line, state;
    const char *common; /* imported: its regular expression */
};

struct lark {
    struct qn_source s;
    struct qn_names names;
    struct def *defs; /* one a name */
    size_t cap_defs, ignore_at[64];
    int ignore_line[64], n_ignores, in_terminal, levels;
    qn_gnode ignore; /* any number of ignored texts */
};

static const struct { const char *name, *regex; } common[] = {
    {"DIGIT", "[0-9]"}, {"HEXDIGIT", "[0-9a-fA-F]"}, {"INT", "[0-9]+"}, {"SIGNED_INT", "[+-]?[0-9]+"},
    {"DECIMAL", "[0-9]+\\.[0-9]*|\\.[0-9]+"}, {"_EXP", "[eE][+-]?[0-9]+"},
    {"FLOAT", "[0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
    {"SIGNED_FLOAT", "[+-]?([0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?)"},
    {"NUMBER", "([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([eE][+-]?[0-9]+)?"}, {"SIGNED_NUMBER", "[+-]?([0-9]+(\\.[0-9]*)?|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
    {"ESCAPED_STRING", "\"([^\"\\\\\\n]|\\\\[^\\n])*\""}, {"_STRING_INNER", "[^\\n]*"}, {"_STRING_ESC_INNER", "([^\"\\\\\\n]|\\\\[^\\n])*"},
    {"LCASE_LETTER", "[a-z]"}, {"UCASE_LETTER", "[A-Z]"}, {"LETTER", "[a-zA-Z]"}, {"WORD", "[a-zA-Z]+"}, {"CNAME", "[_a-zA-Z][_a-zA-Z0-9]*"},
    {"WS_INLINE", "[ \\t]+"}, {"WS", "[ \\t\\f\\r\\n]+"}, {"CR", "\\r"}, {"LF", "\\n"}, {"NEWLINE", "(\\r?\\n)+"}, {"SH_COMMENT", "#[^\\n]*"},
    {"CPP_COMMENT", "//[^\\n]*"}, {"C_COMMENT", "/\\*([^*]|\\*+[^*/])*\\*+/"}, {"SQL_COMMENT", "--[^\\n]*"},
};

/* --- the text ----------------------------------------------------------------------------------------------------- */

static int is_word(int c) { return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_'; }

static void comment(struct qn_source *s) {
    for (int c; (c = qn_source_peek(s, 0)) >= 0 && c != '\n';) s->at++;
}

static int at_comment(const struct qn_source *s) {
    return qn_source_peek(s, 0) == '#' || (qn_source_peek(s, 0) == '/' && qn_source_peek(s, 1) == '/');
}

static void space(struct qn_source *s, int lines) {
    for (int c; (c = qn_source_peek(s, 0)) == ' ' || c == '\t' || c == '\r' || (lines && c == '\n') || at_comment(s);) {
        if (at_comment(s)) comment(s);
        else qn_source_step(s);
    }
}

static size_t word(struct qn_source *s, const char **p) {
    size_t from = s->at;
    while (is_word(qn_source_peek(s, 0))) s->at++;
    *p = s->p + from;
    return s->at - from;
}

/* Upper or lower case decides what a name is. */
static int is_terminal(const char *p, size_t n) {
    while (n && *p == '_') p++, n--;
    return n && *p >= 'A' && *p <= 'Z';
}

/* Past a string or regular expression that begins here. */
static void quoted(struct qn_source *s) {
    int quote = qn_source_peek(s, 0), line = s->line, c;
    s->at++;
    while ((c = qn_source_peek(s, 0)) != quote) {
        if (c == '\\') qn_source_step(s);
        if (s->at >= s->n || (quote == '"' && c == '\n')) {
            s->line = line;
            qn_source_fail(s, QN_E_DATA, "a %s without its end", quote == '"' ? "string" : "regular expression");
            return;
        }
        qn_source_step(s);
    }
    s->at++;
}

/* To the end of a definition's body: a line's end, unless the next line begins with a bar. */
static void skip_body(struct qn_source *s) {
    int depth = 0;
    for (int c; s->rc == 0 && (c = qn_source_peek(s, 0)) >= 0;) {
        if (at_comment(s)) comment(s);
        else if (c == '"' || c == '/') quoted(s);
        else if (c == '\n' && depth <= 0) {
            struct qn_source before = *s;
            space(s, 1);
            if (qn_source_peek(s, 0) == '|') continue;
            *s = before;
            return;
        } else {
            depth += (c == '(' || c == '[') - (c == ')' || c == ']');
            qn_source_step(s);
        }
    }
}

/* --- the first pass ----------------------------------------------------------------------------------------------- */

static struct def *define(struct lark *l, const char *p, size_t n, int line) {
    struct qn_source *s = &l->s;
    int i = qn_names_get(&l->names, s, p, n, line);
    if (i < 0) return NULL;
    if (l->names.v[i].defined) return qn_source_fail(s, QN_E_DATA, "'%.*s' is defined twice", QN_NAME_ARGS(n, p)), NULL;
    if ((size_t)i >= l->cap_defs) {
        size_t cap = l->cap_defs ? l->cap_defs * 2 : 32;
        struct def *v = realloc(l->defs, cap * sizeof *v);
        if (!v) return qn_source_fail(s, QN_E_NOMEM, "no memory"), NULL;
        l->defs = v;
        l->cap_defs = cap;
    }
    l->names.v[i].defined = 1;
    l->defs[i] = (struct def){.line = line};
    return &l->defs[i];
}

static void import_one(struct lark *l, const char *p, size_t n, const char *as, size_t n_as) {
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) {
        if (strlen(common[i].name) != n || memcmp(common[i].name, p, n) != 0) continue;
        struct def *d = define(l, as, n_as, l->s.line);
        if (d) d->common = common[i].regex;
        return;
    }
    qn_source_fail(&l->s, QN_E_DATA, "'common' has no '%.*s'", QN_NAME_ARGS(n, p));
}

/* common.X, common.X -> Y, common (X, Y) */
static void import(struct lark *l) {
    struct qn_source *s = &l->s;
    const char *p, *as;
    space(s, 0);
    if (!qn_source_skip(s, "common") || is_word(qn_source_peek(s, 0))) {
        qn_source_fail(s, QN_E_UNSUPPORTED, "%%import knows only 'common'");
        return;
    }
    space(s, 0);
    if (qn_source_skip(s, "(")) {
        do {
            space(s, 1);
            size_t n = word(s, &p);
            import_one(l, p, n, p, n);
            space(s, 1);
        } while (s->rc == 0 && qn_source_skip(s, ","));
        if (!qn_source_skip(s, ")")) qn_source_fail(s, QN_E_DATA, "%%import: a ) wanted");
        return;
    }
    if (!qn_source_skip(s, ".")) qn_source_fail(s, QN_E_DATA, "%%import common.NAME wanted");
    size_t n = word(s, &p), n_as = n;
    as = p;
    space(s, 0);
    if (qn_source_skip(s, "->")) {
        space(s, 0);
        n_as = word(s, &as);
    }
    if (s->rc == 0) import_one(l, p, n, as, n_as);
}

static void directive(struct lark *l) {
    struct qn_source *s = &l->s;
    if (qn_source_skip(s, "%ignore")) {
        if (l->n_ignores == (int)(sizeof l->ignore_at / sizeof *l->ignore_at)) qn_source_fail(s, QN_E_LIMIT, "too many %%ignore");
        else {
            l->ignore_line[l->n_ignores] = s->line;
            l->ignore_at[l->n_ignores++] = s->at;
        }
        skip_body(s);
    } else if (qn_source_skip(s, "%import")) {
        import(l);
    } else if (!qn_source_skip(s, "%llguidance {}")) { /* the mark of a dialect, here without options */
        const char *p;
        s->at++;
        size_t n = word(s, &p);
        qn_source_fail(s, QN_E_UNSUPPORTED, "%%%.*s", QN_NAME_ARGS(n, p));
    }
}

static void statement(struct lark *l) {
    struct qn_source *s = &l->s;
    const char *p;
    int line = s->line;
    uint32_t ignored;
    if (qn_source_peek(s, 0) == '%') {
        directive(l);
        return;
    }
    while (qn_source_peek(s, 0) == '?' || qn_source_peek(s, 0) == '!') s->at++;
    size_t n = word(s, &p);
    if (n == 0 || (*p >= '0' && *p <= '9')) {
        qn_source_fail(s, QN_E_DATA, "a rule's or terminal's name wanted");
        return;
    }
    if (qn_source_peek(s, 0) == '{') qn_source_fail(s, QN_E_UNSUPPORTED, "the template '%.*s'", QN_NAME_ARGS(n, p));
    if (qn_source_skip(s, ".")) {
        qn_source_skip(s, "-");
        qn_source_number(s, &ignored);
    }
    space(s, 0);
    if (!qn_source_skip(s, ":")) qn_source_fail(s, QN_E_DATA, "a colon wanted after '%.*s'", QN_NAME_ARGS(n, p));
    struct def *d = s->rc ? NULL : define(l, p, n, line);
    if (d) {
        d->at = s->at;
        d->line = s->line;
        skip_body(s);
    }
}

/* --- the second pass ---------------------------------------------------------------------------------------------- */

static qn_gnode alternatives(struct lark *l, int lines);
static qn_gnode terminal(struct lark *l, int i);

static qn_gnode fail(struct qn_source *s, int code, const char *what) { return (qn_gnode)(qn_source_fail(s, code, "%s", what) * 0); }

static qn_gnode one_char(struct qn_source *s, uint32_t c, int fold) {
    struct qn_set set = {0};
    qn_set_add(&set, c, c);
    if (fold) qn_set_fold(&set);
    if (set.failed) qn_source_fail(s, set.failed, "no memory");
    qn_gnode out = s->rc ? QN_G_NONE : qn_g_chars(s->g, set.v, set.n);
    qn_set_done(&set);
    return out;
}

/* "…", its flag i, and the range "a".."z". */
static qn_gnode string(struct qn_source *s) {
    struct qn_source at = *s;
    quoted(s);
    if (s->rc) return QN_G_NONE;
    size_t end = s->at - 1, n = 0;
    int fold = qn_source_peek(s, 0) == 'i' && !is_word(qn_source_peek(s, 1));
    s->at += (size_t)fold;
    uint32_t *v = malloc((end - at.at + 1) * sizeof *v);
    if (!v) return fail(s, QN_E_NOMEM, "no memory");
    for (at.at++; at.at < end && at.rc == 0;) {
        uint32_t c = qn_source_char(&at);
        v[n++] = c == '\\' ? qn_source_escape(&at) : c;
    }
    if (at.rc) s->rc = at.rc;
    qn_gnode out = QN_G_EMPTY;
    if (qn_source_skip(s, "..")) {
        struct qn_source to = *s;
        quoted(s);
        uint32_t last = s->rc ? 0 : (to.at++, qn_source_char(&to));
        if (last == '\\') last = qn_source_escape(&to);
        if (s->rc == 0 && (n != 1 || to.rc || to.at + 1 != s->at || last < v[0])) qn_source_fail(s, QN_E_DATA, "a range is between two characters, the lower first");
        out = s->rc ? QN_G_NONE : qn_g_chars(s->g, &(struct qn_codes){v[0], last}, 1);
    } else {
        while (n > 0) out = qn_g_cat(s->g, one_char(s, v[--n], fold), out);
    }
    free(v);
    return out;
}

static qn_gnode regex(struct qn_source *s) {
    size_t from = s->at + 1;
    int line = s->line;
    char *text = NULL;
    struct qn_regex_opts o = {0};
    struct qn_err err = {0};
    quoted(s);
    if (s->rc) return QN_G_NONE;
    size_t n = s->at - 1 - from;
    const char *mark = "";
    for (int c; ((c = qn_source_peek(s, 0)) | 32) >= 'a' && (c | 32) <= 'z'; s->at++) {
        if (c == 'i') o.ignore_case = 1;
        else if (c == 's') mark = *mark == 'm' ? "(?sm)" : "(?s)";
        else if (c == 'm') mark = *mark ? "(?sm)" : "(?m)";
        else if (c != 'u') return fail(s, QN_E_UNSUPPORTED, "a regular expression's flag other than i, m, s, u");
    }
    text = malloc(n + 8);
    if (!text) return fail(s, QN_E_NOMEM, "no memory");
    memcpy(text, mark, strlen(mark));
    memcpy(text + strlen(mark), s->p + from, n);
    qn_gnode out = qn_g_regex(s->g, text, n + strlen(mark), &o, &err);
    free(text);
    s->line = line;
    if (err.code) qn_source_fail(s, err.code, "%s", err.text);
    return out;
}

static qn_gnode name(struct lark *l) {
    struct qn_source *s = &l->s;
    const char *p;
    size_t n = word(s, &p);
    int i = qn_names_find(&l->names, p, n);
    if (qn_source_peek(s, 0) == '{') return fail(s, QN_E_UNSUPPORTED, "the use of a template");
    if (i < 0) return (qn_gnode)(qn_source_fail(s, QN_E_DATA, "there is no '%.*s'", QN_NAME_ARGS(n, p)) * 0);
    if (is_terminal(p, n)) return terminal(l, i);
    if (l->in_terminal) return fail(s, QN_E_DATA, "a rule inside a terminal");
    return l->names.v[i].rule;
}

static qn_gnode token(struct lark *l) {
    struct qn_source *s = &l->s;
    uint32_t id;
    if (l->in_terminal || !qn_source_skip(s, "<[") || !qn_source_number(s, &id) || !qn_source_skip(s, "]>"))
        return fail(s, QN_E_UNSUPPORTED, "tokens stand in rules and are written by their id, as <[id]>");
    return qn_g_token(s->g, id);
}

static qn_gnode group(struct lark *l) {
    struct qn_source *s = &l->s;
    int optional = qn_source_peek(s, 0) == '[';
    if (l->levels >= QN_SOURCE_DEPTH_MAX) return fail(s, QN_E_LIMIT, "nested too deep");
    l->levels++;
    s->at++;
    qn_gnode out = alternatives(l, 1);
    l->levels--;
    if (s->rc == 0 && !qn_source_skip(s, optional ? "]" : ")")) qn_source_fail(s, QN_E_DATA, "a group without its %s", optional ? "]" : ")");
    return optional ? qn_g_repeat(s->g, out, 0, 1) : out;
}

/* 0: nothing that a sequence may hold stands here. What is a terminal comes after ignored text. */
static int item(struct lark *l, qn_gnode *out) {
    struct qn_source *s = &l->s;
    int c = qn_source_peek(s, 0), in_text = c == '"' || (c == '/' && qn_source_peek(s, 1) != '/');
    if (c == '(' || c == '[') *out = group(l);
    else if (c == '<') *out = token(l);
    else if (c == '"') *out = string(s);
    else if (in_text) *out = regex(s);
    else if (is_word(c)) {
        const char *p = s->p + s->at;
        in_text = is_terminal(p, s->n - s->at);
        *out = name(l);
    } else return 0;
    if (in_text && !l->in_terminal) *out = qn_g_cat(s->g, l->ignore, *out);
    return 1;
}

static qn_gnode repeats(struct qn_source *s, qn_gnode a, int lines) {
    uint32_t min = 0, max = QN_G_INF;
    struct qn_source before = *s;
    space(s, lines);
    if (qn_source_skip(s, "*")) {}
    else if (qn_source_skip(s, "+")) min = 1;
    else if (qn_source_skip(s, "?")) max = 1;
    else if (qn_source_skip(s, "~")) {
        space(s, lines);
        if (!qn_source_number(s, &min)) qn_source_fail(s, QN_E_DATA, "a number wanted after ~");
        max = min;
        space(s, lines);
        if (qn_source_skip(s, "..")) {
            space(s, lines);
            if (!qn_source_number(s, &max) || max < min) qn_source_fail(s, QN_E_DATA, "bounds wanted: ~n..m");
        }
    } else {
        *s = before;
        return a;
    }
    return s->rc ? QN_G_NONE : qn_g_repeat(s->g, a, min, max);
}

static qn_gnode sequence(struct lark *l, int lines) {
    struct qn_source *s = &l->s;
    const char *ignored;
    qn_gnode out = QN_G_EMPTY, a;
    for (space(s, lines); s->rc == 0 && item(l, &a); space(s, lines)) {
        out = qn_g_cat(s->g, out, repeats(s, a, lines));
        if (qn_grammar_tick(s->g) < 0) qn_source_fail(s, QN_E_LIMIT, "it takes too long");
    }
    if (qn_source_skip(s, "->")) {
        space(s, lines);
        if (word(s, &ignored) == 0) qn_source_fail(s, QN_E_DATA, "an alias wanted after ->");
    }
    return out;
}

static qn_gnode alternatives(struct lark *l, int lines) {
    struct qn_source *s = &l->s;
    qn_gnode out = sequence(l, lines);
    for (;;) {
        struct qn_source before = *s;
        space(s, 1);
        if (s->rc || !qn_source_skip(s, "|")) {
            if (!lines && s->rc == 0) *s = before;
            return out;
        }
        out = qn_g_alt(s->g, out, sequence(l, lines));
    }
}

/* The body at `at`, to the end of its line. */
static qn_gnode body(struct lark *l, size_t at, int line, int in_terminal) {
    struct qn_source *s = &l->s;
    size_t back_at = s->at;
    int back_line = s->line, back = l->in_terminal;
    s->at = at;
    s->line = line;
    l->in_terminal = in_terminal;
    qn_gnode out = alternatives(l, 0);
    space(s, 0);
    if (s->rc == 0 && s->at < s->n && qn_source_peek(s, 0) != '\n') fail(s, QN_E_DATA, "a line's end wanted");
    if (s->rc == 0) s->line = back_line;
    s->at = back_at;
    l->in_terminal = back;
    return out;
}

static qn_gnode terminal(struct lark *l, int i) {
    struct qn_source *s = &l->s;
    struct def *d = &l->defs[i];
    struct qn_name *v = &l->names.v[i];
    if (d->state == DONE) return v->rule;
    if (d->state == BUSY || l->levels >= QN_SOURCE_DEPTH_MAX)
        return (qn_gnode)(qn_source_fail(s, QN_E_DATA, "the terminal '%.*s' refers to itself, or too deep", QN_NAME_ARGS(v->n, v->p)) * 0);
    d->state = BUSY;
    l->levels++;
    qn_gnode out = d->common ? qn_g_regex(s->g, d->common, strlen(d->common), NULL, s->err) : body(l, d->at, d->line, 1);
    l->levels--;
    d->state = DONE;
    qn_g_rule_set(s->g, v->rule, out); /* so that no rule stays without a body; terminals are used as they are */
    return v->rule = out;
}

static void build(struct lark *l) {
    struct qn_source *s = &l->s;
    qn_gnode skipped = QN_G_NONE;
    for (int i = 0; s->rc == 0 && i < l->n_ignores; i++) skipped = qn_g_alt(s->g, skipped, body(l, l->ignore_at[i], l->ignore_line[i], 1));
    l->ignore = qn_g_repeat(s->g, skipped, 0, QN_G_INF);
    for (size_t i = 0; s->rc == 0 && i < l->names.n; i++) {
        if (is_terminal(l->names.v[i].p, l->names.v[i].n)) terminal(l, (int)i);
        else qn_g_rule_set(s->g, l->names.v[i].rule, body(l, l->defs[i].at, l->defs[i].line, 0));
    }
}

qn_gnode qn_g_lark(struct qn_grammar *g, const char *p, size_t n, struct qn_err *err) {
    struct lark l = {0};
    qn_gnode out = QN_G_NONE;
    qn_source_open(&l.s, g, "Lark grammar", p, n, err);
    for (space(&l.s, 1); l.s.rc == 0 && l.s.at < n; space(&l.s, 1)) statement(&l);
    int start = qn_names_find(&l.names, "start", 5);
    if (l.s.rc == 0 && start < 0) qn_source_fail(&l.s, QN_E_DATA, "there is no rule 'start', with which it starts");
    if (l.s.rc == 0) build(&l);
    if (l.s.rc == 0) out = qn_g_cat(g, l.names.v[start].rule, l.ignore);
    qn_names_done(&l.names);
    free(l.defs);
    if (l.s.rc == 0 && qn_grammar_error(g) < 0) qn_fail(err, qn_grammar_error(g), "Lark grammar: too large, or it took too long");
    return qn_grammar_error(g) < 0 ? QN_G_NONE : out;
}
