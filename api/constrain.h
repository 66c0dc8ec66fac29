/* All that a request demands of its answer as one constraint (the form of form.h, tool calls, thinking before them), and the cache of
 * compiled ones: by content, bounded in number and bytes, shared between requests.
 *
 * Compiling may take a quarter of a second, so it runs where prepare() runs off the loop (qn_answer_form_likely decides early). A
 * constraint that is not in the cache is compiled by whoever asks; two that ask at once both compile, and one result stays. Any thread. */
#ifndef QN_CONSTRAIN_H
#define QN_CONSTRAIN_H

#include "api/form.h"

struct qn_exchange;
struct qn_constraints;

int qn_constraints_open(struct qn_constraints **out);
void qn_constraints_close(struct qn_constraints *c);

struct qn_constraints_counts {
    uint64_t compiled, found, refused;
    int kept;
    size_t bytes; /* of those kept, as they are now */
};
void qn_constraints_counts(struct qn_constraints *c, struct qn_constraints_counts *out);

/* Reads x's form into x->form, then the constraint of x into *out (a reference of the caller's; NULL: none is needed). After tools and
 * thinking were read and the prompt was made. QN_E_RANGE with x->refusal. */
int qn_constrain(struct qn_exchange *x, struct qn_constraint **out);

#endif
