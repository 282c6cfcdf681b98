// SPDX-License-Identifier: MIT
/** What is said of a disk while it is served: lines for people, and what those of failed requests are about. */
import { errnoName, quietly } from "./errors.ts";
import { Limiter } from "./limiter.ts";
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

/** Failed requests in few lines: a disk in trouble fails a thousand times a second. */
export class FailureLog {
  readonly #log: DiskLog;
  readonly #limiter: Limiter<{ readonly operation: Operation | "extents"; readonly errno: number }>;

  /** @param now the time in ms */
  constructor(log: DiskLog, now?: () => number) {
    this.#log = log;
    this.#limiter = new Limiter(now);
  }

  /**
   * A request has failed. The first failure of a kind is said at once; others are counted, and the next one after ten
   * seconds says how many there were.
   *
   * @param why what the backend did: "threw Error: no"
   */
  add(operation: Operation | "extents", errno: number, why: string): void {
    // Two errnos are two kinds although they are numbers.
    const about = `${operation} ${errnoName(errno)}`;
    const rest = this.#limiter.take(`${about} ${why}`, about, { operation, errno });
    if (rest === undefined) return;
    this.#log(`${operation}() of the backend ${why}: answered ${errnoName(errno)}${rest}`, { operation, errno });
  }

  /** No more will come: says what was counted since the last line of each kind. */
  end(): void {
    for (const { about: { operation, errno }, rest } of this.#limiter.end()) {
      this.#log(`${operation}() of the backend: answered ${errnoName(errno)}${rest}`, { operation, errno });
    }
  }
}
