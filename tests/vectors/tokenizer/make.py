#!/usr/bin/env python3
"""Writes the wanted ids of every text of texts.jsonl, as the reference gives them:

    pip install tokenizers==0.23.3 sentencepiece==0.2.1 gguf numpy
    tests/vectors/tokenizer/make.py [name...]

<name>.ids has a line of ids for each text, in order: Hugging Face tokenizers with the pre-tokenizer and the normaliser of the
model's published tokenizer.json (spelled out below), its vocabulary and merges taken from the GGUF file in the cache; for
SentencePiece models the sentencepiece library itself, fed with the pieces, scores and types of the GGUF file.
split.tsv has, for every pre-tokenizer, the lengths in bytes of the pieces of each text (Hugging Face alone).
No special tokens are added, and none that is CONTROL is recognised: the texts stand for what users send. USER tokens are,
but for those that Quern guards too (engine/special.c); the texts avoid them.
"""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("QUERN_CACHE", os.path.expanduser("~/.cache/quern"))
VOCABS = CACHE + "/vectors/llama.cpp-0.3.36/models/ggml-vocab-%s.gguf"
MODELS = CACHE + "/models/%s.gguf"

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
NFC = {"type": "NFC"}


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def seq(*pre):
    return {"type": "Sequence", "pretokenizers": list(pre)}


CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UP, LOW, LEAD = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[^\r\n\p{L}\p{N}]?"
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (LEAD + UP + "*" + LOW + "+%s|" + LEAD + UP + "+" + LOW + r"*%s|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
CASED = ("A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386"
         "\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
         "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
         "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
         "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184"
         "\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
         "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
         "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943")

# name in tokenizer.ggml.pre -> (normaliser, pre-tokenizer)
PRE = {
    "smollm": (None, seq(DIGITS, GPT2)),
    "starcoder": (None, seq(DIGITS, GPT2)),
    "refact": (None, seq(DIGITS, GPT2)),
    "command-r": (NFC, seq(DIGITS, GPT2)),
    "gpt-2": (None, GPT2),
    "mpt": (NFC, GPT2),
    "qwen2": (NFC, seq(split(CL100K % ""), BYTES)),
    "qwen35": (None, seq(split(QWEN35), BYTES)),
    "llama-bpe": (None, seq(split(CL100K % "{1,3}"), BYTES)),
    "gpt-4o": (None, seq(split(O200K % (SUFFIX, SUFFIX, "{1,3}")), BYTES)),
    "tekken": (None, seq(split(O200K % ("", "", "")), BYTES)),
    "deepseek-coder": (None, seq(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split(CJK), DIGITS, BYTES)),
    "deepseek-llm": (None, seq(split("[\r\n]"), split(r"\s?[" + CASED + "]+"),
                               split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"), split(r"\s+$"), split(CJK), DIGITS, BYTES)),
    "deepseek-v3": (None, seq(split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                              split(r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
                                    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""), BYTES)),
    "falcon": (None, seq({"type": "Punctuation", "behavior": "Contiguous"}, GPT2, {"type": "Digits", "individual_digits": False},
                         split("[0-9][0-9][0-9]"))),
}
# file of ids -> (GGUF file, pre-tokenizer or "sentencepiece")
FILES = {
    "smollm2": (MODELS % "smollm2-135m-instruct-q4_1", "smollm"),
    "qwen2.5": (MODELS % "qwen2.5-coder-0.5b-instruct-q4_k_m", "qwen2"),
    "gemma-3": (MODELS % "gemma-3-270m-q4_k_m", "sentencepiece"),
    "gemma-4": (VOCABS % "gemma-4", "gemma4"),
    "llama-spm": (VOCABS % "llama-spm", "sentencepiece"),
    "llama-bpe": (VOCABS % "llama-bpe", "llama-bpe"),
    "gpt-2": (VOCABS % "gpt-2", "gpt-2"),
    "deepseek-llm": (VOCABS % "deepseek-llm", "deepseek-llm"),
    "deepseek-coder": (VOCABS % "deepseek-coder", "deepseek-coder"),
    "falcon": (VOCABS % "falcon", "falcon"),
    "starcoder": (VOCABS % "starcoder", "starcoder"),
    "refact": (VOCABS % "refact", "refact"),
    "command-r": (VOCABS % "command-r", "command-r"),
    "mpt": (VOCABS % "mpt", "mpt"),
    "qwen35": (VOCABS % "qwen35", "qwen35"),
}
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


def read(path):
    from gguf import GGUFReader
    f = GGUFReader(path).fields

    def texts(key):
        v = f[key]
        return [bytes(v.parts[d]).decode("utf-8") for d in v.data]

    def numbers(key):
        v = f[key]
        return [v.parts[d][0].item() for d in v.data]

    def one(key, default):
        return f[key].contents() if key in f else default

    g = "tokenizer.ggml."
    return dict(tokens=texts(g + "tokens"), types=numbers(g + "token_type"), merges=texts(g + "merges") if g + "merges" in f else None,
                scores=numbers(g + "scores") if g + "scores" in f else None, prefix=one(g + "add_space_prefix", True))


def padding(t):
    return t.startswith("[PAD") and t[4:-1].isdigit()


def hugging_face(v, pre):
    from tokenizers import Tokenizer
    ids = {t: i for i, t in enumerate(v["tokens"])}
    spaced = pre == "gemma4"
    normalizer, pre_tokenizer = ({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, None) if spaced else PRE[pre]
    added = [dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
             for i, t in enumerate(v["tokens"]) if v["types"][i] == USER and not padding(t) and not (t.startswith("<") and t.endswith(">"))]
    conf = dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=normalizer, pre_tokenizer=pre_tokenizer,
                post_processor=None, decoder=None,
                model=dict(type="BPE", dropout=None, unk_token="<unk>" if spaced else None, continuing_subword_prefix=None,
                           end_of_word_suffix=None, fuse_unk=spaced, byte_fallback=spaced, ignore_merges=pre == "llama-bpe",
                           vocab=ids, merges=[list(m.split(" ", 1)) if m[0] != " " else [" ", m[2:]] for m in v["merges"]]))
    tok = Tokenizer.from_str(json.dumps(conf))
    return lambda t: tok.encode(t, add_special_tokens=False).ids


def sentencepiece(v):
    import sentencepiece as sp
    from sentencepiece import sentencepiece_model_pb2 as pb
    kind = {NORMAL: 1, UNKNOWN: 2, CONTROL: 3, USER: 4, UNUSED: 5, BYTE: 6}
    m = pb.ModelProto()
    m.trainer_spec.model_type = 2
    m.trainer_spec.byte_fallback = True
    m.trainer_spec.vocab_size = len(v["tokens"])
    m.normalizer_spec.name = "identity"
    m.normalizer_spec.add_dummy_prefix = bool(v["prefix"])
    m.normalizer_spec.remove_extra_whitespaces = False
    m.normalizer_spec.escape_whitespaces = True
    seen_unk = UNKNOWN in v["types"]
    for i, t in enumerate(v["tokens"]):
        k = kind[v["types"][i]]
        if t == "<unk>" and not seen_unk:
            k = 2
        m.pieces.add(piece=t.replace(" ", "\u2581") if k == 4 else t, score=v["scores"][i], type=k)
    p = sp.SentencePieceProcessor(model_proto=m.SerializeToString())
    # The library takes U+0000 for an end in some versions; it does not here. It mends nothing, as the texts are valid.
    return lambda t: p.encode(t) if t else []


def texts():
    with open(os.path.join(HERE, "texts.jsonl")) as f:
        return [json.loads(line) for line in f]


def encoder(name):
    path, pre = FILES[name]
    v = read(path)
    return sentencepiece(v) if pre == "sentencepiece" else hugging_face(v, pre)


def splits():
    from tokenizers import normalizers, pre_tokenizers
    with open(os.path.join(HERE, "split.tsv"), "w") as f:
        for name, (_, conf) in PRE.items():
            if name == "falcon":  # it cuts within characters, which offsets in characters cannot say
                continue
            from tokenizers import Tokenizer, models
            base = json.loads(Tokenizer(models.BPE()).to_str())
            base["pre_tokenizer"] = conf
            pre = Tokenizer.from_str(json.dumps(base)).pre_tokenizer
            for t in texts():
                at = [b for _, (a, b) in pre.pre_tokenize_str(t)] if t else []
                cuts, last = [], 0
                for b in at:
                    cuts.append(len(t[last:b].encode("utf-8")))
                    last = b
                assert sum(cuts) == len(t.encode("utf-8"))
                f.write(name + "\t" + " ".join(map(str, cuts)) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or FILES:
        if name == "split":
            continue
        encode = encoder(name)
        with open(os.path.join(HERE, name + ".ids"), "w") as f:
            for t in texts():
                f.write(" ".join(map(str, encode(t))) + "\n")
        print(name, os.path.getsize(os.path.join(HERE, name + ".ids")), "bytes")
    if not sys.argv[1:] or "split" in sys.argv[1:]:
        splits()
