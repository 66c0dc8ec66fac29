/* Any grammar text: r (regular expression), s (searched), i (case ignored), g (GBNF) or l (Lark), the grammar up to a NUL, and a text. It either
 * fails with a reason in time, or matches texts; the same in one piece as in two, and what matches as a whole is also found. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/utf8.h"
#include "engine/grammar/constraint.h"

enum { TEXT_MAX = 64, GRAMMAR_MAX = 4096, BYTES_MAX = 4 << 20 };

static struct qn_constraint *compile(char kind, const char *p, size_t n) {
    struct qn_grammar_limits limits = {.bytes_max = BYTES_MAX, .compile_ns = 50 * QN_MS};
    struct qn_regex_opts o = {.search = kind == 's', .ignore_case = kind == 'i'};
    struct qn_grammar *g;
    struct qn_constraint *c = NULL;
    struct qn_err err = {0};
    int64_t start = qn_clock_ns();
    if (qn_grammar_new(&g, &limits) < 0) return NULL;
    qn_gnode root = kind == 'g' ? qn_g_gbnf(g, p, n, &err) : kind == 'l' ? qn_g_lark(g, p, n, &err) : qn_g_regex(g, p, n, &o, &err);
    assert(err.code <= 0 && (err.code == 0 || (root == QN_G_NONE && err.text[0] && qn_utf8_valid(err.text, strlen(err.text)))));
    if (err.code) qn_grammar_free(g);
    else qn_constraint_new(&c, g, root, NULL, &err);
    assert(c || err.code);
    assert(qn_clock_ns() - start < 5 * QN_S);
    return c;
}

/* -1: memory ran out. */
static int matches(struct qn_constraint *c, const char *text, size_t n, size_t cut) {
    qn_cstate s = qn_constraint_text(c, qn_constraint_start(c), text, cut);
    s = qn_constraint_text(c, s, text + cut, n - cut);
    return qn_constraint_failed(c) ? -1 : qn_constraint_accepts(c, s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) return 0;
    const char *p = (const char *)data + 1, *nul = memchr(p, 0, n - 1), *end = p + n - 1;
    size_t n_grammar = (size_t)((nul ? nul : end) - p), n_text = nul ? (size_t)(end - nul - 1) : 0;
    if (n_grammar > GRAMMAR_MAX) n_grammar = GRAMMAR_MAX;
    if (n_text > TEXT_MAX) n_text = TEXT_MAX;
    const char *text = nul ? nul + 1 : end;
    struct qn_constraint *c = compile((char)data[0], p, n_grammar);
    if (!c) return 0;
    int whole = matches(c, text, n_text, 0), pieces = matches(c, text, n_text, n_text / 2);
    assert(whole < 0 || pieces < 0 || whole == pieces);
    qn_constraint_unref(c);
    if (whole != 1 || data[0] != 'r') return 0;
    c = compile('s', p, n_grammar);
    assert(!c || matches(c, text, n_text, 0) != 0);
    qn_constraint_unref(c);
    return 0;
}
