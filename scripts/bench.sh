#!/bin/bash
# make bench: kernels first (share of the limit measured in the same run), then the server under load.
#   MODEL=name|path   the model (default: smollm2-135m-instruct-q4_1)
#   PEER=llama        also build llama.cpp (once, in the cache) and compare in turns, at its best of -t 1 and -t N
#   CONC=1,8,32 ROUNDS=3 THREADS=n   the load, the number of rounds, quernd's threads
# The method and results are in docs/performance.md. Quiet machines only: the load average is printed beside the figures.
set -eu
cd "$(dirname "$0")/.."
scripts/deps.sh build
model=$(scripts/fetch-model.sh "${MODEL:-smollm2-135m-instruct-q4_1}")
make -s -j"$(nproc)" all benches
echo "machine: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(nproc) cores, load average $(cut -d' ' -f1 /proc/loadavg)"
for b in build/release/bench/*; do
    if [ -f "$b" ] && [ -x "$b" ]; then
        echo "== $(basename "$b")"
        "$b" "$model"
    fi
done
port=18080
ours="build/release/quernd --model $model --model-name m --listen 127.0.0.1:$port --max-seqs 64${THREADS:+ --threads $THREADS}"
if [ "${PEER:-}" = llama ]; then
    bin=$(scripts/bench/peer-llama.sh "${QUERN_CACHE:-$HOME/.cache/quern}/peer")
    for t in 1 $(nproc); do
        echo "== against llama-server -t $t"
        python3 scripts/bench/compare.py --ours "$ours" --ours-port $port --conc "${CONC:-1,8,32}" --rounds "${ROUNDS:-3}" --markdown \
            --peer "$bin/llama-server -m $model --port 19001 -t $t -c 16384 -np 32" --peer-port 19001
    done
else
    echo "== quernd under load"
    $ours 2>build/bench.log &
    pid=$!
    trap 'kill $pid 2>/dev/null || true' EXIT
    until curl -sf -o /dev/null "http://127.0.0.1:$port/readyz"; do
        kill -0 $pid || { tail -5 build/bench.log >&2; exit 1; }
        sleep 0.1
    done
    python3 scripts/bench/load.py --port $port --conc 1 --n 1 --base 900000 >/dev/null
    for c in $(tr , ' ' <<<"${CONC:-1,8,32}"); do
        python3 scripts/bench/load.py --port $port --conc "$c" --n $((c * 2 > 4 ? c * 2 : 4)) --base $((c * 1000))
    done
fi
