#!/usr/bin/env python3
"""Time from starting a server's process to the first token of a request, and the peak memory by then.

    start.py --ours 'build/release/quernd --model M.gguf --listen 127.0.0.1:8080' [--port 8080]
             [--peer 'llama-server -m M.gguf --port 9001' --peer-port 9001] [--rounds 5] [--model m]

Each round starts one side and then the other, in changing order, never together. From the moment of the exec a client tries to
connect every few milliseconds and asks for one token of a short completion; refused connections and 503 (still loading) are tried
again. What counts is the time of the first 200 with its token in it. The files are read once before, so that the page cache is
warm. Prints each side's median with the spread, and the ratio of the medians.
"""
import argparse, json, os, shlex, signal, socket, statistics, subprocess, sys, tempfile, time

SIDES = ("ours", "peer")


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--ours", required=True, help="command line that serves in the foreground")
    p.add_argument("--port", type=int, default=8080)
    p.add_argument("--peer", default="")
    p.add_argument("--peer-port", type=int, default=9001)
    p.add_argument("--model", default="m")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--wait", type=float, default=120)
    return p.parse_args()


def ask(port, model):
    """One token. The status, or 0 where nobody listens."""
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as s:
            s.sendall(head.encode() + body)
            reply = b""
            while piece := s.recv(65536):
                reply += piece
    except OSError:
        return 0
    status = int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.") else 0
    if status == 200 and b'"completion_tokens"' not in reply:
        sys.exit(f"a reply without usage: {reply[-300:]!r}")
    return status


def peak_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(x.split()[1]) for x in f if x.startswith("VmHWM")) / 1024


def one(command, port, model, wait):
    """Seconds to the first token, peak MiB."""
    if ask(port, model):
        sys.exit(f"something answers on port {port} already")
    with tempfile.NamedTemporaryFile("w+", prefix="start-", suffix=".log") as log:
        begin = time.perf_counter()
        proc = subprocess.Popen(shlex.split(command), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            while (status := ask(port, model)) != 200:
                if status not in (0, 503) or proc.poll() is not None or time.perf_counter() - begin > wait:
                    log.seek(0)
                    sys.exit(f"{command}: status {status}, no token after {time.perf_counter() - begin:.1f} s\n{log.read()[-2000:]}")
                time.sleep(0.003)
            return time.perf_counter() - begin, peak_mib(proc.pid)
        finally:
            if proc.poll() is None:
                os.killpg(proc.pid, signal.SIGTERM)
                try:
                    proc.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(proc.pid, signal.SIGKILL)
                    proc.wait()


def warm(command):
    for word in shlex.split(command):
        if os.path.isfile(word):
            with open(word, "rb") as f:
                while f.read(1 << 24):
                    pass


def main():
    a = arguments()
    side = {"ours": (a.ours, a.port), "peer": (a.peer, a.peer_port)}
    sides, got = [s for s in SIDES if side[s][0]], {s: [] for s in SIDES}
    for r in range(a.rounds):
        for s in sides if r % 2 == 0 else sides[::-1]:
            warm(side[s][0])
            got[s].append(one(*side[s], a.model, a.wait))
    print(f"load average {os.getloadavg()[0]:.1f}")
    for s in sides:
        t, m = [x[0] for x in got[s]], [x[1] for x in got[s]]
        print(f"{s}: first token after {statistics.median(t):.3f} s ({min(t):.3f}..{max(t):.3f}), peak {statistics.median(m):.0f} MiB, {a.rounds} rounds")
    if len(sides) == 2:
        t, m = ([statistics.median(x[k] for x in got[s]) for s in SIDES] for k in (0, 1))
        print(f"ratio: time {t[0] / t[1]:.2f}, peak {m[0] / m[1]:.2f}")


if __name__ == "__main__":
    main()
