/* Drafts for speculation by looking the text up in itself: where the last few tokens occurred before, what followed
 * then is likely to follow now (prompt lookup decoding, Saxena 2023; LLMA, arXiv:2304.04487).
 *
 * A table from the hash of the last N tokens to the place after them, for three lengths N, kept up to date token by token
 * over a history of its own: a prior text (a prediction that the client sent) and then the sequence. Three table writes a
 * token, three lookups a step; allocates once (50 to 100 bytes a token). Owned by one sequence; thread: engine, but for new and
 * free (any). */
#ifndef QN_DRAFT_H
#define QN_DRAFT_H

#include <stddef.h>
#include <stdint.h>

enum { QN_DRAFT_MOST = 16 };

struct qn_draft;

/* For a sequence of at most n_max tokens; prior[n_prior] (may be NULL) is copied. NULL: no memory. */
struct qn_draft *qn_draft_new(size_t n_max, const uint32_t *prior, size_t n_prior);
void qn_draft_free(struct qn_draft *d);

/* Takes in what is new of the sequence tokens[0..n); what it saw before must be a prefix of that. */
void qn_draft_feed(struct qn_draft *d, const int32_t *tokens, size_t n);

/* Up to most (<= QN_DRAFT_MOST) tokens that may come next; returns how many. Remembers where it read them, so that the next guess can
 * go on from there though a token in between came otherwise. */
int qn_draft_guess(struct qn_draft *d, int32_t *out, int most);

#endif
