// SPDX-License-Identifier: MIT
/** `dblock reload`: new code for the disks of a service, under those who use them. Its server starts the new one. */
import { DblockError } from "../disk/errors.ts";
import { devicePath } from "../module/control.ts";
import { type DeviceInfo, info } from "../module/info.ts";
import { parseCount, UsageError } from "./cli.ts";
import { type Command, readTyped } from "./command.ts";
import { withNames } from "./info.ts";
import { Progress } from "./progress.ts";
import { ask, readStarted, startedNames } from "./run_folder.ts";
import { checkName } from "./words.ts";

/** Linux' largest number of a process. */
const PID_MAX = 2 ** 22;

/** The subcommand. */
export const RELOAD: Command = {
  name: "reload",
  summary: "new code for a service's disks, while they are used",
  usage: "NAME | --server PID",
  options: [{ name: "server", value: "PID", text: "the disks of this process" }],
  examples: [
    {
      words: "reload disk",
      text: "the program as it is installed now, and the disk's file as it is now, go on with it",
    },
    { words: "reload --server 123", text: "what systemctl reload dblock@disk does" },
  ],
  notes: () =>
    "The server of the disk starts a new one, which takes over all of its disks;\n" +
    "I/O waits for some milliseconds. If the new one cannot have all of them, the\n" +
    "one before goes on with all. Only a service of systemd can be reloaded, and only\n" +
    "disks whose content outlives the program, without a write-back cache. A server\n" +
    "with --nbd or --metrics is not taken over: two processes cannot have its address.\n" +
    "Restart others: I/O waits for that, too.",
  parse(words) {
    const typed = readTyped(words, this, 1);
    const [name] = typed.words.map(checkName);
    const server = typed.value("server");
    if ((name === undefined) === (server === undefined)) throw new UsageError("it takes a NAME, or --server PID");
    const pid = server === undefined ? undefined : parseCount(server, "process", 1, PID_MAX);
    return async () => {
      const disk = name ?? nameOf(pid!);
      const progress = new Progress(`reloading the server of ${devicePath(disk)}`);
      console.log(await reload(disk).finally(() => progress[Symbol.dispose]()));
    };
  },
};

/** A disk of that process. */
function nameOf(pid: number): string {
  const name = startedNames().find((one) => readStarted(one)?.pid === pid);
  if (name !== undefined) return name;
  throw new DblockError("ENOENT", `Cannot reload process ${pid}`, "it serves no disk", {
    hint: "dblock list shows all",
  });
}

/** @returns what to say then */
async function reload(name: string): Promise<string> {
  const attempted = `Cannot reload ${devicePath(name)}`;
  let before: DeviceInfo;
  try {
    before = await info(name);
  } catch (error) {
    throw await withNames(error);
  }
  try {
    await ask(name, { ask: "reload" }, attempted);
  } catch (error) {
    // The server that was asked ends when the new one has its disks, and may not have answered before that.
    const { server, state } = await info(name);
    const isReloaded = state === "live" && server !== undefined && server.pid !== before.server?.pid;
    if (!isReloaded) throw error;
  }
  const { server } = await info(name);
  return `${devicePath(name)} goes on: process ${server?.pid} serves it now`;
}
