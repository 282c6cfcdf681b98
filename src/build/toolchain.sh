#!/bin/sh
# Installs what the project needs into .build/ (Deno, from npm) and on the host (compiler, QEMU, ..., from Debian).
# It builds nothing of the project itself. Quick when everything is there; safe to run twice at once.
#
#   src/build/toolchain.sh          everything
#   src/build/toolchain.sh package  that, and what makes packages of Debian; rpm: of other distributions
#   src/build/toolchain.sh deno     Deno only: enough for the unit tests
set -eu

# The one place that names the Deno version.
deno_version=2.9.6

root=$(cd "$(dirname "$0")/../.." && pwd)
build="$root/.build"
tools="$build/toolchain"
deno="$build/bin/deno"
stamp="$tools/version"

# sbin holds tools that a plain user's PATH leaves out (mkfs, insmod).
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

die() {
    echo "toolchain: $1" >&2
    exit 1
}

# Prints the Debian packages of the lists whose command or file is not here.
missing_packages() {
    cat "$@" | sed 's/#.*//' | while read -r probe package; do
        case "$probe" in
        "") ;;
        /*) [ -e "$probe" ] || echo "$package" ;;
        *) command -v "$probe" >/dev/null 2>&1 || echo "$package" ;;
        esac
    done | sort -u | tr '\n' ' ' | sed 's/ $//'
}

install_packages() {
    packages=$1
    command -v apt-get >/dev/null 2>&1 ||
        die "cannot install $packages: no apt-get on this machine; install them with its own package manager"
    sudo=""
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "cannot install $packages: not root and no sudo; run as root: apt-get install $packages"
        sudo=sudo
    fi
    echo "toolchain: installing from Debian: $packages"
    log="$build/apt.log"
    # The package lists may be absent or stale, so they are refreshed first; the log tells what went wrong.
    # shellcheck disable=SC2086
    if ! { $sudo apt-get -qq update &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $packages; } >"$log" 2>&1; then
        die "cannot install $packages: $(grep -m1 '^E:' "$log" || echo "see .build/apt.log")"
    fi
}

install_deno() {
    [ "$(cat "$stamp" 2>/dev/null)" = "$deno_version" ] && [ -x "$deno" ] && return
    command -v npm >/dev/null 2>&1 || die "cannot install Deno: npm is not here; type: apt-get install npm"
    echo "toolchain: installing from npm: deno $deno_version"
    rm -rf "$tools"
    mkdir -p "$tools" "$build/bin"
    echo '{ "private": true }' >"$tools/package.json"
    # No install scripts: the platform package already holds the binary, so nothing foreign runs here.
    npm install --prefix "$tools" --save-exact --ignore-scripts --no-audit --no-fund "deno@$deno_version" \
        >"$build/npm.log" 2>&1 ||
        die "cannot install deno $deno_version from npm ($(grep -m1 -E 'npm (error|ERR!) code' "$build/npm.log" || echo "no message")); is its registry reachable? .build/npm.log says more"
    binary=$(find "$tools/node_modules/@deno" -name deno -type f -perm -u+x | head -n 1)
    [ -n "$binary" ] || die "npm has no Deno $deno_version for $(uname -m)"
    # Relative, so that the checkout can be moved.
    ln -sfn "../${binary#"$build/"}" "$deno"
    DENO_DIR="$build/deno" "$deno" --version >/dev/null || die "the installed Deno does not start on this machine"
    # Deno fetches its bundler (esbuild) from npm at the first use; here, so that nothing later needs the network.
    echo 'export {};' >"$tools/empty.js"
    DENO_DIR="$build/deno" "$deno" bundle --quiet --no-config --no-lock "$tools/empty.js" >"$build/npm.log" 2>&1 ||
        die "cannot install Deno's bundler from npm; .build/npm.log says why"
    echo "$deno_version" >"$stamp"
}

mkdir -p "$build"
exec 9>"$build/toolchain.lock"
if command -v flock >/dev/null 2>&1; then flock 9; fi

if [ "${1:-all}" != deno ]; then
    lists="$root/src/build/host-tools.txt"
    extra="$root/src/build/${1:-all}-tools.txt"
    [ ! -e "$extra" ] || lists="$lists $extra"
    # shellcheck disable=SC2086
    packages=$(missing_packages $lists)
    [ -z "$packages" ] || install_packages "$packages"
fi
install_deno
