#!/bin/sh
# ./dblock-ramdisk of a VM whose kind of processor the single file cannot be made for: the same program from its source.
exec deno run --allow-all --no-check --import-map=/project/src/build/standins/import_map.json /project/src/ramdisk.ts "$@"
