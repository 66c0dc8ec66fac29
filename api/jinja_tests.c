/* Jinja's tests (`x is …`), also by name for select and reject. An unknown one fails when it is reached. */
#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_calls.h"
#include "api/jinja_ops.h"
#include "api/jinja_show.h"
#include "api/jinja_str.h"

/* clang-format off */
enum {
    IS_DEFINED, IS_UNDEFINED, IS_NONE, IS_BOOLEAN, IS_FALSE, IS_TRUE, IS_INTEGER, IS_FLOAT, IS_NUMBER, IS_STRING, IS_MAPPING,
    IS_SEQUENCE,
    IS_ITERABLE, IS_CALLABLE, IS_ESCAPED, IS_LOWER, IS_UPPER, IS_ODD, IS_EVEN, IS_FILTER, IS_TEST,
    IS_DIVISIBLEBY, IS_SAMEAS, IS_IN, IS_EQ, IS_NE, IS_GT, IS_GE, IS_LT, IS_LE
};
static const struct { const char *name; uint8_t op, args; } tests[] = {
    {"defined", IS_DEFINED, 0}, {"undefined", IS_UNDEFINED, 0}, {"none", IS_NONE, 0}, {"boolean", IS_BOOLEAN, 0},
    {"false", IS_FALSE, 0},
    {"true", IS_TRUE, 0}, {"integer", IS_INTEGER, 0}, {"float", IS_FLOAT, 0}, {"number", IS_NUMBER, 0},
    {"string", IS_STRING, 0},
    {"mapping", IS_MAPPING, 0}, {"sequence", IS_SEQUENCE, 0}, {"iterable", IS_ITERABLE, 0}, {"callable", IS_CALLABLE, 0},
    {"escaped", IS_ESCAPED, 0}, {"lower", IS_LOWER, 0}, {"upper", IS_UPPER, 0}, {"odd", IS_ODD, 0}, {"even", IS_EVEN, 0},
    {"filter", IS_FILTER, 0}, {"test", IS_TEST, 0}, {"divisibleby", IS_DIVISIBLEBY, 1}, {"sameas", IS_SAMEAS, 1},
    {"in", IS_IN, 1},
    {"==", IS_EQ, 1}, {"eq", IS_EQ, 1}, {"equalto", IS_EQ, 1}, {"!=", IS_NE, 1}, {"ne", IS_NE, 1}, {">", IS_GT, 1},
    {"gt", IS_GT, 1},
    {"greaterthan", IS_GT, 1}, {"ge", IS_GE, 1}, {">=", IS_GE, 1}, {"<", IS_LT, 1}, {"lt", IS_LT, 1}, {"lessthan", IS_LT, 1},
    {"<=", IS_LE, 1},
    {"le", IS_LE, 1},
};
/* clang-format on */

int qn_jcall_test(const char *name) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!strcmp(tests[i].name, name)) return (int)i;
    return -1;
}

static int rest_is(struct qn_jx *x, struct qn_jv v, struct qn_jv by, int want) {
    struct qn_jv r = qn_jv_binary(x, TOK_MOD, v, by);
    return qn_jv_is_num(r) && qn_jv_as_num(r) == want;
}

static int same(struct qn_jx *x, struct qn_jv a, struct qn_jv b) {
    if (a.t != b.t) return 0;
    if (a.t == J_STR) return a.s == b.s || (a.s->p == b.s->p && a.s->n == b.s->n);
    if (a.t == J_LIST || a.t == J_TUPLE || a.t == J_DICT || a.t == J_NS) return a.d == b.d;
    return qn_jv_eq(x, a, b);
}

static int callable(struct qn_jv v) {
    return v.t == J_MACRO || v.t == J_FUNC || v.t == J_METHOD || v.t == J_LOOP || v.t == J_JOINER || v.t == J_UNDEF;
}

int qn_jcall_run_test(struct qn_jx *x, int id, const char *name, struct qn_jv v, const struct qn_jargv *a) {
    if (id < 0) qn_jx_fail(x, QN_E_UNSUPPORTED, "No test named '%.60s'.", name);
    if (a->n != tests[id].args || a->n_kw) qn_jx_fail(x, QN_E_DATA, "test '%s' takes %u argument(s)", name, tests[id].args);
    struct qn_jv o = a->n ? a->pos[0] : qn_jv_none();
    int c;
    switch (tests[id].op) {
    case IS_DEFINED: return v.t != J_UNDEF;
    case IS_UNDEFINED: return v.t == J_UNDEF;
    case IS_NONE: return v.t == J_NONE;
    case IS_BOOLEAN: return v.t == J_BOOL;
    case IS_FALSE: return v.t == J_BOOL && !v.b;
    case IS_TRUE: return v.t == J_BOOL && v.b;
    case IS_INTEGER: return v.t == J_INT;
    case IS_FLOAT: return v.t == J_FLOAT;
    case IS_NUMBER: return qn_jv_is_num(v);
    case IS_STRING: return v.t == J_STR;
    case IS_MAPPING: return v.t == J_DICT;
    case IS_SEQUENCE: return v.t == J_UNDEF || v.t == J_STR || v.t == J_LIST || v.t == J_TUPLE || v.t == J_DICT || v.t == J_RANGE;
    case IS_ITERABLE: return qn_jv_iterable(v);
    case IS_CALLABLE: return callable(v);
    case IS_ESCAPED: return v.t == J_STR && v.s->markup;
    case IS_LOWER: case IS_UPPER: return qn_jstr_has_case(x, qn_jv_to_str(x, v), tests[id].op == IS_UPPER);
    case IS_ODD: return rest_is(x, v, qn_jv_int(2), 1);
    case IS_EVEN: return rest_is(x, v, qn_jv_int(2), 0);
    case IS_FILTER: return v.t == J_STR && qn_jcall_filter(qn_jstr_c(x, v.s)) >= 0;
    case IS_TEST: return v.t == J_STR && qn_jcall_test(qn_jstr_c(x, v.s)) >= 0;
    case IS_DIVISIBLEBY: return rest_is(x, v, o, 0);
    case IS_SAMEAS: return same(x, v, o);
    case IS_IN: return qn_jv_in(x, v, o);
    case IS_EQ: return qn_jv_eq(x, v, o);
    case IS_NE: return !qn_jv_eq(x, v, o);
    case IS_GT: return qn_jv_cmp(x, v, o, ">") == 1;
    case IS_GE: c = qn_jv_cmp(x, v, o, ">="); return c == 1 || c == 0;
    case IS_LT: return qn_jv_cmp(x, v, o, "<") == -1;
    default: c = qn_jv_cmp(x, v, o, "<="); return c == -1 || c == 0;
    }
}
