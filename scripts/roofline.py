#!/usr/bin/env python3
"""The least time that a card needs for a step, kernel by kernel: bytes over its memory's rate or operations over its arithmetic's,
whichever is more (Williams et al. 2009). Arithmetic on shapes, nothing is measured.

    roofline.py [--rows 1,8,64] [--context 1024] [--prefill 512] [--bandwidth 3.35e12] [--f16 989e12] [--int8 1979e12] [--bits 5] [--markdown]

The defaults are an H100 SXM (NVIDIA's data sheet, dense). --bits: of a weight as it lies on the card, scales included: 5 for the 4-bit
types (a 4-bit value, and 32 bits of scale and minimum for 32 of them), 16 for f16 and bf16.
"""
import argparse

MODELS = {  # layers, d_model, heads, KV heads, head_dim, d_ff, vocabulary
    "SmolLM2 135M": (30, 576, 9, 3, 64, 1536, 49152),
    "Llama 3 8B": (32, 4096, 32, 8, 128, 14336, 128256),
    "Llama 3 70B": (80, 8192, 64, 8, 128, 28672, 128256),
}


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rows", default="1,8,64")
    p.add_argument("--context", type=int, default=1024)
    p.add_argument("--prefill", type=int, default=512)
    p.add_argument("--bandwidth", type=float, default=3.35e12)
    p.add_argument("--f16", type=float, default=989e12)
    p.add_argument("--int8", type=float, default=1979e12)
    p.add_argument("--bits", type=float, default=5)
    p.add_argument("--markdown", action="store_true")
    return p.parse_args()


def matrix(a, rows, n_in, n_out):
    """Weights once, a row's int8 inputs with their scales and sums (1.25 bytes each), its f32 outputs; 2 operations a weight and row."""
    return n_in * n_out * a.bits / 8 + rows * (1.25 * n_in + 4 * n_out), 2.0 * rows * n_in * n_out, a.int8 if a.bits < 16 else a.f16


def attention(a, rows, context, heads, kv, hd, shared):
    """`shared`: the rows are of one sequence and read its pages together, each seeing half of its own chunk on average. Else a sequence a row."""
    pages = (context + rows if shared else rows * context) * 2 * kv * hd * 2
    seen = rows * (context + (rows / 2 if shared else 0))
    return pages + rows * heads * hd * 8, 4.0 * seen * heads * hd, a.f16


def kernels(a, shape, rows, context, shared):
    """name -> (times a step, (bytes, operations, operations a second))"""
    layers, d, heads, kv, hd, ff, vocab = shape
    wide, narrow, out = heads * hd, kv * hd, 1 if shared else rows
    return {
        "norm, quantise": (2 * layers + 1, (rows * (12 * d + 1.25 * d), 8.0 * rows * d, a.f16 / 8)),
        "q, k, v": (layers, matrix(a, rows, d, wide + 2 * narrow)),
        "RoPE, KV write": (layers, (rows * (8 * wide + 12 * narrow), 6.0 * rows * (wide + narrow), a.f16 / 8)),
        "attention": (layers, attention(a, rows, context, heads, kv, hd, shared)),
        "attention out": (layers, matrix(a, rows, wide, d)),
        "gate, up": (layers, matrix(a, rows, d, 2 * ff)),
        "down": (layers, matrix(a, rows, ff, d)),
        "output layer": (1, matrix(a, out, d, vocab)),
        "pick": (1, (out * vocab * 4 * 3, 10.0 * out * vocab, a.f16 / 8)),
    }


def seconds(a, k):
    return max(k[0] / a.bandwidth, k[1] / k[2])


def report(a, name, cases):
    columns = [kernels(a, MODELS[name], *c) for c in cases]
    head = [f"{c[0]} rows of a prompt at {c[1]}" if c[2] else f"{c[0]} stream{'s' * (c[0] > 1)} at {c[1]}" for c in cases]
    sep = " | " if a.markdown else "  "
    print(f"\n**{name}**\n" if a.markdown else f"\n{name}")
    print("| " * a.markdown + sep.join(["microseconds a step"] + head) + " |" * a.markdown)
    if a.markdown:
        print("|---" * (len(cases) + 1) + "|")
    for kernel in columns[0]:
        cells = [f"{1e6 * n * seconds(a, k):,.1f} ({'memory' if k[0] / a.bandwidth >= k[1] / k[2] else 'arithmetic'})" for n, k in (c[kernel] for c in columns)]
        print("| " * a.markdown + sep.join([f"{kernel} x {columns[0][kernel][0]}"] + cells) + " |" * a.markdown)
    total = [sum(n * seconds(a, k) for n, k in c.values()) for c in columns]
    print("| " * a.markdown + sep.join(["all"] + [f"{1e6 * t:,.0f}" for t in total]) + " |" * a.markdown)
    print("| " * a.markdown + sep.join(["tokens a second, at most"] + [f"{c[0] / t:,.0f}" for c, t in zip(cases, total)]) + " |" * a.markdown)


def main():
    a = arguments()
    cases = [(int(r), a.context, False) for r in a.rows.split(",")] + [(a.prefill, a.context, True)]
    for name in MODELS:
        report(a, name, cases)


if __name__ == "__main__":
    main()
