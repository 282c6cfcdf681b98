// SPDX-License-Identifier: MIT
/** What is said while disks are served: lines for people, to the journal with what they are about. */
import { quietly } from "../disk/errors.ts";
import type { FailureFields, LoggingOptions } from "../disk/log.ts";
import { Journal } from "../system/journal.ts";
import { eraseProgress } from "./progress.ts";

const INFORMATION = 6;
const WARNING = 4;
const ERROR = 3;

/** The number of /dev/kmsg: 1 and 11. */
const KERNEL_LOG = 0x10b;

let journal: Journal | undefined | "unknown" = "unknown";
let kernelLog: boolean | undefined;

/** The journal, if this process is a service that writes to it. */
function journalHere(): Journal | undefined {
  if (journal === "unknown") journal = Journal.of(Deno.env.toObject(), "dblock");
  return journal;
}

/** Whether this process' output is the kernel's log, as an initial ramdisk has it. */
function isKernelLog(): boolean {
  if (kernelLog === undefined) {
    try {
      kernelLog = Deno.statSync("/proc/self/fd/2").rdev === KERNEL_LOG;
    } catch {
      kernelLog = false;
    }
  }
  return kernelLog;
}

/** A line as it is written: among the kernel's own with how important it is, and whose it is, which journald reads. */
function written(priority: number, line: string): string {
  return isKernelLog() ? `<${priority}>dblock[${Deno.pid}]: ${line}` : line;
}

const onStderr = quietly((line) => {
  eraseProgress();
  console.error(written(WARNING, line));
});
const onStdout = quietly((line) => {
  eraseProgress();
  console.log(written(INFORMATION, line));
});

/** The journal, if this process' output goes there as well. */
function journalOfOutput(): Journal | undefined {
  const found = journalHere();
  if (found === undefined) return undefined;
  try {
    const [output, errors] = ["/proc/self/fd/1", "/proc/self/fd/2"].map((path) => Deno.statSync(path));
    return output!.dev === errors!.dev && output!.ino === errors!.ino ? found : undefined;
  } catch {
    return undefined;
  }
}

/**
 * A line about how a disk is. Whether anybody can read it or not, the disks go on.
 *
 * @param disk the name of the disk that it is about
 */
export function say(message: string, disk?: string): void {
  if (disk !== undefined && journalOfOutput()?.send(INFORMATION, message, { DBLOCK_DISK: disk })) return;
  onStdout(message);
}

/**
 * A line about something that is not as it should be. Whether anybody can read it or not, the disks go on.
 *
 * @param disk the name of the disk that it is about
 */
export function complain(message: string, disk?: string): void {
  const line = message.replaceAll(/\s*\n\s*/g, " "); // a backend may throw a text of several
  if (journalHere()?.send(WARNING, line, disk === undefined ? {} : { DBLOCK_DISK: disk })) return;
  onStderr(line);
}

/** A line about requests that have failed. */
function complainOfFailure(message: string, { disk, operation, errno }: FailureFields): void {
  const fields = { DBLOCK_DISK: disk, DBLOCK_OPERATION: operation, ERRNO: errno };
  if (journalHere()?.send(ERROR, message, fields)) return;
  onStderr(message);
}

/** The log of a disk's server. */
export function logOptionsOf(disk?: string): Required<LoggingOptions> {
  return { log: (message) => complain(message, disk), logFailure: complainOfFailure };
}
