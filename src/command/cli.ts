// SPDX-License-Identifier: MIT
/**
 * What commands have in common: values as people write them, one line for an error, and the re-exec that makes the whole
 * process an I/O flusher. No command is here.
 */
import { DBLOCK_TIMEOUT_MS_MAX, DBLOCK_TIMEOUT_MS_MIN } from "../module/abi.ts";
import { DblockError, describe, isOfSystem, quietly } from "../disk/errors.ts";
import { UsageError } from "../disk/words.ts";
import { execute, isIoFlusher, setIoFlusher } from "../system/libc.ts";
import { complain as complainOf } from "./log.ts";
import { lockMemoryOnFault } from "../system/pages.ts";
import { Interrupted, keepDebuggerShut } from "./signals.ts";

export { formatSize, parseCount, parseSize, UsageError } from "../disk/words.ts";
// The package exports this file as "./cli": a command that serves a disk wants these as well.
export {
  abortOnSignals,
  keepDebuggerShut,
  outliveTerminal,
  SIGNALS_HELP,
  untilEnded,
  type UntilEndedOptions,
} from "./signals.ts";

/**
 * How long a disk may take to be there. With much other work beside it a hand-over under load was seen to take a minute; Ctrl-C,
 * and the limit of a service's unit, end the wait sooner.
 */
export const START_TIMEOUT_MS = 300_000;

/** Of this package; all its commands say it at --version. */
export const VERSION = "0.1.0";

/**
 * Milliseconds of a timeout in seconds; 0 is "never".
 *
 * @throws {UsageError} if it is not 0 or 1 to 1,200.
 */
export function parseTimeout(text: string): number {
  const min = DBLOCK_TIMEOUT_MS_MIN / 1000;
  const max = DBLOCK_TIMEOUT_MS_MAX / 1000;
  const value = /^[0-9]+$/.test(text) ? Number(text) : NaN;
  if (value === 0 || (value >= min && value <= max)) return value * 1000;
  throw new UsageError(`"${text}" is not a timeout (0 for none, or ${min} to ${max} seconds)`);
}

/** Exit statuses: it failed, and it was typed wrongly. */
const FAILED = 1;
const USAGE = 2;
/** A service served and cannot any more: its manager starts it again. EX_TEMPFAIL of sysexits.h. */
const AGAIN = 75;

/** What a service, which has served its disks, ends with when it cannot any more. */
export class ServiceFailure extends Error {
  /** The name of the disk that it is about. */
  readonly disk: string | undefined;

  /** The message is the failure's own. */
  constructor(failure: DblockError, disk?: string) {
    super(failure.message, { cause: failure });
    this.disk = disk;
  }
}

/**
 * Runs a command and ends the program: status 0; with one line on stderr 1 for a failure, 2 for a command line that cannot
 * be meant, or what a shell says of a program that a signal has ended. Only a defect of this program shows a stack. No signal opens a debugger meanwhile.
 */
export async function runCommand(command: string, run: () => Promise<void>): Promise<never> {
  keepDebuggerShut();
  const complain = quietly(console.error);
  try {
    await run();
  } catch (error) {
    if (error instanceof UsageError) {
      complain(`${command}: ${error.message}; see ${command} --help`);
      Deno.exit(USAGE);
    }
    const isFailure = error instanceof DblockError || isOfSystem(error);
    if (error instanceof ServiceFailure) complainOf(`${command}: ${error.message}`, error.disk);
    else if (isFailure) complain(`${command}: ${describe(error)}`);
    else complain(`${command}: this is a defect of the program: ${Deno.inspect(error)}`);
    Deno.exit(statusOf(error));
  }
  Deno.exit(0);
}

function statusOf(error: unknown): number {
  if (error instanceof Interrupted) return error.exitStatus;
  return error instanceof ServiceFailure ? AGAIN : FAILED;
}

/**
 * Makes every thread of this program an I/O flusher, so that memory it allocates never waits for its own disk. The flag
 * is a thread's and V8 has started its own: so it is set here and the program started again by exec, once. Without
 * CAP_SYS_RESOURCE nothing happens.
 */
export function becomeIoFlusher(): void {
  if (isIoFlusher() || !setIoFlusher()) return;
  const args = Deno.readTextFileSync("/proc/self/cmdline").split("\0").slice(0, -1);
  // By its own name, which `ps` and `pgrep` know it by then.
  execute(Deno.execPath(), args);
  // Not reached, unless exec failed: that file is gone, or another one by now.
  execute("/proc/self/exe", args);
  // Not reached, unless exec failed again: then this thread and those it starts have the flag, which is the better half.
}

const MAPPED_CODE = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ [1-9][0-9]* +\//gm;

/**
 * Keeps what this program has used of its own code in memory. Where memory is short the kernel drops code first, to read it
 * again when it runs; a server that has to wait for that keeps those waiting whose requests would make memory free.
 * Without CAP_IPC_LOCK nothing happens.
 */
export function keepCode(): void {
  for (const [, start, end] of Deno.readTextFileSync("/proc/self/maps").matchAll(MAPPED_CODE)) {
    const address = parseInt(start!, 16);
    if (!lockMemoryOnFault(address, parseInt(end!, 16) - address)) return;
  }
}
