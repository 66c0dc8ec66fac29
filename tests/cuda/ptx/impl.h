/* What the files of the PTX interpreter share: registers, decoded instructions, warps and blocks. parse.c reads a module,
 * decode.c turns a line into a struct insn, ops_*.c hold the handlers, run.c schedules lanes and barriers. */
#ifndef QN_TESTS_CUDA_PTX_IMPL_H
#define QN_TESTS_CUDA_PTX_IMPL_H

#include "tests/cuda/ptx/ptx.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES_N = 32, OPERANDS_MAX = 20, NAME_MAX_ = 512 };
#define ALL 0xffffffffu

/* A register of 32 lanes, packed by its declared width: 16, 32 or 64 bits. A predicate is a mask in u32[0]. */
union reg {
    uint64_t u64[LANES_N];
    uint32_t u32[LANES_N];
    uint16_t u16[LANES_N];
    double f64[LANES_N];
    float f32[LANES_N];
} __attribute__((aligned(64)));

enum type { T_NONE, T_PRED, T_B8, T_U8, T_S8, T_B16, T_U16, T_S16, T_F16, T_BF16, T_B32, T_U32, T_S32, T_F32, T_F16X2, T_BF16X2, T_B64, T_U64, T_S64, T_F64, T_COUNT };
enum space { S_GENERIC, S_GLOBAL, S_SHARED, S_LOCAL, S_PARAM, S_CONST };
/* PLAIN works on whatever lanes are there; SYNC needs all lanes of its member mask at once; the others belong to run.c. */
enum kind { K_PLAIN, K_SYNC, K_BAR, K_BRA, K_BRX, K_EXIT, K_TRAP };
enum round { RD_NONE, RD_RN, RD_RZ, RD_RM, RD_RP, RD_RNI, RD_RZI, RD_RMI, RD_RPI };

/* Register numbers: 0 up are the warp's own, ~0 down the module's constants (every lane the same). */
enum special { R_SINK, R_TID_X, R_TID_Y, R_TID_Z, R_LANE, R_WARP, R_NWARP, R_NTID_X, R_NTID_Y, R_NTID_Z, R_CTA_X, R_CTA_Y, R_CTA_Z, R_NCTA_X, R_NCTA_Y, R_NCTA_Z,
               R_MASK_EQ, R_MASK_LE, R_MASK_LT, R_MASK_GE, R_MASK_GT, R_SPECIALS };

struct warp;
struct insn;
typedef void (*op_fn)(struct warp *w, const struct insn *i, uint32_t m);

struct insn {
    op_fn fn;
    uint8_t kind, guard_not, n_ops, n_dst, space, type, atype, vec, round, sat, ftz, sub;
    int32_t guard;            /* predicate register, -1: none */
    int32_t o[OPERANDS_MAX];  /* registers: destinations, then sources, in the order of the text */
    uint8_t width[OPERANDS_MAX]; /* bytes a lane of each, 1 for a predicate */
    int32_t target, member;   /* bra: instruction; SYNC: the operand that holds the member mask, -1: all lanes */
    int64_t imm, imm2, count; /* added to the first and second address; bytes of a copy */
    const int32_t *table;     /* brx.idx: targets */
    const char *text;
    int line, opcode;         /* line of the PTX file; number of the opcode's name */
};

/* A row of the opcode tables. Pattern: a letter an operand, destinations before '=': p predicate, P predicate that may be
 * left out, h w l registers or constants of 16, 32, 64 bits, m an address. Underscores in the name stand for dots. */
struct op_row {
    const char *name, *pattern;
    op_fn fn;
    uint8_t kind;
    int8_t member; /* operand number, -1 */
};
extern const struct op_row qn_ptx_rows_int[], qn_ptx_rows_float[], qn_ptx_rows_half[], qn_ptx_rows_warp[], qn_ptx_rows_set[];

struct param { uint32_t offset, size, align; };
struct entry {
    char *name;
    struct param *params;
    int n_params;
    uint32_t param_bytes, shared_bytes, local_bytes, max_threads;
    struct insn *code;
    int n_code, code_max, n_regs;
};

struct qn_ptx {
    char *name, *text;
    struct entry *entries;
    int n_entries;
    union reg *consts; /* constants of all entries */
    uint64_t *const_bits;
    uint8_t *const_width;
    int n_consts, consts_max;
    void **owned;      /* texts and device variables */
    int n_owned, owned_max;
};

struct group { int pc; uint32_t mask; bool waits; };
struct copy { uint8_t lane, n, taken; uint32_t to, group; uint64_t from; };

struct block {
    const struct qn_ptx *m;
    const struct entry *e;
    uint8_t *shared, *params;
    uint32_t shared_bytes;
    unsigned grid[3], dim[3], at[3];
    struct warp *warps;
    int n_warps;
};
struct warp {
    union reg *r;
    const union reg *consts;
    struct block *b;
    int number;
    struct group g[LANES_N];
    int n_groups;
    uint32_t live;
    bool at_bar;
    uint8_t *local;            /* [lane][entry's local bytes] */
    struct copy *copies;
    int n_copies, copies_max;
    uint32_t committed[LANES_N];
};

static inline union reg *reg_of(struct warp *w, int n) { return n >= 0 ? w->r + n : (union reg *)(uintptr_t)(w->consts + ~n); }
#define D(T, k) T *d = (T *)reg_of(w, i->o[k])
#define S(T, name, k) const T *name = (const T *)reg_of(w, i->o[k])
#define HANDLER(name) static void name(struct warp *w, const struct insn *i, uint32_t m)
/* `body` for each lane l of m. A register is read and written at the same lane only, so that ivdep holds. */
#define LANES(body)                                                                     \
    {                                                                                   \
        if (m == ALL) {                                                                 \
            _Pragma("GCC ivdep") for (int l = 0; l < LANES_N; l++) { body; }            \
        } else {                                                                        \
            _Pragma("GCC ivdep") for (int l = 0; l < LANES_N; l++) if (m >> l & 1) { body; } \
        }                                                                               \
    }

_Noreturn void qn_ptx_fail(const struct warp *w, const struct insn *i, int lane, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
_Noreturn void qn_ptx_bad(const char *where, int line, const char *text, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Host address of `n` bytes that the lane may touch: aligned, inside a range of the space; else the end. */
uint8_t *qn_ptx_at(struct warp *w, const struct insn *i, int space, uint64_t address, int lane, unsigned n, bool write);

/* A register of any width to 64 bits a lane (zero-extended from the width of the type) and back (the low bytes). */
void qn_ptx_get(uint64_t out[LANES_N], struct warp *w, const struct insn *i, int k, unsigned bytes);
void qn_ptx_put(struct warp *w, const struct insn *i, int k, const uint64_t v[LANES_N], uint32_t m);

/* decode.c's special cases: an opcode that has more forms than a table should list. 1: it is one of theirs. */
struct operand { uint8_t kind, width, first; int32_t reg; int64_t imm; };
enum { OPD_REG, OPD_IMM, OPD_MEM, OPD_LABEL, OPD_SINK };
struct line {
    const char *where, *text;
    int number;
    char op[160];
    char *part[16];  /* op cut at its dots */
    int n_parts;
    struct operand o[OPERANDS_MAX]; /* vectors flattened; .first: number of the operand as written */
    int n, n_written;
    struct qn_ptx *m;
};
void qn_ptx_decode(struct insn *i, struct line *ln);
int qn_ptx_decode_memory(struct insn *i, struct line *ln);
int qn_ptx_decode_cvt(struct insn *i, struct line *ln);
int qn_ptx_type(const char *s);
unsigned qn_ptx_bytes(int type);
/* Operand k of the line as a register of `width` bytes, a constant if it is one; 0 takes the register as it is. */
void qn_ptx_take(struct insn *i, struct line *ln, int k, unsigned width);
void qn_ptx_take_address(struct insn *i, struct line *ln, int k, int64_t *offset);
int qn_ptx_const(struct qn_ptx *m, uint64_t bits, unsigned width);
int qn_ptx_opcode(const char *name);
void qn_ptx_count(const struct insn *i);

/* Conversions of 16-bit floats, to nearest even unless said. */
float qn_ptx_from_half(uint16_t h);
float qn_ptx_from_bf16(uint16_t h);
uint16_t qn_ptx_to_half(float f, int round);
uint16_t qn_ptx_to_bf16(float f, int round);

#endif
