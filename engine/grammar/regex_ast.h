/* What regex_parse.c makes of a pattern and regex.c turns into a grammar. Not for others.
 *
 * Besides its kind an expression knows, for each of four places, whether it matches the empty string there, and whether
 * a place matters to it: the place is (at the text's start?, at the text's end?), which is all that ^ and $ ask. */
#ifndef QN_REGEX_AST_H
#define QN_REGEX_AST_H

#include "engine/grammar/regex_set.h"

enum qn_rx_kind { QN_RX_EMPTY, QN_RX_SET, QN_RX_START, QN_RX_END, QN_RX_CAT, QN_RX_ALT, QN_RX_REPEAT };
enum { QN_RX_ON_START = 1, QN_RX_ON_END = 2 };      /* bits of `on` */
#define QN_RX_PLACE(l, r) ((unsigned)(l) * 2u + (unsigned)(r))

struct qn_rx_node {
    uint8_t kind, empty /* bit PLACE: matches nothing there */, on, have /* bits of made */;
    uint32_t kid, n_kids; /* CAT, ALT: kids[kid..]; REPEAT: nodes[kid]; SET: sets[kid] */
    uint32_t min, max;    /* REPEAT */
    double most;          /* the largest product of bounds of nested repeats */
    qn_gnode made[8];
};

struct qn_rx_set { size_t at, n; qn_gnode made; int have; };

struct qn_rx {
    struct qn_rx_node *nodes;
    uint32_t *kids;
    struct qn_rx_set *sets;
    struct qn_codes *codes;
    size_t n_nodes, n_kids, n_sets, n_codes, cap_nodes, cap_kids, cap_sets, cap_codes;
    uint32_t root;
};

/* Fills *x, which _done frees also after a failure. QN_E_DATA, _UNSUPPORTED, _LIMIT, _NOMEM. */
int qn_rx_parse(struct qn_rx *x, struct qn_grammar *g, const char *p, size_t n, int ignore_case, struct qn_err *err);
void qn_rx_done(struct qn_rx *x);

#endif
