#!/bin/sh
# Runs the project's own Deno with the right options: its cache under .build/, and the stand-ins for @std where JSR does
# not answer. It is the only place that knows about either, so every other file just says `src/build/deno.sh run ...`.
#
#   src/build/deno.sh run|test|check|bundle|compile|info|... ARGS...
#
# DBLOCK_STD=jsr or DBLOCK_STD=standins decides instead of the probe.
set -eu

build_dir=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$build_dir/../.." && pwd)
deno="$root/.build/bin/deno"
answer="$root/.build/std-source"

[ -x "$deno" ] || { "$build_dir/toolchain.sh" deno >&2 || exit 1; }

export DENO_DIR="$root/.build/deno"
export DENO_NO_UPDATE_CHECK=1

# Asks JSR once. "jsr" is remembered for good, "standins" for a day, so that a machine that gets a network uses it.
std_source() {
    if [ -n "${DBLOCK_STD:-}" ]; then
        echo "$DBLOCK_STD"
    elif [ "$(cat "$answer" 2>/dev/null)" = jsr ] || [ -n "$(find "$answer" -mtime 0 2>/dev/null)" ]; then
        cat "$answer"
    else
        source=standins
        if timeout 10 "$deno" cache --quiet --no-config --no-lock jsr:@std/cli@^1.0.0 jsr:@std/assert@^1.0.0 \
            jsr:@std/fs@^1.0.0 >/dev/null 2>&1; then
            source=jsr
        else
            echo "deno.sh: JSR does not answer; src/build/standins/ replaces @std/cli, @std/assert and @std/fs" >&2
        fi
        echo "$source" >"$answer.$$"
        mv "$answer.$$" "$answer"
        echo "$source"
    fi
}

[ $# -gt 0 ] || exec "$deno" --help
command=$1
shift
case "$command" in
run | test | check | bundle | compile | cache | info | doc | bench)
    if [ "$(std_source)" = standins ]; then
        # --import-map replaces the imports of deno.json; the rest of deno.json still holds.
        exec "$deno" "$command" --import-map="$build_dir/standins/import_map.json" "$@"
    fi
    ;;
esac
exec "$deno" "$command" "$@"
