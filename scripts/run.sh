#!/bin/sh
# make run: packages, model, build, then the daemon in the foreground. run.sh MODEL (a name of models.tsv, a path or a URL).
# LISTEN=addr:port and further flags of quernd in QUERND_FLAGS. When everything is there, no step touches the network.
set -eu
cd "$(dirname "$0")/.."
model=${1:-smollm2-135m-instruct-q4_1}
listen=${LISTEN:-127.0.0.1:8080}

scripts/deps.sh build
port=${listen##*:}
case $listen in
unix:*) ;;
*)
    # Said before the download and the build, not after them.
    python3 - "$listen" <<'PY' || exit 71
import socket, sys
host, _, port = sys.argv[1].rpartition(":")
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try: s.bind((host.strip("[]"), int(port)))
except OSError as e: sys.exit(f"make run: {sys.argv[1]}: {e.strerror}; is a server running there? LISTEN=127.0.0.1:8081 make run takes another port")
PY
    ;;
esac
path=$(scripts/fetch-model.sh "$model")
make -s -j"$(nproc)" V="${V:-release}" all

case $listen in
unix:*) where="--unix-socket ${listen#unix:} http://localhost" ;;
*) where="http://127.0.0.1:$port" ;;
esac
# The line to try appears once the daemon answers; the loop ends with the daemon.
if [ "${QUIET:-}" != 1 ]; then
    (
        # shellcheck disable=SC2086 # option and address
        until curl -sf -m 1 -o /dev/null $where/readyz; do
            kill -0 $$ 2>/dev/null || exit 0
            sleep 0.1
        done
        printf '\nquernd answers. Try in another terminal:\n\n  curl -N %s/v1/chat/completions -H "Content-Type: application/json" \\\n    -d '\''{"messages":[{"role":"user","content":"What is the capital of France? Answer in one sentence."}],"stream":true,"temperature":0}'\''\n\nCtrl-C stops it.\n\n' "$where"
    ) &
fi
# shellcheck disable=SC2086 # a list of words
exec "build/${V:-release}/quernd" --model "$path" --listen "$listen" ${QUERND_FLAGS:-}
