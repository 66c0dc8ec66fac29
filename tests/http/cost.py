#!/usr/bin/env python3
"""What the front end costs: CPU time of the server for each event of a stream, with a scripted engine behind it.
usage: cost.py [streams] [events] [ms between] [tcp|unix] [bytes an event]"""
import os, select, socket, sys, time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from front import own_fake

streams, events, ms = (int(x) for x in (sys.argv[1:4] + ["64", "500", "5"][len(sys.argv[1:4]):]))
kind = sys.argv[4] if len(sys.argv) > 4 else "tcp"
size = sys.argv[5] if len(sys.argv) > 5 else "180"


def cpu(pid):
    with open(f"/proc/{pid}/task/{pid}/schedstat") as f:
        return int(f.read().split()[0]) / 1e3  # us on a processor, the loop thread alone


with own_fake("--set", "log.level=warn", both=True, env={"FAKE_TICK_US": str(ms * 1000)}) as d:
    socks, poll, c0 = [], select.epoll(), cpu(d.pid)
    for _ in range(streams):
        if kind == "unix":
            s = socket.socket(socket.AF_UNIX)
            s.connect(d.unix_addr)
        else:
            s = socket.create_connection(d.addr)
        s.sendall(f"POST /stream?n={events}&ms={ms}&size={size} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        socks.append(s)
        poll.register(s, select.EPOLLIN)
    by_fd = {s.fileno(): s for s in socks}
    t0, got = time.monotonic(), 0
    tail = {fd: b"" for fd in by_fd}
    while tail:
        for fd, _ in poll.poll(10):
            data = by_fd[fd].recv(65536)
            got += len(data)
            tail[fd] = (tail[fd] + data)[-32:]
            if not data or b"0\r\n\r\n" == tail[fd][-5:]:
                poll.unregister(fd)
                del tail[fd]
    c1, t1 = cpu(d.pid), time.monotonic()
    n = streams * events
    print(f"{kind}: {n} events in {t1 - t0:.2f} s, {got} bytes, server {(c1 - c0) / n:.2f} us an event, {100 * (c1 - c0) / 1e6 / (t1 - t0):.0f} % of a core")
