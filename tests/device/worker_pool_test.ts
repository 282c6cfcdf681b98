// Workers that many disks share (WorkerPool): modules that answer at once, whose thread waits in the kernel and yet hears of
// further disks; modules that answer later; memory; one that ends, one whose Worker dies, one that is recovered, one taken over.
import { assert, assertEquals, assertMatch } from "@std/assert";
import { type Device, MemoryBackend, serve, type ServeOptions, WorkerPool } from "../../src/mod.ts";
import { dblock } from "./serving.ts";
import { exists, scaled, sh, waitFor } from "./harness.ts";

const SIZE_BYTES = 4 * 2 ** 20;
const COUNT = 24;

/** Its top is shared by the disks of a Worker: how many backends were made, and how often a timer has ticked. */
const SOURCE = `
let made = 0;
let ticks = 0;
setInterval(() => ticks++, 10);
export default ({ isLate }) => {
  made++;
  const store = new Uint8Array(${SIZE_BYTES});
  const text = new TextEncoder();
  const read = (buffer, at) => {
    buffer.set(store.subarray(at, at + buffer.length));
    if (at === ${SIZE_BYTES} - 4096) text.encodeInto(JSON.stringify({ made, ticks }) + "\\n", buffer);
  };
  const write = (buffer, at) => {
    if (at === ${SIZE_BYTES} - 4096) setTimeout(() => { throw new Error("told to die"); }, 0);
    store.set(buffer, at);
    // A thread in the kernel has no timers.
    if (at === ${SIZE_BYTES} - 4096) return Promise.resolve();
  };
  if (!isLate) return { sizeBytes: store.length, read, write };
  const later = () => new Promise((resolve) => setTimeout(resolve, 1));
  return {
    sizeBytes: store.length,
    read: async (buffer, at) => { await later(); read(buffer, at); },
    write: async (buffer, at) => { await later(); write(buffer, at); },
  };
};`;

const module = (isLate = false) => ({ module: `data:text/javascript,${encodeURIComponent(SOURCE)}`, data: { isLate } });

/** What the module's top says. */
async function told(name: string): Promise<{ readonly made: number; readonly ticks: number }> {
  const at = SIZE_BYTES / 4096 - 1;
  const { stdout } = await sh(`dd if=/dev/${name} bs=4k skip=${at} count=1 iflag=direct status=none | head -1`);
  return JSON.parse(stdout);
}

/** How many Workers this process has. */
function workerCount(): number {
  const threads = [...Deno.readDirSync("/proc/self/task")].map(({ name }) => {
    try {
      return Deno.readTextFileSync(`/proc/self/task/${name}/comm`);
    } catch {
      return ""; // it has just ended
    }
  });
  return threads.filter((thread) => thread.startsWith("worker-")).length;
}

/** Writes to all at once, by fio, and reads what it has written. */
async function verify(names: readonly string[]): Promise<void> {
  const jobs = names.map((name) => `--name=${name} --filename=/dev/${name}`).join(" ");
  await sh(
    `fio --direct=1 --ioengine=libaio --iodepth=4 --rw=randrw --bs=4k --size=${SIZE_BYTES - 4096} --io_size=1M ` +
      `--verify=crc32c --verify_backlog=64 --verify_fatal=1 ${jobs}`,
    { timeoutMs: 120_000 },
  );
}

async function read(name: string): Promise<void> {
  await sh(`dd if=/dev/${name} of=/dev/null bs=4k count=4 iflag=direct status=none`);
}

const numbered = (count: number, prefix: string) => Array.from({ length: count }, (_, i) => `${prefix}${i}`);

Deno.test(`${COUNT} modules and memory in a pool of two Workers, which wait in the kernel and hear of each`, async () => {
  const before = workerCount();
  using workers = new WorkerPool({ size: 2 });
  const devices = new Map<string, Device>();
  for (const name of numbered(COUNT, "pool")) devices.set(name, await serve(module(), { name, queues: 1, workers }));
  const memory = await serve(new MemoryBackend({ sizeBytes: SIZE_BYTES }), { name: "pool-mem", queues: 2, workers });
  assertEquals(workerCount() - before, 2);
  await verify([...devices.keys(), memory.name]);
  const first = await told("pool0");
  await new Promise((resolve) => setTimeout(resolve, 200));
  // Its module's timers have run while it was told of disks, and do not while it waits for requests.
  assertEquals(await told("pool0"), { made: COUNT / 2, ticks: first.ticks });

  // Somebody else ends one, this program another; both Workers sleep in the kernel, and go on with the others.
  assertEquals((await dblock("destroy pool3")).status, 0);
  assertEquals(await devices.get("pool3")!.closed, { reason: "destroyed" });
  await devices.get("pool4")!.close();
  devices.delete("pool3");
  devices.delete("pool4");
  await verify([...devices.keys()]);

  // From the first promise on its Worker is an event loop, whose timers run; its other disks do not notice.
  const late = await serve(module(true), { name: "pool-late", queues: 1, workers });
  await read("pool-late");
  const { ticks } = await told("pool-late");
  await waitFor("its timers tick", async () => (await told("pool-late")).ticks > ticks);
  await verify([...devices.keys(), memory.name, "pool-late"]);

  await Promise.all([...devices.values(), late, memory].map((device) => device.close()));
  assertEquals(numbered(COUNT, "pool").filter((name) => exists(`/dev/${name}`)), []);
  workers[Symbol.dispose]();
  await waitFor("the Workers have ended", () => workerCount() === before);
});

Deno.test("a Worker that dies takes its disks along; they are recovered in the pool, and those of the other one go on", async () => {
  using workers = new WorkerPool({ size: 2 });
  const names = numbered(6, "die");
  const options = (name: string): ServeOptions => ({
    name,
    queues: 1,
    workers,
    onDeath: "hold",
    existing: "recover",
    log: () => {},
  });
  const devices: Device[] = [];
  for (const name of names) devices.push(await serve(module(), options(name)));
  const at = SIZE_BYTES / 4096 - 1;
  await sh(`dd if=/dev/zero of=/dev/die1 bs=4k seek=${at} count=1 oflag=direct status=none`, { check: false });
  const dead = await Promise.all([1, 3, 5].map((i) => devices[i]!.closed));
  for (const ending of dead) assertMatch(`${ending.reason} ${ending.error}`, /^failed .*told to die/);
  await verify(["die0", "die2", "die4"]);
  for (const i of [1, 3, 5]) {
    const back = devices[i] = await serve(module(), options(names[i]!));
    assertEquals(back.origin, "recovered");
  }
  await verify(names);
  await Promise.all(devices.map((device) => device.close()));
});

Deno.test("a disk changes pools while it is used", async () => {
  using first = new WorkerPool({ size: 1 });
  using second = new WorkerPool({ size: 1 });
  const store = new MemoryBackend({ sizeBytes: SIZE_BYTES });
  const data = { module: new URL("../bench/memory_module.ts", import.meta.url), data: { mapping: store.mapping } };
  const options = { name: "swap", queues: 1, existing: "take-over", onDeath: "hold" } as const;
  await using other = await serve(module(true), { name: "beside", queues: 1, workers: first });
  let device = await serve(data, { ...options, workers: first });
  const load = verify(["swap"]);
  let isOver = false;
  const ended = load.finally(() => isOver = true);
  let changes = 0;
  for (; !isOver || changes < scaled(10); changes++) {
    const before = device;
    device = await serve(data, { ...options, workers: changes % 2 === 0 ? second : first });
    assertEquals((await before.closed).reason, "replaced");
  }
  await ended;
  await verify(["swap", other.name]);
  assert(changes >= scaled(10));
  await device.close();
  store.close();
});
