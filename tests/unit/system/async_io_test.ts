import { assert, assertEquals } from "@std/assert";
import { ASYNC, NOT_TAKEN } from "../../../src/system/aio.ts";
import { AsyncIo } from "../../../src/system/async_io.ts";
import { writeAt } from "../../../src/system/file.ts";
import { O_RDONLY, O_RDWR } from "../../../src/system/libc.ts";
import { CountedWaits } from "./counted_waits.ts";
import { BLOCK, DirectFile, pages } from "./direct_file.ts";

function open(): AsyncIo {
  const io = AsyncIo.open();
  assert(io !== undefined, "this kernel has no asynchronous I/O");
  return io;
}

Deno.test("AsyncIo does more calls at once than it has places for, each at its place", async () => {
  const count = 1_000;
  using file = new DirectFile(count);
  const io = open();
  const written = pages(count).map((page, i) => page.fill(i % 251));
  const writes = await Promise.all(written.map((page, i) => io.call(ASYNC.write, file.fd, page, i * BLOCK)));
  assertEquals(new Set(writes), new Set([BLOCK]));
  assertEquals(await io.call(ASYNC.fdatasync, file.fd, undefined, 0), 0);
  const read = pages(count);
  await Promise.all(read.map((page, i) => io.call(ASYNC.read, file.fd, page, i * BLOCK)));
  assertEquals(read.map(([first]) => first), written.map(([first]) => first));
  assertEquals(Deno.readFileSync(file.path)[999 * BLOCK], 999 % 251);
  assertEquals(io.isBusy, false);
  io.close();
});

Deno.test("AsyncIo takes what comes beside a call that the kernel refuses, and says of that one that it was not taken", async () => {
  using file = new DirectFile(4);
  using readOnly = new DirectFile(4, O_RDONLY);
  const io = open();
  const [a, b, c] = pages(3) as [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>];
  const results = [
    io.call(ASYNC.write, file.fd, a.fill(1), 0),
    io.call(ASYNC.write, readOnly.fd, b.fill(2), 0), // EBADF
    io.call(ASYNC.write, file.fd, c.fill(3), BLOCK),
    io.call(99, file.fd, b, 0), // EINVAL
  ];
  assertEquals(await Promise.all(results), [BLOCK, NOT_TAKEN, BLOCK, NOT_TAKEN]);
  assertEquals([0, BLOCK].map((at) => Deno.readFileSync(file.path)[at]), [1, 3]);
  io.close();
});

Deno.test("AsyncIo does not take a write that would wait, as one that needs new blocks does", async () => {
  using hole = new DirectFile(64, O_RDWR, true);
  const io = open();
  const results = await Promise.all(pages(64).map((page, i) => io.call(ASYNC.write, hole.fd, page, i * BLOCK)));
  const type = new TextDecoder().decode(
    new Deno.Command("stat", { args: ["-f", "-c", "%T", "."] }).outputSync().stdout,
  );
  // Others may have room for them at once.
  if (type.startsWith("ext")) assertEquals(new Set(results), new Set([NOT_TAKEN]));
  io.close();
});

Deno.test("AsyncIo reads and writes beyond 4 GiB", async () => {
  using file = new DirectFile(6 * 2 ** 30 / BLOCK, O_RDWR, true);
  const io = open();
  const [far, near, page] = pages(3) as [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>];
  writeAt(file.fd, far.fill(1), 5 * 2 ** 30);
  writeAt(file.fd, near.fill(2), 2 ** 30);
  assertEquals([await io.call(ASYNC.read, file.fd, page, 5 * 2 ** 30), page[0]], [BLOCK, 1]);
  assertEquals(await io.call(ASYNC.write, file.fd, page.fill(3), 5 * 2 ** 30), BLOCK);
  assertEquals([await io.call(ASYNC.read, file.fd, page, 2 ** 30), page[0]], [BLOCK, 2]);
  io.close();
});

Deno.test("AsyncIo reads nothing beyond the end of a file", async () => {
  using file = new DirectFile(1);
  const io = open();
  const [page] = pages(1);
  assertEquals(await io.call(ASYNC.read, file.fd, page, 8 * BLOCK), 0);
  io.close();
});

Deno.test("AsyncIo is idle when the last call has ended, those in line among them", async () => {
  using file = new DirectFile(1);
  const io = open();
  const ended: number[] = [];
  const memory = pages(600);
  for (const page of memory) void io.call(ASYNC.read, file.fd, page, 0).then((count) => ended.push(count));
  await io.idle();
  await Promise.resolve();
  assertEquals([ended.length, new Set(ended)], [600, new Set([BLOCK])]);
  await io.idle();
  io.close();
});

Deno.test("AsyncIo waits for its event once at a time, whatever is asked for meanwhile", async () => {
  using waits = new CountedWaits();
  const count = 64;
  using file = new DirectFile(count);
  const io = open();
  const memory = pages(count);
  const endMs = performance.now() + 20_000;
  // A call that is made while the last ones are waited for: what has ended at once is not.
  let meanwhile = 0;
  while (meanwhile < 20 && performance.now() < endMs) {
    const calls = memory.map((page, i) => io.call(ASYNC.write, file.fd, page, i * BLOCK));
    await Promise.resolve(); // they are with the kernel
    for (const [i, page] of pages(4).entries()) {
      if (waits.openCount > 0) meanwhile++;
      calls.push(io.call(ASYNC.read, file.fd, page, i * BLOCK));
      await Promise.resolve();
    }
    await Promise.all(calls);
  }
  assert(meanwhile > 0, "all calls ended at once");
  assertEquals(waits.most, 1);
  io.close();
});
