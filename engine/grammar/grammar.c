/* Grammars as front ends see them: open and free, bytes, characters, rules and tokens. The operations on expressions are in node.c. */
#include "engine/grammar/grammar.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/rng.h"
#include "engine/grammar/node.h"

enum { BYTES_MAX = 64 << 20, LIVE_FUEL = 200000 };
static const int64_t COMPILE_NS = 250 * QN_MS;

int qn_grammar_new(struct qn_grammar **out, const struct qn_grammar_limits *limits) {
    struct qn_grammar *g = calloc(1, sizeof *g);
    if (!g) return QN_E_NOMEM;
    g->bytes_max = limits && limits->bytes_max ? limits->bytes_max : BYTES_MAX;
    g->started_ns = qn_clock_ns();
    /* The thread's own time: on a busy machine a schema is refused no sooner than on an idle one. */
    g->deadline_ns = qn_clock_thread_ns() + (limits && limits->compile_ns ? limits->compile_ns : COMPILE_NS);
    g->live_fuel = LIVE_FUEL;
    g->fuel = g->look = INT64_MAX / 2; /* building is bounded by time */
    if (qn_rng_bytes(&g->key, sizeof g->key) < 0) qn_g_fail(g, QN_E_IO);
    qn_gn_make(g, QN_K_NONE, 0, 0, 0);
    if (g->nodes.slot) memset(g->nodes.slot, 0, (g->nodes.mask + 1) * sizeof *g->nodes.slot); /* number 0 is what free slots hold */
    qn_gn_make(g, QN_K_EMPTY, 0, 0, 0);
    qn_g_rule(g); /* number 0, the outermost: its body is the root */
    if (!g->error) g->text = qn_g_repeat(g, qn_g_any_char(g), 0, QN_G_INF);
    if (g->error) {
        int rc = g->error;
        qn_grammar_free(g);
        return rc;
    }
    *out = g;
    return 0;
}

void qn_grammar_free(struct qn_grammar *g) {
    if (!g) return;
    qn_garena_empty(g, &g->rows);
    qn_garena_empty(g, &g->keep);
    free(g->seg);
    free(g->nodes.slot);
    free(g->lists);
    free(g->list_table.slot);
    free(g->rules);
    free(g->pile.v);
    free(g->by_symbol);
    free(g);
}

int qn_grammar_error(const struct qn_grammar *g) { return g->error; }

qn_gnode qn_g_byte_set(struct qn_grammar *g, const uint64_t set[4]) {
    uint64_t s[4] = {set[0], set[1], set[2], set[3] & ~(1ull << 63)};
    return g->error ? QN_G_NONE : qn_gn_set(g, s);
}

static qn_gnode one_byte(struct qn_grammar *g, unsigned b) {
    uint64_t s[4] = {0};
    s[b >> 6] = 1ull << (b & 63);
    return qn_g_byte_set(g, s);
}

qn_gnode qn_g_bytes(struct qn_grammar *g, const char *p, size_t n) {
    qn_gnode x = QN_G_EMPTY;
    while (n > 0) x = qn_g_cat(g, one_byte(g, (unsigned char)p[--n]), x);
    return g->error ? QN_G_NONE : x;
}

qn_gnode qn_g_any_char(struct qn_grammar *g) {
    const struct qn_codes all = {0, 0x10FFFF};
    return qn_g_chars(g, &all, 1);
}

qn_gnode qn_g_text(struct qn_grammar *g) { return g->error ? QN_G_NONE : g->text; }

qn_gnode qn_g_rule(struct qn_grammar *g) {
    if (g->error || qn_g_room(g, &g->rules, &g->rules_cap, g->n_rules + 1, sizeof *g->rules) < 0) return QN_G_NONE;
    qn_gnode ref = qn_gn_make(g, QN_K_RULE, 0, g->n_rules, 0);
    if (ref) g->rules[g->n_rules++] = (struct qn_grule){.ref = ref};
    return ref;
}

void qn_g_rule_set(struct qn_grammar *g, qn_gnode rule, qn_gnode body) {
    if (g->error) return;
    struct qn_grule *r = &g->rules[qn_gn(g, rule)->a];
    r->body = body;
    r->set = 1;
}

qn_gnode qn_g_token(struct qn_grammar *g, uint32_t id) { return g->error ? QN_G_NONE : qn_gn_make(g, QN_K_TOKEN, 0, id, 0); }

int qn_g_nullable(const struct qn_grammar *g, qn_gnode a) { return qn_gn_nullable(g, a) != 0; }
