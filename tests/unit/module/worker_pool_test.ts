// SPDX-License-Identifier: MIT
// Workers that many disks share, as the main program sees them, with the queues that they have, on a fake kernel: here all of
// it is in one thread. How they wait in the kernel is in tests/unit/system/waiting_test.ts, and Workers that are threads in
// tests/device/worker_pool_test.ts.
import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { FileBackend } from "../../../src/backends/file.ts";
import { MemoryBackend } from "../../../src/backends/memory.ts";
import type { CloseReason } from "../../../src/disk/backend.ts";
import type { Servable } from "../../../src/disk/servable.ts";
import { ERRNO } from "../../../src/disk/errors.ts";
import { DBLOCK_IOC_CREATE, DBLOCK_OPERATION_READ as READ } from "../../../src/module/abi.ts";
import type { Device } from "../../../src/module/device.ts";
import { type FromPoolWorker, PoolQueues, type ToPoolWorker } from "../../../src/module/pool_queues.ts";
import type { BeginMessage } from "../../../src/module/pool_worker.ts";
import { serveOn, type ServeOptions } from "../../../src/module/serve.ts";
import { WorkerPool } from "../../../src/module/worker_pool.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";

const MIB = 2 ** 20;
/** Not what was heard: the queues' thread is the test's own, which must not wait in the kernel. */
const NEVER_ALL = new Int32Array(new SharedArrayBuffer(4)).fill(-1);

/** A Worker of a pool, played in this thread. */
class Played {
  static kernel = new FakeKernel();
  static all: Played[] = [];
  onmessage: (event: { data: FromPoolWorker }) => void = () => {};
  onerror: (event: { message: string; preventDefault(): void }) => void = () => {};
  begun: BeginMessage | undefined;
  readonly names: string[] = [];
  isTerminated = false;
  isDead = false;
  #heardCount = 0;
  #queues: PoolQueues | undefined;

  constructor(readonly url: URL) {
    Played.all.push(this);
  }

  die(): void {
    this.isDead = true;
    this.onerror({ message: "boom", preventDefault() {} });
  }

  terminate(): void {
    this.isTerminated = this.isDead = true;
  }

  postMessage(message: BeginMessage | ToPoolWorker): void {
    if (!this.url.href.endsWith("/pool_worker.ts")) return this.onerror({ message: "not played", preventDefault() {} });
    if ("kind" in message) {
      this.begun = message;
      const files = Played.kernel.fileSetOf(message.pollFiles);
      const say = (data: FromPoolWorker) => void setTimeout(() => this.isDead || this.onmessage({ data }), 0);
      this.#queues = new PoolQueues(Played.kernel, files, NEVER_ALL, say);
      return;
    }
    structuredClone(message); // as the real one does, which refuses functions
    if (message.message.kind === "serve") this.names.push(message.message.name);
    assertEquals(Atomics.load(this.begun!.sent, 0), ++this.#heardCount, "it is told before it may wait again");
    setTimeout(() => this.isDead || void this.#queues!.hear(message), 0);
  }
}

function play() {
  const real = globalThis.Worker;
  const kernel = Played.kernel = new FakeKernel();
  Played.all = [];
  Object.assign(globalThis, { Worker: Played });
  const workers = new WorkerPool({ size: 2 });
  const serve = (name: string, backend: Servable, options: Partial<ServeOptions> = {}) =>
    serveOn(kernel, backend, { name, queues: 1, log: () => {}, workers, ...options });
  return {
    kernel,
    workers,
    serve,
    memory: (name: string) => serve(name, new MemoryBackend({ sizeBytes: MIB })),
    read: (name: string, data = new Uint8Array(512)) =>
      kernel.submit(name, { operation: READ, flags: 0, offsetBytes: 0, lengthBytes: 512, data }),
    isClean: () => assertEquals([kernel.files.size, kernel.abandoned.size], [0, 0]),
    [Symbol.dispose]: () => {
      workers[Symbol.dispose]();
      Object.assign(globalThis, { Worker: real });
      assertEquals(kernel.epolls.size, 0);
    },
  };
}

/** What the module of a test does. */
interface Plan {
  readonly fill: number;
  readonly isLate?: boolean;
  readonly loadMs?: number;
  readonly throws?: string;
}

/** What became of the backends of {@linkcode module}. */
const closed: [fill: number, reason: CloseReason][] = [];
Object.assign(globalThis, { poolTestClosed: closed });

const SOURCE = `export default async ({ fill, isLate, throws, loadMs }) => {
  if (loadMs) await new Promise((done) => setTimeout(done, loadMs));
  if (throws) throw new Error(throws);
  const read = (buffer) => void buffer.fill(fill);
  return {
    sizeBytes: ${MIB},
    read: isLate ? async (buffer) => { await new Promise((done) => setTimeout(done, 1)); read(buffer); } : read,
    write() {},
    close: (reason) => void globalThis.poolTestClosed.push([fill, reason]),
  };
};`;

const module = (data: Plan): Servable => ({ module: `data:text/javascript,${encodeURIComponent(SOURCE)}`, data });

Deno.test("five disks in memory have two Workers, and one that ends leaves the others", async () => {
  using played = play();
  const names = ["a", "b", "c", "d", "e"];
  const devices = await Promise.all(names.map(played.memory));
  assertEquals(Played.all.map(({ names }) => names), [["a", "c", "e"], ["b", "d"]]);
  assertMatch(Played.all[0]!.url.href, /pool_worker\.ts$/);
  assertEquals(await Promise.all(names.map((name) => played.read(name))), [0, 0, 0, 0, 0]);
  await devices[0]!.close();
  assertEquals(await devices[0]!.closed, { reason: "closed" });
  assertEquals(await Promise.all(names.slice(1).map((name) => played.read(name))), [0, 0, 0, 0]);
  assertEquals(Played.all.map(({ isTerminated }) => isTerminated), [false, false]);
  for (const device of devices.slice(1)) await device.close();
  played.isClean();
  played.workers[Symbol.dispose]();
  assertEquals(Played.all.map(({ isTerminated }) => isTerminated), [true, true]);
});

Deno.test("modules share Workers: each disk has its own backend, which is closed with it", async () => {
  using played = play();
  closed.length = 0;
  const devices: Device[] = [];
  for (let fill = 1; fill <= 5; fill++) {
    devices.push(await played.serve(`m${fill}`, module({ fill, isLate: fill % 2 === 0 }), { queues: 2 }));
  }
  devices.push(await played.memory("m6"));
  assertEquals(Played.all.map(({ names }) => names.length), [6, 5]);
  for (let round = 0; round < 3; round++) {
    await Promise.all(devices.map(async (_, i) => {
      const data = new Uint8Array(512);
      assertEquals(await played.read(`m${i + 1}`, data), 0);
      assertEquals(data, new Uint8Array(512).fill(i === 5 ? 0 : i + 1));
    }));
  }
  await devices[2]!.close();
  assertEquals(closed, [[3, "destroyed"], [3, "destroyed"]]);
  assertEquals([await played.read("m2"), await played.read("m6")], [0, 0]);
  await Promise.all(devices.map((device) => device.close()));
  assertEquals(closed.length, 10);
  played.isClean();
});

Deno.test("a module that cannot be loaded leaves its Worker to the others", async () => {
  using played = play();
  const a = await played.serve("a", module({ fill: 1 }));
  for (const name of ["b", "c"]) {
    await assertRejects(() => played.serve(name, module({ fill: 2, throws: "no mood" })), Error, "no mood");
  }
  assertEquals(await played.read("a"), 0);
  await a.close();
  played.isClean();
});

Deno.test("a disk in a pool is taken over by one in another, and goes back", async () => {
  using played = play();
  using other = new WorkerPool({ size: 1 });
  closed.length = 0;
  const options = { existing: "take-over", onDeath: "hold" } as const;
  const first = await played.serve("a", module({ fill: 1, isLate: true }), options);
  await played.memory("b");
  const heir = await played.serve("a", module({ fill: 2 }), { ...options, workers: other });
  assertEquals(await first.closed, { reason: "replaced" });
  const back = await played.serve("a", module({ fill: 3 }), options);
  assertEquals(await heir.closed, { reason: "replaced" });
  const data = new Uint8Array(512);
  assertEquals([await played.read("a", data), data[0], await played.read("b")], [0, 3, 0]);
  await back.leave();
  assertEquals(closed, [[1, "left"], [2, "left"], [3, "left"]]);
});

Deno.test("a Worker of a pool that dies takes its own disks with it, and no others", async () => {
  using played = play();
  const [a, b, c] = await Promise.all(["a", "b", "c"].map(played.memory));
  Played.all[0]!.die();
  for (const device of [a!, c!]) {
    const ending = await device.closed;
    assertEquals(ending.reason, "failed");
    assertMatch(String("error" in ending ? ending.error : ""), /boom/);
  }
  assertEquals(await played.read("b"), 0);
  await b!.close();
  await using _d = await played.memory("d");
  await using _e = await played.serve("e", module({ fill: 5 }));
  assertEquals([await played.read("d"), await played.read("e"), Played.all.length], [0, 0, 3]);
});

Deno.test("disks that a pool still serves when it is disposed lose their server", async () => {
  using played = play();
  const devices = [await played.memory("a"), await played.serve("b", module({ fill: 1 }))];
  played.workers[Symbol.dispose]();
  for (const device of devices) assertEquals((await device.closed).reason, "failed");
  // Their threads may still be in the kernel with these numbers.
  assertEquals([played.kernel.files.size, played.kernel.abandoned.size], [0, 2]);
  await assertRejects(() => played.memory("c"), Error, "disposed");
  assertEquals(Played.all.length, 2);
});

Deno.test("a module that is given up while it loads is closed once it is there, and its Worker goes on", async () => {
  using played = play();
  closed.length = 0;
  await using _b = await played.serve("b", module({ fill: 1 }));
  const slow = played.serve("a", module({ fill: 7, loadMs: 50 }), { startTimeoutMs: 10 });
  await assertRejects(() => slow, Error, "not there after");
  while (closed.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(closed, [[7, "unused"]]);
  assertEquals(await played.read("b"), 0);
});

Deno.test("data that cannot be cloned is refused, and its Worker has nothing to wait for", async () => {
  using played = play();
  const bad = { module: "data:text/javascript,", data: () => {} } as unknown as Servable;
  await assertRejects(() => played.serve("a", bad), DOMException);
  assertEquals(Played.all.map(({ begun }) => begun!.sent[0]), [0]);
  await using _b = await played.serve("b", module({ fill: 1 }));
  assertEquals(await played.read("b"), 0);
});

Deno.test("a Worker that dies while a disk is being created takes nothing with it that is not given back", async () => {
  using played = play();
  const { kernel } = played;
  const ioctl = kernel.ioctl.bind(kernel);
  kernel.ioctl = (fd, request, structure) => {
    const result = ioctl(fd, request, structure);
    if (request === DBLOCK_IOC_CREATE) Played.all.at(-1)!.die();
    return result;
  };
  for (const backend of [new MemoryBackend({ sizeBytes: MIB }), module({ fill: 1 })]) {
    await assertRejects(() => played.serve("a", backend), Error, "boom");
  }
  await new Promise((resolve) => setTimeout(resolve, 10));
  played.isClean();
});

Deno.test("a queue whose file cannot be opened leaves no event open", async () => {
  const kernel = new FakeKernel();
  const backend = { sizeBytes: MIB, read() {}, write() {} };
  kernel.refusedPaths.set("/dev/a-ctl", ERRNO.EMFILE);
  for (let i = 0; i < 2; i++) {
    await assertRejects(() => serveOn(kernel, backend, { name: "a", log: () => {} }), Error);
  }
  assertEquals([...kernel.events.values()].filter((event) => !event.isOver), []);
  assertEquals(kernel.events.size > 0, true);
});

Deno.test("a disk that cannot be created leaves nothing with its Worker", async () => {
  using played = play();
  const device = await played.memory("a");
  await assertRejects(() => played.memory("a"), Error, "in use");
  await assertRejects(() => played.serve("a", module({ fill: 1 })), Error, "in use");
  assertEquals(await played.read("a"), 0);
  await device.close();
  played.isClean();
});

Deno.test("a mapped file has Workers of its own, as it may keep a thread waiting", async () => {
  using played = play();
  const path = Deno.makeTempFileSync();
  const backend = await FileBackend.open({ path, sizeBytes: MIB });
  await assertRejects(() => played.serve("f", backend), Error, "not played");
  assertMatch(Played.all[0]!.url.href, /\/worker\.ts$/);
  Deno.removeSync(path);
});

Deno.test("a pool has 1 to 64 Workers", () => {
  for (const size of [0, -1, 65, 1.5, NaN]) assertThrows(() => new WorkerPool({ size }), RangeError, "1 to 64");
});
