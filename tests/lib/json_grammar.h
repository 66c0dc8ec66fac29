/* Grammars of JSON built by hand, for tests and measurements of the constraint engine itself (JSON Schema's front end is in api/):
 * any JSON value, and "whatever looks like this document". Header only. */
#ifndef QN_JSON_GRAMMAR_H
#define QN_JSON_GRAMMAR_H

#include <jansson.h>
#include <string.h>

#include "engine/grammar/grammar.h"

#define JG __attribute__((unused)) static

JG qn_gnode jg_lit(struct qn_grammar *g, const char *s) { return qn_g_bytes(g, s, strlen(s)); }

JG qn_gnode jg_set(struct qn_grammar *g, const char *chars) {
    uint64_t set[4] = {0};
    for (; *chars; chars++) set[(unsigned char)*chars >> 6] |= 1ull << (*chars & 63);
    return qn_g_byte_set(g, set);
}

/* Up to two blanks or line ends. */
JG qn_gnode jg_ws(struct qn_grammar *g) { return qn_g_repeat(g, jg_set(g, " \n\t"), 0, 2); }

/* One character of a string as JSON spells it. */
JG qn_gnode jg_char(struct qn_grammar *g) {
    const struct qn_codes plain[] = {{0x20, '!'}, {'#', '['}, {']', 0x10FFFF}};
    qn_gnode hex = jg_set(g, "0123456789abcdefABCDEF");
    qn_gnode escape = qn_g_cat(g, jg_lit(g, "\\"), qn_g_alt(g, jg_set(g, "\"\\/bfnrt"), qn_g_cat(g, jg_lit(g, "u"), qn_g_repeat(g, hex, 4, 4))));
    return qn_g_alt(g, qn_g_chars(g, plain, 3), escape);
}

JG qn_gnode jg_string(struct qn_grammar *g, uint32_t min, uint32_t max) {
    return qn_g_cat(g, jg_lit(g, "\""), qn_g_cat(g, qn_g_repeat(g, jg_char(g), min, max), jg_lit(g, "\"")));
}

JG qn_gnode jg_number(struct qn_grammar *g) {
    qn_gnode digits = qn_g_repeat(g, jg_set(g, "0123456789"), 1, QN_G_INF);
    qn_gnode whole = qn_g_alt(g, jg_lit(g, "0"), qn_g_cat(g, jg_set(g, "123456789"), qn_g_repeat(g, jg_set(g, "0123456789"), 0, QN_G_INF)));
    qn_gnode part = qn_g_repeat(g, qn_g_cat(g, jg_lit(g, "."), digits), 0, 1);
    qn_gnode power = qn_g_repeat(g, qn_g_cat(g, jg_set(g, "eE"), qn_g_cat(g, qn_g_repeat(g, jg_set(g, "+-"), 0, 1), digits)), 0, 1);
    return qn_g_cat_n(g, (qn_gnode[]){qn_g_repeat(g, jg_lit(g, "-"), 0, 1), whole, part, power}, 4);
}

/* open ( item ( , item )* )? close, blanks between. */
JG qn_gnode jg_list(struct qn_grammar *g, const char *open, qn_gnode item, const char *close, uint32_t max) {
    qn_gnode ws = jg_ws(g), one = qn_g_cat(g, item, ws);
    qn_gnode more = qn_g_repeat(g, qn_g_cat_n(g, (qn_gnode[]){jg_lit(g, ","), ws, one}, 3), 0, max == QN_G_INF ? max : max - 1);
    qn_gnode all = qn_g_repeat(g, qn_g_cat(g, one, more), 0, 1);
    return qn_g_cat_n(g, (qn_gnode[]){jg_lit(g, open), ws, all, jg_lit(g, close)}, 4);
}

/* Any JSON value; a rule. */
JG qn_gnode jg_value(struct qn_grammar *g) {
    qn_gnode value = qn_g_rule(g), ws = jg_ws(g);
    qn_gnode member = qn_g_cat_n(g, (qn_gnode[]){jg_string(g, 0, QN_G_INF), ws, jg_lit(g, ":"), ws, value}, 5);
    qn_gnode v[] = {jg_string(g, 0, QN_G_INF), jg_number(g), jg_lit(g, "true"), jg_lit(g, "false"), jg_lit(g, "null"),
                    jg_list(g, "[", value, "]", QN_G_INF), jg_list(g, "{", member, "}", QN_G_INF)};
    qn_g_rule_set(g, value, qn_g_alt_n(g, v, sizeof v / sizeof *v));
    return value;
}

/* What a schema of this document might allow: its members in their order and each optional, strings of any or of bounded
 * length, arrays of what they hold. `bounded`: every string and array has a maximum. */
JG qn_gnode jg_like(struct qn_grammar *g, const json_t *j, int bounded) {
    qn_gnode ws = jg_ws(g), rest = QN_G_EMPTY, x;
    switch (json_typeof(j)) {
    case JSON_STRING: return jg_string(g, 0, bounded ? 2 * (uint32_t)json_string_length(j) + 10 : QN_G_INF);
    case JSON_INTEGER:
    case JSON_REAL: return jg_number(g);
    case JSON_TRUE:
    case JSON_FALSE: return qn_g_alt(g, jg_lit(g, "true"), jg_lit(g, "false"));
    case JSON_NULL: return jg_lit(g, "null");
    case JSON_ARRAY:
        x = QN_G_NONE;
        for (size_t i = 0; i < json_array_size(j); i++) x = qn_g_alt(g, x, jg_like(g, json_array_get(j, i), bounded));
        return jg_list(g, "[", x ? x : jg_value(g), "]", bounded ? (uint32_t)json_array_size(j) + 5 : QN_G_INF);
    default: break;
    }
    const char *keys[256];
    const json_t *vals[256];
    size_t n = 0;
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)j, k, v) {
        if (n == 256) break;
        keys[n] = k;
        vals[n++] = v;
    }
    qn_gnode first = QN_G_EMPTY; /* the members from i on: when none was written before, and when some were */
    while (n-- > 0) {
        char name[300];
        json_t *s = json_string(keys[n]);
        size_t len = json_dumpb(s, name, sizeof name, JSON_ENCODE_ANY);
        json_decref(s);
        qn_gnode member = qn_g_cat_n(g, (qn_gnode[]){qn_g_bytes(g, name, len < sizeof name ? len : sizeof name), ws, jg_lit(g, ":"), ws, jg_like(g, vals[n], bounded), ws}, 6);
        qn_gnode then = qn_g_cat(g, member, rest);
        first = qn_g_alt(g, then, first);
        rest = qn_g_alt(g, qn_g_cat_n(g, (qn_gnode[]){jg_lit(g, ","), ws, then}, 3), rest);
    }
    return qn_g_cat_n(g, (qn_gnode[]){jg_lit(g, "{"), ws, first, jg_lit(g, "}")}, 4);
}

#endif
