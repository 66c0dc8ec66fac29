/* A model in a backend's hands, and logits of ids that it is forced to read. For tests that look at the forward pass without the engine.
 * Everything that fails ends the test. */
#ifndef QN_TESTS_FORCING_H
#define QN_TESTS_FORCING_H

#include "engine/forward.h"

enum { FORCING_ROWS_MAX = 128, FORCING_BLOCKS_MAX = 128 };

typedef int (*forcing_open_fn)(struct qn_backend **, const struct qn_model_desc *, const struct qn_backend_opts *, struct qn_err *);

struct forcing {
    struct qn_model *m;
    struct qn_backend *b;
    struct qn_forward *f;
};

/* o: rows_max and kv_blocks within the bounds above, out_max, n_ctx. A pool of kv_blocks is made where the backend wants to be asked. */
struct forcing forcing_open(const char *path, forcing_open_fn open, const struct qn_backend_opts *o);
/* Fails if the device was lost. */
void forcing_close(struct forcing *s);

/* Forces ids[n] in chunks of `cut` rows; use() gets each position's logits. */
void forcing_run(struct forcing *s, const int32_t *ids, int n, int cut, void (*use)(void *arg, int pos, const float *logits, int n_vocab), void *arg);
/* A use: into arg, float [n][n_vocab]. */
void forcing_keep(void *arg, int pos, const float *logits, int n_vocab);

/* ids[n] in chunks of a rows beside another sequence that goes on by b rows a step until it ends, their blocks interleaved: prompts are cut,
 * mixed with decodes, decoded alone. Logits of ids to out[n][n_vocab]; if `some`, only those of the last rows of a step are asked for,
 * so that it is narrowed, and the other rows of out stay as they are. */
void forcing_beside(struct forcing *s, const int32_t *ids, int n, int a, int b, int some, float *out);

#endif
