/**
 * What a server asks of the kernel for a request: every system call by name, every copy of its data and every allocation
 * made in its threads, counted by the kernel's own trace points and a probe in the module while fio runs. Counting slows a
 * run, so these runs give no other figure.
 */
import type { Ledger } from "./plan.ts";

const tracing = "/sys/kernel/tracing";
const syscallEvent = `${tracing}/events/raw_syscalls/sys_enter`;
/** The module's only function that copies data: once for a request, again for what is left after a missing page. */
const copyProbe = "p:dblock/data_copy dblock_data_copy";
const copyEvent = `${tracing}/events/dblock/data_copy`;
const allocationEvents = ["kmalloc", "kmem_cache_alloc", "mm_page_alloc"].map((name) =>
  `${tracing}/events/kmem/${name}`
);
/** Until fio is in its stride, and how long is counted. */
const rampMs = 1000;
const windowMs = 1000;

/** Counts of a histogram by key, such as `{ id: sys_ioctl [ 16] } hitcount: 5`. */
export function parseHistogram(text: string): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const [, key, count] of text.matchAll(/^\{ \w+: +(\S+).*\} hitcount: +(\d+)/gm)) {
    counts[key!] = (counts[key!] ?? 0) + Number(count);
  }
  return counts;
}

/** Counts what the server of a dblock disk does per request under a load. */
export async function takeLedger(name: string, load: () => Promise<unknown>): Promise<Ledger> {
  const attribute = (file: string) => Number(Deno.readTextFileSync(`/sys/block/${name}/dblock/${file}`));
  const threads = [...Deno.readDirSync(`/proc/${attribute("server_pid")}/task`)].map(({ name }) => name);
  const filter = threads.map((thread) => `common_pid==${thread}`).join("||");
  const histograms = [
    { event: syscallEvent, trigger: `hist:keys=id.syscall if ${filter}` },
    ...[copyEvent, ...allocationEvents].map((event) => ({ event, trigger: `hist:keys=common_pid if ${filter}` })),
  ];
  const read = () => ({
    requests: attribute("handed_total"),
    counts: histograms.map(({ event }) => parseHistogram(Deno.readTextFileSync(`${event}/hist`))),
  });
  // Trace points are switched while nothing runs: the kernel patches its code for that, and an emulated processor that is
  // in that code at the same time may trip over it ("Oops: int3").
  Deno.writeTextFileSync(`${tracing}/kprobe_events`, copyProbe, { append: true });
  for (const { event, trigger } of histograms) Deno.writeTextFileSync(`${event}/trigger`, trigger);
  const running = load();
  await sleep(rampMs);
  const before = read();
  await sleep(windowMs);
  const after = read();
  await running;
  for (const { event, trigger } of histograms) Deno.writeTextFileSync(`${event}/trigger`, `!${trigger}`);
  Deno.writeTextFileSync(`${tracing}/kprobe_events`, "-:dblock/data_copy", { append: true });
  return ledgerBetween(before, after);
}

/** The counters of a ledger at a moment: the system calls, the copies, then the allocations, event by event. */
export interface LedgerCounts {
  readonly requests: number;
  readonly counts: readonly Readonly<Record<string, number>>[];
}

/** Counts per request between two moments. */
export function ledgerBetween(before: LedgerCounts, after: LedgerCounts): Ledger {
  const requests = after.requests - before.requests;
  const [calls = {}, copies = {}, ...allocations] = after.counts.map((counts, i) =>
    Object.fromEntries(Object.entries(counts).map(([key, count]) => [key, count - (before.counts[i]?.[key] ?? 0)]))
  );
  const sum = (counts: readonly Readonly<Record<string, number>>[]) =>
    counts.flatMap((counts) => Object.values(counts)).reduce((total, count) => total + count, 0);
  const byName = Object.entries(calls).sort(([, a], [, b]) => b - a);
  return {
    calls: Object.fromEntries(byName.map(([call, count]) => [call.replace(/^sys_/, ""), count / requests])),
    copies: sum([copies]) / requests,
    allocations: sum(allocations) / requests,
  };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
