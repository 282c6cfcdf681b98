// SPDX-License-Identifier: MIT
// What the main program makes of its Workers: whose the disk is, which files are closed and when, whether backends are.
// Workers are played here, by the real channel and event loop on a fake kernel; two tests have a real one.
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DBLOCK_OPERATION_READ as READ, DBLOCK_STATE_HELD } from "../../../src/module/abi.ts";
import type { Backend } from "../../../src/disk/backend.ts";
import { Channel } from "../../../src/module/channel.ts";
import type { Device } from "../../../src/module/device.ts";
import { profileOf } from "../../../src/disk/profile.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { EventLoop } from "../../../src/module/eventloop.ts";
import { type QueuePlan, QueueWorker } from "../../../src/module/queue.ts";
import { serve, type ServeOptions } from "../../../src/module/serve.ts";
import type { Failure, FromWorker, ServeMessage, ToWorker } from "../../../src/module/worker.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";

const MIB = 2 ** 20;
const module = new URL("data:text/javascript,// played");
const disk: Backend = { sizeBytes: MIB, read() {}, write() {} };

/** A Worker played in this thread. */
class PlayedWorker {
  static kernel = new FakeKernel();
  static all: PlayedWorker[] = [];
  /** What they say is heard after this. */
  static gate: Promise<void> = Promise.resolve();
  /** What its backend's close() takes. */
  static close: () => Promise<void> = () => Promise.resolve();
  onmessage: (event: { data: FromWorker }) => void = () => {};
  onerror: (event: { message: string; preventDefault(): void }) => void = () => {};
  fd = -1;
  readonly seen: string[] = [];

  constructor() {
    PlayedWorker.all.push(this);
  }

  async say(data: FromWorker): Promise<void> {
    await PlayedWorker.gate;
    this.onmessage({ data });
  }

  terminate(): void {
    if (this.seen.at(-1) !== "terminated") this.seen.push("terminated");
  }

  async postMessage(message: ToWorker): Promise<void> {
    this.seen.push(message.kind);
    await null;
    if (message.kind === "load") return await this.say({ kind: "loaded", profile: profileOf(disk) });
    const failure = message.kind === "serve" ? await this.#serve(message) : undefined;
    await this.say({ kind: "left", failure });
    await PlayedWorker.close();
    this.seen.push("closed");
    await this.say({ kind: "ended" });
  }

  async #serve({ name, queue, depth, fd, geometry, takeOver = false }: ServeMessage): Promise<Failure | undefined> {
    const { kernel } = PlayedWorker;
    this.fd = fd;
    try {
      using channel = new Channel({ name, queue, depth, slotBytes: geometry.maxIoBytes, fd, kernel });
      channel.setNonblocking();
      await channel.attachAsync({ takeOver });
      await this.say({ kind: "attached", ioFlusher: true });
      await new EventLoop(channel, disk, geometry, () => {}).run({ mayBlock: false });
      return undefined;
    } catch (error) {
      return error instanceof DblockError ? error : { errno: ERRNO.EBADF, message: String(error) };
    }
  }
}

/** Serves a module with Workers that are played. */
function play(options: Partial<ServeOptions> = {}) {
  const kernel = new FakeKernel();
  const real = globalThis.Worker;
  PlayedWorker.kernel = kernel;
  PlayedWorker.all = [];
  PlayedWorker.gate = Promise.resolve();
  PlayedWorker.close = () => Promise.resolve();
  Object.assign(globalThis, { Worker: PlayedWorker });
  return {
    kernel,
    serve: (): Promise<Device> => serve({ module }, { name: "a", kernel, queues: 2, log: () => {}, ...options }),
    /** Another program's server. */
    other: (existing: NonNullable<ServeOptions["existing"]>): Promise<Device> => {
      kernel.pid = 1;
      return serve(disk, { name: "a", kernel, log: () => {}, existing });
    },
    [Symbol.dispose]: () => void Object.assign(globalThis, { Worker: real }),
  };
}

const seen = () => PlayedWorker.all.map((worker) => worker.seen.join());
const answers = (kernel: FakeKernel) =>
  kernel.submit("a", { operation: READ, flags: 0, offsetBytes: 0, lengthBytes: 512, data: new Uint8Array(512) });

Deno.test("Workers serve a module's disk, close its backends when it ends, and are ended after that", async () => {
  using played = play();
  const device = await played.serve();
  assertEquals(await answers(played.kernel), 0);
  await device.close();
  assertEquals(seen(), Array(2).fill("load,serve,closed,terminated"));
  assertEquals([played.kernel.files.size, played.kernel.abandoned], [0, []]);
});

Deno.test("a disk that is taken over stays, while the Workers before close their backends as slowly as they like", async () => {
  using played = play();
  const closing = Promise.withResolvers<void>();
  PlayedWorker.close = () => closing.promise;
  const before = await played.serve();
  await using after = await played.other("take-over");
  await new Promise((resolve) => setTimeout(resolve, 20));
  const closed = before.close(); // it has heard of it, and waits
  setTimeout(() => closing.resolve(), 50);
  await closed;
  assertEquals(await before.closed, { reason: "replaced" });
  assertEquals([await answers(played.kernel), (await after.info()).name], [0, "a"]);
});

Deno.test("close() leaves a disk alone that has another server, before the Workers have said so", async () => {
  using played = play();
  const before = await played.serve();
  const heard = Promise.withResolvers<void>();
  PlayedWorker.gate = heard.promise;
  await using after = await played.other("take-over");
  const closed = before.close({ force: true });
  setTimeout(() => heard.resolve(), 50);
  await closed;
  assertEquals(await before.closed, { reason: "replaced" });
  assertEquals([await answers(played.kernel), (await after.info()).name], [0, "a"]);
});

Deno.test("a disk that somebody has destroyed and made anew stays when the Workers of the one before fail", async () => {
  using played = play();
  const before = await played.serve();
  PlayedWorker.gate = new Promise(() => {});
  played.kernel.remove("a");
  await using after = await played.other("refuse");
  for (const worker of PlayedWorker.all) worker.onerror({ message: "boom", preventDefault() {} });
  assertEquals((await before.closed).reason, "failed");
  assertEquals([await answers(played.kernel), (await after.info()).name], [0, "a"]);
});

for (const onDeath of ["hold", "remove"] as const) {
  Deno.test(`a Worker that ends by an error lets go of its queue at once, with the policy ${onDeath}`, async () => {
    using played = play({ onDeath });
    const { kernel } = played;
    const device = await played.serve();
    const state = kernel.devices.get("a");
    PlayedWorker.all[1]?.onerror({ message: "boom", preventDefault() {} });
    assertEquals(state?.state === DBLOCK_STATE_HELD, onDeath === "hold");
    const { reason, error } = await device.closed;
    assertEquals(reason, "failed");
    assertMatch(String(error), /boom/);
    assertEquals(kernel.devices.has("a"), onDeath === "hold");
  });
}

Deno.test("the number of a Worker's file stays taken after stop(), whatever the Worker still says", async () => {
  using played = play();
  const { kernel } = played;
  const device = await played.serve(); // so that there is a device
  const plan: QueuePlan = {
    name: "a",
    queue: 0,
    depth: 128,
    geometry: {
      sizeBytes: MIB,
      blockBytes: 512,
      maxIoBytes: 512 * 1024,
      maxDiscardBytes: 0,
      maxWriteZeroesBytes: MIB,
      readOnly: false,
      timeoutMs: 0,
    },
  };
  const worker = new QueueWorker(() => {}, kernel);
  worker.serve(plan);
  const player = PlayedWorker.all.at(-1);
  await assertRejects(() => worker.left, DblockError, "it has a server already");
  const again = new QueueWorker(() => {}, kernel);
  again.serve({ ...plan, takeOver: true });
  again.stop();
  const late = PlayedWorker.all.at(-1);
  assertEquals(kernel.abandoned.length, 1);
  const filesBefore = kernel.files.size;
  await late?.say({ kind: "left", failure: undefined }); // would throw if it closed the number again
  late?.onerror({ message: "boom", preventDefault() {} });
  assertEquals([kernel.files.size, player?.seen.includes("closed")], [filesBefore, true]);
  await device.close();
});

Deno.test("a wrong option is found before a module is loaded for it", async () => {
  for (const wrong of [{ depth: 1025 }, { queues: 0 }, { blockBytes: 513 }, { onDeath: "Hold" as "hold" }]) {
    using played = play(wrong);
    await assertRejects(played.serve, DblockError, `not ${Object.values(wrong)[0]}`);
    assertEquals(seen(), []);
  }
});

Deno.test("a module that was loaded for nothing is closed", async () => {
  using played = play({ optimalIoBytes: 512 });
  await assertRejects(played.serve, DblockError, "optimalIoBytes is 0 to 16777216, a multiple of 4096, not 512");
  assertEquals(seen(), Array(2).fill("load,close,closed,terminated"));
});

Deno.test("a module that cannot be closed is waited for a few seconds", async () => {
  using played = play({ optimalIoBytes: 512 });
  PlayedWorker.close = () => new Promise(() => {});
  const began = performance.now();
  await assertRejects(played.serve, DblockError, "optimalIoBytes is 0 to 16777216, a multiple of 4096, not 512");
  assert(performance.now() - began < 8_000);
  assertEquals(seen(), Array(2).fill("load,close,terminated"));
});

/** A backend whose close() counts, and rejects. */
function counting(): { module: URL; data: Int32Array } {
  const data = new Int32Array(new SharedArrayBuffer(4));
  const code = `export default (data) => ({
    sizeBytes: ${MIB}, read() {}, write() {},
    close: () => { Atomics.add(data, 0, 1); return Promise.reject(new Error("cannot close")); },
  })`;
  return { module: new URL(`data:text/javascript,${encodeURIComponent(code)}`), data };
}

Deno.test("a real Worker closes a module that was loaded for nothing, and says what is wrong with that", async () => {
  const backend = counting();
  const logged: string[] = [];
  const log = (message: string) => void logged.push(message);
  const kernel = new FakeKernel();
  await assertRejects(
    () => serve(backend, { name: "a", kernel, log, queues: 2, optimalIoBytes: 512 }),
    DblockError,
    "optimalIoBytes is",
  );
  assertEquals([backend.data[0], logged], [2, Array(2).fill("close() of the backend threw Error: cannot close")]);
});

Deno.test("a real Worker says why it serves no more before it closes its backend", async () => {
  const backend = counting();
  const kernel = new FakeKernel();
  const device = await serve(disk, { name: "a", kernel });
  const worker = new QueueWorker(() => {}, kernel);
  await worker.load(backend);
  const geometry = {
    sizeBytes: MIB,
    blockBytes: 512,
    maxIoBytes: 4096,
    maxDiscardBytes: 0,
    maxWriteZeroesBytes: MIB,
    readOnly: false,
    timeoutMs: 0,
  };
  // The fake kernel's files are none to the real one, where the Worker asks.
  worker.serve({ name: "a", queue: 0, depth: 1, geometry }).catch(() => {});
  const error = await assertRejects(() => worker.left, DblockError, "Cannot serve queue 0 of /dev/a");
  assertEquals(error.code, "ENOTTY");
  await worker.ended;
  assertEquals(backend.data[0], 1);
  await worker.close();
  await device.close();
  assertEquals(kernel.files.size, 0);
});
