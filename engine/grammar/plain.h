/* States and plain characters: how many may follow, whichever they are. For mask.c; the judgement of expressions is in plain_node.c. */
#ifndef QN_GRAMMAR_PLAIN_H
#define QN_GRAMMAR_PLAIN_H

#include "engine/grammar/states.h"

enum {
    QN_PLAIN_MAX = 32,                  /* characters of a token that counts as plain */
    QN_PLAIN_DEPENDS = QN_PLAIN_MAX + 1,
};

struct qn_leads { /* a set of characters by their first byte: ASCII, and 0xC0 to 0xFF, of which all that begin with it are meant */
    uint64_t set[3];
};
static inline int qn_leads_slot(unsigned byte) { return (int)(byte < 128 ? byte : byte - 64); }
static inline int qn_leads_within(const struct qn_leads *a, const struct qn_leads *b) {
    return !(a->set[0] & ~b->set[0]) && !(a->set[1] & ~b->set[1]) && !(a->set[2] & ~b->set[2]);
}
static inline int qn_leads_has(const struct qn_leads *a, unsigned byte) {
    return (int)(a->set[qn_leads_slot(byte) >> 6] >> (qn_leads_slot(byte) & 63) & 1);
}
static inline void qn_leads_put(struct qn_leads *a, unsigned byte) { a->set[qn_leads_slot(byte) >> 6] |= 1ull << (qn_leads_slot(byte) & 63); }

struct qn_trie_below { /* what lies under a node of `all`, itself included */
    uint32_t plain;  /* plain tokens before it in order: its own are plain_order[below[i].plain .. below[skip].plain) */
    uint32_t mixed;  /* the node of the same bytes in `mixed`, or QN_TRIE_NO_NODE */
    uint32_t height; /* bytes from its end to that of the longest plain token below */
    struct qn_leads leads; /* of the characters that begin after it in plain tokens */
};

struct qn_alike {      /* the state to which most plain characters lead, and which these are */
    struct qn_leads leads;
    uint32_t next;
    uint8_t run;       /* so many of them may come in any order, up to QN_PLAIN_MAX */
};

/* How many plain characters may follow s, whichever they are, up to QN_PLAIN_MAX; QN_PLAIN_DEPENDS: it depends on them. */
uint32_t qn_plain_run(struct qn_states *s, uint32_t state);
/* NULL on failure. Good until rows are dropped. */
const struct qn_alike *qn_plain_alike(struct qn_states *s, uint32_t state);
/* 1 when every plain token of b may come in this state. */
int qn_plain_all(struct qn_states *s, uint32_t state, const struct qn_trie_below *b);

#endif
