#!/usr/bin/env python3
"""The openai Node SDK: runs each test of openai.mjs in a process of its own against one shared daemon."""
import os, re, subprocess

from qtest import ROOT, SLOW, add_test, main, shared_daemon

MODEL = "smollm2-135m-instruct-q4_1"
SCRIPT = os.path.join(ROOT, "tests/clients/openai.mjs")
SDK = os.path.join(ROOT, "build/node")


def run(name):
    assert os.path.isdir(os.path.join(SDK, "node_modules/openai")), "build/node has no openai package: make test installs it"
    d = shared_daemon(MODEL, ["--model-name", MODEL])
    r = subprocess.run(["node", SCRIPT, d.url, MODEL, name], capture_output=True, text=True, env=dict(os.environ, NODE_SDK=SDK), timeout=55 * SLOW)
    assert r.returncode == 0, (r.stdout + r.stderr)[-3000:]
    assert r.stdout == "", f"it ran nothing: {r.stdout[:300]}"


with open(SCRIPT) as f:
    for name in re.findall(r"^  async (\w+)\(\) \{$", f.read(), re.M):
        add_test(f"openai_node/{name}", lambda name=name: run(name), 60)

main()
