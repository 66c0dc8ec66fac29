/* GGUF reader for hostile files (format: ggml/docs/gguf.md, versions 2 and 3, little-endian).
 *
 *   "GGUF" | u32 version | u64 n_tensors | u64 n_kv | kv... | tensor info... | padding | tensor data...
 *
 * One pass checks everything; only then is anything handed out. Limits: 100,000 keys and as many tensors, keys of 65,535
 * bytes, strings of 16 MiB, arrays of 10 million elements and none nested, tensor names below 64 bytes, 1 to 4
 * dimensions, alignment a power of two from 8 to 4096 in a u32. Every count is held against the bytes left before
 * memory is taken for it, sizes go through base/chk.h, and tensors may neither leave the file nor overlap.
 *
 * Keys and tensors are found by binary search in sorted indices: that also finds duplicates, and unlike a hash table it
 * has no bad case that a file could aim at. Arrays of strings get an index when they are read (a vocabulary has 262,144
 * of them, and walking is the only other way). A file that shrinks while it is mapped is the operator's to avoid:
 * replace models by rename. Thread: see gguf.h. */
#include "engine/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/chk.h"

enum { KEYS_MAX = 100000, TENSORS_MAX = 100000, KEY_BYTES_MAX = 65535, NAME_BYTES_MAX = 63, DIMS_MAX = 4 };
enum { ALIGN_DEFAULT = 32, ALIGN_MIN = 8, ALIGN_MAX = 4096 };
enum { KV_BYTES_MIN = 8 + 1 + 4 + 1, INFO_BYTES_MIN = 8 + 1 + 4 + 8 + 4 + 8 };
static const uint64_t STRING_BYTES_MAX = 16u << 20, ARRAY_MAX = 10000000, FILE_BYTES_MAX = 1ULL << 50;

enum kv_type { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, KV_TYPES };
static const uint8_t width_of[KV_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct kv {
    struct qn_str key;
    enum kv_type type;      /* of the value, or of an array's elements */
    int is_array;
    uint64_t n;             /* elements: 1 for a scalar */
    const uint8_t *value;   /* packed numbers, or the first string's length */
    struct qn_str *strs;    /* array of strings: owned index */
};

struct qn_gguf {
    const uint8_t *bytes;
    uint64_t n_bytes;
    int mapped;
    struct kv *kvs;         /* sorted by key once read */
    uint64_t n_kvs;
    struct qn_tensor *tensors;          /* in file order */
    struct qn_tensor **by_name;         /* sorted */
    uint64_t n_tensors;
};

struct reader {
    const uint8_t *p;
    uint64_t n, at;
    struct qn_err *err;
};

/* A name made fit for a message: printable ASCII, at most 64 bytes. */
struct shown { char s[68]; };
static struct shown show(struct qn_str s) {
    struct shown out;
    size_t n = s.n < 64 ? s.n : 64, i;
    for (i = 0; i < n; i++) out.s[i] = s.p[i] >= 0x20 && s.p[i] < 0x7F ? s.p[i] : '?';
    out.s[i] = 0;
    if (s.n > 64) memcpy(out.s + 61, "...", 4);
    return out;
}
#define SHOW(str) (show(str).s)
#define AT(x) ((unsigned long long)(x))

static const uint8_t *take(struct reader *r, uint64_t n, const char *what) {
    if (n > r->n - r->at) {
        qn_fail(r->err, QN_E_DATA, "offset %llu: %s needs %llu bytes, the file has %llu left", AT(r->at), what, AT(n), AT(r->n - r->at));
        return NULL;
    }
    const uint8_t *p = r->p + r->at;
    r->at += n; /* <= r->n */
    return p;
}

static int get_u32(struct reader *r, const char *what, uint32_t *out) {
    const uint8_t *p = take(r, sizeof *out, what);
    if (!p) return QN_E_DATA;
    memcpy(out, p, sizeof *out);
    return 0;
}

static int get_u64(struct reader *r, const char *what, uint64_t *out) {
    const uint8_t *p = take(r, sizeof *out, what);
    if (!p) return QN_E_DATA;
    memcpy(out, p, sizeof *out);
    return 0;
}

static int get_str(struct reader *r, const char *what, uint64_t max, struct qn_str *out) {
    uint64_t start = r->at, n;
    int rc = get_u64(r, what, &n);
    if (rc < 0) return rc;
    if (n > max) return qn_fail(r->err, QN_E_DATA, "offset %llu: %s of %llu bytes, the limit is %llu", AT(start), what, AT(n), AT(max));
    const uint8_t *p = take(r, n, what);
    if (!p) return QN_E_DATA;
    *out = (struct qn_str){(const char *)p, (size_t)n};
    return 0;
}

static int compare(struct qn_str a, struct qn_str b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

static int kv_order(const void *a, const void *b) { return compare(((const struct kv *)a)->key, ((const struct kv *)b)->key); }

static int name_order(const void *a, const void *b) {
    return compare((*(struct qn_tensor *const *)a)->name, (*(struct qn_tensor *const *)b)->name);
}

static int data_order(const void *a, const void *b) {
    const struct qn_tensor *x = *(struct qn_tensor *const *)a, *y = *(struct qn_tensor *const *)b;
    const uint8_t *p = x->data, *q = y->data;
    return p < q ? -1 : p > q;
}

static int plain_name(struct qn_str s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] >= 0x7F) return 0;
    return s.n > 0;
}

static int bools_hold(const uint8_t *p, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1) return 0;
    return 1;
}

static int read_strings(struct reader *r, struct kv *kv, const char *key) {
    if (kv->n > (r->n - r->at) / sizeof(uint64_t))
        return qn_fail(r->err, QN_E_DATA, "offset %llu: key '%s': %llu strings cannot fit in the %llu bytes left", AT(r->at), key, AT(kv->n), AT(r->n - r->at));
    kv->strs = calloc(kv->n ? kv->n : 1, sizeof *kv->strs);
    if (!kv->strs) return qn_fail(r->err, QN_E_NOMEM, "key '%s': no memory for %llu strings", key, AT(kv->n));
    for (uint64_t i = 0; i < kv->n; i++) {
        int rc = get_str(r, "a string of an array", STRING_BYTES_MAX, &kv->strs[i]);
        if (rc < 0) return rc;
    }
    return 0;
}

static int read_value(struct reader *r, struct kv *kv, const char *key) {
    if (kv->is_array && kv->type == STRING) return read_strings(r, kv, key);
    if (kv->type == STRING) {
        struct qn_str s;
        kv->value = r->p + r->at;
        return get_str(r, "a string", STRING_BYTES_MAX, &s);
    }
    uint64_t start = r->at, n;
    if (qn_mul_u64(kv->n, width_of[kv->type], &n)) return qn_fail(r->err, QN_E_DATA, "offset %llu: key '%s': array size overflows", AT(start), key);
    kv->value = take(r, n, "a value");
    if (!kv->value) return QN_E_DATA;
    if (kv->type == BOOL && !bools_hold(kv->value, n))
        return qn_fail(r->err, QN_E_DATA, "offset %llu: key '%s': a bool is neither 0 nor 1", AT(start), key);
    return 0;
}

static int read_kv(struct reader *r, struct kv *kv) {
    uint64_t start = r->at;
    int rc = get_str(r, "a key", KEY_BYTES_MAX, &kv->key);
    if (rc < 0) return rc;
    if (!plain_name(kv->key)) return qn_fail(r->err, QN_E_DATA, "offset %llu: key '%s' is empty or not plain ASCII", AT(start), SHOW(kv->key));
    struct shown key = show(kv->key);
    uint32_t type;
    if ((rc = get_u32(r, "a value type", &type)) < 0) return rc;
    kv->n = 1;
    if (type == ARRAY) {
        kv->is_array = 1;
        if ((rc = get_u32(r, "an element type", &type)) < 0) return rc;
        if ((rc = get_u64(r, "an array length", &kv->n)) < 0) return rc;
        if (type == ARRAY) return qn_fail(r->err, QN_E_DATA, "offset %llu: key '%s': arrays of arrays are not taken", AT(start), key.s);
        if (kv->n > ARRAY_MAX)
            return qn_fail(r->err, QN_E_DATA, "offset %llu: key '%s': %llu elements, the limit is %llu", AT(start), key.s, AT(kv->n), AT(ARRAY_MAX));
    }
    if (type >= KV_TYPES) return qn_fail(r->err, QN_E_DATA, "offset %llu: key '%s': unknown value type %u", AT(start), key.s, type);
    kv->type = (enum kv_type)type;
    return read_value(r, kv, key.s);
}

static int read_kvs(struct qn_gguf *g, struct reader *r, uint64_t n) {
    g->kvs = calloc(n ? n : 1, sizeof *g->kvs);
    if (!g->kvs) return qn_fail(r->err, QN_E_NOMEM, "no memory for %llu keys", AT(n));
    for (uint64_t i = 0; i < n; i++) {
        g->n_kvs = i + 1; /* counts the one being read, so that close frees its index */
        int rc = read_kv(r, &g->kvs[i]);
        if (rc < 0) return rc;
    }
    qsort(g->kvs, n, sizeof *g->kvs, kv_order);
    for (uint64_t i = 1; i < n; i++)
        if (compare(g->kvs[i - 1].key, g->kvs[i].key) == 0) return qn_fail(r->err, QN_E_DATA, "key '%s' appears twice", SHOW(g->kvs[i].key));
    return 0;
}

static const struct kv *find_kv(const struct qn_gguf *g, const char *key) {
    struct kv want = {.key = {key, strlen(key)}};
    return g->n_kvs ? bsearch(&want, g->kvs, g->n_kvs, sizeof want, kv_order) : NULL;
}

static int read_alignment(const struct qn_gguf *g, uint64_t *out, struct qn_err *err) {
    const struct kv *kv = find_kv(g, "general.alignment");
    *out = ALIGN_DEFAULT;
    if (!kv) return 0;
    uint32_t a;
    if (kv->type != U32 || kv->is_array) return qn_fail(err, QN_E_DATA, "key 'general.alignment' is not a u32");
    memcpy(&a, kv->value, sizeof a);
    if (a < ALIGN_MIN || a > ALIGN_MAX || (a & (a - 1)))
        return qn_fail(err, QN_E_DATA, "key 'general.alignment' is %u, not a power of two from %d to %d", a, ALIGN_MIN, ALIGN_MAX);
    *out = a;
    return 0;
}

/* Types that exist but that we do not read, for a message that helps. */
static const char *foreign_type(uint32_t type) {
    static const char *const names[] = {
        [9] = "Q8_1", [15] = "Q8_K", [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [21] = "IQ3_S",
        [22] = "IQ2_S", [23] = "IQ4_XS", [24] = "I8", [25] = "I16", [26] = "I32", [27] = "I64", [28] = "F64", [29] = "IQ1_M",
        [34] = "TQ1_0", [35] = "TQ2_0", [39] = "MXFP4",
    };
    return type < sizeof names / sizeof *names && names[type] ? names[type] : "unknown";
}

/* Product of the dimensions -> bytes, all checked. */
static int tensor_bytes(struct qn_tensor *t, uint64_t start, struct qn_err *err) {
    const struct qn_type_info *ti = qn_type_info((uint32_t)t->type);
    uint64_t elems = 1;
    for (int d = 0; d < t->n_dims; d++) {
        if (t->dim[d] == 0) return qn_fail(err, QN_E_DATA, "offset %llu: tensor '%s': dimension %d is 0", AT(start), SHOW(t->name), d);
        if (qn_mul_u64(elems, t->dim[d], &elems) || elems > FILE_BYTES_MAX)
            return qn_fail(err, QN_E_DATA, "offset %llu: tensor '%s': its dimensions overflow", AT(start), SHOW(t->name));
    }
    uint64_t block = (uint64_t)ti->block_elems;
    if (t->dim[0] % block)
        return qn_fail(err, QN_E_DATA, "offset %llu: tensor '%s': rows of %llu elements are not whole %s blocks of %llu", AT(start), SHOW(t->name), AT(t->dim[0]), ti->name, AT(block));
    if (qn_mul_u64(elems / block, (uint64_t)ti->block_bytes, &t->n_bytes))
        return qn_fail(err, QN_E_DATA, "offset %llu: tensor '%s': its size overflows", AT(start), SHOW(t->name));
    return 0;
}

/* `where` gets the offset from the start of the data, which is known only after the last info. */
static int read_info(struct reader *r, struct qn_tensor *t, uint64_t *where) {
    uint64_t start = r->at;
    uint32_t n_dims, type;
    int rc = get_str(r, "a tensor name", NAME_BYTES_MAX, &t->name);
    if (rc < 0) return rc;
    if (!plain_name(t->name)) return qn_fail(r->err, QN_E_DATA, "offset %llu: tensor name '%s' is empty or not plain ASCII", AT(start), SHOW(t->name));
    if ((rc = get_u32(r, "a number of dimensions", &n_dims)) < 0) return rc;
    if (n_dims < 1 || n_dims > DIMS_MAX)
        return qn_fail(r->err, QN_E_DATA, "offset %llu: tensor '%s' has %u dimensions, not 1 to %d", AT(start), SHOW(t->name), n_dims, DIMS_MAX);
    t->n_dims = (int)n_dims;
    for (int d = 0; d < DIMS_MAX; d++) t->dim[d] = 1;
    for (int d = 0; d < t->n_dims; d++)
        if ((rc = get_u64(r, "a dimension", &t->dim[d])) < 0) return rc;
    if ((rc = get_u32(r, "a tensor type", &type)) < 0) return rc;
    if (!qn_type_info(type))
        return qn_fail(r->err, QN_E_UNSUPPORTED, "offset %llu: tensor '%s' has type %u (%s), which is not supported", AT(start), SHOW(t->name), type, foreign_type(type));
    t->type = (enum qn_type)type;
    if ((rc = get_u64(r, "a tensor offset", where)) < 0) return rc;
    return tensor_bytes(t, start, r->err);
}

static int place(const struct qn_gguf *g, struct qn_tensor *t, uint64_t data, uint64_t where, uint64_t align, struct qn_err *err) {
    uint64_t from, to;
    if (where % align)
        return qn_fail(err, QN_E_DATA, "tensor '%s': offset %llu is not a multiple of the alignment %llu", SHOW(t->name), AT(where), AT(align));
    if (qn_add_u64(data, where, &from) || qn_add_u64(from, t->n_bytes, &to))
        return qn_fail(err, QN_E_DATA, "tensor '%s': offset %llu overflows", SHOW(t->name), AT(where));
    if (to > g->n_bytes)
        return qn_fail(err, QN_E_DATA, "tensor '%s': bytes %llu to %llu lie past the end of the file (%llu bytes): is the download complete?", SHOW(t->name), AT(from), AT(to), AT(g->n_bytes));
    t->data = g->bytes + from;
    return 0;
}

static int no_duplicates(struct qn_gguf *g, struct qn_err *err) {
    for (uint64_t i = 0; i < g->n_tensors; i++) g->by_name[i] = &g->tensors[i];
    qsort(g->by_name, g->n_tensors, sizeof *g->by_name, data_order);
    for (uint64_t i = 1; i < g->n_tensors; i++) {
        const struct qn_tensor *a = g->by_name[i - 1], *b = g->by_name[i];
        if ((const uint8_t *)b->data < (const uint8_t *)a->data + a->n_bytes)
            return qn_fail(err, QN_E_DATA, "offset %llu: tensors '%s' and '%s' overlap", AT((const uint8_t *)b->data - g->bytes), SHOW(a->name), SHOW(b->name));
    }
    qsort(g->by_name, g->n_tensors, sizeof *g->by_name, name_order);
    for (uint64_t i = 1; i < g->n_tensors; i++)
        if (compare(g->by_name[i - 1]->name, g->by_name[i]->name) == 0) return qn_fail(err, QN_E_DATA, "tensor '%s' appears twice", SHOW(g->by_name[i]->name));
    return 0;
}

static int read_tensors(struct qn_gguf *g, struct reader *r, uint64_t n) {
    uint64_t align = ALIGN_DEFAULT, data = 0, *where = calloc(n ? n : 1, sizeof *where);
    g->tensors = calloc(n ? n : 1, sizeof *g->tensors);
    g->by_name = calloc(n ? n : 1, sizeof *g->by_name);
    int rc = where && g->tensors && g->by_name ? 0 : qn_fail(r->err, QN_E_NOMEM, "no memory for %llu tensors", AT(n));
    for (uint64_t i = 0; rc == 0 && i < n; i++) rc = read_info(r, &g->tensors[i], &where[i]);
    if (rc == 0) rc = read_alignment(g, &align, r->err);
    if (rc == 0 && qn_align_u64(r->at, align, &data)) rc = qn_fail(r->err, QN_E_DATA, "offset %llu: no room for tensor data", AT(r->at));
    for (uint64_t i = 0; rc == 0 && i < n; i++) rc = place(g, &g->tensors[i], data, where[i], align, r->err);
    free(where);
    if (rc < 0) return rc;
    g->n_tensors = n;
    return no_duplicates(g, r->err);
}

static int read_all(struct qn_gguf *g, struct qn_err *err) {
    struct reader r = {g->bytes, g->n_bytes, 0, err};
    uint32_t version;
    uint64_t n_tensors, n_kvs;
    const uint8_t *magic = take(&r, 4, "the magic");
    if (!magic) return QN_E_DATA;
    if (memcmp(magic, "GGUF", 4)) return qn_fail(err, QN_E_DATA, "offset 0: not a GGUF file (it starts with %02x %02x %02x %02x)", magic[0], magic[1], magic[2], magic[3]);
    int rc = get_u32(&r, "the version", &version);
    if (rc < 0) return rc;
    if ((version & 0xFFFF) == 0 && version) return qn_fail(err, QN_E_UNSUPPORTED, "offset 4: version %u: a big-endian GGUF file", version);
    if (version < 2 || version > 3) return qn_fail(err, QN_E_UNSUPPORTED, "offset 4: GGUF version %u; 2 and 3 are supported", version);
    if ((rc = get_u64(&r, "the number of tensors", &n_tensors)) < 0) return rc;
    if ((rc = get_u64(&r, "the number of keys", &n_kvs)) < 0) return rc;
    uint64_t left = r.n - r.at;
    if (n_tensors > TENSORS_MAX || n_tensors > left / INFO_BYTES_MIN)
        return qn_fail(err, QN_E_DATA, "offset 8: %llu tensors; the limit is %d and %llu bytes are left", AT(n_tensors), TENSORS_MAX, AT(left));
    if (n_kvs > KEYS_MAX || n_kvs > left / KV_BYTES_MIN)
        return qn_fail(err, QN_E_DATA, "offset 16: %llu keys; the limit is %d and %llu bytes are left", AT(n_kvs), KEYS_MAX, AT(left));
    if ((rc = read_kvs(g, &r, n_kvs)) < 0) return rc;
    return read_tensors(g, &r, n_tensors);
}

static int start(struct qn_gguf **out, const void *bytes, uint64_t n, int mapped, struct qn_err *err) {
    struct qn_gguf *g = calloc(1, sizeof *g);
    if (!g) {
        if (mapped) munmap((void *)(uintptr_t)bytes, n);
        return qn_fail(err, QN_E_NOMEM, "no memory");
    }
    *g = (struct qn_gguf){.bytes = bytes, .n_bytes = n, .mapped = mapped};
    int rc = n > FILE_BYTES_MAX ? qn_fail(err, QN_E_DATA, "a file of %llu bytes", AT(n)) : read_all(g, err);
    if (rc < 0) qn_gguf_close(g);
    else *out = g;
    return rc;
}

int qn_gguf_parse(struct qn_gguf **out, const void *bytes, size_t n, struct qn_err *err) { return start(out, bytes, n, 0, err); }

/* O_NONBLOCK: a FIFO in the model's place must not hang the start. */
static int map_file(const char *path, void **p, uint64_t *n, struct qn_err *err) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return qn_fail(err, errno == ENOENT ? QN_E_NOT_FOUND : QN_E_IO, "cannot open: %s", strerror(errno));
    int rc = fstat(fd, &st) ? qn_fail(err, QN_E_IO, "fstat: %s", strerror(errno)) : 0;
    if (rc == 0 && !S_ISREG(st.st_mode)) rc = qn_fail(err, QN_E_DATA, "not a regular file");
    if (rc == 0 && st.st_size <= 0) rc = qn_fail(err, QN_E_DATA, "offset 0: the file is empty");
    if (rc == 0) {
        *n = (uint64_t)st.st_size;
        *p = mmap(NULL, *n, PROT_READ, MAP_PRIVATE, fd, 0);
        if (*p == MAP_FAILED) rc = qn_fail(err, QN_E_IO, "mmap of %llu bytes: %s", AT(*n), strerror(errno));
    }
    close(fd);
    return rc;
}

int qn_gguf_open(struct qn_gguf **out, const char *path, struct qn_err *err) {
    struct qn_err why = {0};
    void *p = NULL;
    uint64_t n = 0;
    int rc = map_file(path, &p, &n, &why);
    if (rc == 0) rc = start(out, p, n, 1, &why);
    if (rc < 0) { /* the reason matters more than the head of a long path */
        size_t len = strlen(path), from = len > 100 ? len - 100 : 0;
        qn_fail(err, rc, "model file '%s%s': %s", from ? "..." : "", path + from, why.text);
    }
    return rc;
}

void qn_gguf_close(struct qn_gguf *g) {
    if (!g) return;
    for (uint64_t i = 0; g->kvs && i < g->n_kvs; i++) free(g->kvs[i].strs);
    free(g->kvs);
    free(g->tensors);
    free(g->by_name);
    if (g->mapped) munmap((void *)(uintptr_t)g->bytes, g->n_bytes);
    free(g);
}

uint64_t qn_gguf_n_tensors(const struct qn_gguf *g) { return g->n_tensors; }
const struct qn_tensor *qn_gguf_tensor_at(const struct qn_gguf *g, uint64_t i) { return i < g->n_tensors ? &g->tensors[i] : NULL; }

const struct qn_tensor *qn_gguf_tensor(const struct qn_gguf *g, const char *name) {
    struct qn_tensor want = {.name = {name, strlen(name)}}, *key = &want;
    struct qn_tensor **hit = g->n_tensors ? bsearch(&key, g->by_name, g->n_tensors, sizeof *g->by_name, name_order) : NULL;
    return hit ? *hit : NULL;
}

void qn_gguf_forget(const struct qn_gguf *g, const struct qn_tensor *t) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)t->data, to = from + t->n_bytes;
    from = (from + page - 1) & ~(page - 1); /* whole pages only: the neighbours may still be wanted */
    to &= ~(page - 1);
    if (g->mapped && from < to) madvise((void *)from, to - from, MADV_DONTNEED);
}

/* Element i of a number of any integer type (bool as 0 or 1). Returns 1 when it is negative. */
static int integer(const struct kv *kv, uint64_t i, uint64_t *out) {
    int64_t s = 0;
    uint64_t u = 0;
    const uint8_t *p = kv->value + i * width_of[kv->type]; /* inside what read_value took */
    switch (kv->type) {
    case I8: s = (int8_t)*p; break;
    case I16: { int16_t v; memcpy(&v, p, sizeof v); s = v; break; }
    case I32: { int32_t v; memcpy(&v, p, sizeof v); s = v; break; }
    case I64: memcpy(&s, p, sizeof s); break;
    default: memcpy(&u, p, width_of[kv->type]); *out = u; return 0;
    }
    *out = (uint64_t)s;
    return s < 0;
}

static double real(const struct kv *kv, uint64_t i) {
    float f;
    double d;
    if (kv->type == F64) return memcpy(&d, kv->value + i * sizeof d, sizeof d), d;
    return memcpy(&f, kv->value + i * sizeof f, sizeof f), (double)f;
}

static int is_integer(const struct kv *kv) { return kv->type <= I32 || kv->type == U64 || kv->type == I64; }
static int is_real(const struct kv *kv) { return kv->type == F32 || kv->type == F64; }

/* 0 with *out set, or the answer for the caller. */
static int scalar(const struct qn_gguf *g, const char *key, const struct kv **out) {
    *out = find_kv(g, key);
    return !*out ? QN_E_NOT_FOUND : (*out)->is_array ? QN_E_DATA : 0;
}

static int array(const struct qn_gguf *g, const char *key, const struct kv **out) {
    *out = find_kv(g, key);
    return !*out ? QN_E_NOT_FOUND : (*out)->is_array ? 0 : QN_E_DATA;
}

int qn_gguf_u64(const struct qn_gguf *g, const char *key, uint64_t *out) {
    const struct kv *kv;
    uint64_t v;
    int rc = scalar(g, key, &kv);
    if (rc < 0) return rc;
    if (!is_integer(kv) || integer(kv, 0, &v)) return QN_E_DATA;
    *out = v;
    return 0;
}

int qn_gguf_i64(const struct qn_gguf *g, const char *key, int64_t *out) {
    const struct kv *kv;
    uint64_t v;
    int rc = scalar(g, key, &kv);
    if (rc < 0) return rc;
    if (!is_integer(kv) || (!integer(kv, 0, &v) && v > INT64_MAX)) return QN_E_DATA;
    *out = (int64_t)v;
    return 0;
}

int qn_gguf_f64(const struct qn_gguf *g, const char *key, double *out) {
    const struct kv *kv;
    int rc = scalar(g, key, &kv);
    if (rc < 0) return rc;
    if (!is_real(kv)) return QN_E_DATA;
    *out = real(kv, 0);
    return 0;
}

int qn_gguf_bool(const struct qn_gguf *g, const char *key, int *out) {
    const struct kv *kv;
    int rc = scalar(g, key, &kv);
    if (rc < 0) return rc;
    if (kv->type != BOOL) return QN_E_DATA;
    *out = *kv->value;
    return 0;
}

int qn_gguf_str(const struct qn_gguf *g, const char *key, struct qn_str *out) {
    const struct kv *kv;
    int rc = scalar(g, key, &kv);
    if (rc < 0) return rc;
    if (kv->type != STRING) return QN_E_DATA;
    uint64_t n;
    memcpy(&n, kv->value, sizeof n);
    *out = (struct qn_str){(const char *)kv->value + sizeof n, (size_t)n};
    return 0;
}

int qn_gguf_array_n(const struct qn_gguf *g, const char *key, uint64_t *n) {
    const struct kv *kv;
    int rc = array(g, key, &kv);
    if (rc == 0) *n = kv->n;
    return rc;
}

int qn_gguf_array_strs(const struct qn_gguf *g, const char *key, const struct qn_str **out, uint64_t *n) {
    const struct kv *kv;
    int rc = array(g, key, &kv);
    if (rc < 0) return rc;
    if (kv->type != STRING) return QN_E_DATA;
    *out = kv->strs;
    *n = kv->n;
    return 0;
}

int qn_gguf_array_i64(const struct qn_gguf *g, const char *key, int64_t *out, uint64_t cap, uint64_t *n) {
    const struct kv *kv;
    int rc = array(g, key, &kv);
    if (rc < 0) return rc;
    if (!is_integer(kv) && kv->type != BOOL) return QN_E_DATA;
    for (uint64_t i = 0; i < kv->n && i < cap; i++) {
        uint64_t v;
        if (!integer(kv, i, &v) && v > INT64_MAX) return QN_E_DATA;
        out[i] = (int64_t)v;
    }
    *n = kv->n;
    return 0;
}

int qn_gguf_array_f32(const struct qn_gguf *g, const char *key, float *out, uint64_t cap, uint64_t *n) {
    const struct kv *kv;
    int rc = array(g, key, &kv);
    if (rc < 0) return rc;
    if (!is_real(kv)) return QN_E_DATA;
    for (uint64_t i = 0; i < kv->n && i < cap; i++) out[i] = (float)real(kv, i);
    *n = kv->n;
    return 0;
}
