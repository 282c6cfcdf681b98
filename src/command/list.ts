// SPDX-License-Identifier: MIT
/** `dblock list`: all disks of the module in a line each. */
import { type DeviceInfo, list } from "../module/info.ts";
import { formatSize } from "./cli.ts";
import { type Command, JSON_OPTION, readTyped } from "./command.ts";
import { jsonOf } from "./listing.ts";
import { readStarted } from "./run_folder.ts";

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
      const infos = (await list()).sort((a, b) => a.name < b.name ? -1 : 1);
      if (typed.has("json")) console.log(jsonOf(infos));
      else console.log(infos.length === 0 ? "there is no disk" : table(infos));
    };
  },
};

const HEAD = ["DISK", "SIZE", "STATE", "SERVER", "OPEN", "SPEC"];

function table(infos: readonly DeviceInfo[]): string {
  const rows = [
    HEAD,
    ...infos.map((info) => [
      info.path,
      formatSize(info.sizeBytes),
      info.state,
      info.server === undefined ? "none" : `${info.server.pid}`,
      `${info.openCount}`,
      readStarted(info.name)?.words[0] ?? "",
    ]),
  ];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)));
  return rows.map((cells) => cells.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd()).join("\n");
}
