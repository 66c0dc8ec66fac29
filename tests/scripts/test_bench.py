#!/usr/bin/env python3
"""`make bench`: the programs that measure run against small servers and print tables in which report.py finds every figure; the
verdicts turn where the bars are; the document's marks are the parts that there are; the plot is well-formed."""
import json, os, re, subprocess, sys, tempfile
import xml.etree.ElementTree as ElementTree

from qtest import BUILD, ROOT, SLOW, eq, main, model_path, skip, test

BENCH = os.path.join(ROOT, "scripts/bench")
sys.path.insert(0, BENCH)
import plot, report  # noqa: E402

TINY = f"{BUILD}/quernd --model {model_path('tiny')} --model-name m --listen 127.0.0.1:{{port}}"


def run(script, *args, seconds=60):
    if SLOW > 1 and script != "report.py":
        skip("speed is measured in the release build")
    r = subprocess.run([sys.executable, os.path.join(BENCH, script), *map(str, args)], capture_output=True, text=True, timeout=seconds)
    eq(r.returncode, 0, r.stdout + r.stderr)
    return r.stdout


@test(seconds=120)
def two_servers_are_compared_in_turns():
    out = run("compare.py", "--ours", TINY, "--peer", TINY + " --threads {t}", "--peer-threads", "1", "--peer-name", "other", "--conc", "1,3", "--rounds", 2,
              "--words", 10, "--max-tokens", 8, "--title", "tiny")
    found = report.figures("server", out)
    eq({f["column"] for f in found}, {"Quern", "other -t 1", "ratio"})
    ratios = {f["row"]: f for f in found if f["column"] == "ratio"}
    for c in (1, 3):
        f = ratios[f"tiny | {c} | output tokens/s"]
        assert 0 < f["low"] <= f["median"] <= f["high"], f
    assert re.search(r"^Load average [\d.]+ before, [\d.]+ after\.$", out, re.M), out


@test(seconds=120)
def ours_is_measured_without_a_peer():
    out = run("compare.py", "--ours", TINY, "--conc", "2", "--rounds", 1, "--words", 10, "--max-tokens", 8)
    eq({f["column"] for f in report.figures("server", out)}, {"Quern"})


@test(seconds=60)
def a_server_that_does_not_start_is_told():
    r = subprocess.run([sys.executable, os.path.join(BENCH, "compare.py"), "--ours", "false"], capture_output=True, text=True, timeout=50)
    eq(r.returncode, 1)
    assert "ours does not serve" in r.stderr, r.stderr


@test(seconds=60)
def the_front_ends_cost_has_four_rows():
    if not os.path.exists(f"{BUILD}/fake-quernd"):
        skip("no fake-quernd in this build")
    found = report.figures("front", run("front.py", "--rounds", 1, "--streams", 4, "--events", 20))
    eq(sorted(f["row"] for f in found), [f"{e} | 4 | {o}" for e in ("scripted", "tiny") for o in ("TCP", "UNIX socket")])
    assert all(f["median"] > 0 for f in found), found


@test(seconds=60)
def memory_counts_the_tokens_held():
    out = run("memory.py", model_path("tiny"), "--seqs", 2, "--tokens", 512, "--threads", 1)
    (at_most,) = (f for f in report.figures("memory", out) if f["column"].startswith("at most"))
    assert at_most["median"] > 5, out
    held = float(re.search(r"\| Quern \| ([\d,]+)", out).group(1).replace(",", ""))
    assert 600 < held <= 1024, out


SAMPLE = {
    "forward": """
| model | case | Quern, tokens/s | llama-bench, tokens/s | its better setting | ratio |
|---|---|---|---|---|---|
| smollm2-135m-instruct-q4_1 | prefill 256 | 2,990 (2,900..3,100) | 598 (590..600) | -t 2 | 5.00 (4.90..5.10) |
| smollm2-135m-instruct-q4_1 | prefill 512 | 2,980 (2,900..3,100) | 599 (590..600) | -t 2 | 4.99 (4.90..5.10) |
""",
    "memory": """
| model | server | tokens held | when ready, MiB | at most, MiB | ratio |
|---|---|---|---|---|---|
| qwen2.5-coder-1.5b-instruct-q4_k_m | llama-server | 16,000 | 1,100 (1,100..1,100) | 1,900 (1,900..1,900) | 1.10 (1.10..1.10) |
""",
    "start": """
smollm2-135m-instruct-q4_1:
ours: first token after 0.532 s (0.500..0.600), peak 200 MiB, 5 rounds

qwen2.5-coder-1.5b-instruct-q4_k_m:
ours: first token after 2.532 s (2.500..2.600), peak 1900 MiB, 5 rounds
""",
}


@test
def verdicts_turn_where_the_bars_are():
    got = {j["case"]: (j["median"], j["met"]) for j in report.judged([f for part, text in SAMPLE.items() for f in report.figures(part, text)])}
    eq(got, {"SmolLM2 135M, 256 tokens": (5.0, True), "SmolLM2 135M, 512 tokens": (4.99, False), "Qwen 1.5B, 8 sequences of 2,048 tokens": (1.1, True),
             "SmolLM2 135M": (0.532, True), "Qwen 1.5B": (2.532, False)})


@test
def a_report_is_collected_and_written_between_the_marks():
    with tempfile.TemporaryDirectory() as d:
        for part, text in SAMPLE.items():
            with open(os.path.join(d, part + ".md"), "w") as f:
                f.write(text)
        doc = os.path.join(d, "page.md")
        with open(doc, "w") as f:
            f.write("# Page\n\n<!-- bench:forward -->\nold\n<!-- /bench -->\nbetween\n<!-- bench:server -->\nkept\n<!-- /bench -->\n<!-- bench:bars -->\n<!-- /bench -->\nend\n")
        run("report.py", d, "--doc", doc)
        with open(doc) as f:
            page = f.read()
        assert "old" not in page and "prefill 256" in page, page
        assert "\nbetween\n<!-- bench:server -->\nkept\n<!-- /bench -->\n" in page and page.endswith("end\n"), page
        assert "| against llama.cpp: prefill | SmolLM2 135M, 512 tokens | 4.99 (4.9..5.1) | >= 5 |  | **no** |" in page, page
        with open(os.path.join(d, "figures.jsonl")) as f:
            lines = [json.loads(x) for x in f]
        assert {"part": "forward", "row": "smollm2-135m-instruct-q4_1 | prefill 256 | -t 2", "column": "ratio", "median": 5.0, "low": 4.9, "high": 5.1} in lines
        eq(sum("met" in x for x in lines), 5)
        ElementTree.parse(os.path.join(d, "page.svg"))


@test
def less_is_drawn_as_more_where_less_is_better():
    j = {"group": "against <x>", "case": "a & b", "median": 0.25, "low": 0.2, "high": 0.5, "bar": 0.25, "aim": None, "less": True, "met": True}
    eq(plot.better(j), (4.0, 2.0, 5.0, 4.0))
    root = ElementTree.fromstring(plot.svg([j, {**j, "group": "over the quiet run"}]))
    texts = ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "against <x>" in texts and "a & b" in texts and "4.0x (2.0..5.0)" in texts, texts
    eq(texts.count("a & b"), 1)
    assert "prefers-color-scheme: dark" in plot.svg([j])


@test
def the_page_has_a_place_for_every_part():
    with open(os.path.join(ROOT, "docs/performance.md")) as f:
        page = f.read()
    eq(sorted(re.findall(r"<!-- bench:(\w+) -->", page)), sorted([*report.PARTS, "bars"]))
    eq(page.count("<!-- /bench -->"), len(report.PARTS) + 1)
    ElementTree.parse(os.path.join(ROOT, "docs/performance.svg"))
    with open(os.path.join(ROOT, "scripts/bench.sh")) as f:
        listed = re.search(r"^ +((?:\w+ \| )+\w+)\) ;;$", f.read(), re.M).group(1).split(" | ")
    eq(sorted(listed), sorted(report.PARTS))
    eq({b[2] for b in report.BARS} - set(report.PARTS), set())


@test
def an_unknown_part_is_refused():
    r = subprocess.run(["bash", os.path.join(ROOT, "scripts/bench.sh")], env={**os.environ, "BENCH": "front,frnt"}, capture_output=True, text=True)
    eq((r.returncode, r.stderr), (64, "bench: there is no part 'frnt'\n"))


main()
