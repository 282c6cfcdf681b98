// SPDX-License-Identifier: MIT
// serve() with a Backend object, from CREATE to its end, on a fake kernel. Workers need the module: tests/device.
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  DBLOCK_CONTROL_PATH,
  DBLOCK_IOC_CREATE,
  DBLOCK_IOC_START,
  DBLOCK_OPERATION_READ as READ,
  DBLOCK_OPERATION_WRITE as WRITE,
  DBLOCK_STATE_HELD,
} from "../../../src/module/abi.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { serveOn, type ServeOptions } from "../../../src/module/serve.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";
import { Stopwatch } from "../../vm/pace.ts";
import { assertNothingLeft, Disk, io, make, MIB } from "./memory_disk.ts";

Deno.test("serve() makes a disk that keeps what is written to it", async () => {
  const { kernel, disk, serve } = make();
  {
    await using device = await serve();
    assertEquals([device.name, device.path, device.sizeBytes, device.queueCount], ["a", "/dev/a", MIB, 1]);
    assertEquals((await device.info()).name, "a");
    assertEquals(await kernel.submit("a", io(WRITE, new Uint8Array(512).fill(5))), 0);
    const data = new Uint8Array(1024);
    assertEquals(await kernel.submit("a", io(READ, data)), 0);
    assertEquals([data[0], data[511], data[512]], [5, 5, 0]);
    assertEquals(disk.closedCount, 0);
  }
  assertEquals(disk.closedCount, 1);
  assertNothingLeft(kernel);
});

Deno.test("serve() serves as many queues as it is told, up to what the kernel takes", async () => {
  for (const [queues, count] of [[1, 1], [3, 3], [64, 8]] as const) {
    const { kernel, serve } = make({ queues });
    await using device = await serve();
    assertEquals(device.queueCount, count);
    for (let i = 0; i < 20; i++) assertEquals(await kernel.submit("a", io(READ, new Uint8Array(512))), 0);
  }
});

Deno.test("serve() says once that its thread may not be an I/O flusher, and serves", async () => {
  for (const mayFlushIo of [true, false]) {
    const { kernel, logged, serve } = make({ queues: 3 });
    kernel.mayFlushIo = mayFlushIo;
    await using _device = await serve();
    assertEquals(logged.map((line) => /^\/dev\/a: PR_SET_IO_FLUSHER is refused/.test(line)), mayFlushIo ? [] : [true]);
    assertEquals(await kernel.submit("a", io(READ, new Uint8Array(512))), 0);
  }
});

Deno.test("closed tells who ended the device", async () => {
  const one = make();
  const closed = await one.serve();
  await closed.close();
  assertEquals(await closed.closed, { reason: "closed" });
  await closed.close(); // once more does no harm

  const other = make();
  const destroyed = await other.serve();
  other.kernel.remove("a");
  assertEquals(await destroyed.closed, { reason: "destroyed" });
  assertEquals(other.disk.closedCount, 1);
  assertNothingLeft(other.kernel);
});

Deno.test("close() refuses while somebody has the disk open, and the disk goes on", async () => {
  const { kernel, serve } = make();
  const device = await serve();
  const inside = kernel.devices.get("a");
  assert(inside !== undefined);
  inside.openCount = 1;
  const error = await assertRejects(() => device.close(), DblockError, "Cannot destroy /dev/a: it is in use");
  assertEquals(error.code, "EBUSY");
  assertEquals(await kernel.submit("a", io(READ, new Uint8Array(512))), 0);
  await device.close({ force: true });
  assertEquals(await device.closed, { reason: "closed" });
});

Deno.test("close() that is forced while another one waits ends the device as this program's", async () => {
  const { kernel, serve } = make();
  const device = await serve();
  const inside = kernel.devices.get("a");
  assert(inside !== undefined);
  inside.openCount = 1;
  const patient = device.close();
  await new Promise((resolve) => setTimeout(resolve, 20));
  await Promise.all([device.close({ force: true }), patient, device.close({ force: true })]);
  assertEquals(await device.closed, { reason: "closed" });
});

Deno.test("dispose forces a disk that is open, and says so", async () => {
  const { kernel, logged, serve } = make();
  {
    await using _device = await serve();
    const inside = kernel.devices.get("a");
    if (inside !== undefined) inside.openCount = 1;
  }
  assertEquals(logged.length, 1);
  assertStringIncludes(logged[0] ?? "", "forcing it");
  assertNothingLeft(kernel);
});

Deno.test("the signal ends the device", async () => {
  const controller = new AbortController();
  const { kernel, serve } = make({ signal: controller.signal });
  const device = await serve();
  controller.abort();
  assertEquals(await device.closed, { reason: "closed" });
  assertNothingLeft(kernel);
});

Deno.test("a signal that is aborted before the start leaves nothing behind", async () => {
  const { kernel, disk, serve } = make({ signal: AbortSignal.abort(new Error("changed my mind")) });
  await assertRejects(serve, Error, "changed my mind");
  assertEquals(disk.closedCount, 1);
  assertNothingLeft(kernel);
});

Deno.test("a signal ends the wait for a module that is never loaded", async () => {
  const kernel = new FakeKernel();
  const module = new URL("data:text/javascript,export default () => new Promise(() => {})");
  const started = performance.now();
  const error = await assertRejects(
    () => serveOn(kernel, { module }, { name: "a", signal: AbortSignal.timeout(300), startTimeoutMs: 20_000 }),
    DOMException,
  );
  assertEquals(error.name, "TimeoutError");
  assert(performance.now() - started < 10_000);
  assertNothingLeft(kernel);
});

Deno.test("a signal that is aborted during the start leaves nothing behind", async () => {
  const controller = new AbortController();
  const disk = new Disk();
  disk.read = () => {
    controller.abort(new Error("changed my mind"));
    return new Promise(() => {}); // the partition table never comes
  };
  const { kernel, serve } = make({ signal: controller.signal }, disk);
  await assertRejects(serve, Error, "changed my mind");
  assertEquals(disk.closedCount, 1);
  assertNothingLeft(kernel);
});

Deno.test("serve() gives up a disk that does not start", async () => {
  const disk = new Disk();
  disk.read = () => new Promise(() => {});
  const { kernel, serve } = make({ startTimeoutMs: 50 }, disk);
  const error = await assertRejects(serve, DblockError, "Cannot start /dev/a: it is not there after 0.05 s");
  assertEquals(error.code, "ETIMEDOUT");
  assertEquals(disk.closedCount, 1);
  assertNothingLeft(kernel);
});

Deno.test("serve() waits for a disk without a bound when it is told to", async () => {
  for (const startTimeoutMs of [0, Infinity, 2 ** 31]) {
    const disk = new Disk();
    disk.read = () => new Promise((resolve) => setTimeout(resolve, 100));
    const { serve } = make({ startTimeoutMs }, disk);
    await using device = await serve();
    assertEquals(device.name, "a");
  }
});

for (
  const [what, request, errno] of [["CREATE", DBLOCK_IOC_CREATE, "EEXIST"], [
    "START",
    DBLOCK_IOC_START,
    "ENOMEM",
  ]] as const
) {
  Deno.test(`serve() leaves nothing behind when ${what} fails`, async () => {
    const { kernel, disk, serve } = make();
    kernel.refusedIoctls.set(request, ERRNO[errno]);
    const error = await assertRejects(serve, DblockError, "/dev/a: ");
    assertEquals(error.code, errno);
    assertEquals(disk.closedCount, 1);
    assertNothingLeft(kernel);
  });
}

Deno.test("serve() says when the device is destroyed before it is there", async () => {
  const disk = new Disk();
  const { kernel, serve } = make({}, disk);
  disk.read = () => kernel.remove("a");
  const error = await assertRejects(serve, DblockError, "Cannot start /dev/a: it was destroyed meanwhile");
  assertEquals(error.code, "ENODEV");
  assertNothingLeft(kernel);
});

Deno.test("serve() refuses options out of range before it makes anything", async () => {
  const { kernel, disk, serve } = make({ depth: 1025 });
  await assertRejects(serve, DblockError, "depth is 1 to 1024, not 1025");
  assertEquals(disk.closedCount, 1);
  assertNothingLeft(kernel);
});

Deno.test("serve() checks its options before it asks anybody", async () => {
  const wrongs: [Partial<ServeOptions>, string][] = [
    [{ existing: "Recover" as "recover" }, "existing is refuse, recover, take-over, not Recover"],
    [{ startTimeoutMs: -1 }, "startTimeoutMs is 0 or more ms, not -1"],
    [{ startTimeoutMs: NaN }, "startTimeoutMs is 0 or more ms, not NaN"],
    [{ closeTimeoutMs: "5" as unknown as number }, "closeTimeoutMs is 0 or more ms, not 5"],
    [{ disposeWaitMs: -Infinity }, "disposeWaitMs is 0 or more ms, not -Infinity"],
  ];
  for (const [options, message] of wrongs) {
    const { kernel, disk, serve } = make(options);
    kernel.refusedPaths.set(DBLOCK_CONTROL_PATH, ERRNO.ENOENT);
    const error = await assertRejects(serve, DblockError, `Cannot create /dev/a: ${message}`);
    assertEquals([error.code, disk.closedCount], ["EINVAL", 1]);
  }
});

Deno.test("close() refuses a wait that is none", async () => {
  const { serve } = make();
  await using device = await serve();
  await assertRejects(() => device.close({ waitMs: -1 }), DblockError, "waitMs is 0 or more ms, not -1");
  assertEquals(device.name, "a");
});

Deno.test("close({ waitMs: 0 }) does not wait, and disposeWaitMs bounds how long dispose does", async () => {
  const { kernel, logged, serve } = make({ disposeWaitMs: 100 });
  const device = await serve();
  const inside = kernel.devices.get("a");
  assert(inside !== undefined);
  inside.openCount = 1;
  const began = new Stopwatch();
  await assertRejects(() => device.close({ waitMs: 0 }), DblockError, "it is in use");
  await device[Symbol.asyncDispose]();
  assert(began.stop() < 1_500);
  assertEquals([logged.length, await device.closed], [1, { reason: "closed" }]);
});

Deno.test("serve() finds out before the disk is there that there is no room to wait for it", async () => {
  const { kernel, disk, serve } = make();
  kernel.hasRoomToWait = false;
  const error = await assertRejects(serve, DblockError);
  assertEquals([error.code, disk.closedCount], ["EMFILE", 1]);
  assertNothingLeft(kernel);
});

Deno.test("a channel that fails for good ends the device and says why", async () => {
  const { kernel, disk, serve } = make();
  const device = await serve();
  const fd = [...kernel.files.entries()].find(([, file]) => file.queue !== undefined)?.[0];
  const file = kernel.files.get(fd ?? -1);
  assert(file !== undefined);
  const queue = file.queue;
  file.queue = undefined; // as after a detach: EXCHANGE fails and cannot say why
  const request = kernel.submit("a", io(READ, new Uint8Array(512)));
  if (queue !== undefined) kernel.wakeAll();
  const ending = await device.closed;
  assertEquals(ending.reason, "failed");
  assertEquals(await request, ERRNO.EIO);
  assertEquals(disk.closedCount, 1);
  assertNothingLeft(kernel);
});

Deno.test("a disk that its policy keeps when its server fails is left for the next, also by close() and await using", async () => {
  const controller = new AbortController();
  const { kernel, disk, serve } = make({ onDeath: "hold", signal: controller.signal });
  {
    await using device = await serve();
    for (const file of kernel.files.values()) file.queue = undefined; // EXCHANGE fails and cannot say why
    kernel.devices.get("a")!.state = DBLOCK_STATE_HELD;
    kernel.wakeAll();
    assertEquals((await device.closed).reason, "failed");
    await device.close({ force: true });
    controller.abort();
  }
  assertEquals([kernel.devices.has("a"), disk.closedCount, kernel.files.size], [true, 1, 0]);
});

Deno.test("resize() of a device that has ended is refused, whoever has its name now", async () => {
  const calls: string[] = [];
  const resizable = () => Object.assign(new Disk(), { resize: (bytes: number) => void calls.push(`resize ${bytes}`) });
  const { kernel, serve: serveFirst } = make({}, resizable());
  const first = await serveFirst();
  kernel.remove("a");
  await first.closed;
  await using second = await serveOn(kernel, resizable(), { name: "a" });
  const error = await assertRejects(() => first.resize(MIB / 2), DblockError, "Cannot resize /dev/a to 524288 bytes");
  assertEquals([error.code, calls, (await second.info()).sizeBytes], ["ENODEV", [], MIB]);
});
