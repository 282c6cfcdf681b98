// SPDX-License-Identifier: MIT
/**
 * How long the requests of disks take, measured by the kernel while somebody looks: from the moment a request reaches the
 * module until it is answered. Two small programs at the block layer's tracepoints count them; nobody pays for that before
 * or after. It knows no server, so every disk can be measured.
 */
import { DblockError, describe } from "../disk/errors.ts";
import { CELLS, STEPS } from "../filters/histogram.ts";
import { Assembler, attachProgram, BpfMap, readTracepoint, type Tracepoint } from "../system/bpf.ts";
import { pauseIoFlusher } from "../system/libc.ts";

const TRACEPOINTS = "/sys/kernel/tracing/events/block";
const ISSUED = "block_rq_issue";
const COMPLETED = "block_rq_complete";
/** Of all disks together: more requests at once are not measured. */
const REQUESTS_MAX = 65_536;
/** More disks have no percentiles. */
const DISKS_MAX = 512;
const START_KEY_BYTES = 16;
/** Below the frame's end: the key of a request (its sector, the number of its disk, 0), then the time. */
const KEY = -16;
const KEY_DISK = -8;
const TIME = -24;

/** Counts of latencies since a disk was first asked for, in nanoseconds: the cells of a `Histogram`. */
export type Cells = Float64Array;

/** Measures the requests of disks until it is disposed. */
export class LatencyWatch implements Disposable {
  readonly #cells: BpfMap;
  readonly #stack: DisposableStack;

  private constructor(cells: BpfMap, stack: DisposableStack) {
    this.#cells = cells;
    this.#stack = stack;
  }

  /**
   * Begins to measure.
   *
   * @throws {DblockError} this kernel cannot, or must not; with what to type.
   */
  static open(): LatencyWatch {
    using _pause = pauseIoFlusher();
    using stack = new DisposableStack();
    const [issued, completed] = [ISSUED, COMPLETED].map(findTracepoint) as [Tracepoint, Tracepoint];
    const cells = stack.use(BpfMap.open(4, CELLS * 8, DISKS_MAX));
    const starts = stack.use(BpfMap.open(START_KEY_BYTES, 8, REQUESTS_MAX));
    if (cells === undefined || starts === undefined) throw refused();
    // Completions first: a start that nobody completes stays in the table.
    const programs: [string, Uint8Array<ArrayBuffer>, Tracepoint][] = [
      ["dblock_complete", completedProgram(completed, cells, starts), completed],
      ["dblock_issue", issuedProgram(issued, cells, starts), issued],
    ];
    for (const [name, code, tracepoint] of programs) {
      if (stack.use(attachProgram(name, code, tracepoint)) === undefined) throw refused();
    }
    return new LatencyWatch(cells, stack.move());
  }

  /** What was counted of a disk since it was first asked for; undefined if there are too many disks. */
  cells({ major, minor }: { readonly major: number; readonly minor: number }): Cells | undefined {
    const key = diskKey(major, minor);
    const value = this.#cells.get(key);
    if (value !== undefined) return cellsOf(value);
    return this.#cells.set(key, new Uint8Array(new ArrayBuffer(CELLS * 8))) ? new Float64Array(CELLS) : undefined;
  }

  /** The disk is gone: another one may have its number, and begins at nothing. */
  forget({ major, minor }: { readonly major: number; readonly minor: number }): void {
    this.#cells.delete(diskKey(major, minor));
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

/** What the kernel has counted. Not by way of bigints: top does this for each disk each second. */
function cellsOf(value: Uint8Array<ArrayBuffer>): Cells {
  const halves = new Uint32Array(value.buffer);
  const cells = new Float64Array(CELLS);
  for (let i = 0; i < CELLS; i++) cells[i] = halves[2 * i]! + halves[2 * i + 1]! * 2 ** 32;
  return cells;
}

/** @throws {DblockError} the kernel's tracing is not there, or not for this process; with what to type */
export function findTracepoint(name: string): Tracepoint {
  try {
    return readTracepoint(`${TRACEPOINTS}/${name}`);
  } catch (error) {
    const attempted = "Cannot measure latencies";
    if (!(error instanceof Deno.errors.NotFound)) {
      throw new DblockError("EACCES", attempted, describe(error), { cause: error });
    }
    const hint = "mount -t tracefs tracefs /sys/kernel/tracing";
    throw new DblockError("ENOENT", attempted, "the kernel's tracing is not mounted", { hint, cause: error });
  }
}

/** What is said where the kernel takes no program. */
export function refused(): DblockError {
  const wrong = "the kernel refuses to run a program at its tracepoints (lockdown, or no BPF)";
  return new DblockError("EPERM", "Cannot measure latencies", wrong, { hint: "serve the disk --with stats" });
}

/** As the kernel numbers disks for itself. */
export function diskKey(major: number, minor: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(4));
  new DataView(bytes.buffer).setUint32(0, major * 2 ** 20 + minor, true);
  return bytes;
}

/**
 * Puts the key of a request below the frame. Of two requests for one sector at once only the later one is measured. A flush
 * has no sector, and is not measured.
 */
function keyOf({ offsets }: Tracepoint): Assembler {
  return new Assembler()
    .do("move", 6, 1)
    .load(1, 6, offsets.nr_sector!, 4)
    .jump("equal", 1, 0, "out")
    .load(7, 6, offsets.sector!, 8)
    .store(10, KEY, 7, 8)
    .load(7, 6, offsets.dev!, 4)
    .store(10, KEY_DISK, 7, 8);
}

/** A request has reached the module: keep when. */
function issuedProgram(tracepoint: Tracepoint, cells: BpfMap, starts: BpfMap): Uint8Array<ArrayBuffer> {
  return keyOf(tracepoint)
    .map(1, cells).do("move", 2, 10).doNumber("add", 2, KEY_DISK).call("mapLookup")
    .jump("equal", 0, 0, "out") // no disk that is looked at
    .call("now")
    .store(10, TIME, 0, 8)
    .map(1, starts).do("move", 2, 10).doNumber("add", 2, KEY)
    .do("move", 3, 10).doNumber("add", 3, TIME).doNumber("move", 4, 0).call("mapUpdate")
    .label("out").end()
    .bytes();
}

/** It is answered: count how long that took. */
function completedProgram(tracepoint: Tracepoint, cells: BpfMap, starts: BpfMap): Uint8Array<ArrayBuffer> {
  const program = keyOf(tracepoint)
    .map(1, starts).do("move", 2, 10).doNumber("add", 2, KEY).call("mapLookup")
    .jump("equal", 0, 0, "out")
    .load(8, 0, 0, 8)
    .map(1, starts).do("move", 2, 10).doNumber("add", 2, KEY).call("mapDelete")
    .map(1, cells).do("move", 2, 10).doNumber("add", 2, KEY_DISK).call("mapLookup")
    .jump("equal", 0, 0, "out")
    .do("move", 9, 0)
    .call("now").do("sub", 0, 8);
  // The cell: 0 to 31 is the value itself; beyond, halve it until it is less than 32 and count how often.
  program.doNumber("move", 1, 0);
  for (const bits of [32, 16, 8, 4, 2, 1]) {
    program
      .do("move", 2, 0).doNumber("shift", 2, bits)
      .jump("less", 2, STEPS, `less${bits}`)
      .do("move", 0, 2).doNumber("add", 1, bits)
      .label(`less${bits}`);
  }
  return program
    .doNumber("left", 1, Math.log2(STEPS)).do("add", 0, 1)
    .jump("greater", 0, CELLS - 1, "out")
    .doNumber("left", 0, 3).do("add", 9, 0)
    .doNumber("move", 1, 1).addTo(9, 0, 1)
    .label("out").end()
    .bytes();
}
