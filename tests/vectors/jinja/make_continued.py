#!/usr/bin/env python3
"""Writes tests/vectors/jinja/continued.json: what transformers 5.23 (pip install transformers==5.23.0 jinja2) makes of
continue_final_message, for every template of the llama-cpp-python package and several final messages, as the first 16 hex
digits of the prompt's SHA-256 (null: it refuses). test_templates.py compares."""
import datetime, glob, hashlib, json, os, sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(here))
from jinja_reference import NOW
from transformers.utils import chat_template_utils as reference


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


reference.datetime = Clock
cache = os.environ.get("QUERN_CACHE") or os.path.expanduser("~/.cache/quern")
FINALS = ["Once upon", "  Once upon \n", "a\n\nb", "<think>\nhm\n</think>\n\nYes, it", "é ☃ ", "", " ", "<|im_end|>"]
out = {"finals": FINALS, "want": {}}
for path in sorted(glob.glob(f"{cache}/vectors/llama.cpp-0.3.36/models/templates/*.jinja")):
    row = []
    for final in FINALS:
        messages = [{"role": "user", "content": "u"}, {"role": "assistant", "content": final}]
        try:
            text = reference.render_jinja_template([messages], chat_template=open(path, encoding="utf-8", newline="").read(),
                                                   continue_final_message=True, bos_token="<s>", eos_token="</s>")[0][0]
            row.append(hashlib.sha256(text.encode()).hexdigest()[:16])
        except Exception:
            row.append(None)
    out["want"][os.path.basename(path)[:-6]] = row
with open(f"{here}/continued.json", "w", encoding="utf-8") as f:
    f.write('{"finals": ' + json.dumps(FINALS, ensure_ascii=False) + ',\n"want": {\n')
    f.write(",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in out["want"].items()) + "\n}}\n")
