#!/usr/bin/env python3
"""The forward pass alone, one stream: tokens a second of prefill and of decode, ours and llama-bench's in turns.

    forward.py MODEL.gguf... [--peer DIR] [--rounds 3] [--prompts 256,512] [--decode 48] [--threads N]

Ours is build/release/bench/bench_engine, the peer llama-bench in DIR (peer-llama.sh prints it), tried with -t 1 and with -t <cores> in
every round; of a case the setting with the better median counts. One process at a time, the order turns from round to round. Both get
random tokens; prefill computes the last row's logits; decode begins with a (nearly) empty context, as llama-bench does it.
"""
import argparse, json, os, re, statistics, subprocess, sys

from common import CORES, ROOT, Load, model_name, ratio, say, spread, table

ENGINE = os.path.join(ROOT, "build/release/bench/bench_engine")
FIRST = 8  # tokens before a decoding run: there is no decoding without a prompt


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("models", nargs="+")
    p.add_argument("--peer", help="folder of llama-bench")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--prompts", default="256,512")
    p.add_argument("--decode", type=int, default=48)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--times", type=int, default=3, help="runs of ours in a process, of which the median counts")
    a = p.parse_args()
    a.lengths = [int(x) for x in a.prompts.split(",")]
    return a


def ours(a, model):
    def run(prompts, output):
        r = subprocess.run([ENGINE, model, str(a.threads), prompts, str(output), "1", str(a.times)], capture_output=True, text=True)
        if r.returncode:
            sys.exit(f"{ENGINE}: {r.stdout}{r.stderr}")
        return r.stdout
    got = {f"prefill {p}": float(x) for p, x in re.findall(r"prompt (\d+),.* prefill (\d+)", run(a.prompts, 1))}
    got[f"decode {a.decode}"] = float(re.search(r"decode ([\d.]+)", run(str(FIRST), a.decode + 1)).group(1))
    return got


def peer(a, model, threads):
    r = subprocess.run([os.path.join(a.peer, "llama-bench"), "-m", model, "-t", str(threads), "-p", a.prompts, "-n", str(a.decode), "-r", "1", "-o", "json"],
                       capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"llama-bench: {r.stderr[-2000:]}")
    return {f"prefill {x['n_prompt']}" if x["n_prompt"] else f"decode {x['n_gen']}": x["avg_ts"] for x in json.loads(r.stdout)}


def measure(a, model, sides):
    """{side: [figures of a round]}"""
    got = {s: [] for s in sides}
    for i in range(a.rounds):
        for s in sides if i % 2 == 0 else sides[::-1]:
            say(f"{model_name(model)}, round {i + 1}: {'Quern' if s == 'ours' else f'llama-bench -t {s}'}")
            got[s].append(ours(a, model) if s == "ours" else peer(a, model, s))
    return got


def main():
    a = arguments()
    threads = sorted({1, a.threads or CORES}) if a.peer else []
    rows = []
    with Load():
        for model in a.models:
            got = measure(a, model, ["ours", *threads])
            for case in got["ours"][0]:
                of = lambda side: [x[case] for x in got[side]]
                row = [model_name(model), case, spread(of("ours"))]
                if threads:
                    best = max(threads, key=lambda t: statistics.median(of(t)))
                    row += [spread(of(best)), f"-t {best}", ratio(of("ours"), of(best))]
                rows.append(row)
        table(["model", "case", "Quern, tokens/s"] + (["llama-bench, tokens/s", "its better setting", "ratio"] if threads else []), rows)


if __name__ == "__main__":
    main()
