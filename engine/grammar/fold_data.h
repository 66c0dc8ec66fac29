/* The table of fold_data.c, which scripts/make-fold.mjs writes: for each character that has another case, the next of its
 * orbit (characters equal under simple case folding), as runs. Only regex_set.c reads it. */
#ifndef QN_FOLD_DATA_H
#define QN_FOLD_DATA_H

#include <stdint.h>

struct qn_fold_row { uint32_t from, to; uint8_t step; int32_t delta; }; /* every step-th of from..to: next is it + delta */

extern const struct qn_fold_row qn_fold[];
extern const unsigned qn_fold_rows;

#endif
