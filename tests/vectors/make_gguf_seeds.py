#!/usr/bin/env python3
"""Writes the seeds of the GGUF fuzzer, tests/corpus/gguf/*.gguf: small files by gguf-py with every kind of key and weight
type, and one in version 2. Needs: numpy, gguf."""
import os, struct
import numpy as np
from gguf import GGMLQuantizationType as T, GGML_QUANT_SIZES, GGUFWriter

out = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus/gguf")
os.makedirs(out, exist_ok=True)


def write(name, fill, tensors):
    w = GGUFWriter(f"{out}/{name}.gguf", "llama")
    fill(w)
    for tensor, t, rows in tensors:
        elems, size = GGML_QUANT_SIZES[t]
        shape = [rows, max(32, elems) // elems * size]
        w.add_tensor(tensor, np.zeros(shape, dtype=np.uint8), raw_dtype=t)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def scalars(w):
    w.add_uint8("t.u8", 200); w.add_int8("t.i8", -3); w.add_uint16("t.u16", 65000); w.add_int16("t.i16", -300)
    w.add_uint32("t.u32", 4000000000); w.add_int32("t.i32", -5); w.add_uint64("t.u64", 2**63); w.add_int64("t.i64", -(2**40))
    w.add_float32("t.f32", 0.5); w.add_float64("t.f64", 1e300); w.add_bool("t.bool", True); w.add_string("t.str", "grist")


def arrays(w):
    w.add_array("t.strs", ["a", "", "mill\u00e9", "stone"]); w.add_array("t.ints", [1, -2, 3]); w.add_array("t.floats", [0.5, -1.5])
    w.add_array("t.bools", [True, False]); w.add_array("tokenizer.ggml.tokens", [f"<{i}>" for i in range(20)])


def aligned(w):
    w.add_custom_alignment(64); w.add_name("aligned")


write("scalars", scalars, [])
write("arrays", arrays, [("a", T.F32, 1)])
write("types", lambda w: None, [(t.name.lower(), t, 1) for t in (T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.IQ4_NL)])
write("superblocks", lambda w: None, [(t.name.lower(), t, 1) for t in (T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K)])
write("aligned", aligned, [("token_embd.weight", T.Q8_0, 2), ("output_norm.weight", T.F32, 1)])
old = bytearray(open(f"{out}/arrays.gguf", "rb").read())
old[4:8] = struct.pack("<I", 2)
open(f"{out}/version2.gguf", "wb").write(old)
