/* One line of PTX to one struct insn: the opcode is looked up in the tables of ops_*.c by its whole name, or given to the decoders
 * of loads, stores, moves, comparisons and conversions. Whatever is not known exactly, modifier for modifier and operand for operand,
 * ends the process with the line. */
#include "tests/cuda/ptx/impl.h"

static const struct { const char *name; uint8_t bytes; } types[T_COUNT] = {
    [T_PRED] = {"pred", 1}, [T_B8] = {"b8", 1}, [T_U8] = {"u8", 1}, [T_S8] = {"s8", 1}, [T_B16] = {"b16", 2}, [T_U16] = {"u16", 2}, [T_S16] = {"s16", 2},
    [T_F16] = {"f16", 2}, [T_BF16] = {"bf16", 2}, [T_B32] = {"b32", 4}, [T_U32] = {"u32", 4}, [T_S32] = {"s32", 4}, [T_F32] = {"f32", 4},
    [T_F16X2] = {"f16x2", 4}, [T_BF16X2] = {"bf16x2", 4}, [T_B64] = {"b64", 8}, [T_U64] = {"u64", 8}, [T_S64] = {"s64", 8}, [T_F64] = {"f64", 8},
};
int qn_ptx_type(const char *s) {
    for (int t = T_PRED; t < T_COUNT; t++)
        if (!strcmp(s, types[t].name)) return t;
    return T_NONE;
}
unsigned qn_ptx_bytes(int type) { return types[type].bytes; }

void qn_ptx_bad(const char *where, int line, const char *text, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "ptx: %s:%d: ", where, line);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, ": %s\n", text);
    va_end(ap);
    abort();
}

/* ---- names of opcodes, and how often each ran ---- */

enum { OPCODES_MAX = 2048 };
static struct { char *name; uint64_t ran; } opcodes[OPCODES_MAX];
static int n_opcodes;
static uint64_t steps;

int qn_ptx_opcode(const char *name) {
    for (int k = 0; k < n_opcodes; k++)
        if (!strcmp(opcodes[k].name, name)) return k;
    if (n_opcodes == OPCODES_MAX) abort();
    opcodes[n_opcodes].name = strdup(name);
    return n_opcodes++;
}
void qn_ptx_count(const struct insn *i) { opcodes[i->opcode].ran++, steps++; }
uint64_t qn_ptx_ran(const char *opcode) { return opcodes[qn_ptx_opcode(opcode)].ran; }
uint64_t qn_ptx_steps(void) { return steps; }

/* ---- the tables, sorted by name ---- */

struct named { char name[160]; const struct op_row *row; };
static struct named *rows;
static size_t n_rows;

static int by_name(const void *a, const void *b) { return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name); }
static void add_rows(const struct op_row *r) {
    for (; r->name; r++) {
        rows = realloc(rows, (n_rows + 1) * sizeof *rows);
        if (!rows) abort();
        struct named *n = &rows[n_rows++];
        snprintf(n->name, sizeof n->name, "%s", r->name);
        for (char *c = n->name; *c; c++)
            if (*c == '_') *c = '.';
        n->row = r;
    }
}
static const struct op_row *find_row(const char *op) {
    if (!rows) {
        add_rows(qn_ptx_rows_int), add_rows(qn_ptx_rows_float), add_rows(qn_ptx_rows_half), add_rows(qn_ptx_rows_warp);
        qsort(rows, n_rows, sizeof *rows, by_name);
        for (size_t k = 1; k < n_rows; k++)
            if (!strcmp(rows[k - 1].name, rows[k].name)) qn_ptx_bad("tables", 0, rows[k].name, "listed twice");
    }
    struct named key;
    snprintf(key.name, sizeof key.name, "%s", op);
    const struct named *n = bsearch(&key, rows, n_rows, sizeof *rows, by_name);
    return n ? n->row : NULL;
}

/* ---- operands ---- */

int qn_ptx_const(struct qn_ptx *m, uint64_t bits, unsigned width) {
    for (int k = m->n_consts - 1; k >= 0; k--)
        if (m->const_bits[k] == bits && m->const_width[k] == width) return ~k;
    if (m->n_consts == m->consts_max) {
        int max = m->consts_max ? 2 * m->consts_max : 64;
        union reg *bigger = aligned_alloc(64, (size_t)max * sizeof *bigger);
        m->const_bits = realloc(m->const_bits, (size_t)max * sizeof *m->const_bits);
        m->const_width = realloc(m->const_width, (size_t)max);
        if (!bigger || !m->const_bits || !m->const_width) abort();
        if (m->n_consts) memcpy(bigger, m->consts, (size_t)m->n_consts * sizeof *bigger);
        free(m->consts);
        m->consts = bigger, m->consts_max = max;
    }
    int k = m->n_consts++;
    union reg *r = &m->consts[k];
    memset(r, 0, sizeof *r);
    for (int l = 0; l < LANES_N; l++) memcpy((uint8_t *)r + (size_t)l * width, &bits, width);
    m->const_bits[k] = bits, m->const_width[k] = (uint8_t)width;
    return ~k;
}

void qn_ptx_take(struct insn *i, struct line *ln, int k, unsigned width) {
    const struct operand *o = &ln->o[k];
    if (k >= i->n_ops) i->n_ops = (uint8_t)(k + 1);
    i->width[k] = (uint8_t)(width ? width : o->width);
    switch (o->kind) {
    case OPD_REG:
        if (width && o->width != width) qn_ptx_bad(ln->where, ln->number, ln->text, "operand %d has %d bytes, the instruction wants %u", k, o->width, width);
        i->o[k] = o->reg;
        break;
    case OPD_SINK: i->o[k] = R_SINK, i->width[k] = (uint8_t)(width ? width : 4); break;
    case OPD_IMM: {
        if (width == 1 && k >= i->n_dst && (o->imm == 0 || o->imm == -1)) { /* false or true in all lanes */
            i->o[k] = qn_ptx_const(ln->m, (uint32_t)o->imm, 4);
            break;
        }
        if (width < 2 || k < i->n_dst) qn_ptx_bad(ln->where, ln->number, ln->text, "operand %d is a constant", k);
        int64_t low = width == 8 ? INT64_MIN : -(1ll << (8 * width - 1));
        if (width < 8 && (o->imm < low || o->imm >= 1ll << (8 * width))) qn_ptx_bad(ln->where, ln->number, ln->text, "constant %d does not fit in %u bytes", k, width);
        i->o[k] = qn_ptx_const(ln->m, (uint64_t)o->imm & (width == 8 ? ~0ull : (1ull << (8 * width)) - 1), width);
        break;
    }
    default: qn_ptx_bad(ln->where, ln->number, ln->text, "operand %d is of the wrong kind", k);
    }
}

void qn_ptx_take_address(struct insn *i, struct line *ln, int k, int64_t *offset) {
    const struct operand *o = &ln->o[k];
    if (o->kind != OPD_MEM) qn_ptx_bad(ln->where, ln->number, ln->text, "operand %d is no address", k);
    if (k >= i->n_ops) i->n_ops = (uint8_t)(k + 1);
    if (o->width == 0) { /* no register */
        i->o[k] = qn_ptx_const(ln->m, (uint64_t)o->imm, 8), i->width[k] = 8, *offset = 0;
        return;
    }
    if (o->width < 4) qn_ptx_bad(ln->where, ln->number, ln->text, "an address of %d bytes", o->width);
    i->o[k] = o->reg, i->width[k] = o->width, *offset = o->imm;
}

/* Operands against the pattern; the line has fewer than the pattern where a P was left out. */
static void match(struct insn *i, struct line *ln, const char *pattern) {
    int k = 0;
    bool dst = true;
    for (const char *c = pattern; *c; c++) {
        if (*c == '=') { i->n_dst = (uint8_t)k, dst = false; continue; }
        if (*c == 'P' && (k >= ln->n || ln->o[k].first != ln->o[k - 1].first)) {
            if (ln->n == OPERANDS_MAX) abort();
            memmove(&ln->o[k + 1], &ln->o[k], (size_t)(ln->n - k) * sizeof *ln->o);
            ln->o[k] = (struct operand){.kind = OPD_SINK};
            ln->n++;
        }
        if (k >= ln->n) qn_ptx_bad(ln->where, ln->number, ln->text, "too few operands");
        if (dst && ln->o[k].kind == OPD_IMM) qn_ptx_bad(ln->where, ln->number, ln->text, "writes a constant");
        if (*c == 'm') qn_ptx_take_address(i, ln, k, &i->imm);
        else qn_ptx_take(i, ln, k, *c == 'h' ? 2 : *c == 'w' ? 4 : *c == 'l' ? 8 : 1);
        k++;
    }
    if (k != ln->n) qn_ptx_bad(ln->where, ln->number, ln->text, "too many operands");
}

void qn_ptx_decode(struct insn *i, struct line *ln) {
    i->opcode = qn_ptx_opcode(ln->op);
    i->member = -1;
    if (!strcmp(ln->op, "bra") || !strcmp(ln->op, "bra.uni")) {
        if (ln->n != 1 || ln->o[0].kind != OPD_LABEL) qn_ptx_bad(ln->where, ln->number, ln->text, "branches to no label");
        i->kind = K_BRA;
        return;
    }
    if (!strcmp(ln->op, "brx.idx") || !strcmp(ln->op, "brx.idx.uni")) {
        if (ln->n != 2 || ln->o[1].kind != OPD_LABEL) qn_ptx_bad(ln->where, ln->number, ln->text, "has no table of targets");
        qn_ptx_take(i, ln, 0, 4);
        i->kind = K_BRX;
        return;
    }
    const struct op_row *row = find_row(ln->op);
    if (row) {
        i->fn = row->fn, i->kind = row->kind, i->member = row->member;
        match(i, ln, row->pattern);
        if (i->kind == K_BAR && (ln->o[0].kind != OPD_IMM || ln->o[0].imm)) qn_ptx_bad(ln->where, ln->number, ln->text, "a barrier other than 0");
        return;
    }
    if (!qn_ptx_decode_memory(i, ln) && !qn_ptx_decode_cvt(i, ln)) qn_ptx_bad(ln->where, ln->number, ln->text, "not known to the interpreter (tests/cuda/ptx)");
}
