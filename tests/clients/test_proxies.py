#!/usr/bin/env python3
"""nginx and HAProxy as docs/proxies.md configures them: the text of the manual is run, with ports, paths and certificate
of this test put in. Streams arrive event by event, errors stay OpenAI's objects, and a client that leaves frees its work."""
import os, re, shutil, ssl, subprocess, tempfile, time

from qtest import ROOT, Conn, eq, free_port, main, shared_daemon, test, text_of, wait_for

MODEL = "smollm2-135m-instruct-q4_1"
BODY = {"messages": [{"role": "user", "content": "Count from one to thirty."}], "stream": True, "max_tokens": 40,
        "temperature": 0, "ignore_eos": True}


def daemon():
    return shared_daemon(MODEL, ["--model-name", MODEL], both=True)


def block(language):
    with open(os.path.join(ROOT, "docs/proxies.md")) as f:
        return re.search(rf"```{language}\n(.*?)```", f.read(), re.S).group(1)


class TlsConn(Conn):
    def __init__(self, port, timeout=30):
        super().__init__(("127.0.0.1", port), timeout)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, server_hostname="llm.example.org")


class Proxy:
    """The proxy process in the foreground, in a folder of its own."""

    def __init__(self, kind):
        d = daemon()
        self.dir = tempfile.TemporaryDirectory(prefix="qproxy-")
        self.port, p = free_port(), self.dir.name
        os.chmod(p, 0o755)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                        "-subj", "/CN=llm.example.org", "-keyout", f"{p}/key", "-out", f"{p}/crt"], check=True, capture_output=True)
        text = block(kind)
        swap = {"nginx": [("unix:/run/quernd/quernd.sock", f"unix:{d.unix_addr}"), ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
                          ("/etc/ssl/llm.example.org.crt", f"{p}/crt"), ("/etc/ssl/llm.example.org.key", f"{p}/key")],
                "haproxy": [("bind :8443", f"bind 127.0.0.1:{self.port}"), ("/etc/haproxy/llm.example.org.pem", f"{p}/pem"),
                            ("127.0.0.1:8080", f"127.0.0.1:{d.port}")]}[kind]
        for old, new in swap:
            assert old in text, f"docs/proxies.md says no more {old!r}"
            text = text.replace(old, new)
        if kind == "nginx":
            text = (f"daemon off; pid {p}/pid; error_log {p}/log; worker_processes 1;\n"
                    + ("user root;\n" if os.getuid() == 0 else "") + "events { worker_connections 512; }\n"
                    + f"http {{ access_log off; client_body_temp_path {p}/b; proxy_temp_path {p}/t; fastcgi_temp_path {p}/f;"
                    + f" uwsgi_temp_path {p}/u; scgi_temp_path {p}/s;\n{text}\n}}\n")
        else:
            with open(f"{p}/crt") as a, open(f"{p}/key") as b, open(f"{p}/pem", "w") as c:
                c.write(a.read() + b.read())
        with open(f"{p}/conf", "w") as f:
            f.write(text)
        exe = shutil.which(kind, path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
        assert exe, f"{kind} is missing: scripts/deps.sh test installs it"
        args = [exe, "-p", p, "-c", f"{p}/conf"] if kind == "nginx" else [exe, "-db", "-f", f"{p}/conf"]
        self.log = open(f"{p}/out", "w+")
        self.proc = subprocess.Popen(args, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

        def up():
            if self.proc.poll() is not None:
                self.log.seek(0)
                raise AssertionError(f"{kind} ended: {self.log.read()[-1500:]}")
            try:
                return self.get("/readyz").status == 200
            except (OSError, AssertionError):
                return False
        wait_for(up, 10, f"{kind} answers")

    def get(self, path):
        with TlsConn(self.port) as c:
            c.send_request("GET", path)
            return c.response()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        self.proc.wait(10)
        self.log.close()
        self.dir.cleanup()


def streams_event_by_event(kind):
    want = text_of(list(daemon().stream("/v1/chat/completions", BODY)))
    with Proxy(kind) as p, TlsConn(p.port) as c:
        c.send_request("POST", "/v1/chat/completions", BODY)
        events = list(c.events())
        eq(text_of(events), want, "text through the proxy")
        assert events[-1].done
        spread = events[-1].at - events[0].at
        moments = len({round(e.at, 3) for e in events})
        assert moments >= 10, f"{len(events)} events came in {moments} pieces within {spread:.3f} s: the proxy gathers them"


def a_client_that_leaves_frees_its_work(kind):
    d = daemon()
    with Proxy(kind) as p:
        c = TlsConn(p.port)
        c.send_request("POST", "/v1/chat/completions", dict(BODY, max_tokens=4000))
        c.head()
        c.sock.recv(1)
        assert d.metric("vllm:num_requests_running") >= 1
        c.close()
        wait_for(lambda: d.metric("vllm:num_requests_running") == 0, 5, "the request behind the proxy ended")


def errors_stay_objects(kind):
    with Proxy(kind) as p, TlsConn(p.port) as c:
        c.send_request("POST", "/v1/chat/completions", {"messages": []})
        r = c.response()
        eq(r.status, 400)
        eq(r.error["param"], "messages")


def keeps_its_connection(kind):
    """Twenty requests on one client connection: none is lost to a reused upstream connection that was just closed."""
    with Proxy(kind) as p, TlsConn(p.port) as c:
        for i in range(20):
            c.send_request("POST", "/tokenize", {"content": f"word {i}"})
            r = c.response()
            eq(r.status, 200)
            time.sleep(0.01)


for kind in ("nginx", "haproxy"):
    for fn in (streams_event_by_event, a_client_that_leaves_frees_its_work, errors_stay_objects, keeps_its_connection):
        test(name=f"{kind}_{fn.__name__}", seconds=60)(lambda fn=fn, kind=kind: fn(kind))

main()
