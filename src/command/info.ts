// SPDX-License-Identifier: MIT
/** `dblock info`: everything about one disk or several. */
import { DblockError } from "../disk/errors.ts";
import { type DeviceInfo, info, list } from "../module/info.ts";
import { UsageError } from "./cli.ts";
import { type Command, JSON_OPTION, readTyped } from "./command.ts";
import { describeKernelDisk, kernelDisks } from "./kernel_disk.ts";
import { formatDevice, jsonOf } from "./listing.ts";
import { ANSWER_MS, ask, type Description, readStarted } from "./run_folder.ts";
import { checkName } from "./words.ts";
import { byName } from "./page/order.ts";

/** The subcommand. */
export const INFO: Command = {
  name: "info",
  summary: "everything about a disk",
  usage: "NAME... [--json]",
  options: [JSON_OPTION],
  examples: [
    { words: "info scratch", text: "what /dev/scratch is, what was done, what is going on" },
    { words: "info scratch --json", text: "the same for programs" },
  ],
  parse(words) {
    const typed = readTyped(words, this, Infinity);
    const names = typed.words.map(checkName);
    if (names.length === 0) throw new UsageError("the NAME of a disk is missing (dblock list shows all)");
    return async () => {
      const others = kernelDisks().filter(({ name }) => names.includes(name));
      const ofModule = names.filter((name) => !others.some((other) => other.name === name));
      const infos = await Promise.all(ofModule.map(infoOf));
      if (typed.has("json")) {
        const served = await Promise.all(infos.map(async (one) => ({ ...one, ...await servedOf(one) })));
        return console.log(jsonOf([...served, ...others]));
      }
      for (const one of infos) console.log([formatDevice(one), ...await ownLines(one)].join("\n"));
      for (const other of others) console.log(describeKernelDisk(other));
    };
  },
};

/** With the names that there are, if it is none of them. */
async function infoOf(name: string): Promise<DeviceInfo> {
  try {
    return await info(name);
  } catch (error) {
    throw await withNames(error);
  }
}

/** What its server says of it, as data: nothing if there is none, or if it does not answer. */
async function servedOf({ name, server }: DeviceInfo): Promise<{ readonly served?: Omit<Description, "lines"> }> {
  if (server === undefined) return {};
  try {
    const { lines: _, ...served } = await ask(name, { ask: "describe" }, "", ANSWER_MS) as Description;
    return { served };
  } catch {
    return {};
  }
}

/** What its server says, or that it says nothing. */
export async function ownLines({ name, server }: Pick<DeviceInfo, "name" | "server">): Promise<string[]> {
  if (server === undefined) {
    return readStarted(name) === undefined ? [] : [`  to go on with it: dblock recover ${name}`];
  }
  try {
    const { spec, filters, lines } = await ask(name, { ask: "describe" }, "", ANSWER_MS) as Description;
    const front = filters.length === 0 ? "" : `; in front of it: ${filters.join(", ")}`;
    return [`  content: ${spec}${front}`, ...lines.map((line) => `  ${line}`)];
  } catch (error) {
    if (!(error instanceof DblockError && error.code === "ETIMEDOUT")) return []; // another program serves it
    return [`  its server does not answer: it is stopped (kill -CONT ${server.pid} wakes it) or stuck`];
  }
}

/** An error about a name that does not exist, with those that do. */
export async function withNames(error: unknown): Promise<unknown> {
  if (!(error instanceof DblockError) || error.code !== "ENOENT" || error.wrong !== "there is no such device") {
    return error;
  }
  const names = (await list()).map(({ name }) => name).sort(byName);
  const hint = names.length === 0 ? "there is none at all" : `there is: ${names.join(", ")}`;
  return new DblockError("ENOENT", error.attempted, error.wrong, { hint, cause: error });
}
