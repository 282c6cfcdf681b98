// SPDX-License-Identifier: MIT
// What becomes of a store, its lock and its memory when the server of its disk ends: on a fake kernel, with Workers that are
// played.
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import {
  DBLOCK_IOC_START,
  DBLOCK_OPERATION_READ as READ,
  DBLOCK_STATE_HELD,
  DBLOCK_STATE_LIVE,
} from "../../../src/module/abi.ts";
import { FileBackend } from "../../../src/backends/file.ts";
import type { Backend } from "../../../src/disk/backend.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { profileOf } from "../../../src/disk/profile.ts";
import { Control } from "../../../src/module/control.ts";
import type { Device } from "../../../src/module/device.ts";
import { planDevice } from "../../../src/module/plan.ts";
import { serveOn, type ServeOptions } from "../../../src/module/serve.ts";
import { describe } from "../../sim/fake_device.ts";
import type { FakeKernel } from "../../sim/fake_kernel.ts";
import { play, PlayedWorker } from "../../sim/played_worker.ts";
import { Stopwatch } from "../../vm/pace.ts";
import { until } from "../until.ts";

const MIB = 2 ** 20;

function start(kernel: FakeKernel, disk: Backend, options: Partial<ServeOptions> = {}) {
  return serveOn(kernel, disk, { name: "a", log: () => {}, ...options });
}

/** A store, and a disk of it that is held: its server died. */
async function held(kernel: FakeKernel, queues = 2): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempFile();
  const store = await FileBackend.open({ path, sizeBytes: MIB });
  store.close();
  using control = await Control.open("Cannot test", kernel);
  await control.create(planDevice(profileOf(store), { name: "a", queues, onDeath: "hold" }));
  kernel.devices.get("a")!.state = DBLOCK_STATE_HELD;
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path) };
}

Deno.test("a store can be opened again by the same program after a recovery that failed", async () => {
  using played = play();
  const { kernel } = played;
  await using store = await held(kernel);
  PlayedWorker.mapped = true;
  for (let i = 0; i < 3; i++) {
    kernel.refusedIoctls.set(DBLOCK_IOC_START, ERRNO.EMFILE);
    const backend = await FileBackend.open({ path: store.path });
    await assertRejects(() => start(kernel, backend, { existing: "recover" }), DblockError, "EMFILE");
    assertEquals(kernel.devices.get("a")?.state, DBLOCK_STATE_HELD);
  }
  kernel.refusedIoctls.clear();
  const device = await start(kernel, await FileBackend.open({ path: store.path }), { existing: "recover" });
  assertEquals(device.origin, "recovered");
  await device.close();
});

function reading(): { operation: number; flags: number; offsetBytes: number; lengthBytes: number; data: Uint8Array } {
  return { operation: READ, flags: 0, offsetBytes: 4096, lengthBytes: 512, data: new Uint8Array(512) };
}

/** A disk that was held, of sevens, by a program whose Workers say nothing before `gate`. */
async function recovered(
  kernel: FakeKernel,
  path: string,
  gate: Promise<void>,
): Promise<{ device: Device; said: string[] }> {
  await Deno.writeFile(path, new Uint8Array(MIB).fill(7));
  PlayedWorker.mapped = true;
  PlayedWorker.gate = gate;
  const said: string[] = [];
  const log = (message: string) => void said.push(message);
  return { device: await start(kernel, await FileBackend.open({ path }), { existing: "recover", log }), said };
}

/** Until every queue has its Worker. */
async function untilMoved(): Promise<void> {
  await until(() => PlayedWorker.all.length === 2 && PlayedWorker.all.every(({ isServing }) => isServing));
}

Deno.test("a mapped disk whose users wait is there before it has a Worker, and then moves to one a queue", async () => {
  using played = play();
  const { kernel } = played;
  await using store = await held(kernel);
  const attached = Promise.withResolvers<void>();
  const request = reading();
  const waiting = kernel.submit("a", request);
  const { device } = await recovered(kernel, store.path, attached.promise);
  assertEquals([await waiting, request.data, PlayedWorker.all.length], [0, new Uint8Array(512).fill(7), 0]);
  attached.resolve();
  await untilMoved();
  const { attached_count, state } = describe(kernel.devices.get("a")!);
  assertEquals([device.origin, attached_count, state], ["recovered", 2, DBLOCK_STATE_LIVE]);
  await device.leave();
  assertEquals([kernel.files.size, kernel.devices.get("a")!.isLeft], [0, true]);
});

Deno.test("a disk that is left while its queues move to Workers is left in order, and no other Worker is started", async () => {
  using played = play();
  const { kernel } = played;
  await using store = await held(kernel);
  const attached = Promise.withResolvers<void>();
  const { device } = await recovered(kernel, store.path, attached.promise);
  await until(() => PlayedWorker.all.length === 1);
  const leaving = device.leave();
  attached.resolve();
  await leaving;
  assertEquals([await device.closed, PlayedWorker.all.length], [{ reason: "left" }, 1]);
  assertEquals([kernel.files.size, kernel.devices.get("a")!.isLeft], [0, true]);
});

Deno.test("a disk that is closed while its queues move to Workers is gone, and nothing is said", async () => {
  using played = play();
  const { kernel } = played;
  await using store = await held(kernel);
  const attached = Promise.withResolvers<void>();
  const { device, said } = await recovered(kernel, store.path, attached.promise);
  await until(() => PlayedWorker.all.length === 1);
  const closing = device.close();
  await until(() => kernel.devices.size === 0);
  attached.resolve();
  await closing;
  assertEquals([await device.closed, PlayedWorker.all.length, said], [{ reason: "closed" }, 1, []]);
  assertEquals([kernel.files.size, kernel.devices.size], [0, 0]);
});

for (const hears of ["before", "after"] as const) {
  Deno.test(`a disk is destroyed by another process while its queue moves, which hears of it ${hears} its Worker`, async () => {
    using played = play();
    const { kernel } = played;
    await using store = await held(kernel, 1);
    const attached = Promise.withResolvers<void>();
    const { device, said } = await recovered(kernel, store.path, attached.promise);
    await until(() => PlayedWorker.all.length === 1);
    kernel.remove("a");
    if (hears === "before") await new Promise((resolve) => setTimeout(resolve, 20));
    attached.resolve();
    assertEquals([await device.closed, said], [{ reason: "destroyed" }, []]);
    assertEquals(kernel.files.size, 0);
  });
}

Deno.test("a disk whose Workers do not come is left all the same, for its next server", async () => {
  using played = play();
  const { kernel } = played;
  await using store = await held(kernel);
  const { device } = await recovered(kernel, store.path, new Promise(() => {}));
  await until(() => PlayedWorker.all.length === 1);
  const began = new Stopwatch();
  void device.leave();
  await until(() => kernel.devices.get("a")!.state === DBLOCK_STATE_HELD);
  // 3 s for the queue that moves, and 5 s for a Worker that does not say that it has left.
  assert(began.stop() < 15_000);
});

Deno.test("a queue that can have no Worker is served where it is, and that is said", async () => {
  using played = play();
  const { kernel } = played;
  await using store = await held(kernel);
  const { device, said } = await recovered(kernel, store.path, Promise.resolve());
  kernel.refusedPaths.set("/dev/a-ctl", ERRNO.EMFILE);
  await until(() => said.length === 2);
  assertMatch(said.join(), /^\/dev\/a: a queue has no thread of its own: .*EMFILE/);
  kernel.refusedPaths.clear();
  const request = reading();
  assertEquals([await kernel.submit("a", request), request.data], [0, new Uint8Array(512).fill(7)]);
  await device.leave();
  assertEquals([await device.closed, kernel.files.size, kernel.devices.get("a")!.isLeft], [
    { reason: "left" },
    0,
    true,
  ]);
});

Deno.test("another process can open the store of a disk that its policy holds, while this program goes on", async () => {
  using played = play();
  const { kernel } = played;
  await using store = await held(kernel);
  PlayedWorker.mapped = true;
  const device = await start(kernel, await FileBackend.open({ path: store.path }), { existing: "recover" });
  const locks = () => new Deno.Command("flock", { args: ["-n", store.path, "true"] }).output();
  assertEquals((await locks()).success, false);
  await untilMoved();
  PlayedWorker.all[0]?.onerror({ message: "boom", preventDefault() {} });
  assertEquals((await device.closed).reason, "failed");
  assertEquals([kernel.devices.get("a")?.state, (await locks()).success], [DBLOCK_STATE_HELD, true]);
});

Deno.test("a store is unlocked although a Worker does not come back; its memory stays", async () => {
  using played = play();
  const { kernel } = played;
  await using store = await held(kernel);
  PlayedWorker.mapped = true;
  const logged: string[] = [];
  const backend = await FileBackend.open({ path: store.path });
  const log = (message: string) => void logged.push(message);
  const device = await start(kernel, backend, { existing: "recover", log });
  await untilMoved();
  PlayedWorker.gate = new Promise(() => {}); // nobody says anything any more
  PlayedWorker.all[0]?.onerror({ message: "boom", preventDefault() {} });
  assertEquals((await device.closed).reason, "failed");
  assertMatch(logged.join(), /has not returned from the kernel or its backend after 5 s/);
  const { address, sizeBytes } = backend.mapping;
  const isMapped = Deno.readTextFileSync("/proc/self/maps").includes(`${address.toString(16)}-`);
  assertEquals([isMapped, sizeBytes], [true, MIB]);
  (await FileBackend.open({ path: store.path })).close();
});
