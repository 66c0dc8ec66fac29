/* What warps do together, computed by the last lane for all (fiber.cc calls): shuffles, votes, ldmatrix, mma. And what a lane does
 * alone but C++ cannot say: cp.async in two modes, and the alignment of wrapped accesses.
 *
 * Fragment layouts are those of portable.cuh's opening. A product of matrices goes through two plain float tables; products of 16-bit
 * floats are exact in float and sums of s8 products stay below 2^24, so one routine serves both. The card does not promise an
 * order of sums; here k goes up, one fma each. */
#include <stdlib.h>

#include "engine/cuda/emu/check.h"

extern "C" void qn_emu_op_sync(void *const[32], unsigned) {}

/* PTX shfl: the source lane must lie in the same part of `width` lanes (idx wraps into it), else the lane keeps its own value. */
static int shuffle_source(const qn_emu_shuffle *s, int lane) {
    int first = lane / s->width * s->width, from;
    switch (s->kind) {
    case 0: return first + (s->arg & (s->width - 1));
    case 1: from = lane - s->arg; return from >= first ? from : lane;
    case 2: from = lane + s->arg; return from < first + s->width ? from : lane;
    default: from = lane ^ s->arg; return from < first + s->width ? from : lane;
    }
}
extern "C" void qn_emu_op_shuffle(void *const args[32], unsigned mask) {
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1u)) continue;
        qn_emu_shuffle *s = static_cast<qn_emu_shuffle *>(args[lane]);
        if (s->width < 1 || s->width > 32 || (s->width & (s->width - 1))) emu_report(emu_self()->wait_file, emu_self()->wait_line, "shuffle of width %d", s->width);
        int from = shuffle_source(s, lane);
        if (from < 0 || from > 31 || !(mask >> from & 1u))
                emu_report(emu_self()->wait_file, emu_self()->wait_line, "shuffle: lane %d reads lane %d, which is not in the mask 0x%08x", lane, from, mask);
        s->out = static_cast<const qn_emu_shuffle *>(args[from])->in;
    }
}
extern "C" void qn_emu_op_vote(void *const args[32], unsigned mask) {
    unsigned yes = 0;
    for (unsigned l = 0; l < 32; l++)
        if (mask >> l & 1u && static_cast<qn_emu_vote *>(args[l])->in) yes |= 1u << l;
    for (unsigned l = 0; l < 32; l++)
        if (mask >> l & 1u) static_cast<qn_emu_vote *>(args[l])->out = yes;
}

static qn_emu_fragments *lane(void *const args[32], int l) { return static_cast<qn_emu_fragments *>(args[l]); }

/* Whether [p, p + bytes) is this block's shared memory. */
static bool is_shared(const void *p, size_t bytes) {
    const emu_block *b = emu_self()->block;
    const unsigned char *c = static_cast<const unsigned char *>(p);
    if (b->shared_static && c >= b->shared_static && c + bytes <= b->shared_static + b->static_bytes) return true;
    return b->shared_dynamic && c >= b->shared_dynamic && c + bytes <= b->shared_dynamic + b->launch->dynamic;
}

/* In a row's 8 elements of matrix m, lane l receives elements 2(l%4) and the next of row l/4; transposed: element l/4 of rows
 * 2(l%4) and the next. */
static void ldmatrix(void *const args[32], bool trans) {
    uint16_t m[4][8][8];
    for (int l = 0; l < 32; l++) {
        const qn_emu_fragments *f = lane(args, l);
        if ((uintptr_t)f->row % 16) emu_report(f->file, f->line, "ldmatrix: lane %d gives %p, no multiple of 16", l, f->row);
        if (!is_shared(f->row, 16)) emu_report(f->file, f->line, "ldmatrix: lane %d gives %p, not in shared memory", l, f->row);
#ifdef QN_EMU_CHECKED
        emu_access(&emu_self()->block->fibers[emu_self()->warp * EMU_LANES + (unsigned)l], f->row, 16, QN_EMU_READ, emu_site{nullptr, f->file, f->line});
#endif
        memcpy(m[l / 8][l % 8], f->row, 16);
    }
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = 2 * (l % 4);
        for (int i = 0; i < 4; i++) {
            uint32_t lo = trans ? m[i][t][g] : m[i][g][t], hi = trans ? m[i][t + 1][g] : m[i][g][t + 1];
            lane(args, l)->a[i] = lo | hi << 16;
        }
    }
}
extern "C" void qn_emu_op_ldmatrix(void *const args[32], unsigned) { ldmatrix(args, false); }
extern "C" void qn_emu_op_ldmatrix_trans(void *const args[32], unsigned) { ldmatrix(args, true); }

typedef float row8 __attribute__((vector_size(32)));
struct tables {
    float a[16][32]; /* [row][k] */
    row8 b[32];      /* [k][column] */
    row8 c[16];
};
template <int K> static void multiply(tables &t) {
    for (int r = 0; r < 16; r += 4) {
        row8 c0 = t.c[r], c1 = t.c[r + 1], c2 = t.c[r + 2], c3 = t.c[r + 3];
        for (int k = 0; k < K; k++) {
            c0 = _mm256_fmadd_ps(_mm256_set1_ps(t.a[r][k]), t.b[k], c0);
            c1 = _mm256_fmadd_ps(_mm256_set1_ps(t.a[r + 1][k]), t.b[k], c1);
            c2 = _mm256_fmadd_ps(_mm256_set1_ps(t.a[r + 2][k]), t.b[k], c2);
            c3 = _mm256_fmadd_ps(_mm256_set1_ps(t.a[r + 3][k]), t.b[k], c3);
        }
        t.c[r] = c0, t.c[r + 1] = c1, t.c[r + 2] = c2, t.c[r + 3] = c3;
    }
}

struct from_half { static float f(uint32_t v) { return _cvtsh_ss((unsigned short)v); } };
struct from_bf16 { static float f(uint32_t v) { return __uint_as_float(v << 16); } };
template <class From> static void mma_float(void *const args[32]) {
    tables t;
    for (int l = 0; l < 32; l++) {
        const qn_emu_fragments *f = lane(args, l);
        int g = l / 4, q = 2 * (l % 4);
        for (int i = 0; i < 4; i++) {
            float *a = &t.a[g + 8 * (i & 1)][q + 8 * (i >> 1)];
            a[0] = From::f(f->a[i] & 0xffffu), a[1] = From::f(f->a[i] >> 16);
            t.c[g + 8 * (i >> 1)][q + (i & 1)] = f->c[i];
        }
        for (int i = 0; i < 2; i++) t.b[q + 8 * i][g] = From::f(f->b[i] & 0xffffu), t.b[q + 8 * i + 1][g] = From::f(f->b[i] >> 16);
    }
    multiply<16>(t);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) lane(args, l)->c[i] = t.c[l / 4 + 8 * (i >> 1)][2 * (l % 4) + (i & 1)];
}
extern "C" void qn_emu_op_mma_f16(void *const args[32], unsigned) { mma_float<from_half>(args); }
extern "C" void qn_emu_op_mma_bf16(void *const args[32], unsigned) { mma_float<from_bf16>(args); }

static float s8(uint32_t v, int i) { return (float)(int8_t)(v >> (8 * i)); }
/* Sums start at 0 and the accumulator is added as an integer, which wraps as the card's does. */
template <int K> static void mma_s8(void *const args[32]) {
    tables t;
    for (int r = 0; r < 16; r++) t.c[r] = row8{};
    for (int l = 0; l < 32; l++) {
        const qn_emu_fragments *f = lane(args, l);
        int g = l / 4, q = 4 * (l % 4);
        for (int j = 0; j < 4; j++) {
            for (int i = 0; i < K / 8; i++) t.a[g + 8 * (i & 1)][q + 16 * (i >> 1) + j] = s8(f->a[i], j);
            for (int i = 0; i < K / 16; i++) t.b[q + 16 * i + j][g] = s8(f->b[i], j);
        }
    }
    multiply<K>(t);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            int32_t *n = &lane(args, l)->n[i];
            *n = (int32_t)((uint32_t)*n + (uint32_t)(int32_t)t.c[l / 4 + 8 * (i >> 1)][2 * (l % 4) + (i & 1)]);
        }
}
extern "C" void qn_emu_op_mma_s8_k32(void *const args[32], unsigned) { mma_s8<32>(args); }
extern "C" void qn_emu_op_mma_s8_k16(void *const args[32], unsigned) { mma_s8<16>(args); }

/* cp.async. A copy may land at any time from its issue to the wait that covers it: `now` is the one extreme, `late` the other, with the
 * target 0xff until then. */
static void land(const emu_copy &c) {
    if (c.from) memcpy(c.to, c.from, 16);
    else memset(c.to, 0, 16);
}
static void keep(emu_fiber *f, const emu_copy &c) {
    if (f->n_copies == f->copies_max) {
        f->copies_max = f->copies_max ? 2 * f->copies_max : 16;
        f->copies = static_cast<emu_copy *>(realloc(f->copies, f->copies_max * sizeof c));
        if (!f->copies) abort();
    }
    f->copies[f->n_copies++] = c;
}
extern "C" void qn_emu_cp_async16(void *to, const void *from, int take, const char *file, int line) {
    emu_fiber *f = emu_self();
    if ((uintptr_t)to % 16 || (take && (uintptr_t)from % 16)) emu_report(file, line, "cp.async: %p to %p, no multiples of 16", from, to);
    if (!is_shared(to, 16)) emu_report(file, line, "cp.async: the target %p is not in shared memory", to);
    if (take && !emu_in_device_range(from)) emu_report(file, line, "cp.async: the source %p is not in device memory", from);
    const emu_copy c = {static_cast<unsigned char *>(to), take ? static_cast<const unsigned char *>(from) : nullptr, f->group, file, line};
    emu_copy_begins(f, c);
    if (emu_config().late_copies) memset(to, 0xff, 16);
    else land(c);
    keep(f, c);
}
extern "C" void qn_emu_cp_commit(void) { emu_self()->group++; }
extern "C" void qn_emu_cp_wait(int groups, const char *, int) {
    emu_fiber *f = emu_self();
    unsigned left = 0;
    for (unsigned i = 0; i < f->n_copies; i++) {
        const emu_copy &c = f->copies[i];
        if (c.group + (unsigned)groups < f->group) {
            if (emu_config().late_copies) land(c);
            emu_copy_lands(f, c);
        } else f->copies[left++] = c;
    }
    f->n_copies = left;
}

extern "C" void qn_emu_fence(void) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    emu_fence_of(emu_self());
}
extern "C" void qn_emu_touch(const void *p, size_t bytes, int how, const char *file, int line) {
#ifdef QN_EMU_CHECKED
    emu_access(emu_self(), p, bytes, how, emu_site{nullptr, file, line});
#else
    static const char *const names[] = {"read", "write", "atomic"};
    if ((uintptr_t)p % bytes) emu_report(file, line, "%s of %zu bytes at %p, not aligned", names[how], bytes, p);
#endif
}
