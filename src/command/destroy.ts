// SPDX-License-Identifier: MIT
/** `dblock destroy`: ends disks, whoever serves them. */
import { DblockError, withHint } from "../disk/errors.ts";
import { devicePath } from "../module/control.ts";
import { destroy } from "../module/destroy.ts";
import { kernelDevicePath } from "../system/kernel_nbd.ts";
import { UsageError } from "./cli.ts";
import { type Command, readTyped } from "./command.ts";
import { checkName } from "./words.ts";
import { withNames } from "./info.ts";
import { destroyKernelDisk } from "./kernel_disk.ts";
import { Progress } from "./progress.ts";
import { forgetStarted, isAlive, readStarted } from "./run_folder.ts";

/** The subcommand. */
export const DESTROY: Command = {
  name: "destroy",
  summary: "end a disk; files and what else has its content stay",
  usage: "NAME... [--force]",
  options: [{ name: "force", letter: "f", text: "even if somebody uses it; what is not written is lost" }],
  examples: [
    { words: "destroy scratch", text: "if nobody uses it" },
    { words: "destroy scratch --force", text: "in any case" },
  ],
  parse(words) {
    const typed = readTyped(words, this, Infinity);
    const names = typed.words.map(checkName);
    if (names.length === 0) throw new UsageError("the NAME of a disk is missing (dblock list shows all)");
    return async () => {
      for (const name of names) {
        const progress = new Progress(`destroying ${devicePath(name)}`);
        const path = await destroyOne(name, typed.has("force")).finally(() => progress[Symbol.dispose]());
        console.log(`${path} is destroyed`);
      }
    };
  },
};

/**
 * Ends one disk.
 *
 * @param id of the disk that is meant, where its name may be another one's by now
 * @returns where it was
 * @throws {DblockError} with what to type
 */
export async function destroyOne(name: string, force: boolean, id?: number): Promise<string> {
  const started = readStarted(name);
  try {
    if (started?.kernelNbd === undefined) await destroy(name, { force, ...(id === undefined ? {} : { id }) });
    else await destroyKernelDisk(started, { force });
  } catch (error) {
    if (!(error instanceof DblockError) || error.code !== "EBUSY") throw await withNames(error);
    const first = error.wrong.includes("mounted on") ? "umount it first" : "end that first";
    throw withHint(error, `${first}, or dblock destroy --force ${name}: what is not written is lost`);
  }
  // A dead server has left it; one that lives removes what it has written by itself.
  if (started !== undefined && readStarted(name)?.pid === started.pid && !isAlive(started.pid)) forgetStarted(name);
  return started?.kernelNbd === undefined ? devicePath(name) : `${kernelDevicePath(started.kernelNbd)} (${name})`;
}
