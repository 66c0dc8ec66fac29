/* Python's str operations that methods and filters share (internal to api/jinja*.c). Each keeps the marks of trust byte
 * by byte: pieces share with their origin, new strings are built from pieces. */
#ifndef QN_JINJA_STR_H
#define QN_JINJA_STR_H

#include "api/jinja_val.h"

enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };
struct qn_jv qn_jstr_strip(struct qn_jx *x, struct qn_jstr *s, const struct qn_jstr *chars, int sides); /* chars NULL: blanks */
struct qn_jv qn_jstr_replace(struct qn_jx *x, struct qn_jstr *s, const struct qn_jstr *old, const struct qn_jstr *with,
                             int64_t times);
/* sep NULL: runs of blanks; times < 0: all; from the right when `right`. A list. */
struct qn_jv qn_jstr_split(struct qn_jx *x, struct qn_jstr *s, const struct qn_jstr *sep, int64_t times, int right);
struct qn_jv qn_jstr_lines(struct qn_jx *x, struct qn_jstr *s, int keep_ends);
struct qn_jv qn_jstr_join(struct qn_jx *x, const struct qn_jstr *sep, struct qn_jv over, int any_type);
enum { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITAL, CASE_SWAP, CASE_WORDS /* jinja's title filter */ };
struct qn_jv qn_jstr_case(struct qn_jx *x, struct qn_jstr *s, int how);
struct qn_jv qn_jstr_pad(struct qn_jx *x, struct qn_jstr *s, int64_t left, int64_t right, const struct qn_jstr *fill);
int qn_jstr_has_case(struct qn_jx *x, const struct qn_jstr *s, int upper); /* islower, isupper */

#endif
