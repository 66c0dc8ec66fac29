#!/usr/bin/env python3
"""Does a majority of samples answer better than the greedy answer, and what do its branches cost?

    python3 tests/bench/vote.py [--model NAME] [--questions 100] [--samples 8] [--temperature 0.7] [--threads N] [--clients 4]

Asks a seeded set of word problems of two and three steps, each once greedily and once with quern.samples; prints accuracy, mean
agreement and tokens of both; then the processor time of a prompt of about 1,000 tokens with one branch and with all (one token
each, no prefix cache), the least of five. Processor time, since a machine that is shared says little by its clock. Not a test: it takes half an hour.
"""
import argparse, concurrent.futures, json, os, random, re, sys, time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from qtest import Daemon

NAMES = ["Ana", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas"]
THINGS = ["apples", "pencils", "stickers", "marbles", "books", "coins", "cards", "eggs"]


def problem(rng):
    a, b, t = rng.sample(NAMES, 2) + [rng.choice(THINGS)]
    x, y, z, k = rng.randint(12, 60), rng.randint(3, 11), rng.randint(2, 9), rng.randint(2, 6)
    kind = rng.randrange(6)
    if kind == 0:
        return f"{a} has {x} {t}. {b} gives {a} {k} bags with {y} {t} each. How many {t} does {a} have now?", x + k * y
    if kind == 1:
        return f"{a} buys {k} boxes of {t} with {x} {t} in each box. {a} gives away {y} {t} and then loses {z}. How many {t} are left?", k * x - y - z
    if kind == 2:
        return f"A shop sells {t} for {y} dollars each. {a} buys {k} of them and {b} buys {z} of them. How many dollars do they pay together?", y * (k + z)
    if kind == 3:
        return f"{a} has {x} {t}. {b} has {k} times as many. How many {t} do they have together after {b} gives {y} to a friend?", x + k * x - y
    if kind == 4:
        return f"{a} reads {y} pages a day for {k} days and then {z} pages a day for {x} days. How many pages is that in all?", y * k + z * x
    n = k * y * z
    return f"{n} {t} are packed into bags of {y}. The bags are shared equally by {k} friends, and each friend buys {z} more bags. How many bags has each friend?", n // y // k + z


def said(text):
    """The final number, by rules of our own here, so that the daemon's are not what judges it."""
    boxed = re.findall(r"\\boxed\{([^{}]*)\}", text)
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", boxed[-1] if boxed and re.search(r"\d", boxed[-1]) else text)
    return float(numbers[-1].replace(",", "")) if numbers else None


def ask(d, question, seed, more):
    body = {"messages": [{"role": "user", "content": question + " Work it out in one short line for each step and end with: The answer is N."}], "max_tokens": 320, "seed": seed, **more}
    r = d.request("POST", "/v1/chat/completions", body, timeout=1800)
    assert r.status == 200, r.text
    return r.json()


def accuracy(d, problems, clients, what, more):
    t0 = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        got = list(pool.map(lambda p: ask(d, p[1][0], p[0] + 1, more), enumerate(problems)))
    right = sum(said(r["choices"][0]["message"]["content"]) == want for r, (_, want) in zip(got, problems))
    tokens = sum(r["usage"]["completion_tokens"] for r in got)
    agree = [r["quern"]["agreement"] for r in got if "quern" in r]
    cut = sum(r["choices"][0]["finish_reason"] == "length" for r in got)
    line = f"{what}: {right} of {len(problems)} right, {cut} cut off, {tokens} tokens, {time.monotonic() - t0:.0f} s"
    print(line + (f", mean agreement {sum(agree) / len(agree):.2f}" if agree else ""), flush=True)
    return right


def cpu_seconds(d):
    fields = open(f"/proc/{d.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prefill(d, branches):
    best = 1e9
    for i in range(5):
        ids = [(7 * k + i) % 5000 + 1000 for k in range(1000)]
        t0 = cpu_seconds(d)
        r = d.request("POST", "/v1/completions", {"prompt": ids, "max_tokens": 1, "cache_prompt": False, "temperature": 1, "seed": 1, "quern": {"samples": branches}}, timeout=600)
        assert r.status == 200, r.text
        best = min(best, cpu_seconds(d) - t0)
    return best


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", default="qwen2.5-coder-1.5b-instruct-q4_k_m")
    p.add_argument("--questions", type=int, default=100)
    p.add_argument("--samples", type=int, default=8)
    p.add_argument("--temperature", type=float, default=0.7)
    p.add_argument("--clients", type=int, default=4)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--no-prefill", action="store_true")
    o = p.parse_args()
    rng = random.Random(20261124)
    problems = [problem(rng) for _ in range(o.questions)]
    flags = ["--ctx", "2048"] + (["--threads", str(o.threads)] if o.threads else [])
    with Daemon(model=o.model, flags=flags) as d:
        one, all_ = (0, 0) if o.no_prefill else (prefill(d, 1), prefill(d, o.samples))
        if one:
            print(f"prefill of 1,000 tokens: {one:.2f} s of processor for one branch, {all_:.2f} s for {o.samples}: {all_ / one:.3f} times", flush=True)
        accuracy(d, problems, o.clients, "greedy", {"temperature": 0})
        accuracy(d, problems, o.clients, f"majority of {o.samples}", {"temperature": o.temperature, "quern": {"samples": o.samples, "answer": "number"}})


main()
