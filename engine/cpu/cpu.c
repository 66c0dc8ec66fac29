/* The CPU backend: its memory, its choice of kernels, its table of operations. The operations themselves: act.c
 * (embedding, norms), matmul.c, rope.c, attention.c; the kernels they call: isa_*.c and matmul_*.c.
 *
 * Memory comes from the kernel in maps of at least MAP_BYTES, aligned for huge pages (a matrix-vector product reads
 * weights once, and 4 KiB pages would cost it a TLB miss for every 4 KiB), is carved up front to back, and goes back when
 * the backend closes. Thread: the owner's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "engine/cpu/cpu.h"

enum { MAP_BYTES = 32 << 20 };

static uint8_t *map(struct qn_cpu *b, size_t n) {
    if (b->n_maps == b->maps_cap) {
        int cap = b->maps_cap ? b->maps_cap * 2 : 64;
        struct qn_region *m = realloc(b->maps, (size_t)cap * sizeof *m);
        if (!m) return NULL;
        b->maps = m, b->maps_cap = cap;
    }
    size_t whole;
    if (__builtin_add_overflow(n, (size_t)QN_HUGE_BYTES, &whole)) return NULL;
    uint8_t *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    b->maps[b->n_maps++] = (struct qn_region){ p, whole };
    uint8_t *at = p + (QN_HUGE_BYTES - (uintptr_t)p % QN_HUGE_BYTES) % QN_HUGE_BYTES;
    madvise(at, n, MADV_HUGEPAGE);
    return at;
}

void *qn_cpu_alloc(struct qn_cpu *b, size_t n) {
    n = (n + 63) / 64 * 64;
    if (n > b->bump_left) {
        size_t want = n > MAP_BYTES ? (n + QN_HUGE_BYTES - 1) / QN_HUGE_BYTES * QN_HUGE_BYTES : MAP_BYTES;
        uint8_t *p = map(b, want);
        if (!p) return NULL;
        if (want - n < b->bump_left) { /* keep the fuller rest for the next one */
            b->bytes_held += n;
            return p;
        }
        b->bump = p, b->bump_left = want;
    }
    void *p = b->bump;
    b->bump += n, b->bump_left -= n, b->bytes_held += n;
    return p;
}

void *qn_cpu_reserve(struct qn_cpu *b, size_t n) { return map(b, n); }

struct qn_need *qn_cpu_need(struct qn_cpu *b, int width) {
    for (int i = 0; i < b->n_needs; i++)
        if (b->need[i].width == width) return &b->need[i];
    if (b->n_needs == QN_NEEDS_MAX) return NULL;
    b->need[b->n_needs] = (struct qn_need){ .width = width };
    return &b->need[b->n_needs++];
}

/* All forms are reserved, as a matrix that reads another may still be loaded; only what is written costs memory. */
int qn_cpu_act_init(struct qn_cpu *b, struct qn_act *a, int width, int rows) {
    a->width = width;
    a->n_blocks = (width + QN_ABLOCK - 1) / QN_ABLOCK;
    a->need = qn_cpu_need(b, width);
    a->q = qn_cpu_reserve(b, (size_t)rows * (size_t)a->n_blocks * QN_AREC);
    a->f = qn_cpu_reserve(b, (size_t)rows * (size_t)width * sizeof(float));
    a->h = qn_cpu_reserve(b, (size_t)rows * (size_t)qn_pairs(width) * sizeof *a->h);
    return a->need && a->q && a->f && a->h ? 0 : QN_E_NOMEM;
}

static int vec_init(struct qn_cpu *b, struct qn_vec *v, int width, int rows) {
    v->width = width;
    v->stride = (width + 31) / 32 * 32;
    v->p = qn_cpu_alloc(b, (size_t)rows * (size_t)v->stride * sizeof *v->p);
    return v->p ? 0 : QN_E_NOMEM;
}

static struct qn_vec *op_vec(struct qn_backend *base, int width) {
    struct qn_cpu *b = qn_cpu_of(base);
    struct qn_vec *v = qn_cpu_alloc(b, sizeof *v);
    return v && vec_init(b, v, width, base->opts.rows_max) == 0 ? v : NULL;
}

static struct qn_act *op_act(struct qn_backend *base, int width) {
    struct qn_cpu *b = qn_cpu_of(base);
    struct qn_act *a = qn_cpu_alloc(b, sizeof *a);
    return a && qn_cpu_act_init(b, a, width, base->opts.rows_max) == 0 ? a : NULL;
}

static void op_weight_free(struct qn_backend *b, struct qn_weight *w) {
    (void)b;
    free(w); /* its data goes with the backend */
}

static void op_attach(struct qn_backend *base) { qn_pool_attach(qn_cpu_of(base)->pool); }

static void op_begin(struct qn_backend *base, const struct qn_batch *batch) {
    struct qn_cpu *b = qn_cpu_of(base);
    int n_pos = 0;
    b->batch = batch;
    qn_pool_hot(b->pool, 1);
    for (int s = 0; s < batch->n_seqs; s++)
        if (batch->seqs[s].n_ctx > n_pos) n_pos = batch->seqs[s].n_ctx;
    qn_cpu_rope_fill(b, n_pos);
    qn_cpu_kv_ahead(b);
}

static void op_end(struct qn_backend *base) { qn_pool_hot(qn_cpu_of(base)->pool, 0); }

struct parallel_job { void (*fn)(void *, int); void *arg; };
static void parallel_range(void *arg, int begin, int end, int thread) {
    const struct parallel_job *j = arg;
    (void)thread;
    for (int i = begin; i < end; i++) j->fn(j->arg, i);
}
static void op_parallel(struct qn_backend *base, int n, void (*fn)(void *arg, int i), void *arg) {
    struct parallel_job j = { fn, arg };
    qn_pool_run(qn_cpu_of(base)->pool, n, 1, parallel_range, &j);
}

static void op_load(const struct qn_backend *base, struct qn_backend_load *out) {
    struct qn_pool_stats s;
    qn_pool_stats(((const struct qn_cpu *)base)->pool, &s);
    *out = (struct qn_backend_load){ .threads_active = s.n_active, .stalled_ns = s.stalled_ns, .rescues = s.rescues };
}

static uint64_t op_bytes(const struct qn_backend *base, uint64_t *kv_bytes) {
    const struct qn_cpu *b = (const struct qn_cpu *)base;
    if (kv_bytes) *kv_bytes = b->bytes_kv;
    return b->bytes_held;
}

static void op_close(struct qn_backend *base) {
    struct qn_cpu *b = qn_cpu_of(base);
    if (!b) return;
    qn_pool_close(b->pool);
    for (int i = 0; i < b->n_maps; i++) munmap(b->maps[i].p, b->maps[i].n);
    free(b->maps);
    free(b);
}

static const struct qn_backend_ops ops = {
    .name = "cpu", .weight = qn_cpu_weight, .weight_free = op_weight_free, .vec = op_vec, .act = op_act, .attach = op_attach, .begin = op_begin,
    .end = op_end, .embed = qn_cpu_embed, .add_norm = qn_cpu_add_norm, .linear = qn_cpu_linear, .glu = qn_cpu_glu,
    .rope_kv = qn_cpu_rope_kv, .attention = qn_cpu_attention, .logits = qn_cpu_logits, .narrow = qn_cpu_narrow, .kv_copy = qn_cpu_kv_copy,
    .parallel = op_parallel, .load = op_load, .bytes = op_bytes, .close = op_close,
};

/* Best first. The processor's and the system's word count, not the compiler's. */
static int can_generic(void) { return 1; }
#if defined(__x86_64__)
static int has_f16c(void) { /* clang 14 has no name for it */
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
static int can_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
static int can_avx512(void) {
    return can_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}
static int can_avx512_bf16(void) { return can_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif
/* A name may stand for several, the first that works; each is also known by its own. */
static const struct { const struct qn_cpu_isa *isa; const char *name; int (*can)(void); } isas[] = {
#if defined(__x86_64__)
    { &qn_cpu_avx512_bf16, "avx512", can_avx512_bf16 },
    { &qn_cpu_avx512_vnni, "avx512", can_avx512 },
    { &qn_cpu_avx2, "avx2", can_avx2 },
#endif
    { &qn_cpu_generic, "generic", can_generic },
};

static int pick_isa(struct qn_cpu *b, const char *want, struct qn_err *err) {
    int known = 0;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (want && strcmp(want, isas[i].name) && strcmp(want, isas[i].isa->name)) continue;
        known = 1;
        if (isas[i].can()) {
            b->isa = isas[i].isa;
            return 0;
        }
    }
    if (known) return qn_fail(err, QN_E_UNSUPPORTED, "isa '%s': this processor lacks it", want);
    return qn_fail(err, QN_E_UNSUPPORTED, "isa '%s': not one of avx512, avx2, generic", want ? want : "");
}

static int check(const struct qn_model_desc *d, const struct qn_backend_opts *o, struct qn_err *err) {
    if (o->kv_blocks < 1 || o->rows_max < 1 || o->out_max < 1 || o->n_ctx < 1)
        return qn_fail(err, QN_E_RANGE, "backend: kv_blocks %d, rows_max %d, out_max %d and n_ctx %d must be at least 1", o->kv_blocks,
                       o->rows_max, o->out_max, o->n_ctx);
    if (o->kv_type < QN_KV_AUTO || o->kv_type >= QN_KV_TYPES) return qn_fail(err, QN_E_RANGE, "backend: KV type %d is unknown", (int)o->kv_type);
    if (d->head_dim < 1 || d->head_dim > 1024 || d->rope_dim < 0 || d->rope_dim > d->head_dim || d->rope_dim % 2 || d->n_kv_heads < 1 ||
        d->n_heads % d->n_kv_heads)
        return qn_fail(err, QN_E_UNSUPPORTED, "model: %d heads, %d KV heads, head size %d (at most 1024), RoPE over %d elements", d->n_heads,
                       d->n_kv_heads, d->head_dim, d->rope_dim);
    return 0;
}

/* What a step needs besides weights. */
static int init_scratch(struct qn_cpu *b, struct qn_err *err) {
    const struct qn_model_desc *d = b->base.desc;
    const struct qn_backend_opts *o = &b->base.opts;
    size_t attn = qn_attn_scratch(d->head_dim), row = ((size_t)d->d_model + 31) / 32 * 32;
    b->scratch_stride = ((attn > row ? attn : row) + 15) / 16 * 16;
    b->scratch = qn_cpu_reserve(b, (size_t)qn_pool_threads(b->pool) * b->scratch_stride * sizeof *b->scratch);
    b->logits = qn_cpu_reserve(b, (size_t)o->out_max * (size_t)d->n_vocab * sizeof *b->logits);
    int ok = b->scratch && b->logits && qn_cpu_attn_init(b) == 0 && vec_init(b, &b->attn_out, d->n_heads * d->head_dim, o->rows_max) == 0 &&
             qn_cpu_act_init(b, &b->out_act, d->d_model, o->out_max) == 0;
    return ok ? 0 : qn_fail(err, QN_E_NOMEM, "no memory for the scratch of %d rows", o->rows_max);
}

int qn_cpu_open(struct qn_backend **out, const struct qn_model_desc *desc, const struct qn_backend_opts *o, struct qn_err *err) {
    int rc = check(desc, o, err);
    if (rc < 0) return rc;
    struct qn_cpu *b = calloc(1, sizeof *b);
    if (!b) return qn_fail(err, QN_E_NOMEM, "no memory for the CPU backend");
    b->base = (struct qn_backend){ .ops = &ops, .desc = desc, .opts = *o };
    rc = pick_isa(b, o->isa, err);
    if (rc == 0) rc = qn_pool_open(&b->pool, o->n_threads, o->cores, err);
    if (rc == 0) rc = init_scratch(b, err);
    if (rc == 0) rc = qn_cpu_kv_init(b, err);
    if (rc == 0) rc = qn_cpu_rope_init(b, err);
    if (rc < 0) {
        op_close(&b->base);
        return rc;
    }
    b->base.opts.n_threads = qn_pool_threads(b->pool);
    snprintf(b->base.device_name, sizeof b->base.device_name, "cpu %s x%d", b->isa->name, b->base.opts.n_threads);
    *out = &b->base;
    return 0;
}
