// SPDX-License-Identifier: MIT
// What a backend, or a log, can do wrong, and what that costs: on a fake kernel.
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  DBLOCK_IOC_START,
  DBLOCK_OPERATION_READ as READ,
  DBLOCK_OPERATION_WRITE as WRITE,
} from "../../../src/module/abi.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { Stopwatch } from "../../vm/pace.ts";
import { Disk, io, make, MIB } from "./memory_disk.ts";

Deno.test("a backend whose close() fails hides nothing", async () => {
  const disk = Object.assign(new Disk(), { close: () => Promise.reject(new Error("cannot close")) });
  const { kernel, logged, serve } = make({}, disk);
  kernel.refusedIoctls.set(DBLOCK_IOC_START, ERRNO.ENOMEM);
  const error = await assertRejects(serve, DblockError, "Cannot start /dev/a");
  assertEquals([error.code, logged], ["ENOMEM", ["/dev/a: close() of the backend threw Error: cannot close"]]);
  kernel.refusedIoctls.clear();
  const device = await serve();
  await device.close();
  assertEquals([(await device.closed).reason, logged.length], ["closed", 2]);
});

Deno.test("a log that fails, and errors without a description, cost their own requests and nothing else", async () => {
  const disk = new Disk();
  const things = [new Error("boom"), Object.create(null)];
  let count = 0;
  disk.read = (_, at) => {
    if (at === 0) return;
    const thing = things[(count >> 1) % 2];
    if (count++ % 2 === 0) throw thing;
    return Promise.reject(thing);
  };
  const log = () => {
    throw new Error("No space left on device");
  };
  const { kernel, serve } = make({ log }, disk);
  await using device = await serve();
  for (let i = 0; i < 4; i++) assertEquals(await kernel.submit("a", io(READ, new Uint8Array(512))), ERRNO.EIO);
  assertEquals(await kernel.submit("a", { ...io(READ, new Uint8Array(512)), offsetBytes: 0 }), 0);
  assertEquals(device.name, "a");
});

Deno.test("a backend that transfers its buffer fails its own request, and the memory stays", async () => {
  const disk = new Disk();
  let isGood = true;
  disk.write = (buffer) => {
    if (!isGood) structuredClone(buffer, { transfer: [buffer.buffer as ArrayBuffer] });
  };
  const { kernel, logged, serve } = make({}, disk);
  await using _device = await serve();
  assertEquals(await kernel.submit("a", io(WRITE, new Uint8Array(512))), 0);
  isGood = false;
  assertEquals(await kernel.submit("a", io(WRITE, new Uint8Array(512))), ERRNO.EIO);
  isGood = true;
  for (let i = 0; i < 200; i++) assertEquals(await kernel.submit("a", io(WRITE, new Uint8Array(512))), 0);
  assertEquals(logged.length, 1);
});

Deno.test("a backend that transfers more than a WebAssembly.Memory holds ends its disk before the kernel touches it", async () => {
  const disk = new Disk();
  disk.write = (buffer) => void structuredClone(buffer, { transfer: [buffer.buffer as ArrayBuffer] });
  const { kernel, serve } = make({ depth: 1024, maxIoBytes: 5 * MIB }, disk);
  const device = await serve();
  const errno = kernel.submit("a", io(WRITE, new Uint8Array(512)));
  const { reason, error } = await device.closed;
  assertEquals([reason, await errno], ["failed", ERRNO.EIO]);
  assertStringIncludes(String(error), "its backend has transferred the memory of a request to another thread");
});

Deno.test("a request that is never answered hurts no other", async () => {
  const disk = new Disk();
  let isFirst = false;
  const read = disk.read.bind(disk);
  disk.read = (buffer, at) => {
    if (!isFirst) return read(buffer, at);
    isFirst = false;
    return new Promise(() => {});
  };
  const { kernel, serve } = make({}, disk);
  const device = await serve();
  isFirst = true;
  const stuck = kernel.submit("a", io(READ, new Uint8Array(512)));
  for (let i = 0; i < 300; i++) assertEquals(await kernel.submit("a", io(READ, new Uint8Array(512))), 0);
  await device.close();
  assertEquals(await stuck, ERRNO.EIO);
});

Deno.test("a backend that answers in microtasks does not keep timers waiting", async () => {
  const disk = new Disk();
  disk.write = async () => {
    await null;
  };
  const { kernel, serve } = make({}, disk);
  await using device = await serve();
  let isOver = false;
  let count = 0;
  const again = () => {
    count++;
    // A client without any pause: the next request is there before this one's end is heard.
    if (!isOver) kernel.send(kernel.queueOf("a"), { ...io(WRITE, new Uint8Array(512)), end: again });
  };
  for (let i = 0; i < 4; i++) again();
  // More than once, for a machine that has other things to do.
  for (let rounds = 0; rounds < 50 && count <= 10; rounds++) {
    const began = new Stopwatch();
    await new Promise((resolve) => setTimeout(resolve, 20));
    const tookMs = began.stop();
    assert(tookMs < 500, `${count} requests, ${tookMs} ms`);
  }
  isOver = true;
  assert(count > 10, `${count} requests`);
  assertEquals(device.name, "a");
});
