/* Inside of the validator (schema_check.c, schema_check_ref.c); others see schema.h. */
#ifndef QN_SCHEMA_CHECK_H
#define QN_SCHEMA_CHECK_H

#include <jansson.h>

#include "engine/base/arena.h"
#include "engine/grammar/constraint.h"

struct qn_check_resource { const char *uri; const json_t *root; }; /* uri: absolute where one was given, without a fragment */
struct qn_check_anchor { int res; const char *name; const json_t *schema; int dynamic; };
struct qn_check_pattern { const char *text; struct qn_constraint *c; }; /* c NULL: not one of ours */

/* The resources that were entered on the way to here, the innermost first: $dynamicRef looks through them. */
struct qn_check_scope { int res; const struct qn_check_scope *outer; };

struct qn_check {
    const json_t *root;
    int old, draft_4;       /* old: before 2019-09, where $ref has no siblings and an $id may be an anchor */
    int marks_contained;    /* 2020-12: `contains` evaluates items */
    int tracks;             /* somewhere in the document: unevaluated… */
    struct qn_arena mem;
    struct qn_check_resource *res;
    struct qn_check_anchor *anchors;
    struct qn_check_pattern *patterns;
    int n_res, n_anchors, n_patterns, cap_res, cap_anchors, cap_patterns;
    long fuel;
    int undecided;          /* fuel, depth, memory or a reference that leads out: the answer is no more a no */
    char *why;
    size_t why_n;
};

/* Collects identifiers and anchors. */
void qn_check_index(struct qn_check *c);
/* The resource that begins at this schema, or `res`. */
int qn_check_enter(const struct qn_check *c, const json_t *schema, int res);
/* What the reference keyword `kw` of a schema in resource `scope->res` names, and its resource. NULL: nothing here. */
const json_t *qn_check_deref(struct qn_check *c, const char *kw, const char *ref, const struct qn_check_scope *scope, int *res);
/* Room for one more in a list of the arena; NULL: no memory. */
void *qn_check_grow(struct qn_check *c, void *v, int n, int *cap, size_t size);

#endif
