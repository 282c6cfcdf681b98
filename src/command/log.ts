// SPDX-License-Identifier: MIT
/** What is said while disks are served: lines for people, to the journal with what they are about. */
import { quietly } from "../disk/errors.ts";
import type { FailureFields, LoggingOptions } from "../disk/log.ts";
import { Journal } from "../system/journal.ts";

const WARNING = 4;
const ERROR = 3;

let journal: Journal | undefined | "unknown" = "unknown";

/** The journal, if this process is a service that writes to it. */
function journalHere(): Journal | undefined {
  if (journal === "unknown") journal = Journal.of(Deno.env.toObject(), "dblock");
  return journal;
}

const onStderr = quietly((line) => console.error(line));

/**
 * A line about something that is not as it should be. Whether anybody can read it or not, the disks go on.
 *
 * @param disk the name of the disk that it is about
 */
export function complain(message: string, disk?: string): void {
  if (journalHere()?.send(WARNING, message, disk === undefined ? {} : { DBLOCK_DISK: disk })) return;
  onStderr(message);
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
