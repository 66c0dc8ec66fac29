#!/usr/bin/env python3
"""Writes tests/vectors/logits-<model>.bin: what transformers computes in float32 with the DEQUANTISED weights of a GGUF.

    make_logits.py MODEL.gguf OUT.bin TOKENIZE prompts/*.txt

The architecture's own transformers class is built from the file's metadata; every tensor is dequantised by gguf-py and
copied in (llama: the rows of q and k put back into halves; gemma: the 1 that the converter added to norms taken off).
TOKENIZE is llama-tokenize; the ids are stored, so the test does not depend on a tokenizer. Teacher-forced, one pass a text.

File: "QNLG", u32 n_prompts; each: u32 n_tokens, i32 ids[n]; for each position but the last: f32 log-probability of the
actual next token, then TOP x {i32 id, f32 log-probability}, best first. Little-endian. Needs: torch, transformers, gguf.
"""
import struct, subprocess, sys
import gguf, torch
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

TOP = 4
FAMILIES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM),
            "qwen3": (Qwen3Config, Qwen3ForCausalLM), "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM)}
NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
         "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
GEMMA = {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
         "post_ffw_norm": "post_feedforward_layernorm"}
TOPLEVEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def config_of(r, arch):
    def get(key, default=None):
        f = r.fields.get(f"{arch}.{key}")
        return f.contents() if f else default
    heads, d = get("attention.head_count"), get("embedding_length")
    theta = get("rope.freq_base", 10000.0)
    kw = dict(vocab_size=int(next(t for t in r.tensors if t.name == "token_embd.weight").shape[1]), hidden_size=d,
              intermediate_size=get("feed_forward_length"), num_hidden_layers=get("block_count"), num_attention_heads=heads,
              num_key_value_heads=get("attention.head_count_kv", heads), head_dim=get("attention.key_length", d // heads),
              max_position_embeddings=get("context_length"), rms_norm_eps=get("attention.layer_norm_rms_epsilon"),
              tie_word_embeddings=not any(t.name == "output.weight" for t in r.tensors),
              rope_parameters={"rope_type": "default", "rope_theta": theta})
    if arch == "gemma3":
        n = kw["num_hidden_layers"]
        kw.update(sliding_window=get("attention.sliding_window"), query_pre_attn_scalar=kw["head_dim"],
                  layer_types=["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(n)],
                  rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": theta},
                                   "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}})
    return FAMILIES[arch][0](attn_implementation="eager", **kw)


def load(path):
    r = gguf.GGUFReader(path)
    arch = r.fields["general.architecture"].contents()
    cfg = config_of(r, arch)
    with torch.device("meta"):
        model = FAMILIES[arch][1](cfg)
    state = {}
    names = dict(NAMES, **(GEMMA if arch == "gemma3" else {}))
    for t in r.tensors:
        stem, kind = t.name.rsplit(".", 1)
        w = torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).copy()).float()
        w = w.reshape([int(x) for x in reversed(t.shape)])
        if stem.startswith("blk."):
            _, i, part = stem.split(".", 2)
            if arch == "llama" and part in ("attn_q", "attn_k"):
                n = cfg.num_attention_heads if part == "attn_q" else cfg.num_key_value_heads
                w = w.reshape(n, w.shape[0] // n // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)
            name = f"model.layers.{i}.{names[part]}.{kind}"
        else:
            name = f"{TOPLEVEL[stem]}.{kind}"
        if arch == "gemma3" and stem.endswith("norm"):
            w = w - 1
        state[name] = w
    if cfg.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    buffers = FAMILIES[arch][1](FAMILIES[arch][0].from_dict(dict(cfg.to_dict(), vocab_size=8, pad_token_id=None)))  # real rope tables
    missing, extra = model.load_state_dict(state, strict=False, assign=True)
    assert not missing and not extra, (missing, extra)
    for name, b in buffers.named_buffers():
        parent, leaf = name.rsplit(".", 1)
        model.get_submodule(parent).register_buffer(leaf, b, persistent=False)
        if hasattr(model.get_submodule(parent), leaf.replace("inv_freq", "original_inv_freq")):
            setattr(model.get_submodule(parent), leaf.replace("inv_freq", "original_inv_freq"), b)
    return model.float().eval()


def tokenize(program, model, path):
    out = subprocess.run([program, "-m", model, "-f", path, "--ids", "--log-disable"], capture_output=True, text=True, check=True)
    return [int(x) for x in out.stdout.strip().strip("[]").split(",")]


def main():
    path, out_path, program, *texts = sys.argv[1:]
    torch.set_num_threads(2)
    model = load(path)
    out = bytearray(b"QNLG" + struct.pack("<I", len(texts)))
    for text in texts:
        ids = tokenize(program, path, text)
        with torch.no_grad():
            lp = torch.log_softmax(model(torch.tensor([ids]), use_cache=False).logits[0].double(), -1)
        out += struct.pack(f"<I{len(ids)}i", len(ids), *ids)
        top = lp[:-1].topk(TOP)
        for i in range(len(ids) - 1):
            out += struct.pack("<f", lp[i, ids[i + 1]])
            for k in range(TOP):
                out += struct.pack("<if", top.indices[i, k], top.values[i, k])
        print(text, len(ids), "mean log-probability", float(lp[:-1].gather(1, torch.tensor(ids[1:])[:, None]).mean()))
    open(out_path, "wb").write(out)


if __name__ == "__main__":
    main()
