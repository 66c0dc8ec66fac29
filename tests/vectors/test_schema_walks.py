#!/usr/bin/env python3
"""Random members of compiled schemas against python-jsonschema (tests/requirements.txt) and against our own check of instances.

Three sources of schemas: tests/data/schemas.jsonl (written by hand, one use a line), a generator that combines all keywords at random, and a file
of real-world ones when QN_SCHEMAS names it (a line is {"name", "schema"}, gzip or not). Walks through the automaton (tests/tools/schema_match.c) must
validate. Then each walk is changed a little (a member or an item left out, doubled or replaced, a scalar moved): what the automaton takes of those
must validate too. Numbers are compared as decimals. How many valid ones it does not take is printed, it may be narrower; QN_SHOW=1 shows them."""
import decimal, gzip, json, os, random, re, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from qtest import BUILD, ROOT, test, main, eq, skip

OWN = os.path.join(ROOT, "tests", "data", "schemas.jsonl")
WORDS = ["a", "b", "id", "x-1", "na\"me", "größe", "tab\t", "", "$ref2", "kind"]
LONG = r"\d{19}|\.\d{12}"  # numbers that we do not write, or not where they are bounded
SHOW = bool(os.environ.get("QN_SHOW"))


# ---- random schemas ---------------------------------------------------------------------------------------------------

def scalar(r):
    return r.choice([None, True, False, 0, 1, -3, 2.5, "a", "b\"c", "", "ü", 100, {}, [], {"a": 1}, [1, "x"]])


def number(r):
    return r.choice([0, 1, 2, -1, -7, 10, 12.5, -0.25, 100, 0.001])


def maybe(r, s, key, make, p=0.4):
    if r.random() < p:
        s[key] = make()


def string_schema(r):
    s = {"type": "string"}
    maybe(r, s, "minLength", lambda: r.randint(0, 4))
    maybe(r, s, "maxLength", lambda: r.randint(3, 9))
    maybe(r, s, "pattern", lambda: r.choice(["^a", "b$", "^[a-c]{1,4}$", "\\d", "^(x|yy)*$", "[^a]", "^\\w+-\\w+$", "^.{2}$"]))
    maybe(r, s, "format", lambda: r.choice(["date", "ipv4", "uuid", "unheard-of"]), 0.1)
    return s


def number_schema(r):
    s = {"type": r.choice(["integer", "number"])}
    maybe(r, s, "minimum", lambda: number(r))
    maybe(r, s, "maximum", lambda: number(r))
    maybe(r, s, "exclusiveMinimum", lambda: number(r), 0.2)
    maybe(r, s, "exclusiveMaximum", lambda: number(r), 0.2)
    maybe(r, s, "multipleOf", lambda: r.choice([1, 2, 3, 7, 0.5, 0.01, 10, 25]), 0.3)
    return s


def array_schema(r, d):
    s = {"type": "array"}
    maybe(r, s, "items", lambda: schema(r, d - 1), 0.7)
    maybe(r, s, "prefixItems", lambda: [schema(r, d - 1) for _ in range(r.randint(1, 3))], 0.3)
    maybe(r, s, "minItems", lambda: r.randint(0, 2))
    maybe(r, s, "maxItems", lambda: r.randint(1, 4))
    maybe(r, s, "contains", lambda: schema(r, d - 1), 0.2)
    if "contains" in s:
        maybe(r, s, "minContains", lambda: r.randint(0, 2))
        maybe(r, s, "maxContains", lambda: r.randint(1, 3))
    maybe(r, s, "unevaluatedItems", lambda: r.choice([False, {"type": "string"}]), 0.1)
    return s


def object_schema(r, d):
    names = r.sample(WORDS, r.randint(0, 4))
    s = {"type": "object", "properties": {n: schema(r, d - 1) for n in names}}
    maybe(r, s, "required", lambda: r.sample(WORDS, r.randint(0, 2)))
    maybe(r, s, "additionalProperties", lambda: r.choice([False, True, schema(r, d - 1)]), 0.6)
    maybe(r, s, "patternProperties", lambda: {r.choice(["^a", "\\d$", "e", "^[a-d]+$"]): schema(r, d - 1) for _ in range(r.randint(1, 2))}, 0.3)
    maybe(r, s, "propertyNames", lambda: r.choice([{"maxLength": 3}, {"pattern": "^[a-z]"}, {"enum": ["a", "b", "id"]}]), 0.15)
    maybe(r, s, "minProperties", lambda: r.randint(0, 2), 0.2)
    maybe(r, s, "maxProperties", lambda: r.randint(1, 4), 0.2)
    maybe(r, s, "dependentRequired", lambda: {r.choice(WORDS): [r.choice(WORDS)]}, 0.15)
    maybe(r, s, "dependentSchemas", lambda: {r.choice(WORDS): object_schema(r, 1)}, 0.1)
    maybe(r, s, "unevaluatedProperties", lambda: r.choice([False, {"type": "integer"}]), 0.1)
    return s


def schema(r, d):
    if d <= 0 or r.random() < 0.35:
        k = r.randint(0, 6)
        if k == 0: return r.choice([True, {}, {"type": ["string", "null"]}, {"type": "boolean"}, {"$ref": "#/$defs/r"}])
        if k == 1: return {"enum": [scalar(r) for _ in range(r.randint(1, 4))]}
        if k == 2: return {"const": scalar(r)}
        return string_schema(r) if k < 5 else number_schema(r)
    s = r.choice([object_schema, object_schema, array_schema])(r, d) if r.random() < 0.75 else {}
    for key in ("allOf", "anyOf", "oneOf"):
        maybe(r, s, key, lambda: [schema(r, d - 1) for _ in range(r.randint(1, 3))], 0.12 if s else 0.4)
    maybe(r, s, "not", lambda: schema(r, d - 1), 0.1)
    if r.random() < 0.1:
        s["if"] = schema(r, d - 1)
        maybe(r, s, "then", lambda: schema(r, d - 1), 0.7)
        maybe(r, s, "else", lambda: schema(r, d - 1), 0.7)
    return s


def document(seed):
    r = random.Random(seed)
    s = schema(r, 3)
    s = dict(s) if isinstance(s, dict) else {}
    s["$defs"] = {"r": {"type": "object", "properties": {"next": {"$ref": "#/$defs/r"}, "v": schema(r, 1)}}}
    return {"name": f"random {seed}", "schema": s}


# ---- changes ----------------------------------------------------------------------------------------------------------

def changed(r, v):
    """v with one small change, members in their order."""
    if isinstance(v, dict) and v and r.random() < 0.9:
        k, out = r.choice(list(v)), dict(v)
        how = r.randint(0, 3)
        if how == 0:
            del out[k]
        elif how == 1:
            out["zz" + r.choice(WORDS)] = scalar(r)
        elif how == 2:
            out[k] = scalar(r)
        else:
            out[k] = changed(r, v[k])
        return out
    if isinstance(v, list) and v and r.random() < 0.9:
        i, how = r.randrange(len(v)), r.randint(0, 3)
        return [v[:i] + v[i + 1:], v + [v[i]], v[:i] + [scalar(r)] + v[i + 1:], v[:i] + [changed(r, v[i])] + v[i + 1:]][how]
    if isinstance(v, str) and r.random() < 0.8:
        return r.choice([v[1:], v + "a", v[:-1], "a" + v, v.upper()])
    if isinstance(v, (int, decimal.Decimal)) and not isinstance(v, bool) and r.random() < 0.8:
        return v + r.choice([1, -1, 10, decimal.Decimal("0.5")])
    return scalar(r)


def write(v):
    """Compact JSON with decimals in full and integers as such."""
    if isinstance(v, dict):
        return "{" + ",".join(write(k) + ":" + write(x) for k, x in v.items()) + "}"
    if isinstance(v, list):
        return "[" + ",".join(map(write, v)) + "]"
    if isinstance(v, (float, decimal.Decimal)):
        v = decimal.Decimal(v)
        return str(int(v)) if v == v.to_integral_value() and abs(v) < 10**18 else format(v, "f")
    return json.dumps(v, ensure_ascii=False)


# ---- the comparison ---------------------------------------------------------------------------------------------------

def tool(name, lines):
    text = "".join(json.dumps(x) + "\n" for x in lines)
    p = subprocess.run([os.path.join(BUILD, "tests/tools", name)], input=text.encode(), stdout=subprocess.PIPE, check=True)
    out = [json.loads(x) for x in p.stdout.decode().splitlines()]  # one without "ms": jansson did not read the schema (a number past 64 bits)
    eq(len(out), len(lines), "answers of " + name)
    return out


def read(text):
    return json.loads(text, parse_float=decimal.Decimal)


def validator(s):
    try:
        import jsonschema
    except ImportError:
        skip("jsonschema is not installed (tests/requirements.txt)")
    s = read(json.dumps(s))
    cls = jsonschema.validators.validator_for(s)
    return cls(s, format_checker=cls.FORMAT_CHECKER)


def valid(v, x):
    try:
        return v.is_valid(x)
    except Exception:  # noqa: BLE001 the reference fails on this schema
        return None


def compare(docs, walks, changes, seed):
    r = random.Random(seed)
    answers = tool("schema_match", [{"schema": d["schema"], "walks": walks, "seed": seed, "length": 300} for d in docs])
    refused = [(d, a) for d, a in zip(docs, answers) if "walks" not in a]
    bad, n, unfinished, asks = [], 0, 0, []
    for d, a in zip(docs, answers):
        if "walks" not in a:
            continue
        v, texts = validator(d["schema"]), []
        for w in a["walks"]:
            if w is None:
                unfinished += 1
                continue
            n += 1
            x = read(w)
            if valid(v, x) is False:
                bad.append(f"{d['name']}: {w[:300]}")
            texts += [t for t in (write(changed(r, x)) for _ in range(changes)) if not re.search(LONG, t)]
        asks.append((d, v, texts, a))
    again = tool("schema_match", [{"schema": d["schema"], "texts": t} for d, _, t, _ in asks])
    takes = leaves = invalid = 0
    for (d, v, texts, _), a in zip(asks, again):
        for t, took in zip(texts, a["accepts"]):
            good = valid(v, read(t))
            if took and good is False:
                bad.append(f"{d['name']}: changed: {t[:300]}")
            takes += took and good is True
            leaves += not took and good is True
            invalid += good is False
            if SHOW and not took and good:
                print(f"    not taken: {d['name']}: {t[:200]}: {json.dumps(d['schema'])[:300]}")
    # the other check, on what jansson can read
    mine = tool("schema_check", [{"schema": d["schema"], "values": [read_plain(w) for w in a["walks"] if w is not None]} for d, _, _, a in asks])
    for (d, _, _, a), m in zip(asks, mine):
        bad += [f"{d['name']}: our check: {why}" for ok, why in zip(m["valid"], m["why"]) if not ok]
    pool = [read(w) for a in answers for w in a.get("walks", [])[:1] if w is not None] + [scalar(r) for _ in range(30)]
    for d, a in refused:  # what is refused for having no instance has none among many
        if "no value satisfies" in a.get("message", ""):
            v = validator(d["schema"])
            bad += [f"{d['name']}: refused though {write(x)[:100]} is an instance: {json.dumps(d['schema'])[:300]}" for x in pool if valid(v, x)][:1]
    ms = sorted(a.get("ms", 0) for a in answers)
    print(f"    {len(docs)} schemas, {len(refused)} refused; compiled in {ms[len(ms) // 2]:.2f} ms (p50), {ms[int(len(ms) * .99)]:.2f} ms (p99)")
    print(f"    {n} walks, {unfinished} unfinished; {takes + leaves} valid changes of which {leaves} are not taken, {invalid} invalid ones")
    for d, a in refused[:400 if SHOW else 12]:
        print(f"    refused {d['name']}: {a.get('message', a)}")
    for b in bad[:20]:
        print("    " + b)
    eq(bad, [], "accepted, but not valid")
    return refused, unfinished, n


def read_plain(text):
    return json.loads(text)


@test(seconds=300)
def schemas_of_our_own_hold():
    docs = [json.loads(x) for x in open(OWN, encoding="utf-8")]
    refused, unfinished, n = compare(docs, 6, 6, 1)
    eq([d["name"] for d, _ in refused], [], "refused")
    eq(unfinished, 0, "walks that did not end")


@test(seconds=600)
def random_schemas_hold():
    compare([document(s) for s in range(int(os.environ.get("QN_SEEDS", "400")))], 4, 6, 2)


@test(seconds=900)
def real_schemas_hold():
    path = os.environ.get("QN_SCHEMAS")
    if not path:
        skip("QN_SCHEMAS names no file")
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
        docs = [json.loads(x) for x in f]
    refused, _, _ = compare(docs, 8, 6, 3)
    assert len(refused) < 0.05 * len(docs), f"{len(refused)} of {len(docs)} refused"


main()
