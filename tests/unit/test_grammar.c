/* grammar: random expressions and random context-free grammars against a matcher written from the definitions: for a text of n bytes
 * an expression is the matrix of spans [i, j) that it matches; rules are the least fixpoint. Every text over a small alphabet up to
 * a length is asked, byte by byte, for acceptance and for whether it can still become a match. Then the limits. */
#include <time.h>

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

/* --- what is made to hurt --- */

static qn_gnode lit(struct qn_grammar *g, const char *s) { return qn_g_bytes(g, s, strlen(s)); }
static qn_gnode ab(struct qn_grammar *g) { return qn_g_alt(g, lit(g, "a"), lit(g, "b")); }

static qn_gnode nested_counts(struct qn_grammar *g) { /* ((ab?){0,1000}b?){0,1000} … */
    qn_gnode x = lit(g, "a");
    for (int i = 0; i < 20; i++) x = qn_g_repeat(g, qn_g_cat(g, x, qn_g_repeat(g, lit(g, "b"), 0, 1)), 0, 1000);
    return x;
}
static qn_gnode nested_stars(struct qn_grammar *g) { /* ((((a*b)*a)*b)* … */
    qn_gnode x = lit(g, "a");
    for (int i = 0; i < 10000; i++) x = qn_g_repeat(g, qn_g_cat(g, x, i % 2 ? lit(g, "a") : QN_G_EMPTY), 0, QN_G_INF);
    return x;
}
static qn_gnode many_differences(struct qn_grammar *g) { /* x and not y and not z …, each of them long */
    qn_gnode x = qn_g_text(g);
    for (unsigned i = 0; i < 3000; i++) {
        char word[32];
        snprintf(word, sizeof word, "%c%u%c", 'a' + i % 3, i * 7919 % 1000, 'a' + i % 2);
        x = qn_g_and(g, x, qn_g_not(g, qn_g_cat_n(g, (qn_gnode[]){qn_g_text(g), lit(g, word), qn_g_text(g)}, 3)));
    }
    return x;
}
static qn_gnode differences_inside_each_other(struct qn_grammar *g) {
    qn_gnode x = lit(g, "a");
    for (int i = 0; i < 3000; i++) x = qn_g_not(g, qn_g_cat(g, i % 2 ? lit(g, "b") : ab(g), qn_g_not(g, qn_g_cat(g, x, ab(g)))));
    return x;
}
static qn_gnode parentheses(struct qn_grammar *g) {
    qn_gnode x = QN_G_EMPTY;
    for (int i = 0; i < 60000; i++) x = qn_g_cat(g, lit(g, "("), qn_g_cat(g, x, lit(g, ")")));
    return x;
}
static qn_gnode optional_parentheses(struct qn_grammar *g) {
    qn_gnode x = QN_G_EMPTY;
    for (int i = 0; i < 60000; i++) x = qn_g_cat_n(g, (qn_gnode[]){lit(g, "("), qn_g_repeat(g, x, 0, 1), lit(g, ")")}, 3);
    return x;
}
static qn_gnode choices_after_choices(struct qn_grammar *g) { /* a(b|a(b|a(b| … and not)) */
    qn_gnode x = qn_g_and(g, qn_g_text(g), qn_g_not(g, lit(g, "b")));
    for (int i = 0; i < 60000; i++) x = qn_g_alt(g, lit(g, "b"), qn_g_cat(g, lit(g, "a"), x));
    return x;
}
static qn_gnode ambiguous(struct qn_grammar *g) { /* E = E E | a | b */
    qn_gnode e = qn_g_rule(g);
    qn_g_rule_set(g, e, qn_g_alt(g, qn_g_cat(g, e, e), ab(g)));
    return e;
}
static qn_gnode ambiguous_empty(struct qn_grammar *g) { /* E = E E E | a? b? */
    qn_gnode e = qn_g_rule(g);
    qn_gnode leaf = qn_g_cat(g, qn_g_repeat(g, lit(g, "a"), 0, 1), qn_g_repeat(g, lit(g, "b"), 0, 1));
    qn_g_rule_set(g, e, qn_g_alt(g, qn_g_cat_n(g, (qn_gnode[]){e, e, e}, 3), leaf));
    return e;
}
static qn_gnode chain_of_rules(struct qn_grammar *g, int up) {
    enum { N = 20000 };
    static qn_gnode r[N];
    for (int i = 0; i < N; i++) r[i] = qn_g_rule(g);
    for (int i = 0; i < N; i++) {
        int to = up ? i + 1 : i - 1;
        qn_g_rule_set(g, r[i], to >= 0 && to < N ? qn_g_cat(g, r[to], i % 2 ? QN_G_EMPTY : qn_g_repeat(g, lit(g, "b"), 0, 1)) : ab(g));
    }
    return qn_g_repeat(g, r[up ? 0 : N - 1], 0, QN_G_INF);
}
static qn_gnode chain_up(struct qn_grammar *g) { return chain_of_rules(g, 1); }
static qn_gnode chain_down(struct qn_grammar *g) { return chain_of_rules(g, 0); }
static qn_gnode tail_of_letters(struct qn_grammar *g) { /* [ab]*a[ab]{24}: 2^24 sets of places */
    return qn_g_cat_n(g, (qn_gnode[]){qn_g_repeat(g, ab(g), 0, QN_G_INF), lit(g, "a"), qn_g_repeat(g, ab(g), 24, 24)}, 3);
}
static qn_gnode product_of_counts(struct qn_grammar *g) {
    qn_gnode x = qn_g_text(g);
    for (uint32_t i = 0; i < 40; i++) {
        qn_gnode part = qn_g_cat(g, ab(g), qn_g_repeat(g, i % 2 ? lit(g, "a") : lit(g, "b"), 0, i));
        x = qn_g_and(g, x, qn_g_repeat(g, part, i, 1000 + i));
    }
    return x;
}
static qn_gnode wide_enumeration(struct qn_grammar *g) {
    enum { N = 40000 };
    static qn_gnode v[N];
    for (unsigned i = 0; i < N; i++) {
        char word[64];
        snprintf(word, sizeof word, "%c%c%u-%u", i % 2 ? 'a' : 'b', i % 3 ? 'a' : 'b', i * 2654435761u, i);
        v[i] = lit(g, word);
    }
    return qn_g_alt_n(g, v, N);
}
static qn_gnode wide_choice_repeated(struct qn_grammar *g) { return qn_g_repeat(g, wide_enumeration(g), 5, 100000); }
static qn_gnode billion(struct qn_grammar *g) { return qn_g_repeat(g, qn_g_any_char(g), 1000000000, 2000000000); }
static qn_gnode optional_one_by_one(struct qn_grammar *g) { /* a?b?a?b? …: everything may be left out */
    enum { N = 20000 };
    static qn_gnode v[N];
    for (int i = 0; i < N; i++) v[i] = qn_g_repeat(g, lit(g, i % 2 ? "a" : i % 3 ? "b" : "ab"), 0, 1);
    return qn_g_cat_n(g, v, N);
}
static qn_gnode many_tokens(struct qn_grammar *g) {
    qn_gnode x = ab(g);
    for (uint32_t i = 0; i < 3000; i++) x = qn_g_alt(g, x, qn_g_token(g, i));
    return x;
}

static const struct { const char *name; qn_gnode (*make)(struct qn_grammar *g); } bombs[] = {
    {"nested counts", nested_counts}, {"nested stars", nested_stars}, {"many differences", many_differences},
    {"differences inside each other", differences_inside_each_other}, {"60,000 parentheses", parentheses},
    {"60,000 optional parentheses", optional_parentheses}, {"choices after choices", choices_after_choices}, {"E = E E | a | b", ambiguous},
    {"E = E E E | a? b?", ambiguous_empty}, {"a chain of rules up", chain_up}, {"a chain of rules down", chain_down},
    {"[ab]*a[ab]{24}", tail_of_letters}, {"a product of counts", product_of_counts}, {"a wide enumeration", wide_enumeration},
    {"a wide enumeration repeated", wide_choice_repeated}, {"a billion characters", billion}, {"everything may be left out", optional_one_by_one},
    {"3,000 tokens", many_tokens},
};

TEST(grammar, time_that_others_take_is_no_reason_to_refuse) {
    struct qn_grammar_limits limits = {.compile_ns = 20 * QN_MS};
    struct qn_grammar *g = NULL;
    struct qn_constraint *c = NULL;
    struct qn_err err = {0};
    ASSERT_EQ(qn_grammar_new(&g, &limits), 0);
    nanosleep(&(struct timespec){.tv_nsec = 60 * QN_MS}, NULL); /* as if the processor had been somebody else's */
    qn_gnode root = QN_G_EMPTY;
    for (int i = 0; i < 10000; i++) root = qn_g_cat(g, qn_g_bytes(g, i & 1 ? "ab" : "c", 1), root); /* many looks at the clock */
    EXPECT_EQ(qn_constraint_new(&c, g, root, NULL, &err), 0);
    qn_constraint_unref(c);
}

TEST_SLOW(grammar, what_is_made_to_hurt_ends_in_bounded_time_and_memory, 300) {
    enum { BYTES = 64 << 20, TEXT = 4000 };
    int slow = getenv("QN_BUILD") && !strstr(getenv("QN_BUILD"), "release") ? 20 : 1; /* sanitizers */
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        struct qn_grammar *g = NULL;
        struct qn_constraint *c = NULL;
        struct qn_err err = {0};
        struct qn_constraint_counts n = {0};
        int64_t from = qn_clock_thread_ns(), built, worst = 0;
        ASSERT_EQ(qn_grammar_new(&g, NULL), 0);
        int rc = qn_constraint_new(&c, g, bombs[i].make(g), NULL, &err);
        built = qn_clock_thread_ns() - from;
        EXPECT(rc == 0 || rc == QN_E_LIMIT || rc == QN_E_DATA);
        qn_cstate s = rc == 0 ? qn_constraint_start(c) : QN_C_DEAD;
        size_t len = 0;
        for (uint64_t r = 1; len < TEXT && s != QN_C_DEAD; len++) {
            r = r * 6364136223846793005u + 1442695040888963407u;
            char b = r >> 40 & 1 ? 'a' : 'b';
            int64_t t = qn_clock_thread_ns();
            qn_cstate to = qn_constraint_text(c, s, &b, 1);
            if (to == QN_C_DEAD) b ^= 'a' ^ 'b', to = qn_constraint_text(c, s, &b, 1);
            s = to;
            t = qn_clock_thread_ns() - t;
            if (t > worst) worst = t;
        }
        if (rc == 0) qn_constraint_counts(c, &n);
        /* the limit of 250 ms and what lies between two looks at the clock; then one byte, and the memory */
        if (built > 300 * QN_MS * slow || worst > 100 * QN_MS * slow || n.bytes > BYTES)
            qn_test_fail(__FILE__, __LINE__, "%s: %.1f ms to build, then %.1f ms for a byte, %zu bytes of text, %.1f MB", bombs[i].name, (double)built / 1e6,
                         (double)worst / 1e6, len, (double)n.bytes / 1e6);
        qn_constraint_unref(c);
    }
}
