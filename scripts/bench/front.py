#!/usr/bin/env python3
"""What the front end costs: CPU time of the loop thread for each token event of a stream, over TCP and over a UNIX socket.

    front.py [--model tiny.gguf] [--streams 64] [--events 500] [--every-ms 5] [--rounds 5] [--size 180]

`scripted` is build/release/fake-quernd: the whole front end with an engine behind it that yields an event of `size` bytes for each
stream every few milliseconds. `tiny` is quernd itself with a model that costs next to nothing, so requests are parsed,
templates rendered and tokens formatted too; there the time is divided by the tokens (events merge when the client is late). The time is
what the kernel counted for the thread (schedstat), so neighbours disturb it little. TCP and UNIX take turns.
"""
import argparse, json, os, re, select, socket, sys, tempfile

from common import ROOT, Load, Server, free_port, quernd, say, spread, table

FAKE = os.path.join(ROOT, "build/release/fake-quernd")
NO_MODEL = os.path.join(ROOT, "tests/http/fake_api.c")  # any file that exists


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", default=os.path.join(ROOT, "tests/data/tiny-llama.gguf"))
    for name, default in (("streams", 64), ("events", 500), ("every-ms", 5), ("rounds", 5), ("size", 180)):
        p.add_argument("--" + name, type=int, default=default)
    return p.parse_args()


def loop_us(pid):
    """Microseconds that the main thread, which runs the loop, was on a processor."""
    with open(f"/proc/{pid}/task/{pid}/schedstat") as f:
        return int(f.read().split()[0]) / 1e3


def stream_all(a, server, path, request):
    """Microseconds of the loop for all streams together, and the last bytes of each."""
    before, socks, tails, poll = loop_us(server.proc.pid), {}, {}, select.epoll()
    for _ in range(a.streams):
        if path:
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
        else:
            s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(request)
        socks[s.fileno()], tails[s.fileno()] = s, b""
        poll.register(s, select.EPOLLIN)
    left = set(socks)
    while left:
        events = poll.poll(60)
        if not events:
            sys.exit(f"{server.name}: a stream came to a halt")
        for fd, _ in events:
            data = socks[fd].recv(1 << 16)
            tails[fd] = (tails[fd] + data)[-1024:]
            if not data or tails[fd].endswith(b"\r\n0\r\n\r\n"):
                poll.unregister(fd)
                left.discard(fd)
    for s in socks.values():
        s.close()
    return loop_us(server.proc.pid) - before, list(tails.values())


def scripted(a, server, path):
    target = f"/stream?n={a.events}&ms={a.every_ms}&size={a.size}"
    us, _ = stream_all(a, server, path, f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    return us / (a.streams * a.events)


def tiny(a, server, path):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Go on."}], "stream": True, "max_tokens": 256, "ignore_eos": True,
                       "temperature": 0, "stream_options": {"include_usage": True}}).encode()
    us, tails = stream_all(a, server, path, b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    tokens = [re.search(rb'"completion_tokens":(\d+)', t) for t in tails]
    if not all(tokens):
        sys.exit(f"tiny: a stream without usage: {tails[0][-300:]!r}")
    return us / sum(int(t.group(1)) for t in tokens)


def main():
    a = arguments()
    with Load(), tempfile.TemporaryDirectory(prefix="bench-front-") as d:
        ports = [free_port(), free_port()]
        paths = [os.path.join(d, "fake.sock"), os.path.join(d, "tiny.sock")]
        common = ["--set", "log.level=warn"]
        fake = f"{FAKE} --model {NO_MODEL} --listen 127.0.0.1:{{port}} --listen unix:{paths[0]} {' '.join(common)}"
        real = quernd(a.model, "--listen", f"unix:{paths[1]}", "--max-seqs", str(a.streams), *common)
        got = {}
        with Server(fake, "fake-quernd", ports[0], env={"FAKE_TICK_US": str(a.every_ms * 1000)}) as f, Server(real, "quernd", ports[1]) as q:
            for i in range(a.rounds):
                say(f"round {i + 1}")
                for over in ("TCP", "UNIX socket") if i % 2 == 0 else ("UNIX socket", "TCP"):
                    for name, run, server, path in (("scripted", scripted, f, paths[0]), ("tiny", tiny, q, paths[1])):
                        got.setdefault((name, over), []).append(run(a, server, path if over != "TCP" else None))
        table(["engine", "streams", "over", "CPU time of the loop a token, us"], [[*k[:1], a.streams, k[1], spread(v)] for k, v in sorted(got.items())])


if __name__ == "__main__":
    main()
