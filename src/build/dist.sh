#!/bin/sh
# Puts what a machine without Deno, network or compiler needs into one tar.gz under .build/dist/:
# the executable, the module for each kernel asked for, its sources (the GPL wants them), licences, a short README.
#
#   src/build/dist.sh dblock-ramdisk 6.1 6.12          make executable comes before
#
# Of the environment: VERSION, another one than that of deno.json; OUTPUT, another folder; COMPRESSION, an option of gzip (-1: quick).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
[ $# -gt 1 ] || { echo 'Usage: make dist KERNELS="6.1 6.12", or: make dist ARCH=aarch64 KERNELS=6.12-arm64' >&2; exit 1; }
program=$1
shift
[ -x "$program" ] || { echo "Cannot make the archive: no ./$program; type: make dist" >&2; exit 1; }

# What machine an ELF file is for: its e_machine.
machine_of() { od -An -tu2 -j18 -N2 "$1" | tr -d ' '; }
machine=$(machine_of "$program")
case $machine in
    62) arch=x86_64 ;;
    183) arch=aarch64 ;;
    *) echo "Cannot make the archive: ./$program is for machine $machine of ELF's list, which is not known here" >&2; exit 1 ;;
esac
strip=strip
[ "$arch" = "$(uname -m)" ] || strip=$arch-linux-gnu-strip

version=${VERSION:-$(sed -n 's/^ *"version": *"\(.*\)".*/\1/p' deno.json)}
name="dblock-$version-linux-$arch"
dist=${OUTPUT:-$root/.build/dist}
stage="$dist/$name"
rm -rf "$stage"
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage"

releases=""
for kernel in "$@"; do
    # The recipe's first line names the module it built: .build/kmod/RELEASE/dblock.ko
    module=$(src/build/deno.sh run --allow-all tests/vm/module.ts "--kernel=$kernel" | head -n 1)
    [ -f "$module" ] || { echo "Cannot make the archive: no module for kernel $kernel" >&2; exit 1; }
    [ "$(machine_of "$module")" = "$machine" ] ||
        { echo "Cannot make the archive: kernel $kernel is not for $arch, as ./$program is (ARCH says for what)" >&2; exit 1; }
    release=$(basename "$(dirname "$module")")
    # Debug information is most of a module and of no use to insmod.
    "$strip" --strip-debug -o "$stage/dblock-$release.ko" "$module"
    releases="$releases $release"
done

cp "$program" "$stage/dblock-ramdisk"
ln "$stage/dblock-ramdisk" "$stage/dblock"
cp kmod/60-dblock.rules "$stage/"
cp src/build/install.sh "$stage/"
mkdir -p "$stage/share/systemd"
cp src/build/systemd/* "$stage/share/systemd/"
# The pages have a date: that of the sources.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
src/build/deno.sh run --allow-all src/build/manual/main.ts "$stage/share/man"
src/build/deno.sh run --allow-all src/build/completion/main.ts "$stage/share/completion"
cp LICENSE LICENSE.GPL-2.0 LICENSE.MIT "$stage/"
cp .build/toolchain/node_modules/deno/LICENSE "$stage/LICENSE.deno"
cp src/command/page/uplot/LICENSE "$stage/LICENSE.uPlot"
cp -r src/build/monitoring "$stage/"
mkdir -p "$stage/kmod/uapi"
cp kmod/Kbuild kmod/README.md kmod/*.c kmod/*.h "$stage/kmod/"
rm -f "$stage"/kmod/*.mod.c
cp kmod/uapi/*.h "$stage/kmod/uapi/"
sed -e "s/@VERSION@/$version/" -e "s/@RELEASES@/${releases# }/" src/build/dist-README.md >"$stage/README.md"
chmod -R u=rwX,go=rX "$stage"

# Owners and times are fixed, so that the same sources give the same archive.
tar -C "$dist" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" | gzip -n "${COMPRESSION:--6}" >"$dist/$name.tar.gz.part"
mv "$dist/$name.tar.gz.part" "$dist/$name.tar.gz"
echo "dist: ${dist#"$root/"}/$name.tar.gz ($(du -m "$dist/$name.tar.gz" | cut -f1) MiB), modules for$releases"
