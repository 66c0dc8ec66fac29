"""What the benches share: servers that are started and stopped, medians with their spread, Markdown tables, the machine's load.

A figure is a median with its lowest and highest value. A ratio is taken pair by pair, of runs that stood beside each other, and
written `2.10 (1.95..2.31)`: report.py finds those in the tables. Tables go to stdout, progress to stderr. Nothing outside the
standard library.
"""
import http.client, json, os, shlex, signal, socket, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CORES = len(os.sched_getaffinity(0))


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def number(x):
    """Three digits that count."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def spread(values):
    """`median (lowest..highest)` as a cell."""
    values = list(values)
    return f"{number(statistics.median(values))} ({number(min(values))}..{number(max(values))})" if values else "-"


def ratio(ours, peer):
    """The median of the ratios of pairs, as a cell."""
    r = [o / p for o, p in zip(ours, peer) if p]
    return f"{statistics.median(r):.2f} ({min(r):.2f}..{max(r):.2f})" if r else "-"


def table(head, rows):
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for r in rows:
        print("| " + " | ".join(str(x) for x in r) + " |")
    print(flush=True)


class Load:
    """with Load(): the load average before and after is printed below the table, because figures of a busy machine mean little."""

    def __enter__(self):
        self.before = os.getloadavg()[0]
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            print(f"Load average {self.before:.1f} before, {os.getloadavg()[0]:.1f} after.\n", flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def model_name(path):
    return os.path.basename(path).removesuffix(".gguf")


class Server:
    """A command line that serves on a port (`{port}` in it is filled in), ready when it answers /health, stopped by leaving."""

    def __init__(self, command, name="server", port=None, wait=600, env=None):
        self.name, self.port = name, port or free_port()
        if self._healthy():
            sys.exit(f"something answers on port {self.port} already")
        self.log = tempfile.NamedTemporaryFile("w+", prefix=f"bench-{name}-", suffix=".log", delete=False)
        begin = time.monotonic()
        self.proc = subprocess.Popen(shlex.split(command.replace("{port}", str(self.port))), stdout=self.log, stderr=self.log,
                                     stdin=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **(env or {})})
        while not self._healthy():
            if self.proc.poll() is not None or time.monotonic() - begin > wait:
                self.stop()
                sys.exit(f"{name} does not serve: see {self.log.name}")
            time.sleep(0.02)
        self.ready = time.monotonic() - begin

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _healthy(self):
        try:
            c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            c.request("GET", "/health")
            return c.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False

    def post(self, path, body, timeout=1800):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        data = r.read()
        if r.status != 200:
            sys.exit(f"{self.name}: {path}: {r.status} {data[:500].decode(errors='replace')}")
        return json.loads(data)

    def load(self, *args):
        """One run of load.py; its figures."""
        r = subprocess.run([sys.executable, os.path.join(HERE, "load.py"), "--port", str(self.port), *map(str, args)], capture_output=True, text=True,
                           timeout=3600)
        if r.returncode or r.stderr:
            sys.exit(f"load.py against {self.name}: {r.stderr}")
        return json.loads(r.stdout)

    def peak_mib(self):
        """The most memory it had at once, children included."""
        return sum(hwm(p) for p in family(self.proc.pid))

    def stop(self):
        for sig, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, 30)):
            if self.proc.poll() is None:
                os.killpg(self.proc.pid, sig)
                try:
                    self.proc.wait(patience)
                except subprocess.TimeoutExpired:
                    continue
        self.log.close()


def hwm(pid):
    try:
        with open(f"/proc/{pid}/status") as f:
            return next(int(x.split()[1]) for x in f if x.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return 0.0


def family(pid):
    """pid and the processes below it."""
    parents = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                with open(f"/proc/{d}/stat") as f:
                    parents.setdefault(int(f.read().rpartition(")")[2].split()[1]), []).append(int(d))
            except OSError:
                pass
    out, todo = [], [pid]
    while todo:
        out.append(todo.pop())
        todo += parents.get(out[-1], [])
    return out


def quernd(model, *flags):
    """The command line of ours on {port}."""
    return shlex.join([os.path.join(ROOT, "build/release/quernd"), "--model", model, "--model-name", "m", "--listen", "127.0.0.1:{port}", *flags])
