// SPDX-License-Identifier: MIT
/**
 * What is counted of the requests of a disk where they are dispatched: how many, how long they took by operation and size,
 * how they failed, and where on the disk they were. Off until somebody asks: a disk that nobody looks at pays a comparison.
 */
import type { Backend } from "./backend.ts";
import { errnoName } from "./errors.ts";
import { type Operation, OPERATIONS } from "./operation.ts";

/** The largest request of each class, in bytes; the last one has what is larger. */
export const SIZE_CLASSES: readonly number[] = [4 * 2 ** 10, 64 * 2 ** 10, 2 ** 20, Infinity];
/** 1, 2, 4, ... 1024 requests, and more. */
const BATCH_CELLS = 12;
/** Pieces of the disk whose bytes are counted. */
export const MAP_CELLS = 256;
/** What a cell of time is counted in. */
const UNITS_PER_US = 8;
/** Cells for each doubling of the time. */
const STEPS_BITS = 2;
const STEPS = 1 << STEPS_BITS;
/** Cells of time: to 2^32 units, nine minutes. */
export const TIME_CELLS: number = (32 - STEPS_BITS + 1) * STEPS;

/** What was asked in one class of sizes by one operation. */
export interface MeterRow {
  readonly operation: Operation;
  /** An index of {@linkcode SIZE_CLASSES}. */
  readonly sizeClass: number;
  /** Requests that have ended, the failed ones among them. */
  readonly count: number;
  /** Of those that did not fail. */
  readonly bytes: number;
  /** How many did not fail. */
  readonly succeeded: number;
  /** How long all of them took, in seconds. */
  readonly seconds: number;
  /** How many took how long: pairs of the number of a cell (see {@linkcode endOfTimeCell}) and a count above 0. */
  readonly times: readonly (readonly [cell: number, count: number])[];
}

/** What was counted since the meter was switched on. */
export interface MeterReport {
  /** Those that are not empty. */
  readonly rows: readonly MeterRow[];
  /** By operation and errno: what failed. */
  readonly errors: readonly { readonly operation: Operation; readonly errno: string; readonly count: number }[];
  /** Requests that the backend has now. */
  readonly inFlight: number;
  /** Bytes that were read of each piece of the disk, all of one size. */
  readonly readMap: readonly number[];
  /** Bytes that were written, zeroed or discarded. */
  readonly writeMap: readonly number[];
  /** How many requests came at once: of each number up to 1, 2, 4, ... 1024, and of more. */
  readonly batches: readonly number[];
  /** Requests of all batches. */
  readonly batched: number;
}

const CLASS_COUNT = SIZE_CLASSES.length;
/** One for each operation and class: 20, each of which dispatch has a bit for. */
export const ROWS: number = OPERATIONS.length * CLASS_COUNT;

/** Counts the requests of a disk. */
export class Meter {
  /** Whether it counts. */
  isOn = false;
  /** Requests that the backend answers later. */
  inFlight = 0;
  /** A clock that never goes back, in ms: read for each batch and for each answer that comes later, so it should be cheap. */
  readonly now: () => number;
  readonly #times = new Float64Array(ROWS * TIME_CELLS);
  readonly #bytes = new Float64Array(ROWS);
  readonly #ms = new Float64Array(ROWS);
  readonly #succeeded = new Float64Array(ROWS);
  readonly #maps = [new Float64Array(MAP_CELLS), new Float64Array(MAP_CELLS)] as const;
  readonly #errors = new Map<string, number>();
  readonly #batches = new Float64Array(BATCH_CELLS);
  #batched = 0;
  /** On its own clock; Infinity: nothing switches it off. */
  #untilMs = -Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Off at first. */
  constructor(now: () => number = () => performance.now()) {
    this.now = now;
  }

  /**
   * Counts for so long from now on, in ms, or longer if somebody has asked for longer. With Infinity it counts as long as
   * the disk is there.
   */
  countFor(ms: number): void {
    this.isOn = true;
    this.#untilMs = Math.max(this.#untilMs, this.now() + ms);
    if (this.#timer === undefined) this.#endLater();
  }

  #endLater(): void {
    if (this.#untilMs === Infinity) return;
    const timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.now() < this.#untilMs) this.#endLater();
      else this.isOn = false;
    }, Math.max(1, this.#untilMs - this.now()));
    Deno.unrefTimer(timer);
    this.#timer = timer;
  }

  /**
   * Counts a request that has ended with 0 or an errno; how long it took is for {@linkcode addTime}. `sizeBytes` is the
   * disk's.
   *
   * @returns the row of its operation and size
   */
  count(operation: Operation, offsetBytes: number, lengthBytes: number, errno: number, sizeBytes: number): number {
    const row = numberOf(operation) * CLASS_COUNT + classOf(lengthBytes);
    if (errno !== 0) {
      const key = `${operation} ${errnoName(errno)}`;
      this.#errors.set(key, (this.#errors.get(key) ?? 0) + 1);
      return row;
    }
    this.#succeeded[row] = this.#succeeded[row]! + 1;
    if (lengthBytes === 0) return row;
    this.#bytes[row] = this.#bytes[row]! + lengthBytes;
    const map = operation === "read" ? this.#maps[0] : this.#maps[1];
    const scale = MAP_CELLS / sizeBytes;
    const first = Math.trunc(offsetBytes * scale);
    const last = Math.trunc((offsetBytes + lengthBytes - 1) * scale);
    if (first === last) map[first] = map[first]! + lengthBytes;
    else for (let i = first; i <= last; i++) map[i] = map[i]! + lengthBytes / (last - first + 1);
    return row;
  }

  /** Counts how long requests of a row took: each of them `ms`. */
  addTime(row: number, ms: number, requests: number): void {
    const cell = row * TIME_CELLS + timeCellOf(ms);
    this.#times[cell] = this.#times[cell]! + requests;
    this.#ms[row] = this.#ms[row]! + ms * requests;
  }

  /** Counts requests that have come together. */
  addBatch(requests: number): void {
    const cell = Math.min(BATCH_CELLS - 1, requests <= 1 ? 0 : 32 - Math.clz32(requests - 1));
    this.#batches[cell] = this.#batches[cell]! + 1;
    this.#batched += requests;
  }

  /** What was counted until now. */
  report(): MeterReport {
    const rows: MeterRow[] = [];
    for (const [i, operation] of OPERATIONS.entries()) {
      for (let sizeClass = 0; sizeClass < CLASS_COUNT; sizeClass++) {
        const row = i * CLASS_COUNT + sizeClass;
        const times: [number, number][] = [];
        for (let cell = 0; cell < TIME_CELLS; cell++) {
          const count = this.#times[row * TIME_CELLS + cell]!;
          if (count > 0) times.push([cell, count]);
        }
        if (times.length === 0) continue;
        const count = times.reduce((sum, [, one]) => sum + one, 0);
        const seconds = this.#ms[row]! / 1000;
        const [bytes, succeeded] = [this.#bytes[row]!, this.#succeeded[row]!];
        rows.push({ operation, sizeClass, count, bytes, succeeded, seconds, times });
      }
    }
    const errors = [...this.#errors].map(([key, count]) => {
      const [operation, errno] = [key.slice(0, key.indexOf(" ")), key.slice(key.indexOf(" ") + 1)];
      return { operation: operation as Operation, errno, count };
    });
    const [readMap, writeMap] = this.#maps.map((map) => [...map]) as [number[], number[]];
    const batches = [...this.#batches];
    return { rows, errors, inFlight: this.inFlight, readMap, writeMap, batches, batched: this.#batched };
  }
}

/** The place in `OPERATIONS`: comparisons are faster than a table of two and more words. */
function numberOf(operation: Operation): number {
  switch (operation) {
    case "read":
      return 0;
    case "write":
      return 1;
    case "flush":
      return 2;
    case "discard":
      return 3;
    case "writeZeroes":
      return 4;
  }
}

function classOf(lengthBytes: number): number {
  return lengthBytes <= 4096 ? 0 : lengthBytes <= 65536 ? 1 : lengthBytes <= 1048576 ? 2 : 3;
}

/** The first times have a cell each; from there on every doubling has STEPS of them. */
function timeCellOf(ms: number): number {
  const units = ms * (1000 * UNITS_PER_US);
  if (units >= 2 ** 32) return TIME_CELLS - 1;
  const whole = units >>> 0;
  if (whole < STEPS) return whole;
  const power = 31 - Math.clz32(whole);
  return ((power - STEPS_BITS) << STEPS_BITS) + (whole >>> (power - STEPS_BITS));
}

/** What everything in a cell took less than, in seconds. */
export function endOfTimeCell(cell: number): number {
  const next = cell + 1;
  if (next < STEPS) return next / (UNITS_PER_US * 1e6);
  const power = (next >> STEPS_BITS) + STEPS_BITS - 1;
  return (STEPS + next % STEPS) * 2 ** (power - STEPS_BITS) / (UNITS_PER_US * 1e6);
}

const METERS = new WeakMap<Backend, Meter>();

/** Whoever dispatches requests to this backend from now on counts them with this meter. */
export function putMeter(backend: Backend, meter: Meter): void {
  METERS.set(backend, meter);
}

/** The meter of a backend. */
export function meterOf(backend: Backend): Meter | undefined {
  return METERS.get(backend);
}
