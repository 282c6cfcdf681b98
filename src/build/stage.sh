#!/bin/sh
# Puts what the packages are made of into a folder, for deb.sh and rpm.sh: the program, the module's sources, and what is written
# from the program's tables. Not the packages' own descriptions.
#
#   src/build/stage.sh FOLDER PROGRAM
set -eu

stage=${1:?Usage: src/build/stage.sh FOLDER PROGRAM}
program=${2:?Usage: src/build/stage.sh FOLDER PROGRAM}

mkdir -p "$stage/kmod/uapi" "$stage/modules-load.d"
cp "$program" "$stage/dblock"
cp kmod/Kbuild kmod/*.c kmod/*.h "$stage/kmod/"
rm -f "$stage"/kmod/*.mod.c
cp kmod/uapi/*.h "$stage/kmod/uapi/"
cp README.md LICENSE LICENSE.MIT LICENSE.GPL-2.0 "$stage/"
# The program has Deno and uPlot in it, whose licences want to be with it.
cp .build/toolchain/node_modules/deno/LICENSE "$stage/LICENSE.deno"
cp src/command/page/uplot/LICENSE "$stage/LICENSE.uPlot"
cp -r src/build/monitoring "$stage/"
cp src/build/systemd/dblock-generator src/build/systemd/dblock@.service src/build/systemd/dblock-metrics.service "$stage/"
cp kmod/60-dblock.rules "$stage/"
echo dblock >"$stage/modules-load.d/dblock.conf"
src/build/deno.sh run --allow-all src/build/manual/main.ts "$stage/man"
src/build/deno.sh run --allow-all src/build/completion/main.ts "$stage/completion"
