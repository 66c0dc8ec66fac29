/* What templates can call: methods, filters, tests, global functions, macros (internal to api/jinja*.c). */
#ifndef QN_JINJA_CALLS_H
#define QN_JINJA_CALLS_H

#include "api/jinja_val.h"

struct qn_jargv {
    struct qn_jv *pos;
    uint32_t n;
    struct qn_jpair *kw; /* keys are strings */
    uint32_t n_kw;
};
enum { QN_JARGS_MAX = 6 };

/* Sorts given arguments into places by `spec` ("width=,first=,blank="; a name without '=' must be given, '!' ends what may
 * be given by name) and fails as Python would. Places not given are J_MISSING. */
void qn_jcall_bind(struct qn_jx *x, const char *what, const char *spec, const struct qn_jargv *a, struct qn_jv out[QN_JARGS_MAX]);
int64_t qn_jcall_int(struct qn_jx *x, struct qn_jv v, int64_t absent); /* an int argument */
struct qn_jstr *qn_jcall_str(struct qn_jx *x, struct qn_jv v, const char *what);

/* Numbers of names, resolved at compile time; -1: there is none. */
int qn_jcall_method(const char *name);
int qn_jcall_filter(const char *name);
int qn_jcall_test(const char *name);

enum { QN_JATTR_NONE, QN_JATTR_FOUND, QN_JATTR_UNSAFE };
int qn_jcall_attr(struct qn_jx *x, struct qn_jv o, struct qn_jstr *name, int method_id, struct qn_jv *out);
struct qn_jv qn_jcall_run_method(struct qn_jx *x, struct qn_jv self, int id, const struct qn_jargv *a);
struct qn_jv qn_jcall_str_method(struct qn_jx *x, struct qn_jstr *s, int id, const struct qn_jargv *a);
struct qn_jv qn_jcall_run_filter(struct qn_jx *x, int id, const char *name, struct qn_jv v, const struct qn_jargv *a);
int qn_jcall_run_test(struct qn_jx *x, int id, const char *name, struct qn_jv v, const struct qn_jargv *a);
struct qn_jv qn_jcall_run_func(struct qn_jx *x, int id, const struct qn_jargv *a);
int qn_jcall_func(const char *name, size_t n);            /* a global function's number, or -1 */
struct qn_jv qn_jcall(struct qn_jx *x, struct qn_jv f, const struct qn_jargv *a);

/* Macros and loops are run by the evaluator (jinja_eval.c). */
struct qn_jv qn_jeval_macro(struct qn_jx *x, struct qn_jmacro *m, const struct qn_jargv *a);
struct qn_jv qn_jeval_loop_again(struct qn_jx *x, struct qn_jloop *l, const struct qn_jargv *a);
struct qn_jv qn_jeval_loop_method(struct qn_jx *x, struct qn_jloop *l, int changed, const struct qn_jargv *a); /* else cycle */
void qn_jeval_template(struct qn_jx *x);
int qn_jeval_loop_attr(struct qn_jx *x, struct qn_jloop *l, struct qn_jstr *name, struct qn_jv *out);
int64_t qn_jcall_loop_length(struct qn_jx *x, struct qn_jv loop);
int64_t qn_jcall_loop_index(struct qn_jv loop); /* from 1 */
const char *qn_jcall_macro_name(struct qn_jv m);

/* Sorting (stable): values by keys, or dict members by key. */
void qn_jcall_sort(struct qn_jx *x, struct qn_jv *v, struct qn_jv *keys, uint32_t n, int reverse);
void qn_jcall_sort_pairs(struct qn_jx *x, struct qn_jpair *e, uint32_t n);

#endif
