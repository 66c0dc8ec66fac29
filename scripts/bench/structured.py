#!/usr/bin/env python3
"""What structured output is worth: a running quernd answers for every schema of a file, and every complete answer is judged by python-jsonschema.

    structured.py SCHEMAS --model PATH [--quernd "FLAGS"] [--seeds 2] [--greedy] [--max-tokens 400] [--concurrency 16]
                  [--temperature 1] [--first N] [--answers FILE]

SCHEMAS is lines of JSON, {"name", "schema"}, plain or gzip'ed. Each schema is asked for --seeds times at --temperature, and once more
without chance with --greedy, through /v1/chat/completions and response_format json_schema; the prompt shows the model the beginning of the
schema. An answer is one of

    refused    a 400, with its reason: the keyword at which the error points, and its message
    complete   finish_reason stop. Valid or invalid by python-jsonschema, formats asserted or not, in the draft that the schema names
    cut        finish_reason length: its text must be the beginning of some JSON (it is not judged further)
    open       finish_reason stop, and the text is no JSON: what must never happen
    error      anything else: another status, an error after the status, a connection that ends

Prints a table, the reasons of refusals, and every answer that breaks a bar: all complete answers valid, none open, no errors, refusals
below 5 % of the schemas. Exits 1 when a bar is missed. --answers keeps all of them as lines of JSON (masks.py measures on those).
Wants the package jsonschema[format-nongpl].
"""
import argparse, collections, decimal, gzip, http.client, json, math, re, sys, threading, time

import jsonschema

from common import Load, Server, quernd, say, table

REFUSED_MOST, SHOWN = 0.05, 700


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("schemas")
    p.add_argument("--model", required=True)
    for name, default in (("quernd", ""), ("seeds", 2), ("max-tokens", 400), ("concurrency", 16), ("temperature", 1.0), ("first", 0), ("answers", "")):
        p.add_argument("--" + name, default=default, type=type(default))
    p.add_argument("--greedy", action="store_true")
    return p.parse_args()


def read_lines(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as f:
        return [json.loads(line) for line in f if line.strip()]


def prompt(schema):
    return "Write one JSON value that fits this schema. Be brief.\n" + json.dumps(schema)[:SHOWN]


def ask(a, port, case):
    """The answer to one case, as a dictionary with "kind"."""
    body = {"model": "m", "messages": [{"role": "user", "content": prompt(case["schema"])}], "max_tokens": a.max_tokens,
            "temperature": case["temperature"], "seed": case["seed"],
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": case["schema"]}}}
    begin = time.monotonic()
    try:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=1200)
        c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        status, reply = r.status, json.loads(r.read())
    except (OSError, http.client.HTTPException, ValueError) as e:
        return {"kind": "error", "why": f"{type(e).__name__}: {e}", "s": time.monotonic() - begin}
    out = {"status": status, "s": time.monotonic() - begin}
    if status != 200:
        e = reply.get("error", {})
        return {**out, "kind": "refused" if status == 400 else "error", "why": e.get("message"), "param": e.get("param"), "code": e.get("code")}
    choice = reply["choices"][0]
    out |= {"text": choice["message"]["content"] or "", "tokens": reply["usage"]["completion_tokens"], "finish": choice["finish_reason"]}
    return {**out, "kind": {"stop": "complete", "length": "cut"}.get(out["finish"], "error")}


def ask_all(a, port, cases):
    todo, answers, lock = iter(list(enumerate(cases))), [None] * len(cases), threading.Lock()

    def client():
        while True:
            with lock:
                i, case = next(todo, (None, None))
            if case is None:
                return
            answers[i] = ask(a, port, case)

    threads = [threading.Thread(target=client) for _ in range(a.concurrency)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        for t in threads:
            t.join(15 / len(threads))
        done = sum(x is not None for x in answers)
        say(f"{done} of {len(cases)} answered")
    return answers


def exact(text):
    """Decimals stay decimals: in floats 145.67 is no multiple of 0.01."""
    return json.loads(text, parse_float=decimal.Decimal)


def judge(schema, answer):
    """Adds valid (formats are notes) and valid_formats (formats are asserted) to a complete answer; one that is no JSON is open."""
    try:
        value = exact(answer["text"])
    except ValueError as e:
        answer |= {"kind": "open", "why": str(e)}
        return
    schema = exact(json.dumps(schema))
    cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    for key, checker in (("valid", None), ("valid_formats", cls.FORMAT_CHECKER)):
        try:
            error = next(iter(cls(schema, format_checker=checker).iter_errors(value)), None)
        except Exception as e:  # the validator itself cannot read the schema: noted, not judged
            answer |= {key: None, "unjudged": f"{type(e).__name__}: {str(e)[:200]}"}
            continue
        answer[key] = error is None
        if error is not None:
            answer.setdefault("why", f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]} ({error.validator})")


def reason(answer):
    """A refusal without what is peculiar to its schema: the keyword at the path's end, and the message without names and numbers."""
    keyword = (answer["param"] or "").rpartition(".")[2]
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "…", answer["why"] or "")
    return keyword, re.sub(r"\d+", "n", text)


def share(n, of):
    return f"{n} ({100 * n / of:.1f} %)" if of else "0"


def report(cases, answers, n_schemas):
    kinds = collections.Counter(x["kind"] for x in answers)
    done = [x for x in answers if x["kind"] == "complete"]
    bad, bad_formats = [x for x in done if x["valid"] is False], [x for x in done if x["valid_formats"] is False]
    refused = {c["name"] for c, x in zip(cases, answers) if x["kind"] == "refused"}
    slow = sorted(x["s"] for x in answers if x["kind"] == "refused")
    table(("figure", "count"), (
        ("schemas", n_schemas), ("requests", len(cases)), ("schemas refused", share(len(refused), n_schemas)),
        ("complete", share(len(done), len(cases))), ("cut by length", share(kinds["cut"], len(cases))),
        ("complete and invalid, formats not asserted", share(len(bad), len(done))),
        ("complete and invalid, formats asserted", share(len(bad_formats), len(done))),
        ("complete, but the validator cannot read the schema", sum(x["valid"] is None for x in done)),
        ("fails open (complete, no JSON)", kinds["open"]), ("errors", kinds["error"]),
        ("tokens", sum(x.get("tokens", 0) for x in answers)),
        ("slowest refusal, ms", f"{1e3 * slow[-1]:.0f}" if slow else "-")))
    reasons = collections.Counter(reason(x) for x in answers if x["kind"] == "refused")
    if reasons:
        table(("requests refused", "keyword", "reason"), [(n, k, text) for (k, text), n in reasons.most_common()])
    return bad, bad_formats, refused, kinds


def main():
    a = arguments()
    schemas = read_lines(a.schemas)[: a.first or None]
    runs = [(a.temperature, seed) for seed in range(1, a.seeds + 1)] + [(0.0, 0)] * a.greedy
    cases = [{**s, "temperature": t, "seed": seed} for t, seed in runs for s in schemas]
    with Load(), Server(quernd(a.model, *a.quernd.split()), "quernd") as server:
        begin = time.monotonic()
        answers = ask_all(a, server.port, cases)
        say(f"{time.monotonic() - begin:.0f} s, peak {server.peak_mib():.0f} MiB, log {server.log.name}")
        alive = server.proc.poll() is None
        for c, x in zip(cases, answers):
            if x["kind"] == "complete":
                judge(c["schema"], x)
        if a.answers:
            with open(a.answers, "w") as f:
                f.writelines(json.dumps({**c, **x}) + "\n" for c, x in zip(cases, answers))
        bad, bad_formats, refused, kinds = report(cases, answers, len(schemas))
    for c, x in zip(cases, answers):
        if x["kind"] in ("open", "error") or x.get("valid_formats") is False:
            say(f"{c['name']} seed {c['seed']}: {x['kind']}: {x.get('why')}: {x.get('text', '')[:300]}")
    missed = [name for name, broken in (("answers invalid", bad_formats or bad), ("fails open", kinds["open"]), ("errors", kinds["error"]),
                                        ("too many refusals", len(refused) >= math.ceil(REFUSED_MOST * len(schemas))), ("the daemon died", not alive)) if broken]
    print("bars: " + ("; ".join(missed) + ": missed" if missed else "all met"), flush=True)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
