#!/usr/bin/env python3
"""Loads one OpenAI-style server with streamed chat completions and prints one JSON line of figures.

    load.py --port 8080 --model M --conc 8 --n 32 --words 100 --max-tokens 64
            [--host H] [--unix PATH] [--key K] [--shared K] [--base B] [--temperature T] [--details]

conc clients send n requests in all; each asks for exactly max-tokens tokens (ignore_eos). --shared K gives every prompt the
same first K words (prefix cache); the rest of the words depend on the request's number plus --base, so two runs with other
bases share nothing. The client reads bytes and looks for marks in them: no JSON, no HTTP library, so that on a machine
of two cores it measures the server and not itself. It decodes a reply's last event only, for the usage.

Keys: conc, n, failed, s (whole run), out_tok_s, total_tok_s, ttft_p50_ms, ttft_p99_ms, itl_p50_ms, itl_p99_ms (gaps between
events that carry text), e2e_p50_ms, tokens, prompt_tokens, events. A server that sends fewer events than tokens merged some: then
the gap of an event stands for several tokens. --details adds the TTFT of every request, in order.
"""
import argparse, asyncio, json, random, re, sys, time

WORDS = """amber anchor apple arrow autumn barley basket beacon bridge bronze candle canvas castle cedar chalk cherry cliff clover
cobalt copper coral cotton cradle crystal dagger dawn desert dragon drum eagle ember engine falcon feather fern fiddle forest
fountain fox garden ginger glacier granite hammer harbor harvest hazel heron honey island ivory jasper kettle ladder lantern
lemon lily linen lion maple marble meadow mirror morning nectar needle oak ocean olive orchard otter oyster paper pearl pebble
pepper pine planet plum prairie quartz quill rabbit raven ribbon river robin rose saddle saffron sail salmon sand shadow silver
spruce stone storm sugar summer swan temple thistle thunder tiger timber tulip valley velvet violet walnut willow winter wolf""".split()
USAGE = re.compile(rb'"completion_tokens":\s*(\d+)')
PROMPT = re.compile(rb'"prompt_tokens":\s*(\d+)')
TEXT = (b'"content":"', b'"content": "', b'"reasoning_content":"', b'"reasoning":"')


def prompt(number, words, shared):
    same, own = random.Random("shared"), random.Random(f"request {number}")
    picked = [same.choice(WORDS) for _ in range(min(shared, words))] + [own.choice(WORDS) for _ in range(max(0, words - shared))]
    return "Go on with this list of words: " + " ".join(picked)


class Totals:
    def __init__(self):
        self.ttft, self.gaps, self.whole = {}, [], []
        self.tokens = self.prompt_tokens = self.events = self.failed = 0
        self.why = None


async def request(a, number, t):
    body = json.dumps({
        "model": a.model, "messages": [{"role": "user", "content": prompt(number, a.words, a.shared)}], "stream": True,
        "stream_options": {"include_usage": True}, "max_tokens": a.max_tokens, "ignore_eos": True, "temperature": a.temperature,
        "seed": number}).encode()
    head = [f"POST {a.path} HTTP/1.1", f"Host: {a.host}:{a.port}", "Content-Type: application/json", "Connection: close",
            f"Content-Length: {len(body)}"] + ([f"Authorization: Bearer {a.key}"] if a.key else [])
    begin = time.perf_counter()
    try:
        reader, writer = await (asyncio.open_unix_connection(a.unix) if a.unix else asyncio.open_connection(a.host, a.port))
    except OSError as e:
        t.failed, t.why = t.failed + 1, str(e)
        return
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
    carry, tail, last, first, events = b"", b"", 0.0, None, 0
    try:
        while piece := await reader.read(65536):
            now = time.perf_counter()
            if not tail and not piece.startswith(b"HTTP/1.1 200"):
                t.why = piece[:300].decode(errors="replace")
                break
            # Whole lines only: a mark that is cut by a read is found with the next one.
            block, cut, rest = (carry + piece).rpartition(b"\n")
            carry = rest if cut else carry + piece
            found = sum(block.count(m) for m in TEXT) - block.count(b'"content":""') - block.count(b'"content": ""')
            if found > 0:
                if first is None:
                    first = now
                    t.ttft[number] = now - begin
                else:
                    t.gaps.append(now - last)
                t.gaps += [0.0] * (found - 1)  # they came together
                last, events = now, events + found
            tail = (tail + piece)[-4096:]
    except OSError as e:
        t.why = str(e)
    writer.close()
    used = USAGE.findall(tail)
    if first is None or (b"[DONE]" not in tail and not used):
        t.failed += 1
        return
    asked = PROMPT.findall(tail)
    t.whole.append(time.perf_counter() - begin)
    t.tokens += int(used[-1]) if used else events
    t.prompt_tokens += int(asked[-1]) if asked else 0
    t.events += events


async def run(a):
    numbers, t = iter(range(a.base, a.base + a.n)), Totals()

    async def client():
        for number in numbers:  # one iterator for all: each number is taken once
            await request(a, number, t)

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(a.conc)))
    return t, time.perf_counter() - begin


def at(values, share):
    """Nearest-rank percentile in milliseconds."""
    v = sorted(values)
    return round(1e3 * v[max(0, min(len(v) - 1, -(-int(share * 1000) * len(v) // 1000) - 1))], 2) if v else None


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("host", "127.0.0.1"), ("port", 8080), ("unix", ""), ("path", "/v1/chat/completions"), ("model", "m"), ("key", ""), ("conc", 8),
                          ("n", 32), ("words", 100), ("max-tokens", 64), ("shared", 0), ("base", 0), ("temperature", 0.0)):
        p.add_argument("--" + name, default=default, type=type(default))
    p.add_argument("--details", action="store_true")
    a = p.parse_args()
    t, s = asyncio.run(run(a))
    out = {"conc": a.conc, "n": a.n, "failed": t.failed, "s": round(s, 2), "out_tok_s": round(t.tokens / s, 1),
           "total_tok_s": round((t.tokens + t.prompt_tokens) / s, 1), "ttft_p50_ms": at(t.ttft.values(), .5),
           "ttft_p99_ms": at(t.ttft.values(), .99), "itl_p50_ms": at(t.gaps, .5), "itl_p99_ms": at(t.gaps, .99),
           "e2e_p50_ms": at(t.whole, .5), "tokens": t.tokens, "prompt_tokens": t.prompt_tokens, "events": t.events}
    if a.details:
        out["ttft_ms"] = [round(1e3 * t.ttft[i], 1) if i in t.ttft else None for i in range(a.base, a.base + a.n)]
    print(json.dumps(out))
    if t.failed:
        print(f"load: {t.failed} of {a.n} failed; last: {t.why}", file=sys.stderr)


if __name__ == "__main__":
    main()
