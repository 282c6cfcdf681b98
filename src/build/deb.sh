#!/bin/sh
# Builds the packages of Debian, in .build/deb/: dblock-dkms (the module's sources) and dblock (everything else), then asks
# lintian about them. What has to be made first is the executable, by `make`; the rest is made here.
#
#   src/build/deb.sh dblock-ramdisk            make deb
#
# Of the environment: VERSION, another one than that of deno.json; OUTPUT, another folder; COMPRESSION, options of dpkg-deb.
# The tests upgrade from one version to another.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
program=${1:?Usage: src/build/deb.sh PROGRAM}
. src/build/package.sh
package_begins "$program" package deb
case $machine in
62) arch=amd64 ;;
183) arch=arm64 ;;
*) machine_unknown "$program" ;;
esac

deb=${OUTPUT:-$root/.build/deb}
stage="$deb/dblock-$version"
rm -rf "$deb"
src/build/stage.sh "$stage" "$program"
cp -r src/build/debian "$stage/debian"
cp -r src/build/initramfs "$stage/initramfs"
mv "$stage/dblock@.service" "$stage/debian/dblock@.service"
mv "$stage/60-dblock.rules" "$stage/debian/dblock.udev"

cat >"$stage/debian/changelog" <<END
dblock ($version) unstable; urgency=medium

  * Built from the project's sources; its repository has the changes.

 -- dblock authors <dblock@example.org>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
chmod -R u=rwX,go=rX "$stage"

(cd "$stage" && dpkg-buildpackage --build=binary --no-sign --host-arch "$arch" --no-check-builddeps >"$deb/build.log" 2>&1) ||
    { tail -20 "$deb/build.log" >&2; echo "Cannot make the packages: $deb/build.log says why" >&2; exit 1; }
rm -rf "$stage"
for file in "$deb"/*.deb; do echo "deb: ${file#"$root/"} ($(du -m "$file" | cut -f1) MiB)"; done
# It is quiet unless something is wrong; what it may say otherwise stands in debian/*.lintian-overrides, with the reason.
# Packages that the tests make are not compressed.
uncompressed=uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball
# A lintian that ends for another reason has not looked at everything.
status=0
lintian -EvIL +pedantic ${COMPRESSION:+--suppress-tags $uncompressed} "$deb"/*.changes >"$deb/lintian.log" 2>&1 || status=$?
if grep -E '^[EWIPXC]: ' "$deb/lintian.log"; then
    echo "lintian has something to say: $deb/lintian.log" >&2
    exit 1
fi
if [ "$status" != 0 ]; then
    echo "Cannot check the packages: lintian ended with status $status; its words: $deb/lintian.log" >&2
    exit 1
fi
