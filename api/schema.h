/* JSON Schema: to a grammar that writes only valid instances (schema.c and its parts), and an independent check of a finished
 * instance (schema_check.c), so that one is the other's witness.
 *
 * Drafts 4 to 2020-12 as models meet them. A keyword that cannot be kept is a refusal that names its JSON path under `path`
 * (`response_format.json_schema.schema.properties.a.contains`); a constraint is never dropped. Members come in the order of the
 * schema's properties; whitespace between tokens is bounded. Any thread. */
#ifndef QN_SCHEMA_H
#define QN_SCHEMA_H

#include <jansson.h>

#include "api/error.h"
#include "engine/grammar/grammar.h"

struct qn_schema_opts {
    int no_whitespace;        /* 1: none at all between tokens */
    const char *whitespace;   /* a regular expression for what may stand between tokens, or NULL: the bounded default */
    size_t n_whitespace;
    const char *whitespace_path; /* of the member that says so */
    int strict;               /* OpenAI's strict: additionalProperties absent means false */
};

/* The node of one schema, a JSON value without anything around it. QN_E_RANGE with r filled (400). */
int qn_schema_node(struct qn_grammar *g, const json_t *schema, const struct qn_schema_opts *o, const char *path, qn_gnode *out,
                   struct qn_refusal *r);
/* Any JSON object (json_object mode), of a bounded depth. */
qn_gnode qn_schema_object(struct qn_grammar *g, const struct qn_schema_opts *o);
/* 1: valid. 0: `why` (of size n) says where and which keyword. Knows every keyword that qn_schema_node accepts. */
int qn_schema_check(const json_t *schema, const json_t *value, char *why, size_t n);

#endif
