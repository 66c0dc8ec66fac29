#!/usr/bin/env python3
"""The check of a finished instance (api/schema_check.c) against the official JSON-Schema-Test-Suite (scripts/fetch-vectors.sh brings it), drafts 4
to 2020-12: every case must come out as the suite says. Left out are cases whose schema refers to another document (they are refused before, when a
schema is compiled), numbers that jansson cannot hold, and formats, which are annotations."""
import glob, json, os, subprocess, sys
from urllib.parse import urljoin

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from qtest import BUILD, CACHE, add_test, main, eq, skip

SUITE = os.path.join(CACHE, "vectors", "json-schema-4.26.0", "tests")
DRAFTS = {"draft4": "http://json-schema.org/draft-04/schema#", "draft6": "http://json-schema.org/draft-06/schema#", "draft7": "http://json-schema.org/draft-07/schema#",
          "draft2019-09": "https://json-schema.org/draft/2019-09/schema", "draft2020-12": "https://json-schema.org/draft/2020-12/schema"}
OPTIONAL = {"ecmascript-regex.json", "non-bmp-regex.json", "dependencies-compatibility.json", "float-overflow.json", "unknownKeyword.json", "id.json", "anchor.json", "dynamicRef.json", "refOfUnknownKeyword.json"}
LEFT_OUT = {"vocabulary.json": "other vocabularies", "refRemote.json": "other documents", "infinite-loop-detection.json": None}


def walk(s, base, ids, refs):
    """Identifiers of the document's schemas and what its references name, both absolute."""
    if isinstance(s, list):
        for x in s:
            walk(x, base, ids, refs)
    if not isinstance(s, dict):
        return
    own = s.get("$id", s.get("id"))
    if isinstance(own, str):
        base = urljoin(base, own).split("#")[0]
        ids.add(base)
    refs.update(urljoin(base, v).split("#")[0] for k, v in s.items() if k in ("$ref", "$dynamicRef") and isinstance(v, str) and v.split("#")[0])
    for k, v in s.items():
        if k not in ("enum", "const"):
            walk(v, base, ids, refs)


def refers_out(schema):
    """Whether some reference names a document that the schema does not hold."""
    ids, refs = {""}, set()
    walk(schema, "", ids, refs)
    return bool(refs - ids)


def too_large(v):
    if isinstance(v, (list, dict)):
        return any(too_large(x) for x in (v.values() if isinstance(v, dict) else v))
    return isinstance(v, int) and not isinstance(v, bool) and not -2**63 <= v < 2**63 or v in (float("inf"), float("-inf"))


def with_draft(schema, uri):
    return dict(schema, **{"$schema": uri}) if isinstance(schema, dict) and "$schema" not in schema and "$ref" not in schema else schema


def run(draft):
    folder = os.path.join(SUITE, draft)
    if not os.path.isdir(folder):
        skip(f"{folder} is missing: scripts/fetch-vectors.sh")
    cases, out = [], []
    for path in sorted(glob.glob(folder + "/*.json") + glob.glob(folder + "/optional/*.json")):
        name = os.path.basename(path)
        if LEFT_OUT.get(name) or ("/optional/" in path and name not in OPTIONAL):
            out.append(name)
            continue
        for group in json.load(open(path, encoding="utf-8")):
            tests = [t for t in group["tests"] if not too_large(t["data"])]
            if refers_out(group["schema"]) or too_large(group["schema"]):
                out.append(f"{name}: {group['description']}")
            elif tests:
                cases.append((name, group, tests))
    text = "".join(json.dumps({"schema": with_draft(g["schema"], DRAFTS[draft]), "values": [t["data"] for t in tests]}) + "\n" for _, g, tests in cases)
    p = subprocess.run([os.path.join(BUILD, "tests/tools/schema_check")], input=text.encode(), stdout=subprocess.PIPE, check=True)
    got, n, bad = [json.loads(x) for x in p.stdout.decode().splitlines()], 0, []
    eq(len(got), len(cases), "answers")
    for (name, group, tests), g in zip(cases, got):
        for t, ok, why in zip(tests, g["valid"], g["why"]):
            n += 1
            if ok != t["valid"]:
                bad.append(f"{name}: {group['description']}: {t['description']}: {ok} ({why})")
    print(f"    {n} instances of {len(cases)} schemas; {len(out)} left out")
    for b in bad[:40]:
        print("    " + b)
    return bad


for d in DRAFTS:
    add_test(f"schema_check/agrees_with_the_suite_{d}", lambda d=d: eq(run(d), [], "disagreements"), 60)

main()
