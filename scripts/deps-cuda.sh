#!/bin/sh
# Prints the path of an nvcc 13: deps-cuda.sh [--have]. First choice is the one in the cache folder, which has the version that
# tests/cuda/budget.tsv was written with, then one in PATH. Without --have it is fetched if it or nvdisasm is missing (110 MB of
# packages; fetch.py has the list). Exit 69 and one line when there is none. QN_NVCC names another one; QN_NVCC=none: have none.
set -u
here=$(dirname "$0")
right() { "$1" --version 2>/dev/null | grep -q 'release 13\.'; }
if [ -n "${QN_NVCC:-}" ]; then
    if [ "$QN_NVCC" != none ] && right "$QN_NVCC"; then echo "$QN_NVCC" && exit 0; fi
    echo "no nvcc 13: QN_NVCC is $QN_NVCC" >&2
    exit 69
fi
cache=${QUERN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/quern}
for f in "$cache"/cuda/13.*/bin/nvcc; do
    if [ -x "$f" ]; then echo "$f" && exit 0; fi
done
own=$(command -v nvcc 2>/dev/null)
[ -n "$own" ] && right "$own" || own=
if [ "${1:-}" != --have ] && { [ -z "$own" ] || ! command -v nvdisasm >/dev/null; }; then
    python3 "$here/fetch.py" cuda && exit 0
fi
if [ -n "$own" ]; then echo "$own" && exit 0; fi
echo "no nvcc 13 here (scripts/deps-cuda.sh fetches one)" >&2
exit 69
