// SPDX-License-Identifier: MIT
/** What is said of a disk while it is served: lines for people, and what those of failed requests are about. */
import { errnoName, quietly } from "./errors.ts";
import type { Operation } from "./operation.ts";

/** What a line about failed requests is about. */
export interface FailureFields {
  /** The name of the disk, or of the export. */
  readonly disk: string;
  /** What the disk was asked. */
  readonly operation: Operation | "extents";
  /** What it answered, as Linux numbers errors. */
  readonly errno: number;
}

/** Where lines go. */
export interface LoggingOptions {
  /** Takes one line for each thing worth knowing. @default console.error */
  readonly log?: (message: string) => void;
  /**
   * Takes the lines about failed requests instead: of one kind one in ten seconds at most.
   *
   * @default log
   */
  readonly logFailure?: (message: string, fields: FailureFields) => void;
}

/** Takes a line, and what it is about if that is a failure. */
export type Log = (message: string, fields?: FailureFields) => void;

/** What the options make of lines. Its own failure ends nothing. */
export function logFrom({ log = console.error, logFailure }: LoggingOptions): Log {
  return (message, fields) => {
    if (fields === undefined || logFailure === undefined) quietly(log)(message);
    else quietly((line) => logFailure(line, fields))(message);
  };
}

/** The same of one disk, which is left out. */
export type DiskLog = (message: string, fields?: Omit<FailureFields, "disk">) => void;

/** A log of one disk: each line begins with `where` that is. */
export function logOf(log: Log, where: string, disk: string): DiskLog {
  return (message, fields) => log(`${where}: ${message}`, fields === undefined ? undefined : { disk, ...fields });
}

/** Failures that say other things are of other kinds, as long as there are not more than this. */
const KINDS_MAX = 64;
/** After a line of a kind, the next one of it comes no sooner, in ms. A guess: a person can read that. */
const PAUSE_MS = 10_000;

interface Kind {
  /** As in what was said last. */
  readonly operation: Operation | "extents";
  readonly errno: number;
  readonly saidMs: number;
  /** How often it has come since. */
  unsaid: number;
}

/** At least one. */
function seconds(ms: number): number {
  return Math.max(1, Math.round(ms / 1000));
}

/** Failed requests in few lines: a disk in trouble fails a thousand times a second. */
export class FailureLog {
  readonly #log: DiskLog;
  readonly #now: () => number;
  readonly #kinds = new Map<string, Kind>();

  /** @param now the time in ms */
  constructor(log: DiskLog, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  /**
   * A request has failed. The first failure of a kind is said at once; others are counted, and the next one after ten
   * seconds says how many there were.
   *
   * @param why what the backend did: "threw Error: no"
   */
  add(operation: Operation | "extents", errno: number, why: string): void {
    const about = `${operation} ${errno}`;
    // Offsets and the like do not make another kind.
    const text = `${about} ${why.replaceAll(/\d+/g, "0")}`;
    const key = this.#kinds.has(text) || this.#kinds.size < KINDS_MAX ? text : about;
    const nowMs = this.#now();
    const kind = this.#kinds.get(key);
    if (kind !== undefined && nowMs - kind.saidMs < PAUSE_MS) {
      kind.unsaid++;
      return;
    }
    const unsaid = kind?.unsaid ?? 0;
    this.#kinds.set(key, { operation, errno, saidMs: nowMs, unsaid: 0 });
    const more = unsaid === 0 ? "" : `; ${unsaid} more in the ${seconds(nowMs - kind!.saidMs)} s before`;
    this.#log(`${operation}() of the backend ${why}: answered ${errnoName(errno)}${more}`, { operation, errno });
  }

  /** No more will come: says what was counted since the last line of each kind. */
  end(): void {
    for (const { operation, errno, saidMs, unsaid } of this.#kinds.values()) {
      if (unsaid === 0) continue;
      const since = `${unsaid} more in the last ${seconds(this.#now() - saidMs)} s`;
      this.#log(`${operation}() of the backend: answered ${errnoName(errno)}; ${since}`, { operation, errno });
    }
    this.#kinds.clear();
  }
}
