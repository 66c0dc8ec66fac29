#!/bin/sh
# make test: test.sh VARIANT FILTER. Sets up what the tests need (packages, models, vectors, a Python venv, the Node SDK),
# builds, runs tests/drive.py. Every step is done once: a second run goes straight to the tests.
set -eu
cd "$(dirname "$0")/.."
variant=${1:-release}
filter=${2:-}

scripts/deps.sh build test
for m in smollm2-135m-instruct-q4_1 qwen2.5-coder-0.5b-instruct-q4_k_m gemma-3-270m-q4_k_m; do
    scripts/fetch-model.sh "$m" --yes >/dev/null
done
scripts/fetch-vectors.sh >/dev/null
scripts/deps-cuda.sh >/dev/null || true # says so itself; what needs nvcc is skipped then

mkdir -p build
if ! cmp -s tests/requirements.txt build/venv/requirements.txt; then
    echo "build/venv: Python packages of tests/requirements.txt" >&2
    rm -rf build/venv
    python3 -m venv build/venv
    build/venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt build/venv/
fi
if ! cmp -s tests/package-lock.json build/node/package-lock.json; then
    echo "build/node: Node packages of tests/package-lock.json" >&2
    rm -rf build/node build/node.new
    mkdir build/node.new
    cp tests/package.json tests/package-lock.json build/node.new/
    (cd build/node.new && npm ci --no-audit --no-fund --loglevel=error >&2)
    mv build/node.new build/node
fi

make -s -j"$(nproc)" V="$variant" all tests
exec python3 tests/drive.py --variant "$variant" --filter "$filter"
