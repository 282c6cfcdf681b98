// A server that leaves its disk, fails, or is replaced while it ends: the disk is the next server's, and nobody who uses it
// notices. Hard cases I9, I10.
// time limit: 240 s
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type Backend,
  type BackendModule,
  DblockError,
  destroy,
  type Device,
  FileBackend,
  info,
  serve,
  type ServeOptions,
} from "../../src/mod.ts";
import { assertWithin, exists, scaled, sh, waitFor } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { infoOf, MIB } from "./server.ts";

const sizeBytes = 4 * MIB;
/** A leave that has taken longer may have given up what was in hand, which the next server does again. */
const handOverMs = 600;

/** A backend over memory that all servers of a test share, which answers a little later. */
function later(data: SharedArrayBuffer): Backend {
  const store = new Uint8Array(data);
  const soon = () => new Promise<void>((resolve) => setTimeout(resolve, 1));
  return {
    sizeBytes: store.length,
    read: async (buffer, at) => {
      await soon();
      buffer.set(store.subarray(at, at + buffer.length));
    },
    write: async (buffer, at) => {
      await soon();
      store.set(buffer, at);
    },
  };
}

/** The same in a module. */
function inModule(data: SharedArrayBuffer, options: Partial<BackendModule> = {}): BackendModule {
  const code = `export default ${later.toString().replace(": SharedArrayBuffer", "")}`;
  return { module: `data:text/javascript,${encodeURIComponent(code)}`, data, ...options };
}

const data = new SharedArrayBuffer(sizeBytes);
const path = "/dev/shm/leave-store";
const kinds: [kind: string, make: () => Promise<Backend | BackendModule>, options: Partial<ServeOptions>][] = [
  ["an object", () => Promise.resolve(later(data)), {}],
  ["a module", () => Promise.resolve(inModule(data)), { queues: 2 }],
  ["a module with an event loop", () => Promise.resolve(inModule(data, { eventLoop: true })), { queues: 2 }],
  ["a file", () => FileBackend.open({ path, sizeBytes }), { queues: 2 }],
];

for (const [i, [kind, make, options]] of kinds.entries()) {
  const name = `leave${i}`;
  Deno.test(`a disk of ${kind} is left and recovered again and again by one program, and a writer does not notice`, async () => {
    const start = async () =>
      await serve(await make(), { name, onDeath: "hold", existing: "recover", log: () => {}, ...options });
    let device = await start();
    const answered = () => infoOf(name)!.requests.reduce((sum, count) => sum + count, 0);
    let longestMs = 0;
    // A pattern again and again, each time read back: what is lost in between shows.
    const writer = sh(
      `head -c ${sizeBytes} /dev/urandom > /dev/shm/${name}.pattern
       until [ -e /dev/shm/${name}.end ]; do
         dd if=/dev/shm/${name}.pattern of=/dev/${name} bs=16k oflag=direct status=none || exit 1
         dd if=/dev/${name} bs=64k iflag=direct status=none | cmp - /dev/shm/${name}.pattern || exit 2
         dd if=/dev/zero of=/dev/${name} bs=64k count=32 oflag=direct status=none || exit 3
       done`,
      { timeoutMs: 120_000 },
    );
    for (let round = 0; round < scaled(4); round++) {
      const before = answered();
      await waitFor("the writer goes on", () => answered() > before + 5);
      const began = performance.now();
      await device.leave();
      longestMs = Math.max(longestMs, performance.now() - began);
      assertWithin(1_000, performance.now() - began, "left");
      assertEquals(await device.closed, { reason: "left" });
      assertEquals((await info(name)).state, "held");
      await waitFor("requests gather", () => infoOf(name)!.waiting_count > 0);
      device = await start();
      assertEquals(device.origin, "recovered");
    }
    await Deno.writeTextFile(`/dev/shm/${name}.end`, "");
    await writer;
    const { counts } = await device.info();
    assertEquals([counts.errors, counts.timeouts], [0, 0]);
    assertEquals(counts.deaths + counts.leaves, scaled(4));
    console.log(`${counts.replayed} replayed; the longest leave took ${Math.round(longestMs)} ms`);
    if (longestMs < handOverMs) assertEquals([counts.replayed, counts.deaths], [0, 0]);
    await device.close({ waitMs: 20_000 });
    await sh(`rm /dev/shm/${name}.*; rm -f ${path}`);
  });
}

/** How many descriptors of this process lead to the module's control node: one for each call that waits. */
function openControls(): number {
  return [...Deno.readDirSync("/proc/self/fd")].filter(({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${name}`) === abi.DBLOCK_CONTROL_PATH;
    } catch {
      return false; // the one that listed the folder
    }
  }).length;
}

Deno.test("a server that says that it leaves is no death, whichever of its queues is closed first, unless it attaches again", async () => {
  const name = "leave11";
  const LEAVES = abi.DBLOCK_COMMIT_LEAVES;
  const options = { name, on_death: abi.DBLOCK_ON_DEATH_HOLD, queue_count: 2, existing: true };
  const counted = () => [infoOf(name)!.leave_count, infoOf(name)!.death_count];
  const first = await TestDisk.start({ ...options, existing: false });
  await first.pause();
  assertEquals(first.queues[1]!.commit([], { flags: LEAVES }).errno, 0);
  assertEquals([infoOf(name)!.state, ...counted()], [abi.DBLOCK_STATE_LIVE, 0, 0]);
  await first.abandon();
  await first.untilState(abi.DBLOCK_STATE_HELD);
  assertEquals(counted(), [1, 0]);
  const second = await TestDisk.start(options);
  await second.abandon();
  await second.untilState(abi.DBLOCK_STATE_HELD);
  assertEquals(counted(), [1, 1]);
  await using third = await TestDisk.start(options);
  await third.pause();
  assertEquals(third.queues[0]!.commit([], { flags: LEAVES }).errno, 0);
  for (const queue of third.queues) assertEquals(queue.attach(), 0);
  await third.abandon();
  await third.untilState(abi.DBLOCK_STATE_HELD);
  assertEquals(counted(), [1, 2]);
});

Deno.test("a disk whose policy removes it cannot be left, and goes on", async () => {
  await using device = await serve(later(new SharedArrayBuffer(sizeBytes)), { name: "leave8" });
  const error = await assertRejects(() => device.leave(), DblockError);
  assertEquals(error.code, "EOPNOTSUPP");
  await sh(`dd if=${device.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
});

Deno.test("a server that waits for a busy disk to be closed does not destroy it once another process has taken it over", async () => {
  const store = "/dev/shm/leave-upgrade";
  const name = "leave9";
  const backend = await FileBackend.open({ path: store, sizeBytes });
  const before = await serve(backend, { name, onDeath: "hold", log: () => {} });
  const user = await Deno.open(before.path);
  const controls = openControls();
  const closing = before.close({ waitMs: 60_000 });
  await waitFor("it asks for the end of the disk again and again", () => openControls() > controls);
  await using next = await Ramdisk.start({ name, args: ["--store", store, "--take-over"] });
  assert(next.stdout.includes("is taken over"), next.stdout);
  user.close();
  await closing;
  assertEquals(await before.closed, { reason: "replaced" });
  await new Promise((resolve) => setTimeout(resolve, 300));
  const { state, server } = await info(name);
  assertEquals([state, server?.pid, exists(`/dev/${name}`)], ["live", next.pid, true]);
  await sh(`dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  await destroy(name, { waitMs: 20_000 });
});

Deno.test("Workers that die of an error leave no thread and no descriptor, and the disk waits for the next server", async () => {
  const name = "leave10";
  const code = `export default () => ({
    sizeBytes: ${sizeBytes}, read: () => Promise.resolve(),
    write: () => { setTimeout(() => { throw new Error("boom"); }, 1); return Promise.resolve(); },
  })`;
  const module = `data:text/javascript,${encodeURIComponent(code)}`;
  const count = (what: string) => [...Deno.readDirSync(`/proc/self/${what}`)].length;
  const dies = async () => {
    const device: Device = await serve({ module }, {
      name,
      queues: 2,
      onDeath: "hold",
      existing: "recover",
      log: () => {},
    });
    await sh(`dd if=/dev/zero of=/dev/${name} bs=4k count=1 oflag=direct status=none`, {
      check: false,
      timeoutMs: 5_000,
    })
      .catch(() => {}); // the next server may get it
    assertEquals((await device.closed).reason, "failed");
    assertEquals((await info(name)).state, "held");
  };
  await dies(); // what Deno opens once
  await dies();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const before = { threads: count("task"), descriptors: count("fd") };
  for (let i = 0; i < 4; i++) await dies();
  await waitFor(
    "threads and descriptors are back",
    () => count("task") <= before.threads + 2 && count("fd") <= before.descriptors,
    30_000,
  );
  await destroy(name, { force: true });
});
