/* A compiled grammar at work: which tokens may come next.
 *
 * A STATE is one number. It stands for an interned set of what may still come (states.h), so two places in a text
 * that may go on in the same ways have the same number, with recursion too, and everything that is computed for a state
 * (the next state for a byte, the token mask) is computed once. Forking, rolling back and guessing ahead are copies of a number.
 * Masks come from a walk over a trie of the vocabulary's bytes. Control tokens match only where the grammar names them;
 * ids that end generation are allowed exactly where the grammar may end.
 *
 * Thread: any; a constraint has its own lock (many requests may share one). The trie is const after open. */
#ifndef QN_CONSTRAINT_H
#define QN_CONSTRAINT_H

#include "engine/grammar/grammar.h"
#include "engine/tokenizer.h"

struct qn_token_trie;
struct qn_constraint;

typedef uint32_t qn_cstate;
enum { QN_C_DEAD = 0 };

/* `tok` must outlive the trie. About 20 MB and 100 ms for 150,000 tokens. QN_E_NOMEM. */
int qn_token_trie_open(struct qn_token_trie **out, const struct qn_tokenizer *tok, struct qn_err *err);
void qn_token_trie_close(struct qn_token_trie *t);

/* Takes g (also on failure). One reference is the caller's. The trie must outlive it; NULL: no masks, only text (tests,
 * validation). QN_E_LIMIT (too large, or too slow to compile), QN_E_DATA (a rule without a body; a token that the vocabulary
 * does not have; nothing matches). */
int qn_constraint_new(struct qn_constraint **out, struct qn_grammar *g, qn_gnode root, const struct qn_token_trie *trie, struct qn_err *err);
struct qn_constraint *qn_constraint_ref(struct qn_constraint *c);
void qn_constraint_unref(struct qn_constraint *c);

qn_cstate qn_constraint_start(const struct qn_constraint *c);
/* The state after more text, or QN_C_DEAD. Running out of memory or work also gives DEAD, and _failed tells. */
qn_cstate qn_constraint_text(struct qn_constraint *c, qn_cstate s, const char *p, size_t n);
/* The same for a token; one that ends generation leaves an accepting state as it is. */
qn_cstate qn_constraint_token(struct qn_constraint *c, qn_cstate s, uint32_t id);
/* 1: what was read so far is a whole text of the grammar. */
int qn_constraint_accepts(struct qn_constraint *c, qn_cstate s);
/* 1: and nothing may follow. */
int qn_constraint_over(struct qn_constraint *c, qn_cstate s);
/* Fills mask [(n_vocab + 31) / 32], bit i % 32 of word i / 32: token i may come next. Returns how many may, 0 in a DEAD state. */
uint32_t qn_constraint_mask(struct qn_constraint *c, qn_cstate s, uint32_t *mask);
/* The bytes that must come next whatever is chosen: writes at most `max`, returns how many. Ends before a choice, before a place
 * where the text may end, and before a special token. */
size_t qn_constraint_forced(struct qn_constraint *c, qn_cstate s, char *out, size_t max);
/* The special token that must come next, or -1. */
int64_t qn_constraint_forced_token(struct qn_constraint *c, qn_cstate s);
/* 0, or the QN_E_LIMIT that made all states DEAD: for want of memory, or because a single state or mask was too much work. Who keeps
 * constraints for later requests should drop one that failed. */
int qn_constraint_failed(struct qn_constraint *c);
/* 1: more than half of its memory is states, which stay. Good for those who have it; others had better compile it anew. */
int qn_constraint_worn(struct qn_constraint *c);

struct qn_constraint_counts {
    uint64_t states, masks_made, masks_found, bytes; /* bytes: memory held */
    int64_t mask_ns, mask_ns_max, compile_ns;
};
void qn_constraint_counts(struct qn_constraint *c, struct qn_constraint_counts *out);

#endif
