/* The bytes of a vocabulary as a trie in preorder, flat: a node's children follow it, `skip` leads past them.
 * Tokens that no text may become (control tokens, markers of structure, those that end generation) are not in it. */
#ifndef QN_GRAMMAR_TRIE_H
#define QN_GRAMMAR_TRIE_H

#include <stdint.h>

#include "engine/grammar/constraint.h"
#include "engine/grammar/plain.h"

#define QN_TRIE_NO_TOKEN UINT32_MAX

struct qn_trie_node {
    uint32_t skip;   /* the node after this one's subtree */
    uint32_t token;  /* that ends here, or QN_TRIE_NO_TOKEN; others of the same bytes follow by `twin` */
    uint16_t depth;  /* 1 for the first byte */
    uint8_t byte;
};

struct qn_trie {
    struct qn_trie_node *node; /* [n] */
    uint32_t n;
};

#define QN_TRIE_NO_NODE UINT32_MAX

struct qn_token_trie {
    const struct qn_tokenizer *tok;
    uint32_t n_vocab, n_words, depth_max;
    struct qn_trie all, mixed; /* all tokens of text; those that are not wholly plain characters (qn_plain_ascii, node.h) */
    uint32_t *plain;           /* [QN_PLAIN_MAX + 1][n_words] masks of the others with up to that many characters */
    struct qn_trie_below *below; /* [all.n + 1] */
    uint32_t *plain_order;     /* the plain tokens in the order of `all` */
    uint32_t *twin;            /* [n_vocab] the next token of the same bytes, or QN_TRIE_NO_TOKEN */
    uint32_t *ends;            /* [n_ends] tokens that end generation */
    uint32_t n_ends;
};

/* 1 when id is in it. */
int qn_trie_is_text(const struct qn_token_trie *t, uint32_t id);

#endif
