#!/bin/sh
# Installs the Debian packages that are missing: deps.sh [build] [test] [lint]   (default: build).
# As root with apt-get, else it prints the line to run and exits 69. With everything there it does nothing, in milliseconds.
set -eu
build="gcc g++ libc6-dev make pkg-config libmicrohttpd-dev libuv1-dev libjansson-dev libssl-dev libyaml-dev python3 ca-certificates curl"
test="python3-venv nginx-light haproxy openssl"
lint="git cppcheck mandoc shellcheck systemd"
want=
[ $# -gt 0 ] || set -- build
for group in "$@"; do
    case $group in
    build) want="$want $build" ;;
    test) want="$want $test" ;;
    lint) want="$want $lint" ;;
    *) echo "usage: deps.sh [build] [test] [lint]" >&2; exit 64 ;;
    esac
done
# Node counts by its command: many machines have it from elsewhere, and Debian's package would fight with that one.
case " $* " in *" test "*) command -v node >/dev/null && command -v npm >/dev/null || want="$want nodejs npm" ;; esac

command -v dpkg-query >/dev/null || {
    echo "This is no Debian: have these installed under your system's names:$want" >&2
    exit 0 # the build will say what it misses
}
missing=
for p in $want; do
    case $(dpkg-query -W -f '${Status}' "$p" 2>/dev/null) in *" installed") ;; *) missing="$missing $p" ;; esac
done
# A tool may be there without Debian's package of that name.
left=
for p in $missing; do
    case $p in
    gcc | g++ | make | curl | git | cppcheck | mandoc | shellcheck | haproxy | openssl | python3) command -v "$p" >/dev/null && continue ;;
    nginx-light) command -v nginx >/dev/null && continue ;;
    pkg-config) command -v pkg-config >/dev/null && continue ;;
    systemd) command -v systemd-analyze >/dev/null && continue ;;
    esac
    left="$left $p"
done
[ -n "$left" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "Missing packages. Run this once, then the same make again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$left" >&2
    exit 69
fi
echo "installing:$left" >&2
export DEBIAN_FRONTEND=noninteractive
# Daemons that come along (nginx, haproxy) are for tests: nothing is to start. Debian asks this file before it starts any.
guard=
if [ ! -e /usr/sbin/policy-rc.d ]; then
    guard=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod +x "$guard"
    trap 'rm -f "$guard"' EXIT INT TERM
fi
fail() {
    echo "apt-get failed (see above). These packages are needed:$left" >&2
    exit 69
}
# shellcheck disable=SC2086 # a list of words
apt-get install -y -q --no-install-recommends $left </dev/null >&2 || {
    apt-get update -q </dev/null >&2 || fail
    apt-get install -y -q --no-install-recommends $left </dev/null >&2 || fail
}
