// time limit: 180 s
// Thousands of devices, and hundreds of disks that were there, leave nothing in the kernel: no object in any slab, no page,
// no mapping, no number. With --scale 25 it is ten thousand disks.
import { assert, assertEquals } from "@std/assert";
import { DiskSet } from "./disk_set.ts";
import { figure, scaled, sh } from "./harness.ts";
import { countKernelMemory, type KernelMemory } from "./kernel_memory.ts";

/** A leak is an object or a page of each device; what is less than a tenth of that is noise. */
const noiseShare = 0.1;
/** Beneath this, pages come and go by themselves: lists of each CPU, and the like. */
const noiseBytes = 4 * 2 ** 20;
const noiseObjects = 200;
/** Mappings that are freed stay in this one until there are many; which mappings there are is counted by itself. */
const lazyCache = "vmap_area";
const noiseMappings = 10;
/** Pages also come and go with what else this machine does. What leaks, leaks every time. */
const attempts = 3;

async function makeDevices(kind: "live" | "created", count: number): Promise<void> {
  const script = `tests/device/leak_main.ts ${kind} ${count}`;
  await sh(`exec deno run -A --no-check --import-map=src/build/standins/import_map.json ${script}`, {
    timeoutMs: scaled(90_000),
  });
}

/** What grew by more than noise, and by how much. */
function growth(before: KernelMemory, after: KernelMemory, count: number): Map<string, string> {
  const grown = new Map<string, string>();
  for (const [name, { inUse, perSlab }] of after.caches) {
    const more = inUse - (before.caches.get(name)?.inUse ?? 0);
    const limit = Math.max(noiseObjects, 2 * perSlab * navigator.hardwareConcurrency, count * noiseShare);
    if (more > limit && name !== lazyCache) grown.set(name, `${more} objects more`);
  }
  for (const [name, bytes] of after.bytes) {
    const more = bytes - before.bytes.get(name)!;
    if (more > Math.max(noiseBytes, count * 4096 * noiseShare)) grown.set(name, `${more} bytes more`);
  }
  for (const [caller, mappings] of after.mappings) {
    const more = mappings - (before.mappings.get(caller) ?? 0);
    if (more > noiseMappings) grown.set(caller, `${more} mappings more`);
  }
  return grown;
}

/** The largest growth of any slab cache, for the record. */
function largest(before: KernelMemory, after: KernelMemory): string {
  return [...after.caches].map(([name, { inUse }]) => [name, inUse - (before.caches.get(name)?.inUse ?? 0)] as const)
    .sort((a, b) => b[1] - a[1]).slice(0, 3).map(([name, more]) => `${name} ${more}`).join(", ");
}

for (const [kind, devices] of [["created", 4_000], ["live", 400]] as const) {
  const count = scaled(devices);
  Deno.test(`devices that were ${kind} leave nothing in the kernel (${devices} or more)`, async () => {
    await makeDevices(kind, 100); // What is made once is made now.
    let leaks: Map<string, string> | undefined;
    let made = 0;
    for (let attempt = 1; attempt <= attempts && leaks?.size !== 0; attempt++) {
      const before = await countKernelMemory();
      const started = performance.now();
      await makeDevices(kind, count);
      made += count;
      const seconds = (performance.now() - started) / 1000;
      const after = await countKernelMemory();
      const bytes = [...after.bytes].map(([name, value]) => `${name} ${(value - before.bytes.get(name)!) / 1024} KiB`);
      console.log(
        `${(seconds * 1000 / count).toFixed(1)} ms each; grew: ${largest(before, after)}; ${bytes.join(", ")}`,
      );
      const grown = growth(before, after, count);
      leaks = leaks === undefined ? grown : new Map([...leaks].filter(([what]) => grown.has(what)));
    }
    figure({
      [kind === "live" ? "disks that came and went" : "devices created and destroyed"]: made,
      "leaks": leaks!.size,
    });
    assertEquals([...leaks!], []);
    using set = new DiskSet(1);
    const { name } = set.add("last");
    const info = set.control.info(name)!;
    assert(info.minor < 100 && info.disk_minor < 100, `numbers are not used again: ${info.minor}, ${info.disk_minor}`);
    await set.destroyLast(1);
  });
}
