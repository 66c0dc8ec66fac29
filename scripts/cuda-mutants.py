#!/usr/bin/env python3
"""Plants bugs in the CUDA kernels, one at a time, and asks the tests of the checked emulator to find each: cuda-mutants.py [NAME…]

tests/cuda/mutants.txt lists them: what text of which file becomes what, and which tests have to notice. A mutated file lies in a folder
of its own that the compiler searches first; only the objects it goes into are compiled and linked before the archive. A mutant is killed
if the tests fail, are aborted by a report, or do not end. Exit 1: one lived, or its text is no longer there once.

What was killed is kept in build/mutants/killed.tsv beside a sum over the kernels, the emulator and the tests: a run that was cut off goes on
where it was, a change of any of these begins anew, and mutants that are named run in any case.
"""
import glob, hashlib, os, signal, subprocess, sys, time

LIST, BUILD, SECONDS, KILLED = "tests/cuda/mutants.txt", "build/release", 120, "build/mutants/killed.tsv"
SOURCES = ("engine/cuda/*", "engine/cuda/emu/*", "tests/cuda/*.[ch]", "tests/cuda/*.cu", "tests/run.[ch]")


def read_list():
    mutants, m = [], None
    for n, line in enumerate(open(LIST), 1):
        line = line.rstrip("\n")
        if not line or line.startswith("#"): continue
        if line.startswith("mutant "): m = {"name": line[7:], "old": [], "new": []}; mutants.append(m)
        elif line.startswith("- "): m["old"].append(line[2:])
        elif line.startswith("+"): m["new"].append(line[2:])
        else:
            key, _, value = line.partition(": ")
            if key not in ("file", "compile", "test"): sys.exit(f"{LIST}:{n}: '{line}'?")
            m[key] = value
    return mutants


def users(path):
    """The kernel files whose objects depend on `path`, by the compiler's own dependency files."""
    if path.endswith((".cu", ".c")): return [path]
    found = []
    for d in glob.glob(f"{BUILD}/emu-checked/engine/cuda/*.d"):
        if path in open(d).read().split(): found.append("engine/cuda/" + os.path.basename(d)[:-2] + ".cu")
    return sorted(found)


def mutate(m, folder):
    text, old = open(m["file"]).read(), "\n".join(m["old"])
    if text.count(old) != 1: return f"its text is there {text.count(old)} times"
    os.makedirs(os.path.dirname(f"{folder}/{m['file']}"), exist_ok=True)
    with open(f"{folder}/{m['file']}", "w") as f: f.write(text.replace(old, "\n".join(m["new"])))
    return None


def make(*args):
    return subprocess.run(["make", "-s", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(program, test):
    """None if the tests pass, or what they said."""
    for copies in ("now", "late"):
        env = dict(os.environ, QN_EMU_CP_ASYNC=copies)
        p = subprocess.Popen([program, *test.split()[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        try:
            out = p.communicate(timeout=SECONDS)[0].decode(errors="replace").splitlines()
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL) # each test is a process of its own
            p.communicate()
            return f"no end within {SECONDS} s"
        if p.returncode:
            telling = [l.strip() for l in out if l.startswith("cuda emulator:")] or [l.strip() for l in out if l.startswith("    ")] or out[-1:]
            return telling[0][:230] if telling else f"exit {p.returncode}"
        if not any(l.startswith("ok ") for l in out): return None
    return None


def try_mutant(m):
    folder = f"build/mutants/{m['name']}"
    subprocess.run(["rm", "-rf", folder])
    why = mutate(m, folder)
    if why: return False, why
    sources = m.get("compile", "").split() or users(m["file"])
    program = m["test"].split()[0]
    r = make("cuda-mutant", f"MUTANT={folder}", f"MUTANT_SOURCES={' '.join(sources)}", f"MUTANT_TEST={program}")
    if r.returncode: return False, "does not build: " + r.stdout[-400:]
    said = run(f"{folder}/test", m["test"])
    subprocess.run(["rm", "-rf", folder])
    return said is not None, said or "nothing noticed it"


def sum_of_sources():
    h = hashlib.sha256()
    for path in sorted(p for pattern in SOURCES for p in glob.glob(pattern) if os.path.isfile(p)): h.update(path.encode() + open(path, "rb").read())
    return h


def main():
    os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    mutants, sources = read_list(), sum_of_sources()
    for m in mutants:
        key = sources.copy()
        key.update(repr(m).encode())
        m["key"] = key.hexdigest()[:16]
    done = set(open(KILLED).read().split()) if os.path.exists(KILLED) and not sys.argv[1:] else set()
    todo = [m for m in mutants if (m["name"] in sys.argv[1:] if sys.argv[1:] else m["key"] not in done)]
    if len(todo) < len(mutants): print(f"{len(todo)} of {len(mutants)} are left", flush=True)
    r = make(f"{BUILD}/libtest.a", *sorted({f"{BUILD}/tests/cuda-checked/{m['test'].split()[0]}" for m in todo}))
    if r.returncode: sys.exit(r.stdout)
    for test in sorted({m["test"] for m in todo}):
        said = run(f"{BUILD}/tests/cuda-checked/{test.split()[0]}", test)
        if said: sys.exit(f"{test}: fails without a mutant: {said}")
    lived = 0
    for m in todo:
        t = time.time()
        killed, said = try_mutant(m)
        lived += not killed
        print(f"{'killed' if killed else 'LIVED '} {m['name']} ({time.time() - t:.0f} s): {said}", flush=True)
        if killed:
            with open(KILLED, "a") as f: f.write(f"{m['name']}\t{m['key']}\n")
    n = len(todo) if sys.argv[1:] else len(mutants)
    print(f"{n - lived} of {n} killed")
    return lived > 0


sys.exit(main())
