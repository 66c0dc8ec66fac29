/* Ranges of characters, names of sets, and case folding by orbits (fold_data.h). */
#include "engine/grammar/regex_set.h"

#include <stdlib.h>
#include <string.h>

#include "engine/grammar/fold_data.h"
#include "engine/unicode.h"

void qn_set_done(struct qn_set *s) {
    free(s->v);
    *s = (struct qn_set){0};
}

void qn_set_add(struct qn_set *s, uint32_t from, uint32_t to) {
    if (s->failed || from > to) return;
    if (s->n && s->v[s->n - 1].to + 1 == from) { /* walks come in order: no need to grow for them */
        s->v[s->n - 1].to = to;
        return;
    }
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        struct qn_codes *v = realloc(s->v, cap * sizeof *v);
        if (!v) {
            s->failed = QN_E_NOMEM;
            return;
        }
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = (struct qn_codes){from, to};
}

static int by_from(const void *a, const void *b) {
    uint32_t x = ((const struct qn_codes *)a)->from, y = ((const struct qn_codes *)b)->from;
    return x < y ? -1 : x > y;
}

void qn_set_tidy(struct qn_set *s) {
    size_t n = 0;
    if (s->n == 0) return;
    qsort(s->v, s->n, sizeof *s->v, by_from);
    for (size_t i = 1; i < s->n; i++) {
        if (s->v[i].from > s->v[n].to && s->v[i].from - s->v[n].to > 1) s->v[++n] = s->v[i];
        else if (s->v[i].to > s->v[n].to) s->v[n].to = s->v[i].to;
    }
    s->n = n + 1;
}

void qn_set_invert(struct qn_set *s) {
    struct qn_set out = {.failed = s->failed};
    uint32_t at = 0;
    qn_set_tidy(s);
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].from > at) qn_set_add(&out, at, s->v[i].from - 1);
        at = s->v[i].to + 1;
    }
    if (at <= QN_RUNE_MAX) qn_set_add(&out, at, QN_RUNE_MAX);
    qn_set_done(s);
    *s = out;
}

/* The next of each member's orbit. */
static void add_next(struct qn_set *out, const struct qn_codes *c, const struct qn_fold_row *r) {
    uint32_t from = c->from > r->from ? c->from : r->from, to = c->to < r->to ? c->to : r->to, step = r->step;
    if (from > to) return;
    from += (step - (from - r->from) % step) % step;
    if (step == 1) qn_set_add(out, (uint32_t)((int32_t)from + r->delta), (uint32_t)((int32_t)to + r->delta));
    else
        for (uint32_t k = from; k <= to; k += step) qn_set_add(out, (uint32_t)((int32_t)k + r->delta), (uint32_t)((int32_t)k + r->delta));
}

void qn_set_fold(struct qn_set *s) {
    enum { ORBIT_MAX = 4 };
    for (int round = 1; round < ORBIT_MAX; round++) {
        qn_set_tidy(s);
        size_t n = s->n, row = 0;
        for (size_t i = 0; i < n && !s->failed; i++) {
            while (row < qn_fold_rows && qn_fold[row].to < s->v[i].from) row++;
            struct qn_codes c = s->v[i]; /* adding moves the array */
            for (size_t k = row; k < qn_fold_rows && qn_fold[k].from <= c.to; k++) add_next(s, &c, &qn_fold[k]);
        }
    }
    qn_set_tidy(s);
}

/* --- names -------------------------------------------------------------------------------------------------------- */

static void add_ranges(struct qn_set *s, const struct qn_codes *v, size_t n, int inverted) {
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (!inverted) qn_set_add(s, v[i].from, v[i].to);
        else if (v[i].from > at) qn_set_add(s, at, v[i].from - 1);
        at = v[i].to + 1;
    }
    if (inverted && at <= QN_RUNE_MAX) qn_set_add(s, at, QN_RUNE_MAX);
}

static const struct qn_codes digit[] = {{'0', '9'}}, word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
    space[] = {{9, 13}, {32, 32}, {0xA0, 0xA0}, {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
               {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
#define N(a) (sizeof(a) / sizeof *(a))

int qn_set_add_escape(struct qn_set *s, char letter) {
    switch (letter) {
    case 'd': case 'D': add_ranges(s, digit, N(digit), letter == 'D'); return 1;
    case 'w': case 'W': add_ranges(s, word, N(word), letter == 'W'); return 1;
    case 's': case 'S': add_ranges(s, space, N(space), letter == 'S'); return 1;
    default: return 0;
    }
}

static const struct {
    const char *brief, *name;
    unsigned set;
} categories[] = {
    {"L", "Letter", QN_SET_L}, {"M", "Mark", QN_SET_M}, {"N", "Number", QN_SET_N}, {"P", "Punctuation", QN_SET_P}, {"S", "Symbol", QN_SET_S},
    {"Z", "Separator", QN_SET(QN_ZS) | QN_SET(QN_ZL) | QN_SET(QN_ZP)},
    {"C", "Other", QN_SET(QN_CC) | QN_SET(QN_CF) | QN_SET(QN_CO) | QN_SET(QN_CS) | QN_SET(QN_CN)},
    {"digit", "Nd", QN_SET(QN_ND)}, {"punct", "P", QN_SET_P}, {"cntrl", "Cc", QN_SET(QN_CC)}, /* names in their own right */
    {"LC", "Cased_Letter", QN_SET(QN_LU) | QN_SET(QN_LL) | QN_SET(QN_LT)}, {"L&", "Cased_Letter", QN_SET(QN_LU) | QN_SET(QN_LL) | QN_SET(QN_LT)},
    {"Lu", "Uppercase_Letter", QN_SET(QN_LU)}, {"Ll", "Lowercase_Letter", QN_SET(QN_LL)}, {"Lt", "Titlecase_Letter", QN_SET(QN_LT)},
    {"Lm", "Modifier_Letter", QN_SET(QN_LM)}, {"Lo", "Other_Letter", QN_SET(QN_LO)}, {"Mn", "Nonspacing_Mark", QN_SET(QN_MN)},
    {"Mc", "Spacing_Mark", QN_SET(QN_MC)}, {"Me", "Enclosing_Mark", QN_SET(QN_ME)}, {"Nd", "Decimal_Number", QN_SET(QN_ND)},
    {"Nl", "Letter_Number", QN_SET(QN_NL)}, {"No", "Other_Number", QN_SET(QN_NO)}, {"Pc", "Connector_Punctuation", QN_SET(QN_PC)},
    {"Pd", "Dash_Punctuation", QN_SET(QN_PD)}, {"Ps", "Open_Punctuation", QN_SET(QN_PS)}, {"Pe", "Close_Punctuation", QN_SET(QN_PE)},
    {"Pi", "Initial_Punctuation", QN_SET(QN_PI)}, {"Pf", "Final_Punctuation", QN_SET(QN_PF)}, {"Po", "Other_Punctuation", QN_SET(QN_PO)},
    {"Sm", "Math_Symbol", QN_SET(QN_SM)}, {"Sc", "Currency_Symbol", QN_SET(QN_SC)}, {"Sk", "Modifier_Symbol", QN_SET(QN_SK)},
    {"So", "Other_Symbol", QN_SET(QN_SO)}, {"Zs", "Space_Separator", QN_SET(QN_ZS)}, {"Zl", "Line_Separator", QN_SET(QN_ZL)},
    {"Zp", "Paragraph_Separator", QN_SET(QN_ZP)}, {"Cc", "Control", QN_SET(QN_CC)}, {"Cf", "Format", QN_SET(QN_CF)},
    {"Co", "Private_Use", QN_SET(QN_CO)}, {"Cs", "Surrogate", QN_SET(QN_CS)}, {"Cn", "Unassigned", QN_SET(QN_CN)},
};

static int is(const char *p, size_t n, const char *name) { return strlen(name) == n && memcmp(p, name, n) == 0; }

/* By blocks of 128, as the tables are: whole runs of blocks are alike (unassigned, CJK, private use) and asked once. */
static void add_categories(struct qn_set *s, unsigned set, unsigned flag, int inverted) {
    enum { BLOCK = 128 };
    int alike = -1; /* what all characters of block `last` answer, or -1 */
    unsigned last = 0;
    for (uint32_t c = 0; c <= QN_RUNE_MAX; c += BLOCK) {
        if (alike < 0 || qn_uni_index[c / BLOCK] != last) {
            int n_in = 0;
            for (uint32_t k = c; k < c + BLOCK; k++) {
                int in = flag ? (qn_uni(k) & flag) != 0 : qn_uni_in(qn_uni(k), set);
                if (in != inverted) qn_set_add(s, k, k);
                n_in += in;
            }
            last = qn_uni_index[c / BLOCK];
            alike = n_in == 0 ? 0 : n_in == BLOCK ? 1 : -1;
        } else if (alike != inverted) {
            qn_set_add(s, c, c + BLOCK - 1);
        }
    }
}

int qn_set_add_property(struct qn_set *s, const char *p, size_t n, int inverted) {
    static const char *const prefix[] = {"gc=", "General_Category="};
    static const struct qn_codes all[] = {{0, QN_RUNE_MAX}}, ascii[] = {{0, 127}};
    if (is(p, n, "Any")) return add_ranges(s, all, 1, inverted), 1;
    if (is(p, n, "ASCII")) return add_ranges(s, ascii, 1, inverted), 1;
    if (is(p, n, "White_Space") || is(p, n, "space")) return add_categories(s, 0, QN_UNI_SPACE, inverted), 1;
    for (size_t i = 0; i < N(prefix); i++)
        if (n > strlen(prefix[i]) && memcmp(p, prefix[i], strlen(prefix[i])) == 0) n -= strlen(prefix[i]), p += strlen(prefix[i]);
    for (size_t i = 0; i < N(categories); i++)
        if (is(p, n, categories[i].brief) || is(p, n, categories[i].name)) return add_categories(s, categories[i].set, 0, inverted), 1;
    return 0;
}

int qn_set_add_posix(struct qn_set *s, const char *p, size_t n, int inverted) {
    static const struct {
        const char *name;
        struct qn_codes v[4];
        size_t n;
    } names[] = {
        {"alpha", {{'A', 'Z'}, {'a', 'z'}}, 2}, {"digit", {{'0', '9'}}, 1}, {"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}, 3},
        {"upper", {{'A', 'Z'}}, 1}, {"lower", {{'a', 'z'}}, 1}, {"space", {{9, 13}, {32, 32}}, 2}, {"blank", {{9, 9}, {32, 32}}, 2},
        {"punct", {{33, 47}, {58, 64}, {91, 96}, {123, 126}}, 4}, {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}, 3},
        {"word", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}, 4}, {"cntrl", {{0, 31}, {127, 127}}, 2}, {"graph", {{33, 126}}, 1},
        {"print", {{32, 126}}, 1}, {"ascii", {{0, 127}}, 1},
    };
    for (size_t i = 0; i < N(names); i++)
        if (is(p, n, names[i].name)) return add_ranges(s, names[i].v, names[i].n, inverted), 1;
    return 0;
}
