/* Inside of the schema compiler (schema.c, schema_*.c); others see schema.h.
 *
 * The unit of work is a CONJUNCTION: a set of schemas that one value must satisfy together. All that JSON Schema combines
 * (allOf, $ref with siblings, a name that `properties` and `patternProperties` both speak of, recursion) is making such sets,
 * and a set is compiled once. A conjunction is a union of CASES: lists of atoms in which every anyOf, oneOf, if and enum of
 * objects has been decided. A case knows no alternatives, so each type's language is one intersection.
 * `not` is rewriting: a negated schema is a positive one that we write (schema_not.c). Such schemas of ours may hold the
 * keywords of the list below, whose names no request can use (they begin with \x01). */
#ifndef QN_SCHEMA_IMPL_H
#define QN_SCHEMA_IMPL_H

#include "api/schema.h"
#include "engine/base/arena.h"

enum { /* what a value may be: bits */
    QN_T_NULL = 1, QN_T_FALSE = 2, QN_T_TRUE = 4, QN_T_OBJECT = 8, QN_T_ARRAY = 16, QN_T_STRING = 32,
    QN_T_INT = 64, QN_T_FRACTION = 128 /* a number that is not an integer */,
    QN_T_BOOL = QN_T_FALSE | QN_T_TRUE, QN_T_NUMBER = QN_T_INT | QN_T_FRACTION, QN_T_ALL = 255,
    QN_T_SCALAR = QN_T_ALL & ~(QN_T_OBJECT | QN_T_ARRAY),
};

enum { QN_MAP_RESOURCE = 1, QN_MAP_NOT, QN_MAP_PATTERN, QN_MAP_DECOMPOSED, QN_MAP_CHOICE = 16 }; /* what qn_s_remember keeps */

#define QN_KW_FRACTION "\x01" "fraction"          /* a name of a type */
#define QN_KW_NOT_PATTERN "\x01" "notPattern"
#define QN_KW_NOT_MULTIPLE "\x01" "notMultipleOf"
#define QN_KW_NOT_ENUM "\x01" "notEnum"           /* scalars */
#define QN_KW_SOME_ITEM "\x01" "someItem"         /* {from, schema}: an item at `from` or later satisfies it */
#define QN_KW_SOME_MEMBER "\x01" "someMember"     /* {of, key?, extra?, schema}: a member whose key matches the pattern `key`, or is
                                                     an additional one of schema `of`, or any; whose value satisfies `schema` */
#define QN_KW_BAD_NAME "\x01" "badName"           /* a member whose name the schema does not allow */

enum { QN_DRAFT_3 = 3, QN_DRAFT_4 = 4, QN_DRAFT_6 = 6, QN_DRAFT_7 = 7, QN_DRAFT_2019 = 8, QN_DRAFT_2020 = 9 };

enum { /* limits; each is a refusal */
    QN_SCHEMA_CHARS_MAX = 120000, QN_SCHEMA_DEPTH_MAX = 64, QN_SCHEMA_NAMES_MAX = 5000, QN_SCHEMA_ENUM_MAX = 1000,
    QN_SCHEMA_PATTERN_MAX = 512, QN_SCHEMA_STEPS_MAX = 200000, QN_SCHEMA_CASES_MAX = 512, QN_SCHEMA_NEST_MAX = 200,
    QN_SCHEMA_CLASSES_MAX = 64, QN_SCHEMA_ANY_DEPTH = 32,
};

struct qn_satom {
    const json_t *s; /* an object; its applicators are atoms of their own */
    int32_t from;    /* the atom that brought it in, -1: none. Always before it. */
    int32_t hidden;  /* what it and those below it look at does not count as evaluated: it came from `not`, enum or const */
};

struct qn_scase {
    struct qn_satom *v;
    uint32_t n;
    unsigned types;
};

enum { QN_S_NEW, QN_S_BUSY, QN_S_YES, QN_S_NO };

struct qn_sconj {
    const json_t **v; /* ascending, no doubles, no `true` */
    uint32_t n, n_cases;
    struct qn_scase *cases;
    uint8_t expanded, made, sat[2]; /* sat: with formats, and without */
    qn_gnode node, rule;
};

typedef int32_t qn_conj; /* index, or */
enum { QN_CONJ_NEVER = -1 };

struct qn_smap { /* (pointer, what) to a number or pointer */
    struct { const void *k; uint32_t what; uint32_t used; uintptr_t v; } *slot;
    size_t n, cap;
};

struct qn_schema {
    struct qn_grammar *g;
    const json_t *root;
    const struct qn_schema_opts *o;
    const char *path;
    struct qn_refusal *r;
    int failed; /* QN_E_RANGE once r is filled: everything returns early then */
    int draft;
    struct qn_arena mem;
    json_t *own; /* list of the schemas that we wrote */
    struct qn_smap map;
    struct qn_sconj **conj;
    uint32_t n_conj, cap_conj;
    uint32_t *conj_table;
    uint32_t conj_mask;
    struct qn_sres { char *uri; const json_t *root; } *res; /* schemas with an identifier of their own; [0] is the document */
    uint32_t n_res, cap_res;
    struct qn_sanchor { uint32_t res; const char *name; const json_t *s; int dynamic; } *anchors;
    uint32_t n_anchors, cap_anchors;
    uint32_t names, steps, nest, negated; /* negated: schemas whose negation was written */
    int no_formats; /* qn_s_sat asks what holds for those to whom a format is an annotation */
    int recursive_anchor, unevaluated; /* somewhere: $recursiveAnchor is true; unevaluatedItems or …Properties */
    qn_gnode ws, chr, colon, any[QN_SCHEMA_DEPTH_MAX + 1];
};

/* schema.c */
/* Refuses keyword `kw` (NULL: the schema itself) of `s`, which is found in the document for its path. Returns QN_E_RANGE. */
__attribute__((format(printf, 5, 6))) int qn_s_refuse(struct qn_schema *c, const json_t *s, const char *kw, const char *code,
                                                      const char *fmt, ...);
int qn_s_tick(struct qn_schema *c);
/* The conjunction of these schemas; `false` among them: NEVER. */
qn_conj qn_s_conj(struct qn_schema *c, const json_t **v, size_t n);
/* The values of a conjunction. NONE: there are none, or failed. */
qn_gnode qn_s_node(struct qn_schema *c, qn_conj k);
/* 1 unless it is certain that no value satisfies it. */
int qn_s_sat(struct qn_schema *c, qn_conj k);
qn_gnode qn_s_token(struct qn_schema *c, const char *text); /* and what may stand after it */
qn_gnode qn_s_any(struct qn_schema *c, int depth);
/* NONE in place of an expression with and/not that matches nothing. */
qn_gnode qn_s_settle(struct qn_schema *c, qn_gnode n);
/* Memory of the compile, zeroed. NULL: failed, and c->failed says so. */
void *qn_s_alloc(struct qn_schema *c, size_t n);
/* Room in an array of that memory; likewise. */
void *qn_s_grow(struct qn_schema *c, void *v, uint32_t n, uint32_t *cap, size_t size);
int qn_s_recall(const struct qn_schema *c, const void *k, uint32_t what, uintptr_t *v);
int qn_s_remember(struct qn_schema *c, const void *k, uint32_t what, uintptr_t v);
json_t *qn_s_own(struct qn_schema *c, json_t *j); /* takes j; NULL: failed */
/* A keyword's value, NULL when absent. */
static inline const json_t *qn_s_kw(const json_t *s, const char *name) { return json_object_get(s, name); }
#define QN_S_FAILED(c) ((c)->failed || qn_grammar_error((c)->g) < 0)

/* schema_ref.c */
/* Walks the document once: limits, kinds of all keywords, identifiers, what we do not have. */
int qn_s_index(struct qn_schema *c);
/* What $ref, $dynamicRef or $recursiveRef (kw) of s names. NULL: refused. */
const json_t *qn_s_deref(struct qn_schema *c, const json_t *s, const char *kw);
/* $ref is alone in force: drafts before 2019-09. */
int qn_s_ref_only(const struct qn_schema *c, const json_t *s);
/* An atom's schema for its assertions; NULL where only its reference is in force. */
static inline const json_t *qn_s_atom(const struct qn_schema *c, const struct qn_scase *k, uint32_t i) {
    return qn_s_ref_only(c, k->v[i].s) ? NULL : k->v[i].s;
}

/* schema_merge.c */
int qn_s_expand(struct qn_schema *c, struct qn_sconj *k);
unsigned qn_s_types_of(const json_t *s); /* by type, nullable, enum and const */
unsigned qn_s_type_of_value(const json_t *v);
const char *qn_s_integral(double x, char buf[32]); /* its digits when it is an integer that fits int64, else NULL */
int qn_s_equal(const json_t *a, const json_t *b);  /* as JSON values: 1 is 1.0 */

/* schema_not.c: schemas that we write. NULL: refused. */
const json_t *qn_s_not(struct qn_schema *c, const json_t *s);
/* A list for anyOf that says what kw of s says. */
const json_t *qn_s_choice(struct qn_schema *c, const json_t *s, const char *kw);

/* 1: atom i came in through atom `top`, in a way that counts for unevaluatedProperties and unevaluatedItems of that one. */
int qn_s_evaluates(const struct qn_scase *k, uint32_t i, uint32_t top);

/* schema_string.c */
qn_gnode qn_s_code(void *user, struct qn_grammar *g, const struct qn_codes *v, size_t n); /* characters as a JSON string has them */
qn_gnode qn_s_escaped(struct qn_schema *c, const char *p, size_t n); /* this text, likewise */
qn_gnode qn_s_pattern(struct qn_schema *c, const json_t *s, const char *kw, const char *p, size_t n);
qn_gnode qn_s_string(struct qn_schema *c, const struct qn_scase *k); /* without the quotes */
qn_gnode qn_s_strings(struct qn_schema *c, qn_conj k);               /* all strings of a conjunction, without the quotes */
qn_gnode qn_s_value(struct qn_schema *c, const json_t *v);               /* a string or number of an enum, without quotes */
int qn_s_listed(struct qn_schema *c, const struct qn_scase *k, unsigned types, qn_gnode *out); /* 0: no enum, no const */
/* schema_format.c: the regular expression of a format and the most characters that it may have (0: any; `max` may be NULL). NULL: not checked. */
const char *qn_s_format(const char *name, size_t n, uint32_t *max);

/* schema_number.c */
qn_gnode qn_s_number(struct qn_schema *c, const struct qn_scase *k);
/* schema_object.c */
qn_gnode qn_s_object(struct qn_schema *c, const struct qn_scase *k);
int qn_s_object_sat(struct qn_schema *c, const struct qn_scase *k);
/* schema_array.c */
qn_gnode qn_s_array(struct qn_schema *c, const struct qn_scase *k);
int qn_s_array_sat(struct qn_schema *c, const struct qn_scase *k);

#endif
