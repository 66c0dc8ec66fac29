/* GGUF v2/v3 over a borrowed, read-only mapping. Knows containers, not models.
 *
 * The file is hostile: the whole header is parsed and checked before anything is handed out, with checked arithmetic,
 * every count bounded by the bytes left, and every refusal names the offset and the reason (limits: docs in gguf.c).
 * After a successful open every tensor lies inside the mapping and every string is inside it too.
 * Format: ggml/docs/gguf.md. Thread: open/close the caller's; lookups are const and safe anywhere. */
#ifndef QN_GGUF_H
#define QN_GGUF_H

#include <stddef.h>
#include <stdint.h>

#include "engine/base/err.h"
#include "engine/quant.h"

struct qn_gguf;

struct qn_str { /* borrowed from the mapping; not NUL-terminated, may hold any byte */
    const char *p;
    size_t n;
};

struct qn_tensor {
    struct qn_str name;
    enum qn_type type;
    int n_dims;         /* 1..4 */
    uint64_t dim[4];    /* dim[0] is the contiguous one (ggml's ne); unused ones are 1 */
    const void *data;   /* n_bytes bytes inside the mapping, aligned as the file says */
    uint64_t n_bytes;
};

/* Maps and checks `path`. QN_E_NOT_FOUND (no such file), QN_E_IO, QN_E_DATA, QN_E_UNSUPPORTED, QN_E_NOMEM. */
int qn_gguf_open(struct qn_gguf **out, const char *path, struct qn_err *err);
/* The same over bytes that the caller keeps alive until close (tests, fuzzing). */
int qn_gguf_parse(struct qn_gguf **out, const void *bytes, size_t n, struct qn_err *err);
void qn_gguf_close(struct qn_gguf *g);

uint64_t qn_gguf_n_tensors(const struct qn_gguf *g);
const struct qn_tensor *qn_gguf_tensor_at(const struct qn_gguf *g, uint64_t i);
const struct qn_tensor *qn_gguf_tensor(const struct qn_gguf *g, const char *name); /* NULL: none */
/* Lets the kernel drop the pages of a tensor whose repacked copy is now used instead. */
void qn_gguf_forget(const struct qn_gguf *g, const struct qn_tensor *t);

/* Metadata. Each returns 0, QN_E_NOT_FOUND when the key is absent, or QN_E_DATA when it has another type or range.
 * Integers accept any GGUF integer type that fits; f64 accepts f32 and f64. */
int qn_gguf_u64(const struct qn_gguf *g, const char *key, uint64_t *out);
int qn_gguf_i64(const struct qn_gguf *g, const char *key, int64_t *out);
int qn_gguf_f64(const struct qn_gguf *g, const char *key, double *out);
int qn_gguf_bool(const struct qn_gguf *g, const char *key, int *out);
int qn_gguf_str(const struct qn_gguf *g, const char *key, struct qn_str *out);

/* Arrays: the count first, then elements. Strings of an array are found in constant time (an index is built once). */
int qn_gguf_array_n(const struct qn_gguf *g, const char *key, uint64_t *n);
int qn_gguf_array_strs(const struct qn_gguf *g, const char *key, const struct qn_str **out, uint64_t *n);
/* Copies integers of any type into i64 / floats into f32; `cap` elements at most; *n is the array's count. */
int qn_gguf_array_i64(const struct qn_gguf *g, const char *key, int64_t *out, uint64_t cap, uint64_t *n);
int qn_gguf_array_f32(const struct qn_gguf *g, const char *key, float *out, uint64_t cap, uint64_t *n);

#endif
