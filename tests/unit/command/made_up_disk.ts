// SPDX-License-Identifier: MIT
/** A disk of the module that does not exist: what the module would say of it is made up, field by field. For tests of what is shown. */
import type { DiskFigures } from "../../../src/command/figures.ts";
import { dblock_info } from "../../../src/module/abi.ts";
import { inWords } from "../../../src/module/info.ts";
import { decode, encode } from "../../../src/system/struct.ts";

/** Fields of `struct dblock_info`, by their names in the header. */
export type InfoFields = NonNullable<Parameters<typeof encode<typeof dblock_info>>[1]>;

/** A live disk of 1 MiB in /dev, served by process 42, but for the fields that are given. */
export function madeUpDisk(fields: InfoFields = {}, more: Partial<DiskFigures> = {}): DiskFigures {
  const all: InfoFields = { name: "a", size_bytes: 2 ** 20, queue_count: 1, state: 2, on_death: 2, server_pid: 42 };
  const module = inWords(decode(dblock_info, encode(dblock_info, { ...all, ...fields })));
  const { name: disk, path, sizeBytes } = module;
  const pid = module.server === undefined ? {} : { pid: module.server.pid };
  return { disk, path, sizeBytes, transport: "dblock.ko", module, own: [], ...pid, ...more };
}
