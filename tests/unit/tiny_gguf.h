/* Writes small GGUF files in memory: metadata only, version 3, no tensors. For tests and fuzzing of what reads keys.
 * Format: ggml/docs/gguf.md. A writer aborts when it has no memory. */
#ifndef QN_TESTS_TINY_GGUF_H
#define QN_TESTS_TINY_GGUF_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct tiny_gguf {
    char *p;
    size_t n, cap;
    uint64_t n_kv;
};
enum { TINY_U32 = 4, TINY_I32 = 5, TINY_F32 = 6, TINY_BOOL = 7, TINY_STR = 8, TINY_ARRAY = 9 };

static inline void tiny_put(struct tiny_gguf *g, const void *p, size_t n) {
    if (g->n + n > g->cap) {
        g->cap = 2 * (g->n + n) + 256;
        g->p = realloc(g->p, g->cap);
        if (!g->p) abort();
    }
    memcpy(g->p + g->n, p, n);
    g->n += n;
}
static inline void tiny_u32(struct tiny_gguf *g, uint32_t v) { tiny_put(g, &v, 4); }
static inline void tiny_u64(struct tiny_gguf *g, uint64_t v) { tiny_put(g, &v, 8); }
static inline void tiny_text(struct tiny_gguf *g, const char *s, size_t n) {
    tiny_u64(g, n);
    tiny_put(g, s, n);
}
static inline void tiny_open(struct tiny_gguf *g) {
    *g = (struct tiny_gguf){0};
    tiny_put(g, "GGUF", 4);
    tiny_u32(g, 3);
    tiny_u64(g, 0); /* tensors */
    tiny_u64(g, 0); /* pairs: written by tiny_close */
}
static inline void tiny_key(struct tiny_gguf *g, const char *key, uint32_t type) {
    tiny_text(g, key, strlen(key));
    tiny_u32(g, type);
    g->n_kv++;
}
static inline void tiny_kv_str(struct tiny_gguf *g, const char *key, const char *v) {
    tiny_key(g, key, TINY_STR);
    tiny_text(g, v, strlen(v));
}
static inline void tiny_kv_u32(struct tiny_gguf *g, const char *key, uint32_t v) {
    tiny_key(g, key, TINY_U32);
    tiny_u32(g, v);
}
static inline void tiny_kv_bool(struct tiny_gguf *g, const char *key, int v) {
    char b = (char)(v != 0);
    tiny_key(g, key, TINY_BOOL);
    tiny_put(g, &b, 1);
}
/* The elements follow by the caller's own tiny_text, tiny_u32 or tiny_put. */
static inline void tiny_kv_array(struct tiny_gguf *g, const char *key, uint32_t type, uint64_t n) {
    tiny_key(g, key, TINY_ARRAY);
    tiny_u32(g, type);
    tiny_u64(g, n);
}
static inline void tiny_strs(struct tiny_gguf *g, const char *key, const char *const *v, uint64_t n) {
    tiny_kv_array(g, key, TINY_STR, n);
    for (uint64_t i = 0; i < n; i++) tiny_text(g, v[i], strlen(v[i]));
}
/* Bytes that live until free(g->p). */
static inline void tiny_close(struct tiny_gguf *g) {
    memcpy(g->p + 16, &g->n_kv, 8);
    while (g->n % 32) tiny_put(g, "", 1);
}

/* GPT-2's letter for a byte, as UTF-8. */
static inline size_t tiny_letter(unsigned b, char out[3]) {
    unsigned r = b;
    if (!((b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE))
        r = 0x100 + (b < 0x21 ? b : b < 0xA1 ? b - 0x7F + 0x21 : 0x43);
    if (r < 0x80) {
        out[0] = (char)r;
        out[1] = 0;
        return 1;
    }
    out[0] = (char)(0xC0 | r >> 6);
    out[1] = (char)(0x80 | (r & 0x3F));
    out[2] = 0;
    return 2;
}

#endif
