// SPDX-License-Identifier: MIT
/**
 * Every filter by its name, with its options as people write them: `fault=operations=read,share=1%`. The command's `--with`,
 * its help, and tests of both are made from this table.
 */
import type { Backend } from "../disk/backend.ts";
import { describe, quietly } from "../disk/errors.ts";
import type { Operation } from "../disk/operation.ts";
import {
  nearest,
  oneOf,
  parseCount,
  parseDuration,
  parseErrnos,
  parseOperations,
  parseShare,
  parseSize,
  UsageError,
} from "../disk/words.ts";
import { Cache } from "./cache.ts";
import { Checksum, type ChecksumOptions } from "./checksum.ts";
import { delay } from "./delay.ts";
import { Fault, FAULT_KINDS } from "./fault.ts";
import { log } from "./log.ts";
import { openOwnFile, removeUnused } from "./own_file.ts";
import { rate } from "./rate.ts";
import { readahead } from "./readahead.ts";
import { readOnly } from "./read_only.ts";
import { retry } from "./retry.ts";
import { Stats, type StatsReport, statsText } from "./stats.ts";
import { WriteCache } from "./write_cache.ts";

/** An option of a filter. */
export interface FilterOption<T = unknown> {
  /** What stands for its value in help: "SIZE". */
  readonly value: string;
  /** What it does, and its default. */
  readonly help: string;
  /** @throws {UsageError} if the text is no such value. */
  readonly parse: (text: string) => T;
}

type Options = Readonly<Record<string, FilterOption>>;

/** What was said, by the options' names. */
type Values<O extends Options> = { readonly [Name in keyof O]?: ReturnType<O[Name]["parse"]> };

/** Where a filter's lines for people go, and what they are about. */
export interface FilterLines {
  /** @default console.error */
  readonly log?: ((line: string) => void) | undefined;
  /** Which disk that is: `log` and `stats` say it. */
  readonly disk?: string | undefined;
}

/** A filter of the table. */
export interface FilterSpec<O extends Options = Options> {
  /** What it does, in one line. */
  readonly summary: string;
  /** A value for `--with` that works as it stands. */
  readonly example: string;
  /** By their names. */
  readonly options: O;
  /** Options without which it cannot be. */
  readonly required?: readonly string[];
  /** Puts it in front of a backend. Not all values are there: see `options`. */
  readonly make: (backend: Backend, values: Values<O>, lines: FilterLines) => Backend | Promise<Backend>;
}

const COUNT_MAX = Number.MAX_SAFE_INTEGER;
const size = (help: string): FilterOption<number> => ({ value: "SIZE", help, parse: (text) => parseSize(text) });
const time = (help: string): FilterOption<number> => ({ value: "TIME", help, parse: (text) => parseDuration(text) });
const share = (help: string): FilterOption<number> => ({ value: "SHARE", help, parse: (text) => parseShare(text) });
const path = (help: string): FilterOption<string> => ({ value: "FILE", help, parse: (text) => text });
const operations = (help: string): FilterOption<Operation[]> => ({ value: "OPERATIONS", help, parse: parseOperations });
/** @param what of what it is a number, for the message: "requests" */
const count = (what: string, help: string, min = 0, max = COUNT_MAX): FilterOption<number> => ({
  value: "N",
  help,
  parse: (text) => parseCount(text, what, min, max),
});
const seed: FilterOption<number> = {
  value: "N",
  help: "where chance begins: the same seed repeats what happened [1]",
  parse: (text) => parseCount(text, "a seed", 0, 2 ** 32 - 1),
};

/** What was said, as options of a filter: a property that is there is not undefined. */
function said<T extends object>(values: { [Name in keyof T]: T[Name] | undefined }): T {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T;
}

/** Lets each filter's own options have their types; the table has them all. */
function filter<O extends Options>(spec: FilterSpec<O>): FilterSpec {
  return spec as unknown as FilterSpec;
}

/** Every filter by its name. */
export const filters: Readonly<Record<string, FilterSpec>> = {
  log: filter({
    summary: "one line a request: operation, offset, length, microseconds, errno",
    example: "log=file=/tmp/requests.log,every=100",
    options: {
      file: path("add the lines to this file [standard error]"),
      every: count("requests", "one line for every N requests; failed ones always have theirs [1]", 1),
    },
    make: (backend, { file, every }, { disk }) => log(backend, said({ path: file, every, disk })),
  }),
  stats: filter({
    summary: "counts and latencies, on SIGUSR2 and at the end",
    example: "stats",
    options: { file: path("add the report to this file [standard error]") },
    make: (backend, { file }, { log = (line: string) => console.error(line), disk }) => {
      // A file that cannot be written is an error now, and not when the disk ends.
      const opened = file === undefined ? undefined : openOwnFile("the report", file, { append: true });
      opened?.file.close();
      // It is called by a signal, and when the disk ends: what it threw would end the program, or fail the close.
      const complain = quietly(log);
      const report = (stats: StatsReport) => {
        const text = statsText(stats, disk);
        if (file === undefined) return quietly(console.error)(text);
        try {
          Deno.writeTextFileSync(file, `${text}\n`, { append: true });
        } catch (error) {
          complain(`Cannot write the report to ${file}: ${describe(error)}`);
        }
      };
      const onSignal = () => report(stats.report());
      const stats = new Stats(backend, {
        onClose: (last, reason) => {
          Deno.removeSignalListener("SIGUSR2", onSignal);
          // Of a disk that could not be started there is nothing to report.
          if (reason !== "unused") report(last);
          else if (opened?.isMade) removeUnused(file!);
        },
      });
      // Not SIGUSR1: at that one Deno opens a debugger to everybody on the machine.
      Deno.addSignalListener("SIGUSR2", onSignal);
      return stats;
    },
  }),
  delay: filter({
    summary: "requests begin later",
    example: "delay=read=5ms,flush=20ms,jitter=1ms",
    options: {
      read: time("reads [0]"),
      write: time("writes [0]"),
      flush: time("flushes [0]"),
      discard: time("discards [0]"),
      writeZeroes: time("zeroes [0]"),
      other: time("every operation that is not named [0]"),
      jitter: time("up to so much more, by chance [0]"),
      seed,
    },
    make: (backend, { other, jitter, seed, ...named }) => {
      const operations = said(named);
      if (other === undefined && jitter === undefined && Object.keys(operations).length === 0) {
        throw new UsageError('the filter "delay" takes a time: --with delay=read=5ms, or delay=other=5ms');
      }
      return delay(backend, said({ operations, otherMs: other, jitterMs: jitter, seed }));
    },
  }),
  fault: filter({
    summary: "requests fail, by chance or at a place",
    example: "fault=operations=read+write,share=1%,errno=EIO,seed=7",
    options: {
      operations: operations("which can be hit: read+write+flush+discard+writeZeroes [all]"),
      share: share("how many of them are [1]"),
      kind: {
        value: FAULT_KINDS.join("|"),
        help:
          "what happens: an error before or after (late), half of the bytes, a wrong bit, nothing, no answer [error]",
        parse: (text) => oneOf(text, FAULT_KINDS, "kind of fault"),
      },
      errno: { value: "ERRNO", help: "of error and late [EIO]", parse: (text) => parseErrnos(text)[0] },
      offset: size("only what touches the disk from here on"),
      length: size("and not further than this"),
      after: count("requests", "let N requests through first [0]"),
      times: count("requests", "hit N requests and no more [no bound]"),
      while: path("only while there is such a file: touch FILE switches the faults on, rm FILE off [always]"),
      seed,
    },
    make: (backend, { offset, length, while: whilePath, ...rest }) => {
      const offsetBytes = offset ?? 0;
      const lengthBytes = length ?? COUNT_MAX - offsetBytes;
      const place = offset === undefined && length === undefined ? undefined : { offsetBytes, lengthBytes };
      return new Fault(backend, said({ ...rest, place, whilePath }));
    },
  }),
  rate: filter({
    summary: "so many bytes and requests a second, and no more",
    example: "rate=bytes=50MiB,operations=2000",
    options: {
      bytes: size("read and written a second"),
      operations: count("requests", "requests a second", 1),
      burst: size("bytes that go at once after a pause [a tenth of a second's]"),
      burstOperations: count("requests", "requests that go at once after a pause [a tenth of a second's]", 1),
    },
    make: (backend, { bytes, operations, burst, burstOperations }) => {
      if (bytes === undefined && operations === undefined) {
        throw new UsageError('the filter "rate" takes bytes=SIZE, operations=N, or both: --with rate=bytes=50MiB');
      }
      const [bytesPerSecond, operationsPerSecond] = [bytes, operations];
      return rate(backend, said({ bytesPerSecond, operationsPerSecond, burstBytes: burst, burstOperations }));
    },
  }),
  retry: filter({
    summary: "requests that fail are tried again",
    example: "retry=times=3,delay=200ms",
    options: {
      times: count("times", "how often [5]"),
      operations: operations("which are tried again: read+write+flush+discard+writeZeroes [all but flush]"),
      errnos: { value: "ERRNOS", help: "which errors: EIO+ETIMEDOUT [those of a network]", parse: parseErrnos },
      delay: time("pause before the first try; each later one is twice as long [100ms]"),
      longest: time("no pause is longer [10s]"),
    },
    make: (backend, { times, operations, errnos, delay, longest }) =>
      retry(backend, said({ times, operations, errnos, delayMs: delay, maxDelayMs: longest })),
  }),
  cache: filter({
    summary: "keeps what was read and written in memory",
    example: "cache=size=256MiB",
    options: {
      size: size("how much [64 MiB]"),
      block: size("a block of it: a power of two [4 KiB]"),
      mode: {
        value: "write-through|write-back",
        help: "write-back answers writes at once and keeps them until a flush [write-through]",
        parse: (text) => oneOf(text, ["write-through", "write-back"] as const, "mode"),
      },
    },
    make: (backend, { size, block, mode }) => new Cache(backend, said({ maxBytes: size, blockBytes: block, mode })),
  }),
  readahead: filter({
    summary: "who reads in order finds the next part in memory",
    example: "readahead=window=512KiB",
    options: {
      window: size("how much is read at once [512 KiB]"),
      streams: count("streams", "how many readers in order are told apart, 1 to 64 [4]", 1, 64),
    },
    make: (backend, { window, streams }) => readahead(backend, said({ windowBytes: window, streams })),
  }),
  "read-only": filter({
    summary: "refuses everything that would change the disk",
    example: "read-only",
    options: {},
    make: (backend) => readOnly(backend),
  }),
  "write-cache": filter({
    summary: "a drive's volatile cache: writes stay in memory until a flush",
    example: "write-cache=size=16MiB",
    options: { size: size("when more is in it, the oldest goes to the disk [64 MiB]") },
    make: (backend, { size }) => new WriteCache(backend, said({ maxDirtyBytes: size })),
  }),
  checksum: filter({
    summary: "finds a flipped bit: SHA-256 of each block in a file beside the disk",
    example: "checksum=file=./disk.sums",
    options: {
      file: path("the file of the sums; made if it is not there"),
      block: size("what one sum is of: a power of two [4 KiB]"),
    },
    required: ["file"],
    make: async (backend, { file, block }, { log }) =>
      await Checksum.open(backend, said({ path: file, blockBytes: block, log }) as ChecksumOptions),
  }),
};

function noOption(name: string, key: string, known: readonly string[]): string {
  if (known.length === 0) return `the filter "${name}" has no options: --with ${name}`;
  const near = nearest(key, known);
  const guess = near === undefined ? "" : `; did you mean ${near}?`;
  return `the filter "${name}" has no option "${key}" (${known.join(", ")})${guess}`;
}

/** A filter that was asked for in words, ready to be put in front of a backend. */
export interface ParsedFilter {
  readonly name: string;
  /** @throws what the filter says of the backend and of values that do not fit together. */
  readonly wrap: (backend: Backend, lines?: FilterLines) => Promise<Backend>;
}

/**
 * What `NAME` or `NAME=OPTION=VALUE,OPTION=VALUE…` asks for.
 *
 * @throws {UsageError} an unknown filter or option, a value that is none, an option that is missing.
 */
export function parseFilter(words: string): ParsedFilter {
  const at = words.indexOf("=");
  const name = oneOf(at < 0 ? words : words.slice(0, at), Object.keys(filters), "filter");
  const spec = filters[name]!;
  const values: Record<string, unknown> = {};
  for (const word of at < 0 ? [] : words.slice(at + 1).split(",")) {
    const equals = word.indexOf("=");
    const key = equals < 0 ? word : word.slice(0, equals);
    const option = Object.hasOwn(spec.options, key) ? spec.options[key] : undefined;
    if (option === undefined) throw new UsageError(noOption(name, key, Object.keys(spec.options)));
    if (key in values) throw new UsageError(`the option "${key}" of the filter "${name}" is given twice`);
    if (equals < 0) {
      throw new UsageError(`the option "${key}" of the filter "${name}" takes a value: ${key}=${option.value}`);
    }
    try {
      values[key] = option.parse(word.slice(equals + 1));
    } catch (error) {
      if (error instanceof UsageError) throw new UsageError(`filter "${name}", option "${key}": ${error.message}`);
      throw error;
    }
  }
  const missing = spec.required?.find((key) => values[key] === undefined);
  if (missing !== undefined) {
    throw new UsageError(
      `the filter "${name}" needs ${missing}=${spec.options[missing]!.value}: --with ${spec.example}`,
    );
  }
  return {
    name,
    async wrap(backend, lines = {}) {
      try {
        return await spec.make(backend, values, lines);
      } catch (error) {
        if (error instanceof RangeError) throw new UsageError(`filter "${name}": ${error.message}`);
        throw error;
      }
    },
  };
}
