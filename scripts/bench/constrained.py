#!/usr/bin/env python3
"""What a form costs those that run: streams with a form against streams without, and running streams while hostile forms arrive.

    constrained.py --model PATH [--part cost,bombs] [--streams 16] [--tokens 200] [--rounds 5] [--quernd "FLAGS"]

cost: --streams requests at once, each exactly --tokens long, in turns with a schema (an array of objects with more items than fit) and
without (ignore_eos), over the same prompts, in an order that changes from round to round. Tokens/s of a round are the output of all streams
over its time. What a constraint makes certain is written without sampling (jump-ahead) and comes cheaper, so the time a token is
compared twice: over all tokens, and over sampled ones only (the daemon's quern_certain_tokens_total tells them apart). A third kind
names a stop id that never comes and min_tokens, which turns jump-ahead off: the masks alone.

bombs: --streams / 2 plain streams run; after --settle seconds every form of tests/lib/bombs.py is sent, one after the other. Their p99 gap
meanwhile over their p99 gap before, and the longest wait for an answer to a bomb. Bars: a token costs at most 3 % more; gaps at most double.
"""
import argparse, asyncio, http.client, json, os, re, statistics, sys, threading, time

from common import Load, ROOT, Server, number, quernd, ratio, say, spread, table
from gap import Stream, p99

sys.path.append(os.path.join(ROOT, "tests/lib"))
from bombs import BOMBS  # noqa: E402

ITEM = {"type": "object", "properties": {"name": {"type": "string"}, "count": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}},
                                         "state": {"enum": ["open", "closed", "unknown"]}},
        "required": ["name", "count", "tags", "state"], "additionalProperties": False}
SCHEMA = {"type": "array", "minItems": 100, "items": ITEM}
UNUSED_ID = 151642  # of Qwen2's vocabulary: no text of these has it


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", required=True)
    for name, default in (("part", "cost,bombs"), ("streams", 16), ("tokens", 200), ("rounds", 5), ("settle", 4.0), ("quernd", "")):
        p.add_argument("--" + name, default=default, type=type(default))
    return p.parse_args()


def post(port, body):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    return r.status, json.loads(r.read())


def certain(port):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    c.request("GET", "/metrics")
    found = re.findall(r"^quern_certain_tokens_total\{[^}]*\} (\S+)$", c.getresponse().read().decode(), re.M)
    return sum(map(float, found))


KINDS = {"without a form": {"ignore_eos": True}, "with a schema": {"json_schema": SCHEMA},
         "with a schema, no jump-ahead": {"json_schema": SCHEMA, "min_tokens": 1, "stop_token_ids": [UNUSED_ID]}}


def one_round(a, port, more, number_of_round):
    """Tokens a second in all, and of those that were sampled."""
    made, lock = [], threading.Lock()

    def client(i):
        status, r = post(port, {"model": "m", "messages": [{"role": "user", "content": f"List {i + 3} kinds of tools and what they are for, as JSON."}],
                                "max_tokens": a.tokens, "temperature": 1, "seed": 100 * number_of_round + i, **more})
        if status != 200:
            sys.exit(f"constrained: {status} {r}")
        with lock:
            made.append(r["usage"]["completion_tokens"])

    before, begin = certain(port), time.monotonic()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(a.streams)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    s = time.monotonic() - begin
    sure = certain(port) - before
    if len(made) != a.streams or min(made) != a.tokens:
        sys.exit(f"constrained: answers of {sorted(made)} tokens, wanted {a.tokens} each")
    return sum(made) / s, (sum(made) - sure) / s, sure / sum(made)


def cost(a, server):
    got = {k: [] for k in KINDS}
    for more in KINDS.values():
        one_round(a, server.port, more, 0)  # prefixes and forms are known from here on
    for i in range(1, a.rounds + 1):
        order = list(KINDS)[i % len(KINDS):] + list(KINDS)[: i % len(KINDS)]
        for k in order:
            got[k].append(one_round(a, server.port, KINDS[k], i))
        say(f"round {i}: " + "; ".join(f"{k} {got[k][-1][0]:.0f} tok/s, {100 * got[k][-1][2]:.0f} % certain" for k in KINDS))
    plain = [x[0] for x in got["without a form"]]
    rows = [(k, spread(x[0] for x in v), spread(x[1] for x in v), f"{100 * statistics.median(x[2] for x in v):.0f} %",
             ratio(plain, [x[0] for x in v]), ratio(plain, [x[1] for x in v])) for k, v in got.items()]
    table((f"{a.streams} streams of {a.tokens} tokens", "tokens/s", "of them sampled", "certain", "time of a token, over plain", "of a sampled token"), rows)


async def bombs(a, server):
    load = argparse.Namespace(host="127.0.0.1", port=server.port, model="m")
    streams = [Stream() for _ in range(a.streams // 2)]
    tasks = [asyncio.create_task(s.run(load, f"{i} bottles of beer on the wall,", 3000)) for i, s in enumerate(streams)]
    while not all(s.at for s in streams):
        await asyncio.sleep(0.01)
    await asyncio.sleep(a.settle / 4)
    begin = time.perf_counter()
    await asyncio.sleep(a.settle)
    sent, waits = time.perf_counter(), {}
    for name, form in BOMBS:
        at = time.perf_counter()
        status, _ = await asyncio.to_thread(post, server.port, {"model": "m", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 2, **form})
        waits[name] = (time.perf_counter() - at, status)
    end = time.perf_counter()
    if any(t.done() for t in tasks):
        sys.exit("a stream ended early: its gaps are missing")
    for t in tasks:
        t.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gaps = lambda x, y: [q - p for s in streams for p, q in zip(s.at, s.at[1:]) if p >= x and q <= y]  # noqa: E731
    before, during = gaps(begin, sent), gaps(sent, end)
    refused = sum(s == 400 for _, s in waits.values())
    other = {n: s for n, (_, s) in waits.items() if s not in (200, 400)}
    worst = max(waits, key=lambda n: waits[n][0])
    slowest = max((w for w, s in waits.values() if s == 400), default=0)
    print(f"{len(waits)} hostile forms in {end - sent:.1f} s beside {len(streams)} streams: {refused} refused, the slowest after {1e3 * slowest:.0f} ms; the longest answer "
          f"{1e3 * waits[worst][0]:.0f} ms ({worst}); other statuses: {other or 'none'}.")
    print(f"p99 gap {1e3 * p99(before):.1f} ms before, {1e3 * p99(during):.1f} ms during; median {1e3 * statistics.median(before):.1f} and "
          f"{1e3 * statistics.median(during):.1f} ms; longest {1e3 * max(before):.0f} and {1e3 * max(during):.0f} ms; "
          f"ratio of p99 {number(p99(during) / p99(before))}. Peak memory {server.peak_mib():.0f} MiB.\n", flush=True)


def main():
    a = arguments()
    with Load(), Server(quernd(a.model, *a.quernd.split()), "quernd") as server:
        if "cost" in a.part:
            cost(a, server)
        for _ in range(a.rounds if "bombs" in a.part else 0):
            asyncio.run(bombs(a, server))


if __name__ == "__main__":
    main()
