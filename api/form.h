/* The form that a request wants its answer to have: response_format, and the peers' spellings of the same wish (structured_outputs,
 * guided_*, json_schema, grammar, regex, ebnf, structural_tag). Read (form.c), turned into a grammar's node and checked again in the end
 * (form_node.c). Thinking and tool calls are no part of it. Any thread. */
#ifndef QN_FORM_H
#define QN_FORM_H

#include "api/request.h"
#include "api/schema.h"

enum qn_form { QN_FORM_FREE, QN_FORM_OBJECT, QN_FORM_SCHEMA, QN_FORM_REGEX, QN_FORM_CHOICE, QN_FORM_GBNF, QN_FORM_LARK, QN_FORM_TAGS };

enum { QN_CHOICES_SAID_MAX = 1000 };

struct qn_answer_form {
    enum qn_form form;
    const json_t *value;    /* schema, choices, or structural tag; of the body, or of `own` */
    json_t *own;            /* a schema that came as a string of JSON */
    struct qn_chars text;   /* regular expression or grammar; of the body */
    const char *path;       /* of the member that said so; static */
    struct qn_schema_opts opts;
};

/* Which form the members ask for; two that do are a 400 that names both. QN_E_RANGE with r filled. */
int qn_answer_form_read(const struct qn_params *p, struct qn_answer_form *f, struct qn_refusal *r);
void qn_answer_form_done(struct qn_answer_form *f);
/* 1: this body may ask for a form, so that reading it may take long. A quick look at its bytes, never a wrong 0. */
int qn_answer_form_likely(const char *body, size_t n);

/* 400 when the object at `path` has a member that is not among the names (NULL ends them) and not null. */
int qn_form_only(const json_t *o, const char *path, const char *const *names, struct qn_refusal *r);

/* The node of a form that is not FREE. QN_E_RANGE with r filled (400). */
int qn_answer_form_node(struct qn_grammar *g, const struct qn_answer_form *f, qn_gnode *out, struct qn_refusal *r);
/* Again, apart from the grammar, when the answer is complete: 1 valid; 0 with `why`. Regular expressions and grammars have no other
 * reader than the one that wrote them: those pass. */
int qn_answer_form_check(const struct qn_answer_form *f, const char *text, size_t n, char *why, size_t why_n);

#endif
