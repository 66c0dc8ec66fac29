#!/usr/bin/env python3
"""Writes tests/vectors/beams.json: what transformers' beam search finds with tests/data/tiny-*.gguf in float32.

    make_beams.py          (needs: torch, transformers, gguf)

Cases whose result hangs on less than 2e-4 in a score are left out: the kept answers' neighbours in the order, and the same search with
every logit disturbed by that much, must give the same answers.
"""
import json, os, random
import torch
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList

root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
END = [0, 2]  # <|endoftext|>, <|im_end|>


class Shake(LogitsProcessor):
    def __init__(self, seed):
        self.seed = seed

    def __call__(self, ids, scores):
        g = torch.Generator().manual_seed(self.seed + ids.shape[1])
        return scores + 2e-4 * (torch.rand(scores.shape[-1], generator=g) - 0.5)


def search(model, case, shake=None):
    ids = torch.tensor([case["prompt"]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=case["beams"], num_return_sequences=case["beams"], max_new_tokens=case["max_tokens"],
                         length_penalty=case["length_penalty"], early_stopping=case["early_stopping"], eos_token_id=END + case["stop"], pad_token_id=1,
                         return_dict_in_generate=True, output_scores=True, logits_processor=LogitsProcessorList([Shake(shake)] if shake else []))
    answers = []
    for seq in out.sequences.tolist():
        new, ends = seq[len(case["prompt"]):], set(END + case["stop"])
        stop = next((i + 1 for i, t in enumerate(new) if t in ends), len(new))
        answers.append(new[:stop])
    return answers, out.sequences_scores.tolist()


cases = []
for name in ("llama", "qwen2"):  # of qwen3 its reader of GGUF takes another head size
    model = AutoModelForCausalLM.from_pretrained(f"{root}/tests/data", gguf_file=f"tiny-{name}.gguf", dtype=torch.float32).eval()
    rng = random.Random(name)
    for i in range(12):
        case = {"model": f"tiny-{name}", "prompt": [rng.randrange(3, 260) for _ in range(rng.randint(3, 40))], "beams": rng.choice([2, 3, 4, 6, 8]), "max_tokens": rng.randint(1, 20),
                "length_penalty": rng.choice([1.0, 1.0, 0.0, 2.0, -1.0, 0.6]), "early_stopping": rng.choice([False, True, "never"]), "stop": []}
        if i % 3:  # ids that are likely somewhere, so that beams end
            free, _ = search(model, {**case, "beams": 4, "max_tokens": 12, "length_penalty": 1.0, "early_stopping": False})
            case["stop"] = sorted({a[k] for a in free for k in range(2, len(a), 3)} - set(END))[:14 - case["beams"]]
        answers, scores = search(model, case)
        if any(abs(a - b) < 2e-4 for a, b in zip(scores, scores[1:])) or any(search(model, case, s)[0] != answers for s in (1, 2)):
            continue
        cases.append({**case, "answers": answers, "scores": scores})
json.dump(cases, open(f"{root}/tests/vectors/beams.json", "w"), separators=(",", ":"))
print(len(cases), "cases;", sum(len(a) < c["max_tokens"] for c in cases for a in c["answers"]), "answers end early")
