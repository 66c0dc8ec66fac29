#!/usr/bin/env python3
"""Random templates, ours against Jinja2 in transformers' settings: expressions over odd values, and text with tags, signs and
blanks in every order. A failure prints the template; QN_SEED chooses another beginning, QN_TIMES more rounds."""
import json, os, random, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from qtest import test, main
from jinja_reference import environment, Ours

SEED, TIMES = int(os.environ.get("QN_SEED", "1")), int(os.environ.get("QN_TIMES", "1"))
VARS = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "jinja", "cases.json"), encoding="utf-8"))["vars"]

STRINGS = ["'a'", "''", "'Hello wOrld'", "' x\\ty \\n'", "'é<b>&\"'", "'a,b,,c'", "'12'", "'-3.5'", "'ß Σς ΑΣ'", "'one\\ntwo\\r\\n\\nthree'", "s", "csv", "blank",
           "html", "quote", "uni", "lines", "'ab' * 3", "words[1]", "people[0].name"]
INTS = ["0", "1", "2", "-1", "-7", "10", "3", "n", "neg", "l[0]", "true"]
OTHER = ["1.5", "-2.0", "0.1", "1e20", "f", "none", "no", "undefined_name", "d.zzz", "[]", "{}", "()", "[1, 2, 3]", "['b', 'A']", "(1, 'x')", "{'a': 1, 'b': [2]}",
         "range(4)", "people", "d", "d.a", "l", "words", "deep", "d.items()", "d|list", "csv.split(',')", "l|map('string')|list"]
# {s} a string, {i} an integer, {e} anything
METHODS = ["upper()", "lower()", "title()", "capitalize()", "swapcase()", "strip({s})", "lstrip({s})", "rstrip({s})", "strip()", "split({s})", "split({s}, {i})",
           "rsplit({s}, {i})", "split()", "split(none, {i})", "rsplit(none, {i})", "replace({s}, {s})", "replace({s}, {s}, {i})", "startswith({s})", "endswith({s})",
           "startswith(({s}, {s}))", "find({s})", "find({s}, {i})", "rfind({s}, {i}, {i})", "count({s})", "index({e})", "join({e})", "center({i})", "ljust({i}, 'x')",
           "rjust({i})", "zfill({i})", "splitlines()", "splitlines({i})", "partition({s})", "rpartition({s})", "removeprefix({s})", "removesuffix({s})", "isdigit()",
           "isalpha()", "isalnum()", "islower()", "isupper()", "istitle()", "isspace()", "isnumeric()", "expandtabs({i})", "get({s})", "get({s}, {e})", "keys()", "values()",
           "items()", "copy()"]
FILTERS = ["upper", "lower", "title", "capitalize", "trim", "trim({s})", "length", "count", "first", "last", "list", "string", "int", "int({i})", "float", "abs", "round",
           "round({i})", "round(1, 'floor')", "replace({s}, {s})", "replace({s}, {s}, {i})", "reverse", "reverse|list", "sort", "sort(reverse={i})", "sort(attribute={s})",
           "unique|list", "unique(true)|list", "map('string')|list", "map('upper')|list", "map(attribute={s})|list", "map(attribute={i}, default={e})|list", "select|list",
           "select('odd')|list", "select('eq', {e})|list", "reject('none')|list", "selectattr('name')|list", "selectattr('age', 'gt', {i})|list", "rejectattr('tag.id')|list",
           "items|list", "dictsort", "dictsort(true)", "dictsort(by='value')", "tojson", "tojson(indent={i})", "tojson(sort_keys={i})", "tojson(ensure_ascii={i})",
           "tojson(separators=(',', ':'))", "indent", "indent({i})", "indent({s}, {i}, {i})", "safe", "e", "forceescape", "batch({i})|list", "batch({i}, {s})|list",
           "slice({i})|list", "sum", "sum(start={i})", "min", "max", "wordcount", "groupby('age')", "groupby({s})|map('first')|list", "default({e})", "d({e}, true)", "join",
           "join({s})", "join({s}, {s})", "truncate({i})", "truncate({i}, true, '')", "center({i})", "format({e})"]
TESTS = ["defined", "undefined", "none", "boolean", "false", "true", "integer", "float", "number", "string", "mapping", "sequence", "iterable", "escaped", "lower", "upper",
         "odd", "even", "divisibleby({i})", "eq({e})", "ne({e})", "lt({e})", "ge({e})", "in({e})"]


def fill(r, pattern, depth):
    for kind in ("{s}", "{i}", "{e}"):
        while kind in pattern:
            pick = r.choice(STRINGS) if kind == "{s}" else r.choice(INTS) if kind == "{i}" else expression(r, depth - 1)
            pattern = pattern.replace(kind, pick, 1)
    return pattern


def expression(r, depth):
    if depth <= 0 or r.random() < .15:
        return r.choice(STRINGS if r.random() < .4 else INTS if r.random() < .4 else OTHER)
    e = lambda: expression(r, depth - 1)
    kind = r.randrange(14)
    if kind == 0: return f"({e()} {r.choice(['+', '-', '*', '/', '//', '%', '~', '~'])} {e()})"
    if kind == 1: return f"({e()} {r.choice(['==', '!=', '<', '>', '<=', '>=', 'in', 'not in'])} {e()})"
    if kind == 2: return f"({e()} {r.choice(['and', 'or'])} {e()})"
    if kind == 3: return f"(not {e()})"
    if kind == 4: return f"({e()} if {e()} else {e()})"
    if kind == 5: return f"({e()})[{r.choice(STRINGS + INTS)}]"
    if kind == 6: return f"{r.choice(['s', 'l', 'words', 'uni', 'csv', 'people'])}[{r.choice(INTS + [''])}:{r.choice(INTS + [''])}{r.choice(['', ':', ':2', ':-1', ':-3'])}]"
    if kind in (7, 8): return f"({e()}).{fill(r, r.choice(METHODS), depth)}"
    if kind in (9, 10, 11): return f"({e()}|{fill(r, r.choice(FILTERS), depth)})"
    if kind == 12: return f"({e()} is {r.choice(['', 'not '])}{fill(r, r.choice(TESTS), depth)})"
    return r.choice([f"[{e()}, {e()}]", f"{{{r.choice(STRINGS)}: {e()}}}", f"({e()},)", f"(-{r.choice(INTS + ['f'])})", f"{e()}|{r.choice(['upper', 'abs', 'length'])}"])


BLANKS = ["", " ", "\n", "\n\n", "  ", "\t", "\r\n", "\n  ", " \n", "\u00a0", "x", "x ", " x", "\nx\n", "é\n", "{x", "}", "%", "#}", "{ { ", "\x0b"]


def document(r, depth=0):
    sign = lambda: r.choice(["", "", "", "-", "+"])
    out = [r.choice(BLANKS)]
    for _ in range(r.randrange(1, 5)):
        kind = r.randrange(9 if depth < 3 else 3)
        minus = lambda: r.choice(["", "", "-"])
        if kind == 0: out.append("{{%s%s%s}}" % (minus(), r.choice([" n ", " s[:2] ", " '{#' ", " '%}' ", "' '", " '\\n' "]), minus()))
        elif kind == 1: out.append("{#%s%s%s#}" % (sign(), r.choice([" c ", "", "\n", " {{ x }} ", " -"]), sign()))
        elif kind == 2: out.append("{%%%s set q = 'q' %s%%}" % (sign(), sign()))
        elif kind in (3, 4): out.append("{%%%s if t %s%%}%s{%%%s endif %s%%}" % (sign(), sign(), document(r, depth + 1), sign(), sign()))
        elif kind == 5: out.append("{%%%s for i in [1, 2] %s%%}%s{%%%s endfor %s%%}" % (sign(), sign(), document(r, depth + 1), sign(), sign()))
        elif kind == 6: out.append("{%%%s raw %s%%}%s{%%%s endraw %s%%}" % (sign(), minus(), r.choice(BLANKS + [" {{ x }} ", "{% if %}", "{# #}"]), sign(), sign()))
        elif kind == 7: out.append("{%%%s set z %s%%}%s{%%%s endset %s%%}{{ z }}" % (sign(), sign(), document(r, depth + 1), sign(), sign()))
        else: out.append("{%%%s if no %s%%}a{%%%s elif t %s%%}%s{%%%s else %s%%}c{%%%s endif %s%%}" % (sign(), sign(), sign(), sign(), document(r, depth + 1), sign(), sign(), sign(), sign()))
        out.append(r.choice(BLANKS))
    return "".join(out)




def compare(make, n):
    env, ours = environment(), Ours()
    rendered = raised = 0
    for i in range(n * TIMES):
        template = make(random.Random(SEED * 1000003 + i))
        try:
            want = env.from_string(template).render(**json.loads(json.dumps(VARS)))
            if " at 0x" in want or len(want) > 100000: continue  # an address; a size that we refuse
        except Exception as e:
            want = e
        got = ours.ask(template=template, vars=VARS, trusted={})
        if isinstance(want, Exception):
            assert "error" in got, f"{template!r}: Jinja2 raises {want!r}, we print {got['text'][:300]!r}"
            raised += 1
        elif "64 bits" not in got.get("message", ""):
            assert got.get("text") == want, f"{template!r}: got {got.get('text', got)!r:.400}, wanted {want!r:.400}"
            rendered += 1
    ours.close()
    assert rendered > n / 5, f"only {rendered} rendered"
    print(f"{rendered} rendered alike, {raised} raise in both")


@test(seconds=120)
def expressions():
    compare(lambda r: "{{ " + expression(r, r.choice([1, 2, 2, 3, 3, 4])) + " }}", 2500)


@test(seconds=120)
def blanks_and_signs():
    compare(document, 800)


main()
