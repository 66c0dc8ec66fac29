/* Inside of a grammar: interned nodes, the memory they lie in, first sets and derivatives. For the files of this folder
 * alone; front ends see grammar.h.
 *
 * Nodes are numbers in the order of their making, so a child's number is below its parent's and any fact about all nodes is
 * one pass from the front. A node never moves and never goes: handles stay good. What can be computed again (rows of
 * derivatives) lies in `rows`, which may be emptied between two operations when memory is short. */
#ifndef QN_GRAMMAR_NODE_H
#define QN_GRAMMAR_NODE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/grammar/grammar.h"

enum qn_gkind { QN_K_NONE, QN_K_EMPTY, QN_K_SET, QN_K_CAT, QN_K_ALT, QN_K_AND, QN_K_NOT, QN_K_REPEAT, QN_K_RULE, QN_K_TOKEN };

enum { /* flags */
    QN_F_NULLABLE = 1,  /* with rules: known once the grammar is sealed */
    QN_F_IMPURE = 2,    /* holds a rule or a token */
    QN_F_TOKEN = 4,     /* holds a token */
    QN_F_BOOL = 8,      /* holds an AND or a NOT: it may match nothing though it is not NONE */
    QN_F_TEXT = 16,     /* matches valid UTF-8 only */
    QN_F_LIVE = 32,     /* matches something */
    QN_F_DEAD = 64,     /* matches nothing; neither: not asked yet */
};

enum {
    QN_G_DEPTH_MAX = 400,      /* nesting that derivatives recurse over */
    QN_G_CHAIN_MAX = 64,       /* a longer sequence is not copied when something is appended */
    QN_G_SEGMENT = 1024,
};
#define QN_G_UNKNOWN UINT32_MAX /* in a row: not computed yet */

enum { QN_FIRST_SETS, QN_FIRST_RULES, QN_FIRST_TOKENS, QN_FIRSTS };

struct qn_gnode_s {
    uint8_t kind, flags;
    uint16_t depth;
    uint32_t hash;
    uint32_t n;                /* ALT, AND: how many; REPEAT: min; CAT: length of the chain */
    uint32_t a, b;             /* CAT: two nodes; NOT, REPEAT: a node and max; RULE, TOKEN: its number */
    uint8_t plain;             /* enum qn_gplain */
    const void *more;          /* SET: uint64_t[4]; ALT, AND: uint32_t[n] ascending */
    uint32_t first[QN_FIRSTS]; /* lists, 0: not computed */
    uint32_t *to;              /* row of derivatives by class, or NULL */
};

/* Bytes that no expression of a list tells apart are one class. */
struct qn_classes {
    uint32_t n;
    uint8_t of[256];
    uint8_t some[256];         /* [n] a byte of each class */
    uint16_t size[256];        /* [n] how many bytes it has */
};

struct qn_glist {              /* interned, ascending */
    uint32_t n, hash;
    const uint32_t *v;
    const struct qn_classes *classes; /* lists of sets: made when first asked for */
};

struct qn_garena_chunk;
struct qn_garena {
    struct qn_garena_chunk *head;
    size_t at, bytes;
};

struct qn_gpile { /* scratch list of numbers */
    uint32_t *v;
    uint32_t n, cap;
};

struct qn_gtable { /* open addressing, numbers of things whose hash the thing keeps; 0: free */
    uint32_t *slot;
    uint32_t n, mask;
};

struct qn_grule {
    qn_gnode ref, body;
    uint8_t set, nullable, live;
    uint32_t round, ret, place; /* scratch of states.c and returns.c */
};

struct qn_gstep {
    uint32_t node, sym, to; /* sym 0: free */
};

struct qn_grammar {
    int error, sealed;
    size_t used, bytes_max;
    int64_t started_ns, deadline_ns; /* deadline: of the compiling thread's own time; 0: none (running) */
    int64_t fuel;              /* work that may still be done; when running, of this operation */
    int64_t look;              /* fuel at the next look at the clock */
    uint64_t key;
    qn_gnode text;             /* any_char*, known to and_n */
    struct qn_garena keep, rows;
    struct qn_gnode_s **seg;
    uint32_t n_nodes, n_segs, segs_cap;
    struct qn_gtable nodes;
    struct qn_glist *lists;
    uint32_t n_lists, lists_cap;
    struct qn_gtable list_table;
    struct qn_grule *rules;
    uint32_t n_rules, rules_cap;
    struct qn_gpile pile;      /* a stack: who pushes cuts it back */
    struct qn_gstep *by_symbol; /* hash table of derivatives by rule and by token, [mask + 1] or NULL */
    uint32_t n_by_symbol, by_symbol_mask;
    uint64_t live_fuel;        /* nodes that searches for a match may still visit */
};

static inline struct qn_gnode_s *qn_gn(const struct qn_grammar *g, qn_gnode i) {
    return &g->seg[i / QN_G_SEGMENT][i % QN_G_SEGMENT];
}
static inline int qn_gn_nullable(const struct qn_grammar *g, qn_gnode i) { return qn_gn(g, i)->flags & QN_F_NULLABLE; }
static inline int qn_set_has(const uint64_t s[4], unsigned b) { return (int)(s[b >> 6] >> (b & 63) & 1); }

/* memory.c. NULL, or a negative code, after setting g->error. */
/* Work of about n small steps was done. 0, or the error. */
int qn_g_charge(struct qn_grammar *g, size_t n);
int qn_g_fail(struct qn_grammar *g, int code);
void *qn_g_take(struct qn_grammar *g, struct qn_garena *a, size_t n);
void qn_garena_empty(struct qn_grammar *g, struct qn_garena *a);
/* Room for `need` elements of `size` in *p, whose room is *cap. */
int qn_g_room(struct qn_grammar *g, void *p, uint32_t *cap, uint32_t need, size_t size);
int qn_g_push(struct qn_grammar *g, struct qn_gpile *p, uint32_t v);
uint32_t qn_g_hash(const struct qn_grammar *g, const uint32_t *v, size_t n);
/* Room for one more, at three quarters at most; `hash_of` serves to move the old ones. */
int qn_gtable_room(struct qn_grammar *g, struct qn_gtable *t, uint32_t (*hash_of)(const void *user, uint32_t id), const void *user);
void qn_g_sort(uint32_t *v, uint32_t n);
uint32_t qn_g_sort_unique(uint32_t *v, uint32_t n);

/* node.c: the constructors of grammar.h, and */
qn_gnode qn_gn_make(struct qn_grammar *g, int kind, uint32_t n, uint32_t a, uint32_t b);
void qn_gn_flags(struct qn_grammar *g, qn_gnode i); /* again, now that more is known of its children */
qn_gnode qn_gn_set(struct qn_grammar *g, const uint64_t set[4]);
/* What lies in g->pile from `at` on, which they leave there in any order: alternatives, or all at once. */
qn_gnode qn_gn_alt_pile(struct qn_grammar *g, uint32_t at);
qn_gnode qn_gn_and_pile(struct qn_grammar *g, uint32_t at);

/* first.c */
/* The list of what the strings of x may begin with: sets, rules or tokens. 0: failed. */
uint32_t qn_g_first(struct qn_grammar *g, qn_gnode x, int what);
/* The interned list of these numbers (sorted and made unique in place). 0: failed. */
uint32_t qn_g_list(struct qn_grammar *g, uint32_t *v, uint32_t n);
const struct qn_classes *qn_g_classes(struct qn_grammar *g, uint32_t list);

/* derive.c. NONE also on failure: look at g->error. */
qn_gnode qn_g_by_byte(struct qn_grammar *g, qn_gnode x, unsigned b);
/* sym: a RULE or TOKEN node. */
qn_gnode qn_g_by_symbol(struct qn_grammar *g, qn_gnode x, qn_gnode sym);

/* plain_node.c. Plain characters are those that hardly any grammar of texts tells apart: letters, digits, blank, most marks, all beyond ASCII.
 * Does every one of them leave the same of x? */
enum qn_gplain { QN_PLAIN_UNKNOWN, QN_PLAIN_DIFFER, QN_PLAIN_NONE /* none may come */, QN_PLAIN_SAME };
enum qn_gplain qn_g_plain(struct qn_grammar *g, qn_gnode x);
extern const uint64_t qn_plain_ascii[4];
#define QN_PLAIN_ONE 'a'
extern const uint8_t qn_utf8_sequence[8][8]; /* how characters beyond ASCII are encoded: pairs of first and last byte */
static inline int qn_utf8_sequence_len(int i) { return qn_utf8_sequence[i][0] < 0xE0 ? 2 : qn_utf8_sequence[i][0] < 0xF0 ? 3 : 4; }

/* live.c */
/* Settles which rules match the empty string, and which match anything. QN_E_DATA: a rule without a body. */
int qn_g_seal(struct qn_grammar *g);
/* 1: something matches, or the search gave up; 0: nothing does. */
int qn_g_live(struct qn_grammar *g, qn_gnode x);

#endif
