#!/usr/bin/env python3
"""Connections as clients and networks use them: kept alive, slow, stalled, cut, half closed, crowded. The front end is the
real one; a scripted api behind it (fake_api.c) makes streams of any size and pace."""
import json, os, re, select, socket, struct, sys, time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from front import fake, own_fake
from qtest import SLOW, connect, eq, main, parse_responses, raw_request, test, wait_for


def seen(d):
    return d.get("/seen").json()


def all_closed(d):
    s = seen(d)
    return s["begun"] - 1 == s["closed"]  # this one is still open


# ---- ordinary use ----

@test
def keep_alive_serves_many_requests():
    with connect(fake().addr) as c:
        for i in range(200):
            c.send_request("POST", "/echo", b"n %d" % i)
            r = c.response()
            eq((r.status, r.body), (200, b"n %d" % i))


@test
def a_reply_waits_for_its_true_status():
    t = time.monotonic()
    r = fake().post("/late?ms=120", b"x")
    eq(r.status, 200)
    assert time.monotonic() - t >= 0.11
    assert int(r.header("openai-processing-ms")) >= 110


@test
def body_of_every_size_comes_back():
    d = fake()
    for n in (0, 1, 100, 4000, 4096, 8191, 8192, 8193, 65535, 65536, 65537, 300_000, 3_000_000):
        body = os.urandom(n)
        eq(d.post("/echo", body).body == body, True, f"{n} bytes")
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[i:i + 70_001] for i in range(0, n, 70_001)) if p) + b"0\r\n\r\n"
        with connect(d.addr) as c:
            c.send_request("POST", "/echo", chunked, {"Transfer-Encoding": "chunked"})
            eq(c.response().body == body, True, f"{n} bytes chunked")


@test
def head_has_no_body():
    with connect(fake().addr) as c:
        c.send_request("HEAD", "/health")
        r = c.response(head_only=True)
        eq((r.status, r.header("content-length")), (200, "15"))
        c.send_request("GET", "/health")
        eq(c.response().body, b'{"status":"ok"}')


@test
def http_1_0_gets_an_unframed_stream_and_the_end():
    got = raw_request(fake().addr, b"POST /stream?n=3&size=4 HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    head, body = got.split(b"\r\n\r\n", 1)
    assert b"chunked" not in head.lower()
    eq(body, b"data: 0 xxxx\n\ndata: 1 xxxx\n\ndata: 2 xxxx\n\ndata: [DONE]\n\n")


@test
def http_1_0_may_be_kept_alive():
    with connect(fake().addr) as c:
        for _ in range(3):
            c.send(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            eq(c.response().status, 200)


@test
def continue_is_sent_before_the_body_only_when_it_is_wanted():
    d = fake()
    with connect(d.addr) as c:
        c.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        eq(c._until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        c.send(b"hello")
        eq(c.response().body, b"hello")
    with connect(d.addr) as c:
        c.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        eq(c.head().status, 404)
        assert b"100" not in c.got


@test
def request_ids_are_echoed_or_made():
    d = fake()
    for good in ("abc", "a.b_c:d-9", "x" * 128):
        eq(d.get("/health", headers={"X-Request-Id": good}).header("x-request-id"), good)
    for wrong in ("", "a b", "x" * 129, "a;b", "a\tb", "<b>", "caf\xe9"):
        got = d.get("/health", headers={"X-Request-Id": wrong}).header("x-request-id")
        assert re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", got), got
    a, b = (d.get("/health").header("x-request-id") for _ in range(2))
    assert a != b and a[:10] <= b[:10]


@test
def unix_socket_speaks_the_same():
    d = fake(both=True)
    eq(os.stat(d.unix_addr).st_mode & 0o777, 0o660)
    with connect(d.unix_addr) as c:
        c.send(b"POST /stream?n=2&size=3 HTTP/1.1\r\nHost: whatever.example\r\nContent-Length: 0\r\n\r\n")
        eq([e.data for e in c.events()], ["0 xxx", "1 xxx", "[DONE]"])
        c.send_request("GET", "/health")
        eq(c.response().status, 200)


@test
def listed_origins_may_call():
    d = fake("--set", "server.origins=https://app.example", "--set", "server.hosts=quern.example")
    r = d.get("/health", headers={"Origin": "https://app.example"})
    eq((r.status, r.header("access-control-allow-origin"), r.header("vary")), (200, "https://app.example", "Origin"))
    assert r.header("access-control-allow-credentials") is None
    r = d.request("OPTIONS", "/echo", headers={"Origin": "https://app.example", "Access-Control-Request-Method": "POST"})
    eq(r.status, 204)
    assert "POST" in r.header("access-control-allow-methods")
    eq(d.get("/health", headers={"Origin": "https://other.example"}).status, 403)
    with connect(d.addr) as c:
        for host, want in ((b"quern.example", 200), (b"QUERN.example:443", 200), (b"other.example", 403), (b"localhost", 200)):
            c.send(b"GET /health HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
            eq(c.response().status, want, host)


# ---- streams ----

@test
def events_come_one_by_one():
    d, at = fake(), []
    for e in d.stream("/stream?n=20&ms=20&size=10", b""):
        at.append(e.at)
    eq(len(at), 21)
    gaps = [b - a for a, b in zip(at, at[1:20])]
    assert sum(g > 0.005 for g in gaps) >= 15, f"events were held back: {gaps}"


@test
def each_event_is_one_chunk_while_the_client_keeps_up():
    with connect(fake().addr) as c:
        c.send_request("POST", "/stream?n=10&ms=15&size=10", b"")
        c.head()
        pieces = [p for p in c.chunks()]
    eq([p.count(b"\n\n") for p in pieces][:8], [1] * 8)


@test
def a_backlog_merges_and_nothing_is_lost():
    d = fake()
    with connect(d.addr) as c:
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        c.send_request("POST", "/stream?n=3000&ms=1&size=200", b"")
        time.sleep(1.0)
        r = c.head()
        data = b"".join(c.chunks())
    eq([int(x) for x in re.findall(rb"data: (\d+) x+\n\n", data)], list(range(3000)))
    assert data.endswith(b"data: [DONE]\n\n")


@test
def many_streams_at_once():
    d, n = fake(), 300
    conns = [connect(d.addr) for _ in range(n)]
    for i, c in enumerate(conns):
        c.send_request("POST", f"/stream?n={10 + i % 7}&ms=3&size={i % 50}", b"")
    for i, c in enumerate(conns):
        eq(len(list(c.events())), 11 + i % 7)
        c.close()
    wait_for(lambda: all_closed(d), 3, "every exchange closed")


@test
def a_silent_stream_is_ticked():
    d = fake()
    before = seen(d)["pings"]
    with connect(d.addr) as c:
        c.send_request("POST", "/stream?n=2&ms=1500&size=1", b"")
        list(c.events())
    assert seen(d)["pings"] > before


# ---- clients that leave ----

def leave(how, c):
    if how == "fin":
        c.close()
    elif how == "rst":
        c.reset()
    else:
        c.sock.shutdown(socket.SHUT_WR)


def gone_within(d, what, request, how, wait, ms):
    before = seen(d)["cancelled"]
    c = connect(d.addr)
    c.send(request)
    time.sleep(wait)
    leave(how, c)
    t = time.monotonic()
    while seen(d)["cancelled"] == before if wait else not all_closed(d):  # who leaves at once may never be heard
        assert time.monotonic() - t < ms * SLOW / 1e3, f"{what}: not noticed within {ms} ms"
    return time.monotonic() - t


@test(seconds=60)
def a_client_that_leaves_is_noticed_in_every_phase():
    d = fake()
    phases = {"waiting": b"POST /never HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi",
              "silent stream": b"POST /stream?n=5&ms=60000 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
              "busy stream": b"POST /stream?n=100000&ms=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
              "blocked stream": b"POST /stream?n=1000000&size=1000 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
              "body": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhi",
              "chunked body": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi"}
    times = []
    for name, request in phases.items():
        for how in ("fin", "rst", "half"):
            for wait in (0.0, 0.03):
                times.append(gone_within(d, f"{name}, {how}, after {wait} s", request, how, wait, 100))
    wait_for(lambda: all_closed(d), 3, "every exchange closed")
    times.sort()
    print(f"    noticed after {times[len(times) // 2] * 1e3:.2f} ms (median, with a request to ask), {times[-1] * 1e3:.1f} ms at most")


@test
def leaving_inside_a_head_costs_nothing():
    d = fake()
    n = seen(d)["begun"]
    for how in ("fin", "rst", "half"):
        c = connect(d.addr)
        c.send(b"POST /echo HTTP/1.1\r\nHost: loc")
        time.sleep(0.02)
        leave(how, c)
        if how == "half":
            assert c.closed(2)
    eq(seen(d)["begun"], n + 1)


@test
def an_idle_connection_whose_client_leaves_is_closed():
    d = own_fake()
    with d:
        conns = [connect(d.addr) for _ in range(50)]
        for c in conns:
            c.send_request("GET", "/health")
            c.response()
        open_before = d.metric("quern_http_connections_open")
        assert open_before >= 50
        for i, c in enumerate(conns):
            leave(("fin", "rst", "half")[i % 3], c)
        wait_for(lambda: d.metric("quern_http_connections_open") <= 2, 3, "connections closed")


@test(seconds=60)
def random_departures_leak_nothing():
    import random
    rng = random.Random(5)
    d = fake()
    for i in range(400):
        c = connect(d.addr)
        c.send_request("POST", rng.choice(["/stream?n=50&ms=1", "/never", "/late?ms=5", "/echo", "/stream?n=2000&size=400"]), b"x" * rng.randrange(3000))
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.01)
        leave(rng.choice(["fin", "rst", "half"]), c)
    wait_for(lambda: all_closed(d), 5, "every exchange closed")
    eq(d.get("/health").status, 200)


# ---- slow ones ----

@test
def a_head_has_ten_seconds_whatever_trickles():
    d = fake("--set", "server.head_s=1")
    with connect(d.addr) as c:
        t = time.monotonic()
        c.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        c.sock.setblocking(False)
        got = b""
        while time.monotonic() - t < 4 * SLOW:
            try:
                c.sock.send(b"X")
            except OSError:
                break
            if select.select([c.sock], [], [], 0.1)[0]:
                try:
                    piece = c.sock.recv(4096)
                except OSError:
                    break
                got += piece
                if not piece:
                    break
        took = time.monotonic() - t
    eq([r.status for r in parse_responses(got)], [408])
    assert 0.9 < took < 1.6 * SLOW, took


@test
def a_connection_that_says_nothing_is_closed():
    d = fake("--set", "server.head_s=1")
    with connect(d.addr) as c:
        t = time.monotonic()
        eq(c.rest(4), b"")
        assert 0.9 < time.monotonic() - t < 1.6 * SLOW


@test
def keep_alive_ends():
    d = fake("--set", "server.keep_alive_s=1")
    with connect(d.addr) as c:
        c.send_request("GET", "/health")
        c.response()
        t = time.monotonic()
        eq(c.rest(4), b"")
        assert 0.9 < time.monotonic() - t < 1.6 * SLOW


@test
def a_body_has_its_time():
    d = fake("--set", "server.body_s=1")
    with connect(d.addr) as c:
        t = time.monotonic()
        c.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        while time.monotonic() - t < 0.8:
            c.send(b"x" * 1000)
            time.sleep(0.05)
        r = c.response()
        eq(r.status, 408)
        r.error
        assert c.closed(2)


@test
def a_body_must_keep_up_a_rate():
    d = fake()
    with connect(d.addr) as c:
        t = time.monotonic()
        c.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(52):
            try:
                c.send(b"4\r\nabcd\r\n")
            except OSError:
                break  # the answer is there already, and the connection closed behind it
            time.sleep(0.1)
        r = c.response()
        eq(r.status, 408)
        assert 4.9 < time.monotonic() - t < 7 * SLOW


@test
def slow_heads_do_not_slow_others():
    d = fake("--set", "server.head_s=2", both=True)
    conns = []
    for _ in range(400):
        c = connect(d.unix_addr)
        c.send(b"GET /health HTTP/1.1\r\nHost: local")
        conns.append(c)
    times = []
    for _ in range(100):
        t = time.monotonic()
        eq(d.get("/health").status, 200)
        times.append(time.monotonic() - t)
    assert sorted(times)[98] < 0.02 * SLOW, sorted(times)[-3:]
    assert all(c.closed(4) for c in conns)
    for c in conns:
        c.close()


@test(seconds=60)
def a_reader_that_takes_nothing_is_cut_and_others_go_on():
    d = own_fake("--set", "server.stall_s=1")
    with d:
        d.get("/health")
        rss = d.rss_kib()
        stuck = []
        for i in range(200):
            c = connect(d.addr)
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.send_request("POST", "/stream?n=100000000&size=500" if i % 2 else "/stream?n=1000000&ms=1&size=3000", b"")
            stuck.append(c)
        n = len(list(d.stream("/stream?n=200&ms=5&size=20", b"")))
        eq(n, 201)
        grown = d.rss_kib() - rss
        assert grown < 16_000 * SLOW, f"{grown} KiB for 200 stalled readers"
        wait_for(lambda: d.metric("quern_http_stalled_readers_total") == 200, 10, "stalled readers cut")
        wait_for(lambda: all_closed(d), 5, "every exchange closed")
        for c in stuck:
            c.close()


@test
def a_whole_reply_that_nobody_takes_is_cut():
    with own_fake("--set", "server.stall_s=1") as d:
        c = connect(d.addr)
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.send_request("POST", "/echo", b"x" * 4_000_000)
        wait_for(lambda: d.metric("quern_http_stalled_readers_total") == 1, 8, "cut")
        c.close()


@test
def a_slow_reader_of_a_whole_reply_gets_all_of_it():
    with own_fake("--set", "server.stall_s=1") as d:
        body = os.urandom(600_000)
        c = connect(d.addr)
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        c.send_request("POST", "/echo", body)
        c.head()
        got = b""
        while len(got) < len(body):
            got += c._exactly(min(30_000, len(body) - len(got)))
            time.sleep(0.12)
        eq(got == body, True)
        c.close()


# ---- too much ----

@test
def body_limit_and_one_more():
    d = fake("--set", "server.body_bytes_max=100K")
    n = 100 * 1024
    eq(d.post("/echo", b"x" * n).status, 200)
    r = d.post("/echo", b"x" * (n + 1))
    eq((r.status, r.error["code"]), (413, "request_too_large"))
    for extra, want in ((0, 200), (1, 413)):
        with connect(d.addr) as c:
            c.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (n + extra) + b"x" * (n + extra) + b"\r\n0\r\n\r\n")
            r = c.response()
            eq(r.status, want)
            if want != 200:
                r.error


@test
def the_reply_survives_a_body_that_goes_on():
    """A refusal must not be lost to a reset while the client still sends."""
    d = fake()
    for _ in range(20):
        with connect(d.addr) as c:
            c.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n")
            try:
                for _ in range(60):
                    c.send(b"x" * 50_000)
            except OSError:
                pass
            r = c.response()
            eq(r.status, 413)


@test
def the_last_reply_survives_requests_behind_it():
    """Connection: close with more bytes behind: the reply comes, then the end, and no reset in between."""
    d = fake()
    data = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000
    for _ in range(20):
        with connect(d.addr) as c:
            c.send(data)
            time.sleep(0.005)
            eq(c.response().status, 200)
            eq(c.sock.recv(10), b"")


@test
def one_connection_too_many_is_told_so():
    with own_fake("--set", "server.connections_max=20", "--set", "server.head_s=30") as d:
        conns = [connect(d.addr) for _ in range(20)]
        for c in conns:
            c.send_request("GET", "/health")
            eq(c.response().status, 200)
        with connect(d.addr) as c:
            c.send_request("GET", "/health")
            r = c.response()
            eq((r.status, r.error["code"]), (503, "overloaded"))
            assert r.header("retry-after")
            assert c.closed(2), "the connection above the limit stays"
        conns.pop().close()
        wait_for(lambda: d.get("/health").status == 200, 2, "room again")
        for c in conns:
            c.close()


@test(seconds=60)
def descriptors_run_out_without_a_spin():
    import resource
    d = own_fake()
    with d:
        resource.prlimit(d.pid, resource.RLIMIT_NOFILE, (64, 64))
        with connect(d.addr) as live:
            live.send_request("POST", "/stream?n=300&ms=5&size=10", b"")
            head = live.head()
            crowd = []
            for _ in range(200):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(d.addr)
                crowd.append(s)
            cpu0 = sum(map(int, open(f"/proc/{d.pid}/stat").read().split()[13:15]))
            t0 = time.monotonic()
            data = b"".join(live.chunks())
            cpu1 = sum(map(int, open(f"/proc/{d.pid}/stat").read().split()[13:15]))
            eq(data.count(b"data: "), 301)
            used = (cpu1 - cpu0) / 100 / (time.monotonic() - t0)
            assert used < 0.3 * SLOW, f"{used:.2f} of a core while out of descriptors"
        for s in crowd:
            s.close()
        wait_for(lambda: d.get("/health", timeout=2).status == 200, 3, "accepts again")


# ---- what is told ----

@test
def log_lines_are_json_whatever_is_in_them():
    with own_fake("--set", "log.format=json") as d:
        for target in (b"/%1b%5b31m", b"/\"quoted\"", b"/back\\slash", b"/" + b"a" * 2000, b"/?key=sk-secret"):
            raw_request(d.addr, b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nUser-Agent: \xff\xfe\x9b\r\n\r\n")
        raw_request(d.addr, b"GET /\x1b[31m HTTP/1.1\r\n\r\n")
        c = connect(d.addr)
        c.send_request("POST", "/never", b"my secret prompt", {"X-Request-Id": "leaver"})
        time.sleep(0.05)
        c.close()
        wait_for(lambda: "leaver" in d.log(), 3, "the line of a client that left")
        lines = [json.loads(x) for x in d.log().splitlines()]
        requests = [x for x in lines if x["event"] == "request"]
        left = next(x for x in requests if x["request_id"] == "leaver")
        eq((left["status"], left["path"], left["route"]), (499, "/never", "never"))
        assert any(x["event"] == "refused" and x["status"] == 400 for x in lines)
        assert "secret" not in d.log()
        assert all(len(x) < 4096 and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", x) for x in d.log().splitlines())


@test
def metrics_count():
    with own_fake() as d:
        d.post("/echo", b"x" * 1000)
        d.get("/nowhere")
        raw_request(d.addr, b"GET / HTTP/1.1\r\n\r\n")
        eq(d.metric("quern_http_requests_total", '{status="4xx"}'), 2)
        assert d.metric("quern_http_requests_total", '{status="2xx"}') >= 2
        eq(d.metric("quern_http_heads_refused_total"), 1)
        assert d.metric("quern_http_sent_bytes_total") >= 1000
        assert d.metric("quern_http_received_bytes_total") >= 1000
        assert d.metric("quern_http_request_seconds_count") >= 3
        text = d.get("/metrics").text
        names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
        assert len(names) == len(set(names)) > 8


main()
