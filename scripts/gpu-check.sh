#!/bin/bash
# make gpu-check: for whoever has an NVIDIA card. Builds the plug-in, runs the tests of tests/cuda on the card, the small ones under
# compute-sanitizer, measures kernels and the server, and leaves one file to send: build/gpu-check/report.md.
#   GPU=n   the card (default 0)      MODEL=name|path   the model of the server's figures (default: SmolLM2 135M)
#   KEEP=1  goes on behind a step that fails (the report says so either way)
# Exit: 0 all went well, 1 something failed (the report tells), 69 there is no card, driver or toolkit to do it with.
# shellcheck disable=SC2317 # the parts are called by name
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
gpu=${GPU:-0}
out=build/gpu-check
report=$out/report.md
port=18090
failed=0

missing() { echo "gpu-check: $1" >&2; exit 69; }

# What has to be there, most basic first, so that one line names the one thing to mend.
look_around() {
    command -v nvidia-smi >/dev/null || missing "no NVIDIA driver: nvidia-smi is not in PATH"
    nvidia-smi -i "$gpu" -L >/dev/null 2>&1 || missing "no card $gpu: nvidia-smi -i $gpu says $(nvidia-smi -i "$gpu" -L 2>&1 | head -n 1)"
    nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
    [ -x "$nvcc" ] || missing "no nvcc: CUDA 13 or later has to be in PATH or /usr/local/cuda (NVCC=path says where)"
    home=$("$nvcc" --dryrun -E -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')
}

# title, command…: its output becomes a section of the report.
part() {
    local title=$1 rc=0
    shift
    echo "gpu-check: $title" >&2
    printf '\n## %s\n\n' "$title" >>"$report"
    "$@" >"$out/part" 2>&1 || rc=$?
    if grep -q '^|' "$out/part"; then cat "$out/part" >>"$report"
    else { echo '```'; tail -n 400 "$out/part"; echo '```'; } >>"$report"; fi
    [ $rc = 0 ] && return 0
    printf '\nFAILED: exit %s\n' "$rc" >>"$report"
    echo "gpu-check: $title failed (exit $rc), see $report" >&2
    failed=1
    [ -n "${KEEP:-}" ] || finish
}

finish() {
    if [ $failed = 0 ]; then echo "All parts went well." >>"$report"; else echo "Some parts failed." >>"$report"; fi
    echo "gpu-check: please send $report" >&2
    exit "$failed"
}

machine() {
    nvidia-smi -i "$gpu" --query-gpu=name,compute_cap,memory.total,driver_version,clocks.max.sm,clocks.max.mem,power.limit,ecc.mode.current --format=csv
    "$nvcc" --version | tail -n 2
    git describe --always --dirty 2>/dev/null || cat VERSION 2>/dev/null || true
    uname -srm
}

build() { make -j"$(nproc)" NVCC="$nvcc" CUDA=1 all gpu-tests; }

# The same sources as `make test` runs over the emulator, linked with the real runtime. The stored results of the emulator
# (tests/cuda/emulator.bin) are among what test_backend compares with.
tests() {
    local rc=0 t
    for t in build/release/gpu/tests/cuda/test_*; do
        [ -x "$t" ] || continue
        echo "# ${t##*/}"
        CUDA_VISIBLE_DEVICES=$gpu "$t" || rc=1
    done
    return "$rc"
}

# Small ones only: memcheck and racecheck make a kernel some hundred times slower.
sanitizer() {
    local tool=$home/bin/compute-sanitizer rc=0 kind t
    [ -x "$tool" ] || tool=$(command -v compute-sanitizer) || { echo "compute-sanitizer is not installed; left out"; return 0; }
    for kind in memcheck racecheck synccheck; do
        echo "# $kind"
        CUDA_VISIBLE_DEVICES=$gpu "$tool" --tool "$kind" --error-exitcode 9 --target-processes all build/release/gpu/tests/cuda/bench_cuda small || rc=1
    done
    for t in rows rope pages attention matmul; do
        [ -x "build/release/gpu/tests/cuda/test_$t" ] || continue
        echo "# memcheck, test_$t"
        CUDA_VISIBLE_DEVICES=$gpu "$tool" --tool memcheck --error-exitcode 9 --target-processes all "build/release/gpu/tests/cuda/test_$t" || rc=1
    done
    return "$rc"
}

kernels() { CUDA_VISIBLE_DEVICES=$gpu build/release/gpu/tests/cuda/bench_cuda; }

server() {
    local model pid rc=0 n
    model=$(scripts/fetch-model.sh "${MODEL:-smollm2-135m-instruct-q4_1}" --yes) || return 1
    CUDA_VISIBLE_DEVICES=$gpu build/release/quernd --model "$model" --model-name m --device cuda --max-seqs 64 --listen 127.0.0.1:"$port" 2>"$out/quernd.log" &
    pid=$!
    until curl -sf -o /dev/null "http://127.0.0.1:$port/readyz"; do
        kill -0 "$pid" 2>/dev/null || { tail -n 20 "$out/quernd.log"; return 1; }
        sleep 0.2
    done
    curl -s "http://127.0.0.1:$port/version"
    echo
    for n in 1 8 32 64; do
        echo "# $n clients"
        build/release/quern bench --url "http://127.0.0.1:$port" --model m --clients "$n" --requests $((n * 4)) --words 200 --max-tokens 128 || rc=1
    done
    kill "$pid"
    wait "$pid" || rc=1
    tail -n 5 "$out/quernd.log"
    return "$rc"
}

look_around
mkdir -p "$out"
printf '# Quern on a card\n\n' >"$report"
part "Machine" machine
part "Build" build
part "Tests on the card" tests
part "compute-sanitizer" sanitizer
part "Kernels" kernels
part "Server" server
finish
