// SPDX-License-Identifier: MIT
import { assert, assertEquals } from "@std/assert";
import { BufferPool, HEADROOM_BYTES } from "../../../src/nbd/pool.ts";

Deno.test("BufferPool lends as much as its limit, and one buffer of any size when nothing is lent", async () => {
  const pool = new BufferPool(65_536);
  const large = pool.acquire(100_000);
  assertEquals([large?.sizeBytes, pool.usedBytes], [131_072, 131_072]);
  assertEquals(pool.acquire(1), undefined);
  const released = pool.released();
  pool.release(large!);
  await released;
  const small = Array.from({ length: 8 }, () => pool.acquire(8192));
  assertEquals([pool.usedBytes, pool.acquire(1)], [65_536, undefined]);
  for (const buffer of small) pool.release(buffer!);
  assertEquals(pool.usedBytes, 0);
});

Deno.test("BufferPool lends a buffer that came back before it makes another, and wakes everybody who waits", async () => {
  const pool = new BufferPool(16_384);
  const first = pool.acquire(5000)!;
  const waiting = Promise.all([pool.released(), pool.released()]);
  pool.release(first);
  await waiting;
  assert(pool.acquire(8192) === first);
  assert(pool.acquire(8192) !== first);
});

Deno.test("PooledBuffer has one window for requests of one length, behind its headroom", () => {
  const buffer = new BufferPool(2 ** 20).acquire(65_536)!;
  const window = buffer.window(0, 4096);
  assert(buffer.window(0, 4096) === window);
  assertEquals([window.byteOffset, buffer.window(4096, 512).byteOffset], [HEADROOM_BYTES, HEADROOM_BYTES + 4096]);
});
