#!/usr/bin/env python3
"""What a token costs in masks, and a schema in compiling, on answers that a model gave; llguidance beside it on the same schemas and the same ids.

    masks.py ANSWERS --model PATH [--schemas FILE] [--peer]

ANSWERS is what structured.py --answers wrote; --schemas adds the schemas of a file that have no answer, for the compile times. --peer wants
the packages llguidance (1.9) and gguf. Both programs take a schema in turn, in this process and in build/release/bench/schema_masks, each on one
thread and timed by that thread's processor time, so that a busy machine does not count for either. The texts are tokenised once, by
Quern. "first": a constraint of its own for each text, so every mask is new unless its state came before in that text. "again": the
same text once more over what the first pass left, which is what a second request with the schema finds.

llguidance is driven through its Python binding: schema to grammar to matcher is its compiling, fill_next_token_bitmask its mask. What the
call costs without a mask is measured on a call that does nothing and taken off (it is printed). Its slices are those for JSON.
"""
import argparse, gc, json, os, subprocess, sys, tempfile, time

from common import Load, ROOT, say, table
from structured import read_lines

OURS = os.path.join(ROOT, "build/release/bench/schema_masks")
US, MS = 1e3, 1e6


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("answers")
    p.add_argument("--model", required=True)
    p.add_argument("--schemas", default="")
    p.add_argument("--peer", action="store_true")
    return p.parse_args()


def read_work(a):
    """name -> (schema, texts): each schema once, with all of its answers."""
    work = {s["name"]: (s["schema"], []) for s in (read_lines(a.schemas) if a.schemas else ())}
    for x in read_lines(a.answers):
        _, texts = work.setdefault(x["name"], (x["schema"], []))
        if x.get("text"):
            texts.append(x["text"])
    return work


class Times:
    def __init__(self):
        self.compile, self.first, self.again, self.refused, self.lost, self.bytes, self.failed = [], [], [], {}, 0, 0, 0


class Ours:
    def __init__(self, model):
        self.proc = subprocess.Popen([OURS, model], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.t = Times()

    def run(self, name, schema, texts):
        """The ids of each text, or None where the schema is refused."""
        self.proc.stdin.write(json.dumps({"schema": schema, "texts": texts}) + "\n")
        self.proc.stdin.flush()
        r = json.loads(self.proc.stdout.readline())
        self.t.compile.append(r["compile_ns"])
        if "error" in r:
            self.t.refused[name] = r["error"]
            return None
        for x in r["texts"]:
            self.t.first += x["first_ns"]
            self.t.again += x["again_ns"]
            self.t.lost += x["lost"] >= 0
            self.t.failed += x["failed"]
            self.t.bytes = max(self.t.bytes, x["bytes"])
        return [x["ids"] for x in r["texts"]]

    def close(self):
        self.proc.stdin.close()
        self.proc.wait()


SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")  # Qwen2's


def tokenizer_json(model):
    """A Qwen2 model's vocabulary as the file that llguidance reads, and the token that ends a turn."""
    import gguf
    fields = gguf.GGUFReader(model).fields
    tokens, kinds, merges = (fields["tokenizer.ggml." + k].contents() for k in ("tokens", "token_type", "merges"))
    if fields["tokenizer.ggml.pre"].contents() != "qwen2":
        sys.exit("masks: only Qwen2's vocabulary is known to the peer's side")
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": kinds[i] == 3}
             for i, t in enumerate(tokens) if kinds[i] != 1]
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    return json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "NFC"},
                       "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "post_processor": None, "decoder": level,
                       "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                                 "fuse_unk": False, "byte_fallback": False, "vocab": {t: i for i, t in enumerate(tokens) if kinds[i] == 1},
                                 "merges": merges}}), len(tokens), fields["tokenizer.ggml.eos_token_id"].contents()


class Peer:
    """llguidance. A matcher is made anew for each text; `again` is that matcher after a reset."""

    def __init__(self, model):
        import llguidance
        import llguidance.numpy
        self.lib, self.t = llguidance, Times()
        text, n_vocab, eos = tokenizer_json(model)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            f.write(text)
            f.flush()
            self.tok = llguidance.LLTokenizer(f.name, n_vocab=n_vocab, eos_token=eos, slices=llguidance.LLTokenizer.json_slices())
        self.mask = llguidance.numpy.allocate_token_bitmask(1, n_vocab)
        self.at, self.size = self.mask.ctypes.data, self.mask.nbytes
        self.overhead = self._overhead()

    def _overhead(self):
        m = self.lib.LLMatcher(self.tok, self.lib.LLMatcher.grammar_from_regex("a"))
        took = []
        for _ in range(2000):
            begin = time.thread_time_ns()
            m.is_accepting()
            took.append(time.thread_time_ns() - begin)
        return sorted(took)[1000]

    def _compile(self, schema):
        begin = time.thread_time_ns()
        try:
            m = self.lib.LLMatcher(self.tok, self.lib.LLMatcher.grammar_from_json_schema(schema))
            why = m.get_error() if m.is_error() else ""
        except ValueError as e:
            m, why = None, str(e)
        return m, why, time.thread_time_ns() - begin

    def run(self, name, schema, ids_of_texts):
        schema = json.dumps(schema)
        m, why, ns = self._compile(schema)
        self.t.compile.append(ns)
        if why:
            self.t.refused[name] = why
            return
        for ids in ids_of_texts or ():
            m = self._compile(schema)[0]
            self.t.lost += self._follow(m, ids, self.t.first)
            m.reset()
            self._follow(m, ids, self.t.again)

    def _follow(self, m, ids, out):
        """1 when it does not allow what the answer says."""
        words, at, size = self.mask[0], self.at, self.size
        for i in ids:
            begin = time.thread_time_ns()
            m.unsafe_compute_mask_ptr(at, size)
            out.append(max(0, time.thread_time_ns() - begin - self.overhead))
            if m.is_error() or not int(words[i // 32]) >> (i % 32) & 1 or not m.consume_token(i):
                return 1
        return 0


def at(values, share):
    """Nearest rank."""
    v = sorted(values)
    return v[max(0, -(-int(share * 1000) * len(v) // 1000) - 1)]


def cells(values, unit):
    if not values:
        return ["-"] * 4
    return [f"{x / unit:,.1f}" for x in (sum(values) / len(values), at(values, .5), at(values, .99), max(values))]


def report(work, who):
    rows = []
    for name, t in who:
        rows += [(name, "compile, ms", len(t.compile), *cells(t.compile, MS)), (name, "mask of a token, first, us", len(t.first), *cells(t.first, US)),
                 (name, "mask of a token, again, us", len(t.again), *cells(t.again, US))]
    table(("program", "figure", "n", "mean", "p50", "p99", "longest"), rows)
    for name, t in who:
        print(f"{name}: {len(t.refused)} of {len(work)} schemas refused; {t.lost} answers not allowed to their end"
              + (f"; at most {t.bytes / 1e6:.1f} MB, {t.failed} ran out of memory or work" if t.bytes else "") + ".")
    print()


def main():
    a = arguments()
    work = read_work(a)
    with Load():
        ours = Ours(a.model)
        peer = Peer(a.model) if a.peer else None
        gc.disable()  # a collection in the middle of a call would be the peer's loss
        for n, (name, (schema, texts)) in enumerate(work.items()):
            ids = ours.run(name, schema, texts)
            if peer:
                peer.run(name, schema, ids)
                gc.collect()
            if n % 50 == 49:
                say(f"{n + 1} of {len(work)} schemas")
        ours.close()
        report(work, [("Quern", ours.t)] + ([("llguidance", peer.t)] if peer else []))
        if peer:
            print(f"Overhead of the binding, taken off each mask of llguidance: {peer.overhead / US:.1f} us.\n")
    for name, t in [("Quern", ours.t)] + ([("llguidance", peer.t)] if peer else []):
        for schema, why in t.refused.items():
            say(f"{name} refuses {schema}: {why[:160]}")
    mean, p99, compiled = sum(ours.t.first) / len(ours.t.first) / US, at(ours.t.first, .99) / MS, at(ours.t.compile, .99) / MS
    ok = mean <= 50 and p99 <= 1 and compiled <= 250 and not ours.t.lost
    print(f"bars: mask mean {mean:.1f} us (<= 50), p99 {p99:.2f} ms (<= 1), compile p99 {compiled:.1f} ms (<= 250): {'met' if ok else 'missed'}")
    sys.exit(not ok)


if __name__ == "__main__":
    main()
