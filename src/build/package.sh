# What deb.sh and rpm.sh begin with; they source it.
#
#   package_begins PROGRAM TOOLS TARGET
#
# fetches the tools that toolchain.sh calls TOOLS, and sets `machine`, the number of the program's processor as ELF has it,
# `version` and SOURCE_DATE_EPOCH. The working directory is the project's.
package_begins() {
    src/build/toolchain.sh "$2"
    [ -x "$1" ] || { echo "Cannot make the packages: no ./$1; type: make $3" >&2; exit 1; }
    machine=$(od -An -tu2 -j18 -N2 "$1" | tr -d ' ')
    version=${VERSION:-$(sed -n 's/^ *"version": *"\(.*\)".*/\1/p' deno.json)}
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 1)
    export SOURCE_DATE_EPOCH
}

machine_unknown() {
    echo "Cannot make the packages: ./$1 is for a machine that is not known here" >&2
    exit 1
}
