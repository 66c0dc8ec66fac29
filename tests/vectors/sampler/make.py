#!/usr/bin/env python3
"""Writes cases.txt: what transformers' logits processors keep, and with which probability.

    python tests/vectors/sampler/make.py > tests/vectors/sampler/cases.txt      (transformers, torch on CPU; any recent)

Logits come from an integer hash (row() here and in test_sampler.c), exact in float32, so that only results are stored.
Frequency and presence penalties are OpenAI's published formula; everything else is transformers' own classes, applied in
the order of sampler.h. A case whose top_p border is nearer than 1e-5 to an entry's cumulative sum is refused: float32
rounding would decide it.
"""
import sys
import torch
import transformers
from transformers.generation import logits_process as lp


def row(n, seed):
    i = torch.arange(n, dtype=torch.int64)
    h = (i * 0x9E3779B1 + seed * 0x85EBCA77) & 0xFFFFFFFF
    for shift, mul in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        h = ((h ^ (h >> shift)) * mul) & 0xFFFFFFFF
    x = (h & 0xFFFFFF).double() * 2.0**-21 - 4
    return (x + 3 * (h >> 24 == 7).double()).float()


def history(n, seed, count):
    return [(k * k * 31 + seed * 7 + (k % 5) * 3) % n for k in range(count)]


CASES = [  # n, seed, params
    (1000, 1, dict(temperature=1.0)),
    (1000, 2, dict(temperature=0.7, top_k=40)),
    (1000, 3, dict(temperature=1.0, top_p=0.9)),
    (1000, 4, dict(temperature=0.8, top_p=0.95, top_k=50)),
    (1000, 5, dict(temperature=1.3, min_p=0.1)),
    (1000, 6, dict(temperature=1.0, min_p=0.02, top_k=20, top_p=0.7)),
    (1000, 7, dict(temperature=0.5, rep=1.3, n_prompt=40, n_history=90, top_k=60)),
    (1000, 8, dict(temperature=0.9, rep=0.8, n_prompt=10, n_history=64, top_p=0.8)),
    (1000, 9, dict(temperature=1.0, freq=0.5, pres=0.25, n_prompt=30, n_history=120, top_k=64)),
    (1000, 10, dict(temperature=1.0, freq=-1.0, pres=1.5, rep=1.1, n_prompt=5, n_history=60, top_p=0.6)),
    (1000, 11, dict(temperature=0.6, bias=[(3, 9.5), (999, 12.0), (17, -100.0), (500, -4.0)], top_k=30)),
    (1000, 12, dict(temperature=1.0, ban=[5, 6, 7, 900], top_p=0.5)),
    (1000, 13, dict(temperature=2.0, top_p=0.99)),
    (1000, 14, dict(temperature=0.05, top_p=0.9)),
    (1000, 15, dict(temperature=1.0, top_k=1)),
    (1000, 16, dict(temperature=1.0, top_p=1e-6)),
    (1000, 17, dict(temperature=1.0, min_p=1.0)),
    (63, 18, dict(temperature=1.0, top_p=0.7)),
    (17, 19, dict(temperature=1.0, top_k=16)),
    (65, 20, dict(temperature=1.0, top_k=64, top_p=0.9)),
    (49152, 21, dict(temperature=0.4, top_k=100)),
    (49152, 22, dict(temperature=0.4, top_p=0.3)),
    (49152, 23, dict(temperature=0.7, top_p=0.5, top_k=200, min_p=0.05)),
    (49152, 24, dict(temperature=0.5, top_p=0.25, rep=1.2, freq=0.3, n_prompt=2000, n_history=6000)),
    (151936, 25, dict(temperature=0.4, top_p=0.2)),
    (151936, 26, dict(temperature=1.0, top_k=64, min_p=0.2)),
]


def far_from(x, p, seed):
    q = torch.softmax(x[0].double(), 0).sort(descending=True).values.cumsum(0)
    near = (q - p).abs().min().item()
    assert near > 1e-5, f"case {seed}: an entry's cumulative sum is {near:g} from top_p"


def processed(n, seed, p):
    x = row(n, seed)[None]
    ids = torch.tensor([history(n, seed, p.get("n_history", 0))], dtype=torch.int64)
    if p.get("bias"):
        x = lp.SequenceBiasLogitsProcessor({(i,): (b if b > -100 else -float("inf")) for i, b in p["bias"]})(torch.zeros(1, 1, dtype=torch.int64), x)
    if p.get("ban"):
        x = lp.SuppressTokensLogitsProcessor(p["ban"])(ids, x)
    if p.get("rep", 1) != 1:
        x = lp.RepetitionPenaltyLogitsProcessor(p["rep"])(ids, x)
    if p.get("freq") or p.get("pres"):
        count = torch.bincount(ids[0, p["n_prompt"]:], minlength=n)
        x = x - count * p.get("freq", 0) - (count > 0) * p.get("pres", 0)
    x = lp.TemperatureLogitsWarper(p["temperature"])(ids, x)
    if p.get("min_p"):
        x = lp.MinPLogitsWarper(p["min_p"])(ids, x)
    if p.get("top_k"):
        x = lp.TopKLogitsWarper(p["top_k"])(ids, x)
    if p.get("top_p"):
        far_from(x, p["top_p"], seed)
        x = lp.TopPLogitsWarper(p["top_p"])(ids, x)
    return x[0]


print(f"# transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}; see make.py")
for n, seed, p in CASES:
    q = torch.softmax(processed(n, seed, p).double(), 0)
    kept = q.nonzero()[:, 0].tolist()
    assert len(kept) <= 5000
    print("case", n, seed, *(p.get(k, d) for k, d in (("temperature", 1), ("top_p", 1), ("min_p", 0), ("top_k", 0), ("rep", 1), ("freq", 0),
          ("pres", 0), ("n_prompt", 0), ("n_history", 0))), len(p.get("bias", [])), len(p.get("ban", [])), len(kept))
    for i, b in p.get("bias", []): print("bias", i, b)
    for i in p.get("ban", []): print("ban", i)
    shown = kept if len(kept) <= 120 else kept[:60] + kept[-60:]
    for i in shown: print("kept", i, f"{q[i].item():.7e}")
    raw = torch.log_softmax(row(n, seed).double(), 0)
    order = sorted(range(n), key=lambda i: (-raw[i].item(), i))
    for k in list(range(20 if n > 20 else n)) + [n // 2, n - 1]: print("rank", k, order[k], f"{raw[order[k]].item():.7f}")
    print("end")
