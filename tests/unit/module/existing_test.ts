// SPDX-License-Identifier: MIT
// serve() where there is a device of the name already, on a fake kernel: waited for, recovered, taken over, refused.
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import {
  DBLOCK_IOC_CREATE,
  DBLOCK_IOC_RESIZE,
  DBLOCK_IOC_START,
  DBLOCK_OPERATION_READ as READ,
  DBLOCK_OPERATION_WRITE as WRITE,
  DBLOCK_REQUEST_REPLAYED,
  DBLOCK_STATE_FAILED,
  DBLOCK_STATE_HELD,
  DBLOCK_STATE_LIVE,
  DBLOCK_STATE_REMOVING,
} from "../../../src/module/abi.ts";
import type { Backend, RequestOptions } from "../../../src/disk/backend.ts";
import { profileOf } from "../../../src/disk/profile.ts";
import { Control } from "../../../src/module/control.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { checkFits, createWhenFree, isDying } from "../../../src/module/existing.ts";
import { planDevice } from "../../../src/module/plan.ts";
import { serveOn, type ServeOptions } from "../../../src/module/serve.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";
import { Stopwatch } from "../../vm/pace.ts";

const MIB = 2 ** 20;

class Disk implements Backend {
  readonly sizeBytes: number = MIB;
  readonly store: Uint8Array;
  readonly replayed: boolean[] = [];
  closedCount = 0;
  constructor(store = new Uint8Array(MIB)) {
    this.store = store;
  }
  read(buffer: Uint8Array, at: number): void | Promise<void> {
    buffer.set(this.store.subarray(at, at + buffer.length));
  }
  write(buffer: Uint8Array, at: number, options: RequestOptions): void | Promise<void> {
    this.replayed.push(options.replayed);
    this.store.set(buffer, at);
  }
  close(): void {
    this.closedCount++;
  }
}

const io = (operation: number, data: Uint8Array) => ({
  operation,
  flags: 0,
  offsetBytes: 4096,
  lengthBytes: data.length,
  data,
});
const filled = (byte: number) => new Uint8Array(512).fill(byte);

function start(kernel: FakeKernel, disk: Backend, options: Partial<ServeOptions> = {}) {
  return serveOn(kernel, disk, { name: "a", log: () => {}, onDeath: "hold", ...options });
}

/** Makes a device as a server that is dead by now left it behind, with a write that it has not answered. */
async function leave(kernel: FakeKernel, onDeath: "hold" | "fail" = "hold"): Promise<{ open: Promise<number> }> {
  using control = await Control.open("Cannot test", kernel);
  await control.create(planDevice(profileOf(new Disk()), { name: "a", queues: 3, depth: 7, onDeath }));
  const device = kernel.devices.get("a");
  assert(device !== undefined);
  device.state = onDeath === "hold" ? DBLOCK_STATE_HELD : DBLOCK_STATE_FAILED;
  return { open: kernel.submit("a", { ...io(WRITE, filled(3)), flags: DBLOCK_REQUEST_REPLAYED }) };
}

for (const [onDeath, existing] of [["hold", "recover"], ["fail", "recover"], ["hold", "take-over"]] as const) {
  Deno.test(`serve() with "${existing}" goes on with a device left under "${onDeath}", as it was created`, async () => {
    const kernel = new FakeKernel();
    const { open } = await leave(kernel, onDeath);
    const disk = new Disk();
    const device = await start(kernel, disk, { existing, queues: 1, depth: 99 });
    assertEquals([device.origin, device.queueCount], ["recovered", 3]);
    assertEquals(kernel.devices.get("a")?.state, DBLOCK_STATE_LIVE);
    assertEquals(await open, 0);
    assertEquals(disk.replayed, [true]);
    assertEquals(await kernel.submit("a", io(WRITE, filled(4))), 0);
    assertEquals(disk.replayed, [true, false]);
    await device.close(); // it is this server's now
    assertEquals([...kernel.devices.keys(), ...kernel.files.keys()], []);
  });
}

for (const existing of ["recover", "take-over"] as const) {
  Deno.test(`serve() with "${existing}" creates a device where there is none`, async () => {
    const kernel = new FakeKernel();
    await using device = await start(kernel, new Disk(), { existing });
    assertEquals(device.origin, "created");
  });
}

Deno.test('serve() with "take-over" takes a live device, and the server before ends without an error', async () => {
  const kernel = new FakeKernel();
  const store = new Uint8Array(MIB);
  const first = new Disk(store);
  const answer = Promise.withResolvers<void>();
  const before = await start(kernel, first, { queues: 2 });
  first.write = () => answer.promise;
  const slow = kernel.submit("a", io(WRITE, filled(1)));
  await new Promise((resolve) => setTimeout(resolve, 10));
  setTimeout(() => answer.resolve(), 50);
  const second = new Disk(store);
  await using after = await start(kernel, second, { existing: "take-over" });
  assertEquals([after.origin, after.queueCount], ["taken-over", 2]);
  assertEquals(await slow, 0); // by the first server: the hand-over has waited
  assertEquals(second.replayed, []);
  assertEquals(await before.closed, { reason: "replaced" });
  assertEquals(first.closedCount, 1);
  assertEquals(await kernel.submit("a", io(WRITE, filled(2))), 0);
  assertEquals(second.replayed, [false]);
});

for (const existing of ["refuse", "recover"] as const) {
  Deno.test(`serve() with "${existing}" leaves a device alone that has a server`, async () => {
    const kernel = new FakeKernel();
    const disk = new Disk();
    await using _device = await start(kernel, disk);
    const other = new Disk();
    const error = await assertRejects(() => start(kernel, other, { existing }), DblockError);
    assertEquals([error.code, other.closedCount, disk.closedCount], ["EEXIST", 1, 0]);
    assertStringIncludes(error.message, "Cannot create /dev/a: the name is in use (");
    assertStringIncludes(error.message, "take it over");
    assertEquals(await kernel.submit("a", io(READ, filled(0))), 0);
  });
}

Deno.test("serve() does not touch a device without a server unless it is told to", async () => {
  const kernel = new FakeKernel();
  await leave(kernel);
  await assertRejects(() => start(kernel, new Disk()), DblockError, "its server died: recover it, or destroy it first");
  assertEquals(kernel.devices.get("a")?.state, DBLOCK_STATE_HELD);
});

Deno.test("serve() makes a device as large as its backend when it may, with what was written at its end", async () => {
  for (const existing of ["recover", "take-over"] as const) {
    const kernel = new FakeKernel();
    const { open } = await leave(kernel);
    const large = Object.assign(new Disk(new Uint8Array(2 * MIB)), { sizeBytes: 2 * MIB });
    await using device = await start(kernel, large, { existing, grow: true });
    assertEquals(await open, 0);
    assertEquals([device.sizeBytes, (await device.info()).sizeBytes], [2 * MIB, 2 * MIB]);
    const end = { ...io(WRITE, filled(3)), offsetBytes: 2 * MIB - 512 };
    assertEquals([await kernel.submit("a", end), large.store.at(-1)], [0, 3]);
  }
  const kernel = new FakeKernel();
  await leave(kernel);
  const odd = Object.assign(new Disk(), { sizeBytes: MIB + 100 });
  await assertRejects(() => start(kernel, odd, { existing: "recover", grow: true }), DblockError, "multiple of 512");
  const small = Object.assign(new Disk(), { sizeBytes: MIB / 2 });
  await assertRejects(() => start(kernel, small, { existing: "recover", grow: true }), DblockError, "not 524288");
});

Deno.test("serve() does not recover a device that asks for longer zeroes than the backend would have been asked for", async () => {
  const kernel = new FakeKernel();
  using control = await Control.open("Cannot test", kernel);
  const zeroing: Backend = Object.assign(new Disk(), { writeZeroes: () => {} });
  await control.create(planDevice(profileOf(zeroing), { name: "a", queues: 1 }));
  const info = await control.info("a");
  const request = planDevice(profileOf(new Disk()), { name: "a", queues: 1 });
  assertThrows(() => checkFits(info, request, { grow: false }), DblockError, "a disk that zeroes by itself");
  checkFits(info, planDevice(profileOf(zeroing), { name: "a", queues: 1 }), { grow: false });
});

Deno.test("serve() does not take a device over to find that its blocks are larger than it can grow by", async () => {
  const kernel = new FakeKernel();
  const disk = new Disk();
  await using _device = await start(kernel, disk, { blockBytes: 4096 });
  const large = Object.assign(new Disk(), { sizeBytes: MIB + 512 });
  const error = await assertRejects(() => start(kernel, large, { existing: "take-over", grow: true }), DblockError);
  assertEquals(
    error.message,
    "Cannot serve /dev/a, which is there already: its size is a multiple of 4096, and cannot become 1049088",
  );
  const errno = await kernel.submit("a", io(READ, new Uint8Array(4096)));
  assertEquals([error.code, errno, disk.closedCount], ["EINVAL", 0, 0]);
});

const misfits: [what: string, change: Partial<Backend>, message: string][] = [
  ["another size", { sizeBytes: 2 * MIB }, "it has 1048576 bytes, not 2097152"],
  ["flush", { flush: () => {} }, "it is a disk without flush, not a disk that is flushed"],
  ["discard", { discard: () => {} }, "it is a disk that does not discard, not a disk that discards"],
  ["no writes", { readOnly: true }, "it is writable, not read-only"],
];
for (const [what, change, message] of misfits) {
  Deno.test(`serve() does not recover a device with a backend of ${what}`, async () => {
    const kernel = new FakeKernel();
    await leave(kernel);
    const disk = Object.assign(new Disk(), change);
    const error = await assertRejects(() => start(kernel, disk, { existing: "recover" }), DblockError);
    assertEquals(error.message, `Cannot serve /dev/a, which is there already: ${message}`);
    assertEquals([disk.closedCount, kernel.devices.get("a")?.state, kernel.files.size], [1, DBLOCK_STATE_HELD, 0]);
  });
}

Deno.test("serve() leaves a device that it cannot recover for the next server", async () => {
  const kernel = new FakeKernel();
  await leave(kernel);
  kernel.refusedIoctls.set(DBLOCK_IOC_START, ERRNO.ENOMEM);
  const began = new Stopwatch();
  await assertRejects(() => start(kernel, new Disk(), { existing: "recover" }), DblockError, "Cannot start /dev/a");
  assert(began.stop() < 1_000);
  assertEquals([kernel.devices.get("a")?.state, kernel.files.size], [DBLOCK_STATE_HELD, 0]);
  kernel.refusedIoctls.clear();
  await using device = await start(kernel, new Disk(), { existing: "recover" });
  assertEquals(device.origin, "recovered");
});

Deno.test("a signal that is aborted while the disk grows ends the start, and the disk stays for the next server", async () => {
  const kernel = new FakeKernel();
  await leave(kernel);
  const large = Object.assign(new Disk(new Uint8Array(2 * MIB)), { sizeBytes: 2 * MIB });
  const controller = new AbortController();
  const ioctlAsync = kernel.ioctlAsync.bind(kernel);
  kernel.ioctlAsync = async (fd, request, structure) => {
    if (request !== DBLOCK_IOC_RESIZE) return await ioctlAsync(fd, request, structure);
    controller.abort(new Error("changed my mind"));
    return await new Promise(() => {}); // for ever
  };
  const options = { existing: "recover", grow: true, signal: controller.signal } as const;
  await assertRejects(() => start(kernel, large, options), Error, "changed my mind");
  assertEquals([kernel.devices.get("a")?.state, large.closedCount], [DBLOCK_STATE_HELD, 1]);
});

Deno.test("a disk whose cache is its server's is not taken over, one whose cache survives is", async () => {
  const kernel = new FakeKernel();
  const cached = (cacheSurvives: boolean) => Object.assign(new Disk(), { flush: () => {}, cacheSurvives });
  for (const cacheSurvives of [false, true]) {
    const before = await start(kernel, cached(cacheSurvives));
    const next = cached(cacheSurvives);
    const taking = start(kernel, next, { existing: "take-over" });
    if (cacheSurvives) {
      await using after = await taking;
      assertEquals([after.origin, (await before.closed).reason], ["taken-over", "replaced"]);
      continue;
    }
    const error = await assertRejects(() => taking, DblockError, "Cannot take over /dev/a: what its server keeps");
    assertEquals([error.code, next.closedCount, kernel.devices.get("a")?.state], ["EOPNOTSUPP", 1, DBLOCK_STATE_LIVE]);
    await before.close();
  }
});

for (const existing of ["refuse", "recover"] as const) {
  Deno.test(`startTimeoutMs and the signal bound the wait for a name on its way out, with "${existing}"`, async () => {
    const kernel = new FakeKernel();
    await leave(kernel);
    kernel.devices.get("a")!.state = DBLOCK_STATE_REMOVING;
    const began = new Stopwatch();
    const late = await assertRejects(() => start(kernel, new Disk(), { existing, startTimeoutMs: 100 }), DblockError);
    assertEquals(late.code, "ETIMEDOUT");
    const signal = AbortSignal.timeout(100);
    const error = await assertRejects(() => start(kernel, new Disk(), { existing, signal }), DOMException);
    assertEquals(error.name, "TimeoutError");
    assert(began.stop() < 1_500, "each alone would wait for 2 s");
    assertEquals(kernel.files.size, 0);
  });
}

Deno.test("createWhenFree() waits for a device that is on its way out", async () => {
  const kernel = new FakeKernel();
  using control = await Control.open("Cannot test", kernel);
  const request = { name: "a", size_bytes: 4096, logical_block_bytes: 512, max_io_bytes: 4096, queue_count: 1 };
  await createWhenFree(control, { ...request, queue_depth: 1 });
  const device = kernel.devices.get("a");
  assert(device !== undefined);
  device.state = DBLOCK_STATE_REMOVING;
  setTimeout(() => kernel.devices.delete("a"), 200);
  assertEquals((await createWhenFree(control, { ...request, queue_depth: 2 })).queue_depth, 2);
});

Deno.test("createWhenFree() does not wait for a name that somebody else has", async () => {
  const kernel = new FakeKernel();
  using control = await Control.open("Cannot test", kernel);
  kernel.refusedIoctls.set(DBLOCK_IOC_CREATE, ERRNO.EEXIST); // a node that is no device of ours
  const began = new Stopwatch();
  await assertRejects(() => createWhenFree(control, { name: "tty" }), DblockError, "the name is in use");
  assert(began.stop() < 1_000);
});

Deno.test("isDying() tells a process that has been killed, or is gone, from one that runs", async () => {
  assertEquals(isDying(Deno.pid), false);
  const child = new Deno.Command("sleep", { args: ["60"] }).spawn();
  assertEquals(isDying(child.pid), false);
  child.kill("SIGKILL");
  assertEquals(isDying(child.pid), true);
  await child.status;
  assertEquals(isDying(child.pid), true);
});
