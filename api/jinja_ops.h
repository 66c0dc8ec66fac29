/* Python's operators over template values (internal to api/jinja*.c). */
#ifndef QN_JINJA_OPS_H
#define QN_JINJA_OPS_H

#include "api/jinja_val.h"

int qn_jv_true(struct qn_jx *x, struct qn_jv v);
int qn_jv_eq(struct qn_jx *x, struct qn_jv a, struct qn_jv b);
/* -1, 0, 1, or 2 when a NaN is in no order; fails where Python has no order between the two. `op` is for the message. */
int qn_jv_cmp(struct qn_jx *x, struct qn_jv a, struct qn_jv b, const char *op);
int qn_jv_in(struct qn_jx *x, struct qn_jv needle, struct qn_jv in);
int64_t qn_jv_len(struct qn_jx *x, struct qn_jv v); /* fails where Python has no len() */
int qn_jv_has_len(struct qn_jv v);
int qn_jv_iterable(struct qn_jv v);
static inline int qn_jv_is_int(struct qn_jv v) { return v.t == J_INT || v.t == J_BOOL; }
static inline int qn_jv_is_num(struct qn_jv v) { return v.t == J_INT || v.t == J_BOOL || v.t == J_FLOAT; }
static inline int64_t qn_jv_as_int(struct qn_jv v) { return v.t == J_BOOL ? v.b : v.i; }
static inline double qn_jv_as_num(struct qn_jv v) { return v.t == J_FLOAT ? v.f : (double)qn_jv_as_int(v); }

struct qn_jv qn_jv_binary(struct qn_jx *x, int op, struct qn_jv a, struct qn_jv b); /* op: TOK_ADD… */
struct qn_jv qn_jv_negate(struct qn_jx *x, struct qn_jv v, int sign);
struct qn_jv qn_jv_pow_int(struct qn_jx *x, int64_t base, int64_t exp);

int qn_jv_hashable(struct qn_jx *x, struct qn_jv v);
/* obj.name and obj[key] as jinja2's sandbox looks them up. name->p is NUL-terminated and lives as long as the render. */
struct qn_jv qn_jv_attr(struct qn_jx *x, struct qn_jv o, struct qn_jstr *name, int method_id);
struct qn_jv qn_jv_item(struct qn_jx *x, struct qn_jv o, struct qn_jv key);
struct qn_jv qn_jv_slice(struct qn_jx *x, struct qn_jv o, struct qn_jv from, struct qn_jv to, struct qn_jv step);

struct qn_jiter { struct qn_jv v; size_t i; };
/* Fails where Python cannot iterate. A generator is used up by it. */
struct qn_jiter qn_jv_iter(struct qn_jx *x, struct qn_jv v);
int qn_jv_next(struct qn_jx *x, struct qn_jiter *it, struct qn_jv *out);
struct qn_jv qn_jv_to_list(struct qn_jx *x, struct qn_jv v, int type); /* a new list of its members */

_Noreturn void qn_jx_undefined(struct qn_jx *x, struct qn_jv v);

#endif
