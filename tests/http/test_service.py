#!/usr/bin/env python3
"""The daemon as a service: command line, configuration, exit codes, reload, drain, sockets and messages of systemd. It runs
the real main and front end over a scripted engine, so that starting costs nothing."""
import json, os, re, signal, socket, subprocess, sys, tempfile, time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib")]
from front import FAKE, NO_MODEL, own_fake
from qtest import ROOT, SLOW, Daemon, connect, eq, free_port, main, test, wait_for


def run(*args, env=None, file=None, timeout=20):
    """Exit code, stdout, stderr of one start that ends by itself."""
    with tempfile.TemporaryDirectory() as dir:
        if file is not None:
            path = os.path.join(dir, "quern.yaml")
            with open(path, "wb") as f:
                f.write(file if isinstance(file, bytes) else file.encode())
            args = ("--config", path) + args
        r = subprocess.run([FAKE, *args], capture_output=True, text=True, timeout=timeout * SLOW, env=dict(os.environ, **(env or {})))
        return r.returncode, r.stdout, r.stderr.replace(dir + "/", "")


def fails(code, needle, *args, lines=1, **kw):
    c, out, err = run(*args, **kw)
    eq(c, code, err)
    got = err.strip().splitlines()
    eq(len(got), lines, err)
    assert all(x.startswith("quernd: ") for x in got), err
    assert needle in err, err


# ---- command line ----

@test
def help_and_version():
    c, out, _ = run("--help")
    eq(c, 0)
    for flag in ("--config", "--set", "--model", "--model-name", "--chat-template", "--listen", "--threads", "--ctx", "--max-seqs",
                 "--device", "--check-config", "--dump-config", "--version"):
        assert flag in out, flag
    c, out, _ = run("--version")
    assert c == 0 and re.fullmatch(r"quernd \d+\.\d+\.\d+\n", out), out


@test
def wrong_usage_is_64():
    fails(64, "--frobnicate", "--frobnicate")
    fails(64, "--threads", "--model", NO_MODEL, "--threads")
    fails(64, "engine.threads", "--threads", "many")
    fails(64, "section.key=value", "--set", "engine.threads")
    fails(64, "engine.threads", "--set", "engine.thread=3")
    fails(64, "no model", "--listen", "127.0.0.1:0")


@test
def what_is_missing_is_66():
    fails(66, "/nowhere/model.gguf", "--model", "/nowhere/model.gguf")
    fails(66, "/nowhere/quern.yaml", "--config", "/nowhere/quern.yaml")
    fails(66, "/nowhere/t.jinja", "--model", NO_MODEL, "--chat-template", "/nowhere/t.jinja")


@test
def an_address_in_use_is_71():
    with own_fake() as d:
        fails(71, "in use", "--model", NO_MODEL, "--listen", f"127.0.0.1:{d.port}")


@test
def public_addresses_need_a_word():
    for a in ("0.0.0.0:0", "[::]:0", "*:0", "192.0.2.1:80"):
        fails(78, "server.allow_public", "--model", NO_MODEL, "--listen", a)
    c, _, err = run("--check-config", "--listen", "0.0.0.0:8080", "--set", "server.allow_public=true")
    eq(c, 0, err)


@test
def several_values_of_a_flag():
    c, out, err = run("--dump-config", "--listen", "127.0.0.1:1", "--listen=unix:/run/x.sock")
    eq(c, 0, err)
    assert "listen: [127.0.0.1:1, unix:/run/x.sock]" in out, out


# ---- configuration ----

@test
def sources_have_an_order():
    file = "engine:\n  threads: 3\n  max_seqs: 4\n  waiting_max: 5\n"
    env = {"QUERN_ENGINE_MAX_SEQS": "6", "QUERN_ENGINE_WAITING_MAX": "7", "QUERN_SERVER_LISTEN": "127.0.0.1:1,127.0.0.1:2"}
    c, out, err = run("--dump-config", "--set", "engine.waiting_max=8", file=file, env=env)
    eq(c, 0, err)
    for line in ("threads: 3 *# file", "max_seqs: 6 *# environment", "waiting_max: 8 *# flag", r"listen: \[127.0.0.1:1, 127.0.0.1:2\] *# environment", "step_rows: auto\n"):
        assert re.search(line, out), (line, out)


@test
def a_dump_can_be_read_again():
    c, first, err = run("--dump-config", "--set", "server.listen=unix:/tmp/a b.sock", "--set", "model.name=a: #b\"c", "--set", "engine.kv_bytes=3G",
                        "--set", "server.origins=https://a.example", "--set", "server.unix_mode=0666", "--set", "engine.wait_ms_max=2s")
    eq(c, 0, err)
    c, again, err = run("--dump-config", file=first)
    eq(c, 0, err)
    plain = lambda t: re.sub(r" *# \w+$", "", t, flags=re.M)
    eq(plain(again), plain(first))


@test
def every_mistake_in_one_pass():
    file = """server:
  listen: [127.0.0.1:8080]
  listten: x
  keep_alive_s: soon
  head_s: 0
engine:
  threads: -1
  kv_bytes: 5Q
  threads: 2
  prefix_cache: maybe
lgo:
  level: info
log:
  level: loud
"""
    c, _, err = run("--check-config", file=file)
    eq(c, 78)
    lines = err.strip().splitlines()
    want = [("3:3", "server.listen"), ("4:17", "keep_alive_s"), ("5:11", "1s to"), ("7:12", "engine.threads"), ("8:13", "kv_bytes"),
            ("9:3", "twice"), ("10:17", "true or false"), ("11:1", "lgo"), ("14:10", "debug, info, warn or error")]
    eq(len(lines), len(want), err)
    for line, (at, word) in zip(lines, want):
        assert f"quern.yaml:{at}: " in line and word in line, (line, at, word)


@test
def yaml_that_has_no_place():
    cases = {"anchor": "server: &a\n  backlog: 5\n", "alias": "server: *a\n", "tag": "server:\n  backlog: !!int 5\n", "merge": "server:\n  <<: {backlog: 5}\n",
             "two documents": "server:\n  backlog: 5\n---\nlog:\n  level: info\n", "list at top": "- server\n", "scalar at top": "server\n",
             "section twice": "log:\n  level: info\nlog:\n  level: warn\n", "section as list": "log: [level]\n", "value as map": "log:\n  level: {a: b}\n",
             "nested list": "server:\n  listen: [[a]]\n", "broken": "log: [\n", "tabs": "log:\n\tlevel: info\n", "not utf-8": b"log:\n  level: \xff\xfe\n", "null value": "log:\n  level:\n"}
    for name, file in cases.items():
        c, _, err = run("--check-config", file=file)
        eq(c, 78, f"{name}: {err}")
        assert re.match(r"quernd: quern\.yaml:\d+:\d+: ", err), f"{name}: {err}"
    for good in ("", "# nothing\n", "server:\n", "---\nlog:\n  level: warn\n...\n", "{log: {level: warn}}", "server:\n  hosts: []\n  listen:\n  - 127.0.0.1:1\n  - 'unix:/x'\n"):
        c, _, err = run("--check-config", file=good)
        eq(c, 0, f"{good!r}: {err}")


@test
def environment_mistakes_are_told():
    fails(78, "QUERN_ENGINE_THREADS", "--check-config", env={"QUERN_ENGINE_THREADS": "x"})
    fails(78, "engine.threads", "--check-config", env={"QUERN_ENGINE_THREAD": "3"})


@test
def limits_at_limit_and_one_more():
    for name, at, over in (("server.head_bytes_max", "64K", "65537"), ("server.fields_max", "256", "257"), ("limits.n_max", "128", "129"),
                           ("server.connections_max", "1000000", "1000001"), ("engine.threads", "1024", "1025"), ("log.level", "error", "fatal")):
        eq(run("--check-config", "--set", f"{name}={at}")[0], 0, name)
        eq(run("--check-config", "--set", f"{name}={over}")[0], 64, name)


@test
def committed_files_are_made_from_the_table():
    for flag, path in (("--dump-example", "conf/quern.yaml"), ("--dump-man", "conf/quern.yaml.5")):
        with open(os.path.join(ROOT, path)) as f:
            eq(f.read() == run(flag)[1], True, f"{path} differs from quernd {flag}: make it again")
    c, _, err = run("--check-config", "--config", os.path.join(ROOT, "conf/quern.yaml"))
    eq(c, 0, err)
    with open(os.path.join(ROOT, "conf/quern.yaml")) as f:
        active = "".join(re.sub(r"^  #(\w+: )", r"  \1", line) for line in f)
    c, _, err = run("--check-config", file=active)
    eq(c, 0, err)


@test
def the_schema_is_json_and_names_every_option():
    schema = json.loads(run("--dump-schema")[1])
    dump = run("--dump-config")[1]
    names = {s: set(v["properties"]) for s, v in schema["properties"].items()}
    section, seen = None, {}
    for line in dump.splitlines():
        if not line.startswith(" "):
            section = line[:-1]
            seen[section] = set()
        else:
            seen[section].add(line.strip().split(":")[0])
    eq(names, seen)


# ---- reload ----

@test
def reload_takes_what_it_can_and_says_so():
    with own_fake(config="server:\n  keep_alive_s: 50\nlog:\n  format: json\n") as d:
        path = os.path.join(d.dir.name, "quern.yaml")

        def reload(text, until):
            with open(path, "w") as f:
                f.write(text)
            n = d.log().count(until)
            d.signal(signal.SIGHUP)
            wait_for(lambda: d.log().count(until) > n, 3, until)

        with connect(d.addr) as c:
            c.send(b"GET /health HTTP/1.1\r\nHost: new.example\r\n\r\n")
            eq(c.response().status, 403)
            reload("server:\n  keep_alive_s: 1\n  hosts: [new.example]\n  backlog: 7\nlog:\n  format: json\n", '"message":"done"')
            c.send(b"GET /health HTTP/1.1\r\nHost: new.example\r\n\r\n")
            eq(c.response().status, 200)
            assert c.closed(3), "keep_alive_s was not taken over"
        assert "server.backlog differs; it changes at the next start" in d.log()
        reload("server:\n  hosts: [other.example]\n  nonsense: 1\n", "the old one stays")
        with connect(d.addr) as c:
            c.send(b"GET /health HTTP/1.1\r\nHost: new.example\r\n\r\n")
            eq(c.response().status, 200)


@test(seconds=60)
def reloads_under_load_cut_nothing():
    with own_fake(config="server:\n  keep_alive_s: 50\nlog:\n  level: warn\n") as d:
        conns = []
        for _ in range(20):
            c = connect(d.addr)
            c.send_request("POST", "/stream?n=400&ms=5&size=20", b"")
            conns.append(c)
        n, t = 0, time.monotonic()
        with connect(d.addr) as k:
            while time.monotonic() - t < 1.5:
                d.signal(signal.SIGHUP)
                for _ in range(5):
                    k.send_request("GET", "/health")
                    eq(k.response().status, 200)
                    n += 1
        for c in conns:
            eq(len(list(c.events())), 401)
            c.close()
        assert n > 100


# ---- the end ----

@test
def drain_lets_streams_end():
    d = own_fake("--set", "server.drain_s=10")
    with d:
        streams = [connect(d.addr) for _ in range(10)]
        for c in streams:
            c.send_request("POST", "/stream?n=60&ms=10&size=5", b"")
        kept = connect(d.addr)
        kept.send_request("GET", "/health")
        eq(kept.response().status, 200)
        d.signal(signal.SIGTERM)
        t = time.monotonic()
        time.sleep(0.05)
        kept.send_request("GET", "/readyz")
        r = kept.response()
        eq((r.status, r.header("connection")), (503, "close"))
        assert time.monotonic() - t < 0.2 * SLOW
        try:
            connect(d.addr).close()
            raise AssertionError("still takes connections")
        except ConnectionRefusedError:
            pass
        for c in streams:
            eq([e.data for e in c.events()][-1], "[DONE]")
        eq(d.wait_exit(2), 0)


@test
def what_does_not_end_in_time_gets_an_error_event():
    d = own_fake("--set", "server.drain_s=1")
    with d:
        c, w = connect(d.addr), connect(d.addr)
        c.send_request("POST", "/stream?n=100000&ms=10&size=5", b"")
        w.send_request("POST", "/never", b"x")
        time.sleep(0.1)
        d.signal(signal.SIGTERM)
        t = time.monotonic()
        events = list(c.events())
        assert 0.9 < time.monotonic() - t < 2 * SLOW
        eq(events[-1].json()["error"]["code"], "draining")
        assert not any(e.done for e in events)
        r = w.response()
        eq((r.status, r.error["code"]), (503, "draining"))
        eq(d.wait_exit(2), 0)


@test
def a_second_signal_ends_at_once():
    d = own_fake("--set", "server.drain_s=60")
    with d:
        c = connect(d.addr)
        c.send_request("POST", "/stream?n=100000&ms=10&size=5", b"")
        c.head()
        d.signal(signal.SIGTERM)
        time.sleep(0.1)
        assert d.running()
        t = time.monotonic()
        d.signal(signal.SIGINT)
        eq(d.wait_exit(3), 0)
        assert time.monotonic() - t < 1 * SLOW


@test
def an_idle_server_ends_at_once():
    d = own_fake()
    kept = connect(d.addr)
    kept.send_request("GET", "/health")
    kept.response()
    t = time.monotonic()
    d.stop()
    assert time.monotonic() - t < 0.5 * SLOW


@test
def a_stalled_client_does_not_hold_up_the_end():
    d = own_fake("--set", "server.drain_s=1")
    with d:
        c = connect(d.addr)
        c.send_request("POST", "/stream?n=1000000&size=1000", b"")
        time.sleep(0.1)
        t = time.monotonic()
        d.signal(signal.SIGTERM)
        eq(d.wait_exit(4), 0)
        assert time.monotonic() - t < 2.5 * SLOW


# ---- sockets ----

@test
def a_stale_unix_socket_is_replaced_and_a_live_one_is_not():
    with tempfile.TemporaryDirectory() as dir:
        path = os.path.join(dir, "q.sock")
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.close()
        with own_fake("--listen", f"unix:{path}", "--set", "server.unix_mode=0600") as d:
            eq(os.stat(path).st_mode & 0o777, 0o600)
            with connect(path) as c:
                c.send_request("GET", "/health")
                eq(c.response().status, 200)
            fails(71, "in use", "--model", NO_MODEL, "--listen", f"unix:{path}")
        assert not os.path.exists(path), "the socket's file stays behind"
        with open(path, "w") as f:
            f.write("precious")
        fails(71, "no socket", "--model", NO_MODEL, "--listen", f"unix:{path}")
        eq(open(path).read(), "precious")


@test
def abstract_and_v6_addresses():
    name = f"quern-test-{os.getpid()}"
    with own_fake("--listen", f"unix:@{name}", "--listen", "[::1]:0") as d:
        with connect("\0" + name) as c:
            c.send_request("GET", "/health")
            eq(c.response().status, 200)
        port = int(re.search(r"\[::1\]:(\d+)", d.log()).group(1))
        with connect(("::1", port)) as c:
            c.send(b"GET /health HTTP/1.1\r\nHost: [::1]:%d\r\n\r\n" % port)
            eq(c.response().status, 200)


def activated(listeners, *args):
    """Starts the daemon as systemd does with its sockets at 3 and up."""
    def pass_on():
        for i, s in enumerate(listeners):
            os.dup2(s.fileno(), 100 + i)
        for i in range(len(listeners)):
            os.dup2(100 + i, 3 + i)
            os.set_inheritable(3 + i, True)
        os.environ["LISTEN_FDS"] = str(len(listeners))
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.execv(FAKE, [FAKE, "--model", NO_MODEL, *args])
    pid = os.fork()
    if pid == 0:
        try:
            pass_on()
        finally:
            os._exit(99)
    return pid


@test
def sockets_from_systemd_survive_restarts():
    s, u = socket.socket(), socket.socket(socket.AF_UNIX)
    s.bind(("127.0.0.1", 0))
    s.listen(128)
    with tempfile.TemporaryDirectory() as dir:
        u.bind(os.path.join(dir, "u.sock"))
        u.listen(128)
        for _ in range(3):
            pid = activated([s, u])
            for addr in (s.getsockname(), u.getsockname()):
                with connect(addr) as c:
                    c.send_request("GET", "/health")
                    eq(c.response().status, 200)
            os.kill(pid, signal.SIGTERM)
            eq(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
            assert os.path.exists(os.path.join(dir, "u.sock")), "systemd's socket was removed"
        with connect(s.getsockname()) as c:  # asked while nobody serves: answered by the next one
            c.send_request("GET", "/health")
            pid = activated([s])
            eq(c.response().status, 200)
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, abstract=False):
        self.dir = tempfile.TemporaryDirectory()
        self.name = f"@quern-notify-{os.getpid()}" if abstract else os.path.join(self.dir.name, "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + self.name[1:] if abstract else self.name)
        self.sock.settimeout(5 * SLOW)
        self.got = []

    def until(self, word):
        while True:
            text = self.sock.recv(4096).decode()
            self.got.append(text)
            if word in text:
                return dict(x.split("=", 1) for x in text.split("\n"))


@test
def systemd_is_told():
    for abstract in (False, True):
        m = Manager(abstract)
        with own_fake(env={"NOTIFY_SOCKET": m.name, "WATCHDOG_USEC": "200000"}, config="log:\n  level: info\n") as d:
            assert d.addr[0] in m.until("READY=1")["STATUS"]
            times = []
            for _ in range(4):
                m.until("WATCHDOG=1")
                times.append(time.monotonic())
            assert 0.05 < (times[3] - times[0]) / 3 < 0.2 * SLOW, times
            d.signal(signal.SIGHUP)
            us = int(m.until("RELOADING=1")["MONOTONIC_USEC"])
            assert abs(us / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 5
            m.until("READY=1")
            d.signal(signal.SIGTERM)
            m.until("STOPPING=1")
            eq(d.wait_exit(3), 0)


@test
def a_stuck_engine_is_not_vouched_for():
    m = Manager()
    with own_fake("--set", "server.watchdog_s=1", env={"NOTIFY_SOCKET": m.name, "WATCHDOG_USEC": "100000", "FAKE_SICK": "1"}) as d:
        m.until("READY=1")
        m.sock.settimeout(0.6)
        try:
            m.until("WATCHDOG=1")
            raise AssertionError("the watchdog was fed")
        except (TimeoutError, socket.timeout):
            pass
        assert "no step has ended" in d.log()


@test
def sigpipe_is_no_end():
    with own_fake() as d:
        d.signal(signal.SIGPIPE)
        time.sleep(0.05)
        eq(d.get("/health").status, 200)


main()
