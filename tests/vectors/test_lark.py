#!/usr/bin/env python3
"""Lark grammars against the package lark (tests/requirements.txt): hand-written and random grammars, each on many texts. With its Earley parser
and the lexer dynamic_complete it tries every way to split a text into terminals, which is what a grammar without that pass matches, so the
answers are equal; its LALR parser, which takes the longest terminal, never takes a text that is refused here. QN_SEED, QN_TIMES."""
import json, os, random, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from qtest import BUILD, test, main, eq, skip

SEED, TIMES = int(os.environ.get("QN_SEED", "1")), int(os.environ.get("QN_TIMES", "1"))

def ours(cases):
    p = subprocess.run([os.path.join(BUILD, "tests/tools/grammar_match")], input="".join(json.dumps(dict(c, kind="lark")) + "\n" for c in cases).encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(x) for x in p.stdout.decode().splitlines()]


def peer(cases):
    try:
        from lark import Lark
        from lark.exceptions import LarkError
    except ImportError:
        skip("no package lark: make test sets it up")

    def takes(parser, text):
        try:
            parser.parse(text)
            return True
        except LarkError:
            return False

    out = []
    for c in cases:
        answer = {}
        for name, o in (("earley", dict(parser="earley", lexer="dynamic_complete")), ("lalr", dict(parser="lalr"))):
            try:
                parser = Lark(c["text"], **o)
            except Exception as e:  # noqa: BLE001 - not LALR, an empty terminal, and the like: that parser has no say
                answer[name] = str(e) or type(e).__name__
                continue
            answer[name] = [takes(parser, t) for t in c["texts"]]
        out.append(answer)
    return out


CALC = r'''
?start: sum
?sum: product
    | sum "+" product   -> add
    | sum "-" product   -> sub
?product: atom
    | product "*" atom  -> mul
    | product "/" atom  -> div
?atom: NUMBER           -> number
     | "-" atom         -> neg
     | NAME             -> var
     | "(" sum ")"
%import common.CNAME -> NAME
%import common.NUMBER
%import common.WS_INLINE
%ignore WS_INLINE
'''
JSON = r'''
// JSON
?start: value
?value: object | array | string | SIGNED_NUMBER -> number | "true" | "false" | "null"
array  : "[" [value ("," value)*] "]"
object : "{" [pair ("," pair)*] "}"
pair   : string ":" value
string : ESCAPED_STRING
%import common (ESCAPED_STRING, SIGNED_NUMBER, WS)
%ignore WS
'''
CASES = [
    (CALC, ["1", "1+2", " 1 + 2 * ( x - -3 ) ", "1+", "(1", "a b", "", "x_1/2.5e3", "1..2", "\t7", "7\n"]),
    (JSON, ["{}", "[]", '{"a": [1, -2.5e3, "x\\"y", true, null]}', '{"a" 1}', "[1,]", " [ 1 , 2 ] ", '"', '"a"b"', "truefalse", "", '"a\nb"']),
    ('start: "a"+ ("b" | "c")? D~2\nD: "0".."9"', ["a12", "aab34", "b12", "a1", "a123", "aac00"]),
    ('start: A B? C*\nA: "x"i\nB: /[yz]+/i\nC: "0".."3" | "é"', ["x", "XyZ", "X012é", "xY4", "y"]),
    ('start: (A | B)~1..3\nA.2: "ab"\nB.-1: /a/', ["a", "ab", "aba", "aaaa", "", "abab", "b"]),
    ('start: [A] "!"\nA: ("q" | "r" "s")+ [/t/]', ["!", "q!", "rs!", "rsqt!", "rt!", "t!"]),
    ('!start: _sep{_x}\n_sep{x}: x\n_x: "a"', None),
    ('start: A\n%declare A', None),
    ('start: a\na: b\nb: "x" a | "y"\n# comment\n', ["y", "xy", "xxy", "x", ""]),
    ('start: item*\nitem: "-" /[^\\n]+/ "\\n"\n', ["- a\n", "-x\n-y\n", "- a", "\n", ""]),
    ('start: s\ns: s s | "(" s ")" | "()"', ["()", "()()", "(())", "(()", ")(", "(()())()"]),
    ('start: "\\"" /[^"]*/ "\\""', ['"a"', '""', '"']),
    ('start: "a/b" /a\\/b/ //c\n', ["a/ba/b", "a/b"]),
    ('start: WORD ("," WORD)*\n%import common.WORD\n%ignore " "\n%ignore /#[^\\n]*/', ["a,b", " a , b ", "a#x", "a,,b", "a b"]),
    ('start: C_COMMENT | CPP_COMMENT | HEXDIGIT+\n%import common (C_COMMENT, CPP_COMMENT, HEXDIGIT)', ["/**/", "/* a * b */", "//x", "aF0", "/*"]),
    ('start: FLOAT ";" SIGNED_INT ";" DECIMAL\n%import common (FLOAT, SIGNED_INT, DECIMAL)', ["1e5;+1;1.", ".5;-0;.1", "1;1;1.1", "1.;1;1.1", "1.5E-3;1;0.0"]),
    ('start: NEWLINE LETTER UCASE_LETTER LCASE_LETTER DIGIT INT\n%import common (NEWLINE, LETTER, UCASE_LETTER, LCASE_LETTER, DIGIT, INT)', ["\naAb12", "\r\n\naAb12", "aAb12", "\naab12"]),
    ('start: /a.c/s | /x.z/ | /q/i', ["a\nc", "x\nz", "xyz", "Q", "abc"]),
    ('start: "\\u00e9" "\\x41" "\\\\"', ["éA\\", "e"]),
    ('start: (("a" | "b")\n   "c")+\n', ["ac", "bcac", "c"]),
]
BROKEN = {'start: foo': ["line 1", "foo"], 'a: "x"': ["start"], 'start: "x': ["line 1", "string"], 'start: /x': ["regular"], 'start "x"': ["colon"], 'start: A\nA: b\nb: "x"': ["line 2", "rule inside"],
          'start: A\nA: "x" A': ["itself"], 'start: ("x"': [")"], 'start: "x"\nstart: "y"': ["line 2", "twice"], '%import python.X\nstart: X': ["common"], '%import common.NOPE\nstart: NOPE': ["NOPE"],
          'start: x{"a"}\nx{y}: y': ["template"], '%declare X\nstart: X': ["declare"], 'start: /(?=x)/': ["look-ahead"], 'start: "z".."a"': ["range"], 'start: "a"~': ["number"], 'start: "a" )': ["line"],
          'start: "a" ->': ["alias"], "start: " + "(" * 60000: ["deep"], "start: A0\n" + "\n".join(f"A{i}: A{i + 1}" for i in range(500)) + '\nA500: "x"': ["deep"]}


def compare(cases):
    """Equal to Earley, and a superset of LALR. Returns the number of answers."""
    n = bad = 0
    for c, g, w in zip(cases, ours(cases), peer(cases)):
        if isinstance(w["earley"], str):
            continue
        if "no text matches" in g.get("message", ""):
            eq(any(w["earley"]), False, c["text"])
            continue
        assert "accepts" in g, (c["text"], g)
        for i, t in enumerate(c["texts"]):
            n += 1
            if g["accepts"][i] != w["earley"][i] or (isinstance(w["lalr"], list) and w["lalr"][i] and not g["accepts"][i]):
                bad += 1
                if bad < 8:
                    print(f"    on {t!r}: {g['accepts'][i]}, lark {w['earley'][i]} (lalr {w['lalr'][i] if isinstance(w['lalr'], list) else w['lalr'][:80]!r})\n{c['text']}")
    eq(bad, 0, f"answers that differ, of {n}")
    return n


@test(seconds=120)
def grammars_match_what_lark_parses():
    n = compare([{"text": g, "texts": t} for g, t in CASES if t is not None])
    print(f"    {n} answers")
    assert n >= 90, n


def random_grammar(r):
    terms = ["A", "B", "C"]
    rules = ["start", "x", "y"][:r.choice([1, 2, 3])]

    def term(depth):
        k = r.randrange(8 if depth else 4)
        if k == 0: return '"' + r.choice(["a", "b", "ab", "c", "1"]) + '"' + r.choice(["", "", "i"])
        if k == 1: return r.choice(["/a/", "/[ab]/", "/[^a ]/", "/b+/", "/a|bc/", "/ca?/i", "/[a-c]{1,2}/"])
        if k == 2: return r.choice(['"a".."c"', '"0".."1"'])
        if k == 3: return r.choice(['"a"', '"c"'])
        if k == 4: return f"{term(depth - 1)} {term(depth - 1)}"
        if k == 5: return f"({term(depth - 1)} | {term(depth - 1)})"
        if k == 6: return f"({term(depth - 1)}){r.choice(['+', '~2', '~1..2'])}"
        return term(depth - 1)

    def rule(depth):
        k = r.randrange(10 if depth else 4)
        if k == 0: return r.choice(terms)
        if k == 1: return r.choice(rules)
        if k in (2, 3): return '"' + r.choice("abc1") + '"'
        if k in (4, 5): return f"{rule(depth - 1)} {rule(depth - 1)}"
        if k == 6: return f"({rule(depth - 1)} | {rule(depth - 1)})"
        if k == 7: return f"({rule(depth - 1)}){r.choice(['*', '+', '?', '~2', '~0..2'])}"
        if k == 8: return f"[{rule(depth - 1)}]"
        return rule(depth - 1)

    lines = [f"{x}: {rule(3)}" + "".join(f"\n    | {rule(2)}" for _ in range(r.choice([0, 1, 1]))) for x in rules] + [f"{t}: {term(2)}" for t in terms]
    if r.random() < .5:
        lines.append(r.choice(['%ignore " "', "%ignore /[ ]+/"]))
    return "\n".join(lines) + "\n"


@test(seconds=600)
def random_grammars_match_what_lark_parses():
    r = random.Random(SEED)
    cases = [{"text": random_grammar(r), "texts": ["".join(r.choice("aabbcA1 ") for _ in range(r.choice([0, 1, 1, 2, 2, 3, 3, 4, 5]))) for _ in range(25)]} for _ in range(150 * TIMES)]
    n = compare(cases)
    print(f"    {n} answers of {len(cases)} grammars")
    assert n > 1000, n


@test
def broken_grammars_are_refused_with_their_place():
    for g, words in BROKEN.items():
        got = ours([{"text": g, "texts": []}])[0]
        assert got.get("error") and all(w in got["message"] for w in words), (g[:80], got)
        assert got["ms"] <= 250, (g[:80], got["ms"])


main()
