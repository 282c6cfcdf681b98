// SPDX-License-Identifier: MIT
/** What the page knows: the last minutes of each disk, as columns of numbers for plots. Pure; runs in a browser. */
import type { Beginning } from "../lookout.ts";
import type { Activity, Description, Moment } from "../moment.ts";
import type { Happening } from "../happenings.ts";
import { bytesOfLevel, type Field, FIELDS, levelOf, PIECES } from "./terms.ts";

/** Between moments that are further apart, lines are broken: nobody looked. */
const GAP_S = 3.5;
const SHOWN_MIN_S = 60;
const HAPPENINGS_MAX = 200;

/** A disk with its last minutes: each array is as long as `Model.times`. */
export interface Disk {
  description: Description;
  readonly columns: Readonly<Record<Field, (number | null)[]>>;
  /** What was read and written of each piece: letters, see {@linkcode levelOf}; "" for nothing. */
  readonly reads: string[];
  readonly writes: string[];
}

/** Everything that the page shows. */
export class Model {
  /** When, in seconds since 1970; one more without anything where lines are broken. */
  readonly times: number[] = [];
  readonly disks = new Map<string, Disk>();
  /** The newest first. */
  happenings: Happening[] = [];
  notes: readonly string[] = [];
  #keptSeconds = 300;

  /** How much is shown, in seconds: what there is, but a minute at least. */
  get shownSeconds(): number {
    const [first = 0, last = 0] = [this.times[0], this.times.at(-1)];
    return Math.min(this.#keptSeconds, Math.max(SHOWN_MIN_S, last - first));
  }

  /** Begins anew. */
  begin({ disks, past, happenings, notes, keptMs }: Beginning): void {
    this.times.length = 0;
    this.disks.clear();
    this.happenings = [];
    this.#keptSeconds = keptMs / 1000;
    for (const { timeMs, activities } of past) this.#add(timeMs, disks, activities);
    this.#setDisks(disks);
    this.#happen(happenings);
    this.notes = notes;
  }

  /** Another second. */
  add({ timeMs, disks, activities, happenings, notes }: Moment): void {
    this.#setDisks(disks);
    this.#add(timeMs, disks, activities);
    this.#happen(happenings);
    this.notes = notes;
  }

  #setDisks(disks: readonly Description[]): void {
    for (const description of disks) {
      const known = this.disks.get(description.key);
      if (known !== undefined) known.description = description;
      else this.disks.set(description.key, emptyDisk(description, this.times.length));
    }
    const keys = new Set(disks.map(({ key }) => key));
    for (const key of [...this.disks.keys()]) if (!keys.has(key)) this.disks.delete(key);
  }

  #add(timeMs: number, disks: readonly Description[], activities: Readonly<Record<string, Activity>>): void {
    const time = timeMs / 1000;
    const last = this.times.at(-1);
    if (last !== undefined && time <= last) return; // the clock was set back
    for (const description of disks) {
      if (!this.disks.has(description.key)) this.disks.set(description.key, emptyDisk(description, this.times.length));
    }
    if (last !== undefined && time - last > GAP_S) this.#push(last + 1, {});
    this.#push(time, activities);
    const first = this.times.findIndex((one) => one > time - this.#keptSeconds);
    this.times.splice(0, first);
    for (const { columns, reads, writes } of this.disks.values()) {
      for (const column of [...Object.values(columns), reads, writes]) column.splice(0, first);
    }
  }

  #push(time: number, activities: Readonly<Record<string, Activity>>): void {
    this.times.push(time);
    for (const [key, { columns, reads, writes }] of this.disks) {
      const activity = activities[key];
      for (const [i, field] of FIELDS.entries()) columns[field].push(activity?.numbers[i] ?? null);
      reads.push(activity?.reads ?? "");
      writes.push(activity?.writes ?? "");
    }
  }

  #happen(happenings: readonly Happening[]): void {
    const changed = new Set(happenings.map(({ number }) => number));
    const kept = this.happenings.filter(({ number }) => !changed.has(number));
    this.happenings = [...[...happenings].reverse(), ...kept].slice(0, HAPPENINGS_MAX);
  }
}

function emptyDisk(description: Description, length: number): Disk {
  const columns = Object.fromEntries(FIELDS.map((field) => [field, Array<number | null>(length).fill(null)]));
  const [reads, writes] = [Array<string>(length).fill(""), Array<string>(length).fill("")];
  return { description, columns: columns as Record<Field, (number | null)[]>, reads, writes };
}

/** Where most of it was: the smallest run of pieces with at least half of what was read and written. */
export interface Focus {
  readonly firstPiece: number;
  /** The last one. */
  readonly lastPiece: number;
  /** The part of all bytes that is there: 0 to 1. */
  readonly share: number;
}

/** Where most reads and writes of a disk's last minutes were; undefined if there were none. */
export function focusOf({ reads, writes }: Pick<Disk, "reads" | "writes">): Focus | undefined {
  const bytes = new Float64Array(PIECES);
  for (const letters of [...reads, ...writes]) {
    if (letters === "") continue;
    for (let piece = 0; piece < PIECES; piece++) bytes[piece] = bytes[piece]! + bytesOfLevel(levelOf(letters, piece));
  }
  const total = bytes.reduce((sum, one) => sum + one, 0);
  if (total === 0) return undefined;
  let best: Focus | undefined;
  let sum = 0;
  for (let first = 0, last = -1; first < PIECES; sum -= bytes[first++]!) {
    while (last < PIECES - 1 && sum < total / 2) sum += bytes[++last]!;
    if (sum < total / 2 * (1 - 1e-9)) break;
    if (best === undefined || last - first < best.lastPiece - best.firstPiece) {
      best = { firstPiece: first, lastPiece: last, share: sum / total };
    }
  }
  return best;
}
