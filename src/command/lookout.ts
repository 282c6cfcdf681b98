// SPDX-License-Identifier: MIT
/**
 * Looks at all disks of the machine each second while somebody watches, and for some minutes after that. Before and after,
 * nobody counts: servers count for a few seconds after each look, and the kernel while this program measures.
 */
import { DblockError, describe } from "../disk/errors.ts";
import { monotonicMs } from "../system/clock.ts";
import { VERSION } from "./cli.ts";
import { type DiskFigures, figuresOfMachine } from "./figures.ts";
import { type Happening, Happenings } from "./happenings.ts";
import { LatencyWatch } from "./latency.ts";
import {
  type Activity,
  activityBetween,
  describeDisk,
  type Description,
  keyOf,
  type Look,
  type Moment,
  type Seen,
} from "./moment.ts";
import { PlaceWatch } from "./places.ts";
import { isAlive, sortOutServers } from "./run_folder.ts";

const INTERVAL_MS = 1_000;
/** How much a page shows of what was before it was opened. */
export const KEPT_MS = 300_000;
/** Servers count for so long after a look: some may come late. */
const LEASE_MS = 10_000;
/** A server that takes longer misses a look. */
const ANSWER_MS = 700;
/** So long after its last answer, a server that is there is said not to answer. */
const SILENT_MS = 5_000;
/** Nothing of a second is known after a look that came so late: the program was stopped, or the machine slept. */
const LATE_MS = 5_000;

/** What a page needs to begin with. */
export interface Beginning {
  readonly host: string;
  readonly version: string;
  /** Whether whoever has the page may change disks. */
  readonly control: boolean;
  readonly keptMs: number;
  readonly disks: readonly Description[];
  readonly past: readonly { readonly timeMs: number; readonly activities: Readonly<Record<string, Activity>> }[];
  readonly happenings: readonly Happening[];
  readonly notes: readonly string[];
}

/** Who watches. */
type Watcher = (moment: Moment) => void;

/** Looks, remembers, and tells those who watch. */
export class Lookout implements Disposable {
  readonly #watchers = new Set<Watcher>();
  readonly #happenings = new Happenings();
  readonly #figures: (pids: readonly number[]) => Promise<DiskFigures[]>;
  /** Servers that were found dead. Whoever ends in order is never among them. */
  readonly #dead = new Set<number>();
  #past: Moment[] = [];
  #before: Look | undefined;
  #numbers = new Map<string, NonNullable<NonNullable<Seen["module"]>["diskNumber"]>>();
  #latencies: LatencyWatch | undefined;
  #places: PlaceWatch | undefined;
  #kernelNote: string | undefined;
  #watchedMs = -Infinity;
  #isLooking = false;
  #isOver = false;

  /** @param figures what is looked at @default all disks of the machine */
  constructor(
    figures = (pids: readonly number[]) => figuresOfMachine({ forMs: LEASE_MS, limitMs: ANSWER_MS, pids }),
  ) {
    this.#figures = figures;
  }

  /** How many watch. */
  get watcherCount(): number {
    return this.#watchers.size;
  }

  /** Tells of each moment from now on, until it is disposed. */
  watch(watcher: Watcher): Disposable {
    this.#watchers.add(watcher);
    this.#watchedMs = monotonicMs();
    if (!this.#isLooking) void this.#lookOn();
    return {
      [Symbol.dispose]: () => {
        this.#watchers.delete(watcher);
        this.#watchedMs = monotonicMs();
      },
    };
  }

  /** What was until now. */
  beginning(control: boolean): Beginning {
    const last = this.#past.at(-1);
    return {
      ...{ host: Deno.hostname(), version: VERSION, control, keptMs: KEPT_MS },
      disks: last?.disks ?? [],
      past: this.#past.map(({ timeMs, activities }) => ({ timeMs, activities })),
      happenings: this.#happenings.all,
      notes: last?.notes ?? [],
    };
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#watchers.clear();
    this.#closeKernel();
  }

  /** Until nobody has watched for as long as a page shows. */
  async #lookOn(): Promise<void> {
    this.#isLooking = true;
    try {
      this.#openKernel();
      while (!this.#isOver && (this.#watchers.size > 0 || monotonicMs() - this.#watchedMs < KEPT_MS)) {
        const nextMs = monotonicMs() + INTERVAL_MS;
        const moment = await this.#look();
        if (this.#isOver) break;
        this.#past.push(moment);
        this.#past.splice(0, Math.max(0, this.#past.findIndex(({ timeMs }) => timeMs > moment.timeMs - KEPT_MS)));
        for (const watcher of this.#watchers) watcher(moment);
        await new Promise((resolve) => setTimeout(resolve, Math.max(50, nextMs - monotonicMs())));
      }
    } finally {
      this.#isLooking = false;
      this.#closeKernel();
      this.#before = undefined;
      this.#past = [];
    }
  }

  async #look(): Promise<Moment> {
    let figures: DiskFigures[];
    try {
      figures = await this.#figures(this.#servers());
      this.#servers(); // one may have died meanwhile, and so has no disks
    } catch (error) {
      this.#before = undefined;
      return { timeMs: Date.now(), disks: [], activities: {}, happenings: [], notes: [describe(error)] };
    }
    const now = monotonicMs();
    const seen = figures.map((one): Seen => ({ ...one, atMs: now, ...this.#ofKernel(one) }));
    const all = [...seen, ...this.#late(seen, now)];
    const look: Look = {
      timeMs: Date.now(),
      disks: new Map(all.map((disk) => [keyOf(disk), disk])),
    };
    this.#forgetGone(look);
    const moment = this.#momentOf(look);
    this.#before = look;
    return moment;
  }

  /** Disks whose server is there and has not answered in time: as they were. */
  #late(seen: readonly Seen[], nowMs: number): Seen[] {
    const answered = new Set(seen.map(({ pid }) => pid));
    return [...this.#before?.disks.values() ?? []].filter(({ transport, pid, atMs }) =>
      transport !== "dblock.ko" && pid !== undefined && !answered.has(pid) && isAlive(pid) && nowMs - atMs < SILENT_MS
    );
  }

  /** Those that can be asked. */
  #servers(): readonly number[] {
    const { alive, dead } = sortOutServers();
    for (const pid of dead) this.#dead.add(pid);
    for (const pid of alive) this.#dead.delete(pid); // its number is another process's by now
    return alive;
  }

  #momentOf(look: Look): Moment {
    const before = this.#before;
    const activities: Record<string, Activity> = {};
    for (const [key, disk] of look.disks) {
      const from = before?.disks.get(key);
      const passedMs = disk.atMs - (from?.atMs ?? -Infinity);
      // Nothing is known of a disk that is late; when it has answered, of all the time since.
      const isKnown = passedMs > 0 && passedMs <= LATE_MS;
      activities[key] = activityBetween(isKnown ? from : undefined, disk, passedMs / 1000);
    }
    return {
      timeMs: look.timeMs,
      disks: [...look.disks.values()].map(describeDisk),
      activities,
      happenings: before === undefined ? [] : this.#happenings.add(before, look, { dead: this.#dead, isAlive }),
      notes: this.#notes(look),
    };
  }

  #notes({ disks }: Look): string[] {
    if (Deno.uid() !== 0) return ["This program is not root, so it sees no disks: start it with sudo."];
    const hasDevice = [...disks.values()].some(({ module }) => module !== undefined);
    return hasDevice && this.#kernelNote !== undefined ? [this.#kernelNote] : [];
  }

  /** What the kernel measures, or why it measures nothing: the rest needs nothing of it. */
  #openKernel(): void {
    try {
      this.#latencies = LatencyWatch.open();
      this.#places = PlaceWatch.open();
      this.#kernelNote = undefined;
    } catch (error) {
      if (!(error instanceof DblockError)) throw error;
      this.#kernelNote = error.message;
    }
  }

  #closeKernel(): void {
    this.#latencies?.[Symbol.dispose]();
    this.#places?.[Symbol.dispose]();
    [this.#latencies, this.#places] = [undefined, undefined];
    this.#numbers.clear();
  }

  #ofKernel({ module, sizeBytes }: DiskFigures): Pick<Seen, "latencies" | "places"> {
    const number = module?.diskNumber;
    if (number === undefined) return {};
    return { latencies: this.#latencies?.cells(number), places: this.#places?.places(number, sizeBytes) };
  }

  /** Another disk may get the number of one that has gone, and begins at nothing. */
  #forgetGone({ disks }: Look): void {
    for (const [key, number] of this.#numbers) {
      if (disks.has(key)) continue;
      this.#latencies?.forget(number);
      this.#places?.forget(number);
      this.#numbers.delete(key);
    }
    for (const [key, { module }] of disks) if (module?.diskNumber) this.#numbers.set(key, module.diskNumber);
  }
}
