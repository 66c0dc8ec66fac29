/* States and plain characters: how many may follow, whichever they are. For mask.c; the judgement of expressions is in plain_node.c. */
#ifndef QN_GRAMMAR_PLAIN_H
#define QN_GRAMMAR_PLAIN_H

#include "engine/grammar/states.h"

enum {
    QN_PLAIN_MAX = 32,                  /* characters of a token that counts as plain */
    QN_PLAIN_DEPENDS = QN_PLAIN_MAX + 1,
};

struct qn_trie_below { /* what lies under a node of `all`, itself included */
    uint32_t plain;  /* plain tokens before it in order: its own are plain_order[below[i].plain .. below[skip].plain) */
    uint32_t mixed;  /* the node of the same bytes in `mixed`, or QN_TRIE_NO_NODE */
    uint32_t height; /* bytes from its end to that of the longest plain token below */
    uint64_t bytes[2]; /* that come after it in plain tokens; all beyond ASCII are QN_TRIE_OTHER */
};
#define QN_TRIE_OTHER 127 /* DEL, which is not plain */

struct qn_alike {      /* the state to which most plain characters lead, and which these are */
    uint64_t bytes[2];
    uint32_t next;
    uint8_t other;     /* all beyond ASCII among them */
    uint8_t run;       /* so many of them may come in any order, up to QN_PLAIN_MAX */
};

/* How many plain characters may follow s, whichever they are, up to QN_PLAIN_MAX; QN_PLAIN_DEPENDS: it depends on them. */
uint32_t qn_plain_run(struct qn_states *s, uint32_t state);
/* NULL on failure. Good until rows are dropped. */
const struct qn_alike *qn_plain_alike(struct qn_states *s, uint32_t state);
/* 1 when every plain token of b may come in this state. */
int qn_plain_all(struct qn_states *s, uint32_t state, const struct qn_trie_below *b);

#endif
