/**
 * What the test runner inside a VM tells the host: the types of its lines, and the counts both sides work with.
 * Only data; guest.ts writes it and device.ts reads it.
 */

/** How many tests passed, failed, and were skipped. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** A test file to run in the VM. */
export interface PlannedFile {
  /** Relative to the project. */
  readonly path: string;
  /** The whole file must end within this, as an idle machine counts time; twice that while it still says something. */
  readonly limitMs: number;
}

/** What the VM is to do. */
export interface Plan {
  /** How much slower than others the kernel is by nature. */
  readonly kernelSlowness: number;
  readonly files: readonly PlannedFile[];
  /** Names of tests to run, as `deno test --filter` takes them. Undefined: all. */
  readonly filter?: string | undefined;
}

/** One line on the report port, as JSON. */
export type ReportLine =
  | { readonly type: "alive" }
  /** The processor is so many times slower than the limits were made for. */
  | { readonly type: "processor"; readonly slowness: number }
  | { readonly type: "begin"; readonly path: string }
  | {
    readonly type: "end";
    readonly path: string;
    /** Undefined if the file did not come to its summary. */
    readonly counts?: Counts;
    /** What was wrong besides failed tests: dmesg, leftovers, the time limit. */
    readonly problems: readonly string[];
    readonly seconds: number;
    /** As many seconds would have passed on an idle machine. */
    readonly pacedSeconds: number;
    readonly output: string;
    /** The kernel is not as it was before; what comes next needs a fresh one. */
    readonly isDirty: boolean;
  };

/** The counts in the summary line that `deno test` ends with; undefined if there is none. */
export function parseTestSummary(output: string): Counts | undefined {
  // deno-lint-ignore no-control-regex
  const plain = output.replace(/\x1b\[[0-9;]*m/g, "");
  const summary =
    /^(?:ok|FAILED) \| (\d+) passed(?: \([^)]*\))? \| (\d+) failed(?: \([^)]*\))?(?: \| (\d+) ignored)?/gm;
  const last = [...plain.matchAll(summary)].at(-1);
  if (last === undefined) return undefined;
  return { passed: Number(last[1]), failed: Number(last[2]), skipped: Number(last[3] ?? 0) };
}

/** The sum of counts. */
export function addCounts(all: readonly Counts[]): Counts {
  let [passed, failed, skipped] = [0, 0, 0];
  for (const counts of all) {
    passed += counts.passed;
    failed += counts.failed;
    skipped += counts.skipped;
  }
  return { passed, failed, skipped };
}
