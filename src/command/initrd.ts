// SPDX-License-Identifier: MIT
/**
 * `dblock serve --initrd`: a server that the initial ramdisk has started, for disks that the machine's root or /usr is on. It goes on
 * when the machine changes to its root: then its own root is still the ramdisk's, which is emptied. Which disks there are to serve
 * is found by the hook of the initial ramdisk (src/build/initramfs/).
 */
import { describe } from "../disk/errors.ts";
import { complain } from "./log.ts";
import { basename, exists } from "../system/path.ts";
import { RUN_FOLDER } from "./run_folder.ts";

/** A link for each file of /etc/dblock that such a server has: while the process is there, dblock@NAME starts no other. */
export const INITRD_FOLDER = `${RUN_FOLDER}/initrd`;

/** What `dblock info` says of such a disk. */
export const INITRD_LINE = "its server is the initial ramdisk's; what is installed serves the disk after " +
  "update-initramfs -u and a reboot";

/** Why such a server cannot be reloaded. */
export const NO_RELOAD =
  "its server is the initial ramdisk's, as new code would be read from the disk that it serves; " +
  "type: update-initramfs -u, and reboot";

/** What the kernel shows of disks, processes and devices, and where servers are asked. Nothing of the disks' own content. */
const NEEDED = ["dev", "proc", "run", "sys"] as const;
/** How often it is looked whether the root is empty by now. Nobody waits for it but who asks the server meanwhile. */
const POLL_MS = 100;

/**
 * Makes links in the root as soon as it is empty: by way of "..", which leads from there to the machine's root, as that is mounted
 * over this one. /usr, /etc and whatever else is on a disk that this process may serve stays out of its reach: it would
 * wait for itself.
 *
 * @param root for tests
 * @returns ends the wait
 */
export function followRoot(root = "/"): Disposable {
  const timer = setInterval(() => {
    try {
      for (const name of NEEDED) linkIfFree(`${root}${name}`, `/../${name}`);
      // While the root is being emptied, links go as well; and before the other root is there, they lead to themselves.
      if (NEEDED.every((name) => Deno.lstatSync(`${root}${name}`).isSymlink) && exists(`${root}proc/self`)) stop();
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      complain(`Cannot reach the machine's root: ${describe(error)}; the disks go on`);
      stop();
    }
  }, POLL_MS);
  const stop = () => clearInterval(timer);
  return { [Symbol.dispose]: stop };
}

/** A link at a place where there is nothing. */
function linkIfFree(place: string, target: string): void {
  try {
    Deno.symlinkSync(target, place);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
}

/** Keeps the units of these files of /etc/dblock from starting servers of their own, until disposed, or this process' end. */
export function keepUnitsAway(files: readonly string[], folder: string = INITRD_FOLDER): Disposable {
  const own = `/proc/${Deno.pid}`;
  const links = files.map((file) => `${folder}/${basename(file)}`);
  try {
    Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const link of links) {
      const made = `${link}.${Deno.pid}`;
      Deno.symlinkSync(own, made);
      Deno.renameSync(made, link); // one that a dead server has left goes
    }
  } catch (error) {
    complain(`${folder}: ${describe(error)}; dblock@NAME does not know of this server`);
  }
  return {
    [Symbol.dispose]: () => {
      for (const link of links) {
        try {
          if (Deno.readLinkSync(link) === own) Deno.removeSync(link);
        } catch {
          // It is gone, or leads nowhere, as this process is about to end.
        }
      }
    },
  };
}
