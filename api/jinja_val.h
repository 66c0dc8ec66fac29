/* Values of the template interpreter (internal to api/jinja*.c): Python's, as far as chat templates see them.
 *
 * Everything lives in the render's arena and is immutable but for namespaces, so a slice or a concatenation may share
 * bytes with its origin. A failure leaves by longjmp to qn_jinja_render (nothing but the arena is held), so no value
 * here is ever NULL or half made.
 *
 * TRUST: a string is wholly trusted, wholly untrusted, or carries ascending ranges of trusted bytes. Numbers, booleans
 * and none remember with `dirty` that they came from the request, since they may be printed too. */
#ifndef QN_JINJA_VAL_H
#define QN_JINJA_VAL_H

#include <jansson.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include "api/jinja.h"
#include "engine/base/arena.h"

enum qn_jtype {
    J_UNDEF, J_NONE, J_BOOL, J_INT, J_FLOAT, J_STR, J_LIST, J_TUPLE, J_DICT, J_VIEW, J_RANGE, J_GEN, J_NS,
    J_MACRO, J_FUNC, J_METHOD, J_LOOP, J_CYCLER, J_JOINER,
    J_MISSING /* an argument that was not given */
};
enum { UNDEF_NAME, UNDEF_ATTR, UNDEF_HINT, UNDEF_UNSAFE }; /* qn_jv.sub of J_UNDEF: how to word the error */
enum { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };               /* qn_jv.sub of J_VIEW */

struct qn_jv {
    uint8_t t, sub, dirty, of; /* of: type of the object an undefined attribute was asked from */
    union {
        int b;
        int64_t i;
        double f;
        const char *name;      /* J_UNDEF */
        struct qn_jstr *s;
        struct qn_jlist *l;    /* list, tuple, generator (eager; a second iteration finds it empty) */
        struct qn_jdict *d;    /* dict, view, namespace */
        struct qn_jrange *r;
        struct qn_jmacro *m;
        struct qn_jmethod *meth;
        struct qn_jloop *loop;
        struct qn_jcycle *cyc;
    };
};

enum { TRUST_NONE, TRUST_ALL, TRUST_SOME };

struct qn_jstr {
    const char *p;             /* valid UTF-8, not NUL-terminated */
    uint32_t n, chars;         /* bytes; code points (UINT32_MAX: not counted yet) */
    uint8_t trust, markup;     /* markup: markupsafe.Markup, whose + escapes the other side */
    uint32_t n_r;              /* TRUST_SOME: trusted ranges, to be shifted by -r_off and clipped to [0, n) */
    const struct qn_range *r;
    size_t r_off;
    struct qn_jspace *space;   /* where p ends, when bytes may be appended behind it in place */
};
struct qn_jspace { char *base; size_t used, cap; struct qn_range *r; uint32_t n_r, cap_r; };

struct qn_jlist {
    struct qn_jv *v;
    uint32_t n;
    uint8_t trusted;           /* of json */
    const json_t *json;        /* not unfolded yet; NULL: v holds */
    struct qn_jroom *room;     /* as space above */
};
struct qn_jroom { struct qn_jv *base; uint32_t used, cap; };

struct qn_jpair { struct qn_jv k, v; };
struct qn_jdict {
    struct qn_jpair *e;        /* in order of insertion */
    uint32_t n, cap, mask;
    uint32_t *index;           /* open addressing over e, once n > 8; entry + 1, 0: free */
    uint8_t trusted;
    const json_t *json;
};
struct qn_jrange { int64_t from, step; uint32_t n; };
struct qn_jmethod { struct qn_jv self; int id; };
struct qn_jcycle { struct qn_jv items; uint32_t pos; };    /* cycler; joiner: items is the separator */

/* Growing string with its trusted ranges. */
struct qn_jsb {
    struct qn_jx *x;
    char *p;
    size_t n, cap, max;
    struct qn_range *r;
    uint32_t n_r, cap_r;
};

struct qn_jx {                 /* one render */
    const struct qn_jinja *t;
    struct qn_arena mem;
    long steps;                /* fuel left */
    int depth, depth_max;      /* macro calls and recursive loops */
    int nest;                  /* C recursion over nodes and values */
    uint32_t line;
    int rc;
    struct qn_err *err;
    jmp_buf out_of;
    struct qn_jv *globals;     /* by name id */
    struct qn_jv *root;        /* by name id: set at top level; J_MISSING: not set */
    struct qn_jsb *out;
    int64_t now_s;
};

enum { QN_J_NEST_MAX = 1500, QN_J_VALUE_DEPTH_MAX = 200, QN_J_RANGE_MAX = 100000 };

/* Failing, fuel, memory. */
__attribute__((noreturn, format(printf, 3, 4))) void qn_jx_fail(struct qn_jx *x, int code, const char *fmt, ...);
void qn_jx_fuel(struct qn_jx *x, size_t steps);
static inline void qn_jx_step(struct qn_jx *x) { if (--x->steps < 0) qn_jx_fuel(x, 0); }
/* Fuel for touching n bytes quickly (compare, copy, search). */
static inline void qn_jx_bytes(struct qn_jx *x, size_t n) { if (n > 127) qn_jx_fuel(x, n >> 7); }
void *qn_jx_alloc(struct qn_jx *x, size_t n);
void *qn_jx_array(struct qn_jx *x, size_t n, size_t each);
void qn_jx_enter(struct qn_jx *x);
static inline void qn_jx_leave(struct qn_jx *x) { x->nest--; }

/* Making values. */
static inline struct qn_jv qn_jv_none(void) { return (struct qn_jv){.t = J_NONE}; }
static inline struct qn_jv qn_jv_bool(int b) { return (struct qn_jv){.t = J_BOOL, .b = b != 0}; }
static inline struct qn_jv qn_jv_int(int64_t i) { return (struct qn_jv){.t = J_INT, .i = i}; }
static inline struct qn_jv qn_jv_float(double f) { return (struct qn_jv){.t = J_FLOAT, .f = f}; }
static inline struct qn_jv qn_jv_missing(void) { return (struct qn_jv){.t = J_MISSING}; }
static inline struct qn_jv qn_jv_hint(const char *h) { return (struct qn_jv){.t = J_UNDEF, .sub = UNDEF_HINT, .name = h}; }
struct qn_jv qn_jv_json(struct qn_jx *x, const json_t *j, int trusted);
/* Bytes that outlive the render (not copied). */
struct qn_jv qn_jv_str(struct qn_jx *x, const char *p, size_t n, int trusted);
struct qn_jv qn_jv_cstr(struct qn_jx *x, const char *s);
struct qn_jv qn_jv_list(struct qn_jx *x, int type, uint32_t n); /* n undefined members, to be filled */
struct qn_jv qn_jv_dict(struct qn_jx *x, uint32_t cap);
const char *qn_jv_type(struct qn_jv v); /* Python's name of its type */

/* Strings. */
uint32_t qn_jstr_chars(struct qn_jstr *s);
size_t qn_jstr_at(struct qn_jstr *s, uint32_t ch); /* byte offset of code point ch <= chars */
struct qn_jv qn_jstr_sub(struct qn_jx *x, const struct qn_jstr *s, size_t from, size_t to); /* bytes, shares */
struct qn_jv qn_jstr_concat(struct qn_jx *x, const struct qn_jstr *a, const struct qn_jstr *b);
int qn_jstr_eq(struct qn_jx *x, const struct qn_jstr *a, const struct qn_jstr *b);
int qn_jstr_is(const struct qn_jstr *s, const char *lit);
/* 1 when byte i is trusted; *run: how many bytes from i on are the same. */
int qn_jstr_trusted(const struct qn_jstr *s, size_t i, size_t *run);
const char *qn_jstr_c(struct qn_jx *x, const struct qn_jstr *s); /* NUL-terminated copy, for messages */

void qn_jsb_init(struct qn_jsb *b, struct qn_jx *x);
void qn_jsb_put(struct qn_jsb *b, const char *p, size_t n, int trusted);
void qn_jsb_str(struct qn_jsb *b, const struct qn_jstr *s);
void qn_jsb_sub(struct qn_jsb *b, const struct qn_jstr *s, size_t from, size_t to);
struct qn_jv qn_jsb_done(struct qn_jsb *b); /* the string; b is used up */

/* Lists and dicts (unfolded from JSON at the first touch). */
struct qn_jlist *qn_jlist_of(struct qn_jx *x, struct qn_jv v);
struct qn_jdict *qn_jdict_of(struct qn_jx *x, struct qn_jv v);
struct qn_jv qn_jlist_concat(struct qn_jx *x, struct qn_jv a, struct qn_jv b);
void qn_jlist_push(struct qn_jx *x, struct qn_jlist *l, struct qn_jv v); /* only on a list that nobody has seen yet */
struct qn_jv *qn_jdict_get(struct qn_jx *x, struct qn_jdict *d, struct qn_jv k); /* NULL: none; unhashable: fails */
struct qn_jv *qn_jdict_find(struct qn_jx *x, struct qn_jdict *d, const char *name);
void qn_jdict_put(struct qn_jx *x, struct qn_jdict *d, struct qn_jv k, struct qn_jv v);

#endif
