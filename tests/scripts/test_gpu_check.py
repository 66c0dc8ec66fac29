#!/usr/bin/env python3
"""scripts/gpu-check.sh without a card: it names the one thing that is missing and exits 69; with pretended tools its report has every
part, and a part that fails shows in report and exit code."""
import os, shutil, subprocess, tempfile

from qtest import BUILD, ROOT, SLOW, eq, main, skip, test

SMI_OK = "#!/bin/sh\necho 'GPU 0: Pretend'\n"
NVCC = "#!/bin/sh\ncase \"$1\" in --dryrun) echo \"#\\$ TOP=$(dirname \"$0\")/..\" ;; *) echo 'release 13.0, V13.0.88' ;; esac\n"
DAEMON = """#!/usr/bin/env python3
import http.server, json
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"quern":{"device":"cuda:0 Pretend"}}')
    def log_message(self, *a): pass
import signal, sys
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
http.server.HTTPServer(("127.0.0.1", 18090), H).serve_forever()
"""


class Tree:
    """A copy of the script in a tree of its own, with programs of ours for everything that it calls."""

    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory()
        d = self.dir.name
        os.makedirs(f"{d}/scripts"), os.makedirs(f"{d}/bin")
        shutil.copy(os.path.join(ROOT, "scripts/gpu-check.sh"), f"{d}/scripts/")
        for tool in ("bash", "sh", "dirname", "mkdir", "head", "tail", "cat", "grep", "nproc", "uname", "git", "curl", "sleep", "sed", "env", "python3", "kill"):
            path = shutil.which(tool)
            if path:
                os.symlink(path, f"{d}/bin/{tool}")
        return self

    def __exit__(self, *_):
        self.dir.cleanup()

    def program(self, path, text="#!/bin/sh\nexit 0\n"):
        path = os.path.join(self.dir.name, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o755)

    def all_there(self):
        self.program("bin/nvidia-smi", SMI_OK)
        self.program("bin/nvcc", NVCC)
        self.program("bin/make", "#!/bin/sh\necho made \"$@\"\n")
        self.program("bin/compute-sanitizer", "#!/bin/sh\nfor a in \"$@\"; do p=$a; done\necho sanitized\n")
        self.program("build/release/gpu/tests/cuda/test_rows", "#!/bin/sh\necho ok rows/all 1\n")
        self.program("build/release/gpu/tests/cuda/bench_cuda", "#!/bin/sh\necho '| model | us |'; echo '|---|---|'; echo '| 135M | 1 |'\n")
        self.program("build/release/quernd", DAEMON)
        self.program("build/release/quern", "#!/bin/sh\necho 100 tokens/s\n")
        self.program("scripts/fetch-model.sh", "#!/bin/sh\necho model.gguf\n")

    def run(self, **env):
        r = subprocess.run([f"{self.dir.name}/scripts/gpu-check.sh"], capture_output=True, text=True, timeout=60,
                           env={"PATH": f"{self.dir.name}/bin", "HOME": self.dir.name, "NVCC": f"{self.dir.name}/bin/nvcc", **env})
        return r.returncode, r.stderr

    def report(self):
        with open(f"{self.dir.name}/build/gpu-check/report.md") as f:
            return f.read()


def missing(tree, needle):
    code, err = tree.run()
    eq(code, 69, err)
    eq(len(err.strip().splitlines()), 1, err)
    assert needle in err, err
    assert not os.path.exists(f"{tree.dir.name}/build"), "nothing is built for nobody"


@test
def what_is_missing_is_named_in_one_line():
    with Tree() as t:
        missing(t, "no NVIDIA driver")
        t.program("bin/nvidia-smi", "#!/bin/sh\necho 'No devices were found'\nexit 6\n")
        missing(t, "no card 0: nvidia-smi -i 0 says No devices were found")
        t.program("bin/nvidia-smi", SMI_OK)
        missing(t, "no nvcc")


@test
def the_report_has_every_part():
    with Tree() as t:
        t.all_there()
        code, err = t.run()
        eq(code, 0, err)
        text = t.report()
        for x in ("## Machine", "## Build", "gpu-tests", "## Tests on the card", "ok rows/all", "## compute-sanitizer", "sanitized", "## Kernels", "| 135M | 1 |",
                  "## Server", "cuda:0 Pretend", "# 64 clients", "100 tokens/s", "All parts went well."):
            assert x in text, (x, text)
        assert "please send" in err, err


@test
def what_fails_ends_it_unless_told_to_go_on():
    with Tree() as t:
        t.all_there()
        t.program("build/release/gpu/tests/cuda/test_rows", "#!/bin/sh\necho FAIL rows/all\nexit 1\n")
        code, err = t.run()
        eq(code, 1, err)
        text = t.report()
        assert "FAIL rows/all" in text and "FAILED: exit 1" in text and "## Kernels" not in text, text
        code, _ = t.run(KEEP="1")
        eq(code, 1)
        text = t.report()
        assert "## Kernels" in text and "Some parts failed." in text, text


@test(seconds=60)
def make_names_the_toolkit_that_it_lacks():
    with tempfile.TemporaryDirectory() as d:
        r = subprocess.run(["make", "-s", "-C", ROOT, f"B={d}", "CUDA=1", "NVCC=/nowhere/nvcc", f"{d}/quern-cuda.so"], capture_output=True, text=True, timeout=60)
        assert r.returncode == 2, r
        lines = [x for x in r.stderr.splitlines() if not x.startswith("make")]
        eq(lines, ["CUDA=1: no nvcc of CUDA 13 or later in PATH or /usr/local/cuda/bin (NVCC=path says where it is)"])


@test(seconds=60)
def the_table_of_kernels_has_a_row_for_each():
    """Over the emulator, which says that they ran and no time."""
    exe = os.path.join(BUILD, "tests/cuda/bench_cuda")
    if not os.path.exists(exe):
        skip("bench_cuda was not built (make tests)")
    r = subprocess.run([exe], capture_output=True, text=True, timeout=60 * SLOW)
    eq(r.returncode, 0, r.stderr)
    rows = [x.split("|")[2].strip() for x in r.stdout.splitlines() if x.startswith("| small")]
    for op in ("linear Q4_1", "glu BF16", "add_norm", "rope_kv", "attention, decode", "attention, prompt"):
        assert op in rows, (op, r.stdout)
    assert all(x.endswith(" ran | | | |") for x in r.stdout.splitlines() if x.startswith("| small")), r.stdout


main()
