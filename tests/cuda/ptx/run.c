/* Runs a grid: blocks one after the other, the warps of a block in turn from barrier to barrier, the lanes of a warp in groups.
 *
 * A group is a program counter and the lanes that are there. The lowest counter runs first, groups that meet become one, and a group
 * that stands at a .sync or a barrier waits until all lanes that it names have come: lowest first alone would be wrong for code whose
 * blocks do not lie in the order in which they join (nvcc for sm_100). If every group waits, the program is at fault, and so it is
 * when lanes have ended that a .sync names, or when warps stand at different barriers.
 *
 * Every access is checked: global addresses against the ranges allowed, shared ones against the block's size, alignment always. */
#include "tests/cuda/ptx/impl.h"

enum { RANGES_MAX = 4096, RECENT = 8 };
static struct range { uint64_t low, high; int writable; } ranges[RANGES_MAX], recent[RECENT];
static int n_ranges, n_recent, backward;
static qn_ptx_find_fn find_more;

void qn_ptx_backward(int b) { backward = b; }
void qn_ptx_on_find(qn_ptx_find_fn find) { find_more = find; }
void qn_ptx_allow(const void *p, size_t n, int writable) {
    if (n_ranges == RANGES_MAX) abort();
    ranges[n_ranges++] = (struct range){(uint64_t)(uintptr_t)p, (uint64_t)(uintptr_t)p + n, writable};
}
void qn_ptx_forbid(const void *p) {
    n_recent = 0;
    for (int k = 0; k < n_ranges; k++)
        if (ranges[k].low == (uint64_t)(uintptr_t)p) { ranges[k] = ranges[--n_ranges]; return; }
}

void qn_ptx_fail(const struct warp *w, const struct insn *i, int lane, const char *fmt, ...) {
    va_list ap;
    const struct block *b = w->b;
    fprintf(stderr, "ptx: %s:%d: ", b->m->name, i ? i->line : 0);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, " in %s, block %u,%u,%u warp %d", b->e->name, b->at[0], b->at[1], b->at[2], w->number);
    if (lane >= 0) fprintf(stderr, " lane %d", lane);
    fprintf(stderr, ": %s\n", i ? i->text : "");
    abort();
}

/* ---- memory ---- */

static bool in_range(uint64_t a, unsigned n, bool write, const struct range *r) { return a >= r->low && a + n <= r->high && (!write || r->writable); }
static bool find_range(uint64_t a, unsigned n, bool write) {
    struct range r = {0};
    for (int k = 0; k < n_ranges; k++)
        if (in_range(a, n, write, &ranges[k])) r = ranges[k];
    if (!r.high && find_more && find_more(a, &r.low, &r.high)) r.writable = 1;
    if (!r.high || !in_range(a, n, write, &r)) return false;
    if (n_recent < RECENT) n_recent++;
    memmove(&recent[1], &recent[0], (size_t)(n_recent - 1) * sizeof *recent);
    recent[0] = r;
    return true;
}
static bool global_ok(uint64_t a, unsigned n, bool write) {
    for (int k = 0; k < n_recent; k++)
        if (in_range(a, n, write, &recent[k])) return true;
    return find_range(a, n, write);
}
static bool window(uint64_t a, unsigned n, const uint8_t *p, size_t size) { return a >= (uint64_t)(uintptr_t)p && a + n <= (uint64_t)(uintptr_t)p + size; }

uint8_t *qn_ptx_at(struct warp *w, const struct insn *i, int space, uint64_t a, int lane, unsigned n, bool write) {
    const struct block *b = w->b;
    static const char *const names[] = {"generic", "global", "shared", "local", "parameter", "constant"};
    size_t local = b->e->local_bytes;
    uint8_t *p = (uint8_t *)(uintptr_t)a;
    bool ok = a % n == 0;
    switch (space) {
    case S_SHARED: ok = ok && a + n <= b->shared_bytes; p = b->shared + a; break;
    case S_LOCAL: ok = ok && a + n <= local; p = w->local + (size_t)lane * local + a; break;
    case S_PARAM: ok = ok && a + n <= b->e->param_bytes && !write; p = b->params + a; break;
    case S_GENERIC:
        ok = ok && (window(a, n, b->shared, b->shared_bytes) || window(a, n, w->local + (size_t)lane * local, local) || (!write && window(a, n, b->params, b->e->param_bytes)) || global_ok(a, n, write));
        break;
    default: ok = ok && global_ok(a, n, write);
    }
    if (!ok) qn_ptx_fail(w, i, lane, "%s %u bytes at %s address %#llx, which is %s", write ? "writes" : "reads", n, names[space], (unsigned long long)a, a % n ? "not aligned" : "not the kernel's");
    return p;
}

/* ---- lanes ---- */

/* Lanes `mask` go to pc; who stands there already joins them and looks again. */
static void put_group(struct warp *w, int pc, uint32_t mask) {
    for (int k = 0; k < w->n_groups; k++)
        if (w->g[k].pc == pc) {
            w->g[k].mask |= mask, w->g[k].waits = false;
            return;
        }
    w->g[w->n_groups++] = (struct group){pc, mask, false};
}
static struct group take_group(struct warp *w, int k) {
    struct group g = w->g[k];
    w->g[k] = w->g[--w->n_groups];
    return g;
}
static int lowest(const struct warp *w) {
    int best = -1;
    for (int k = 0; k < w->n_groups; k++)
        if (!w->g[k].waits && (best < 0 || w->g[k].pc < w->g[best].pc)) best = k;
    return best;
}
static int next_other(const struct warp *w, int pc) { /* where a group that runs from pc meets another */
    int at = 0x7fffffff;
    for (int k = 0; k < w->n_groups; k++)
        if (w->g[k].pc > pc && w->g[k].pc < at) at = w->g[k].pc;
    return at;
}

static void end_lanes(struct warp *w, const struct insn *i, uint32_t m) {
    for (int k = 0; k < w->n_copies; k++)
        if (m >> w->copies[k].lane & 1) qn_ptx_fail(w, i, w->copies[k].lane, "ends with a copy that nothing waited for");
    w->live &= ~m;
    for (int k = 0; k < w->n_groups; k++) w->g[k].waits = false; /* they find out whom they wait for in vain */
}

/* Which lanes a SYNC names: its member mask, the same in every lane that executes it. */
static uint32_t members(struct warp *w, const struct insn *i, uint32_t m) {
    if (i->member < 0) return ALL;
    const uint32_t *v = reg_of(w, i->o[i->member])->u32;
    uint32_t first = v[__builtin_ctz(m)];
    for (int l = 0; l < LANES_N; l++)
        if (m >> l & 1 && v[l] != first) qn_ptx_fail(w, i, l, "member masks differ");
    return first;
}
/* True when they are all here. */
static bool all_here(struct warp *w, const struct insn *i, uint32_t m) {
    uint32_t named = i->kind == K_BAR ? w->live : members(w, i, m);
    if (named & ~w->live) qn_ptx_fail(w, i, __builtin_ctz(named & ~w->live), "waits for a lane that has ended");
    if (m & ~named) qn_ptx_fail(w, i, __builtin_ctz(m & ~named), "is not in its own member mask 0x%08x", named);
    return m == named;
}

/* Moves one group until it meets another, splits, waits or ends. */
static void run_group(struct warp *w, int k) {
    const struct insn *code = w->b->e->code;
    struct group g = take_group(w, k);
    int meets = next_other(w, g.pc);
    for (;;) {
        const struct insn *i = &code[g.pc];
        uint32_t m = g.mask;
        if (i->guard >= 0) {
            uint32_t p = reg_of(w, i->guard)->u32[0];
            m &= i->guard_not ? ~p : p;
        }
        if (i->kind == K_PLAIN) {
            if (m) qn_ptx_count(i), i->fn(w, i, m);
            g.pc++;
        } else if (!m) {
            g.pc++;
        } else if (i->kind == K_BRA) {
            qn_ptx_count(i);
            if (m != g.mask) {
                put_group(w, g.pc + 1, g.mask & ~m);
                put_group(w, i->target, m);
                return;
            }
            g.pc = i->target;
            if (w->n_groups) { put_group(w, g.pc, m); return; } /* somebody may be lower now */
        } else if (i->kind == K_BRX) {
            qn_ptx_count(i);
            const uint32_t *v = reg_of(w, i->o[0])->u32;
            for (int l = 0; l < LANES_N; l++) {
                if (!(m >> l & 1)) continue;
                if (v[l] >= (uint32_t)i->target) qn_ptx_fail(w, i, l, "index %u of %d targets", v[l], i->target);
                put_group(w, i->table[v[l]], 1u << l);
            }
            if (g.mask & ~m) put_group(w, g.pc + 1, g.mask & ~m);
            return;
        } else if (i->kind == K_EXIT) {
            qn_ptx_count(i);
            end_lanes(w, i, m);
            if (m == g.mask) return;
            g.mask &= ~m, g.pc++;
        } else if (i->kind == K_TRAP) {
            qn_ptx_fail(w, i, __builtin_ctz(m), "traps");
        } else if (m != g.mask) { /* a guarded .sync or barrier: those who skip it go on */
            put_group(w, g.pc + 1, g.mask & ~m);
            put_group(w, g.pc, m);
            return;
        } else if (!all_here(w, i, m)) {
            w->g[w->n_groups++] = (struct group){g.pc, m, true};
            return;
        } else if (i->kind == K_BAR) {
            qn_ptx_count(i);
            w->g[w->n_groups++] = g;
            w->at_bar = true;
            return;
        } else {
            qn_ptx_count(i);
            i->fn(w, i, m);
            g.pc++;
        }
        if (g.pc >= meets) { put_group(w, g.pc, g.mask); return; }
    }
}

/* Until all lanes ended or stand at a barrier. */
static void run_warp(struct warp *w) {
    while (w->n_groups && !w->at_bar) {
        int k = lowest(w);
        if (k < 0) {
            for (k = 0; k < w->n_groups; k++) fprintf(stderr, "ptx: lanes 0x%08x wait at %s\n", w->g[k].mask, w->b->e->code[w->g[k].pc].text);
            qn_ptx_fail(w, &w->b->e->code[w->g[0].pc], -1, "all lanes wait, not at the same place");
        }
        run_group(w, k);
    }
}

/* ---- blocks ---- */

static void start_warp(struct warp *w) {
    struct block *b = w->b;
    unsigned threads = b->dim[0] * b->dim[1] * b->dim[2], first = (unsigned)w->number * LANES_N;
    union reg *r = w->r;
    memset(r, 0xff, (size_t)b->e->n_regs * sizeof *r);
    for (int l = 0; l < LANES_N; l++) {
        unsigned t = first + (unsigned)l;
        r[R_TID_X].u32[l] = t % b->dim[0], r[R_TID_Y].u32[l] = t / b->dim[0] % b->dim[1], r[R_TID_Z].u32[l] = t / b->dim[0] / b->dim[1];
        r[R_LANE].u32[l] = (uint32_t)l, r[R_WARP].u32[l] = (uint32_t)w->number, r[R_NWARP].u32[l] = (uint32_t)b->n_warps;
        for (int a = 0; a < 3; a++) r[R_NTID_X + a].u32[l] = b->dim[a], r[R_CTA_X + a].u32[l] = b->at[a], r[R_NCTA_X + a].u32[l] = b->grid[a];
        uint32_t own = 1u << l, below = own - 1;
        r[R_MASK_EQ].u32[l] = own, r[R_MASK_LT].u32[l] = below, r[R_MASK_LE].u32[l] = below | own, r[R_MASK_GE].u32[l] = ~below, r[R_MASK_GT].u32[l] = ~(below | own);
    }
    w->live = threads - first >= LANES_N ? ALL : (1u << (threads - first)) - 1;
    w->n_groups = 0, w->n_copies = 0, w->at_bar = false;
    memset(w->committed, 0, sizeof w->committed);
    if (b->e->local_bytes) memset(w->local, 0xff, (size_t)b->e->local_bytes * LANES_N);
    put_group(w, 0, w->live);
}

static void run_block(struct block *b) {
    memset(b->shared, 0xff, b->shared_bytes);
    for (int k = 0; k < b->n_warps; k++) start_warp(&b->warps[k]);
    for (;;) {
        int ended = 0, at = -1;
        for (int k = 0; k < b->n_warps; k++) {
            struct warp *w = &b->warps[backward ? b->n_warps - 1 - k : k];
            run_warp(w);
            if (!w->n_groups) ended++;
        }
        if (ended == b->n_warps) return;
        for (int k = 0; k < b->n_warps; k++) {
            struct warp *w = &b->warps[k];
            const struct insn *i = w->n_groups ? &b->e->code[w->g[0].pc] : NULL;
            if (!i) continue;
            if (ended) qn_ptx_fail(w, i, -1, "%d warps ended before this barrier", ended);
            if (at >= 0 && at != w->g[0].pc) qn_ptx_fail(w, i, -1, "other warps stand at another barrier (%s:%d)", b->m->name, b->e->code[at].line);
            at = w->g[0].pc;
            w->g[0].pc++, w->at_bar = false;
        }
    }
}

static uint8_t *take_params(const struct qn_ptx *m, const struct entry *e, const struct qn_ptx_arg *args, int n) {
    uint8_t *p = aligned_alloc(64, ((size_t)e->param_bytes + 64) / 64 * 64);
    if (!p) abort();
    if (n != e->n_params) qn_ptx_bad(m->name, 0, e->name, "launched with %d arguments, has %d", n, e->n_params);
    for (int k = 0; k < n; k++) {
        if (args[k].n != e->params[k].size) qn_ptx_bad(m->name, 0, e->name, "argument %d has %zu bytes, should have %u", k, args[k].n, e->params[k].size);
        memcpy(p + e->params[k].offset, args[k].p, args[k].n);
    }
    return p;
}

void qn_ptx_launch(struct qn_ptx *m, const char *name, const unsigned grid[3], const unsigned dim[3], size_t dynamic, const struct qn_ptx_arg *args, int n_args) {
    const char *full = qn_ptx_entry(m, name);
    const struct entry *e = NULL;
    for (int k = 0; k < m->n_entries; k++)
        if (full && !strcmp(m->entries[k].name, full)) e = &m->entries[k];
    if (!e) qn_ptx_bad(m->name, 0, name, "no such entry");
    unsigned threads = dim[0] * dim[1] * dim[2];
    if (!threads || threads > 1024 || dim[2] > 64 || (e->max_threads && threads > e->max_threads)) qn_ptx_bad(m->name, 0, name, "%u threads a block", threads);
    if (!grid[0] || !grid[1] || !grid[2] || grid[1] > 65535 || grid[2] > 65535) qn_ptx_bad(m->name, 0, name, "a grid of %ux%ux%u", grid[0], grid[1], grid[2]);
    struct block b = {.m = m, .e = e, .n_warps = (int)(threads + LANES_N - 1) / LANES_N, .shared_bytes = e->shared_bytes + (uint32_t)dynamic};
    memcpy(b.grid, grid, sizeof b.grid);
    memcpy(b.dim, dim, sizeof b.dim);
    b.params = take_params(m, e, args, n_args);
    b.shared = aligned_alloc(1024, ((size_t)b.shared_bytes + 1024) / 1024 * 1024);
    b.warps = calloc((size_t)b.n_warps, sizeof *b.warps);
    if (!b.shared || !b.warps) abort();
    for (int k = 0; k < b.n_warps; k++) {
        struct warp *w = &b.warps[k];
        w->b = &b, w->number = k, w->consts = m->consts;
        w->r = aligned_alloc(64, (size_t)e->n_regs * sizeof *w->r);
        w->local = aligned_alloc(64, ((size_t)e->local_bytes * LANES_N + 64) / 64 * 64);
        if (!w->r || !w->local) abort();
    }
    n_recent = 0;
    size_t blocks = (size_t)grid[0] * grid[1] * grid[2];
    for (size_t n = 0; n < blocks; n++) {
        size_t at = backward ? blocks - 1 - n : n;
        b.at[0] = (unsigned)(at % grid[0]), b.at[1] = (unsigned)(at / grid[0] % grid[1]), b.at[2] = (unsigned)(at / grid[0] / grid[1]);
        run_block(&b);
    }
    for (int k = 0; k < b.n_warps; k++) free(b.warps[k].r), free(b.warps[k].local), free(b.warps[k].copies);
    free(b.warps), free(b.shared), free(b.params);
}
