/* One render: limits, globals, the run, and the text with its trusted ranges.
 *
 * All values of a render live in an arena that is freed here, which is also where every failure lands by longjmp:
 * the functions in between hold nothing else. */
#include "api/jinja.h"

#include <stdlib.h>
#include <string.h>

#include "api/jinja_ast.h"
#include "api/jinja_calls.h"
#include "api/jinja_val.h"

enum { STEPS = 1000000, DEPTH = 64, OUT_BYTES = 4 << 20, MEMORY_BYTES = 64 << 20 };

static struct qn_jv global(struct qn_jx *x, const struct qn_jname *n, const json_t *vars, const json_t *trusted) {
    const json_t *j = json_object_getn(trusted, n->p, n->n);
    if (j) return qn_jv_json(x, j, 1);
    if ((j = json_object_getn(vars, n->p, n->n))) return qn_jv_json(x, j, 0);
    int f = qn_jcall_func(n->p, n->n);
    return f >= 0 ? (struct qn_jv){.t = J_FUNC, .i = f} : qn_jv_missing();
}

static void render(struct qn_jx *x, struct qn_jsb *out, const json_t *vars, const json_t *trusted, size_t out_bytes) {
    size_t n = (size_t)x->t->n_names;
    x->globals = qn_jx_array(x, n, sizeof *x->globals);
    x->root = qn_jx_array(x, n, sizeof *x->root);
    for (size_t i = 0; i < n; i++) {
        x->globals[i] = global(x, &x->t->names[i], vars, trusted);
        x->root[i] = qn_jv_missing();
    }
    qn_jsb_init(out, x);
    out->max = out_bytes;
    x->out = out;
    qn_jeval_template(x);
}

static int finish(const struct qn_jsb *b, struct qn_rendered *out, size_t out_bytes, struct qn_err *err) {
    struct qn_rendered r = {.n_trusted = b->n_r};
    qn_buf_init(&r.text, out_bytes);
    qn_buf_put(&r.text, b->p ? b->p : "", b->n);
    if (b->n_r) r.trusted = malloc(b->n_r * sizeof *r.trusted);
    if (r.text.failed || (b->n_r && !r.trusted)) {
        qn_rendered_done(&r);
        return qn_fail(err, QN_E_NOMEM, "chat template: no memory");
    }
    if (b->n_r) memcpy(r.trusted, b->r, b->n_r * sizeof *r.trusted);
    *out = r;
    return 0;
}

int qn_jinja_render(const struct qn_jinja *t, const json_t *vars, const json_t *trusted_vars, int64_t now_s,
                    const struct qn_jinja_limits *lim, struct qn_rendered *out, struct qn_err *err) {
    struct qn_jinja_limits none = {0};
    if (!lim) lim = &none;
    size_t out_bytes = lim->out_bytes ? lim->out_bytes : OUT_BYTES;
    struct { struct qn_jx x; struct qn_jsb out; } *r = calloc(1, sizeof *r); /* not on the stack: it must survive the jump */
    if (!r) return qn_fail(err, QN_E_NOMEM, "chat template: no memory");
    struct qn_jx *x = &r->x;
    x->t = t;
    x->steps = lim->steps ? lim->steps : STEPS;
    x->depth_max = lim->depth ? lim->depth : DEPTH;
    x->err = err;
    x->now_s = now_s;
    qn_arena_init(&x->mem, lim->memory_bytes ? lim->memory_bytes : MEMORY_BYTES);
    if (!setjmp(x->out_of)) render(x, &r->out, vars, trusted_vars, out_bytes);
    int rc = x->rc;
    if (rc == 0) rc = finish(&r->out, out, out_bytes, err);
    qn_arena_done(&x->mem);
    free(r);
    return rc;
}

void qn_rendered_done(struct qn_rendered *r) {
    if (!r) return;
    qn_buf_done(&r->text);
    free(r->trusted);
    *r = (struct qn_rendered){0};
}
