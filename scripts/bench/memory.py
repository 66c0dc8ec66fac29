#!/usr/bin/env python3
"""Peak memory after the same load: N sequences of a length at once, ours and llama-server's.

    memory.py MODEL.gguf [--peer llama-server] [--seqs 8] [--tokens 2048] [--rounds 1] [--threads N]

Both are given room for exactly that (ours --max-seqs N --ctx T, the peer -np N -c N*T) and prompts that fill it but for 64 tokens of
output; all run together. The figure is VmHWM of the process and those below it: what was resident at most, the mapped model included.
"""
import argparse, shlex, statistics, sys

import load
from common import CORES, Load, Server, model_name, number, quernd, ratio, say, spread, table

OUTPUT, SLACK = 64, 80  # SLACK: the chat template and the spread of word lengths


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model")
    p.add_argument("--peer", help="path of llama-server")
    for name, default in (("seqs", 8), ("tokens", 2048), ("rounds", 1), ("threads", 0)):
        p.add_argument("--" + name, type=int, default=default)
    return p.parse_args()


def words_that_fill(a, server):
    """How many words of load.py's prompts come near the length, by the server's own tokenizer."""
    sample = 500
    counts = [len(server.post("/tokenize", {"content": load.prompt(i, sample, 0)})["tokens"])
              for i in range(8)]
    return int((a.tokens - OUTPUT - SLACK) * sample / max(counts))


def one(a, name, command, words):
    """(MiB when ready, MiB at most, tokens in the cache at the end), and how many words filled it."""
    say(f"{model_name(a.model)}: {name}")
    with Server(command, name) as s:
        ready = s.peak_mib()
        words = words or words_that_fill(a, s)
        got = s.load("--conc", a.seqs, "--n", a.seqs, "--words", words, "--max-tokens", OUTPUT)
        return (ready, s.peak_mib(), got["tokens"] + got["prompt_tokens"]), words


def main():
    a = arguments()
    threads = a.threads or CORES
    commands = {"Quern": quernd(a.model, "--max-seqs", str(a.seqs), "--ctx", str(a.tokens), "--threads", str(threads))}
    if a.peer:
        commands["llama-server"] = shlex.join([a.peer, "-m", a.model, "--port", "{port}", "-t", str(threads), "-c", str(a.seqs * a.tokens), "-np", str(a.seqs)])
    got, words = {name: [] for name in commands}, 0
    with Load():
        for i in range(a.rounds):
            for name in list(commands) if i % 2 == 0 else list(commands)[::-1]:
                figures, words = one(a, name, commands[name], words)
                got[name].append(figures)
        of = lambda name, k: [x[k] for x in got[name]]
        rows = [[model_name(a.model), name, number(statistics.median(of(name, 2))), spread(of(name, 0)), spread(of(name, 1)),
                 ratio(of("Quern", 1), of(name, 1)) if name != "Quern" else ""] for name in commands]
        table(["model", "server", "tokens held", "when ready, MiB", "at most, MiB", "ratio"], rows)


if __name__ == "__main__":
    main()
