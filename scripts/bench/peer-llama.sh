#!/bin/bash
# Builds llama.cpp, the peer that we compare with, from the source archive of llama-cpp-python 0.3.36 (the same that the test
# vectors come from) and prints the folder of its programs. Needs cmake and g++. Once; about 8 minutes on two cores.
#   peer-llama.sh DIR
set -euo pipefail
dir=${1:?usage: peer-llama.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)
release=llama_cpp_python-0.3.36
src=$dir/$release/vendor/llama.cpp
programs=(llama-server llama-bench llama-batched-bench llama-tokenize)
mkdir -p "$dir"
if [ ! -d "$src" ]; then
    python3 - "$here/.." "$dir/src.tar.gz" >&2 <<'PY'
import sys
sys.path.insert(0, sys.argv[1])
import fetch
package, version, size, sha = fetch.VECTORS
url, _ = fetch.find_file(package, version, sdist=True)
fetch.download(url, sys.argv[2], f"{package} {version}", size=size, sha256=sha)
PY
    tar -C "$dir" -xzf "$dir/src.tar.gz"
    rm "$dir/src.tar.gz"
fi
if [ ! -x "$src/build/bin/llama-tokenize" ]; then
    cmake -S "$src" -B "$src/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF >&2
    cmake --build "$src/build" -j"$(nproc)" --target "${programs[@]}" >&2
fi
echo "$src/build/bin"
