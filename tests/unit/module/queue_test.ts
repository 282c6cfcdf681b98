// SPDX-License-Identifier: MIT
// What the main program makes of its Workers: whose the disk is, which files are closed and when, whether backends are.
// Workers are played here, by the real channel and event loop on a fake kernel; two tests have a real one.
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DBLOCK_OPERATION_READ as READ, DBLOCK_STATE_HELD } from "../../../src/module/abi.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { type QueuePlan, QueueWorker } from "../../../src/module/queue.ts";
import { serveOn } from "../../../src/module/serve.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";
import { disk, play, PlayedWorker } from "../../sim/played_worker.ts";

const MIB = 2 ** 20;

const seen = () => PlayedWorker.all.map((worker) => worker.seen.join());
const answers = (kernel: FakeKernel) =>
  kernel.submit("a", { operation: READ, flags: 0, offsetBytes: 0, lengthBytes: 512, data: new Uint8Array(512) });

Deno.test("Workers serve a module's disk, close its backends when it ends, and are ended after that", async () => {
  using played = play();
  const device = await played.serve();
  assertEquals(await answers(played.kernel), 0);
  await device.close();
  assertEquals(seen(), Array(2).fill("load,serve,close,destroyed,terminated"));
  const { files, abandoned, epolls } = played.kernel;
  assertEquals([files.size, abandoned.size, epolls.size], [0, 0, 0]);
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
    id: device.id,
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
  const worker = new QueueWorker("a", () => {}, kernel);
  worker.serve(plan);
  const player = PlayedWorker.all.at(-1);
  await assertRejects(() => worker.left, DblockError, "it has a server already");
  const again = new QueueWorker("a", () => {}, kernel);
  again.serve({ ...plan, takeOver: true });
  const epoll = [...kernel.epolls].at(-1);
  again.stop();
  assertEquals(kernel.rung, [epoll], "a thread that waits for a file that is closed hears nothing of it");
  const late = PlayedWorker.all.at(-1);
  assertEquals(kernel.abandoned.size, 1);
  const filesBefore = kernel.files.size;
  await late?.say({ kind: "left", failure: undefined }); // would throw if it closed the number again
  late?.onerror({ message: "boom", preventDefault() {} });
  assertEquals([kernel.files.size, player?.seen], [filesBefore, ["serve"]]);
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
  assertEquals(seen(), Array(2).fill("load,close,unused,terminated"));
});

Deno.test("close() of a module's backend that does not end is ended after closeTimeoutMs, and the log says so", async () => {
  const logged: string[] = [];
  using played = play({ optimalIoBytes: 512, closeTimeoutMs: 50, log: (message) => void logged.push(message) });
  PlayedWorker.close = () => new Promise(() => {});
  const { timeout } = AbortSignal;
  const bounds: number[] = [];
  AbortSignal.timeout = (ms) => {
    bounds.push(ms);
    return timeout.call(AbortSignal, ms);
  };
  try {
    await assertRejects(played.serve, DblockError, "optimalIoBytes is 0 to 16777216, a multiple of 4096, not 512");
  } finally {
    AbortSignal.timeout = timeout;
  }
  assertEquals(bounds.filter((ms) => ms === 50).length, 2);
  assertEquals(seen(), Array(2).fill("load,close,terminated"));
  assertEquals(logged.length, 2);
  assertMatch(logged[0] ?? "", /^\/dev\/a: close\(\) of the backend was ended after 0.05 s, with its Worker/);
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
    () => serveOn(kernel, backend, { name: "a", log, queues: 2, optimalIoBytes: 512 }),
    DblockError,
    "optimalIoBytes is",
  );
  assertEquals([backend.data[0], logged], [
    2,
    Array(2).fill("/dev/a: close() of the backend threw Error: cannot close"),
  ]);
});

Deno.test("a real Worker says why it serves no more before it closes its backend", async () => {
  const backend = counting();
  const kernel = new FakeKernel();
  const device = await serveOn(kernel, disk, { name: "a" });
  const worker = new QueueWorker("a", () => {}, kernel);
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
  worker.serve({ name: "a", id: device.id, queue: 0, depth: 1, geometry }).catch(() => {});
  const error = await assertRejects(() => worker.left, DblockError, "Cannot serve queue 0 of /dev/a");
  assertEquals(error.code, "ENOTTY");
  assertEquals(backend.data[0], 0);
  await worker.close("left", 0);
  assertEquals(backend.data[0], 1);
  await device.close();
  assertEquals(kernel.files.size, 0);
});
