#!/usr/bin/env python3
"""Every fuzz entry over its corpus (tests/corpus/<name>) and over random mutations of it: build/<variant>/fuzz/**/<name>,
made from <name>_fuzz.c beside the parser. A failure prints the seed and number of the mutation, which repeat it:
build/release/fuzz/server/head -mutations=N -seed=S tests/corpus/head. QN_FUZZ_MUTATIONS: how many (default 30,000; 100,000
for GGUF, the one file format that strangers send)."""
import os, subprocess, sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
from qtest import BUILD, ROOT, SLOW, add_test, main


def replay(exe, corpus):
    n = int(os.environ.get("QN_FUZZ_MUTATIONS", (100_000 if exe.endswith("/gguf") else 30_000) if SLOW == 1 else 4_000))
    assert os.path.isdir(corpus) and os.listdir(corpus), f"{corpus} has no seeds"
    r = subprocess.run([exe, f"-mutations={n}", corpus], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert r.returncode == 0, f"exit {r.returncode}: {r.stdout[-2000:]}"
    print("    " + r.stdout.strip().splitlines()[-1])


for root, _, files in sorted(os.walk(os.path.join(BUILD, "fuzz"))):
    for f in sorted(files):
        exe = os.path.join(root, f)
        if os.access(exe, os.X_OK) and "." not in f:
            add_test(f"replay/{f}", lambda e=exe, c=os.path.join(ROOT, "tests/corpus", f): replay(e, c), 60)

main()
