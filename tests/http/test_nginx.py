#!/usr/bin/env python3
"""Strictness against a program nobody here wrote: what nginx refuses, quernd refuses too. The tables of test_hostile.py and
random damage to them go to both; nginx answers 200 to whatever it can read, on a location of its own."""
import os, random, shutil, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../lib")]
from front import fake
from qtest import Daemon, connect, eq, free_port, main, parse_responses, raw_request, test, wait_for

tables = {}
with open(os.path.join(HERE, "test_hostile.py")) as f:
    text = f.read()
exec(text[text.index("\nH = b"):text.index("\ndef check_refused")], tables)

CONF = """
daemon off; master_process off; pid {dir}/pid; error_log {dir}/error crit;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  client_header_timeout 1s; client_body_timeout 1s; lingering_close off; client_max_body_size 8m;
  server {{ listen 127.0.0.1:{port}; location / {{ client_body_in_single_buffer on; proxy_pass http://127.0.0.1:{back}; }} }}
  server {{ listen 127.0.0.1:{back}; location / {{ return 200 "ok"; }} }}
}}
"""


class Nginx:
    """A proxy in front of a server that always says 200: so bodies and their framing are read, too."""

    def __enter__(self):
        exe = shutil.which("nginx") or "/usr/sbin/nginx"
        assert os.path.exists(exe), "nginx is missing: scripts/deps.sh test installs it"
        self.dir = tempfile.TemporaryDirectory()
        self.port, back = free_port(), free_port()
        path = os.path.join(self.dir.name, "nginx.conf")
        with open(path, "w") as f:
            f.write(CONF.format(dir=self.dir.name, port=self.port, back=back))
        self.proc = subprocess.Popen([exe, "-c", path, "-e", os.path.join(self.dir.name, "error")], stderr=subprocess.DEVNULL)
        self.addr = ("127.0.0.1", self.port)

        def up():
            try:
                return b"200" in raw_request(self.addr, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 1)
            except OSError:
                return False
        wait_for(up, 10, "nginx")
        return self

    def __exit__(self, *_):
        self.proc.terminate()
        self.proc.wait()
        self.dir.cleanup()


def first_status(addr, data, seconds=0.15):
    """Of the first answer; 0: none in that time."""
    with connect(addr, 5) as c:
        try:
            c.send(data)
            c.sock.settimeout(seconds)
            got = c.sock.recv(4096)
        except OSError:
            return 0
    return int(got[9:12]) if got[:5] == b"HTTP/" and got[9:12].isdigit() else 0


@test(seconds=120)
def what_nginx_refuses_we_refuse():
    rng, worse, both, ours_only = random.Random(11), [], 0, 0
    seeds = [v[0] for v in tables["REFUSED"].values() if len(v[0]) < 3000] + [v[0] for v in tables["ACCEPTED"].values() if len(v[0]) < 3000]
    cases = list(seeds)
    for _ in range(800):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 4)):
            k = rng.randrange(len(data) + 1)
            what = rng.randrange(3)
            if what == 0:
                data[k % len(data)] = rng.choice(b"\r\n\0 :;,0aA\x0b\x7f\xff/@[]%?#\t")
            elif what == 1:
                data[k:k] = rng.choice([b"\r\n", b"\n", b"\r", b" ", b"\0", b"0", b"\t", b":", b"Content-Length: 3\r\n", b"Host: b\r\n", b"\r\n\r\n", b"%00", b"chunked"])
            else:
                del data[k:k + rng.randrange(1, 9)]
            if not data:
                data = bytearray(b"\r\n")
        cases.append(bytes(data))
    d = fake("--set", "server.hosts=*")
    with Nginx() as n:
        for data in cases:
            theirs = first_status(n.addr, data)
            if theirs in (0, 200):
                continue
            mine = first_status(d.addr, data)
            if 200 <= mine < 300:
                worse.append((theirs, mine, data[:200]))
            both += 1
    assert both > 200, both
    print(f"    {both} of {len(cases)} were refused by nginx, {len(worse)} of those accepted here")
    assert not worse, worse[:5]


main()
