/* Filters over sequences (internal to api/jinja*.c). What Jinja yields lazily is made at once and iterable once. */
#ifndef QN_JINJA_SEQ_H
#define QN_JINJA_SEQ_H

#include "api/jinja_calls.h"

/* clang-format off */
enum {
    SQ_BATCH, SQ_SLICE, SQ_DICTSORT, SQ_FIRST, SQ_LAST, SQ_GROUPBY, SQ_ITEMS, SQ_JOIN, SQ_LIST, SQ_MAX, SQ_MIN, SQ_REVERSE,
    SQ_SORT,
    SQ_SUM, SQ_UNIQUE, SQ_MAP, SQ_SELECT, SQ_REJECT, SQ_SELECTATTR, SQ_REJECTATTR
};
/* clang-format on */
struct qn_jv qn_jseq_filter(struct qn_jx *x, int op, struct qn_jv v, const struct qn_jv *in);
struct qn_jv qn_jseq_pick(struct qn_jx *x, int op, struct qn_jv v, const struct qn_jargv *a); /* map, select… */

#endif
