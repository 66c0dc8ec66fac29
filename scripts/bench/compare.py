#!/usr/bin/env python3
"""Two servers under the same load, in turns, and the ratio of every pair of rounds.

    compare.py --ours 'CMD' [--peer 'CMD'] [--conc 1,8,32] [--rounds 3] [--per 2] [--words 100] [--max-tokens 64] [--shared 0]
               [--base 0] [--ours-port N] [--peer-port N] [--ours-model m] [--peer-model m] [--wait 600] [--title T]
               [--peer-name llama-server] [--peer-threads 1,2]

In each round one server is started, waited for (/health), warmed with one request, loaded at every concurrency and stopped; then
the other one; the order changes from round to round. So both meet the same states of the machine, and only one
runs at a time. What counts is the median ratio with its spread (lowest..highest of the rounds); a spread across 1 says that the
runs cannot tell the two apart. `{port}` in a command is filled in. With --peer-threads the peer's command holds `{t}`: every number
is tried once at the highest concurrency before the rounds, and the one with more output goes on. Without --peer: ours alone.
"""
import argparse

from common import Load, Server, ratio, say, spread, table

FIGURES = (("out_tok_s", "output tokens/s"), ("total_tok_s", "prompt and output tokens/s"), ("ttft_p50_ms", "TTFT p50, ms"),
           ("ttft_p99_ms", "TTFT p99, ms"), ("itl_p50_ms", "gap p50, ms"), ("itl_p99_ms", "gap p99, ms"))
SIDES = ("ours", "peer")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for side in SIDES:
        p.add_argument(f"--{side}", required=side == "ours", help="command line that serves in the foreground")
        p.add_argument(f"--{side}-port", type=int, default=0)
        p.add_argument(f"--{side}-model", default="m")
    for name, default in (("conc", "1,8,32"), ("title", "model"), ("peer-name", "peer"), ("peer-threads", "")):
        p.add_argument("--" + name, default=default)
    for name, default in (("rounds", 3), ("per", 2), ("words", 100), ("max-tokens", 64), ("shared", 0), ("base", 0), ("wait", 600)):
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()
    a.conc = [int(x) for x in a.conc.split(",")]
    return a


class Side:
    """One of the two, started anew for every round."""

    def __init__(self, a, side, command=None):
        self.a, self.side, self.command = a, side, command or getattr(a, side)

    def __enter__(self):
        self.server = Server(self.command, self.side, getattr(self.a, self.side + "_port") or None, self.a.wait)
        self.load(1, 1, self.a.base + 900_000)
        return self

    def __exit__(self, *_):
        self.server.stop()

    def load(self, conc, n, base):
        a = self.a
        return self.server.load("--model", getattr(a, self.side + "_model"), "--conc", conc, "--n", n, "--words", a.words, "--max-tokens", a.max_tokens,
                                "--shared", a.shared, "--base", base)


def one_round(a, side, base):
    """{"ready": s, "peak": MiB, conc: figures}"""
    say(f"{a.title}, {side}")
    with Side(a, side) as s:
        got = {c: s.load(c, max(2, c * a.per), base + 10_000 * (i + 1)) for i, c in enumerate(a.conc)}
        return {"ready": s.server.ready, "peak": s.server.peak_mib(), **got}


def best_threads(a):
    """Settles the peer's command."""
    most, rates = max(a.conc), {}
    for t in [x for x in a.peer_threads.split(",") if x]:
        with Side(a, "peer", a.peer.replace("{t}", t)) as s:
            rates[t] = s.load(most, most, a.base)["out_tok_s"]
        say(f"{a.title}, {a.peer_name} with {t} threads: {rates[t]} tokens/s at {most} clients")
    if rates:
        best = max(rates, key=rates.get)
        a.peer, a.peer_name = a.peer.replace("{t}", best), f"{a.peer_name} -t {best}"


def main():
    a = arguments()
    sides = SIDES if a.peer else SIDES[:1]
    got = {s: [] for s in sides}
    with Load():
        if a.peer:
            best_threads(a)
        for r in range(a.rounds):
            for side in sides if r % 2 == 0 else sides[::-1]:
                got[side].append(one_round(a, side, a.base + 1_000_000 * (r + 1)))
        rows = []
        for c in a.conc:
            for key, what in FIGURES:
                values = {s: [x[c][key] or 0 for x in got[s]] for s in sides}
                rows.append([a.title, c, what, *map(spread, values.values())] + ([ratio(*values.values())] if a.peer else []))
        for key, what in (("peak", "peak memory, MiB"), ("ready", "ready after, s")):
            values = {s: [x[key] for x in got[s]] for s in sides}
            rows.append([a.title, "", what, *map(spread, values.values())] + ([ratio(*values.values())] if a.peer else []))
        table(["model", "clients", "figure", "Quern"] + ([a.peer_name, "ratio"] if a.peer else []), rows)


if __name__ == "__main__":
    main()
