#!/usr/bin/env python3
"""What a shared prefix saves: TTFT of a second request with the same first 2,000 tokens, over that of the first.

    prefix.py --port 8080 --model M [--tokens 2000] [--tail 20] [--rounds 7] [--together 4]

Each round invents a prefix that the server has never seen, asks for one token behind it (cold), then again with another tail of
--tail tokens (warm); all else is idle. Then --together requests with one more fresh prefix start at once, each with its own tail:
were nothing shared between them, the last one's TTFT would be that many times the cold one's. Prints medians, the median of the
rounds' ratios and its spread.
"""
import argparse, asyncio, json, random, re, statistics, time

from load import PROMPT, WORDS

CACHED = re.compile(rb'"cached_tokens":\s*(\d+)')


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("host", "127.0.0.1"), ("port", 8080), ("model", "m"), ("tokens", 2000), ("tail", 20), ("rounds", 7), ("together", 4)):
        p.add_argument("--" + name, default=default, type=type(default))
    return p.parse_args()


async def ask(a, text):
    """TTFT in seconds, prompt tokens, cached tokens."""
    body = json.dumps({"model": a.model, "prompt": text, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 1,
                       "ignore_eos": True, "temperature": 0}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {a.host}:{a.port}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    begin, first, reply = time.perf_counter(), None, b""
    reader, writer = await asyncio.open_connection(a.host, a.port)
    writer.write(head.encode() + body)
    while piece := await reader.read(65536):
        reply += piece
        if first is None and b'"text"' in reply:
            first = time.perf_counter() - begin
    writer.close()
    if first is None or not reply.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"no token: {reply[:400]!r}")
    asked, cached = PROMPT.findall(reply), CACHED.findall(reply)
    return first, int(asked[-1]) if asked else 0, int(cached[-1]) if cached else 0


def words(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


async def main():
    a = arguments()
    fresh = random.Random(time.time_ns())
    sample = words(fresh, 200)
    _, n, _ = await ask(a, sample)
    per_word = n / 200
    head, tail = round(a.tokens / per_word), max(1, round(a.tail / per_word))
    cold, warm, ratio, burst, hit = [], [], [], [], []
    for _ in range(a.rounds):
        prefix = words(fresh, head)
        t1, n1, _ = await ask(a, prefix + " " + words(fresh, tail))
        t2, _, c2 = await ask(a, prefix + " " + words(fresh, tail))
        cold.append(t1), warm.append(t2), ratio.append(t2 / t1), hit.append(c2)
        prefix = words(fresh, head)
        all_at_once = await asyncio.gather(*(ask(a, prefix + " " + words(fresh, tail)) for _ in range(a.together)))
        burst.append(max(t for t, _, _ in all_at_once) / t1)
    mid = statistics.median
    print(f"{n1} tokens, {mid(hit):.0f} of them found: TTFT {1e3 * mid(cold):.1f} ms cold, {1e3 * mid(warm):.1f} ms warm, "
          f"ratio {mid(ratio):.3f} ({min(ratio):.3f}..{max(ratio):.3f}), {a.rounds} rounds")
    print(f"{a.together} at once with one fresh prefix: the last TTFT over a cold one {mid(burst):.2f} ({min(burst):.2f}..{max(burst):.2f})")


if __name__ == "__main__":
    asyncio.run(main())
