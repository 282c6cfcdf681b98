// SPDX-License-Identifier: MIT
/** `dblock list`: all disks of the module in a line each. */
import { DblockError } from "../disk/errors.ts";
import { type DeviceInfo, list } from "../module/info.ts";
import { formatSize } from "./cli.ts";
import { type Command, JSON_OPTION, readTyped } from "./command.ts";
import { type KernelDisk, kernelDisks } from "./kernel_disk.ts";
import { jsonOf } from "./listing.ts";
import { readStarted } from "./run_folder.ts";
import { byName } from "./page/order.ts";

/** The subcommand. */
export const LIST: Command = {
  name: "list",
  summary: "all disks, whoever serves them",
  usage: "[--json]",
  options: [JSON_OPTION],
  examples: [
    { words: "list", text: "a line for each disk" },
    { words: "list --json", text: "everything that there is to know of each" },
  ],
  parse(words) {
    const typed = readTyped(words, this, 0);
    return async () => {
      const others = kernelDisks();
      const infos = await ofModule(others.length > 0);
      if (typed.has("json")) console.log(jsonOf([...infos, ...others]));
      else if (infos.length + others.length === 0) console.log("there is no disk");
      else console.log(table([...infos.map(rowOf), ...others.map(rowOfKernel)]));
    };
  },
};

const HEAD = ["DISK", "SIZE", "STATE", "SERVER", "OPEN", "SPEC"];

/** The disks of the module, which need not be there if other disks are. */
async function ofModule(thereAreOthers: boolean): Promise<readonly DeviceInfo[]> {
  try {
    return (await list()).sort((a, b) => byName(a.name, b.name));
  } catch (error) {
    if (thereAreOthers && error instanceof DblockError && error.code === "ENOENT") return [];
    throw error;
  }
}

function rowOf(info: DeviceInfo): string[] {
  const started = readStarted(info.name);
  const isOfInitrd = started?.isOfInitrd && started.pid === info.server?.pid;
  return [
    info.path,
    formatSize(info.sizeBytes),
    info.state,
    info.server === undefined ? "none" : `${info.server.pid}${isOfInitrd ? " (initrd)" : ""}`,
    `${info.openCount}`,
    started?.words[0] ?? "",
  ];
}

function rowOfKernel({ name, path, sizeBytes, state, server, spec }: KernelDisk): string[] {
  return [`${path} (${name})`, formatSize(sizeBytes), state, server === undefined ? "none" : `${server.pid}`, "", spec];
}

function table(body: readonly (readonly string[])[]): string {
  const rows = [HEAD, ...body];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)));
  return rows.map((cells) => cells.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd()).join("\n");
}
