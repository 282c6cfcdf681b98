// SPDX-License-Identifier: MIT
/** What a disk was asked and how long it took: counts, bytes, errors and percentiles of each operation. */
import type { Backend, CloseReason, Completed } from "../disk/backend.ts";
import { watched } from "../disk/later.ts";
import { type Operation, OPERATIONS } from "../disk/operation.ts";
import { Filter, type FilteredRequest, outcomeName } from "./filter.ts";
import { type Doubling, Histogram } from "./histogram.ts";

/** What is known of one operation. Times are microseconds; percentiles are exact to 1 in 16. */
export interface OperationStats {
  /** Requests that have ended, the failed ones among them. */
  readonly count: number;
  /** Bytes of those that did not fail. */
  readonly bytes: number;
  /** How many failed, by errno: `{ EIO: 3 }`. */
  readonly errors: Readonly<Record<string, number>>;
  /** Mean latency, in microseconds. */
  readonly meanUs: number;
  /** Half of the requests took at most this, in microseconds. */
  readonly p50Us: number;
  /** 90 % took at most this, in microseconds. */
  readonly p90Us: number;
  /** 99 % took at most this, in microseconds. */
  readonly p99Us: number;
  /** 99.9 % took at most this, in microseconds. */
  readonly p999Us: number;
  /** The longest, in microseconds. */
  readonly maxUs: number;
  /** All latencies, in microseconds, by powers of two. */
  readonly latenciesUs: readonly Doubling[];
}

/** What a `Stats` has seen since it was made, or since `reset()`. */
export interface StatsReport {
  /** Since the filter was made, or reset, in seconds. */
  readonly seconds: number;
  /** Requests that the backend has now. */
  readonly inFlight: number;
  /** The most that it had at the same time. */
  readonly maxInFlight: number;
  /** By operation. */
  readonly operations: Readonly<Record<Operation, OperationStats>>;
}

/** Options of a `Stats`. */
export interface StatsOptions {
  /** Is given the report when the disk is closed, and why it is. @default nobody */
  readonly onClose?: (report: StatsReport, reason: CloseReason) => void;
}

/** Counts of one operation as they grow. */
class Tally {
  readonly histogram = new Histogram();
  bytes = 0;
  readonly errors: Record<string, number> = {};

  report(): OperationStats {
    const { histogram, bytes, errors } = this;
    return {
      count: histogram.count,
      bytes,
      errors: { ...errors },
      meanUs: histogram.mean,
      p50Us: histogram.percentile(50),
      p90Us: histogram.percentile(90),
      p99Us: histogram.percentile(99),
      p999Us: histogram.percentile(99.9),
      maxUs: histogram.max,
      latenciesUs: histogram.doublings(),
    };
  }
}

/**
 * Counts requests and measures them.
 *
 * ```ts
 * import type { Backend } from "../disk/backend.ts";
 * import { requestOptions } from "../disk/request.ts";
 * import { Stats } from "./stats.ts";
 *
 * const disk: Backend = { sizeBytes: 4096, read: (buffer) => void buffer.fill(0), write: () => {} };
 * const stats = new Stats(disk);
 * await stats.read(new Uint8Array(512), 0, requestOptions());
 * console.assert(stats.report().operations.read.count === 1);
 * console.log(stats.text());
 * ```
 */
export class Stats extends Filter {
  readonly #onClose: StatsOptions["onClose"];
  #tallies = newTallies();
  #begunMs = performance.now();
  #inFlight = 0;
  #maxInFlight = 0;

  /** Counts in front of a backend. */
  constructor(backend: Backend, options: StatsOptions = {}) {
    super(backend);
    this.#onClose = options.onClose;
  }

  /** What was seen until now. */
  report(): StatsReport {
    const tallies = this.#tallies;
    return {
      seconds: (performance.now() - this.#begunMs) / 1000,
      inFlight: this.#inFlight,
      maxInFlight: this.#maxInFlight,
      operations: {
        read: tallies.read.report(),
        write: tallies.write.report(),
        flush: tallies.flush.report(),
        discard: tallies.discard.report(),
        writeZeroes: tallies.writeZeroes.report(),
      },
    };
  }

  /** The report as lines to read: two for each operation that was asked for. */
  text(): string {
    return statsText(this.report());
  }

  /** Begins anew. */
  reset(): void {
    this.#tallies = newTallies();
    this.#begunMs = performance.now();
    this.#maxInFlight = this.#inFlight;
  }

  /** Takes the time of a request. */
  protected override ask(
    request: FilteredRequest,
    next: () => Completed | Promise<Completed>,
  ): Completed | Promise<Completed> {
    const begunMs = performance.now();
    this.#inFlight++;
    this.#maxInFlight = Math.max(this.#maxInFlight, this.#inFlight);
    return watched(next, (outcome) => {
      this.#inFlight--;
      const tally = this.#tallies[request.operation];
      const errno = outcomeName(request, outcome);
      tally.histogram.add((performance.now() - begunMs) * 1000);
      if (errno === "0") tally.bytes += request.lengthBytes;
      else tally.errors[errno] = (tally.errors[errno] ?? 0) + 1;
    });
  }

  /** Says the report once more. */
  protected override async onClose(reason: CloseReason): Promise<void> {
    try {
      await super.onClose(reason);
    } finally {
      this.#onClose?.(this.report(), reason);
    }
  }
}

function newTallies(): Record<Operation, Tally> {
  return {
    read: new Tally(),
    write: new Tally(),
    flush: new Tally(),
    discard: new Tally(),
    writeZeroes: new Tally(),
  };
}

/**
 * A report as lines to read: two for each operation that was asked for. The second one is the histogram: `<64: 7` are 7
 * requests that took less than 64 microseconds, and not less than 32.
 *
 * @param disk which disk it is of, for the first line
 */
export function statsText(report: StatsReport, disk?: string): string {
  const head = `${disk === undefined ? "" : `${disk}: `}${report.seconds.toFixed(1)} s, at most ${
    requests(report.maxInFlight)
  } at the same time`;
  const lines = OPERATIONS.filter((operation) => report.operations[operation].count > 0).map((operation) => {
    const { count, bytes, errors, meanUs, p50Us, p90Us, p99Us, p999Us, maxUs, latenciesUs } =
      report.operations[operation];
    const failed = Object.entries(errors).map(([errno, times]) => `, ${times} ${errno}`).join("");
    return `${operation}: ${requests(count)}, ${bytes} bytes${failed}; us: mean ${Math.round(meanUs)}, ` +
      `50% ${p50Us}, 90% ${p90Us}, 99% ${p99Us}, 99.9% ${p999Us}, max ${maxUs}\n` +
      `  us: ${latenciesUs.map(({ below, count }) => `<${below}: ${count}`).join(", ")}`;
  });
  return [head, ...lines].join("\n");
}

function requests(count: number): string {
  return `${count} ${count === 1 ? "request" : "requests"}`;
}
