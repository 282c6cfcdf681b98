/** What the kernel itself has in use, in numbers that can be compared: objects by slab cache, and pages by kind. */
import { sh } from "./harness.ts";
import { PAGE_BYTES } from "./syscall.ts";

/** Objects of a slab cache. */
export interface SlabCache {
  readonly inUse: number;
  /** A slab that a CPU has for itself counts as full, whatever is free in it. */
  readonly perSlab: number;
}

/** A count at one moment. */
export interface KernelMemory {
  readonly caches: ReadonlyMap<string, SlabCache>;
  /** Mappings of /proc/vmallocinfo, by who made them. */
  readonly mappings: ReadonlyMap<string, number>;
  /** Bytes of slabs, per-CPU memory, and pages that no counter of /proc/meminfo accounts for. */
  readonly bytes: ReadonlyMap<string, number>;
}

/** Frees what only waits to be freed or is kept for speed: otherwise its coming and going hides a leak. */
async function settle(): Promise<void> {
  await sh(`
    sync
    for round in 1 2; do
      sleep 1 # what RCU is to free
      echo 3 >/proc/sys/vm/drop_caches
      for cache in /sys/kernel/slab/*/shrink; do echo 1 >$cache; done
    done`);
}

/** Counts, after a moment of rest. */
export async function countKernelMemory(): Promise<KernelMemory> {
  await settle();
  const slabs = await Deno.readTextFile("/proc/slabinfo");
  const caches = new Map([...slabs.matchAll(/^(?!#)(\S+) +(\d+) +\d+ +\d+ +(\d+) /gm)].map((match) => {
    return [match[1]!, { inUse: Number(match[2]), perSlab: Number(match[3]) }] as const;
  }));
  const mappings = new Map<string, number>();
  // Those without a caller are freed already, and wait to be forgotten.
  for (const [, caller] of (await Deno.readTextFile("/proc/vmallocinfo")).matchAll(/^\S+ +\d+ (\w+)\+0x/gm)) {
    mappings.set(caller!, (mappings.get(caller!) ?? 0) + 1);
  }
  const meminfo = await Deno.readTextFile("/proc/meminfo");
  const of = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(meminfo)?.[1] ?? 0) * 1024;
  const accounted = ["MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "Slab", "KernelStack", "PageTables"];
  const unaccounted = of("MemTotal") - accounted.reduce((sum, name) => sum + of(name), 0) - of("Percpu") -
    await keptByCpus();
  const bytes = new Map([["SUnreclaim", of("SUnreclaim")], ["Percpu", of("Percpu")], ["other pages", unaccounted]]);
  return { caches, mappings, bytes };
}

/** Bytes of free pages that each CPU keeps for itself, as many as its last work made it: MemFree is without them. */
async function keptByCpus(): Promise<number> {
  const counts = (await Deno.readTextFile("/proc/zoneinfo")).matchAll(/^ +cpu: \d+\n +count: +(\d+)$/gm);
  return [...counts].reduce((sum, [, count]) => sum + Number(count), 0) * PAGE_BYTES;
}
