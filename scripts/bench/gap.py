#!/usr/bin/env python3
"""What running streams feel while a long prompt arrives: their p99 gap during its prefill over their median gap before it.

    gap.py --port 8080 --model M [--streams 8] [--prompt 4000] [--settle 2] [--rounds 5]

Each round starts --streams streamed completions and lets them run for --settle seconds; then one more client sends a prompt of
--prompt tokens that the server has never seen. A gap is the time between two reads of a stream that brought text, as a client
sees it; several tokens in one read are one event, however many. Before: gaps of the --settle seconds but the first quarter.
During: gaps that end after the long prompt was sent and before its first token. A gap that is still open when the first token
comes counts with its length so far. Prints the median of the rounds' ratios, their spread, and tokens an event (merging would
hide gaps, so it is shown).
"""
import argparse, asyncio, json, random, statistics, sys, time

from load import PROMPT, WORDS

MARK = b'"text":"'


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("host", "127.0.0.1"), ("port", 8080), ("model", "m"), ("streams", 8), ("prompt", 4000), ("settle", 2.0), ("rounds", 5)):
        p.add_argument("--" + name, default=default, type=type(default))
    return p.parse_args()


async def open_stream(a, text, n):
    body = json.dumps({"model": a.model, "prompt": text, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": n,
                       "ignore_eos": True, "temperature": 0.8, "seed": 1}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {a.host}:{a.port}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection(a.host, a.port)
    writer.write(head.encode() + body)
    return reader, writer


class Stream:
    def __init__(self):
        self.at, self.events, self.reply = [], 0, b""

    async def run(self, a, text, n):
        reader, writer = await open_stream(a, text, n)
        try:
            while piece := await reader.read(65536):
                self.reply = (self.reply + piece)[-4096:]
                if MARK in piece:
                    self.at.append(time.perf_counter())
                    self.events += piece.count(MARK)
        finally:
            writer.close()


def words(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def p99(values):
    v = sorted(values)
    return v[max(0, -(-99 * len(v) // 100) - 1)]


async def one_round(a, rng, per_word):
    streams = [Stream() for _ in range(a.streams)]
    tasks = [asyncio.create_task(s.run(a, words(rng, 20), 3000)) for s in streams]
    while not all(s.at for s in streams):
        if any(t.done() for t in tasks):
            sys.exit(f"a stream ended: {streams[[t.done() for t in tasks].index(True)].reply[:300]!r}")
        await asyncio.sleep(0.01)
    begin = time.perf_counter()
    await asyncio.sleep(a.settle)
    sent, long = time.perf_counter(), Stream()
    task = asyncio.create_task(long.run(a, words(rng, round(a.prompt / per_word)), 1))
    while not long.at:
        if task.done():
            sys.exit(f"no token for the long prompt: {long.reply[:300]!r}")
        await asyncio.sleep(0.002)
    end = long.at[0]
    await task
    if any(t.done() for t in tasks):
        sys.exit("a stream ended before the long prompt was done: its gaps are missing")
    for t in tasks:
        t.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    before, during = [], []
    for s in streams:
        for x, y in zip(s.at, s.at[1:]):
            if begin + a.settle / 4 <= x and y <= sent:
                before.append(y - x)
            elif y > sent and x < end:
                during.append(min(y, end) - x if y > end else y - x)
        if s.at[-1] < end:
            during.append(end - s.at[-1])
    await asyncio.sleep(0.3)  # the server notices that they are gone
    n = int(PROMPT.findall(long.reply)[-1])
    return {"n": n, "ttft": end - sent, "before": statistics.median(before), "p99": p99(during), "max": max(during), "before_p99": p99(before)}


async def main():
    a = arguments()
    rng = random.Random(time.time_ns())
    probe = Stream()
    await probe.run(a, words(rng, 200), 1)
    per_word = int(PROMPT.findall(probe.reply)[-1]) / 200
    got = []
    for i in range(a.rounds):
        r = await one_round(a, rng, per_word)
        got.append(r)
        print(f"round {i}: {r['n']} tokens, TTFT {r['ttft']:.2f} s; gaps before {1e3 * r['before']:.1f} ms median, {1e3 * r['before_p99']:.1f} p99; "
              f"during {1e3 * r['p99']:.1f} p99, {1e3 * r['max']:.1f} longest; ratio {r['p99'] / r['before']:.2f}", file=sys.stderr)
    q = [r["p99"] / r["before"] for r in got]
    own = [r["before_p99"] / r["before"] for r in got]
    print(f"p99 gap of {a.streams} streams during a prefill of {got[0]['n']} tokens over their median before: {statistics.median(q):.2f} "
          f"({min(q):.2f}..{max(q):.2f}); before it p99 over median was {statistics.median(own):.2f}; TTFT {statistics.median(r['ttft'] for r in got):.2f} s, {a.rounds} rounds")


if __name__ == "__main__":
    asyncio.run(main())
