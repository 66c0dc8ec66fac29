#!/usr/bin/env python3
"""What a compiled schema accepts as text, against the official JSON-Schema-Test-Suite (scripts/fetch-vectors.sh brings it), drafts 4 to 2020-12.

An instance is written as compact JSON in every order of its members (we write them in the schema's order, so one order must be accepted if it
is valid, and none if it is not), with integers as integers. A schema is refused, or no invalid instance is accepted: that is asserted
but for ANNOTATIONS, which the standard lets be no constraints. Valid instances that are not accepted are asserted to be those of NARROWER,
where a constraint is tighter than the standard's. QN_SHOW=1 prints every refusal and every rejection of those too."""
import collections, decimal, glob, itertools, json, os, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from qtest import BUILD, CACHE, add_test, main, eq, skip

SUITE = os.path.join(CACHE, "vectors", "json-schema-4.26.0", "tests")
DRAFTS = {"draft4": "http://json-schema.org/draft-04/schema#", "draft6": "http://json-schema.org/draft-06/schema#", "draft7": "http://json-schema.org/draft-07/schema#",
          "draft2019-09": "https://json-schema.org/draft/2019-09/schema", "draft2020-12": "https://json-schema.org/draft/2020-12/schema"}
ORDERS = 720  # texts tried for one instance
ANNOTATIONS = {
    "optional/format/regex": "not a regular language: as any format that is unknown",
    "optional/format/ecmascript-regex": "the same",
    "optional/content": "contentEncoding and contentMediaType describe",
    "optional/zeroTerminatedFloats": "1.0 and 1 are one number: the instance is written as 1",
}
NARROWER = {  # keyword: how many at most, why
    "format": (20, "a format is a constraint for us, the suite's tests in this file want it to be none"),
    "optional/format/time": (6, "no leap seconds: few programs read them"),
    "optional/format/date-time": (2, "no leap seconds"),
    "optional/format/email": (5, "no quoted local parts, no addresses in brackets"),
    "optional/format/hostname": (1, "no A-labels"),
    "optional/format/idn-email": (1, "hosts are ASCII"),
    "optional/format/idn-hostname": (19, "hosts are ASCII"),
    "vocabulary": (1, "a metaschema of one's own takes no keyword out of force"),
}


def number(v):
    if isinstance(v, float) and v == int(v) and abs(v) < 1e18:
        v = int(v)
    return str(v) if isinstance(v, int) else format(decimal.Decimal(repr(v)), "f")


def texts(v):
    """The spellings of v: all orders of members."""
    if isinstance(v, bool) or v is None:
        return [json.dumps(v)]
    if isinstance(v, (int, float)):
        return [number(v)]
    if isinstance(v, str):
        return [json.dumps(v, ensure_ascii=False)]
    if isinstance(v, list):
        return ["[" + ",".join(p) + "]" for p in itertools.islice(itertools.product(*(texts(x) for x in v)), ORDERS)]
    out = []
    for order in itertools.islice(itertools.permutations(v.items()), ORDERS):
        for p in itertools.islice(itertools.product(*(texts(x) for _, x in order)), ORDERS):
            out.append("{" + ",".join(json.dumps(k, ensure_ascii=False) + ":" + x for (k, _), x in zip(order, p)) + "}")
            if len(out) >= ORDERS:
                return out
    return out


def too_long(v):
    """Numbers that are not written: longer than 18 digits, or not finite."""
    if isinstance(v, (list, dict)):
        return any(too_long(x) for x in (v.values() if isinstance(v, dict) else v))
    return isinstance(v, (int, float)) and not isinstance(v, bool) and not abs(v) < 1e18


def load(draft):
    folder = os.path.join(SUITE, draft)
    if not os.path.isdir(folder):
        skip(f"{folder} is missing: scripts/fetch-vectors.sh")
    for path in sorted(glob.glob(folder + "/*.json") + glob.glob(folder + "/optional/*.json") + glob.glob(folder + "/optional/format/*.json")):
        keyword = os.path.relpath(path, folder)[:-5]
        for group in json.load(open(path, encoding="utf-8")):
            schema = group["schema"]
            if isinstance(schema, dict) and "$schema" not in schema:
                schema = {"$schema": DRAFTS[draft], **schema}
            tests = [t for t in group["tests"] if not too_long(t["data"])]
            if tests and not too_long(schema):
                yield keyword, group["description"], schema, [(t["description"], texts(t["data"]), t["valid"]) for t in tests]


def run(draft):
    cases = list(load(draft))
    lines = "".join(json.dumps({"schema": s, "texts": [x for _, xs, _ in tests for x in xs]}) + "\n" for _, _, s, tests in cases)
    p = subprocess.run([os.path.join(BUILD, "tests/tools/schema_match")], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    answers = [json.loads(x) for x in p.stdout.decode().splitlines()]
    eq(len(answers), len(cases), "answers")
    table, open_, narrow, show = collections.defaultdict(lambda: [0, 0, 0, 0, 0, 0]), [], [], bool(os.environ.get("QN_SHOW"))
    for (keyword, group, _, tests), a in zip(cases, answers):
        row = table[keyword]
        if "accepts" not in a:
            row[0] += 1
            if show:
                print(f"    refused {keyword}: {group}: {a.get('message', a)}")
            continue
        row[1] += 1
        got = iter(a["accepts"])
        for name, xs, valid in tests:
            accepted = any([next(got) for _ in xs])
            row[2 + 2 * valid + (accepted == valid)] += 1
            if accepted != valid:
                (narrow if valid else open_).append(f"{keyword}: {group}: {name}")
    print("    keyword                                  refused compiled  invalid: accepted rejected  valid: rejected accepted")
    for k, r in sorted(table.items()):
        print(f"    {k:40} {r[0]:7} {r[1]:8} {r[2]:18} {r[3]:8} {r[4]:15} {r[5]:8}")
    print(f"    {'all':40} " + " ".join(str(sum(r[i] for r in table.values())) for i in range(6)))
    open_ = [x for x in open_ if x.split(":")[0] not in ANNOTATIONS]
    left = {k: n for k, (n, _) in NARROWER.items()}
    surprise = []
    for x in narrow:
        k = x.split(":")[0]
        left[k] = left.get(k, 0) - 1
        if left[k] < 0:
            surprise.append(x)
        elif show:
            print(f"    narrower {x}")
    for what, xs in (("OPEN", open_), ("rejected", surprise)):
        for x in xs:
            print(f"    {what} {x}")
    eq(open_, [], "invalid instances that are accepted")
    eq(surprise, [], "valid instances that are not")


for d in DRAFTS:
    add_test(f"schema_suite/{d}", lambda d=d: run(d), 300)

main()
