/* grammar: random expressions and random context-free grammars against a matcher written from the definitions: for a text of n bytes
 * an expression is the matrix of spans [i, j) that it matches; rules are the least fixpoint. Every text over a small alphabet up to
 * a length is asked, byte by byte, for acceptance and for whether it can still become a match. Then the limits. */
#include "engine/base/clock.h"
#include "engine/grammar/constraint.h"
#include "engine/grammar/grammar.h"
#include "tests/run.h"

enum { LEN = 7, RULES = 4, NODES = 400 };

/* --- expressions, twice --- */

enum kind { K_EMPTY, K_BYTES, K_CAT, K_ALT, K_REPEAT, K_AND, K_NOT, K_RULE };

struct ex {
    enum kind kind;
    int a, b;            /* children; BYTES: set of letters as bits; RULE: number */
    uint32_t min, max;
};

struct world {
    struct ex ex[NODES];
    int n, body[RULES], n_rules;
    uint64_t rng;
};

static uint32_t below(struct world *w, uint32_t n) { /* splitmix64 */
    uint64_t z = w->rng += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ z >> 31) % n);
}

static int put(struct world *w, struct ex e) {
    ASSERT(w->n < NODES);
    w->ex[w->n] = e;
    return w->n++;
}

static int grow(struct world *w, int size, int pure) {
    if (size <= 1) {
        uint32_t k = below(w, 8);
        if (k == 0) return put(w, (struct ex){.kind = K_EMPTY});
        if (k < 4 && !pure && w->n_rules) return put(w, (struct ex){.kind = K_RULE, .a = (int)below(w, (uint32_t)w->n_rules)});
        return put(w, (struct ex){.kind = K_BYTES, .a = (int)below(w, 8)});
    }
    static const uint32_t bounds[][2] = {{0, 1}, {0, QN_G_INF}, {1, QN_G_INF}, {2, 3}, {0, 3}, {2, QN_G_INF}, {1, 2}, {3, 3}, {0, 0}};
    int left = 1 + (int)below(w, (uint32_t)size - 1), k = (int)below(w, pure ? 12 : 8);
    if (k < 4) return put(w, (struct ex){K_CAT, grow(w, left, pure), grow(w, size - left, pure), 0, 0});
    if (k < 6) return put(w, (struct ex){K_ALT, grow(w, left, pure), grow(w, size - left, pure), 0, 0});
    if (k < 8) {
        const uint32_t *m = bounds[below(w, 9)];
        return put(w, (struct ex){K_REPEAT, grow(w, size - 1, pure), 0, m[0], m[1]});
    }
    if (k < 10) return put(w, (struct ex){K_AND, grow(w, left, pure), grow(w, size - left, pure), 0, 0});
    return put(w, (struct ex){K_NOT, grow(w, size - 1, pure), 0, 0, 0});
}

static qn_gnode build(struct qn_grammar *g, const struct world *w, const qn_gnode *rule, int i) {
    const struct ex *e = &w->ex[i];
    uint64_t set[4] = {0};
    switch (e->kind) {
    case K_EMPTY: return QN_G_EMPTY;
    case K_BYTES:
        for (unsigned c = 0; c < 3; c++)
            if (e->a >> c & 1) set[1] |= 1ull << ('a' + c - 64);
        return qn_g_byte_set(g, set);
    case K_CAT: return qn_g_cat(g, build(g, w, rule, e->a), build(g, w, rule, e->b));
    case K_ALT: return qn_g_alt(g, build(g, w, rule, e->a), build(g, w, rule, e->b));
    case K_REPEAT: return qn_g_repeat(g, build(g, w, rule, e->a), e->min, e->max);
    case K_AND: return qn_g_and(g, build(g, w, rule, e->a), build(g, w, rule, e->b));
    case K_NOT: return qn_g_not(g, build(g, w, rule, e->a));
    default: return rule[e->a];
    }
}

/* --- the definition --- */

struct spans { unsigned char at[LEN + 1][LEN + 1]; };

static struct spans one(void) {
    struct spans s = {0};
    for (int i = 0; i <= LEN; i++) s.at[i][i] = 1;
    return s;
}

static struct spans times(const struct spans *x, const struct spans *y, int n) {
    struct spans s = {0};
    for (int i = 0; i <= n; i++)
        for (int k = i; k <= n; k++)
            for (int j = k; j <= n && x->at[i][k]; j++) s.at[i][j] |= y->at[k][j];
    return s;
}

static struct spans power(const struct spans *x, uint32_t min, uint32_t max, int n) {
    struct spans p = one(), sum = {0};
    uint32_t last = max == QN_G_INF || max > min + LEN + 1 ? min + LEN + 1 : max;
    for (uint32_t k = 0; k <= last; k++) {
        for (int i = 0; i <= n && k >= min; i++)
            for (int j = i; j <= n; j++) sum.at[i][j] |= p.at[i][j];
        p = times(&p, x, n);
    }
    return sum;
}

static struct spans spans_of(const struct world *w, const struct spans *rule, int e, const char *t, int n) {
    const struct ex *x = &w->ex[e];
    struct spans s = {0}, a, b;
    switch (x->kind) {
    case K_EMPTY: return one();
    case K_BYTES:
        for (int i = 0; i < n; i++) s.at[i][i + 1] = x->a >> (t[i] - 'a') & 1;
        return s;
    case K_RULE: return rule[x->a];
    default: break;
    }
    a = spans_of(w, rule, x->a, t, n);
    if (x->kind == K_REPEAT) return power(&a, x->min, x->max, n);
    if (x->kind == K_NOT) {
        for (int i = 0; i <= n; i++)
            for (int j = i; j <= n; j++) s.at[i][j] = !a.at[i][j];
        return s;
    }
    b = spans_of(w, rule, x->b, t, n);
    if (x->kind == K_CAT) return times(&a, &b, n);
    for (int i = 0; i <= n; i++)
        for (int j = i; j <= n; j++) s.at[i][j] = x->kind == K_AND ? a.at[i][j] & b.at[i][j] : a.at[i][j] | b.at[i][j];
    return s;
}

static int matches(const struct world *w, int root, const char *t, int n) {
    struct spans rule[RULES] = {0};
    for (int more = 1; more;) {
        more = 0;
        for (int r = 0; r < w->n_rules; r++) {
            struct spans s = spans_of(w, rule, w->body[r], t, n);
            more |= memcmp(&s, &rule[r], sizeof s) != 0;
            rule[r] = s;
        }
    }
    struct spans s = spans_of(w, rule, root, t, n);
    return s.at[0][n];
}

/* --- every text up to a length --- */

/* A state that is not DEAD must lead to a match: breadth first over all states that follow. */
static int leads_somewhere(struct qn_constraint *c, qn_cstate s) {
    enum { MAX = 3000 };
    static qn_cstate seen[MAX];
    int n = 1;
    seen[0] = s;
    for (int i = 0; i < n; i++) {
        if (qn_constraint_accepts(c, seen[i])) return 1;
        for (char b = 'a'; b <= 'd'; b++) { /* d stands for all other bytes */
            qn_cstate to = qn_constraint_text(c, seen[i], &b, 1);
            int k = 0;
            while (k < n && seen[k] != to) k++;
            if (to == QN_C_DEAD || k < n) continue;
            if (n == MAX) return 1; /* too far to tell */
            seen[n++] = to;
        }
    }
    return 0;
}

static int all_texts(const struct world *w, int root, struct qn_constraint *c, int len) {
    static unsigned char good[1 << 16]; /* by state: known to lead to a match */
    memset(good, 0, sizeof good);
    for (int n = 0, pow = 1; n <= len; n++, pow *= 3) {
        for (int v = 0; v < pow; v++) {
            char t[LEN + 1] = "";
            for (int i = n, x = v; i-- > 0; x /= 3) t[i] = (char)('a' + x % 3);
            qn_cstate s = qn_constraint_text(c, qn_constraint_start(c), t, (size_t)n);
            int want = matches(w, root, t, n), is = qn_constraint_accepts(c, s);
            if (want != is) return qn_test_fail(__FILE__, __LINE__, "\"%s\": accepted %d, should be %d", t, is, want), 1;
            if (s != QN_C_DEAD && s < sizeof good && !good[s] && !(good[s] = (unsigned char)leads_somewhere(c, s)))
                return qn_test_fail(__FILE__, __LINE__, "\"%s\": a dead end", t), 1;
        }
    }
    return 0;
}

static void show(const struct world *w, int i) {
    const struct ex *e = &w->ex[i];
    switch (e->kind) {
    case K_EMPTY: printf("()"); return;
    case K_BYTES: printf("[%s%s%s]", e->a & 1 ? "a" : "", e->a & 2 ? "b" : "", e->a & 4 ? "c" : ""); return;
    case K_RULE: printf("R%d", e->a); return;
    default: break;
    }
    printf("(%s", e->kind == K_NOT ? "~" : "");
    show(w, e->a);
    if (e->kind == K_REPEAT) printf("){%u,%d}", e->min, (int)e->max);
    else if (e->kind == K_NOT) printf(")");
    else {
        printf("%s", e->kind == K_AND ? "&" : e->kind == K_ALT ? "|" : " ");
        show(w, e->b);
        printf(")");
    }
}

static int try_one(uint64_t seed, int n_rules, int size, int len) {
    static struct world w;
    memset(&w, 0, sizeof w);
    w.rng = seed * 1000003;
    w.n_rules = n_rules;
    for (int r = 0; r < n_rules; r++) w.body[r] = grow(&w, 1 + (int)below(&w, (uint32_t)size), 0);
    int root = n_rules ? put(&w, (struct ex){.kind = K_RULE, .a = 0}) : grow(&w, 1 + (int)below(&w, (uint32_t)size), 1);
    struct qn_grammar *g = NULL;
    struct qn_constraint *c = NULL;
    struct qn_err err = {0};
    qn_gnode rule[RULES] = {0};
    ASSERT_EQ(qn_grammar_new(&g, &(struct qn_grammar_limits){.compile_ns = 10 * QN_S}), 0);
    for (int r = 0; r < n_rules; r++) rule[r] = qn_g_rule(g);
    for (int r = 0; r < n_rules; r++) qn_g_rule_set(g, rule[r], build(g, &w, rule, w.body[r]));
    qn_gnode x = build(g, &w, rule, root);
    int rc = qn_constraint_new(&c, g, x, NULL, &err), bad = 0;
    if (rc == 0) {
        bad = all_texts(&w, root, c, len);
        EXPECT_EQ(qn_constraint_failed(c), 0);
    } else {
        EXPECT_EQ(rc, QN_E_DATA);
        for (int n = 0, pow = 1; n <= len && !bad; n++, pow *= 3)
            for (int v = 0; v < pow && !bad; v++) {
                char t[LEN + 1] = "";
                for (int i = n, y = v; i-- > 0; y /= 3) t[i] = (char)('a' + y % 3);
                bad = matches(&w, root, t, n);
            }
        if (bad) qn_test_fail(__FILE__, __LINE__, "refused as empty: %s", err.text);
    }
    if (bad) {
        printf("    seed %llu: ", (unsigned long long)seed);
        for (int r = 0; r < n_rules; r++) {
            printf("R%d = ", r);
            show(&w, w.body[r]);
            printf("; ");
        }
        show(&w, root);
        printf("\n");
    }
    qn_constraint_unref(c);
    return bad;
}

TEST_SLOW(grammar, random_expressions_match_what_their_definition_says, 120) {
    for (uint64_t seed = 0; seed < 3000; seed++)
        if (try_one(seed, 0, 12, 5)) break;
}

TEST_SLOW(grammar, random_context_free_grammars_match_what_their_definition_says, 120) {
    for (uint64_t seed = 0; seed < 3000; seed++)
        if (try_one(seed, 1 + (int)(seed % RULES), 6, 5)) break;
}
