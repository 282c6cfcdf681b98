/**
 * What the machine did while fio ran: the kernel's counters, read again and again, and the difference over a stretch of
 * time. A rate per second divided by fio's requests per second is a cost per request.
 */

/** The counters at a moment. */
export interface Counters {
  /** As Date.now() tells time. */
  readonly timeMs: number;
  /** Time that all processors together were not idle. */
  readonly busyMs: number;
  readonly switches: number;
  /** EXCHANGE calls that brought requests, and requests they brought; undefined for disks of others. */
  readonly batches?: number;
  readonly handed?: number;
}

/** Costs per request. */
export interface Costs {
  readonly cpuUs: number;
  readonly switches: number;
  readonly calls?: number;
  readonly batch?: number;
}

/** The kernel counts processor time in hundredths of a second there, on every architecture (USER_HZ). */
const tickMs = 10;
const intervalMs = 100;
/** fio says when it printed its result, not when the jobs ended: it looks for their end now and then. */
const endDoubtMs = 100;

/** Reads /proc/stat. */
export function parseProcStat(text: string): { busyMs: number; switches: number } {
  const ticks = /^cpu +(.*)$/m.exec(text)?.[1]?.split(" ").map(Number);
  const switches = Number(/^ctxt (\d+)$/m.exec(text)?.[1]);
  if (ticks === undefined || ticks.length < 8 || Number.isNaN(switches)) throw new Error("/proc/stat is not as it was");
  const [user, nice, system, , , irq, softirq, steal] = ticks as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return { busyMs: (user + nice + system + irq + softirq + steal) * tickMs, switches };
}

/** Costs per request between two moments. */
export function costsBetween(before: Counters, after: Counters, iops: number): Costs {
  const requests = (after.timeMs - before.timeMs) / 1000 * iops;
  const shared = {
    cpuUs: (after.busyMs - before.busyMs) * 1000 / requests,
    switches: (after.switches - before.switches) / requests,
  };
  if (before.batches === undefined || after.batches === undefined) return shared;
  const batches = after.batches - before.batches;
  const handed = (after.handed ?? 0) - (before.handed ?? 0);
  return { ...shared, calls: batches / handed, batch: handed / batches };
}

/** The first and the last reading inside a stretch of time; undefined if it has less than two. */
export function within(
  readings: readonly Counters[],
  beginMs: number,
  endMs: number,
): { first: Counters; last: Counters } | undefined {
  const inside = readings.filter(({ timeMs }) => timeMs >= beginMs && timeMs <= endMs - endDoubtMs);
  const [first, last] = [inside[0], inside.at(-1)];
  return first === undefined || last === undefined || first === last ? undefined : { first, last };
}

/** Reads the counters ten times a second until stopped. */
export class CounterLog implements Disposable {
  readonly readings: Counters[] = [];
  readonly #timer: ReturnType<typeof setInterval>;

  /** @param name the dblock disk whose counters are read, too */
  constructor(name: string | undefined) {
    this.#timer = setInterval(() => this.readings.push(readCounters(name)), intervalMs);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

function readCounters(name: string | undefined): Counters {
  const machine = { timeMs: Date.now(), ...parseProcStat(Deno.readTextFileSync("/proc/stat")) };
  if (name === undefined) return machine;
  const read = (file: string) => Number(Deno.readTextFileSync(`/sys/block/${name}/dblock/${file}`));
  return { ...machine, batches: read("batch_count"), handed: read("handed_total") };
}
