#!/usr/bin/env python3
"""`make run` when everything is there: ready within two seconds, without the network, and it says what to try; when the port
is taken it says so. And what `make install` puts where."""
import os, re, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request

from qtest import ROOT, SLOW, eq, free_port, main, skip, test, wait_for

# No way out: an index and proxies where nothing listens.
NO_NET = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9",
          "no_proxy": "127.0.0.1", "MAKEFLAGS": ""}


def start(*args, **env):
    out = tempfile.TemporaryFile("w+")
    p = subprocess.Popen(["make", "-s", "run", *args], cwd=ROOT, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                         env={**os.environ, **NO_NET, **env}, start_new_session=True)
    p.out = out
    return p


def text(p):
    p.out.seek(0)
    return p.out.read()


def ready(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).status == 200
    except OSError:
        return False


def end(p):
    os.killpg(p.pid, signal.SIGTERM)
    return p.wait(30)


@test(seconds=120)
def a_second_start_is_ready_within_two_seconds():
    subprocess.run(["make", "-s", "all"], cwd=ROOT, check=True)  # the first start's work
    best = 99.0
    for _ in range(3):  # the best of three: the machine may be busy with something else
        port = free_port()
        t0 = time.monotonic()
        p = start(LISTEN=f"127.0.0.1:{port}")
        try:
            def up():
                assert p.poll() is None, text(p)
                return ready(port)
            wait_for(up, 20, "make run is ready")
            best = min(best, time.monotonic() - t0)
            line = wait_for(lambda: re.search(r"^  curl .*\n.*$", text(p), re.M), 3, "the line to try").group(0)
            r = subprocess.run(["sh", "-c", line.replace('"stream":true', '"stream":true,"max_tokens":3')], capture_output=True, text=True, timeout=20)
            assert "data: [DONE]" in r.stdout, r.stdout + r.stderr
        finally:
            end(p)
        if best < 2:
            break
    assert best < 2 * SLOW, f"ready after {best:.2f} s\n{text(p)}"


@test
def a_taken_port_is_said():
    with socket.create_server(("127.0.0.1", free_port())) as s:
        port = s.getsockname()[1]
        p = start(LISTEN=f"127.0.0.1:{port}")
        assert p.wait(20) != 0
        assert f"127.0.0.1:{port}" in text(p) and "in use" in text(p), text(p)


@test
def an_unknown_model_names_the_known_ones():
    p = start("MODEL=nosuch", LISTEN=f"127.0.0.1:{free_port()}")
    assert p.wait(20) != 0
    assert "smollm2-135m-instruct-q4_1" in text(p), text(p)


@test(seconds=60)
def installs_binary_manual_and_unit():
    with tempfile.TemporaryDirectory() as d:
        subprocess.run(["make", "-s", "install", f"DESTDIR={d}", "prefix=/opt/q"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        got = sorted(os.path.relpath(os.path.join(p, f), d) for p, _, files in os.walk(d) for f in files)
        for want in ("opt/q/bin/quernd", "opt/q/lib/systemd/system/quernd.service", "opt/q/share/doc/quern/quern.yaml",
                     "opt/q/share/man/man5/quern.yaml.5", "opt/q/share/man/man8/quernd.8"):
            assert want in got, f"{want} is missing: {got}"
        assert re.match(r"quernd \d+\.\d+\.\d+", subprocess.run([f"{d}/opt/q/bin/quernd", "--version"], capture_output=True, text=True, check=True).stdout)
        with open(f"{d}/opt/q/lib/systemd/system/quernd.service") as f:
            unit = f.read()
        assert "ExecStart=/opt/q/bin/quernd " in unit and "@" not in re.sub(r"^#.*$|SystemCallFilter=.*$", "", unit, flags=re.M), unit
        # The sample that is installed is a configuration that quernd takes.
        r = subprocess.run([f"{d}/opt/q/bin/quernd", "--config", f"{d}/opt/q/share/doc/quern/quern.yaml", "--check-config"], capture_output=True, text=True)
        eq(r.returncode, 0, r.stderr)


@test
def the_unit_verifies_and_is_closed():
    if not shutil.which("systemd-analyze"):
        skip("systemd-analyze is not installed")
    with tempfile.TemporaryDirectory() as d, open(os.path.join(ROOT, "systemd/quernd.service")) as f:
        path = f"{d}/quernd.service"
        with open(path, "w") as out:
            out.write(f.read().replace("@bindir@/quernd", sys.executable).replace("/bin/kill", sys.executable))
        r = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
        eq([x for x in (r.stdout + r.stderr).splitlines() if "quernd.service" in x], [])
        r = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", path], capture_output=True, text=True)
        eq(r.returncode, 0, "exposure above 2.0: " + r.stdout[-300:])


main()
