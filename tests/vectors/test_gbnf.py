#!/usr/bin/env python3
"""GBNF against llama.cpp: the grammars and texts of its own test-grammar-integration.cpp (which to take, which to refuse), its example
grammars, and what a message about a broken grammar says. The files come with scripts/fetch-vectors.sh."""
import json, os, re, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from qtest import BUILD, CACHE, test, main, eq, skip

LLAMA = os.path.join(CACHE, "vectors", "llama.cpp-0.3.36")


def match(grammar, texts, kind="gbnf"):
    p = subprocess.run([os.path.join(BUILD, "tests/tools/grammar_match")], input=(json.dumps({"kind": kind, "text": grammar, "texts": texts}) + "\n").encode(),
                       stdout=subprocess.PIPE, check=True)
    return json.loads(p.stdout)


def read(name):
    path = os.path.join(LLAMA, name)
    if not os.path.exists(path):
        skip(f"{path} is missing: scripts/fetch-vectors.sh")
    return open(path, encoding="utf-8").read()


STRING = re.compile(r'R"""\((.*?)\)"""|"((?:[^"\\]|\\.)*)"', re.S)


def strings(text):
    """The C++ strings in text, neighbours joined as the compiler does."""
    out, end = [], None
    for m in STRING.finditer(re.sub(r"//[^\n\"]*\n", "\n", text)):
        s = m[1] if m[1] is not None else m[2].encode().decode("unicode_escape").encode("latin-1").decode() if "\\" in m[2] else m[2]
        out.append(s)
    return out


def cases():
    """(name, grammar, texts to take, texts to refuse) of every test_grammar() without tokens."""
    for block in re.findall(r"\n    test_grammar\((.*?)\n    \);", read("tests/test-grammar-integration.cpp"), re.S):
        if "token(" in block:
            continue
        m = re.search(r"\n        \{(.*?)\n        \},?\s*(?://[^\n]*)?\s*\n        \{(.*?)\n        \}", block, re.S)
        head = strings(block[:m.start()])
        yield head[0], head[1], strings(m[1]), strings(m[2])


@test
def takes_and_refuses_what_llama_cpp_does():
    n = 0
    for name, grammar, yes, no in cases():
        got = match(grammar, yes + no)
        assert "accepts" in got, (name, got)
        eq(got["accepts"], [True] * len(yes) + [False] * len(no), f"{name}: {grammar}")
        n += len(yes) + len(no)
    print(f"    {n} texts")
    assert n >= 119, n


EXAMPLES = {
    "arithmetic": (["1+2=3\n", "a*(b-c)=7\nx=1\n"], ["1+2", "=3\n"]),
    "c": (["int main(){return 0;}", "int f(int a){int b = 1;return b+2*a;}"], ["int main(){return 0}", "main(){}"]),
    "chess": (["1. e4 e5\n2. Nf3 Nc6\n", "1. d4 d5\n2. c4 dxc4\n3. e8=Q O-O-O\n"], ["1. e4 e5\n", "2. e4 e5\n"]),
    "english": (["Hello, world. It's 12 o'clock!"], ["日本"]),
    "japanese": (["今日は、東京。\n日本語", "カタカナ"], ["abc"]),
    "json": (['{"a": [1, -2.5e3, "x\\u00e9\\n", true, null, {}]}', "{}"], ['{"a": }', "[1]", '{"a": 01}']),
    "json_arr": (['[\n1,\n{"a": "b"}\n]', "[\n1]"], ["{}", "[\n1,\n]"]),
    "list": (["- a\n- b\n", "- x\n"], ["a\n", "- a"]),
}


@test
def the_example_grammars_compile_and_match():
    for name, (yes, no) in EXAMPLES.items():
        got = match(read(f"grammars/{name}.gbnf"), yes + no)
        assert "accepts" in got, (name, got)
        eq(got["accepts"], [True] * len(yes) + [False] * len(no), name)


@test
def what_llama_cpp_refuses_is_refused_with_its_place():
    for grammar, words in {
        "root ::= a\nb ::= c\na ::= \"x\"": ["line 2", "'c'"], "root ::= \"a": ["line 1", "quote"], "root ::= [a": ["line 1"], "root ::= (\"a\"": ["line 1", ")"], "root = a": ["::="],
        "foo ::= \"a\"": ["root"], "root ::= *": ["line 1"], "root ::= \"a\"{2": ["line 1"], "root ::= \"a\"{3,2}": ["backwards"], "root ::= \"\\q\"": ["escape"], "root ::= \"\\x1\"": ["hexadecimal"],
        "root ::= \"a\"\nroot ::= \"b\"": ["line 2", "twice"], "root ::= \"a\" ) ": ["line 1"], "": ["root"], "root ::= <think>": ["token"], "root ::= [b-a]": ["backwards"], "root ::= !<[1]>": ["token"]}.items():
        got = match(grammar, [])
        assert got.get("error") and all(w in got["message"] for w in words), (grammar, got)


@test
def bombs_are_refused_or_small():
    for grammar, want in {"root ::= " + "(" * 60000: ["LIMIT"], "root ::= " + "(" * 60000 + '"a"' + ")" * 60000: ["LIMIT"], 'root ::= ("a"*)*': [None], 'root ::= ("a"*)*' + "*" * 60000: [None],
                          'root ::= "a"{1000000000}': [None], "root ::= " + '"a" | ' * 40000 + '"b"': [None], 'root ::= root root | "a"': [None], "root ::= root": ["DATA"],
                          "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(5000)) + '\nr5000 ::= "a"\nroot ::= "b" | r4990': [None, "LIMIT"]}.items():
        got = match(grammar, ["", "a", "aaa"])
        assert got.get("error") in want, (grammar[:60], got)
        assert got["ms"] <= 300, (grammar[:60], got["ms"])


main()
