/* From what a request says about the form of its answer to one constraint: response_format, the peers' spellings
 * (structured_outputs, guided_*, json_schema, grammar, regex, ebnf, choice), and the tools.
 *
 * Reading is cheap; compiling is not, so it runs where prepare() runs off the loop, and compiled constraints are kept by content
 * (a digest of everything that goes in), a bounded number of them, shared between requests. Any thread. */
#ifndef QN_CONSTRAIN_H
#define QN_CONSTRAIN_H

#include "api/exchange.h"
#include "api/schema.h"

enum qn_form { QN_FORM_FREE, QN_FORM_OBJECT, QN_FORM_SCHEMA, QN_FORM_REGEX, QN_FORM_CHOICE, QN_FORM_GBNF, QN_FORM_LARK };

struct qn_answer_form {     /* of the answer's text, thinking and calls aside */
    enum qn_form form;
    const json_t *value;    /* schema, or array of choices; borrowed from the body */
    struct qn_chars text;   /* regular expression or grammar */
    const char *path;       /* of the member that said so, for messages */
    struct qn_schema_opts opts;
};

struct qn_constraints;      /* the cache; one per api */
int qn_constraints_open(struct qn_constraints **out, const struct qn_token_trie *trie);
void qn_constraints_close(struct qn_constraints *c);

/* Which form the members ask for; two that contradict are a 400. */
int qn_answer_form_read(struct qn_exchange *x, struct qn_answer_form *f);
/* The node of that form. */
int qn_answer_form_node(struct qn_grammar *g, const struct qn_answer_form *f, qn_gnode *out, struct qn_refusal *r);
/* All of the request's constraints as one: (thinking)? then calls, or the answer, as tools and tool_choice say. *out NULL: free. */
int qn_constrain(struct qn_exchange *x, struct qn_constraint **out);
/* Again, when the answer is complete: 1 valid; 0 with `why`. */
int qn_answer_form_check(const struct qn_answer_form *f, const char *text, size_t n, char *why, size_t why_n);

#endif
