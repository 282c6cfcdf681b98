// SPDX-License-Identifier: MIT
/** `dblock resize`: another size for a disk, under those who use it. Its server does it. */
import { devicePath } from "../module/control.ts";
import { infoOn } from "../module/info.ts";
import { type Kernel, linux } from "../system/libc.ts";
import { formatSize, UsageError } from "./cli.ts";
import { type Command, readTyped } from "./command.ts";
import { checkName } from "./words.ts";
import { withNames } from "./info.ts";
import { diskSize } from "./parameters.ts";
import { Progress } from "./progress.ts";
import { ask } from "./run_folder.ts";

/** The subcommand. */
export const RESIZE: Command = {
  name: "resize",
  summary: "another size, also while the disk is in use",
  usage: "NAME SIZE",
  options: [],
  examples: [{ words: "resize disk 20GiB", text: "then the file system: resize2fs /dev/disk, or xfs_growfs /mnt" }],
  notes: () => "What lies behind the end of a disk that becomes smaller is lost.",
  parse(words) {
    const [name, size] = readTyped(words, this, 2).words;
    if (name === undefined || size === undefined) throw new UsageError("it takes a NAME and a SIZE: resize disk 20GiB");
    const [disk, sizeBytes] = [checkName(name), diskSize(size)];
    return async () => {
      const progress = new Progress(`resizing ${devicePath(disk)} to ${formatSize(sizeBytes)}`);
      console.log(await resizeOne(disk, sizeBytes).finally(() => progress[Symbol.dispose]()));
    };
  },
};

/**
 * Has the server of a disk give it another size.
 *
 * @param id of the disk that is meant, where its name may be another one's by now
 * @returns what to say then
 * @throws {DblockError} with what to type
 */
export async function resizeOne(disk: string, sizeBytes: number, id?: number, kernel: Kernel = linux): Promise<string> {
  try {
    await infoOn(kernel, disk, id);
  } catch (error) {
    throw await withNames(error);
  }
  await ask(
    disk,
    { ask: "resize", sizeBytes, ...(id === undefined ? {} : { id }) },
    `Cannot resize ${devicePath(disk)}`,
  );
  return `${devicePath(disk)} has ${formatSize(sizeBytes)} now`;
}
