#!/usr/bin/env python3
"""The README does what it says: its curl lines and SDK examples are taken out of the text and run against a daemon, with the
address put in. A block counts when it calls the server (curl, or the openai SDKs)."""
import glob, json, os, re, subprocess, sys, tempfile

from qtest import ROOT, SseParser, add_test, eq, main, shared_daemon, test, text_of

MODEL = "smollm2-135m-instruct-q4_1"
with open(os.path.join(ROOT, "README.md")) as f:
    README = f.read()


def blocks(language):
    return [m.group(1) for m in re.finditer(rf"^```{language}\n(.*?)^```", README, re.M | re.S)]


def here(text):
    assert "127.0.0.1:8080" in text, f"the example names no address: {text}"
    return text.replace("127.0.0.1:8080", f"127.0.0.1:{shared_daemon(MODEL).port}")


def curl(block):
    r = subprocess.run(["sh", "-euc", here(block).replace("curl ", "curl -sS ")], capture_output=True, timeout=50)
    eq(r.returncode, 0, r.stderr.decode())
    if '"stream":true' in block.replace(" ", ""):
        events = list(SseParser().feed(r.stdout))
        assert events[-1].done and len(text_of(events)) > 0, r.stdout[-300:]
    else:
        for line in filter(None, r.stdout.decode().splitlines()):
            assert "error" not in json.loads(line), line


def python(block):
    r = subprocess.run([sys.executable, "-c", here(block)], capture_output=True, text=True, timeout=50)
    eq(r.returncode, 0, r.stderr)
    assert len(r.stdout.strip()) > 0, "it printed nothing"


def node(block):
    sdk = os.path.join(ROOT, "build/node")
    with tempfile.NamedTemporaryFile("w", suffix=".mjs", dir=sdk) as f:  # there, so that `import "openai"` finds it
        f.write(here(block))
        f.flush()
        r = subprocess.run(["node", f.name], capture_output=True, text=True, timeout=50)
    eq(r.returncode, 0, r.stderr)
    assert len(r.stdout.strip()) > 0, "it printed nothing"


cases = [(kind, fn, b) for kind, language, fn in (("curl", "sh", curl), ("python", "python", python), ("node", "js", node))
         for b in blocks(language) if language != "sh" or re.search(r"^curl ", b, re.M)]
for i, (kind, fn, b) in enumerate(cases, 1):
    add_test(f"readme/{kind}_{i}", lambda fn=fn, b=b: fn(b), 60)


@test
def has_an_example_of_each_client():
    eq({k for k, _, _ in cases}, {"curl", "python", "node"})


@test
def documents_name_files_that_exist():
    """Paths in the text of every Markdown file, from the root or from the file's own folder, and links."""
    docs = [d for d in glob.glob("**/*.md", root_dir=ROOT, recursive=True) if not d.startswith("build/")]
    missing = []
    for doc in docs:
        with open(os.path.join(ROOT, doc)) as f:
            text = f.read()
        names = re.findall(r"\]\((?!https?:)([^)#]+)", text)
        names += re.findall(r"(?<![\w/.])((?:server|api|engine|tests|scripts|docs|conf|systemd)/[\w./-]*\w\.(?:c|h|py|sh|md|tsv|yaml|service|mjs))\b", text)
        missing += [f"{doc}: {n}" for n in names if not any(os.path.exists(os.path.join(ROOT, d, n)) for d in ("", os.path.dirname(doc)))]
    eq(sorted(set(missing)), [])


main()
