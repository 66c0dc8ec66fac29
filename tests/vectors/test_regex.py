#!/usr/bin/env python3
"""Regular expressions of constraints against two engines: JavaScript's (JSON Schema's patterns are ECMA-262) and Python's re.
Hand-written patterns and random ones, each on many texts, found anywhere and as a whole. QN_SEED, QN_TIMES as elsewhere."""
import json, os, random, re, subprocess, sys, warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from qtest import BUILD, test, main, eq, skip

SEED, TIMES = int(os.environ.get("QN_SEED", "1")), int(os.environ.get("QN_TIMES", "1"))
NODE = r"""
const lines = require("fs").readFileSync(0, "utf8").trim().split("\n").map(JSON.parse);
for (const {text, search, ignore_case, texts} of lines) {
  let out = null;
  for (const flags of ["u", ""]) {
    try {
      const re = new RegExp(search ? text : `^(?:${text})$`, flags + (ignore_case ? "i" : ""));
      out = texts.map((t) => re.test(t));
      break;
    } catch (e) { if (flags === "") out = null; }
  }
  console.log(JSON.stringify(out));
}
"""


def ours(cases):
    text = "".join(json.dumps(c) + "\n" for c in cases)
    p = subprocess.run([os.path.join(BUILD, "tests/tools/grammar_match")], input=text.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(x) for x in p.stdout.decode().splitlines()]


def node(cases):
    try:
        p = subprocess.run(["node", "-e", NODE], input="".join(json.dumps(c) + "\n" for c in cases).encode(), stdout=subprocess.PIPE, check=True)
    except FileNotFoundError:
        skip("no node")
    return [json.loads(x) for x in p.stdout.decode().splitlines()]


TEXTS = ["", "a", "b", "ab", "ba", "abc", "aab", "aaab", "abab", "a1", "1", "12", "123", "2024-01-31", "foo", "foobar", "xfoo", "foo,bar", ",foo,", "a b", " a ", "a\nb", "\n", "a\n",
         "\t", "_", "-", ".", "a.b", "A", "AB", "Ab", "é", "É", "ß", "ſ", "K", "\u212a", "k", "日本", "\U0001f600", "a\U0001f600b", "{", "}", "{}", "a{1}", "]", "[", "\\", "/", "a/b", "$", "^",
         "a^b", "a$b", "\r", "\u2028", "\u00a0", "\ufeff", "x@y.zz", "user.name@example.com", "192.168.0.1", "#a1B2c3", "Σ", "σ", "ς", "ǅ", "ǆ", "0x1F", "+49 30 1234", "aaaaaaaaaa", "\0", "\x7f"]
PATTERNS = [r"a", r"^a", r"a$", r"^a$", r"^a|b$", r"(^a|b$)", r"(^|,)foo(,|$)", r"^(a|b)*$", r"(a|^)b", r"a(b|$)", r"a*(^b)?", r"(^a*)*b", r"(a|b$)+", r"(^|a)+b", r"(?:^a){1,2}", r"(a|$){2,3}", r"$", r"^",
            r"^$", r"^$|a", r"a^b", r"a$b", r"(^)*a", r"(a?$)", r"a*$", r"^a*", r"^.*$", r".", r"^.$", r"^..$", r"\d+", r"^\d{4}-\d{2}-\d{2}$", r"\w", r"^\W+$", r"\s", r"^\S*$", r"[abc]", r"[^abc]", r"^[a-c]+$",
            r"[\d-x]", r"[\w.-]+@[\w-]+\.\w{2,}", r"^[^@\s]+@[^@\s]+$", r"[a\-c]", r"[-a]", r"[a-]", r"[\]]", r"[\\]", r"\\", r"\/", r"/", r"^[^\]]$", r"a{2}", r"a{2,}", r"a{1,2}b", r"^a{0}$", r"a{0}", r"^(ab){2}$",
            r"a+?b", r"a*?", r"a??b", r"(?:ab)+", r"(?<n>a)b", r"(a)(b)|c", r"|a", r"a|", r"^(|a)$", r"()", r"(?:)", r"\u0061", r"\x61", r"\u{1F600}", r"\ud83d\ude00", r"^\u{1F600}$", r"[\u{1F600}-\u{1F64F}]",
            r"\p{L}", r"^\p{Lu}$", r"\P{L}", r"[\p{L}\d]+$", r"^[^\p{L}]$", r"\p{Letter}", r"\p{gc=Nd}", r"\p{Script_Extensions=Latin}", r"\n", r"\r", r"\t", r"\0", r"\cJ", r"[\b]", r"a.b", r"^a[\s\S]b$", r"{", r"^{}$", r"a{", r"a{,2}",
            r"^\{.*\}$", r"}", r"]", r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$", r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)$", r"^#?([a-fA-F0-9]{6}|[a-fA-F0-9]{3})$",
            r"^\+?[0-9]{1,3}( [0-9]{2,12}){1,4}$", r"^0[xX][0-9a-fA-F]+$", r"日", r"[^a]", r"^[^a]$", r"[k]", r"é", r"ß", r"σ", r"ǆ", r"[^k]$", r"^[^\W]$", r"\S\s\S", r"(((a)))", r"((a|b)(c|d)?)+$",
            r"(a", r"a)", r"[a", r"*a", r"a**", r"a{2}{3}", r"(?a)", r"\\p", r"[z-a]", r"a{3,2}", r"\p{Nope}", r"(?=a)", r"(?<!a)b", r"(a)\1", r"\k<n>(?<n>a)", r"\b", r"a\B"]
PIECES = ["a", "b", "1", ".", r"\d", r"\w", r"\W", r"\s", "[ab]", "[^a]", "[^\\w]", "a|b", "^", "$", "", " ", r"\.", "é", "[a-c1]", r"\p{L}", "ab", "K", r"[\s\S]", "-"]


def random_pattern(r, depth):
    if depth == 0 or r.random() < .2:
        return r.choice(PIECES)
    kind = r.randrange(6)
    p = lambda: random_pattern(r, depth - 1)
    if kind < 2:
        return p() + p()
    if kind == 2:
        return f"(?:{p()}|{p()})"
    if kind == 3:
        return f"({p()}|{p()}|{p()})"
    return f"({p()}){r.choice(['*', '+', '?', '{2}', '{0,2}', '{1,3}', '{2,}', '*?', '+?'])}"


def random_texts(r, n):
    return ["".join(r.choice("aab1 -.bK\né\r_\u2028k") for _ in range(r.choice([0, 1, 1, 2, 2, 3, 4, 5, 7]))) for _ in range(n)]


def cases(patterns, texts, icase=(False, True)):
    return [{"kind": "regex", "text": p, "search": s, "ignore_case": i, "texts": texts} for p in patterns for s in (False, True) for i in icase]


def compare(cs, got, want, who):
    """Answers are the same wherever both take the pattern. Returns how many answers were compared."""
    n = bad = 0
    for c, g, w in zip(cs, got, want):
        if w is None or "error" in g:
            continue
        for t, a, b in zip(c["texts"], g["accepts"], w):
            n += 1
            if a != b:
                bad += 1
                if bad < 10:
                    print(f"    {c['text']!r} search {c['search']} ignore_case {c['ignore_case']} on {t!r}: {a}, {who} {b}")
    eq(bad, 0, f"answers that differ from {who}, of {n}")
    return n


@test(seconds=120)
def patterns_match_what_javascript_matches():
    cs = cases(PATTERNS, TEXTS)
    got, want = ours(cs), node(cs)
    n = compare(cs, got, want, "node")
    refused = sorted({c["text"] for c, g, w in zip(cs, got, want) if w is not None and "error" in g})
    print(f"    {n} answers; taken by node and refused here: {refused}")
    wrong = [c["text"] for c, g, w in zip(cs, got, want) if w is None and "error" not in g]
    eq(wrong, [], "taken here and refused by node")
    # each for a construct that a grammar cannot have, or that engines read in different ways
    eq(refused, sorted([r"(?<!a)b", r"(?=a)", r"(a)\1", r"\k<n>(?<n>a)", r"\b", r"a\B", r"\p{Script_Extensions=Latin}", r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$", r"a{,2}", r"\p{Nope}"]), "refused")


@test(seconds=300)
def random_patterns_match_what_javascript_matches():
    r = random.Random(SEED)
    patterns = [random_pattern(r, 4) for _ in range(400 * TIMES)]
    cs = [c for p in patterns for c in cases([p], random_texts(r, 25), (r.random() < .3,))]
    got = ours(cs)
    n = compare(cs, got, node(cs), "node")
    refused = sum("error" in g for g in got)
    print(f"    {n} answers, {refused} of {len(cs)} patterns refused")
    assert refused < len(cs) / 10


@test(seconds=120)
def patterns_match_what_python_matches():
    """Under re.ASCII; left out are `.`, \\s and $, which mean other sets there ($ also stands before a last newline), and \\p."""
    r = random.Random(SEED + 1)
    patterns = [p for p in PATTERNS + [random_pattern(r, 4) for _ in range(300 * TIMES)] if not re.search(r"\.|\\s|\\S|\$|\\p|\\P|\\u|\\c|\\0|\\k|[^\x00-\x7f]|\[[^\]]*\W-|\(\?<|\^\*", p)]
    cs = [c for p in patterns for c in cases([p], TEXTS + random_texts(r, 20))]
    want = []
    for c in cs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                x = re.compile(c["text"], re.ASCII | (re.I if c["ignore_case"] else 0))
                want.append([bool(x.search(t) if c["search"] else x.fullmatch(t)) for t in c["texts"]])
            except re.error:
                want.append(None)
    for c, w in zip(cs, want):  # under re.ASCII case is that of ASCII alone
        at = [i for i, t in enumerate(c["texts"]) if all(ord(ch) < 128 for ch in t)]
        c["texts"] = [c["texts"][i] for i in at]
        if w is not None:
            w[:] = [w[i] for i in at]
    print(f"    {compare(cs, ours(cs), want, 'Python')} answers")


@test
def bombs_are_refused_in_time():
    bombs = {"(" * 60000: "LIMIT", "(" * 16000: "LIMIT", "(?:" * 5000 + ")" * 5000: "LIMIT", "(a{0,1000}){0,1000}": "LIMIT", "a{99999999999}": "LIMIT", "((a{1,100}){1,100}){1,100}": "LIMIT",
             "[" + "\\p{L}" * 3000 + "]": "LIMIT", "a|" * 8000: None, "\\W" * 8000: None, "(" * 90 + "a" + ")*" * 90: None, "[ab]*a[ab]{13}": None, "(((a*)*)*)*b": None, ".{0,1000000000}": None}
    for (p, want), got in zip(bombs.items(), ours(cases(bombs, ["", "aaab"], (False,))[::2])):
        eq(got.get("error"), want, p[:40])
        assert got["ms"] <= 250, (p[:40], got["ms"])


@test
def refusals_name_the_construct_and_its_place():
    for p, words in {r"ab(?=c)": ["byte 2", "look-ahead"], r"(?<!a)": ["byte 0", "look-behind"], r"(a)\1": ["byte 3", "back reference"], r"x\bfoo": ["byte 1", "word boundary"],
                     "a++": ["byte 2", "possessive"], "(?>a)": ["atomic"], "[]a]": ["byte 1"], r"\101": ["back reference"], "(?x)a": ["flag"], "(?m)^a": ["flag m"], "a(b": ["byte 1"], "\\": ["byte 0"]}.items():
        got = ours(cases([p], [""], (False,)))[0]
        assert "error" in got and all(w in got["message"] for w in words), (p, got)


@test
def what_pcre_and_rust_add_means_what_it_means_there():
    for p, yes, no in [(r"(?i)ab", ["AB", "aB"], ["a"]), (r"a(?i:b)c", ["aBc"], ["aBC"]), (r"a(?i)b|c", ["aB", "C"], ["Ab"]), (r"(?s).", ["\n"], []), (r"(?P<x>a)", ["a"], []), (r"\Aa\z", ["a"], []),
                       (r"[[:digit:]]+", ["12"], ["a"]), (r"[[:^alpha:]]", ["1"], ["a"]), (r"\x{1F600}", ["\U0001f600"], []), (r"\pL", ["é"], ["1"]), (r"\p{^L}", ["1"], ["a"]), (r"(?-s:.)", ["a"], ["\n"])]:
        got = ours(cases([p], yes + no, (False,)))[0]
        eq(got.get("accepts"), [True] * len(yes) + [False] * len(no), p)


main()
