#!/usr/bin/env python3
"""Runs test programs, adds up their lines, prints what failed and one closing line `N passed, N failed, N skipped`.

A test program is a compiled one under build/<variant>/tests/, or a Python script tests/*/test_*.py. Each takes prefixes of
module/name and prints `ok NAME ms`, `FAIL NAME why` or `skip NAME`; everything else is its own output, shown on failure.
"""
import argparse, glob, os, subprocess, sys, time

p = argparse.ArgumentParser()
p.add_argument("--variant", default="release")
p.add_argument("--filter", default="")
p.add_argument("--c-only", action="store_true")
p.add_argument("--timeout", type=int, default=1800)
a = p.parse_args()
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
os.chdir(root)
build = f"build/{a.variant}"
env = dict(os.environ, QN_BUILD=build, QUERND=f"{root}/{build}/quernd", PYTHONPATH=f"{root}/tests/lib", PYTHONDONTWRITEBYTECODE="1")
python = f"{root}/build/venv/bin/python" if os.path.exists("build/venv/bin/python") else sys.executable

programs = [[x] for kind in ("unit", "kernels", "cuda", "cuda-checked", "sim", "golden", "faults") for x in sorted(glob.glob(f"{build}/tests/{kind}/test_*"))
            if os.access(x, os.X_OK) and not x.endswith((".o", ".d"))]
if not a.c_only:
    programs += [[python, x] for x in sorted(glob.glob("tests/*/test_*.py"))]

passed, failed, skipped, t0 = 0, [], [], time.time()
for prog in programs:
    path = prog[-1]
    kind = path.split("/")[-2]
    args = []
    # The checked emulator runs with copies that land late and fibers from the last to the first, the plain one as it comes.
    prog_env = dict({"QN_EMU_CP_ASYNC": "late", "QN_EMU_ORDER": "reverse"}, **env) if kind == "cuda-checked" else env
    if a.filter:
        f = a.filter
        if f.startswith(kind + "/"): f = f[len(kind) + 1:]
        if f:
            names = subprocess.run(prog + ["--list"], capture_output=True, text=True, env=env).stdout.split()
            if not any(n.startswith(f) for n in names): continue
            args = [f]
    t = time.time()
    try:
        r = subprocess.run(prog + args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=prog_env, timeout=a.timeout)
        out, code = r.stdout.decode(errors="replace"), r.returncode
    except subprocess.TimeoutExpired as e:
        out, code = (e.stdout or b"").decode(errors="replace"), f"no end within {a.timeout} s"
    own, n_ok, n_bad = [], 0, 0
    for line in out.splitlines():
        if line.startswith("ok "): passed += 1; n_ok += 1; own = []
        elif line.startswith("skip "): skipped.append(f"{line[5:]} {' '.join(own)}"); own = []
        elif line.startswith("FAIL "):
            n_bad += 1; failed.append(line[5:])
            print("\n".join(own[-60:])); print(f"FAIL {kind}/{line[5:]}", flush=True); own = []
        else: own.append(line)
    if code and not n_bad:
        failed.append(f"{path}: exit {code}")
        print("\n".join(own[-60:])); print(f"FAIL {path}: exit {code}", flush=True)
    print(f"  {kind}/{os.path.basename(path)}: {n_ok} ok, {n_bad} failed, {time.time() - t:.1f} s", flush=True)
for s in skipped: print(f"skipped {s}")
for f in failed: print(f"failed {f}")
print(f"{time.time() - t0:.0f} s in all")
if passed + len(failed) + len(skipped) == 0:
    print(f"no test matches '{a.filter}'"); sys.exit(2)
print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
sys.exit(1 if failed else 0)
