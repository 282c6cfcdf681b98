#!/bin/sh
# Builds packages for distributions with rpm, in .build/rpm/: dblock, and akmod-dblock, which has the module's source package for
# akmods; then asks rpmlint about them. What has to be made first is the executable, by `make`.
#
#   src/build/rpm.sh dblock-ramdisk            make rpm
#
# Of the environment: VERSION, another one than that of deno.json; OUTPUT, another folder; COMPRESSION, how rpm packs (w0.gzdio: not
# at all, which is quick).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
program=${1:?Usage: src/build/rpm.sh PROGRAM}
. src/build/package.sh
package_begins "$program" rpm rpm
case $machine in
62) arch=x86_64 ;;
183) arch=aarch64 ;;
*) machine_unknown "$program" ;;
esac

out=${OUTPUT:-$root/.build/rpm}
stage="$out/stage"
rm -rf "$out"
mkdir -p "$stage"
src/build/stage.sh "$stage" "$program"

# build WHAT SPEC WORDS…: rpmbuild, with everything it makes below $out. A spec of another distribution's tools is not looked for here.
build() {
    what=$1
    spec=$2
    shift 2
    rpmbuild "$what" --nodeps --target "$arch" --define "_topdir $out/work" --define "_rpmdir $out" \
        --define "_sourcedir $stage" --define "_srcrpmdir $stage" --define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" \
        --define "dblock_version $version" --define "stage $stage" ${COMPRESSION:+--define "_binary_payload $COMPRESSION"} \
        "$@" "$spec" >>"$out/build.log" 2>&1 ||
        { tail -20 "$out/build.log" >&2; echo "Cannot make the packages: $out/build.log says why" >&2; exit 1; }
}

name="dblock-kmod-$version"
# The specification in the source package is read again on another machine, which knows no version but that in it.
sed -e "s/%{dblock_version}/$version/" -e "/^%changelog/,\$ s/%{version}/$version/" src/build/rpm/dblock-kmod.spec >"$stage/dblock-kmod.spec"
tar -C "$stage" --transform "s#^kmod#$name#" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    -czf "$stage/$name.tar.gz" kmod
build -bs "$stage/dblock-kmod.spec"
build -bb src/build/rpm/dblock.spec
mv "$stage/$name-1.src.rpm" "$out/"
rm -rf "$stage" "$out/work"
for file in "$out"/*.rpm; do echo "rpm: ${file#"$root/"} ($(du -m "$file" | cut -f1) MiB)"; done
# What it may say otherwise stands in rpm/rpmlint.toml, with the reason.
rpmlint --config src/build/rpm/rpmlint.toml "$out"/*.rpm >"$out/rpmlint.log" 2>&1 || true
if grep -E ': [EW]: ' "$out/rpmlint.log" || ! grep -q ' 0 errors, 0 warnings' "$out/rpmlint.log"; then
    echo "rpmlint has something to say: $out/rpmlint.log" >&2
    exit 1
fi
