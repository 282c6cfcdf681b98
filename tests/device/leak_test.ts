// time limit: 600 s
// Thousands of devices, and hundreds of disks that were there, leave nothing in the kernel: no object in any slab, no page,
// no mapping, no number. They are made in equal runs with a count after each: what leaks grows in every run and in all of
// them together, what comes and goes by itself does not do both, or not again when all is repeated. A leak of one object or
// page of every second disk, or of every fifth device, is seen. Not covered: what is lost less often.
import { assert, assertEquals } from "@std/assert";
import { DiskSet } from "./disk_set.ts";
import { exists, figure, scaled, sh } from "./harness.ts";
import { countKernelMemory, type KernelMemory } from "./kernel_memory.ts";
import { PAGE_BYTES } from "./syscall.ts";

const runs = 3;
/** What looks like a leak has to do so this often. */
const roundsMax = 3;
/**
 * What says nothing. Mappings that are freed stay in the first one until there are many; which mappings there are is counted
 * by itself. A kernel that checks itself writes notes, of every object, every timer, every new way to a call (KASAN's, in
 * pages that it never gives back); there kmemleak looks for what is lost.
 */
const ignored: readonly string[] = [
  "vmap_area objects",
  ...(exists("/sys/kernel/debug/kmemleak")
    ? ["kmemleak_object objects", "kmemleak_scan_area objects", "debug_objects_cache objects", "pages of other pages"]
    : []),
];

interface Kind {
  readonly name: "created" | "live";
  /** In all runs together. */
  readonly devices: number;
  /** So many objects, pages or mappings more for each device are a leak; what there is without one is a third of that. */
  readonly leakShare: number;
}

const kinds: readonly Kind[] = [
  { name: "created", devices: 4_000, leakShare: 1 / 5 },
  { name: "live", devices: 600, leakShare: 1 / 2 },
];

async function makeDevices(kind: Kind["name"], count: number): Promise<void> {
  const script = `tests/device/leak_main.ts ${kind} ${count}`;
  await sh(`exec deno run -A --no-check --import-map=src/build/standins/import_map.json ${script}`, {
    timeoutMs: scaled(90_000),
  });
}

/** Everything that was counted, objects, mappings and pages alike. */
function amounts({ caches, mappings, bytes }: KernelMemory): Map<string, number> {
  const amounts = [
    ...[...caches].map(([name, { inUse }]) => [`${name} objects`, inUse] as const),
    ...[...mappings].map(([caller, count]) => [`mappings of ${caller}`, count] as const),
    ...[...bytes].map(([name, count]) => [`pages of ${name}`, count / PAGE_BYTES] as const),
  ];
  return new Map(amounts.filter(([name]) => !ignored.includes(name)));
}

/** What there is more of after each run than before it, run by run. */
function growths(counts: readonly KernelMemory[]): Map<string, number[]> {
  const all = counts.map(amounts);
  const names = new Set(all.flatMap((counted) => [...counted.keys()]));
  return new Map([...names].map((name) => {
    const values = all.map((counted) => counted.get(name) ?? 0);
    return [name, values.slice(1).map((value, i) => value - values[i]!)];
  }));
}

/** What grew for each device: in the middle one of the runs, or in all of them, whichever is less. */
function perDevice(values: readonly number[], perRun: number): number {
  const middle = values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Math.min(middle, mean) / perRun;
}

interface Growth {
  readonly what: string;
  /** Of each run. */
  readonly values: readonly number[];
  readonly each: number;
}

/** Makes devices in equal runs. Returns what grew, the most first. */
async function measure(kind: Kind["name"], perRun: number): Promise<Growth[]> {
  const counts = [await countKernelMemory()];
  const started = performance.now();
  for (let run = 0; run < runs; run++) {
    await makeDevices(kind, perRun);
    counts.push(await countKernelMemory());
  }
  const seconds = (performance.now() - started) / 1000;
  const grown = [...growths(counts)].map(([what, values]) => ({ what, values, each: perDevice(values, perRun) }))
    .sort((a, b) => b.each - a.each);
  console.log(`${seconds.toFixed(1)} s; what grew most, in each run of ${perRun}:`);
  for (const { what, values } of grown.slice(0, 5)) console.log(`  ${what}: ${values.join(", ")}`);
  return grown;
}

for (const { name: kind, devices, leakShare } of kinds) {
  const perRun = Math.ceil(scaled(devices) / runs);
  Deno.test(`${runs * perRun} devices that were ${kind} leave nothing in the kernel`, async () => {
    await makeDevices(kind, 100); // What is made once is made now.
    let grown = await measure(kind, perRun);
    let leaks = grown.filter(({ each }) => each > leakShare);
    let rounds = 1;
    for (; leaks.length > 0 && rounds < roundsMax; rounds++) {
      const suspects = new Set(leaks.map(({ what }) => what));
      grown = (await measure(kind, perRun)).filter(({ what }) => suspects.has(what));
      leaks = grown.filter(({ each }) => each > leakShare);
    }
    figure({
      [kind === "live" ? "disks that came and went" : "devices created and destroyed"]: rounds * runs * perRun,
      "leaks": leaks.length,
      "largest growth": [Math.max(0, grown[0]!.each), kind === "live" ? "/disk" : "/device"],
    });
    assertEquals(leaks, []);
    using set = new DiskSet(1);
    const { name } = set.add("last");
    const info = set.control.info(name)!;
    assert(info.minor < 100 && info.disk_minor < 100, `numbers are not used again: ${info.minor}, ${info.disk_minor}`);
    await set.destroyLast(1);
  });
}
