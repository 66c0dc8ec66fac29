/* GGUF v2/v3: the whole header is walked once with a cursor that knows where the file ends; nothing is believed before it
 * was checked, and what is kept are offsets into the mapping.
 *
 *   magic "GGUF" | version u32 | n_tensors u64 | n_kv u64 | n_kv x {key, type u32, value} |
 *   n_tensors x {name, n_dims u32, dim u64 x n_dims, type u32, offset u64} | padding to alignment | tensor data
 *
 * Limits (threats of hostile files): 100,000 tensors and keys, strings of 16 MiB, arrays of 10 M elements, no arrays of
 * arrays, names under 64 bytes, 1..4 dimensions, alignment a power of two in 8..4096; no two keys or tensors of one name,
 * no two tensors that overlap. Every number that is added or multiplied goes through chk.h. */
#include "engine/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/chk.h"
#include "engine/base/hash.h"
#include "engine/base/rng.h"

enum {
    TENSORS_MAX = 100000, KEYS_MAX = 100000, KEY_BYTES_MAX = 65535, NAME_BYTES_MAX = 63, ALIGN_DEFAULT = 32, ALIGN_LEAST = 8, ALIGN_MOST = 4096,
};
static const uint64_t STRING_MAX = 16ULL << 20, ARRAY_MAX = 10000000;

enum value_type { V_U8, V_I8, V_U16, V_I16, V_U32, V_I32, V_F32, V_BOOL, V_STR, V_ARRAY, V_U64, V_I64, V_F64, V_COUNT };
static const uint8_t value_bytes[V_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct entry {
    struct qn_str key;
    uint32_t type, elem;    /* elem: of an array */
    uint64_t n;             /* elements of an array; 1 otherwise */
    const char *p;          /* the value, or an array's first element */
    struct qn_str *strs;    /* an array of strings, indexed */
};

struct table {              /* open addressing over names; slots hold index + 1 */
    uint32_t *slot;
    uint32_t mask;
};

struct qn_gguf {
    const char *base;
    uint64_t size;
    int mapped;
    uint64_t secret[2], n_tensors, n_keys;
    struct entry *keys;
    struct qn_tensor *tensors;
    struct table key_table, tensor_table;
};

struct cursor {
    struct qn_gguf *g;
    uint64_t at;
    struct qn_err *err;
};

static int bad(struct cursor *c, const char *what) {
    return qn_fail(c->err, QN_E_DATA, "gguf: at byte %llu: %s", (unsigned long long)c->at, what);
}

/* --- reading -------------------------------------------------------------------------------------------------------- */

static uint64_t left(const struct cursor *c) { return c->g->size - c->at; }

static int read_bytes(struct cursor *c, void *to, uint64_t n, const char *what) {
    if (left(c) < n) return bad(c, what);
    memcpy(to, c->g->base + c->at, n);
    c->at += n;
    return 0;
}

static int read_u32(struct cursor *c, uint32_t *v) { return read_bytes(c, v, 4, "the file ends inside a 32-bit number"); }
static int read_u64(struct cursor *c, uint64_t *v) { return read_bytes(c, v, 8, "the file ends inside a 64-bit number"); }

static int read_str(struct cursor *c, uint64_t most, struct qn_str *s) {
    uint64_t n;
    if (read_u64(c, &n) < 0) return QN_E_DATA;
    if (n > most) return qn_fail(c->err, QN_E_DATA, "gguf: at byte %llu: a string of %llu bytes: at most %llu",
                                 (unsigned long long)c->at, (unsigned long long)n, (unsigned long long)most);
    if (left(c) < n) return bad(c, "a string reaches past the end of the file");
    *s = (struct qn_str){c->g->base + c->at, n};
    c->at += n;
    return 0;
}

static int skip(struct cursor *c, uint64_t n, const char *what) {
    if (left(c) < n) return bad(c, what);
    c->at += n;
    return 0;
}

static int index_strings(struct cursor *c, struct entry *e) {
    if (e->n == 0) return 0;
    if (left(c) / 8 < e->n) return bad(c, "an array of strings reaches past the end of the file");
    e->strs = calloc(e->n, sizeof *e->strs);
    if (!e->strs) return qn_fail(c->err, QN_E_NOMEM, "gguf: no memory for an array of %llu strings", (unsigned long long)e->n);
    for (uint64_t i = 0; i < e->n; i++)
        if (read_str(c, STRING_MAX, &e->strs[i]) < 0) return QN_E_DATA;
    return 0;
}

static int read_array(struct cursor *c, struct entry *e) {
    uint64_t bytes;
    if (read_u32(c, &e->elem) < 0 || read_u64(c, &e->n) < 0) return QN_E_DATA;
    if (e->elem == V_ARRAY) return bad(c, "an array of arrays");
    if (e->elem >= V_COUNT) return bad(c, "an array of an unknown type");
    if (e->n > ARRAY_MAX) return bad(c, "an array of more than 10,000,000 elements");
    e->p = c->g->base + c->at;
    if (e->elem == V_STR) return index_strings(c, e);
    if (qn_mul_u64(e->n, value_bytes[e->elem], &bytes)) return bad(c, "an array's size overflows");
    if (skip(c, bytes, "an array reaches past the end of the file") < 0) return QN_E_DATA;
    for (uint64_t i = 0; e->elem == V_BOOL && i < e->n; i++)
        if ((unsigned char)e->p[i] > 1) return bad(c, "a truth value that is neither 0 nor 1");
    return 0;
}

static int read_entry(struct cursor *c, struct entry *e) {
    if (read_str(c, KEY_BYTES_MAX, &e->key) < 0 || read_u32(c, &e->type) < 0) return QN_E_DATA;
    if (e->key.n == 0) return bad(c, "a key without a name");
    if (memchr(e->key.p, 0, e->key.n)) return bad(c, "a key with a NUL in its name");
    if (e->type >= V_COUNT) return bad(c, "a key of an unknown type");
    if (e->type == V_ARRAY) return read_array(c, e);
    e->n = 1;
    e->p = c->g->base + c->at;
    struct qn_str s;
    if (e->type == V_STR) return read_str(c, STRING_MAX, &s);
    if (skip(c, value_bytes[e->type], "the file ends inside a value") < 0) return QN_E_DATA;
    return e->type == V_BOOL && (unsigned char)*e->p > 1 ? bad(c, "a truth value that is neither 0 nor 1") : 0;
}

/* --- names ---------------------------------------------------------------------------------------------------------- */

static int table_init(struct table *t, uint64_t n) {
    uint32_t slots = 16;
    while (slots < 2 * n) slots *= 2;
    t->slot = calloc(slots, sizeof *t->slot);
    t->mask = slots - 1;
    return t->slot ? 0 : QN_E_NOMEM;
}

static const struct qn_str *name_at(const struct qn_gguf *g, const struct table *t, uint32_t i) {
    return t == &g->key_table ? &g->keys[i].key : &g->tensors[i].name;
}

/* Index of `s`, or -1; *slot: where it would go. */
static int64_t table_find(const struct qn_gguf *g, const struct table *t, struct qn_str s, uint32_t *slot) {
    uint32_t at = (uint32_t)qn_siphash(g->secret, s.p, s.n) & t->mask;
    for (; t->slot[at]; at = (at + 1) & t->mask) {
        const struct qn_str *o = name_at(g, t, t->slot[at] - 1);
        if (o->n == s.n && !memcmp(o->p, s.p, s.n)) return t->slot[at] - 1;
    }
    if (slot) *slot = at;
    return -1;
}

static int table_add(struct cursor *c, struct table *t, uint32_t i) {
    uint32_t slot;
    const struct qn_str *s = name_at(c->g, t, i);
    if (table_find(c->g, t, *s, &slot) >= 0)
        return qn_fail(c->err, QN_E_DATA, "gguf: at byte %llu: %s '%.*s' comes twice", (unsigned long long)c->at,
                       t == &c->g->key_table ? "key" : "tensor", (int)(s->n < 64 ? s->n : 64), s->p);
    t->slot[slot] = i + 1;
    return 0;
}

/* --- tensors -------------------------------------------------------------------------------------------------------- */

static int tensor_bytes(struct cursor *c, struct qn_tensor *t) {
    const struct qn_type_info *info = qn_type_info(t->type);
    uint64_t elems = 1, blocks;
    for (int i = 0; i < t->n_dims; i++) {
        if (t->dim[i] == 0) return bad(c, "a tensor with an empty dimension");
        if (qn_mul_u64(elems, t->dim[i], &elems) || elems > INT64_MAX) return bad(c, "a tensor's element count overflows");
    }
    if (t->dim[0] % (uint64_t)info->block_elems) return bad(c, "a tensor's rows are not whole blocks of its type");
    blocks = elems / (uint64_t)info->block_elems;
    return qn_mul_u64(blocks, (uint64_t)info->block_bytes, &t->n_bytes) ? bad(c, "a tensor's size overflows") : 0;
}

/* offset is kept in data until the data section's place is known. */
static int read_tensor(struct cursor *c, struct qn_tensor *t, uint64_t *offset) {
    uint32_t n_dims, type;
    if (read_str(c, NAME_BYTES_MAX, &t->name) < 0 || read_u32(c, &n_dims) < 0) return QN_E_DATA;
    if (t->name.n == 0) return bad(c, "a tensor without a name");
    if (memchr(t->name.p, 0, t->name.n)) return bad(c, "a tensor with a NUL in its name");
    if (n_dims < 1 || n_dims > 4) return bad(c, "a tensor of 0 or more than 4 dimensions");
    t->n_dims = (int)n_dims;
    for (uint32_t i = 0; i < 4; i++) {
        t->dim[i] = 1;
        if (i < n_dims && read_u64(c, &t->dim[i]) < 0) return QN_E_DATA;
    }
    if (read_u32(c, &type) < 0 || read_u64(c, offset) < 0) return QN_E_DATA;
    if (!qn_type_info(type))
        return qn_fail(c->err, QN_E_UNSUPPORTED, "gguf: at byte %llu: tensor '%.*s' has type %u, which is not one we read",
                       (unsigned long long)c->at, (int)t->name.n, t->name.p, type);
    t->type = (enum qn_type)type;
    return tensor_bytes(c, t);
}

static int by_place(const void *a, const void *b) {
    const struct qn_tensor *x = *(const struct qn_tensor *const *)a, *y = *(const struct qn_tensor *const *)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static int check_overlap(struct cursor *c) {
    struct qn_gguf *g = c->g;
    const struct qn_tensor **order = calloc(g->n_tensors + 1, sizeof *order);
    if (!order) return qn_fail(c->err, QN_E_NOMEM, "gguf: no memory");
    for (uint64_t i = 0; i < g->n_tensors; i++) order[i] = &g->tensors[i];
    qsort(order, g->n_tensors, sizeof *order, by_place);
    int rc = 0;
    for (uint64_t i = 1; i < g->n_tensors && rc == 0; i++) {
        const struct qn_tensor *a = order[i - 1], *b = order[i];
        if ((const char *)a->data + a->n_bytes > (const char *)b->data)
            rc = qn_fail(c->err, QN_E_DATA, "gguf: at byte %llu: tensors '%.*s' and '%.*s' overlap",
                         (unsigned long long)((const char *)b->data - g->base), (int)a->name.n, a->name.p, (int)b->name.n, b->name.p);
    }
    free(order);
    return rc;
}

static int place_tensors(struct cursor *c, const uint64_t *offsets, uint64_t align) {
    struct qn_gguf *g = c->g;
    uint64_t data_at;
    if (qn_align_u64(c->at, align, &data_at)) return bad(c, "the data section's offset overflows");
    if (g->n_tensors && data_at > g->size) return bad(c, "the file ends before its data section");
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct qn_tensor *t = &g->tensors[i];
        uint64_t from = 0, end = 0;
        int beyond = qn_add_u64(data_at, offsets[i], &from) || qn_add_u64(from, t->n_bytes, &end) || end > g->size;
        if (offsets[i] % align || beyond)
            return qn_fail(c->err, QN_E_DATA, "gguf: tensor '%.*s' at offset %llu (%llu bytes) %s", (int)t->name.n, t->name.p,
                           (unsigned long long)offsets[i], (unsigned long long)t->n_bytes,
                           beyond ? "reaches past the end of the file" : "is not aligned");
        t->data = g->base + from;
    }
    return check_overlap(c);
}

/* --- the whole ------------------------------------------------------------------------------------------------------ */

static int read_header(struct cursor *c) {
    char magic[4];
    uint32_t version;
    struct qn_gguf *g = c->g;
    if (read_bytes(c, magic, 4, "the file is shorter than its magic") < 0) return QN_E_DATA;
    c->at = 0;
    if (memcmp(magic, "GGUF", 4)) return bad(c, "not a GGUF file");
    c->at = 4;
    if (read_u32(c, &version) < 0) return QN_E_DATA;
    if (version != 2 && version != 3)
        return qn_fail(c->err, QN_E_UNSUPPORTED, "gguf: at byte 4: version %u, want 2 or 3%s", version, version > 0xFFFF ? " (big-endian file?)" : "");
    if (read_u64(c, &g->n_tensors) < 0 || read_u64(c, &g->n_keys) < 0) return QN_E_DATA;
    /* The least that one of each takes bounds both counts by what is there. */
    if (g->n_tensors > TENSORS_MAX || g->n_tensors > left(c) / 32) return bad(c, "more tensors than 100,000 or than the file can hold");
    if (g->n_keys > KEYS_MAX || g->n_keys > left(c) / 13) return bad(c, "more keys than 100,000 or than the file can hold");
    g->keys = calloc(g->n_keys + 1, sizeof *g->keys);
    g->tensors = calloc(g->n_tensors + 1, sizeof *g->tensors);
    if (!g->keys || !g->tensors || table_init(&g->key_table, g->n_keys) < 0 || table_init(&g->tensor_table, g->n_tensors) < 0)
        return qn_fail(c->err, QN_E_NOMEM, "gguf: no memory for %llu tensors", (unsigned long long)g->n_tensors);
    return 0;
}

static int read_alignment(struct cursor *c, uint64_t *align) {
    *align = ALIGN_DEFAULT;
    uint32_t v;
    int64_t i = table_find(c->g, &c->g->key_table, (struct qn_str){"general.alignment", 17}, NULL);
    if (i < 0) return 0;
    const struct entry *e = &c->g->keys[i];
    if (e->type != V_U32) return bad(c, "general.alignment is not a u32");
    memcpy(&v, e->p, 4);
    if (v < ALIGN_LEAST || v > ALIGN_MOST || (v & (v - 1))) return bad(c, "general.alignment is not a power of two in 8..4096");
    *align = v;
    return 0;
}

static int read_all(struct cursor *c) {
    struct qn_gguf *g = c->g;
    int rc = read_header(c);
    for (uint32_t i = 0; rc == 0 && i < g->n_keys; i++) {
        rc = read_entry(c, &g->keys[i]);
        if (rc == 0) rc = table_add(c, &g->key_table, i);
    }
    if (rc < 0) return rc;
    uint64_t align, *offsets = calloc(g->n_tensors + 1, sizeof *offsets);
    if (!offsets) return qn_fail(c->err, QN_E_NOMEM, "gguf: no memory");
    rc = read_alignment(c, &align);
    for (uint32_t i = 0; rc == 0 && i < g->n_tensors; i++) {
        rc = read_tensor(c, &g->tensors[i], &offsets[i]);
        if (rc == 0) rc = table_add(c, &g->tensor_table, i);
    }
    if (rc == 0) rc = place_tensors(c, offsets, align);
    free(offsets);
    return rc;
}

static int open_bytes(struct qn_gguf **out, const void *bytes, size_t n, int mapped, struct qn_err *err) {
    struct qn_gguf *g = calloc(1, sizeof *g);
    if (!g) {
        if (mapped) munmap((void *)(uintptr_t)bytes, n);
        return qn_fail(err, QN_E_NOMEM, "gguf: no memory");
    }
    *g = (struct qn_gguf){.base = bytes, .size = n, .mapped = mapped};
    struct qn_err own = {0};
    struct cursor c = {.g = g, .err = err ? err : &own};
    int rc = qn_rng_bytes(g->secret, sizeof g->secret) < 0 ? qn_fail(c.err, QN_E_IO, "gguf: getrandom failed") : read_all(&c);
    if (rc < 0) {
        rc = c.err->code;
        qn_gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

int qn_gguf_parse(struct qn_gguf **out, const void *bytes, size_t n, struct qn_err *err) { return open_bytes(out, bytes, n, 0, err); }

int qn_gguf_open(struct qn_gguf **out, const char *path, struct qn_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0) return qn_fail(err, errno == ENOENT ? QN_E_NOT_FOUND : QN_E_IO, "model '%s': %s", path, strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0) {
        close(fd);
        return qn_fail(err, QN_E_DATA, "model '%s': not a regular file with anything in it", path);
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int why = errno;
    close(fd);
    if (p == MAP_FAILED) return qn_fail(err, QN_E_IO, "model '%s': mmap: %s", path, strerror(why));
    return open_bytes(out, p, (size_t)st.st_size, 1, err);
}

void qn_gguf_close(struct qn_gguf *g) {
    if (!g) return;
    for (uint64_t i = 0; g->keys && i < g->n_keys; i++) free(g->keys[i].strs);
    free(g->keys);
    free(g->tensors);
    free(g->key_table.slot);
    free(g->tensor_table.slot);
    if (g->mapped) munmap((void *)(uintptr_t)g->base, g->size);
    free(g);
}

/* --- looking up ----------------------------------------------------------------------------------------------------- */

uint64_t qn_gguf_n_tensors(const struct qn_gguf *g) { return g->n_tensors; }
const struct qn_tensor *qn_gguf_tensor_at(const struct qn_gguf *g, uint64_t i) { return i < g->n_tensors ? &g->tensors[i] : NULL; }

const struct qn_tensor *qn_gguf_tensor(const struct qn_gguf *g, const char *name) {
    int64_t i = table_find(g, &g->tensor_table, (struct qn_str){name, strlen(name)}, NULL);
    return i < 0 ? NULL : &g->tensors[i];
}

void qn_gguf_forget(const struct qn_gguf *g, const struct qn_tensor *t) {
    if (!g->mapped) return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)t->data + page - 1) & ~(page - 1);
    uintptr_t to = ((uintptr_t)t->data + t->n_bytes) & ~(page - 1);
    if (from < to) madvise((void *)from, to - from, MADV_DONTNEED); /* a private, read-only file mapping: nothing is lost */
}

static const struct entry *find(const struct qn_gguf *g, const char *key) {
    int64_t i = table_find(g, &g->key_table, (struct qn_str){key, strlen(key)}, NULL);
    return i < 0 ? NULL : &g->keys[i];
}

/* Element i of a numeric value as i64; 0, or QN_E_DATA when it is not an integer or does not fit. */
static int get_i64(uint32_t type, const char *p, uint64_t i, int64_t *out) {
    uint64_t v = 0;
    memcpy(&v, p + i * value_bytes[type], value_bytes[type]);
    switch (type) {
    case V_U8: case V_U16: case V_U32: case V_BOOL: *out = (int64_t)v; return 0;
    case V_I8: *out = (int8_t)v; return 0;
    case V_I16: *out = (int16_t)v; return 0;
    case V_I32: *out = (int32_t)v; return 0;
    case V_I64: *out = (int64_t)v; return 0;
    case V_U64:
        if (v > INT64_MAX) return QN_E_DATA;
        *out = (int64_t)v;
        return 0;
    default: return QN_E_DATA;
    }
}

static int get_f64(uint32_t type, const char *p, uint64_t i, double *out) {
    float f;
    if (type == V_F32) {
        memcpy(&f, p + i * 4, 4);
        *out = (double)f;
    } else if (type == V_F64) {
        memcpy(out, p + i * 8, 8);
    } else {
        return QN_E_DATA;
    }
    return 0;
}

int qn_gguf_i64(const struct qn_gguf *g, const char *key, int64_t *out) {
    const struct entry *e = find(g, key);
    if (!e) return QN_E_NOT_FOUND;
    return e->type == V_ARRAY || e->type == V_STR || e->type == V_BOOL ? QN_E_DATA : get_i64(e->type, e->p, 0, out);
}

int qn_gguf_u64(const struct qn_gguf *g, const char *key, uint64_t *out) {
    const struct entry *e = find(g, key);
    int64_t v;
    if (e && e->type == V_U64) {
        memcpy(out, e->p, 8);
        return 0;
    }
    int rc = qn_gguf_i64(g, key, &v);
    if (rc < 0) return rc;
    if (v < 0) return QN_E_DATA;
    *out = (uint64_t)v;
    return 0;
}

int qn_gguf_f64(const struct qn_gguf *g, const char *key, double *out) {
    const struct entry *e = find(g, key);
    if (!e) return QN_E_NOT_FOUND;
    return get_f64(e->type, e->p, 0, out);
}

int qn_gguf_bool(const struct qn_gguf *g, const char *key, int *out) {
    const struct entry *e = find(g, key);
    if (!e) return QN_E_NOT_FOUND;
    if (e->type != V_BOOL) return QN_E_DATA;
    *out = *e->p != 0;
    return 0;
}

int qn_gguf_str(const struct qn_gguf *g, const char *key, struct qn_str *out) {
    const struct entry *e = find(g, key);
    uint64_t n;
    if (!e) return QN_E_NOT_FOUND;
    if (e->type != V_STR) return QN_E_DATA;
    memcpy(&n, e->p, 8);
    *out = (struct qn_str){e->p + 8, n};
    return 0;
}

static const struct entry *find_array(const struct qn_gguf *g, const char *key, int *rc) {
    const struct entry *e = find(g, key);
    *rc = !e ? QN_E_NOT_FOUND : e->type != V_ARRAY ? QN_E_DATA : 0;
    return *rc < 0 ? NULL : e;
}

int qn_gguf_array_n(const struct qn_gguf *g, const char *key, uint64_t *n) {
    int rc;
    const struct entry *e = find_array(g, key, &rc);
    if (e) *n = e->n;
    return rc;
}

int qn_gguf_array_strs(const struct qn_gguf *g, const char *key, const struct qn_str **out, uint64_t *n) {
    int rc;
    const struct entry *e = find_array(g, key, &rc);
    if (!e) return rc;
    if (e->elem != V_STR) return QN_E_DATA;
    *out = e->strs;
    *n = e->n;
    return 0;
}

int qn_gguf_array_i64(const struct qn_gguf *g, const char *key, int64_t *out, uint64_t cap, uint64_t *n) {
    int rc;
    const struct entry *e = find_array(g, key, &rc);
    if (!e) return rc;
    if (e->elem == V_STR || e->elem == V_F32 || e->elem == V_F64) return QN_E_DATA;
    *n = e->n;
    for (uint64_t i = 0; i < e->n && i < cap; i++)
        if (get_i64(e->elem, e->p, i, &out[i]) < 0) return QN_E_DATA;
    return 0;
}

int qn_gguf_array_f32(const struct qn_gguf *g, const char *key, float *out, uint64_t cap, uint64_t *n) {
    int rc;
    const struct entry *e = find_array(g, key, &rc);
    double v;
    if (!e) return rc;
    if (e->elem != V_F32 && e->elem != V_F64) return QN_E_DATA;
    *n = e->n;
    for (uint64_t i = 0; i < e->n && i < cap; i++) {
        if (get_f64(e->elem, e->p, i, &v) < 0) return QN_E_DATA;
        out[i] = (float)v;
    }
    return 0;
}
