#!/bin/bash
# make fuzz F=gguf: one parser under libFuzzer with AddressSanitizer and UBSan, seeded from tests/corpus/<name>.
# Findings land in build/libfuzzer/<name>/; add the input that failed to tests/corpus/<name> with the fix. SECONDS_MAX=60.
set -eu
cd "$(dirname "$0")/.."
name=${1:-}
src=$(git ls-files '*_fuzz.c' | grep -E "(^|/)${name}_fuzz\.c$" || true)
if [ -z "$name" ] || [ -z "$src" ]; then
    echo "make fuzz F=name; the names: $(git ls-files '*_fuzz.c' | sed -E 's,.*/,,; s,_fuzz.c,,' | xargs)" >&2
    exit 64
fi
command -v clang >/dev/null || { echo "libFuzzer comes with clang: sudo apt-get install clang (make test replays the corpus with gcc)" >&2; exit 69; }
b=build/libfuzzer
san="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
make -s -j"$(nproc)" V=fuzz B=$b CC=clang OPT_fuzz="-O1 $san -fsanitize=fuzzer-no-link" libs
pkgs="libmicrohttpd libuv jansson openssl yaml-0.1"
# shellcheck disable=SC2046,SC2086 # lists of words
clang -std=c17 -D_GNU_SOURCE -DQN_VERSION='"fuzz"' -I. -g -O1 $san -fsanitize=fuzzer $(pkg-config --cflags $pkgs) -pthread \
    -o "$b/$name-fuzz" "$src" $b/libquern-server.a $b/libquern-api.a $b/libquern-engine.a $(pkg-config --libs $pkgs) -lm -ldl
mkdir -p "$b/$name" "$b/$name.corpus"
seeds=()
[ -d "tests/corpus/$name" ] && seeds=("tests/corpus/$name")
exec "$b/$name-fuzz" -artifact_prefix="$b/$name/" -max_total_time="${SECONDS_MAX:-60}" -timeout=10 -rss_limit_mb=2048 \
    "$b/$name.corpus" "${seeds[@]}"
