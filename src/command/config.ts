// SPDX-License-Identifier: MIT
/** Disks that stand in files, such as those of /etc/dblock/: each file has the words of `dblock serve`. */
import { DblockError, describe, ERRNO, errnoOf } from "../disk/errors.ts";
import { UsageError } from "./cli.ts";
import { readItems } from "./command.ts";
import { DISK_OPTIONS, type DiskPlan, readDisks } from "./disk_plan.ts";
import { basename } from "../system/path.ts";
import { checkName, splitWords } from "./words.ts";

/** Where the disks of a machine stand, a file each. */
export const CONFIG_FOLDER = "/etc/dblock";

/** Files that are no disk: hidden ones, copies of editors, what packages leave. */
const SKIPPED = /^\.|~$|\.(dpkg|rpm|ucf)[-\w]*$/;

/**
 * The disks of a file, or of all files of a folder, but for those that are somebody's copies. A disk without a name has its
 * file's, without ".disk"; one whose content outlives this program waits for the next server when this one dies, unless the
 * file says --on-death. Relative paths in it begin where this program was started.
 *
 * @throws {DblockError} it cannot be read, or there is nothing in it.
 * @throws {UsageError} with the file in which something is wrong.
 */
export function readConfig(path: string): DiskPlan[] {
  const attempted = `Cannot read ${path}`;
  try {
    if (!Deno.statSync(path).isDirectory) return readConfigFile(path);
    const files = [...Deno.readDirSync(path)].filter(({ isDirectory, name }) => !isDirectory && !SKIPPED.test(name));
    const names = files.map(({ name }) => name).sort();
    const plans = names.flatMap((name) => readConfigFile(`${path.replace(/\/$/, "")}/${name}`));
    if (plans.length > 0) return plans;
  } catch (error) {
    if (error instanceof UsageError || error instanceof DblockError) throw error;
    if (!(error instanceof Deno.errors.NotFound)) {
      throw new DblockError(errnoOf(error) ?? ERRNO.EIO, attempted, describe(error), { cause: error });
    }
    const hint = path === CONFIG_FOLDER ? { hint: `mkdir ${path}; then ${exampleOf(path)}` } : {};
    throw new DblockError("ENOENT", attempted, "there is no such file or folder", { ...hint, cause: error });
  }
  throw new DblockError("ENOENT", attempted, "there is no disk in it", { hint: exampleOf(path) });
}

function exampleOf(folder: string): string {
  return `a file there has the words of dblock serve: echo "memory:1GiB" >${folder}/scratch`;
}

const METRICS_ELSEWHERE = "--metrics is an option of a server, not of a disk; the figures of all disks: " +
  "systemctl enable --now dblock-metrics, or dblock metrics ADDRESS";

function readConfigFile(path: string): DiskPlan[] {
  try {
    const words = splitWords(Deno.readTextFileSync(path));
    if (words.some((word) => /^--metrics(=|$)/.test(word))) throw new UsageError(METRICS_ELSEWHERE);
    const plans = readDisks(readItems(words, DISK_OPTIONS), true);
    if (plans.length === 0) throw new UsageError("there is no SPEC in it");
    return plans.map((plan) => plans.length === 1 ? withName(plan, basename(path).replace(/\.disk$/, "")) : plan);
  } catch (error) {
    throw error instanceof UsageError ? new UsageError(`${path}: ${error.message}`) : error;
  }
}

function withName(plan: DiskPlan, name: string): DiskPlan {
  return {
    ...plan,
    exits: plan.exits.map((exit) => exit.kind === "device" ? { ...exit, name: exit.name ?? checkName(name) } : exit),
  };
}
