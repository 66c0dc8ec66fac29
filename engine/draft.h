/* Drafts for speculation by looking the text up in itself: where the last few tokens occurred before, what followed
 * then is likely to follow now (prompt lookup decoding, Saxena 2023; LLMA, arXiv:2304.04487).
 *
 * A table from the hash of the last N tokens to the place after them, for two lengths N, kept up to date token by token.
 * Costs two table writes a token and a lookup a step; allocates once. Owned by one sequence; thread: engine. */
#ifndef QN_DRAFT_H
#define QN_DRAFT_H

#include <stddef.h>
#include <stdint.h>

enum { QN_DRAFT_MOST = 16 };

struct qn_draft;

/* For a sequence of at most n_tokens_max tokens. NULL: no memory. Any thread. */
struct qn_draft *qn_draft_new(size_t n_tokens_max);
void qn_draft_free(struct qn_draft *d);

/* Brings the table up to tokens[0..n); what it saw before must be a prefix of that, unless the sequence was shortened,
 * which needs no call (entries past n are ignored). */
void qn_draft_feed(struct qn_draft *d, const int32_t *tokens, size_t n);

/* Up to n_max (<= QN_DRAFT_MOST) tokens that may follow tokens[0..n); returns how many. */
int qn_draft_guess(const struct qn_draft *d, const int32_t *tokens, size_t n, int32_t *out, int n_max);

#endif
