#!/usr/bin/env python3
"""Writes api/jinja_unicode.c: character classes and case mappings as this Python has them (3.11: Unicode 14)."""
import os, sys, unicodedata

assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
final = "\u03c2"
cased = {c for c in every if (c + "\u03a3").lower()[-1] == final}
classes = {
    "space": {c for c in every if c.isspace()},
    "alpha": {c for c in every if c.isalpha()},
    "decimal": {c for c in every if c.isdecimal()},
    "digit": {c for c in every if c.isdigit()},
    "numeric": {c for c in every if c.isnumeric()},
    "lower": {c for c in every if c.islower()},
    "upper": {c for c in every if c.isupper()},
    "title": {c for c in every if unicodedata.category(c) == "Lt"},
    "unprintable": {c for c in every if not c.isprintable()},
    "ignorable": {c for c in every if ("A" + c + "\u03a3").lower()[-1] == final and c not in cased},
    "cased": cased,
}
maps = {"to_upper": str.upper, "to_lower": str.lower, "to_title": str.title}
out = ["/* Made by tests/vectors/jinja/make_unicode.py; not for editing. Classes are ascending ranges (both ends inside), case",
       " * mappings are runs with one distance (every character, or every second one), and characters that become several",
       " * stand in a list of their own. */", '#include "api/jinja_unicode.h"', "", "#include <stddef.h>", "",
       "struct span { uint32_t from, to; };", "struct run { uint32_t from, to; int32_t by; uint32_t step; };",
       "struct many { uint32_t from, to[3]; };", ""]


def table(kind, name, rows):
    out.append(f"static const struct {kind} {name}[] = {{")
    line = "   "
    for r in rows:
        if len(line) + len(r) > 128:
            out.append(line)
            line = "   "
        line += " " + r + ","
    out.append(line)
    out.append("};")


for name, members in classes.items():
    codes, rows, i = sorted(map(ord, members)), [], 0
    while i < len(codes):
        j = i
        # a gap of surrogates only is not a gap: they cannot occur
        while j + 1 < len(codes) and codes[j + 1] == codes[j] + 1: j += 1
        rows.append("{0x%X, 0x%X}" % (codes[i], codes[j]))
        i = j + 1
    table("span", name, rows)
for name, fn in maps.items():
    single = [(ord(c), ord(fn(c)) - ord(c)) for c in every if len(fn(c)) == 1 and fn(c) != c]
    rows, i = [], 0
    while i < len(single):
        j, step = i, 0
        while j + 1 < len(single) and single[j + 1][1] == single[i][1]:
            d = single[j + 1][0] - single[j][0]
            if step == 0 and d in (1, 2): step = d
            elif d != step: break
            j += 1
        rows.append("{0x%X, 0x%X, %d, %d}" % (single[i][0], single[j][0], single[i][1], step or 1))
        i = j + 1
    table("run", name, rows)
    table("many", name + "_many", ["{0x%X, {%s}}" % (ord(c), ", ".join("0x%X" % ord(x) for x in fn(c)))
                                   for c in every if len(fn(c)) > 1])
out.append("""
#define OF(t) {t, sizeof t / sizeof *t}
static const struct { const struct span *v; size_t n; } classes[QN_JU_CLASSES] = {
    OF(space), OF(alpha), OF(decimal), OF(digit), OF(numeric), OF(lower), OF(upper), OF(title), OF(unprintable), OF(ignorable),
    OF(cased),
};
static const struct { const struct run *v; size_t n; } runs[] = {OF(to_upper), OF(to_lower), OF(to_title)};
static const struct { const struct many *v; size_t n; } manys[] = {OF(to_upper_many), OF(to_lower_many), OF(to_title_many)};

int qn_ju_is(uint32_t r, enum qn_ju_class c) {
    size_t lo = 0, hi = classes[c].n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (classes[c].v[mid].to < r) lo = mid + 1;
        else hi = mid;
    }
    return lo < classes[c].n && classes[c].v[lo].from <= r;
}

int qn_ju_case(uint32_t r, enum qn_ju_map m, uint32_t out[3]) {
    out[0] = r;
    if (r < 0x80) {
        if (m == QN_JU_TO_LOWER) out[0] += r >= 'A' && r <= 'Z' ? 32 : 0;
        else out[0] -= r >= 'a' && r <= 'z' ? 32 : 0;
        return 1;
    }
    for (size_t i = 0; i < manys[m].n; i++) {
        const struct many *k = &manys[m].v[i];
        if (k->from != r) continue;
        int n = 0;
        for (; n < 3 && k->to[n]; n++) out[n] = k->to[n];
        return n;
    }
    size_t lo = 0, hi = runs[m].n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (runs[m].v[mid].to < r) lo = mid + 1;
        else hi = mid;
    }
    if (lo == runs[m].n) return 1;
    const struct run *k = &runs[m].v[lo];
    if (k->from <= r && (r - k->from) % k->step == 0) out[0] = (uint32_t)((int64_t)r + k->by);
    return 1;
}""")
root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
open(f"{root}/api/jinja_unicode.c", "w").write("\n".join(out) + "\n")
