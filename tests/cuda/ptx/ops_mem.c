/* Loads, stores, atomics, asynchronous copies, addresses and mov (PTX ISA, "Data Movement", "Parallel Synchronization"). Cache hints
 * and memory orders are read and checked for being known, and change nothing: one thread runs all warps. */
#include "tests/cuda/ptx/impl.h"

static int late_copies = 1;
void qn_ptx_late_copies(int late) { late_copies = late; }

void qn_ptx_get(uint64_t out[LANES_N], struct warp *w, const struct insn *i, int k, unsigned bytes) {
    const union reg *r = reg_of(w, i->o[k]);
    uint64_t keep = bytes >= 8 ? ~0ull : (1ull << (8 * bytes)) - 1;
    switch (i->width[k]) {
    case 8: for (int l = 0; l < LANES_N; l++) out[l] = r->u64[l] & keep; break;
    case 4: for (int l = 0; l < LANES_N; l++) out[l] = r->u32[l] & keep; break;
    default: for (int l = 0; l < LANES_N; l++) out[l] = r->u16[l] & keep; break;
    }
}
void qn_ptx_put(struct warp *w, const struct insn *i, int k, const uint64_t v[LANES_N], uint32_t m) {
    union reg *r = reg_of(w, i->o[k]);
    switch (i->width[k]) {
    case 8: LANES(r->u64[l] = v[l]) break;
    case 4: LANES(r->u32[l] = (uint32_t)v[l]) break;
    default: LANES(r->u16[l] = (uint16_t)v[l]) break;
    }
}

/* Address of lane l: operand k, which is 32 or 64 bits wide, and the offset of the text. */
static inline uint64_t address(struct warp *w, const struct insn *i, int k, int l, int64_t offset) {
    const union reg *r = reg_of(w, i->o[k]);
    if (i->width[k] == 8) return r->u64[l] + (uint64_t)offset;
    return (uint32_t)(r->u32[l] + (uint32_t)offset);
}

/* ---- ld and st: operands d[0..vec) and the address, or the address and the values ---- */

/* The plain case of one type without widening: T in memory, T in the register. */
#define LOAD(name, T)                                                                       \
    HANDLER(name) {                                                                         \
        int n = i->vec;                                                                     \
        T *d[8];                                                                            \
        for (int v = 0; v < n; v++) d[v] = (T *)reg_of(w, i->o[v]);                         \
        for (int l = 0; l < LANES_N; l++) {                                                 \
            if (!(m >> l & 1)) continue;                                                    \
            T t[8];                                                                         \
            memcpy(t, qn_ptx_at(w, i, i->space, address(w, i, n, l, i->imm), l, (unsigned)n * sizeof(T), false), (unsigned)n * sizeof(T)); \
            for (int v = 0; v < n; v++) d[v][l] = t[v];                                     \
        }                                                                                   \
    }
#define STORE(name, T)                                                                      \
    HANDLER(name) {                                                                         \
        int n = i->vec;                                                                     \
        const T *s[8];                                                                      \
        for (int v = 0; v < n; v++) s[v] = (const T *)reg_of(w, i->o[v + 1]);               \
        for (int l = 0; l < LANES_N; l++) {                                                 \
            if (!(m >> l & 1)) continue;                                                    \
            T t[8];                                                                         \
            for (int v = 0; v < n; v++) t[v] = s[v][l];                                     \
            memcpy(qn_ptx_at(w, i, i->space, address(w, i, 0, l, i->imm), l, (unsigned)n * sizeof(T), true), t, (unsigned)n * sizeof(T)); \
        }                                                                                   \
    }
LOAD(load16, uint16_t)
LOAD(load32, uint32_t)
LOAD(load64, uint64_t)
STORE(store16, uint16_t)
STORE(store32, uint32_t)
STORE(store64, uint64_t)

/* Any width: a value narrower than its register is widened, by its sign if the type has one; a store takes the low bytes. */
HANDLER(load_any) {
    unsigned n = i->vec, size = qn_ptx_bytes(i->type);
    bool sign = i->type == T_S8 || i->type == T_S16 || i->type == T_S32;
    uint64_t v[8][LANES_N];
    for (int l = 0; l < LANES_N; l++) {
        if (!(m >> l & 1)) continue;
        const uint8_t *p = qn_ptx_at(w, i, i->space, address(w, i, (int)n, l, i->imm), l, n * size, false);
        for (unsigned k = 0; k < n; k++) {
            uint64_t x = 0;
            memcpy(&x, p + k * size, size);
            if (sign) x = (uint64_t)((int64_t)(x << (64 - 8 * size)) >> (64 - 8 * size));
            v[k][l] = x;
        }
    }
    for (unsigned k = 0; k < n; k++) qn_ptx_put(w, i, (int)k, v[k], m);
}
HANDLER(store_any) {
    unsigned n = i->vec, size = qn_ptx_bytes(i->type);
    uint64_t v[8][LANES_N];
    for (unsigned k = 0; k < n; k++) qn_ptx_get(v[k], w, i, (int)k + 1, size);
    for (int l = 0; l < LANES_N; l++) {
        if (!(m >> l & 1)) continue;
        uint8_t *p = qn_ptx_at(w, i, i->space, address(w, i, 0, l, i->imm), l, n * size, true);
        for (unsigned k = 0; k < n; k++) memcpy(p + k * size, &v[k][l], size);
    }
}

static bool any_of(const char *s, const char *const *list) {
    for (; *list; list++)
        if (!strcmp(s, *list)) return true;
    return false;
}
static const char *const hints[] = {"volatile", "weak", "relaxed", "acquire", "release", "acq_rel", "cta", "gpu", "sys", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "L1::no_allocate", "L1::evict_normal",
                                    "L1::evict_first", "L1::evict_last", "L1::evict_unchanged", "L2::64B", "L2::128B", "L2::256B", NULL};

static int space_of(const char *s) {
    static const struct { const char *name; int space; } spaces[] = {
        {"global", S_GLOBAL}, {"shared", S_SHARED}, {"shared::cta", S_SHARED}, {"local", S_LOCAL}, {"param", S_PARAM}, {"const", S_CONST}};
    for (size_t k = 0; k < sizeof spaces / sizeof *spaces; k++)
        if (!strcmp(s, spaces[k].name)) return spaces[k].space;
    return -1;
}

static int decode_ld_st(struct insn *i, struct line *ln) {
    bool load = !strcmp(ln->part[0], "ld") || !strcmp(ln->part[0], "ldu");
    if (!load && strcmp(ln->part[0], "st")) return 0;
    bool has_space = false;
    i->vec = 1, i->space = S_GENERIC;
    for (int k = 1; k < ln->n_parts - 1; k++) {
        const char *s = ln->part[k];
        int space = space_of(s);
        if (space >= 0 && !has_space) i->space = (uint8_t)space, has_space = true;
        else if (s[0] == 'v' && (s[1] == '2' || s[1] == '4' || s[1] == '8') && !s[2] && i->vec == 1) i->vec = (uint8_t)(s[1] - '0');
        else if (!any_of(s, hints) && !(load && !strcmp(s, "nc") && i->space == S_GLOBAL)) return 0;
    }
    i->type = (uint8_t)qn_ptx_type(ln->part[ln->n_parts - 1]);
    unsigned size = qn_ptx_bytes(i->type);
    if (i->type < T_B8 || i->type == T_F16X2 || i->type == T_BF16X2 || ln->n != i->vec + 1 || ln->n_written != 2 || size * i->vec > 32) return 0;
    i->n_dst = load ? i->vec : 0;
    int values = load ? 0 : 1, mem = load ? i->vec : 0;
    qn_ptx_take_address(i, ln, mem, &i->imm);
    bool plain = size >= 2;
    for (int k = values; k < values + i->vec; k++) {
        qn_ptx_take(i, ln, k, ln->o[k].kind == OPD_REG ? 0 : size < 2 ? 2 : size);
        if (i->width[k] < size) return 0;
        if (i->width[k] != size) plain = false;
    }
    i->fn = load ? (!plain ? load_any : size == 2 ? load16 : size == 4 ? load32 : load64) : (!plain ? store_any : size == 2 ? store16 : size == 4 ? store32 : store64);
    return 1;
}

/* ---- atom and red: [d,] address, b[, c] ---- */

enum { A_ADD, A_MIN, A_MAX, A_AND, A_OR, A_XOR, A_EXCH, A_CAS, A_INC, A_DEC, A_COUNT };
static const char *const atom_names[A_COUNT] = {"add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"};

static uint64_t atom_value(const struct insn *i, uint64_t old, uint64_t b, uint64_t c) {
    union { uint64_t u; float f; double d; } x = {old}, y = {b};
    switch (i->sub) {
    case A_ADD:
        if (i->type == T_F32) { x.f += y.f; return x.u; }
        if (i->type == T_F64) { x.d += y.d; return x.u; }
        return old + b;
    case A_MIN: return i->type == T_S32 ? ((int32_t)old < (int32_t)b ? old : b) : i->type == T_S64 ? ((int64_t)old < (int64_t)b ? old : b) : old < b ? old : b;
    case A_MAX: return i->type == T_S32 ? ((int32_t)old > (int32_t)b ? old : b) : i->type == T_S64 ? ((int64_t)old > (int64_t)b ? old : b) : old > b ? old : b;
    case A_AND: return old & b;
    case A_OR: return old | b;
    case A_XOR: return old ^ b;
    case A_EXCH: return b;
    case A_CAS: return old == b ? c : old;
    case A_INC: return old >= b ? 0 : old + 1;
    default: return old == 0 || old > b ? b : old - 1;
    }
}
HANDLER(atom) {
    unsigned size = qn_ptx_bytes(i->type);
    int mem = i->n_dst;
    uint64_t b[LANES_N], c[LANES_N], d[LANES_N] = {0};
    qn_ptx_get(b, w, i, mem + 1, size);
    if (i->sub == A_CAS) qn_ptx_get(c, w, i, mem + 2, size);
    for (int l = 0; l < LANES_N; l++) {
        if (!(m >> l & 1)) continue;
        uint8_t *p = qn_ptx_at(w, i, i->space, address(w, i, mem, l, i->imm), l, size, true);
        memcpy(&d[l], p, size);
        uint64_t v = atom_value(i, d[l], b[l], i->sub == A_CAS ? c[l] : 0);
        memcpy(p, &v, size);
    }
    if (i->n_dst) qn_ptx_put(w, i, 0, d, m);
}
static int decode_atom(struct insn *i, struct line *ln) {
    bool has_d = !strcmp(ln->part[0], "atom");
    if (!has_d && strcmp(ln->part[0], "red")) return 0;
    int op = -1;
    i->space = S_GENERIC;
    for (int k = 1; k < ln->n_parts - 1; k++) {
        int space = space_of(ln->part[k]), this = -1;
        for (int a = 0; a < A_COUNT; a++)
            if (!strcmp(ln->part[k], atom_names[a])) this = a;
        if (this >= 0 && op < 0) op = this;
        else if (space == S_GLOBAL || space == S_SHARED) i->space = (uint8_t)space;
        else if (!any_of(ln->part[k], hints)) return 0;
    }
    i->type = (uint8_t)qn_ptx_type(ln->part[ln->n_parts - 1]);
    unsigned size = qn_ptx_bytes(i->type);
    bool is_float = i->type == T_F32 || i->type == T_F64, bits = i->type == T_B32 || i->type == T_B64, is_signed = i->type == T_S32 || i->type == T_S64;
    bool fits = op == A_ADD ? !bits : op == A_MIN || op == A_MAX ? !bits && !is_float : op == A_INC || op == A_DEC ? i->type == T_U32 : bits;
    if (op < 0 || (size != 4 && size != 8) || i->type == T_F16X2 || i->type == T_BF16X2 || !fits || (op == A_ADD && i->type == T_S64 && is_signed)) return 0;
    i->sub = (uint8_t)op, i->n_dst = has_d, i->fn = atom;
    if (ln->n != i->n_dst + 2 + (op == A_CAS)) return 0;
    if (has_d) qn_ptx_take(i, ln, 0, size);
    qn_ptx_take_address(i, ln, i->n_dst, &i->imm);
    for (int k = i->n_dst + 1; k < ln->n; k++) qn_ptx_take(i, ln, k, size);
    return 1;
}

/* ---- cp.async ---- */

static void deliver(struct warp *w, const struct copy *c) {
    memset(w->b->shared + c->to, 0, c->n);
    memcpy(w->b->shared + c->to, (const void *)(uintptr_t)c->from, c->taken);
}
HANDLER(cp_async) {
    unsigned n = (unsigned)i->count;
    for (int l = 0; l < LANES_N; l++) {
        if (!(m >> l & 1)) continue;
        uint64_t to = address(w, i, 0, l, i->imm), from = reg_of(w, i->o[1])->u64[l] + (uint64_t)i->imm2;
        uint32_t take = i->n_ops == 4 ? reg_of(w, i->o[3])->u32[l] : n;
        if (take > n) qn_ptx_fail(w, i, l, "copies %u of %u bytes", take, n);
        struct copy c = {.lane = (uint8_t)l, .n = (uint8_t)n, .taken = (uint8_t)take, .group = w->committed[l], .from = from};
        c.to = (uint32_t)(qn_ptx_at(w, i, S_SHARED, to, l, n, true) - w->b->shared);
        if (from % n) qn_ptx_fail(w, i, l, "source %#llx is not a multiple of %u", (unsigned long long)from, n);
        if (take) qn_ptx_at(w, i, S_GLOBAL, from, l, take & -take, false), qn_ptx_at(w, i, S_GLOBAL, from + take - 1, l, 1, false);
        if (!late_copies) deliver(w, &c);
        else memset(w->b->shared + c.to, 0xff, n);
        if (w->n_copies == w->copies_max) {
            w->copies_max = w->copies_max ? 2 * w->copies_max : 256;
            w->copies = realloc(w->copies, (size_t)w->copies_max * sizeof *w->copies);
            if (!w->copies) abort();
        }
        w->copies[w->n_copies++] = c;
    }
}
HANDLER(cp_commit) {
    (void)i;
    LANES(w->committed[l]++)
}
/* Brings every group but the lane's newest imm; imm < 0: all, committed or not. */
HANDLER(cp_wait) {
    int kept = 0;
    for (int k = 0; k < w->n_copies; k++) {
        struct copy *c = &w->copies[k];
        bool covered = m >> c->lane & 1 && (i->imm < 0 || (int64_t)c->group + i->imm < (int64_t)w->committed[c->lane]);
        if (!covered) w->copies[kept++] = *c;
        else if (late_copies) deliver(w, c);
    }
    w->n_copies = kept;
}
static int decode_cp_async(struct insn *i, struct line *ln) {
    static const char *const all_hints[] = {"ca", "cg", "shared", "shared::cta", "global", "L2::64B", "L2::128B", "L2::256B", NULL};
    if (ln->n_parts < 3 || strcmp(ln->part[0], "cp") || strcmp(ln->part[1], "async")) return 0;
    if (!strcmp(ln->op, "cp.async.commit_group") && !ln->n) { i->fn = cp_commit; return 1; }
    if (!strcmp(ln->op, "cp.async.wait_all") && !ln->n) { i->fn = cp_wait, i->imm = -1; return 1; }
    if (!strcmp(ln->op, "cp.async.wait_group") && ln->n == 1 && ln->o[0].kind == OPD_IMM) { i->fn = cp_wait, i->imm = ln->o[0].imm; return 1; }
    for (int k = 2; k < ln->n_parts; k++)
        if (!any_of(ln->part[k], all_hints)) return 0;
    if ((ln->n != 3 && ln->n != 4) || ln->o[2].kind != OPD_IMM) return 0;
    int64_t n = ln->o[2].imm;
    if (n != 16 && (strcmp(ln->part[2], "ca") || (n != 4 && n != 8))) return 0;
    i->fn = cp_async, i->count = n;
    qn_ptx_take_address(i, ln, 0, &i->imm);
    qn_ptx_take_address(i, ln, 1, &i->imm2);
    if (i->width[1] != 8) return 0;
    i->o[2] = R_SINK;
    if (ln->n == 4) qn_ptx_take(i, ln, 3, 4);
    return 1;
}

/* ---- mov, cvta, and what changes nothing here ---- */

HANDLER(mov16) { D(uint16_t, 0); S(uint16_t, a, 1); LANES(d[l] = a[l]) }
HANDLER(mov32) { D(uint32_t, 0); S(uint32_t, a, 1); LANES(d[l] = a[l]) }
HANDLER(mov64) { D(uint64_t, 0); S(uint64_t, a, 1); LANES(d[l] = a[l]) }
HANDLER(mov_pack) {
    uint64_t v[LANES_N] = {0}, part[LANES_N];
    unsigned n = (unsigned)i->n_ops - 1, bits = 8u * (unsigned)i->width[0] / n;
    for (unsigned k = 0; k < n; k++) {
        qn_ptx_get(part, w, i, (int)k + 1, bits / 8);
        for (int l = 0; l < LANES_N; l++) v[l] |= part[l] << (k * bits);
    }
    qn_ptx_put(w, i, 0, v, m);
}
HANDLER(mov_unpack) {
    uint64_t v[LANES_N], part[LANES_N];
    int n = i->n_ops - 1;
    unsigned bits = 8u * i->width[n] / (unsigned)n;
    qn_ptx_get(v, w, i, n, 8);
    for (int k = 0; k < n; k++) {
        for (int l = 0; l < LANES_N; l++) part[l] = v[l] >> ((unsigned)k * bits);
        qn_ptx_put(w, i, k, part, m);
    }
}
static int decode_mov(struct insn *i, struct line *ln) {
    static const char *const types[] = {"b16", "u16", "s16", "f16", "bf16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "f64", NULL};
    if (strcmp(ln->part[0], "mov") || ln->n_parts != 2 || !any_of(ln->part[1], types) || ln->n_written != 2) return 0;
    unsigned size = qn_ptx_bytes(qn_ptx_type(ln->part[1]));
    bool unpack = ln->n > 2 && ln->o[1].first == 0, pack = ln->n > 2 && !unpack;
    i->n_dst = (uint8_t)(unpack ? ln->n - 1 : 1);
    i->fn = unpack ? mov_unpack : pack ? mov_pack : size == 2 ? mov16 : size == 4 ? mov32 : mov64;
    unsigned part = size / (unsigned)(ln->n > 2 ? ln->n - 1 : 1);
    if (part < 2 || part * (unsigned)(ln->n > 2 ? ln->n - 1 : 1) != size) return 0;
    for (int k = 0; k < ln->n; k++) qn_ptx_take(i, ln, k, (unpack && k < ln->n - 1) || (pack && k > 0) ? part : size);
    return 1;
}

/* Shared, local and parameter memory have windows in the generic space: their host addresses. */
HANDLER(cvta) {
    uint64_t v[LANES_N];
    qn_ptx_get(v, w, i, 1, 8);
    for (int l = 0; l < LANES_N; l++) {
        uint64_t base = 0;
        if (i->space == S_SHARED) base = (uint64_t)(uintptr_t)w->b->shared;
        if (i->space == S_LOCAL) base = (uint64_t)(uintptr_t)(w->local + (size_t)l * w->b->e->local_bytes);
        if (i->space == S_PARAM) base = (uint64_t)(uintptr_t)w->b->params;
        v[l] = i->sub ? v[l] - base : v[l] + base;
    }
    qn_ptx_put(w, i, 0, v, m);
}
static int decode_cvta(struct insn *i, struct line *ln) {
    if (strcmp(ln->part[0], "cvta") || ln->n != 2) return 0;
    i->sub = !strcmp(ln->part[1], "to");
    int space = ln->n_parts == 3 + i->sub ? space_of(ln->part[1 + i->sub]) : -1;
    if (space < 0 || strcmp(ln->part[ln->n_parts - 1], "u64")) return 0;
    i->space = (uint8_t)space, i->n_dst = 1, i->fn = cvta;
    qn_ptx_take(i, ln, 0, 8);
    qn_ptx_take(i, ln, 1, 8);
    return 1;
}
static void nothing(struct warp *w, const struct insn *i, uint32_t m) { (void)w, (void)i, (void)m; }
static int decode_nothing(struct insn *i, struct line *ln) {
    static const char *const names[] = {"membar.cta", "membar.gl", "membar.sys", "fence.sc.cta", "fence.sc.gpu", "fence.sc.sys", "fence.acq_rel.cta", "fence.acq_rel.gpu", "fence.acq_rel.sys", NULL};
    static const char *const prefetches[] = {"prefetch.global.L1", "prefetch.global.L2", "prefetch.L1", "prefetch.L2", NULL};
    i->fn = nothing;
    return (any_of(ln->op, names) && ln->n == 0) || (any_of(ln->op, prefetches) && ln->n == 1);
}

int qn_ptx_decode_memory(struct insn *i, struct line *ln) {
    i->kind = K_PLAIN;
    return decode_ld_st(i, ln) || decode_mov(i, ln) || decode_cvta(i, ln) || decode_atom(i, ln) || decode_cp_async(i, ln) || decode_nothing(i, ln);
}
