// SPDX-License-Identifier: MIT
/**
 * What happened to disks between two looks, in words: errors, deaths, disks that came and went. What happens again and again
 * is one happening that grows.
 */
import { formatSize } from "./cli.ts";
import { counted } from "./listing.ts";
import type { Look, Seen } from "./moment.ts";

/** How bad it is: of "death" and "error", somebody's requests fail or wait. */
export type HappeningKind = "death" | "error" | "change";

/** Something that has happened to a disk. */
export interface Happening {
  /** From 1 on; one that grows keeps it. */
  readonly number: number;
  readonly kind: HappeningKind;
  /** The disk's name. */
  readonly disk: string;
  /** When it began, and when it was last seen, since 1970. */
  readonly timeMs: number;
  readonly lastMs: number;
  /** How many: requests, deaths. */
  readonly count: number;
  readonly text: string;
}

/** What is told of a process that serves no longer. */
export interface Servers {
  /** Processes that were found dead since the look before. */
  readonly dead: ReadonlySet<number>;
  readonly isAlive: (pid: number) => boolean;
}

interface Fresh {
  readonly kind: HappeningKind;
  readonly disk: string;
  /** What it is, whatever its count: the same in a short time is the same happening. */
  readonly what: string;
  readonly count: number;
  readonly say: (count: number) => string;
}

/** How long a happening waits to grow. */
const GROWS_MS = 10_000;
/** The oldest ones are forgotten. */
const KEPT_MAX = 200;

/** All that has happened while somebody looked. */
export class Happenings {
  readonly #all: (Happening & { readonly what: string })[] = [];
  #number = 0;

  /** The oldest first. */
  get all(): readonly Happening[] {
    return this.#all.map(shown);
  }

  /** Adds what happened between two looks. @returns what is new, or has grown */
  add(before: Look, now: Look, servers: Servers): Happening[] {
    const { timeMs } = now;
    const changed = happenedBetween(before, now, servers).map((fresh) => {
      const { kind, disk, what, say } = fresh;
      const at = this.#all.findLastIndex((one) =>
        one.disk === disk && one.what === what && timeMs - one.lastMs <= GROWS_MS
      );
      const old = kind === "error" && at >= 0 ? this.#all.splice(at, 1)[0] : undefined;
      const count = (old?.count ?? 0) + fresh.count;
      const number = old?.number ?? ++this.#number;
      const one = { number, kind, disk, what, count, timeMs: old?.timeMs ?? timeMs, lastMs: timeMs, text: say(count) };
      this.#all.push(one);
      return shown(one);
    });
    this.#all.splice(0, Math.max(0, this.#all.length - KEPT_MAX));
    return changed;
  }
}

function shown({ number, kind, disk, timeMs, lastMs, count, text }: Happening): Happening {
  return { number, kind, disk, timeMs, lastMs, count, text };
}

function happenedBetween(before: Look, now: Look, servers: Servers): Fresh[] {
  const found: Fresh[] = [];
  for (const [key, seen] of now.disks) {
    const old = before.disks.get(key);
    if (old === undefined) found.push(change(seen.disk, "came", `is there: ${formatSize(seen.sizeBytes)}${of(seen)}`));
    else found.push(...changesOf(old, seen));
  }
  for (const [key, seen] of before.disks) if (!now.disks.has(key)) found.push(end(seen, servers));
  return found;
}

function of({ spec }: Seen): string {
  return spec === undefined ? "" : `, ${spec}`;
}

function change(disk: string, what: string, text: string, kind: HappeningKind = "change"): Fresh {
  return { kind, disk, what, count: 1, say: () => text };
}

/** A disk is not there any more: why, as far as its process tells. */
function end(seen: Seen, { dead, isAlive }: Servers): Fresh {
  const { disk, pid, transport } = seen;
  if (pid !== undefined && dead.has(pid)) {
    return change(disk, "gone", `is gone: process ${pid}, which served it, has died`, "death");
  }
  if (pid === undefined) return change(disk, "gone", "is gone");
  if (!isAlive(pid)) return change(disk, "gone", `is gone: process ${pid}, which served it, has ended`);
  if (transport === "dblock.ko") return change(disk, "gone", "is gone: destroyed");
  return change(disk, "gone", `is gone, or process ${pid} does not answer`, "error");
}

/** A disk that is still there. */
function changesOf(before: Seen, now: Seen): Fresh[] {
  const { disk } = now;
  const found = errorsOf(before, now);
  if (now.sizeBytes !== before.sizeBytes) found.push(change(disk, "size", `has ${formatSize(now.sizeBytes)} now`));
  if (now.module === undefined || before.module === undefined) return found;
  const [from, to] = [before.module.counts, now.module.counts];
  const then = {
    hold: "its I/O waits for the next one",
    fail: "its I/O fails until the next one",
    remove: "it goes",
  }[now.module.onDeath];
  if (to.deaths > from.deaths) {
    const what = `its server has died: ${then}`;
    found.push({ kind: "death", disk, what, count: to.deaths - from.deaths, say: () => what });
  }
  if (to.leaves > from.leaves) found.push(change(disk, "left", `its server has left it: ${then}`));
  const counts = [
    ["timeouts", (count: number) => `${counted(count, "request")} timed out`],
    ["refused", (count: number) => `${counted(count, "answer")} of its server ${wereOrWas(count)} refused`],
  ] as const;
  for (const [name, say] of counts) {
    const count = to[name] - from[name];
    if (count > 0) found.push({ kind: "error", disk, what: name, count, say });
  }
  if (to.replayed > from.replayed) {
    const count = to.replayed - from.replayed;
    const text = `${counted(count, "request")} ${wereOrWas(count)} handed out again`;
    found.push(change(disk, "replayed", text));
  }
  const [old, fresh] = [before.module.server?.pid, now.module.server?.pid];
  if (fresh !== undefined && fresh !== old) {
    found.push(change(disk, `server ${fresh}`, `process ${fresh} serves it now`));
  }
  return found;
}

function wereOrWas(count: number): string {
  return count === 1 ? "was" : "were";
}

const VERBS: Readonly<Record<string, string>> = { writeZeroes: "write of zeroes" };

/** By operation and errno where the server's code tells; else as the module counts them. */
function errorsOf(before: Seen, now: Seen): Fresh[] {
  const { disk } = now;
  if (now.meter !== undefined && before.meter !== undefined) {
    return now.meter.errors.flatMap(({ operation, errno, count }): Fresh[] => {
      const old = before.meter!.errors.find((one) => one.operation === operation && one.errno === errno)?.count ?? 0;
      const name = VERBS[operation] ?? operation;
      const say = (failed: number) => `${countedOperations(failed, name)} failed: ${errno}`;
      return count > old ? [{ kind: "error", disk, what: `${operation} ${errno}`, count: count - old, say }] : [];
    });
  }
  const count = (now.module?.counts.errors ?? 0) - (before.module?.counts.errors ?? 0);
  const say = (failed: number) => `${counted(failed, "request")} failed`;
  return count > 0 ? [{ kind: "error", disk, what: "errors", count, say }] : [];
}

function countedOperations(count: number, name: string): string {
  if (name === "flush") return `${count} ${count === 1 ? "flush" : "flushes"}`;
  if (name === "write of zeroes") return `${count} ${count === 1 ? "write" : "writes"} of zeroes`;
  return counted(count, name);
}
