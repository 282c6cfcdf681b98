// SPDX-License-Identifier: MIT
// Whose a disk is, and what becomes of it, its backend and its store when a server ends: on a fake kernel, with the event
// loop of this program and with Workers that are played.
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import {
  DBLOCK_IOC_DESTROY,
  DBLOCK_IOC_START,
  DBLOCK_OPERATION_READ as READ,
  DBLOCK_OPERATION_WRITE as WRITE,
  DBLOCK_STATE_FAILED,
  DBLOCK_STATE_HELD,
  DBLOCK_STATE_LIVE,
} from "../../../src/module/abi.ts";
import type { Backend, CloseReason } from "../../../src/disk/backend.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { profileOf } from "../../../src/disk/profile.ts";
import { Control } from "../../../src/module/control.ts";
import { destroyOn } from "../../../src/module/destroy.ts";
import { Life, type LifeState } from "../../../src/module/life.ts";
import { planDevice } from "../../../src/module/plan.ts";
import { serveOn, type ServeOptions } from "../../../src/module/serve.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";
import { play, PlayedWorker } from "../../sim/played_worker.ts";
import { Stopwatch } from "../../vm/pace.ts";

const MIB = 2 ** 20;

class Disk implements Backend {
  readonly sizeBytes = MIB;
  readonly closed: CloseReason[] = [];
  read(): void | Promise<void> {}
  write(): void | Promise<void> {}
  close(reason: CloseReason): void | Promise<void> {
    this.closed.push(reason);
  }
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const io = (operation: number) => ({
  operation,
  flags: 0,
  offsetBytes: 4096,
  lengthBytes: 512,
  data: new Uint8Array(512),
});

function start(kernel: FakeKernel, disk: Backend, options: Partial<ServeOptions> = {}) {
  return serveOn(kernel, disk, { name: "a", log: () => {}, ...options });
}

function open(kernel: FakeKernel, count: number): void {
  const device = kernel.devices.get("a");
  assert(device !== undefined);
  device.openCount = count;
}

Deno.test("a life goes through its states in order, and ends once", () => {
  const steps: readonly (readonly [LifeState, readonly LifeState[]])[] = [
    ["planned", ["making", "joining"]],
    ["making", ["planned", "serving"]],
    ["joining", ["serving", "left", "replaced", "gone"]],
    ["serving", ["left", "replaced", "gone"]],
    ["left", []],
    ["replaced", []],
    ["gone", []],
  ];
  const waysTo: Record<LifeState, readonly LifeState[]> = {
    planned: [],
    making: ["making"],
    joining: ["joining"],
    serving: ["making", "serving"],
    left: ["joining", "left"],
    replaced: ["joining", "replaced"],
    gone: ["joining", "gone"],
  };
  for (const [from, next] of steps) {
    for (const [to] of steps) {
      const life = new Life("a", new FakeKernel(), () => {});
      for (const state of waysTo[from]) life.become(state);
      assertEquals(life.state, from);
      if (next.includes(to)) life.become(to);
      else assertThrows(() => life.become(to), Error, `a device that is ${from} cannot become ${to}`);
      life.end("gone");
      life.end("left");
      const after = next.includes(to) ? to : from;
      const ended: LifeState = after === "making" ? "planned" : ["joining", "serving"].includes(after) ? "gone" : after;
      assertEquals([life.state, life.may.owns], [ended, false]);
    }
  }
});

Deno.test("close() that waits leaves a disk alone that is taken over meanwhile", async () => {
  const kernel = new FakeKernel();
  const [disk, other] = [new Disk(), new Disk()];
  const before = await start(kernel, disk, { onDeath: "hold" });
  open(kernel, 1);
  const closing = before.close({ waitMs: 10_000 });
  await sleep(120);
  kernel.pid = 1;
  await using after = await start(kernel, other, { existing: "take-over" });
  await sleep(20);
  open(kernel, 0);
  await closing;
  assertEquals([await before.closed, disk.closed], [{ reason: "replaced" }, ["left"]]);
  await sleep(150);
  assertEquals([(await after.info()).state, await kernel.submit("a", io(READ)), other.closed], ["live", 0, []]);
});

Deno.test("close() that waits asks whose the disk is before each try, not only its own queues", async () => {
  const kernel = new FakeKernel();
  const device = await start(kernel, new Disk(), { onDeath: "hold" });
  const inside = kernel.devices.get("a");
  assert(inside !== undefined);
  inside.openCount = 1;
  const closing = device.close({ waitMs: 10_000 });
  await sleep(120);
  inside.serverPid = 1; // another process has the queues, and this one has not heard of it
  await sleep(200); // a try that asked before that is over
  inside.openCount = 0;
  await sleep(200);
  assertEquals(kernel.devices.has("a"), true);
  inside.serverPid = Deno.pid;
  kernel.remove("a");
  await closing;
});

Deno.test("close() that waits leaves a disk alone that was destroyed and made anew meanwhile", async () => {
  const kernel = new FakeKernel();
  const disk = new Disk();
  disk.read = () => {};
  const before = await start(kernel, disk);
  open(kernel, 1);
  const closing = before.close({ waitMs: 10_000 });
  await sleep(70);
  kernel.remove("a");
  await using after = await start(kernel, new Disk());
  await closing;
  assertEquals(disk.closed, ["destroyed"]);
  await sleep(150);
  assertEquals([(await after.info()).id, kernel.devices.get("a")?.params.id], [after.id, after.id]);
  assert(after.id !== before.id);
  await assertRejects(() => before.info(), DblockError, "the device is gone, and another one has its name");
});

Deno.test("close() leaves a disk alone that was made anew after it had asked whose the disk is", async () => {
  const kernel = new FakeKernel();
  const device = await start(kernel, new Disk());
  using control = await Control.open("Cannot test", kernel);
  const ioctlAsync = kernel.ioctlAsync.bind(kernel);
  kernel.ioctlAsync = async (fd, request, structure) => {
    if (request === DBLOCK_IOC_DESTROY) {
      kernel.ioctlAsync = ioctlAsync;
      kernel.remove("a");
      await control.create(planDevice(profileOf(new Disk()), { name: "a", queues: 1 }));
    }
    return await ioctlAsync(fd, request, structure);
  };
  await device.close({ force: true });
  assertEquals([kernel.devices.has("a"), kernel.devices.get("a")?.params.id === device.id], [true, false]);
});

Deno.test("destroy() with an id destroys that device and no other of its name", async () => {
  const kernel = new FakeKernel();
  const first = await start(kernel, new Disk());
  await first.close();
  await using second = await start(kernel, new Disk());
  const error = await assertRejects(() => destroyOn(kernel, "a", { id: first.id, force: true }), DblockError);
  assertEquals([error.code, kernel.devices.has("a")], ["ESTALE", true]);
  await destroyOn(kernel, "a", { id: second.id });
  assertEquals(await second.closed, { reason: "destroyed" });
});

/** Leaves a disk that has a write in hand. */
async function leaveBusy(onDeath: "hold" | "fail", state: number): Promise<void> {
  const kernel = new FakeKernel();
  const disk = new Disk();
  const answer = Promise.withResolvers<void>();
  const device = await start(kernel, disk, { onDeath, queues: 3 });
  disk.write = () => answer.promise;
  const slow = kernel.submit("a", io(WRITE));
  await sleep(10);
  let stateWhenClosed = -1;
  disk.close = (reason) => {
    disk.closed.push(reason);
    stateWhenClosed = kernel.devices.get("a")?.state ?? -1;
  };
  setTimeout(() => answer.resolve(), 50);
  const began = new Stopwatch();
  const leaving = device.leave();
  const late = sleep(20).then(() => kernel.submit("a", io(READ)));
  await leaving;
  assert(began.stop() < 1_000);
  assertEquals(await slow, 0);
  assertEquals([await device.closed, disk.closed], [{ reason: "left" }, ["left"]]);
  // Nobody could recover the disk before its store was complete.
  assertEquals([stateWhenClosed, kernel.devices.get("a")?.state], [DBLOCK_STATE_LIVE, state]);
  const { isFlushed, isLeft } = kernel.devices.get("a")!;
  assertEquals([isFlushed, isLeft], [true, true]);
  assertEquals(kernel.files.size, 0);
  await Promise.all([device.leave(), device.close()]); // it is not this program's any more
  assertEquals(kernel.devices.has("a"), true);
  await using next = await start(kernel, new Disk(), { existing: "recover" });
  assertEquals([next.origin, await late], ["recovered", onDeath === "hold" ? 0 : ERRNO.EIO]);
}

for (const [onDeath, state] of [["hold", DBLOCK_STATE_HELD], ["fail", DBLOCK_STATE_FAILED]] as const) {
  Deno.test(`leave() answers what is in hand, closes the backend and leaves the disk, under "${onDeath}"`, async () => {
    // leave() has 0.7 s for what is in hand. Beside other work this process may get no processor for as long, once.
    await leaveBusy(onDeath, state).catch(() => leaveBusy(onDeath, state));
  });
}

Deno.test("leave() does not wait for an answer that never comes", async () => {
  const kernel = new FakeKernel();
  const disk = new Disk();
  const device = await start(kernel, disk, { onDeath: "hold" });
  disk.write = () => new Promise(() => {});
  const open = kernel.submit("a", io(WRITE));
  await sleep(10);
  const began = new Stopwatch();
  await device.leave();
  assert(began.stop() < 2_000);
  assertEquals([kernel.devices.get("a")?.state, disk.closed, kernel.files.size], [DBLOCK_STATE_HELD, ["left"], 0]);
  // What it gives up in the middle is not left in order.
  const { isFlushed, isLeft } = kernel.devices.get("a")!;
  assertEquals([isFlushed, isLeft], [false, false]);
  await using _next = await start(kernel, new Disk(), { existing: "recover" });
  assertEquals(await open, 0); // the next server has done it again
});

Deno.test("leave() says that all is durable only after close() of every backend has gone well", async () => {
  const isFlushed = async (kernel: FakeKernel, disk: Disk): Promise<boolean> => {
    const device = await start(kernel, disk, { onDeath: "hold", closeTimeoutMs: 50 });
    let saidBefore = false;
    const close = disk.close.bind(disk);
    disk.close = (reason) => {
      saidBefore = kernel.devices.get("a")!.isFlushed;
      return close(reason);
    };
    await device.leave();
    assertEquals(saidBefore, false);
    const { isFlushed, isLeft } = kernel.devices.get("a")!;
    assertEquals(isLeft, isFlushed && !kernel.isOlder);
    return isFlushed;
  };
  assertEquals(await isFlushed(new FakeKernel(), new Disk()), true);
  // A module that does not know the word "leaves" hears the other one all the same.
  assertEquals(await isFlushed(Object.assign(new FakeKernel(), { isOlder: true }), new Disk()), true);
  const disk = new Disk();
  disk.close = () => Promise.reject(new Error("no"));
  assertEquals(await isFlushed(new FakeKernel(), disk), false);
  disk.close = () => new Promise(() => {});
  assertEquals(await isFlushed(new FakeKernel(), disk), false);
  const calls: string[] = [];
  const flushed = Object.assign(new Disk(), { flush: () => void calls.push("flush") });
  flushed.close = (reason) => void calls.push(reason);
  assertEquals([await isFlushed(new FakeKernel(), flushed), calls], [true, ["flush", "left"]]);
  const full = Object.assign(new Disk(), { flush: () => Promise.reject(new Error("no space")) });
  assertEquals([await isFlushed(new FakeKernel(), full), full.closed], [false, ["left"]]);

  for (const isSaved of [true, false]) {
    using played = play({ onDeath: "hold" });
    const device = await played.serve();
    PlayedWorker.isSaved = isSaved;
    await device.leave();
    assertEquals(played.kernel.devices.get("a")!.isFlushed, isSaved);
  }
});

Deno.test("leave() is refused where the disk would end with its server", async () => {
  const kernel = new FakeKernel();
  await using device = await start(kernel, new Disk());
  const error = await assertRejects(() => device.leave(), DblockError, 'Cannot leave /dev/a: its policy is "remove"');
  assertEquals([error.code, await kernel.submit("a", io(READ))], ["EOPNOTSUPP", 0]);
});

Deno.test("leave() of a module's disk closes its backends as those of a disk that goes on", async () => {
  using played = play({ onDeath: "hold" });
  const device = await played.serve();
  await device.leave();
  assertEquals(await device.closed, { reason: "left" });
  assertEquals(PlayedWorker.all.map(({ seen }) => seen.join()), Array(2).fill("load,serve,close,left,terminated"));
  const { devices, files, abandoned, epolls } = played.kernel;
  assertEquals(devices.get("a")?.state, DBLOCK_STATE_HELD);
  assertEquals([files.size, abandoned.size, epolls.size], [0, 0, 0]);
});

Deno.test("one Worker's death under a policy closes the others' backends, and leaves nothing open", async () => {
  using played = play({ onDeath: "hold", queues: 3 });
  const { kernel } = played;
  const device = await played.serve();
  PlayedWorker.all[1]?.onerror({ message: "boom", preventDefault() {} });
  assertEquals((await device.closed).reason, "failed");
  const seen = PlayedWorker.all.map(({ seen }) => seen.join());
  assertEquals(seen, ["load,serve,close,left,terminated", "load,serve,terminated", "load,serve,close,left,terminated"]);
  assertEquals([kernel.devices.has("a"), kernel.files.size, kernel.abandoned.size, kernel.epolls.size], [
    true,
    0,
    0,
    0,
  ]);
});

Deno.test("a backend is told why it is closed", async () => {
  const kernel = new FakeKernel();
  const reasonOf = async (run: (disk: Disk) => Promise<unknown>): Promise<CloseReason[]> => {
    const disk = new Disk();
    await run(disk).catch(() => {});
    return disk.closed;
  };
  assertEquals(await reasonOf((disk) => start(kernel, disk, { depth: 0 })), ["unused"]);
  kernel.refusedIoctls.set(DBLOCK_IOC_START, ERRNO.ENOMEM);
  assertEquals(await reasonOf((disk) => start(kernel, disk)), ["unused"]);
  kernel.refusedIoctls.clear();
  assertEquals(await reasonOf(async (disk) => await (await start(kernel, disk)).close()), ["destroyed"]);
  const gone = async (disk: Disk) => {
    const device = await start(kernel, disk);
    kernel.remove("a");
    await device.closed;
  };
  assertEquals(await reasonOf(gone), ["destroyed"]);
});

Deno.test("close() of a backend that never returns is waited for up to closeTimeoutMs", async () => {
  for (const how of ["close", "force", "dispose", "leave"] as const) {
    const kernel = new FakeKernel();
    const logged: string[] = [];
    const disk = Object.assign(new Disk(), { close: () => new Promise<void>(() => {}) });
    const log = (message: string) => void logged.push(message);
    const device = await start(kernel, disk, { closeTimeoutMs: 50, log, onDeath: "hold" });
    if (how === "leave") await device.leave();
    else if (how === "dispose") await device[Symbol.asyncDispose]();
    else await device.close({ force: how === "force" });
    assertEquals(logged.length, 1);
    assertMatch(logged[0] ?? "", /^\/dev\/a: close\(\) of the backend has not returned after 0.05 s/);
    assertEquals(kernel.devices.has("a"), how === "leave");
  }
});

Deno.test("close() of a backend is waited for however long, if it may", async () => {
  for (const closeTimeoutMs of [0, Infinity]) {
    const kernel = new FakeKernel();
    let isClosed = false;
    const disk = Object.assign(new Disk(), { close: () => sleep(100).then(() => void (isClosed = true)) });
    await (await start(kernel, disk, { closeTimeoutMs })).close();
    assertEquals(isClosed, true);
  }
});

Deno.test("a device that cannot be destroyed at its end is given up, as by a death", async () => {
  const kernel = new FakeKernel();
  const disk = new Disk();
  const logged: string[] = [];
  const device = await start(kernel, disk, { log: (message) => void logged.push(message) });
  kernel.refusedIoctls.set(DBLOCK_IOC_DESTROY, ERRNO.ENOMEM);
  for (const file of kernel.files.values()) file.queue = undefined; // EXCHANGE fails and cannot say why
  kernel.wakeAll();
  assertEquals((await device.closed).reason, "failed");
  assertEquals([logged.length, disk.closed, kernel.files.size], [1, ["left"], 0]);
});
