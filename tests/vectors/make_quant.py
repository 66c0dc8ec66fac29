#!/usr/bin/env python3
"""Writes tests/vectors/quant.bin: random blocks of every weight type and what gguf-py makes of them.

For each type: u32 type, u32 elements, u32 bytes, then the blocks, then the elements as f32. Numbers are little-endian.
The f16 scales are drawn small and finite in half of the blocks and wholly at random in the others. Needs: numpy, gguf.
"""
import struct, sys
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES, quants

TYPES = [T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL]
SCALES_AT = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.IQ4_NL: [0], T.Q2_K: [80, 82],
             T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
rng = np.random.default_rng(20261124)
out = bytearray()
for t in TYPES:
    elems, size = GGML_QUANT_SIZES[t]
    n = 192 if elems == 1 else 12 if elems == 32 else 4
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in SCALES_AT.get(t, []):
        sane = rng.uniform(-0.1, 0.1, n).astype(np.float16).view(np.uint8).reshape(n, 2)
        raw[: n // 2, at : at + 2] = sane[: n // 2]
    with np.errstate(all="ignore"):
        if t == T.F32: values = raw.view(np.float32)
        elif t == T.F16: values = raw.view(np.float16).astype(np.float32)
        else: values = quants.dequantize(raw, t)
    out += struct.pack("<III", int(t), n * elems, n * size) + raw.tobytes() + np.ascontiguousarray(values, dtype=np.float32).tobytes()
open(sys.argv[1] if len(sys.argv) > 1 else "tests/vectors/quant.bin", "wb").write(out)
