/* Reads a PTX module: entries with parameters, registers, variables, labels and instructions. Statements end at ';', so they may
 * share a line or go over several; .loc, .file and the performance directives end with their line; names of registers live as long
 * as the braces around them. Functions (.func) are not read: nvcc inlines ours, and a call ends the process. */
#include "tests/cuda/ptx/impl.h"

#include <ctype.h>

struct symbol {
    char name[NAME_MAX_];
    int kind, count; /* S_… of a variable, or -1 for a register; registers: how many numbered ones, 0 for a plain name */
    unsigned width;
    int64_t at;      /* first register; offset or host address */
    int depth;
    bool dynamic;
};
struct fixup { int insn, line; char name[NAME_MAX_]; };
struct label { char name[NAME_MAX_]; int at; };
struct targets { char name[NAME_MAX_]; char **labels; int n; };

struct reader {
    struct qn_ptx *m;
    char *p, *begin; /* here, and where the statement began */
    int line, depth;
    struct symbol *syms; int n_syms;
    struct label *labels; int n_labels;
    struct fixup *fixups; int n_fixups;
    struct targets *targets; int n_targets;
    struct entry *e;
    uint32_t module_shared;
    int64_t dynamic_at; /* where this entry's dynamic shared memory begins; -1 until something asks */
};

#define GROW(a, n) ((a) = realloc((a), (size_t)((n) + 1) * sizeof *(a)), (a) ? (void)0 : abort())

static _Noreturn void bad(struct reader *r, const char *what) {
    char text[160];
    snprintf(text, sizeof text, "%s", r->begin ? r->begin : r->p);
    text[strcspn(text, ";\n")] = 0;
    qn_ptx_bad(r->m->name, r->line, text, "%s", what);
}
static void own(struct qn_ptx *m, void *p) {
    if (!p) abort();
    GROW(m->owned, m->n_owned);
    m->owned[m->n_owned++] = p;
}

/* ---- scanning ---- */

static void blank_comments(char *s) {
    while (*s) {
        if (*s == '"') {
            for (s++; *s && *s != '"'; s++) {}
            if (*s) s++;
        } else if (s[0] == '/' && s[1] == '/') {
            while (*s && *s != '\n') *s++ = ' ';
        } else if (s[0] == '/' && s[1] == '*') {
            while (*s && !(s[0] == '*' && s[1] == '/')) { if (*s != '\n') *s = ' '; s++; }
            if (*s) s[0] = s[1] = ' ';
        } else s++;
    }
}
static void space(struct reader *r) {
    for (; isspace((unsigned char)*r->p); r->p++) r->line += *r->p == '\n';
}
static void to_line_end(struct reader *r) { while (*r->p && *r->p != '\n') r->p++; }
static bool is_name(int c) { return isalnum(c) || c == '_' || c == '$' || c == '%'; }
static bool accept(struct reader *r, const char *word) {
    space(r);
    size_t n = strlen(word);
    if (strncmp(r->p, word, n) || (is_name((unsigned char)word[n - 1]) && is_name((unsigned char)r->p[n]))) return false;
    r->p += n;
    return true;
}
static void expect(struct reader *r, const char *word) {
    if (!accept(r, word)) {
        char what[64];
        snprintf(what, sizeof what, "expected '%s'", word);
        bad(r, what);
    }
}
static void name(struct reader *r, char out[NAME_MAX_]) {
    space(r);
    int n = 0;
    while (is_name((unsigned char)*r->p)) {
        if (n == NAME_MAX_ - 1) bad(r, "a name too long");
        out[n++] = *r->p++;
    }
    out[n] = 0;
    if (!n) bad(r, "expected a name");
}
/* Decimal, 0x…, 0f… (f32 bits), 0d… (f64 bits), with a sign. */
static bool number(struct reader *r, int64_t *v) {
    space(r);
    char *p = r->p, *end;
    bool minus = *p == '-';
    if (minus) p++;
    if (!isdigit((unsigned char)*p)) return false;
    if (p[0] == '0' && strchr("fFdD", p[1]) && p[1]) *v = (int64_t)strtoull(p + 2, &end, 16);
    else *v = (int64_t)strtoull(p, &end, p[0] == '0' && (p[1] == 'x' || p[1] == 'X') ? 16 : 10);
    if (*end == 'U') end++;
    if (minus) *v = -*v;
    if (is_name((unsigned char)*end) || *end == '.') bad(r, "a number that is not understood");
    r->p = end;
    return true;
}
static int64_t wanted_number(struct reader *r) {
    int64_t v;
    if (!number(r, &v)) bad(r, "expected a number");
    return v;
}
static int type_directive(struct reader *r) { /* ".b32" */
    space(r);
    char word[NAME_MAX_];
    if (*r->p != '.') return T_NONE;
    char *back = r->p++;
    name(r, word);
    int t = qn_ptx_type(word);
    if (!t) r->p = back;
    return t;
}

/* ---- symbols ---- */

static struct symbol *add_symbol(struct reader *r, const char *s, int kind, unsigned width, int64_t at) {
    GROW(r->syms, r->n_syms);
    struct symbol *y = &r->syms[r->n_syms++];
    memset(y, 0, sizeof *y);
    snprintf(y->name, sizeof y->name, "%s", s);
    y->kind = kind, y->width = width, y->at = at, y->depth = r->depth;
    return y;
}
static const char *const specials[R_SPECIALS] = {
    [R_TID_X] = "%tid.x", [R_TID_Y] = "%tid.y", [R_TID_Z] = "%tid.z", [R_LANE] = "%laneid", [R_WARP] = "%warpid", [R_NWARP] = "%nwarpid",
    [R_NTID_X] = "%ntid.x", [R_NTID_Y] = "%ntid.y", [R_NTID_Z] = "%ntid.z", [R_CTA_X] = "%ctaid.x", [R_CTA_Y] = "%ctaid.y", [R_CTA_Z] = "%ctaid.z",
    [R_NCTA_X] = "%nctaid.x", [R_NCTA_Y] = "%nctaid.y", [R_NCTA_Z] = "%nctaid.z", [R_MASK_EQ] = "%lanemask_eq", [R_MASK_LE] = "%lanemask_le",
    [R_MASK_LT] = "%lanemask_lt", [R_MASK_GE] = "%lanemask_ge", [R_MASK_GT] = "%lanemask_gt"};

/* Innermost first: a plain name, or a prefix with a number below its count. */
static bool find_symbol(struct reader *r, const char *s, struct operand *o, struct symbol **var) {
    size_t n = strlen(s), digits = n;
    while (digits > 0 && isdigit((unsigned char)s[digits - 1])) digits--;
    for (int k = r->n_syms - 1; k >= 0; k--) {
        struct symbol *y = &r->syms[k];
        int number_ = 0;
        if (y->count) {
            if (digits == n || n - digits > 6 || strncmp(y->name, s, digits) || y->name[digits]) continue;
            number_ = atoi(s + digits);
            if (number_ >= y->count) continue;
        } else if (strcmp(y->name, s)) continue;
        *var = y;
        if (y->kind < 0) *o = (struct operand){.kind = OPD_REG, .width = (uint8_t)y->width, .reg = (int32_t)(y->at + number_)};
        else *o = (struct operand){.kind = OPD_IMM, .imm = y->at};
        return true;
    }
    return false;
}

static int64_t dynamic_shared(struct reader *r, const struct symbol *y) {
    unsigned align = y->width < 16 ? 16 : y->width;
    if (!r->e) bad(r, "dynamic shared memory outside an entry");
    r->e->shared_bytes = (r->e->shared_bytes + align - 1) / align * align;
    if (r->dynamic_at >= 0 && r->dynamic_at != r->e->shared_bytes) bad(r, "shared variables after the dynamic ones");
    return r->dynamic_at = r->e->shared_bytes;
}

/* ---- operands ---- */

static struct operand named_operand(struct reader *r, bool label_ok) {
    char word[NAME_MAX_];
    name(r, word);
    if (word[0] == '%' && *r->p == '.') { /* %tid.x */
        size_t n = strlen(word);
        if (n + 2 >= sizeof word) bad(r, "a name too long");
        word[n] = '.', word[n + 1] = r->p[1], word[n + 2] = 0;
        r->p += 2;
    }
    for (int k = R_TID_X; k < R_SPECIALS; k++)
        if (!strcmp(word, specials[k])) return (struct operand){.kind = OPD_REG, .width = 4, .reg = k};
    if (!strcmp(word, "WARP_SZ")) return (struct operand){.kind = OPD_IMM, .imm = 32};
    if (!strcmp(word, "_")) return (struct operand){.kind = OPD_SINK};
    struct operand o;
    struct symbol *var = NULL;
    if (find_symbol(r, word, &o, &var)) {
        if (var->dynamic) o.imm = dynamic_shared(r, var);
        return o;
    }
    if (!label_ok) {
        char what[NAME_MAX_ + 32];
        snprintf(what, sizeof what, "does not know the name '%s'", word);
        bad(r, what);
    }
    GROW(r->fixups, r->n_fixups);
    struct fixup *f = &r->fixups[r->n_fixups++];
    f->insn = r->e->n_code, f->line = r->line;
    snprintf(f->name, sizeof f->name, "%s", word);
    return (struct operand){.kind = OPD_LABEL};
}

static struct operand address_operand(struct reader *r) {
    struct operand o = {.kind = OPD_MEM};
    int64_t v;
    if (number(r, &v)) o.imm = v;
    else {
        struct operand base = named_operand(r, false);
        if (base.kind == OPD_REG) o.reg = base.reg, o.width = base.width;
        else if (base.kind == OPD_IMM) o.imm = base.imm;
        else bad(r, "no address");
        space(r);
        if (*r->p == '+') r->p++, o.imm += wanted_number(r);
        else if (*r->p == '-') o.imm += wanted_number(r);
    }
    expect(r, "]");
    return o;
}

static void add_operand(struct reader *r, struct line *ln, struct operand o) {
    if (ln->n == OPERANDS_MAX) bad(r, "too many operands");
    o.first = (uint8_t)ln->n_written;
    ln->o[ln->n++] = o;
}
static struct operand simple_operand(struct reader *r, bool label_ok) {
    int64_t v;
    if (number(r, &v)) return (struct operand){.kind = OPD_IMM, .imm = v};
    return named_operand(r, label_ok);
}
static void operands(struct reader *r, struct line *ln) {
    bool label_ok = !strncmp(ln->op, "bra", 3) || !strncmp(ln->op, "brx", 3);
    while (space(r), *r->p != ';') {
        if (ln->n_written) expect(r, ",");
        if (accept(r, "{")) {
            do add_operand(r, ln, simple_operand(r, false));
            while (accept(r, ","));
            expect(r, "}");
        } else if (accept(r, "[")) {
            add_operand(r, ln, address_operand(r));
        } else {
            add_operand(r, ln, simple_operand(r, label_ok));
            if (accept(r, "|")) add_operand(r, ln, simple_operand(r, false));
        }
        ln->n_written++;
    }
}

/* ---- declarations ---- */

static void registers(struct reader *r) {
    int t = type_directive(r);
    unsigned width = qn_ptx_bytes(t);
    if (!t || (width == 1 && t != T_PRED)) bad(r, "registers of an unknown type");
    do {
        char word[NAME_MAX_];
        name(r, word);
        int count = 0;
        if (accept(r, "<")) {
            count = (int)wanted_number(r);
            expect(r, ">");
        }
        add_symbol(r, word, -1, width, r->e->n_regs)->count = count;
        r->e->n_regs += count ? count : 1;
    } while (accept(r, ","));
    expect(r, ";");
}

static void initial_values(struct reader *r, uint8_t *to, size_t bytes, unsigned width) {
    bool braces = accept(r, "{");
    size_t k = 0;
    do {
        int64_t v = wanted_number(r);
        if ((k + 1) * width > bytes) bad(r, "more values than elements");
        memcpy(to + k++ * width, &v, width);
    } while (braces && accept(r, ","));
    if (braces) expect(r, "}");
}

/* [.align n] .type name[count] [= values]; */
static void variable(struct reader *r, int space_, bool is_extern) {
    unsigned align = 0;
    while (accept(r, ".align")) align = (unsigned)wanted_number(r);
    int t = type_directive(r);
    unsigned width = qn_ptx_bytes(t);
    if (!t) bad(r, "a variable of an unknown type");
    if (!align) align = width;
    char word[NAME_MAX_];
    name(r, word);
    size_t bytes = width;
    if (accept(r, "[")) {
        int64_t n = 0;
        bool sized = number(r, &n);
        if (!sized && !is_extern) bad(r, "an array without a size");
        bytes = width * (size_t)n;
        expect(r, "]");
    }
    if (space_ == S_SHARED && is_extern) {
        add_symbol(r, word, S_SHARED, align, 0)->dynamic = true;
    } else if (space_ == S_SHARED || space_ == S_LOCAL) {
        uint32_t *end = space_ == S_LOCAL ? &r->e->local_bytes : r->e ? &r->e->shared_bytes : &r->module_shared;
        *end = (*end + align - 1) / align * align;
        add_symbol(r, word, space_, align, *end);
        *end += (uint32_t)bytes;
        if (space_ == S_SHARED && r->e && r->dynamic_at >= 0) bad(r, "a shared variable after dynamic ones were used");
    } else {
        if (is_extern) bad(r, "an external variable");
        if (align < 16) align = 16;
        uint8_t *p = aligned_alloc(align, (bytes + align - 1) / align * align);
        own(r->m, p);
        memset(p, 0, bytes);
        add_symbol(r, word, space_, align, (int64_t)(uintptr_t)p);
        if (accept(r, "=")) initial_values(r, p, bytes, width);
        qn_ptx_allow(p, bytes, space_ == S_GLOBAL);
    }
    expect(r, ";");
}

static void parameter(struct reader *r) {
    struct entry *e = r->e;
    expect(r, ".param");
    unsigned align = 0;
    while (accept(r, ".align")) align = (unsigned)wanted_number(r);
    int t = type_directive(r);
    if (!t) bad(r, "a parameter of an unknown type");
    unsigned width = qn_ptx_bytes(t);
    if (!align) align = width;
    if (accept(r, ".ptr")) { /* about what it points to */
        while (accept(r, ".global") || accept(r, ".shared") || accept(r, ".const") || accept(r, ".local")) {}
        if (accept(r, ".align")) (void)wanted_number(r);
    }
    char word[NAME_MAX_];
    name(r, word);
    unsigned bytes = width;
    if (accept(r, "[")) {
        bytes = width * (unsigned)wanted_number(r);
        expect(r, "]");
    }
    GROW(e->params, e->n_params);
    e->param_bytes = (e->param_bytes + align - 1) / align * align;
    e->params[e->n_params++] = (struct param){e->param_bytes, bytes, align};
    add_symbol(r, word, S_PARAM, align, e->param_bytes)->depth = 1;
    e->param_bytes += bytes;
}

/* ---- bodies ---- */

static void instruction(struct reader *r) {
    struct entry *e = r->e;
    if (e->n_code == e->code_max) {
        e->code_max = e->code_max ? 2 * e->code_max : 256;
        e->code = realloc(e->code, (size_t)e->code_max * sizeof *e->code);
        if (!e->code) abort();
    }
    struct insn *i = &e->code[e->n_code];
    memset(i, 0, sizeof *i);
    i->guard = -1;
    struct line ln = {.where = r->m->name, .text = r->p, .number = r->line, .m = r->m};
    char *statement = r->p;
    if (accept(r, "@")) {
        i->guard_not = accept(r, "!");
        struct operand o = named_operand(r, false);
        if (o.kind != OPD_REG || o.width != 1) bad(r, "guarded by no predicate");
        i->guard = o.reg;
        space(r);
    }
    char parts[sizeof ln.op];
    size_t n = strcspn(r->p, " \t\n;");
    if (n >= sizeof ln.op) bad(r, "an opcode too long");
    memcpy(ln.op, r->p, n);
    r->p += n;
    strcpy(parts, ln.op);
    for (char *s = parts, *dot; s; s = dot) {
        if ((dot = strchr(s, '.'))) *dot++ = 0;
        if (ln.n_parts == (int)(sizeof ln.part / sizeof *ln.part)) bad(r, "an opcode of too many parts");
        ln.part[ln.n_parts++] = s;
    }
    operands(r, &ln);
    *r->p++ = 0; /* the ';': the statement is a string now */
    for (char *c = statement; *c; c++)
        if (isspace((unsigned char)*c)) *c = ' ';
    i->text = statement, i->line = ln.number;
    qn_ptx_decode(i, &ln);
    e->n_code++;
}

static void branch_targets(struct reader *r, const char *label) {
    GROW(r->targets, r->n_targets);
    struct targets *t = &r->targets[r->n_targets++];
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", label);
    do {
        char word[NAME_MAX_];
        name(r, word);
        GROW(t->labels, t->n);
        t->labels[t->n++] = strdup(word);
    } while (accept(r, ","));
    expect(r, ";");
}

static bool label_here(struct reader *r) {
    char *p = r->p;
    while (is_name((unsigned char)*p)) p++;
    if (p == r->p || *p != ':' || p[1] == ':') return false;
    char word[NAME_MAX_];
    name(r, word);
    r->p++;
    if (accept(r, ".branchtargets")) {
        branch_targets(r, word);
        return true;
    }
    for (int k = 0; k < r->n_labels; k++)
        if (!strcmp(r->labels[k].name, word)) bad(r, "a label for the second time");
    GROW(r->labels, r->n_labels);
    snprintf(r->labels[r->n_labels].name, NAME_MAX_, "%s", word);
    r->labels[r->n_labels++].at = r->e->n_code;
    return true;
}

static int label_at(struct reader *r, const char *s, int line) {
    for (int k = 0; k < r->n_labels; k++)
        if (!strcmp(r->labels[k].name, s)) return r->labels[k].at;
    qn_ptx_bad(r->m->name, line, s, "no such label");
}
static void resolve(struct reader *r) {
    for (int k = 0; k < r->n_fixups; k++) {
        struct fixup *f = &r->fixups[k];
        struct insn *i = &r->e->code[f->insn];
        if (i->kind == K_BRA) {
            i->target = label_at(r, f->name, f->line);
            continue;
        }
        for (int t = 0; t < r->n_targets; t++) {
            if (strcmp(r->targets[t].name, f->name)) continue;
            int32_t *table = malloc((size_t)r->targets[t].n * sizeof *table);
            own(r->m, table);
            for (int n = 0; n < r->targets[t].n; n++) table[n] = label_at(r, r->targets[t].labels[n], f->line);
            i->table = table, i->target = r->targets[t].n;
        }
        if (!i->table) qn_ptx_bad(r->m->name, f->line, f->name, "no such table");
    }
    for (int t = 0; t < r->n_targets; t++) {
        for (int n = 0; n < r->targets[t].n; n++) free(r->targets[t].labels[n]);
        free(r->targets[t].labels);
    }
    r->n_fixups = r->n_labels = r->n_targets = 0;
}

static void close_brace(struct reader *r) {
    r->depth--;
    while (r->n_syms && r->syms[r->n_syms - 1].depth > r->depth) r->n_syms--;
}

static void body(struct reader *r) {
    int outside = r->depth;
    r->depth++;
    do {
        space(r);
        r->begin = r->p;
        if (!*r->p) bad(r, "ends within an entry");
        if (accept(r, "{")) r->depth++;
        else if (accept(r, "}")) close_brace(r);
        else if (accept(r, ".reg")) registers(r);
        else if (accept(r, ".shared")) variable(r, S_SHARED, false);
        else if (accept(r, ".local")) variable(r, S_LOCAL, false);
        else if (accept(r, ".loc") || accept(r, ".file")) to_line_end(r);
        else if (accept(r, ".pragma")) { r->p += strcspn(r->p, ";"); expect(r, ";"); }
        else if (accept(r, ";")) {}
        else if (*r->p == '.') bad(r, "a directive that is not known");
        else if (!label_here(r)) instruction(r);
    } while (r->depth > outside);
}

static void entry(struct reader *r) {
    char word[NAME_MAX_];
    name(r, word);
    GROW(r->m->entries, r->m->n_entries);
    struct entry *e = r->e = &r->m->entries[r->m->n_entries++];
    memset(e, 0, sizeof *e);
    e->name = strdup(word);
    e->n_regs = R_SPECIALS;
    e->shared_bytes = r->module_shared;
    r->dynamic_at = -1;
    int outer = r->n_syms;
    if (accept(r, "(")) {
        if (!accept(r, ")")) {
            do parameter(r);
            while (accept(r, ","));
            expect(r, ")");
        }
    }
    while (space(r), *r->p == '.') {
        bool counted = accept(r, ".maxntid") || accept(r, ".reqntid");
        if (counted) {
            e->max_threads = (uint32_t)wanted_number(r);
            while (accept(r, ",")) e->max_threads *= (uint32_t)wanted_number(r);
        } else if (accept(r, ".minnctapersm") || accept(r, ".maxnreg") || accept(r, ".maxnctapersm")) {
            (void)wanted_number(r);
        } else bad(r, "a directive that is not known");
    }
    expect(r, "{");
    body(r);
    resolve(r);
    r->n_syms = outer;
    r->e = NULL;
}

static void skip_braces(struct reader *r) {
    int open = 0;
    do {
        if (!*r->p) bad(r, "ends within braces");
        open += (*r->p == '{') - (*r->p == '}');
        r->line += *r->p == '\n';
        r->p++;
    } while (open || r->p[-1] != '}');
}

static void top_level(struct reader *r) {
    while (space(r), *r->p) {
        bool is_extern = false;
        r->begin = r->p;
        while (accept(r, ".visible") || accept(r, ".weak") || accept(r, ".common") || (accept(r, ".extern") && (is_extern = true))) {}
        if (accept(r, ".entry")) entry(r);
        else if (accept(r, ".global")) variable(r, S_GLOBAL, is_extern);
        else if (accept(r, ".const")) variable(r, S_CONST, is_extern);
        else if (accept(r, ".shared")) variable(r, S_SHARED, is_extern);
        else if (accept(r, ".section")) skip_braces(r);
        else if (accept(r, ".version") || accept(r, ".target") || accept(r, ".address_size") || accept(r, ".file") || accept(r, ".loc")) to_line_end(r);
        else bad(r, "a directive that is not known");
    }
}

struct qn_ptx *qn_ptx_parse(const char *text, const char *name_) {
    struct qn_ptx *m = calloc(1, sizeof *m);
    if (!m) abort();
    m->name = strdup(name_), m->text = strdup(text);
    if (!m->name || !m->text) abort();
    blank_comments(m->text);
    struct reader r = {.m = m, .p = m->text, .line = 1};
    top_level(&r);
    free(r.syms), free(r.labels), free(r.fixups), free(r.targets);
    return m;
}

struct qn_ptx *qn_ptx_open(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) qn_ptx_bad(path, 0, path, "cannot be opened");
    char *text = NULL;
    size_t n = 0, got;
    do {
        text = realloc(text, n + (1 << 16) + 1);
        if (!text) abort();
        n += got = fread(text + n, 1, 1 << 16, f);
    } while (got);
    fclose(f);
    text[n] = 0;
    struct qn_ptx *m = qn_ptx_parse(text, path);
    free(text);
    return m;
}

void qn_ptx_close(struct qn_ptx *m) {
    if (!m) return;
    for (int k = 0; k < m->n_entries; k++) free(m->entries[k].name), free(m->entries[k].params), free(m->entries[k].code);
    for (int k = 0; k < m->n_owned; k++) qn_ptx_forbid(m->owned[k]), free(m->owned[k]);
    free(m->entries), free(m->owned), free(m->consts), free(m->const_bits), free(m->const_width), free(m->name), free(m->text);
    free(m);
}

/* The plain name in a mangled one: _Z3rmsPf, _ZN12_GLOBAL__N_13rmsEv, _Z4rowsILi4EEvPf. */
static bool is_plain_name(const char *mangled, const char *plain) {
    size_t n = strlen(plain);
    for (const char *s = mangled; (s = strstr(s, plain)); s++) {
        char digits[16];
        int d = snprintf(digits, sizeof digits, "%zu", n);
        if (s - mangled >= d + 2 && !strncmp(s - d, digits, (size_t)d) && !isdigit((unsigned char)s[-d - 1])) return true;
    }
    return false;
}
const char *qn_ptx_entry(struct qn_ptx *m, const char *wanted) {
    const char *found = NULL;
    for (int k = 0; k < m->n_entries; k++)
        if (!strcmp(m->entries[k].name, wanted)) return m->entries[k].name;
    for (int k = 0; k < m->n_entries; k++) {
        if (!is_plain_name(m->entries[k].name, wanted)) continue;
        if (found) qn_ptx_bad(m->name, 0, wanted, "names more than one entry");
        found = m->entries[k].name;
    }
    return found;
}
