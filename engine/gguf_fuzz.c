/* Fuzz entry of gguf.c: any bytes either fail with a message or yield tensors and strings that lie inside the input and
 * can be read from end to end. */
#include <stdlib.h>
#include <string.h>

#include "engine/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void need(int holds) {
    if (!holds) abort();
}

static const uint8_t *lo, *hi;
static uint64_t sum; /* keeps the reads alive; ASan sees them */

static void inside(const void *p, uint64_t n) {
    const uint8_t *q = p;
    need(q >= lo && q <= hi && n <= (uint64_t)(hi - q));
    if (n) sum += q[0] + q[n - 1];
}

static void look_at_tensors(const struct qn_gguf *g) {
    for (uint64_t i = 0; i < qn_gguf_n_tensors(g); i++) {
        const struct qn_tensor *t = qn_gguf_tensor_at(g, i);
        const struct qn_type_info *ti = qn_type_info((uint32_t)t->type);
        char name[64];
        inside(t->data, t->n_bytes);
        inside(t->name.p, t->name.n);
        need(ti && t->n_dims >= 1 && t->n_dims <= 4 && t->name.n > 0 && t->name.n < sizeof name);
        unsigned __int128 elems = 1;
        for (int d = 0; d < 4; d++) elems *= t->dim[d];
        need(elems / (unsigned)ti->block_elems * (unsigned)ti->block_bytes == t->n_bytes);
        memcpy(name, t->name.p, t->name.n);
        name[t->name.n] = 0;
        need(qn_gguf_tensor(g, name) == t);
        qn_gguf_forget(g, t);
    }
}

static void look_at_key(const struct qn_gguf *g, const char *key) {
    uint64_t u, n = 0, n_strs = 0;
    int64_t i, is[8];
    double d;
    int b;
    float f[8];
    struct qn_str s;
    const struct qn_str *strs;
    int hits = (qn_gguf_f64(g, key, &d) == 0) + (qn_gguf_bool(g, key, &b) == 0);
    if (qn_gguf_u64(g, key, &u) == 0 || qn_gguf_i64(g, key, &i) == 0) hits++;
    if (qn_gguf_str(g, key, &s) == 0) {
        inside(s.p, s.n);
        hits++;
    }
    if (qn_gguf_array_strs(g, key, &strs, &n_strs) == 0) {
        for (uint64_t k = 0; k < n_strs; k++) inside(strs[k].p, strs[k].n);
        hits++;
    }
    hits += qn_gguf_array_i64(g, key, is, 8, &n) == 0;
    hits += qn_gguf_array_f32(g, key, f, 8, &n) == 0;
    need(hits <= 1); /* a key has one type */
    if (qn_gguf_array_n(g, key, &u) == 0) need(u == n || u == n_strs || hits == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const keys[] = {
        "general.architecture", "general.alignment", "general.name", "t.u8", "t.i8", "t.u16", "t.i16", "t.u32", "t.i32", "t.u64",
        "t.i64", "t.f32", "t.f64", "t.bool", "t.str", "t.strs", "t.ints", "t.floats", "t.bools", "tokenizer.ggml.tokens", "absent", "",
    };
    struct qn_gguf *g = NULL;
    struct qn_err err = {0};
    lo = data;
    hi = data + n;
    int rc = qn_gguf_parse(&g, data, n, &err);
    if (rc < 0) {
        need(!g && err.code == rc && err.text[0] && !strchr(err.text, '\n'));
        return 0;
    }
    need(g && !err.code);
    look_at_tensors(g);
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) look_at_key(g, keys[k]);
    qn_gguf_close(g);
    return 0;
}
