/* Objects: members in the order in which the schemas name them, required ones always, optional ones or not, then additional ones.
 *
 * What may follow a member depends on its place alone, so the rest from every place is made once (rest) and shared: a thousand optional
 * members are a thousand nodes. Where the number of members matters, or a member that a negation asks for, the state grows by a
 * count and by "seen". Additional keys are split into classes by the patterns they match; a class has one value schema, and its
 * keys are an expression: this pattern, not that one, none of the names. A name may come twice only among additional members; a
 * minimum therefore counts all of them as one. */
#include "api/schema_impl.h"

#include <string.h>

enum { STATES_MAX = 60000, PATTERNS_MAX = 64, RULE_EVERY = 8 };

struct name {
    const char *s;
    int required;
};

struct class { /* of additional keys */
    qn_gnode keys;
    uint64_t patterns; /* bits: which of obj.pattern they match */
};

struct obj {
    struct qn_schema *c;
    const struct qn_scase *k;
    json_t *index; /* name to its place in `name`; owned */
    struct name *name;
    uint32_t n_names, cap_names;
    struct { const char *s; qn_gnode node; } pattern[PATTERNS_MAX];
    uint32_t n_patterns;
    struct class class[QN_SCHEMA_CLASSES_MAX];
    uint32_t n_classes;
    double min, max;          /* members; max < 0: no bound */
    qn_gnode allowed;         /* the keys that propertyNames allow; NONE with has_allowed 0: all */
    int has_allowed, closed;  /* closed: strict mode lets in no name but those of `properties` */
    const json_t *some, *bad; /* QN_KW_SOME_MEMBER, QN_KW_BAD_NAME; at most one of them */
    qn_gnode bad_keys;
    qn_gnode comma, quote, extra, extra_hit;
    qn_gnode *pair, *hit;     /* [n_names] the member; the member that answers `some` or `bad` */
    uint32_t counts;
    qn_gnode *made;           /* [place][count][seen] */
    uint8_t *known;
};

/* ---- names and patterns ---- */

static int name_add(struct obj *o, const char *s, int required) {
    const json_t *at = json_object_get(o->index, s);
    if (!at) {
        o->name = qn_s_grow(o->c, o->name, o->n_names, &o->cap_names, sizeof *o->name);
        if (!o->name || json_object_set_new(o->index, s, json_integer(o->n_names)) < 0) return QN_E_RANGE;
        o->name[o->n_names++] = (struct name){s, 0};
        at = json_object_get(o->index, s);
    }
    o->name[json_integer_value(at)].required |= required;
    return 0;
}

static int pattern_add(struct obj *o, const json_t *s, const char *kw, const char *p) {
    for (uint32_t i = 0; i < o->n_patterns; i++)
        if (strcmp(o->pattern[i].s, p) == 0) return 0;
    if (o->n_patterns == PATTERNS_MAX)
        return qn_s_refuse(o->c, s, kw, "invalid_value", "more than %d patterns for one object's names", PATTERNS_MAX);
    o->pattern[o->n_patterns].s = p;
    o->pattern[o->n_patterns++].node = qn_s_pattern(o->c, s, kw, p, strlen(p));
    return o->c->failed;
}

static int names_of(struct obj *o, const json_t *s) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)qn_s_kw(s, "properties"), key, v)
        if (name_add(o, key, json_is_true(qn_s_kw(v, "required")) /* as draft 3 says it */) < 0) return QN_E_RANGE;
    json_object_foreach((json_t *)(uintptr_t)qn_s_kw(s, "patternProperties"), key, v)
        if (pattern_add(o, s, "patternProperties", key) < 0) return QN_E_RANGE;
    return 0;
}

static int matches(struct obj *o, const char *name, qn_gnode pattern) {
    struct qn_grammar *g = o->c->g;
    return qn_g_is_empty(g, qn_g_and(g, qn_s_escaped(o->c, name, strlen(name)), pattern)) != 1;
}

static uint64_t patterns_of(struct obj *o, const char *name) {
    uint64_t out = 0;
    for (uint32_t i = 0; i < o->n_patterns; i++)
        if (matches(o, name, o->pattern[i].node)) out |= 1ull << i;
    return out;
}

/* The patterns of atom s, as bits. */
static uint64_t own_patterns(const struct obj *o, const json_t *s) {
    const json_t *list = qn_s_kw(s, "patternProperties");
    uint64_t out = 0;
    for (uint32_t i = 0; list && i < o->n_patterns; i++)
        if (json_object_get(list, o->pattern[i].s)) out |= 1ull << i;
    return out;
}

/* ---- the schema of one member: `name` NULL: an additional one; `in`: the patterns that its key matches ---- */

static int evaluated(const struct obj *o, uint32_t top, const char *name, uint64_t in) {
    for (uint32_t i = top; i < o->k->n; i++) {
        const json_t *s = qn_s_atom(o->c, o->k, i);
        if (!s || !qn_s_evaluates(o->k, i, top)) continue;
        if ((name && json_object_get(qn_s_kw(s, "properties"), name)) || own_patterns(o, s) & in) return 1;
        if (qn_s_kw(s, "additionalProperties") || (i != top && qn_s_kw(s, "unevaluatedProperties"))) return 1;
    }
    return 0;
}

static qn_conj member(struct obj *o, const char *name, uint64_t in, const json_t *more) {
    size_t n = 0, cap = 1;
    for (uint32_t i = 0; i < o->k->n; i++) cap += 3 + json_object_size(qn_s_kw(o->k->v[i].s, "patternProperties"));
    const json_t **v = qn_s_alloc(o->c, cap * sizeof *v);
    if (!v) return QN_CONJ_NEVER;
    for (uint32_t i = 0; i < o->k->n; i++) {
        const json_t *s = qn_s_atom(o->c, o->k, i), *u = qn_s_kw(s, "unevaluatedProperties"), *extra = qn_s_kw(s, "additionalProperties");
        const json_t *own = name ? json_object_get(qn_s_kw(s, "properties"), name) : NULL;
        uint64_t both = own_patterns(o, s) & in;
        if (own) v[n++] = own;
        for (uint32_t p = 0; both >> p && p < 64; p++)
            if (both >> p & 1) v[n++] = json_object_get(qn_s_kw(s, "patternProperties"), o->pattern[p].s);
        if (!own && !both && extra) v[n++] = extra;
        if (u && !evaluated(o, i, name, in)) v[n++] = u;
    }
    if (more) v[n++] = more;
    return qn_s_conj(o->c, v, n);
}

static qn_conj named(struct obj *o, const char *name, const json_t *more) {
    if (o->has_allowed && !matches(o, name, o->allowed)) return QN_CONJ_NEVER;
    return member(o, name, patterns_of(o, name), more);
}

/* ---- what the atoms ask for ---- */

static int existence(struct obj *o, const json_t *s) {
    const json_t *some = qn_s_kw(s, QN_KW_SOME_MEMBER), *bad = qn_s_kw(s, QN_KW_BAD_NAME), *of = qn_s_kw(some, "of");
    const char *key = json_string_value(qn_s_kw(some, "key"));
    if (!some && !bad) return 0;
    if (o->some || o->bad)
        return qn_s_refuse(o->c, NULL, NULL, "unsupported_value", "a `not`, `if` or `oneOf` asks for two different members whose names are open");
    o->some = some;
    o->bad = bad;
    if (bad) o->bad_keys = qn_g_not(o->c->g, qn_s_strings(o->c, qn_s_conj(o->c, &bad, 1)));
    if (key) return pattern_add(o, s, NULL, key);
    return names_of(o, of); /* so that a class of keys is additional for `of`, or not, as a whole */
}

static int read_atom(struct obj *o, const json_t *s) {
    const json_t *lo = qn_s_kw(s, "minProperties"), *hi = qn_s_kw(s, "maxProperties"), *keys = qn_s_kw(s, "propertyNames"), *req = qn_s_kw(s, "required");
    if (lo && json_number_value(lo) > o->min) o->min = json_number_value(lo);
    if (hi && (o->max < 0 || json_number_value(hi) < o->max)) o->max = json_number_value(hi);
    for (size_t i = 0; i < json_array_size(req); i++)
        if (name_add(o, json_string_value(json_array_get(req, i)), 1) < 0) return QN_E_RANGE;
    if (keys) {
        qn_gnode n = qn_s_strings(o->c, qn_s_conj(o->c, &keys, 1));
        o->allowed = o->has_allowed ? qn_g_and(o->c->g, o->allowed, n) : n;
        o->has_allowed = 1;
    }
    return existence(o, s);
}

static int read_atoms(struct obj *o) {
    int open = 0, named_any = 0;
    o->max = -1;
    for (uint32_t i = 0; i < o->k->n; i++) {
        const json_t *s = qn_s_atom(o->c, o->k, i);
        if (s && names_of(o, s) < 0) return QN_E_RANGE;
        open |= qn_s_kw(s, "additionalProperties") || qn_s_kw(s, "unevaluatedProperties");
        named_any |= qn_s_kw(s, "properties") != NULL;
    }
    for (uint32_t i = 0; i < o->k->n; i++)
        if (qn_s_atom(o->c, o->k, i) && read_atom(o, qn_s_atom(o->c, o->k, i)) < 0) return QN_E_RANGE;
    o->closed = o->c->o->strict && named_any && !open;
    return o->c->failed;
}

/* ---- additional members ---- */

static int split(struct obj *o, uint32_t p) {
    struct qn_grammar *g = o->c->g;
    uint32_t n = o->n_classes;
    for (uint32_t i = 0; i < n; i++) {
        struct class *k = &o->class[i];
        qn_gnode in = qn_s_settle(o->c, qn_g_and(g, k->keys, o->pattern[p].node));
        if (in == QN_G_NONE) continue;
        qn_gnode out = qn_s_settle(o->c, qn_g_and(g, k->keys, qn_g_not(g, o->pattern[p].node)));
        if (out != QN_G_NONE) {
            if (o->n_classes == QN_SCHEMA_CLASSES_MAX)
                return qn_s_refuse(o->c, o->k->v[0].s, NULL, "invalid_value", "its patterns of names overlap in too many ways");
            o->class[o->n_classes++] = (struct class){out, k->patterns};
        }
        *k = (struct class){in, k->patterns | 1ull << p};
    }
    return 0;
}

static int classes(struct obj *o) {
    struct qn_grammar *g = o->c->g;
    qn_gnode *names = qn_s_alloc(o->c, (o->n_names + 1) * sizeof *names), keys = qn_g_repeat(g, o->c->chr, 0, QN_G_INF);
    if (!names) return QN_E_RANGE;
    for (uint32_t i = 0; i < o->n_names; i++) names[i] = qn_s_escaped(o->c, o->name[i].s, strlen(o->name[i].s));
    if (o->has_allowed) keys = o->allowed;
    if (o->n_names) keys = qn_g_and(g, keys, qn_g_not(g, qn_g_alt_n(g, names, o->n_names)));
    o->class[0] = (struct class){qn_s_settle(o->c, keys), 0};
    o->n_classes = o->class[0].keys != QN_G_NONE;
    for (uint32_t p = 0; p < o->n_patterns; p++)
        if (split(o, p) < 0) return QN_E_RANGE;
    return o->c->failed;
}

/* 1: a member with this name, or of this class (name NULL), is one that `some` speaks of. */
static int answers(struct obj *o, const char *name, uint64_t in) {
    const json_t *of = qn_s_kw(o->some, "of");
    const char *key = json_string_value(qn_s_kw(o->some, "key"));
    if (!o->some) return 0;
    if (key) {
        for (uint32_t i = 0; i < o->n_patterns; i++)
            if (strcmp(o->pattern[i].s, key) == 0) return (int)(in >> i & 1);
        return 0;
    }
    return !(name && json_object_get(qn_s_kw(of, "properties"), name)) && !(own_patterns(o, of) & in);
}

static qn_gnode pair(struct obj *o, qn_gnode key, qn_conj value) {
    struct qn_grammar *g = o->c->g;
    qn_gnode v = key == QN_G_NONE ? QN_G_NONE : qn_s_node(o->c, value);
    if (v == QN_G_NONE) return v;
    v = qn_g_cat(g, o->c->colon, qn_g_cat(g, v, o->c->ws));
    return qn_g_cat(g, o->quote, qn_g_cat(g, key, qn_g_cat(g, o->quote, v)));
}

static void extra_members(struct obj *o) {
    struct qn_grammar *g = o->c->g;
    const json_t *want = qn_s_kw(o->some, "schema");
    for (uint32_t i = 0; i < o->n_classes && qn_s_tick(o->c) == 0; i++) {
        const struct class *k = &o->class[i];
        if (o->closed && !k->patterns) continue;
        o->extra = qn_g_alt(g, o->extra, pair(o, k->keys, member(o, NULL, k->patterns, NULL)));
        if (answers(o, NULL, k->patterns)) o->extra_hit = qn_g_alt(g, o->extra_hit, pair(o, k->keys, member(o, NULL, k->patterns, want)));
        if (!o->bad) continue;
        qn_gnode keys = qn_s_settle(o->c, qn_g_and(g, k->keys, o->bad_keys));
        o->extra_hit = qn_g_alt(g, o->extra_hit, pair(o, keys, member(o, NULL, k->patterns, NULL)));
    }
}

static void known_members(struct obj *o) {
    const json_t *want = qn_s_kw(o->some, "schema");
    for (uint32_t i = 0; i < o->n_names && qn_s_tick(o->c) == 0; i++) {
        const char *s = o->name[i].s;
        qn_gnode key = qn_s_escaped(o->c, s, strlen(s));
        o->pair[i] = pair(o, key, named(o, s, NULL));
        if (o->bad && matches(o, s, o->bad_keys)) o->hit[i] = o->pair[i];
        if (answers(o, s, o->some ? patterns_of(o, s) : 0)) o->hit[i] = pair(o, key, named(o, s, want));
    }
}

/* ---- the chain ---- */

static uint32_t bound(double v) { return v < 0 || v >= QN_G_INF ? QN_G_INF : (uint32_t)v; }

/* `first` and more behind commas, up to `left` in all. */
static qn_gnode run(struct obj *o, qn_gnode first, uint32_t count, uint32_t left) {
    struct qn_grammar *g = o->c->g;
    if (left == 0 || first == QN_G_NONE) return QN_G_NONE;
    qn_gnode more = qn_g_repeat(g, qn_g_cat(g, o->comma, o->extra), 0, left == QN_G_INF ? left : left - 1);
    first = qn_g_cat(g, first, more);
    return count ? qn_g_cat(g, o->comma, first) : first;
}

static qn_gnode extras(struct obj *o, uint32_t count, int seen) {
    struct qn_grammar *g = o->c->g;
    double need = o->min - count;
    uint32_t left = o->max < 0 ? QN_G_INF : bound(o->max - count);
    qn_gnode out = QN_G_NONE;
    if (need > 1) return QN_G_NONE;
    if (seen) {
        out = run(o, o->extra, count, left);
        return need > 0 ? out : qn_g_alt(g, QN_G_EMPTY, out);
    }
    out = run(o, o->extra_hit, count, left);
    if (left != QN_G_INF || out == QN_G_NONE) return out;
    qn_gnode before = qn_g_repeat(g, qn_g_cat(g, o->extra, o->comma), 0, QN_G_INF);
    out = qn_g_cat(g, before, run(o, o->extra_hit, 0, left));
    return count ? qn_g_cat(g, o->comma, out) : out;
}

static qn_gnode rest(struct obj *o, uint32_t at, uint32_t count, int seen);

static qn_gnode take(struct obj *o, qn_gnode pair_node, uint32_t at, uint32_t count, int seen) {
    struct qn_grammar *g = o->c->g;
    if (pair_node == QN_G_NONE) return QN_G_NONE;
    if (count) pair_node = qn_g_cat(g, o->comma, pair_node);
    return qn_g_cat(g, pair_node, rest(o, at + 1, count + 1 < o->counts ? count + 1 : count, seen));
}

static qn_gnode make(struct obj *o, uint32_t at, uint32_t count, int seen) {
    struct qn_grammar *g = o->c->g;
    qn_gnode out = QN_G_NONE;
    if (qn_s_tick(o->c) < 0) return QN_G_NONE;
    if (at == o->n_names) return extras(o, count, seen);
    if (o->max < 0 || count < o->max) {
        out = take(o, o->pair[at], at, count, seen);
        if (!seen) out = qn_g_alt(g, out, take(o, o->hit[at], at, count, 1));
    }
    return o->name[at].required ? out : qn_g_alt(g, out, rest(o, at + 1, count, seen));
}

static qn_gnode rest(struct obj *o, uint32_t at, uint32_t count, int seen) {
    size_t i = ((size_t)at * o->counts + count) * 2 + (size_t)seen;
    if (o->known[i]) return o->made[i];
    qn_gnode out = make(o, at, count, seen);
    if (at % RULE_EVERY == RULE_EVERY - 1 && out > QN_G_EMPTY) { /* or many members would be a deep expression */
        qn_gnode rule = qn_g_rule(o->c->g);
        qn_g_rule_set(o->c->g, rule, out);
        out = rule;
    }
    o->known[i] = 1;
    return o->made[i] = out;
}

static int room(struct obj *o) {
    uint32_t required = 0;
    for (uint32_t i = 0; i < o->n_names; i++) required += (uint32_t)o->name[i].required;
    if (o->min <= required) o->min = 0;
    if (o->max > o->n_names && o->extra == QN_G_NONE && o->extra_hit == QN_G_NONE) o->max = -1;
    double counts = o->max < 0 ? (o->min > 1 ? o->min : 1) + 1 : o->n_names + 1;
    if (counts > o->n_names + 1) counts = o->n_names + 1;
    if (counts < 2) counts = 2;
    double states = (o->n_names + 1) * counts * 2;
    if (states > STATES_MAX)
        return qn_s_refuse(o->c, o->k->v[0].s, o->max < 0 ? "minProperties" : "maxProperties", "unsupported_value", "counting so many properties is not supported");
    o->counts = (uint32_t)counts;
    o->made = qn_s_alloc(o->c, (size_t)states * sizeof *o->made);
    o->known = qn_s_alloc(o->c, (size_t)states);
    return o->made && o->known ? 0 : QN_E_RANGE;
}

static qn_gnode members(struct obj *o) {
    if (read_atoms(o) < 0 || classes(o) < 0) return QN_G_NONE;
    o->pair = qn_s_alloc(o->c, (o->n_names + 1) * sizeof *o->pair);
    o->hit = qn_s_alloc(o->c, (o->n_names + 1) * sizeof *o->hit);
    if (!o->pair || !o->hit) return QN_G_NONE;
    known_members(o);
    extra_members(o);
    double min = o->min;
    if (room(o) < 0) return QN_G_NONE;
    qn_gnode out = rest(o, 0, 0, !o->some && !o->bad);
    if (out == QN_G_NONE && min > 1 && o->extra != QN_G_NONE)
        qn_s_refuse(o->c, o->k->v[0].s, "minProperties", "unsupported_value",
                    "more than one property whose name is open cannot be counted: two of them could have one name");
    return out;
}

qn_gnode qn_s_object(struct qn_schema *c, const struct qn_scase *k) {
    struct obj o = {.c = c, .k = k, .index = json_object(), .comma = qn_s_token(c, ","), .quote = qn_g_bytes(c->g, "\"", 1)};
    qn_gnode out = o.index ? members(&o) : QN_G_NONE;
    json_decref(o.index);
    return qn_g_cat(c->g, qn_s_token(c, "{"), qn_g_cat(c->g, out, qn_g_bytes(c->g, "}", 1)));
}

int qn_s_object_sat(struct qn_schema *c, const struct qn_scase *k) {
    struct obj o = {.c = c, .k = k, .index = json_object()};
    int yes = !o.index || read_atoms(&o) < 0;
    uint32_t i = 0;
    for (; !yes && i < o.n_names; i++)
        if (o.name[i].required && !qn_s_sat(c, named(&o, o.name[i].s, NULL))) break;
    yes |= i == o.n_names && (o.max < 0 || o.min <= o.max);
    json_decref(o.index);
    return yes;
}
