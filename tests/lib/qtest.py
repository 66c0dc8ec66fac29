"""The harness of the Python tests: a test is a function, a daemon is an object, and the output is drive.py's protocol.

    from qtest import test, main, shared_daemon, Daemon, connect, sse_parse, eq

    @test                                   # named <module>/<function>, module from the file's name: test_health.py -> health
    def answers_ok():
        r = shared_daemon().get("/health")
        eq(r.status, 200)

    @test(seconds=90)                       # a deadline of its own (default 30)
    def survives_sigterm():
        with Daemon(model="smollm2-135m-instruct-q4_1", flags=["--threads", "1"]) as d: ...

    main()

Daemon starts $QUERND (drive.py sets it; build/release/quernd otherwise), waits until it is ready, and on the way out stops
it with SIGTERM and insists on exit code 0 and on a stderr without a sanitizer's report. shared_daemon(...) keeps one daemon
for every test of the file that asks with the same arguments. Bytes go over plain sockets, so that a test sees exactly what
was sent; nothing outside the standard library is imported.
"""
import inspect, json, os, random, signal, socket, subprocess, sys, tempfile, threading, time, traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("QN_BUILD", "build/release"))
QUERND = os.environ.get("QUERND") or os.path.join(BUILD, "quernd")
CACHE = os.environ.get("QUERN_CACHE") or os.path.expanduser("~/.cache/quern")
# Sanitized and emulated builds are slower; deadlines stretch with them.
SLOW = 4 if any(x in BUILD for x in ("asan", "tsan", "ubsan")) else 1
REPORTS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer", "runtime error:", "SUMMARY: UndefinedBehaviorSanitizer")


# ---- tests ----------------------------------------------------------------------------------------------------------

class Skip(Exception):
    """Ends a test as skipped."""


class Late(Exception):
    """The test's deadline."""


_tests, _shared = [], {}


def test(fn=None, *, seconds=30, name=None):
    """Decorator: registers a function without arguments as a test."""
    def add(f):
        file = os.path.basename(inspect.getfile(f))
        module = file[len("test_"):] if file.startswith("test_") else file
        _tests.append((f"{os.path.splitext(module)[0]}/{name or f.__name__}", f, seconds * SLOW))
        return f
    return add(fn) if fn else add


def add_test(name, fn, seconds=30):
    """Registers module/name from a loop over cases."""
    _tests.append((name, fn, seconds * SLOW))


def skip(why):
    raise Skip(why)


def eq(got, want, what=""):
    assert got == want, f"{what + ': ' if what else ''}got {_short(got)}, wanted {_short(want)}"


def _short(x):
    s = repr(x)
    return s if len(s) < 1200 else s[:800] + " … " + s[-300:]


def wait_for(check, seconds=5, what="condition"):
    """Polls check() until it is true; fails after `seconds`. Returns what check() returned."""
    end = time.monotonic() + seconds * SLOW
    while True:
        got = check()
        if got:
            return got
        assert time.monotonic() < end, f"{what}: not within {seconds * SLOW} s"
        time.sleep(0.01)


def _run_one(name, fn, seconds):
    def late(*_):
        raise Late(f"not done within {seconds} s")

    def stuck():  # code that swallows the exception, or waits where Python cannot be interrupted
        print(f"FAIL {name} stuck: not done within {seconds} s", flush=True)
        for d in list(Daemon.alive):
            d.kill()
        os._exit(1)

    watchdog = threading.Timer(seconds + 15, stuck)
    watchdog.daemon = True
    watchdog.start()
    signal.signal(signal.SIGALRM, late)
    signal.alarm(int(seconds))
    t0, line, ok = time.monotonic(), "", False
    try:
        fn()
        line, ok = f"ok {name} {(time.monotonic() - t0) * 1e3:.0f}", True
    except Skip as e:
        print(f"    skipped: {e}")
        line, ok = f"skip {name}", True
    except BaseException as e:  # noqa: BLE001 - a test ends with a line whatever happened in it
        signal.alarm(0)
        if isinstance(e, KeyboardInterrupt):
            raise
        traceback.print_exc(file=sys.stdout)
        first = (str(e).splitlines() or [""])[0]
        line = f"FAIL {name} {type(e).__name__}: {first[:300]}"
    finally:
        signal.alarm(0)
        watchdog.cancel()
    keep = set(id(d) for d in _shared.values())
    for d in list(Daemon.alive):  # what a failed test left running
        if id(d) not in keep:
            d.kill()
    if not ok:
        for d in _shared.values():
            print(f"    last lines of the shared daemon's log ({d.url}):\n" + d.log_tail(15))
    print(line, flush=True)
    return ok


def main():
    """Runs the tests that argv's prefixes pick (all without any); --list names them. Exits 1 when one failed."""
    args = sys.argv[1:]
    if args == ["--list"]:
        print("\n".join(n for n, _, _ in _tests))
        sys.exit(0)
    bad = ran = 0
    for name, fn, seconds in _tests:
        if not args or any(name.startswith(a) for a in args):
            ran += 1
            bad += not _run_one(name, fn, seconds)
    for d in list(_shared.values()):
        module = _tests[0][0].split("/")[0]
        bad += not _run_one(f"{module}/daemon_ends_clean", d.stop, 60)
    sys.exit(1 if bad else 0)


# ---- the daemon -----------------------------------------------------------------------------------------------------

def model_path(model):
    """A path as it is; "tiny" the committed random model; else a name of scripts/models.tsv, from the cache."""
    if model == "tiny":
        model = os.path.join(ROOT, "tests/data/tiny-llama.gguf")
    elif "/" not in model and not model.endswith(".gguf"):
        model = os.path.join(CACHE, "models", model + ".gguf")
    assert os.path.exists(model), f"{model} is missing: `scripts/fetch-model.sh NAME` fetches it, `make test` all that tests need"
    return model


def free_port():
    """A port that is free now, outside the range from which the kernel picks ports for clients."""
    while True:
        port = random.SystemRandom().randrange(10000, 32000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


class Daemon:
    """One quernd. addr is ("127.0.0.1", port), or the path of a UNIX socket with unix=True; with both=True it listens on
    both and addr is the TCP one, unix_addr the other. config is text of a YAML file. wait=False does not wait for
    readiness. checks=False: stop() does not judge the exit (for tests that kill it)."""
    alive = []

    def __init__(self, model="tiny", flags=(), *, unix=False, both=False, config=None, env=None, wait=True, checks=True,
                 ready_seconds=60, exe=None):
        self.dir = tempfile.TemporaryDirectory(prefix="qtest-")
        self.exe = exe or QUERND
        self.flags, self.config, self.checks, self.ready_seconds = list(flags), config, checks, ready_seconds * SLOW
        self.model = model_path(model) if model else None
        self.unix_addr = os.path.join(self.dir.name, "q.sock") if unix or both else None
        self.tcp = not unix
        self.env = dict(os.environ, **(env or {}))
        for var, opts in (("ASAN_OPTIONS", "exitcode=99:detect_leaks=1"), ("UBSAN_OPTIONS", "print_stacktrace=1"),
                          ("TSAN_OPTIONS", "exitcode=99:second_deadlock_stack=1")):
            self.env[var] = opts + (":" + self.env[var] if self.env.get(var) else "")
        self.proc, self.code = None, None
        self.start(wait)

    def start(self, wait=True):
        assert os.path.exists(self.exe), f"{self.exe} is missing: run make"
        for attempt in range(3):
            self.port = free_port() if self.tcp else None
            self.addr = ("127.0.0.1", self.port) if self.tcp else self.unix_addr
            self.url = f"http://127.0.0.1:{self.port}" if self.tcp else f"unix:{self.unix_addr}"
            args = [self.exe]
            if self.config is not None:
                path = os.path.join(self.dir.name, "quern.yaml")
                with open(path, "w") as f:
                    f.write(self.config)
                args += ["--config", path]
            if self.model:
                args += ["--model", self.model]
            if self.tcp:
                args += ["--listen", f"127.0.0.1:{self.port}"]
            if self.unix_addr:
                args += ["--listen", f"unix:{self.unix_addr}"]
            self.args = args + self.flags
            self.log_path = os.path.join(self.dir.name, "log")
            self.t0 = time.monotonic()
            with open(self.log_path, "ab") as log:
                self.proc = subprocess.Popen(self.args, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env, cwd=ROOT)
            self.code = None
            Daemon.alive.append(self)
            if not wait:
                return
            if self._wait_ready(last=attempt == 2):
                self.ready_after = time.monotonic() - self.t0
                return

    def _wait_ready(self, last):
        while True:
            code = self.proc.poll()
            if code is not None:
                self._gone(code)
                if not last and "in use" in self.log():
                    return False  # somebody took the port in between
                raise AssertionError(f"{' '.join(self.args)}: exit {code} before it was ready\n{self.log_tail()}")
            try:
                if self.get("/readyz", timeout=2).status == 200:
                    return True
            except (OSError, ValueError, AssertionError):
                pass
            if time.monotonic() - self.t0 > self.ready_seconds:
                self.kill()
                raise AssertionError(f"{' '.join(self.args)}: not ready within {self.ready_seconds} s\n{self.log_tail()}")
            time.sleep(0.02)

    def _gone(self, code):
        self.code = code
        if self in Daemon.alive:
            Daemon.alive.remove(self)

    @property
    def pid(self):
        return self.proc.pid

    def running(self):
        return self.proc.poll() is None

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def log_tail(self, n=40):
        return "\n".join("    | " + line for line in self.log().splitlines()[-n:])

    def signal(self, sig):
        self.proc.send_signal(sig)

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))

    def kill(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self._gone(self.proc.wait())

    def wait_exit(self, seconds=30):
        try:
            self._gone(self.proc.wait(seconds * SLOW))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"quernd did not end within {seconds * SLOW} s\n{self.log_tail()}") from None
        return self.code

    def stop(self, seconds=30):
        """SIGTERM, then the end with code 0 and without a sanitizer's report."""
        if _shared.get(getattr(self, "key", None)) is self:
            del _shared[self.key]
        if self.code is None:
            if self.proc.poll() is None:
                self.signal(signal.SIGTERM)
            self.wait_exit(seconds)
        if self.checks:
            log = self.log()
            for r in REPORTS:
                assert r not in log, f"{r} in the daemon's log:\n{self.log_tail(80)}"
            assert self.code == 0, f"quernd ended with {self.code}\n{self.log_tail()}"
        self.dir.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, tb):
        if kind is None:
            self.stop()
        else:
            print("    last lines of the daemon's log:\n" + self.log_tail(20))
            self.kill()

    # -- requests over the daemon's address --
    def connect(self, timeout=30):
        return connect(self.addr, timeout)

    def request(self, method, path, body=None, headers=(), timeout=30):
        """body: bytes, str, or an object to send as JSON. Returns a Response."""
        with self.connect(timeout) as c:
            c.send_request(method, path, body, headers)
            return c.response(head_only=method == "HEAD")

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body, **kw):
        return self.request("POST", path, body, **kw)

    def stream(self, path, body, headers=(), timeout=60):
        """Yields the SSE events of a streamed reply as they arrive (asserts a 200 first)."""
        with self.connect(timeout) as c:
            c.send_request("POST", path, body, headers)
            yield from c.events()

    def metric(self, name, labels=""):
        """The value of one line of /metrics (the sum over labels when none are given); None when there is none."""
        total = None
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(name + labels) and line[len(name + labels):][:1] in ("{", " "):
                total = (total or 0) + float(line.rsplit(" ", 1)[1])
        return total


def shared_daemon(model="tiny", flags=(), **kw):
    """One daemon for all tests of this file that give the same arguments; started at the first call, judged at the end."""
    key = (model, tuple(flags), repr(sorted(kw.items())))
    d = _shared.get(key)
    if d and not d.running():
        _shared.pop(key)
        d._gone(d.proc.returncode)
        raise AssertionError(f"the shared daemon ended with {d.code} in an earlier test\n{d.log_tail()}")
    if not d:
        d = _shared[key] = Daemon(model, flags, **kw)
        d.key = key
    return d


# ---- bytes ----------------------------------------------------------------------------------------------------------

class Response:
    """status, headers (list of pairs, names as sent), body (bytes, de-chunked), chunked, raw head."""

    def __init__(self, head):
        self.head = head
        lines = head.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ", 2)
        assert parts[0].startswith("HTTP/1."), f"not a status line: {lines[0]!r}"
        self.version, self.status = parts[0], int(parts[1])
        self.headers = [tuple(x.split(": ", 1)) if ": " in x else (x.rstrip(":"), "") for x in lines[1:] if x]
        self.body, self.chunked = b"", False

    def header(self, name, default=None):
        got = [v for k, v in self.headers if k.lower() == name.lower()]
        return got[0] if got else default

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The error object; asserts that the body is OpenAI's shape, whole."""
        e = self.json()
        assert set(e) == {"error"} and {"message", "type", "param", "code"} <= set(e["error"]), f"not an error object: {self.body[:300]!r}"
        return e["error"]

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Conn:
    """A plain socket that speaks no more HTTP than it is asked to."""

    def __init__(self, addr, timeout=30):
        if isinstance(addr, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout * SLOW)
            self.sock.connect(addr)
        else:
            self.sock = socket.create_connection(addr, timeout * SLOW)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        """Closes with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def send_request(self, method, path, body=None, headers=()):
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
        given = {k.lower() for k, _ in pairs}
        if body is not None:
            if "content-type" not in given:
                lines.append("Content-Type: application/json")
            if "content-length" not in given and "transfer-encoding" not in given:
                lines.append(f"Content-Length: {len(body)}")
        lines += [f"{k}: {v}" for k, v in pairs]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b""))

    def _more(self):
        piece = self.sock.recv(65536)
        self.got += piece
        return len(piece) > 0

    def _until(self, mark):
        while mark not in self.got:
            assert self._more(), f"connection closed before {mark!r}; got {self.got[:300]!r}"
        at = self.got.index(mark) + len(mark)
        head, self.got = self.got[:at], self.got[at:]
        return head

    def _exactly(self, n):
        while len(self.got) < n:
            assert self._more(), f"connection closed {n - len(self.got)} bytes early"
        piece, self.got = self.got[:n], self.got[n:]
        return piece

    def head(self):
        """Reads a reply up to the end of its headers (an interim 100 is passed over)."""
        while True:
            r = Response(self._until(b"\r\n\r\n")[:-4])
            if r.status != 100:
                r.chunked = (r.header("transfer-encoding") or "").lower() == "chunked"
                return r

    def chunks(self):
        """Yields the chunks of a chunked body; asserts that the last one comes."""
        while True:
            n = int(self._until(b"\r\n").split(b";")[0], 16)
            piece = self._exactly(n)
            eq(self._until(b"\r\n"), b"\r\n", "end of chunk")
            if n == 0:
                return
            yield piece

    def response(self, head_only=False):
        """Reads one whole reply."""
        r = self.head()
        if head_only or r.status in (204, 304):
            pass
        elif r.chunked:
            r.body = b"".join(self.chunks())
        elif r.header("content-length") is not None:
            r.body = self._exactly(int(r.header("content-length")))
        else:
            while self._more():
                pass
            r.body, self.got = self.got, b""
        return r

    def events(self):
        """Yields the SSE events of a streamed reply as they arrive."""
        r = self.head()
        if r.status != 200:
            r.body = b"".join(self.chunks()) if r.chunked else self._exactly(int(r.header("content-length", "0")))
        assert r.status == 200, f"wanted a stream, got {r}"
        assert (r.header("content-type") or "").startswith("text/event-stream"), f"not a stream: {r.headers}"
        parser = SseParser()
        for piece in self.chunks():
            yield from parser.feed(piece)
        parser.end()

    def rest(self, seconds=5):
        """Everything until the other side closes; what has come when `seconds` are over otherwise."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.sock.settimeout(max(0.01, end - time.monotonic()))
                if not self._more():
                    break
        except (TimeoutError, socket.timeout, ConnectionResetError):
            pass
        piece, self.got = self.got, b""
        return piece

    def closed(self, seconds=5):
        """True when the other side closes (FIN or RST) within `seconds`, whatever it sends before."""
        end = time.monotonic() + seconds * SLOW
        try:
            while time.monotonic() < end:
                self.sock.settimeout(max(0.01, end - time.monotonic()))
                if not self._more():
                    return True
        except ConnectionResetError:
            return True
        except (TimeoutError, socket.timeout):
            pass
        return False


def connect(addr, timeout=30):
    return Conn(addr, timeout)


def raw_request(addr, data, seconds=5):
    """Sends bytes as they are; returns what came back until the other side closed, or within `seconds`."""
    with connect(addr, seconds + 5) as c:
        try:
            c.send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return c.rest(seconds)


def parse_responses(data):
    """Splits the bytes of a connection into whole replies; asserts that nothing is left over."""
    out = []
    while data:
        c = Conn.__new__(Conn)
        c.got, c._more = data, lambda: False
        out.append(c.response())
        data = c.got
    return out


class Event:
    """One SSE event: data (text), comment (text of a comment line) or both None; name of `event:`; at: monotonic time."""

    def __init__(self, data, comment=None, name=None):
        self.data, self.comment, self.name, self.at = data, comment, name, time.monotonic()

    @property
    def done(self):
        return self.data == "[DONE]"

    def json(self):
        return json.loads(self.data)

    def __repr__(self):
        return f"<event {self.data if self.comment is None else ':' + self.comment}>"


class SseParser:
    """Strict: every event is valid UTF-8 on its own, lines end in LF, an event in an empty line."""

    def __init__(self):
        self.buf = b""

    def feed(self, data):
        self.buf += data
        while b"\n\n" in self.buf:
            block, self.buf = self.buf.split(b"\n\n", 1)
            text = block.decode()  # half a character in an event is an error here
            data_lines, comment, name = [], None, None
            for line in text.split("\n"):
                assert "\r" not in line, f"CR in an event: {line!r}"
                if line.startswith(":"):
                    comment = line[1:].strip()
                elif line.startswith("data: "):
                    data_lines.append(line[6:])
                elif line.startswith("event: "):
                    name = line[7:]
                else:
                    raise AssertionError(f"strange SSE line {line!r}")
            yield Event("\n".join(data_lines) if data_lines else None, comment, name)

    def end(self):
        assert not self.buf, f"the stream ended inside an event: {self.buf[-200:]!r}"


def sse_parse(data):
    """All events of a whole body."""
    p = SseParser()
    events = list(p.feed(data))
    p.end()
    return events


def text_of(events, choice=0):
    """The concatenated text of one choice of a chat or completion stream."""
    out = []
    for e in events:
        if e.data and not e.done:
            for c in e.json().get("choices", []):
                if c["index"] == choice:
                    out.append(c["delta"].get("content") or "" if "delta" in c else c.get("text") or "")
    return "".join(out)
