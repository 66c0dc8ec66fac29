#!/usr/bin/env python3
"""Writes engine/unicode_data.c: the Unicode facts that tokenizers need, in tables of about 50 KB.

    pip install unicodedata2==16.0.0 && scripts/make-unicode.py > engine/unicode_data.c

Three versions of Unicode meet in the reference (Hugging Face tokenizers 0.23), and ids must agree with it:
  - \\p{..} of its regular expressions (Oniguruma): Unicode 16.0.0, which is what this script insists on;
  - its NFC normaliser: Unicode 9.0, so marks and compositions that came later (LATER_MARKS, LATER_COMPOSED) are inert;
  - its Punctuation pre-tokenizer: Unicode 8 (PUNCT_DIFFERS lists where membership differs from category P of 16.0).
The last two lists were found by asking the reference about every code point.
"""
import sys
import unicodedata2 as u

assert u.unidata_version == "16.0.0", f"Unicode 16.0.0 wanted, this is {u.unidata_version}"

CATS = ["Cn", "Cc", "Cf", "Co", "Cs", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No",
        "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp"]
SPACE = {9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
LATER_COMPOSED = {0x105C9, 0x105E4, 0x11383, 0x11385, 0x1138E, 0x11391, 0x113C5, 0x113C7, 0x113C8, 0x11938,
                  *range(0x16121, 0x16129), *range(0x16D68, 0x16D6B)}
LATER_MARKS = [
    (0x7FD, 0x7FD), (0x897, 0x89F), (0x8CA, 0x8D3), (0x9FE, 0x9FE), (0xC3C, 0xC3C), (0xD3B, 0xD3C), (0xEBA, 0xEBA),
    (0x1715, 0x1715), (0x1ABF, 0x1ACE), (0x1DF6, 0x1DFA), (0xA82C, 0xA82C), (0x10D24, 0x10D27), (0x10D69, 0x10D6D),
    (0x10EAB, 0x10EAC), (0x10EFD, 0x10EFF), (0x10F46, 0x10F50), (0x10F82, 0x10F85), (0x11070, 0x11070),
    (0x1133B, 0x1133B), (0x113CE, 0x113D0), (0x1145E, 0x1145E), (0x11839, 0x1183A), (0x1193D, 0x1193E),
    (0x11943, 0x11943), (0x119E0, 0x119E0), (0x11A34, 0x11A34), (0x11A47, 0x11A47), (0x11A99, 0x11A99),
    (0x11D42, 0x11D45), (0x11D97, 0x11D97), (0x11F41, 0x11F42), (0x1612F, 0x1612F), (0x16FF0, 0x16FF1),
    (0x1E08F, 0x1E08F), (0x1E130, 0x1E136), (0x1E2AE, 0x1E2AE), (0x1E2EC, 0x1E2EF), (0x1E4EC, 0x1E4EF),
    (0x1E5EE, 0x1E5EF)]
PUNCT_DIFFERS = [
    (0x61D, 0x61D), (0x9FD, 0x9FD), (0xA76, 0xA76), (0xC77, 0xC77), (0xC84, 0xC84), (0x166D, 0x166D), (0x1B4E, 0x1B4F),
    (0x1B7D, 0x1B7F), (0x2E43, 0x2E4F), (0x2E52, 0x2E5D), (0x10D6E, 0x10D6E), (0x10EAD, 0x10EAD), (0x10F55, 0x10F59),
    (0x10F86, 0x10F89), (0x111C9, 0x111C9), (0x113D4, 0x113D5), (0x113D7, 0x113D8), (0x1144B, 0x1144F),
    (0x1145A, 0x1145B), (0x1145D, 0x1145D), (0x11660, 0x1166C), (0x116B9, 0x116B9), (0x1183B, 0x1183B),
    (0x11944, 0x11946), (0x119E2, 0x119E2), (0x11A3F, 0x11A46), (0x11A9A, 0x11A9C), (0x11A9E, 0x11AA2),
    (0x11B00, 0x11B09), (0x11BE1, 0x11BE1), (0x11C41, 0x11C45), (0x11C70, 0x11C71), (0x11EF7, 0x11EF8),
    (0x11F43, 0x11F4F), (0x11FFF, 0x11FFF), (0x12FF1, 0x12FF2), (0x16D6D, 0x16D6F), (0x16E97, 0x16E9A),
    (0x16FE2, 0x16FE2), (0x1E5FF, 0x1E5FF), (0x1E95E, 0x1E95F)]
later_marks = {c for a, b in LATER_MARKS for c in range(a, b + 1)}
punct_differs = {c for a, b in PUNCT_DIFFERS for c in range(a, b + 1)}


def ccc(c):
    return 0 if c in later_marks else u.combining(chr(c))


def hangul(c):
    return 0xAC00 <= c < 0xAC00 + 11172


cps = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
decomp, compose = {}, {}
for c in cps:
    if hangul(c) or c in LATER_COMPOSED:
        continue
    d = u.decomposition(chr(c))
    if not d or d.startswith("<"):
        continue
    decomp[c] = [ord(x) for x in u.normalize("NFD", chr(c))]
    pair = [int(x, 16) for x in d.split()]
    if len(pair) == 2 and u.normalize("NFC", chr(c)) == chr(c):
        compose[tuple(pair)] = c

# A character may be skipped by the normaliser when it neither changes, reorders nor joins what stands before it.
second = {b for _, b in compose} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
active = {c for c in cps if ccc(c) or c in second or (c in decomp and u.normalize("NFC", chr(c)) != chr(c))}
assert not any(c < 0x300 for c in active)


def flags(c):
    if 0xD800 <= c < 0xE000:
        return CATS.index("Cs")
    return (CATS.index(u.category(chr(c))) | (0x20 if c in SPACE else 0) | (0x40 if c in active else 0)
            | (0x80 if c in punct_differs else 0))


def table(name, kind, values, per, fmt):
    print(f"const {kind} {name}[{len(values)}] = {{")
    for i in range(0, len(values), per):
        print("    " + " ".join(fmt(v) + "," for v in values[i:i + per]))
    print("};")


BLOCK = 128
blocks, index = {}, []
for b in range(0, 0x110000, BLOCK):
    key = tuple(flags(c) for c in range(b, b + BLOCK))
    index.append(blocks.setdefault(key, len(blocks)))
marks = []
for c in cps:
    if ccc(c):
        if marks and marks[-1][1] == c - 1 and marks[-1][2] == ccc(c):
            marks[-1][1] = c
        else:
            marks.append([c, c, ccc(c)])
pool, dec = [], []
for c in sorted(decomp):
    dec.append((c, len(pool), len(decomp[c])))
    pool += decomp[c]

print(f"""/* Generated by scripts/make-unicode.py from Unicode {u.unidata_version}; do not edit. The layout is described in
 * engine/unicode.h and engine/unicode.c. */
/* clang-format off */
#include "engine/unicode_data.h"

const unsigned qn_uni_n_decomp = {len(dec)}, qn_uni_n_compose = {len(compose)}, qn_uni_n_marks = {len(marks)};
""")
table("qn_uni_index", "uint16_t", index, 24, str)
table("qn_uni_block", "uint8_t", [v for k in blocks for v in k], 32, str)
table("qn_uni_decomp", "struct qn_uni_decomp", dec, 6, lambda v: "{0x%X,%d,%d}" % v)
table("qn_uni_pool", "uint32_t", pool, 16, lambda v: "0x%X" % v)
table("qn_uni_compose", "struct qn_uni_compose", [(a, b, c) for (a, b), c in sorted(compose.items())], 5,
      lambda v: "{0x%X,0x%X,0x%X}" % v)
table("qn_uni_mark", "struct qn_uni_mark", marks, 6, lambda v: "{0x%X,0x%X,%d}" % tuple(v))
print(f"{len(blocks)} blocks, {len(dec)} decompositions, {len(compose)} compositions, {len(marks)} mark ranges", file=sys.stderr)
