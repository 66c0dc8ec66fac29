/* "%s" % x and "{}".format(x), the parts of them that templates use: s d i u f F e E g G x X o c r a %% with flags, width and
 * precision; fields by number, name, attribute and index, !r !s !a, and format specs of text, integers and floats.
 *
 * Bytes of the format keep their marks and so do strings that are put in; a number's digits are trusted when the number
 * did not come from the request. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/jinja_calls.h"
#include "api/jinja_ops.h"
#include "api/jinja_show.h"
#include "api/jinja_str.h"
#include "engine/base/utf8.h"

enum { WIDTH_MAX = 100000, PRECISION_MAX = 1000 };

struct spec {
    char fill[4];
    int n_fill;
    char align, sign, type, group; /* 0: not given */
    int alt, width, precision;     /* precision -1: not given */
};

static struct qn_jv shorten(struct qn_jx *x, struct qn_jstr *s, int precision) {
    if (precision < 0 || (uint32_t)precision >= qn_jstr_chars(s)) return (struct qn_jv){.t = J_STR, .s = s};
    return qn_jstr_sub(x, s, 0, qn_jstr_at(s, (uint32_t)precision));
}

static void padded(struct qn_jx *x, struct qn_jsb *b, struct qn_jstr *s, const struct spec *p, char align) {
    struct qn_jstr fill = {.p = p->n_fill ? p->fill : " ",
                           .n = p->n_fill ? (uint32_t)p->n_fill : 1,
                           .chars = 1,
                           .trust = s->trust == TRUST_NONE ? TRUST_NONE : TRUST_ALL};
    int64_t need = p->width - (int64_t)qn_jstr_chars(s), left = align == '<' ? 0 : align == '^' ? need / 2 : need;
    if (need > 0) s = qn_jstr_pad(x, s, left, need - left, &fill).s;
    qn_jsb_str(b, s);
}

/* Digits of a number without its sign, by type; 0: not a type for it. */
static int digits(char *to, size_t size, struct qn_jv v, char type, int precision, int alt) {
    char fmt[16];
    if ((type && strchr("eEfFgG%", type)) || (v.t == J_FLOAT && (!type || type == 'n'))) {
        double f = fabs(qn_jv_as_num(v));
        if (!type && precision < 0) return (int)qn_jv_float_text(f, to);
        if (type == '%') f *= 100;
        if (!isfinite(f)) return snprintf(to, size, type == 'F' || type == 'E' || type == 'G' ? "%F" : "%f", f);
        snprintf(fmt, sizeof fmt, "%%%s.*%c", alt ? "#" : "", type == '%' ? 'f' : !type || type == 'n' ? 'g' : type);
        int n = snprintf(to, size, fmt, precision < 0 ? 6 : precision, f);
        if (!type && !memchr(to, '.', (size_t)n) && !memchr(to, 'e', (size_t)n)) n += snprintf(to + n, size - (size_t)n, ".0");
        if (type == '%') n += snprintf(to + n, size - (size_t)n, "%%");
        return n;
    }
    if (!qn_jv_is_int(v)) return 0;
    int64_t i = qn_jv_as_int(v);
    unsigned long long u = i < 0 ? 0ULL - (unsigned long long)i : (unsigned long long)i;
    switch (type) {
    case 0: case 'd': case 'n': case 'i': case 'u': return snprintf(to, size, "%llu", u);
    case 'x': return snprintf(to, size, alt ? "0x%llx" : "%llx", u);
    case 'X': return snprintf(to, size, alt ? "0X%llX" : "%llX", u);
    case 'o': return snprintf(to, size, alt ? "0o%llo" : "%llo", u);
    case 'b': {
        int n = alt ? snprintf(to, size, "0b") : 0, bits = 64;
        while (bits > 1 && !(u >> (bits - 1))) bits--;
        while (bits > 0) to[n++] = (char)('0' + (u >> --bits & 1));
        return n;
    }
    default: return 0;
    }
}

static int grouped(char *to, const char *from, int n, char group) {
    int whole = 0, o = 0;
    while (whole < n && from[whole] >= '0' && from[whole] <= '9') whole++;
    for (int i = 0; i < n; i++) {
        if (i && i < whole && (whole - i) % 3 == 0) to[o++] = group;
        to[o++] = from[i];
    }
    return o;
}

static void number(struct qn_jx *x, struct qn_jsb *b, struct qn_jv v, const struct spec *p) {
    size_t size = 800 + (size_t)(p->precision > 0 ? p->precision : 0) * 2;
    char *text = qn_jx_alloc(x, size), *more = qn_jx_alloc(x, size * 2);
    int n = digits(text, size, v, p->type, p->precision, p->alt);
    if (n <= 0)
        qn_jx_fail(x, QN_E_DATA, "Unknown format code '%c' for object of type '%s'", p->type ? p->type : '?', qn_jv_type(v));
    if (p->group) {
        n = grouped(more, text, n, p->group);
        text = more;
    }
    int minus = v.t == J_FLOAT ? signbit(v.f) != 0 && !isnan(v.f) : qn_jv_as_int(v) < 0;
    const char *sign = minus ? "-" : p->sign == '+' ? "+" : p->sign == ' ' ? " " : "";
    struct qn_jsb whole;
    qn_jsb_init(&whole, x);
    char align = p->align ? p->align : '>';
    qn_jsb_put(&whole, sign, strlen(sign), !v.dirty);
    if (align == '=') { /* between sign and digits */
        int prefix = p->alt && strchr("xXob", p->type) && p->type ? 2 : 0;
        qn_jsb_put(&whole, text, (size_t)prefix, !v.dirty);
        for (int64_t need = p->width - n - (int64_t)strlen(sign); need > 0; need--)
            qn_jsb_put(&whole, p->n_fill ? p->fill : " ", p->n_fill ? (size_t)p->n_fill : 1, !v.dirty);
        qn_jsb_put(&whole, text + prefix, (size_t)(n - prefix), !v.dirty);
        align = '>';
    } else {
        qn_jsb_put(&whole, text, (size_t)n, !v.dirty);
    }
    padded(x, b, qn_jsb_done(&whole).s, p, align);
}

static int decimal(struct qn_jx *x, const struct qn_jstr *s, size_t *i, int max) {
    int n = 0;
    for (; *i < s->n && s->p[*i] >= '0' && s->p[*i] <= '9'; ++*i)
        if ((n = n * 10 + (s->p[*i] - '0')) > max) qn_jx_fail(x, QN_E_LIMIT, "a width or precision above %d", max);
    return n;
}

/* ---- % ---- */

struct percent {
    struct qn_jv args;
    uint32_t used;
};

static struct qn_jv next_arg(struct qn_jx *x, struct percent *a) {
    if (a->args.t == J_TUPLE) {
        if (a->used >= a->args.l->n) qn_jx_fail(x, QN_E_DATA, "not enough arguments for format string");
        return a->args.l->v[a->used++];
    }
    if (a->used++) qn_jx_fail(x, QN_E_DATA, "not enough arguments for format string");
    return a->args;
}

static void percent_one(struct qn_jx *x, struct qn_jsb *b, struct qn_jv v, struct spec *p, int zero) {
    struct qn_jsb t;
    char c[4];
    if (p->type == 's' || p->type == 'r' || p->type == 'a') {
        qn_jsb_init(&t, x);
        if (p->type == 's') qn_jv_show(x, v, &t);
        else qn_jv_repr(x, v, &t);
        padded(x, b, shorten(x, qn_jsb_done(&t).s, p->precision).s, p, p->align ? p->align : '>');
        return;
    }
    if (p->type == 'c') {
        if (v.t == J_STR && qn_jstr_chars(v.s) == 1) {
            padded(x, b, v.s, p, p->align ? p->align : '>');
            return;
        }
        if (!qn_jv_is_int(v) || v.i < 0 || v.i > 0x10FFFF || (v.i >= 0xD800 && v.i < 0xE000))
            qn_jx_fail(x, QN_E_DATA, "%%c requires int or char");
        qn_jsb_init(&t, x);
        qn_jsb_put(&t, c, (size_t)qn_utf8_encode((uint32_t)qn_jv_as_int(v), c), !v.dirty);
        padded(x, b, qn_jsb_done(&t).s, p, p->align ? p->align : '>');
        return;
    }
    if (!p->type || !strchr("diuxXofFeEgG", p->type))
        qn_jx_fail(x, QN_E_DATA, "unsupported format character '%c'", p->type >= 0x20 && p->type < 0x7F ? p->type : '?');
    if (!qn_jv_is_num(v)) qn_jx_fail(x, QN_E_DATA, "%%%c format: a real number is required, not %s", p->type, qn_jv_type(v));
    if (v.t == J_FLOAT && strchr("diu", p->type)) {
        if (!(v.f > -9.2e18 && v.f < 9.2e18)) qn_jx_fail(x, QN_E_DATA, "an integer does not fit 64 bits");
        uint8_t dirty = v.dirty;
        v = qn_jv_int((int64_t)v.f);
        v.dirty = dirty;
    }
    if (zero && p->align != '<') {
        p->align = '=';
        memcpy(p->fill, "0", 1);
        p->n_fill = 1;
    }
    number(x, b, v, p);
}

static struct qn_jv percent_key(struct qn_jx *x, struct qn_jstr *f, size_t *i, struct qn_jv args) {
    size_t from = *i + 1, depth = 1;
    for (++*i; *i < f->n && depth; ++*i) depth += f->p[*i] == '(' ? 1 : f->p[*i] == ')' ? (size_t)-1 : 0;
    if (depth) qn_jx_fail(x, QN_E_DATA, "incomplete format key");
    if (args.t != J_DICT) qn_jx_fail(x, QN_E_DATA, "format requires a mapping");
    struct qn_jv k = qn_jstr_sub(x, f, from, *i - 1), *v = qn_jdict_get(x, qn_jdict_of(x, args), k);
    if (!v) qn_jx_fail(x, QN_E_DATA, "no key '%.60s' for the format", qn_jstr_c(x, k.s));
    return *v;
}

struct qn_jv qn_jv_percent(struct qn_jx *x, struct qn_jstr *f, struct qn_jv args) {
    struct percent a = {.args = args};
    struct qn_jsb b;
    size_t from = 0;
    int named = 0;
    qn_jsb_init(&b, x);
    for (size_t i = 0; i < f->n;) {
        if (f->p[i] != '%') {
            i++;
            continue;
        }
        qn_jx_step(x);
        qn_jsb_sub(&b, f, from, i);
        struct spec p = {.precision = -1};
        struct qn_jv keyed = qn_jv_missing();
        int zero = 0;
        if (++i < f->n && f->p[i] == '(') {
            keyed = percent_key(x, f, &i, args);
            named = 1;
        }
        for (; i < f->n && f->p[i] && strchr("-+ #0", f->p[i]); i++) {
            if (f->p[i] == '-') p.align = '<';
            else if (f->p[i] == '#') p.alt = 1;
            else if (f->p[i] == '0') zero = 1;
            else if (p.sign != '+') p.sign = f->p[i];
        }
        p.width = decimal(x, f, &i, WIDTH_MAX);
        if (i < f->n && f->p[i] == '.') {
            i++;
            p.precision = decimal(x, f, &i, PRECISION_MAX);
        }
        while (i < f->n && f->p[i] && strchr("hlL", f->p[i])) i++;
        if (i >= f->n) qn_jx_fail(x, QN_E_DATA, "incomplete format");
        p.type = f->p[i++];
        if (p.type == '*') qn_jx_fail(x, QN_E_UNSUPPORTED, "'*' in a format");
        if (p.type == '%') qn_jsb_sub(&b, f, i - 1, i);
        else percent_one(x, &b, keyed.t == J_MISSING ? next_arg(x, &a) : keyed, &p, zero);
        from = i;
    }
    qn_jsb_sub(&b, f, from, f->n);
    if (!named && ((args.t == J_TUPLE && a.used < args.l->n) || (args.t != J_TUPLE && args.t != J_DICT && args.t != J_LIST &&
                                                                 args.t != J_UNDEF && args.t != J_RANGE && !a.used)))
        qn_jx_fail(x, QN_E_DATA, "not all arguments converted during string formatting");
    return qn_jsb_done(&b);
}

/* ---- str.format ---- */

struct fields {
    const struct qn_jargv *a;
    int64_t next; /* automatic number; -1 once fields are numbered by hand */
    int depth;
};

static struct qn_jv lookup(struct qn_jx *x, struct fields *o, struct qn_jstr *name) {
    int64_t n = 0;
    size_t i = 0;
    while (i < name->n && name->p[i] >= '0' && name->p[i] <= '9' && n < 100000) n = n * 10 + (name->p[i++] - '0');
    if (i == name->n) {
        if ((name->n == 0) == (o->next < 0) && o->next != 0)
            qn_jx_fail(x, QN_E_DATA, "cannot switch between manual and automatic field numbering");
        if (name->n == 0) n = o->next++;
        else o->next = -1;
        if (n >= o->a->n) qn_jx_fail(x, QN_E_DATA, "Replacement index %lld out of range for positional args tuple", (long long)n);
        return o->a->pos[n];
    }
    for (uint32_t k = 0; k < o->a->n_kw; k++, qn_jx_step(x))
        if (o->a->kw[k].k.t == J_STR && qn_jstr_eq(x, o->a->kw[k].k.s, name)) return o->a->kw[k].v;
    qn_jx_fail(x, QN_E_DATA, "format: no argument '%.60s'", qn_jstr_c(x, name));
}

/* name, name.attr, name[key] and so on. */
static struct qn_jv field(struct qn_jx *x, struct fields *o, struct qn_jstr *s) {
    size_t i = 0;
    while (i < s->n && s->p[i] != '.' && s->p[i] != '[') i++;
    struct qn_jv v = lookup(x, o, qn_jstr_sub(x, s, 0, i).s);
    while (i < s->n) {
        int attr = s->p[i] == '.';
        size_t from = ++i;
        while (i < s->n && (attr ? s->p[i] != '.' && s->p[i] != '[' : s->p[i] != ']')) i++;
        struct qn_jv key = qn_jstr_sub(x, s, from, i);
        const char *name = qn_jstr_c(x, key.s);
        if (!key.s->n || (!attr && i >= s->n)) qn_jx_fail(x, QN_E_DATA, "Empty attribute in format string");
        if (attr) {
            struct qn_jv lasting = qn_jv_cstr(x, name);
            v = qn_jv_attr(x, v, lasting.s, qn_jcall_method(name));
            continue;
        }
        i++;
        int number = strspn(name, "0123456789") == key.s->n && key.s->n < 10;
        v = qn_jv_item(x, v, number ? qn_jv_int(strtol(name, NULL, 10)) : key);
    }
    return v;
}

static struct spec parse_spec(struct qn_jx *x, struct qn_jstr *s) {
    struct spec p = {.precision = -1};
    size_t i = 0;
    uint32_t r;
    int k = s->n ? qn_utf8_decode(s->p, s->n, &r) : 0;
    if (k > 0 && (size_t)k < s->n && s->p[k] && strchr("<>=^", s->p[k])) {
        memcpy(p.fill, s->p, (size_t)k);
        p.n_fill = k;
        p.align = s->p[k];
        i = (size_t)k + 1;
    } else if (s->n && s->p[0] && strchr("<>=^", s->p[0])) {
        p.align = s->p[i++];
    }
    if (i < s->n && s->p[i] && strchr("+- ", s->p[i])) p.sign = s->p[i++];
    if (i < s->n && s->p[i] == '#') p.alt = 1, i++;
    if (i < s->n && s->p[i] == '0') {
        if (!p.n_fill) p.fill[0] = '0', p.n_fill = 1;
        if (!p.align) p.align = '=';
        i++;
    }
    p.width = decimal(x, s, &i, WIDTH_MAX);
    if (i < s->n && (s->p[i] == ',' || s->p[i] == '_')) p.group = s->p[i++];
    if (i < s->n && s->p[i] == '.') {
        size_t was = ++i;
        p.precision = decimal(x, s, &i, PRECISION_MAX);
        if (i == was) qn_jx_fail(x, QN_E_DATA, "Format specifier missing precision");
    }
    if (i < s->n) p.type = s->p[i++];
    if (i != s->n) qn_jx_fail(x, QN_E_DATA, "Invalid format specifier");
    return p;
}

static void formatted(struct qn_jx *x, struct qn_jsb *b, struct qn_jv v, struct qn_jstr *spec) {
    if (!spec->n) {
        qn_jv_show(x, v, b);
        return;
    }
    struct spec p = parse_spec(x, spec);
    if (v.t == J_STR) {
        if (p.type && p.type != 's')
            qn_jx_fail(x, QN_E_DATA, "Unknown format code '%c' for object of type 'str'",
                       p.type >= 0x20 && p.type < 0x7F ? p.type : '?');
        if (p.align == '=') { /* only from a leading 0, which text takes as fill */
            if (spec->p[0] != '0') qn_jx_fail(x, QN_E_DATA, "'=' alignment not allowed in string format specifier");
            p.align = '<';
        }
        padded(x, b, shorten(x, v.s, p.precision).s, &p, p.align ? p.align : '<');
    } else if (qn_jv_is_num(v)) {
        if (v.t == J_BOOL && !p.type) p.type = 'd';
        if (p.type == 's' || (qn_jv_is_int(v) && p.precision >= 0 && !strchr("eEfFgG%", p.type ? p.type : 'd')))
            qn_jx_fail(x, QN_E_DATA, "format code not allowed for object of type '%s'", qn_jv_type(v));
        number(x, b, v, &p);
    } else {
        qn_jx_fail(x, QN_E_DATA, "unsupported format string passed to %s.__format__", qn_jv_type(v));
    }
}

static void format_into(struct qn_jx *x, struct qn_jsb *b, struct fields *o, struct qn_jstr *f);

/* The inside of {…}: name !conversion :spec, where the spec may hold fields itself. */
static void replacement(struct qn_jx *x, struct qn_jsb *b, struct fields *o, struct qn_jstr *s) {
    size_t end = 0;
    int in_index = 0;
    while (end < s->n && (in_index || (s->p[end] != '!' && s->p[end] != ':'))) {
        in_index = s->p[end] == '[' ? 1 : s->p[end] == ']' ? 0 : in_index;
        end++;
    }
    struct qn_jv v = field(x, o, qn_jstr_sub(x, s, 0, end).s);
    if (end < s->n && s->p[end] == '!') {
        char how = end + 1 < s->n ? s->p[end + 1] : 0;
        struct qn_jsb t;
        qn_jsb_init(&t, x);
        if (how == 'r' || how == 'a') qn_jv_repr(x, v, &t);
        else if (how == 's') qn_jv_show(x, v, &t);
        else qn_jx_fail(x, QN_E_DATA, "Unknown conversion specifier");
        v = qn_jsb_done(&t);
        end += 2;
    }
    if (end < s->n && s->p[end] != ':') qn_jx_fail(x, QN_E_DATA, "expected ':' after conversion specifier");
    struct qn_jstr *spec = qn_jstr_sub(x, s, end < s->n ? end + 1 : s->n, s->n).s;
    if (memchr(spec->p, '{', spec->n)) {
        struct qn_jsb t;
        qn_jsb_init(&t, x);
        format_into(x, &t, o, spec);
        spec = qn_jsb_done(&t).s;
    }
    formatted(x, b, v, spec);
}

static void format_into(struct qn_jx *x, struct qn_jsb *b, struct fields *o, struct qn_jstr *f) {
    size_t from = 0;
    if (++o->depth > 2) qn_jx_fail(x, QN_E_DATA, "Max string recursion exceeded");
    for (size_t i = 0; i < f->n;) {
        char c = f->p[i];
        if (c != '{' && c != '}') {
            i++;
            continue;
        }
        qn_jx_step(x);
        qn_jsb_sub(b, f, from, i);
        if (i + 1 < f->n && f->p[i + 1] == c) {
            qn_jsb_sub(b, f, i, i + 1);
            from = i += 2;
            continue;
        }
        if (c == '}') qn_jx_fail(x, QN_E_DATA, "Single '}' encountered in format string");
        size_t end = i + 1, depth = 1;
        for (; end < f->n; end++) {
            if (f->p[end] == '{') depth++;
            else if (f->p[end] == '}' && --depth == 0) break;
        }
        if (end >= f->n) qn_jx_fail(x, QN_E_DATA, "Single '{' encountered in format string");
        replacement(x, b, o, qn_jstr_sub(x, f, i + 1, end).s);
        from = i = end + 1;
    }
    qn_jsb_sub(b, f, from, f->n);
    o->depth--;
}

struct qn_jv qn_jv_format(struct qn_jx *x, struct qn_jstr *f, const struct qn_jargv *a) {
    struct fields o = {.a = a};
    struct qn_jsb b;
    qn_jsb_init(&b, x);
    format_into(x, &b, &o, f);
    return qn_jsb_done(&b);
}
