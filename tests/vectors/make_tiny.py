#!/usr/bin/env python3
"""Writes tests/data/tiny-<family>.gguf, random models of a few ten KiB, and tests/vectors/tiny-<family>.bin, what
transformers computes with them in float32.

    make_tiny.py          (needs: torch, transformers, gguf, numpy)

Weights are rounded to f16 before transformers sees them, so both sides compute with the same numbers. The vocabulary is a
byte-level BPE of our own: 256 bytes, a few merges of common English pairs, three control tokens, a ChatML template.

Vector file: "QNTV", u32 n_tokens, u32 n_rows, u32 n_vocab, i32 ids[n_tokens], then n_rows x {u32 position, f32 logits[n_vocab]}.
"""
import os, struct
import gguf, numpy as np, torch
from transformers import (Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAYERS, D, HEADS, KV, HD, FF, CTX, T = 2, 32, 2, 1, 16, 64, 4096, 96
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("e", "r"), ("a", "n"), ("Ġ", "a"), ("o", "n"), ("r", "e"), ("an", "d"),
          ("Ġ", "s"), ("Ġ", "w"), ("o", "u"), ("in", "g"), ("Ġ", "o"), ("Ġo", "f"), ("e", "s"), ("a", "t"), ("Ġ", "c"), ("l", "l")]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def byte_letters():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in keep]
    table = {b: chr(b) for b in keep}
    table.update({b: chr(256 + i) for i, b in enumerate(rest)})
    return [table[b] for b in range(256)]


TOKENS = SPECIAL + byte_letters() + [a + b for a, b in MERGES]
TOKENS += [f"[PAD{i}]" for i in range(len(TOKENS), 288)]
V = len(TOKENS)
base = dict(vocab_size=V, hidden_size=D, intermediate_size=FF, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            num_key_value_heads=KV, head_dim=HD, max_position_embeddings=CTX, rms_norm_eps=1e-5, attn_implementation="eager")
plain = {"rope_type": "default", "rope_theta": 10000.0}
llama3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
gemma_layers = 6
FAMILIES = {
    "llama": ("llama", LlamaConfig, LlamaForCausalLM, dict(base, rope_parameters=plain, tie_word_embeddings=True)),
    "llama3": ("llama", LlamaConfig, LlamaForCausalLM, dict(base, rope_parameters=llama3, tie_word_embeddings=False)),
    "qwen2": ("qwen2", Qwen2Config, Qwen2ForCausalLM, dict(base, rope_parameters=plain, tie_word_embeddings=False)),
    "qwen2-yarn": ("qwen2", Qwen2Config, Qwen2ForCausalLM, dict(base, rope_parameters=yarn, tie_word_embeddings=True)),
    "llama-linear": ("llama", LlamaConfig, LlamaForCausalLM, dict(base, rope_parameters=linear, tie_word_embeddings=True)),
    "qwen3": ("qwen3", Qwen3Config, Qwen3ForCausalLM, dict(base, rope_parameters=plain, tie_word_embeddings=True)),
    "gemma3": ("gemma3", Gemma3TextConfig, Gemma3ForCausalLM,
               dict(base, num_hidden_layers=gemma_layers, sliding_window=24, query_pre_attn_scalar=HD, tie_word_embeddings=True,
                    layer_types=["full_attention" if (i + 1) % 3 == 0 else "sliding_attention" for i in range(gemma_layers)],
                    rope_parameters={"full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                                     "sliding_attention": plain})),
}
NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
GEMMA = dict(NAMES, **{"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                       "post_feedforward_layernorm": "post_ffw_norm"})


def pair_rows(w, heads):
    """Rows of q and k from halves (transformers) to neighbours (how GGUF's llama turns them)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def llama3_factors(p):
    dims = np.arange(0, HD, 2, dtype=np.float64)
    freqs = 1.0 / (p["rope_theta"] ** (dims / HD))
    low, high, old = p["low_freq_factor"], p["high_freq_factor"], p["original_max_position_embeddings"]
    out = []
    for f in freqs:
        wave = 2 * np.pi / f
        if wave < old / high: out.append(1.0)
        elif wave > old / low: out.append(p["factor"])
        else:
            smooth = (old / wave - low) / (high - low)
            out.append(1.0 / ((1 - smooth) / p["factor"] + smooth))
    return np.array(out, dtype=np.float32)


def write_model(name, arch, model, cfg):
    w = gguf.GGUFWriter(f"{root}/tests/data/tiny-{name}.gguf", arch)
    w.add_name(f"tiny {name}")
    w.add_context_length(CTX); w.add_embedding_length(D); w.add_block_count(cfg.num_hidden_layers); w.add_feed_forward_length(FF)
    w.add_head_count(HEADS); w.add_head_count_kv(KV); w.add_key_length(HD); w.add_value_length(HD); w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(HD)
    rope = FAMILIES[name][3]["rope_parameters"]
    full = rope.get("full_attention", rope)
    w.add_rope_freq_base(full["rope_theta"])
    if full["rope_type"] == "linear": w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR); w.add_rope_scaling_factor(full["factor"])
    if full["rope_type"] == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN); w.add_rope_scaling_factor(full["factor"])
        w.add_rope_scaling_orig_ctx_len(full["original_max_position_embeddings"])
    if arch == "gemma3": w.add_sliding_window(cfg.sliding_window); w.add_uint32("gemma3.attention.sliding_window_pattern", 3)
    w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre("smollm"); w.add_token_list(TOKENS)
    w.add_token_types([3] * 3 + [1] * (256 + len(MERGES)) + [5] * (V - 259 - len(MERGES)))
    w.add_token_merges([f"{a} {b}" for a, b in MERGES])
    w.add_bos_token_id(1); w.add_eos_token_id(2); w.add_add_bos_token(False); w.add_chat_template(TEMPLATE)
    if full["rope_type"] == "llama3": w.add_tensor("rope_freqs.weight", llama3_factors(full))
    for key, value in model.state_dict().items():
        v = value.float().numpy()
        if key == "lm_head.weight" and cfg.tie_word_embeddings: continue
        stem, kind = key.rsplit(".", 1)
        if key in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
            out = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[stem]
        else:
            _, _, layer, rest = stem.split(".", 3)
            out = f"blk.{layer}." + (GEMMA if arch == "gemma3" else NAMES)[rest]
            if arch == "llama" and rest.endswith("q_proj"): v = pair_rows(v, HEADS)
            if arch == "llama" and rest.endswith("k_proj"): v = pair_rows(v, KV)
        if arch == "gemma3" and out.endswith("norm"): v = v + 1
        w.add_tensor(f"{out}.{kind}", v.astype(np.float32 if v.ndim == 1 else np.float16))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


for index, (name, (arch, config, cls, kw)) in enumerate(FAMILIES.items()):
    torch.manual_seed(100 + index)
    cfg = config(**kw)
    model = cls(cfg).eval().float()
    with torch.no_grad():
        for key, p in model.named_parameters():
            norm = key.endswith("norm.weight") or "layernorm" in key
            mean = 0.0 if arch == "gemma3" or not norm else 1.0
            p.copy_((mean + torch.randn_like(p) * (0.1 if norm else 0.25)).half().float())
        ids = torch.randint(3, 270, (1, T))
        logits = model(ids).logits[0].float().numpy()
    rows = list(range(0, T, 12)) + [T - 2, T - 1]
    with open(f"{root}/tests/vectors/tiny-{name}.bin", "wb") as f:
        f.write(b"QNTV" + struct.pack("<III", T, len(rows), V) + ids[0].numpy().astype("<i4").tobytes())
        for r in rows: f.write(struct.pack("<I", r) + logits[r].astype("<f4").tobytes())
    write_model(name, arch, model, cfg)
    print(name, os.path.getsize(f"{root}/tests/data/tiny-{name}.gguf"), float(np.abs(logits).max()))
