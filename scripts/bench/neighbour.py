#!/usr/bin/env python3
"""What a busy neighbour costs: throughput of a server with one other process spinning on the same cores, over the quiet run.

    neighbour.py --ours 'CMD' [--ours-port 8080] [--peer 'CMD' --peer-port 9001] [--cases decode1,decode8,clients32]
                 [--states free,pinned] [--rounds 3] [--core 1] [--scale 1.0] [--markdown]

In each round the server is started, warmed, and every case is run in every state one after the other: quiet, `free` (the neighbour
may run on any core), `pinned` (it sits on --core). So the states of a case are seconds apart and meet the same machine; their order turns
from round to round. A figure is the ratio busy/quiet of one round; what counts is the median of the rounds, with its spread.
With one spinning process on two cores a fair kernel leaves us three quarters of the machine; a server whose threads wait
for each other keeps less. With --peer the other server goes through the same, in turns with ours.

--neighbours N starts N of them, --scale 0.3 shortens every case. The load generator runs on the same machine in all states.
"""
import argparse, os, statistics, subprocess, sys, time

from common import Server

CASES = {  # clients, requests, words of the prompt, tokens out
    "decode1": (1, 3, 20, 256), "decode8": (8, 8, 20, 256), "clients32": (32, 64, 100, 64),
}
SPIN = "while True: pass"


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for side, port, must in (("ours", 8080, True), ("peer", 9001, False)):
        p.add_argument(f"--{side}", required=must, help="command line that serves in the foreground")
        p.add_argument(f"--{side}-port", type=int, default=port)
        p.add_argument(f"--{side}-model", default="m")
    p.add_argument("--cases", default=",".join(CASES))
    p.add_argument("--states", default="free,pinned")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    p.add_argument("--neighbours", type=int, default=1)
    p.add_argument("--scale", type=float, default=1.0)
    p.add_argument("--wait", type=int, default=300)
    p.add_argument("--markdown", action="store_true")
    a = p.parse_args()
    a.cases = a.cases.split(",")
    a.states = ["quiet"] + [s for s in a.states.split(",") if s != "quiet"]
    for what, known in ((a.cases, CASES), (a.states, ("quiet", "free", "pinned"))):
        for x in what:
            if x not in known:
                p.error(f"'{x}' is not one of {', '.join(known)}")
    return a


class Neighbours:
    """Processes that compute and never sleep, while the block lasts."""

    def __init__(self, a, state):
        self.n, self.core = (0 if state == "quiet" else a.neighbours), a.core if state == "pinned" else None

    def __enter__(self):
        self.procs = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(self.n)]
        for p in self.procs:
            if self.core is not None:
                os.sched_setaffinity(p.pid, {self.core})
        time.sleep(0.3)

    def __exit__(self, *_):
        for p in self.procs:
            p.kill()
            p.wait()


class Loaded(Server):
    def __init__(self, a, side):
        super().__init__(getattr(a, side), side, getattr(a, side + "_port"), a.wait)
        self.a, self.base = a, int(time.time()) % 1_000_000 * 1000

    def case(self, case):
        """Output tokens a second."""
        conc, n, words, tokens = CASES[case]
        n, tokens = max(conc, round(n * min(1, self.a.scale * 2))), max(8, round(tokens * self.a.scale))
        figures = self.load("--model", getattr(self.a, self.name + "_model"), "--conc", conc, "--n", n, "--words", words, "--max-tokens", tokens,
                            "--base", self.base)
        self.base += n
        return figures["out_tok_s"]


def one_round(a, side, turn):
    """{(case, state): output tokens a second}"""
    print(f"  {side}: load average {os.getloadavg()[0]:.1f} before", file=sys.stderr, flush=True)
    got = {}
    with Loaded(a, side) as server:
        server.case("decode1")
        for case in a.cases:
            for i in range(len(a.states)):
                state = a.states[(i + turn) % len(a.states)]
                with Neighbours(a, state):
                    got[case, state] = server.case(case)
                time.sleep(0.3)
    return got


def main():
    a = arguments()
    sides = ["ours"] + (["peer"] if a.peer else [])
    rounds = {s: [] for s in sides}
    for r in range(a.rounds):
        for side in sides if r % 2 == 0 else sides[::-1]:
            rounds[side].append(one_round(a, side, r))
    if a.markdown:
        print("| server | case | quiet tok/s | " + " | ".join(f"{s} tok/s | ratio (spread)" for s in a.states[1:]) + " |")
        print("|---" * (3 + 2 * len(a.states[1:])) + "|")
    for side in sides:
        for case in a.cases:
            of = lambda state: [g[case, state] for g in rounds[side]]
            cells = []
            for state in a.states[1:]:
                q = [b / q for b, q in zip(of(state), of("quiet"))]
                cells += [f"{statistics.median(of(state)):.1f}", f"{statistics.median(q):.2f} ({min(q):.2f}..{max(q):.2f})"]
            quiet = f"{statistics.median(of('quiet')):.1f}"
            if a.markdown:
                print(f"| {side} | {case} | {quiet} | " + " | ".join(cells) + " |")
            else:
                pairs = "  ".join(f"{s} {cells[2 * i]:>7s} ratio {cells[2 * i + 1]}" for i, s in enumerate(a.states[1:]))
                print(f"{side:5s} {case:10s} quiet {quiet:>7s}  {pairs}")


if __name__ == "__main__":
    main()
