#!/bin/bash
# make lint: what a reader should not have to look for. Each check prints what it found; exits 1 when one did.
#   lint.sh [check]…   (default: all)   checks: warnings clang arrows banned text cppcheck manual unit shell scripts
# shellcheck disable=SC2317 # the checks are called by name
set -u
cd "$(dirname "$0")/.." || exit 2
bad=0
sources() { git ls-files -co --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done; }
found() { # title, lines
    [ -z "$2" ] && return
    printf '%s\n%s\n' "lint: $1" "$(head -n 20 <<<"$2" | sed 's/^/    /')"
    bad=1
}
absent() { echo "lint: $1 is not installed, its check was left out (scripts/deps.sh lint installs it)"; }
have() { command -v "$1" >/dev/null || { absent "$1"; return 1; }; }

warnings() { # the whole tree as gcc sees it, warnings as errors
    out=$(make -s -k -j"$(nproc)" V=lint all tests benches 2>&1) || found "warnings (gcc)" "$(grep -E 'error|warning|Error' <<<"$out")"
}

clang_run() { # and as clang does; objects only, in a folder of their own
    command -v clang >/dev/null || return 0
    out=$(make -s -k -j"$(nproc)" V=lint B=build/lint-clang CC=clang libs build/lint-clang/server/main.o 2>&1) ||
        found "warnings (clang)" "$(grep -E 'error|warning' <<<"$out")"
}

arrows() { # server -> api -> engine -> engine/base, never back; and which library belongs to which layer
    layer() { case $1 in server/*) echo 3 ;; api/*) echo 2 ;; engine/base/*) echo 0 ;; engine/*) echo 1 ;; *) echo 9 ;; esac; }
    local lines
    lines=$(sources 'server/*.[ch]' 'api/*.[ch]' 'engine/*.[ch]' | grep -v '_fuzz\.c$' | xargs grep -HnE '^#[[:space:]]*include "' |
        while IFS= read -r line; do
            file=${line%%:*}
            to=$(sed -E 's/.*include "([^"]*)".*/\1/' <<<"$line")
            [[ $to == */* ]] || { echo "$line: written from the root, please"; continue; }
            [ "$(layer "$to")" -le "$(layer "$file")" ] || echo "$line: an arrow back"
            case $file in
            api/*) case $to in
                engine/engine.h | engine/tokenizer.h | engine/sampler.h | engine/grammar/*.h | engine/base/* | api/*) ;;
                *) echo "$line: api sees the engine through engine.h alone" ;;
                esac ;;
            server/main.c) ;;
            server/*) case $to in engine/base/* | engine/engine.h | api/api.h | server/*) ;; *) echo "$line: the server sees api.h and engine.h" ;; esac ;;
            esac
        done)
    found "includes against the arrows (ARCHITECTURE.md)" "$lines"
    found "libraries of another layer" "$(
        sources 'api/*.[ch]' 'engine/*.[ch]' | xargs grep -nE '^#[[:space:]]*include <(uv|microhttpd|openssl/|yaml)'
        sources 'engine/*.[ch]' | grep -v '_fuzz\.c$' | xargs grep -nE '^#[[:space:]]*include <jansson'
        sources 'engine/base/*.[ch]' | xargs grep -nE '^#[[:space:]]*include <(sys/socket|netinet|pthread_np)'
    )"
}

banned() { # calls with a safer neighbour, and MHD's form parser, which we never hand a request to
    found "banned functions" "$(sources 'server/*.[ch]' 'api/*.[ch]' 'engine/*.[ch]' |
        xargs grep -nE '\b(strcpy|strcat|stpcpy|sprintf|vsprintf|gets|alloca|strtok|atoi|atol|atof|tmpnam|mktemp|system|popen|rand|srand|asctime|ctime|gmtime|localtime|setlocale)\(|MHD_create_post_processor' |
        grep -vE ':[0-9]+:[[:space:]]*(/\*|\*|//)')"
    found "the clock in a pure module (pass the time in)" "$(for f in engine/sched.c engine/kvcache.c engine/sampler.c; do
        [ -f "$f" ] && grep -nHE '\b(clock_gettime|gettimeofday|time)\(' "$f"; done)"
}

text() {
    found "unfinished" "$(sources '*.c' '*.h' '*.py' '*.mjs' '*.sh' '*.yaml' '*.md' Makefile '*.mk' | grep -v '^scripts/lint.sh$' | xargs grep -nE '\b(TODO|FIXME|XXX|HACK)\b')"
    found "paths of somebody's machine" "$(git grep -nIE '/(root|home/[a-z]+)/' -- . ':!scripts/lint.sh' ':!tests/corpus' ':!tests/vectors' ':!tests/golden' | cut -c1-160)"
    found "a file without an opening comment" "$(sources 'server/*.[ch]' 'api/*.[ch]' 'engine/*.[ch]' | while read -r f; do head -c 2 "$f" | grep -q '/\*' || echo "$f"; done)"
    found "past 800 lines: would two files read better?" "$(sources '*.c' '*.h' | xargs wc -l | awk '$2 != "total" && $1 > 800 && $2 !~ /_data\.c$/ {print $2": "$1" lines"}')"
    found "blanks at a line's end" "$(sources '*.c' '*.h' '*.py' '*.sh' '*.mjs' Makefile '*.mk' | xargs grep -nE '[[:blank:]]+$' | cut -c1-120)"
    found "a big or binary file" "$(sources . | xargs -d '\n' du -k | awk '$1 > 1024 {print $2": "$1" KiB"}')"
}

cppcheck_run() {
    have cppcheck || return 0
    # Left out: style opinions, and what needs knowledge of callers elsewhere (unusedFunction runs per tree, not per file).
    out=$(sources 'server/*.c' 'api/*.c' 'engine/*.c' | grep -vE '_(avx2|avx512)\.c$|_fuzz\.c$' |
        cppcheck --file-list=- -q -j "$(nproc)" --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=0 \
            --suppress=missingInclude --suppress=missingIncludeSystem --suppress=unknownMacro --suppress=normalCheckLevelMaxBranches \
            --suppress=preprocessorErrorDirective --suppress=checkersReport \
            --suppressions-list=scripts/cppcheck.txt \
            -I. -D_GNU_SOURCE -DQN_VERSION='"lint"' -D__x86_64__ --template='{file}:{line}: {id}: {message}' 2>&1)
    found "cppcheck" "$out"
}

manual() {
    have mandoc || return 0
    for page in conf/*.[1-8]; do
        # "STYLE" speaks of taste; a page names its own sections and the date freely.
        [ -f "$page" ] && found "$page" "$(mandoc -T lint -W warning "$page" 2>&1 | grep -vE 'unknown manual|referenced manual')"
    done
}

unit() {
    have systemd-analyze || return 0
    local dir
    dir=$(mktemp -d)
    for u in systemd/*.service; do
        [ -f "$u" ] || continue
        # /bin/true stands in for the programs, which verify wants to see where they will be.
        sed 's,@bindir@/quernd,/bin/true,g; s,/bin/kill,/bin/true,g' "$u" >"$dir/$(basename "$u")"
        found "$u" "$(systemd-analyze verify --man=no "$dir/$(basename "$u")" 2>&1 | grep -E "$(basename "$u")")"
    done
    rm -rf "$dir"
}

shell() {
    have shellcheck || return 0
    found "shellcheck" "$(sources 'scripts/*.sh' '.ci/run' | xargs shellcheck -f gcc 2>&1)"
}

scripts() {
    found "Python that does not compile" "$(sources '*.py' | xargs -n 20 python3 -c 'import sys
for f in sys.argv[1:]:
    try: compile(open(f).read(), f, "exec")
    except SyntaxError as e: print(f"{f}:{e.lineno}: {e.msg}")' 2>&1)"
    command -v node >/dev/null && found "JavaScript that does not parse" "$(sources '*.mjs' | xargs -r -n 1 node --check 2>&1)"
    return 0
}

checks=("$@")
[ $# -gt 0 ] || checks=(arrows banned text manual unit shell scripts cppcheck warnings clang)
for c in "${checks[@]}"; do
    case $c in
    cppcheck | clang) "${c}_run" ;;
    arrows | banned | text | manual | unit | shell | scripts | warnings) "$c" ;;
    *) echo "usage: lint.sh [warnings|clang|arrows|banned|text|cppcheck|manual|unit|shell|scripts]…" >&2; exit 64 ;;
    esac
done
[ $bad = 0 ] && echo "lint: nothing to mend"
exit $bad
