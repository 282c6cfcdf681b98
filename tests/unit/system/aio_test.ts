// SPDX-License-Identifier: MIT
// The kernel's asynchronous I/O as system calls. What AsyncIo makes of it is in async_io_test.ts.
import { assert, assertEquals } from "@std/assert";
import { AioContext, ASYNC, NOT_TAKEN } from "../../../src/system/aio.ts";
import { linux, O_RDWR, openEventFile } from "../../../src/system/libc.ts";
import { libc } from "../../../src/system/library.ts";

/** A context with so many places, and a file of two blocks. */
class Opened implements Disposable {
  readonly path = Deno.makeTempFileSync({ dir: ".", prefix: ".dblock-unit-" });
  readonly fd = linux.open(this.path, O_RDWR);
  readonly eventFd = openEventFile();
  readonly aio: AioContext;

  constructor(depth: number) {
    Deno.truncateSync(this.path, 8192);
    const aio = AioContext.open(depth, this.eventFd);
    assert(aio !== undefined, "this kernel has no asynchronous I/O");
    this.aio = aio;
  }

  /** Waits for the end of so many calls: what each returned, by its place. */
  take(count: number): Map<number, number> {
    const results = new Map<number, number>();
    const seconds = new BigInt64Array([10n, 0n]);
    this.aio.take(BigInt(count), seconds, (place, result) => results.set(place, result));
    return results;
  }

  /** How many calls have ended since the last time this was asked. */
  rung(): number {
    const count = new BigUint64Array(1);
    return libc().eventfd_read(this.eventFd, count) === 0 ? Number(count[0]) : 0;
  }

  [Symbol.dispose](): void {
    this.aio.close();
    linux.close(this.eventFd);
    linux.close(this.fd);
    Deno.removeSync(this.path);
  }
}

Deno.test("AioContext does a batch of calls, each at its place, and rings for each", () => {
  using opened = new Opened(3);
  const { aio, fd } = opened;
  for (const place of [0, 2, 1]) aio.prepare(place, ASYNC.fdatasync, fd, undefined, 0);
  assertEquals([aio.batchLength, opened.rung()], [3, 0]);
  aio.submit((place) => assert(false, `the call at ${place} is refused`));
  assertEquals(aio.batchLength, 0);
  assertEquals(opened.take(3), new Map([[0, 0], [1, 0], [2, 0]]));
  assertEquals(opened.rung(), 3);
  assertEquals(aio.take(0n, null, () => assert(false, "nothing is under way")), 0);
});

Deno.test("AioContext gives back a call that the kernel refuses, and does those beside it", () => {
  using opened = new Opened(3);
  const { aio, fd } = opened;
  const closed = linux.open(opened.path, O_RDWR);
  linux.close(closed);
  aio.prepare(0, ASYNC.fdatasync, fd, undefined, 0);
  aio.prepare(1, ASYNC.fdatasync, closed, undefined, 0); // EBADF
  aio.prepare(2, ASYNC.fdatasync, fd, undefined, 0);
  const refused: number[] = [];
  aio.submit((place) => {
    // As a caller with more to do has it.
    if (refused.push(place) === 1) aio.prepare(1, ASYNC.fdatasync, fd, undefined, 0);
  });
  assertEquals(refused, [1]);
  assertEquals(opened.take(3), new Map([[0, 0], [1, 0], [2, 0]]));
});

Deno.test("AioContext says what a call returned, and which one would have had to wait", () => {
  using opened = new Opened(2);
  const { aio, fd } = opened;
  const bytes = new Uint8Array(new ArrayBuffer(8192));
  // It is read into the page cache by the first one, at the latest.
  Deno.readFileSync(opened.path);
  aio.prepare(0, ASYNC.read, fd, bytes, 4096);
  aio.prepare(1, ASYNC.read, fd, bytes, 8192);
  aio.submit((place) => assert(false, `the call at ${place} is refused`));
  const results = opened.take(2);
  assert([4096, NOT_TAKEN].includes(results.get(0)!), String(results.get(0)));
  assert([0, NOT_TAKEN].includes(results.get(1)!), String(results.get(1)));
});

Deno.test("AioContext.open() gives nothing where the kernel has no room for so many calls", () => {
  const eventFd = openEventFile();
  const limit = Number(Deno.readTextFileSync("/proc/sys/fs/aio-max-nr"));
  assertEquals(AioContext.open(limit + 1, eventFd), undefined);
  linux.close(eventFd);
});
