// SPDX-License-Identifier: MIT
// What becomes of a store, its lock and its memory when the server of its disk ends: on a fake kernel, with Workers that are
// played.
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DBLOCK_IOC_START, DBLOCK_STATE_HELD } from "../../../src/module/abi.ts";
import { FileBackend } from "../../../src/backends/file.ts";
import type { Backend } from "../../../src/disk/backend.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { profileOf } from "../../../src/disk/profile.ts";
import { Control } from "../../../src/module/control.ts";
import { planDevice } from "../../../src/module/plan.ts";
import { serveOn, type ServeOptions } from "../../../src/module/serve.ts";
import type { FakeKernel } from "../../sim/fake_kernel.ts";
import { play, PlayedWorker } from "../../sim/played_worker.ts";

const MIB = 2 ** 20;

function start(kernel: FakeKernel, disk: Backend, options: Partial<ServeOptions> = {}) {
  return serveOn(kernel, disk, { name: "a", log: () => {}, ...options });
}

/** A store, and a disk of it that is held: its server died. */
async function held(kernel: FakeKernel): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempFile();
  const store = await FileBackend.open({ path, sizeBytes: MIB });
  store.close();
  using control = await Control.open("Cannot test", kernel);
  await control.create(planDevice(profileOf(store), { name: "a", queues: 2, onDeath: "hold" }));
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

Deno.test("another process can open the store of a disk that its policy holds, while this program goes on", async () => {
  using played = play();
  const { kernel } = played;
  await using store = await held(kernel);
  PlayedWorker.mapped = true;
  const device = await start(kernel, await FileBackend.open({ path: store.path }), { existing: "recover" });
  const locks = () => new Deno.Command("flock", { args: ["-n", store.path, "true"] }).output();
  assertEquals((await locks()).success, false);
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
  PlayedWorker.gate = new Promise(() => {}); // nobody says anything any more
  PlayedWorker.all[0]?.onerror({ message: "boom", preventDefault() {} });
  assertEquals((await device.closed).reason, "failed");
  assertMatch(logged.join(), /has not returned from the kernel or its backend after 5 s/);
  const { address, sizeBytes } = backend.mapping;
  const isMapped = Deno.readTextFileSync("/proc/self/maps").includes(`${address.toString(16)}-`);
  assertEquals([isMapped, sizeBytes], [true, MIB]);
  (await FileBackend.open({ path: store.path })).close();
});
