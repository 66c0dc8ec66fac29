#!/usr/bin/env python3
"""Two servers under the same load, in turns, and the ratio of every pair of rounds.

    compare.py --ours 'CMD' --ours-port 8080 --peer 'CMD' --peer-port 9001 [--conc 1,8,32] [--rounds 3] [--per 2]
               [--words 100] [--max-tokens 64] [--shared 0] [--base 0] [--ours-model M] [--peer-model M] [--wait 300]
               [--markdown]

In each round one server is started, waited for (/health), warmed with one request, loaded at every concurrency and stopped; then
the other one; the order changes from round to round. So both meet the same states of the machine, and only one
runs at a time. What counts is the median ratio with its spread (lowest..highest of the rounds); a spread across 1 says that the
runs cannot tell the two apart. The machine's load before each round is printed, because figures of a busy one mean little.
"""
import argparse, json, os, shlex, signal, statistics, subprocess, sys, tempfile, time, urllib.error, urllib.request

LOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "load.py")
KEYS = ("out_tok_s", "total_tok_s", "ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms", "failed")
SIDES = ("ours", "peer")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for side, port in (("ours", 8080), ("peer", 9001)):
        p.add_argument(f"--{side}", required=True, help="command line that serves in the foreground")
        p.add_argument(f"--{side}-port", type=int, default=port)
        p.add_argument(f"--{side}-model", default="m")
    p.add_argument("--conc", default="1,8,32")
    for name, default in (("rounds", 3), ("per", 2), ("words", 100), ("max-tokens", 64), ("shared", 0), ("base", 0), ("wait", 300)):
        p.add_argument("--" + name, type=int, default=default)
    p.add_argument("--markdown", action="store_true", help="a table for a document")
    a = p.parse_args()
    a.conc = [int(x) for x in a.conc.split(",")]
    return a


def load(a, side, conc, n, base):
    r = subprocess.run([sys.executable, LOAD, "--port", str(getattr(a, side + "_port")), "--model", getattr(a, side + "_model"), "--conc", str(conc),
                        "--n", str(n), "--words", str(a.words), "--max-tokens", str(a.max_tokens), "--shared", str(a.shared), "--base", str(base)],
                       capture_output=True, text=True, timeout=3600)
    if r.returncode:
        sys.exit(f"load.py against {side}: {r.stderr}")
    if r.stderr:
        print(f"{side}: {r.stderr.strip()}", file=sys.stderr)
    return json.loads(r.stdout)


class Server:
    def __init__(self, a, side):
        self.side, self.url = side, f"http://127.0.0.1:{getattr(a, side + '_port')}/health"
        if self.answers():
            sys.exit(f"something answers at {self.url} already")
        self.log = tempfile.NamedTemporaryFile("w+", prefix=f"compare-{side}-", suffix=".log", delete=False)
        begin = time.monotonic()
        self.proc = subprocess.Popen(shlex.split(getattr(a, side)), stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, start_new_session=True)
        while not self.answers():
            if self.proc.poll() is not None or time.monotonic() - begin > a.wait:
                self.stop()
                sys.exit(f"{side} does not serve: see {self.log.name}")
            time.sleep(0.02)
        self.ready = time.monotonic() - begin

    def answers(self):
        try:
            return urllib.request.urlopen(self.url, timeout=2).status == 200
        except (OSError, urllib.error.URLError):
            return False

    def peak_mib(self):
        try:
            with open(f"/proc/{self.proc.pid}/status") as f:
                return next(int(x.split()[1]) for x in f if x.startswith("VmHWM")) / 1024
        except (OSError, StopIteration):
            return 0.0

    def stop(self):
        for sig, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
            if self.proc.poll() is None:
                os.killpg(self.proc.pid, sig)
                try:
                    self.proc.wait(patience)
                except subprocess.TimeoutExpired:
                    continue
        self.log.close()


def one_round(a, side, base):
    """{"ready": s, "peak": MiB, conc: figures}"""
    print(f"  {side}: load average {os.getloadavg()[0]:.1f} before", file=sys.stderr, flush=True)
    server = Server(a, side)
    try:
        load(a, side, 1, 1, base + 900_000)
        got = {c: load(a, side, c, max(2, c * a.per), base + 10_000 * (i + 1)) for i, c in enumerate(a.conc)}
        return {"ready": server.ready, "peak": server.peak_mib(), **got}
    finally:
        server.stop()


def ratios(ours, peer):
    r = [o / p for o, p in zip(ours, peer) if p]
    return (statistics.median(r), min(r), max(r)) if r else None


def main():
    a = arguments()
    got = {s: [] for s in SIDES}
    for r in range(a.rounds):
        for side in SIDES if r % 2 == 0 else SIDES[::-1]:
            got[side].append(one_round(a, side, a.base + 1_000_000 * (r + 1)))
    for what, unit in (("ready", "s"), ("peak", "MiB")):
        print(f"{what}: " + ", ".join(f"{s} {statistics.median(x[what] for x in got[s]):.1f} {unit}" for s in SIDES))
    if a.markdown:
        print("\n| clients | figure | ours | peer | ratio (spread) |\n|---|---|---|---|---|")
    for c in a.conc:
        for k in KEYS:
            ours, peer = ([x[c][k] or 0 for x in got[s]] for s in SIDES)
            q, mo, mp = ratios(ours, peer), statistics.median(ours), statistics.median(peer)
            if a.markdown:
                print(f"| {c} | {k} | {mo:.1f} | {mp:.1f} | " + (f"{q[0]:.2f} ({q[1]:.2f}..{q[2]:.2f}) |" if q else "|"))
            else:
                print(f"conc {c:3d} {k:12s} ours {mo:9.1f} peer {mp:9.1f} " + (f"ratio {q[0]:.2f} ({q[1]:.2f}..{q[2]:.2f})" if q else ""))


if __name__ == "__main__":
    main()
