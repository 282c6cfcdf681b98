// SPDX-License-Identifier: MIT
/** What `Cache` promises beyond the contract: what it keeps, what it forgets, and when the backend has what was written. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { requestOptions } from "../../../src/disk/request.ts";
import { PlayedDisk } from "../../../src/disk/testing.ts";
import { Cache } from "../../../src/filters/cache.ts";

const BLOCK = 4096;
const plain = requestOptions();
const forced = requestOptions({ fua: true });
const filled = (value: number, length = BLOCK) => new Uint8Array(length).fill(value);

async function firstByte(disk: Cache, offsetBytes: number): Promise<number> {
  const buffer = filled(0xee, 512);
  await disk.read(buffer, offsetBytes, plain);
  return buffer[0]!;
}

const askedFor = (disk: PlayedDisk, operation: string) =>
  disk.asked.filter((request) => request.operation === operation).length;

Deno.test("Cache, write-through: the backend has a write when it is answered, and is not asked for it again", async () => {
  const disk = new PlayedDisk();
  const cache = new Cache(disk);
  await cache.write(filled(1), BLOCK, plain);
  assertEquals([disk.content[BLOCK], await firstByte(cache, BLOCK)], [1, 1]);
  assertEquals([askedFor(disk, "write"), askedFor(disk, "read")], [1, 0]);
  assertEquals(cache.report(), { hitBytes: 512, missBytes: 0, cachedBytes: BLOCK, dirtyBytes: 0 });
  assertEquals(cache.fua, false);
});

Deno.test("Cache, write-through: after a write that failed, the backend says what is there", async () => {
  const disk = new PlayedDisk();
  const cache = new Cache(disk);
  await cache.write(filled(1), 0, plain);
  disk.failure = { operation: "write", errno: "ENOSPC" };
  await assertRejects(async () => await cache.write(filled(2), 0, plain));
  disk.failure = undefined;
  disk.content.fill(3, 0, BLOCK); // the half of it that was done, say
  assertEquals(await firstByte(cache, 0), 3);
});

Deno.test("Cache, write-back: a write with FUA is on the backend, and durable there, when it is answered", async () => {
  const disk = new PlayedDisk({ laterSeed: 1 });
  const cache = new Cache(disk, { mode: "write-back" });
  await cache.write(filled(1), 0, plain);
  await cache.write(filled(2), BLOCK, forced);
  assertEquals([disk.content[0], disk.content[BLOCK], cache.report().dirtyBytes], [0, 2, BLOCK]);
  const after = disk.crashed(() => 1);
  assertEquals([after.content[0], after.content[BLOCK]], [0, 2]);
});

Deno.test("Cache, write-back: a flush that fails forgets nothing, and the next one makes everything durable", async () => {
  const disk = new PlayedDisk();
  const cache = new Cache(disk, { mode: "write-back" });
  await cache.write(filled(1), 0, plain);
  await cache.write(filled(2), 4 * BLOCK, plain);
  disk.failure = { operation: "write", errno: "EIO", place: { offsetBytes: 4 * BLOCK, lengthBytes: BLOCK } };
  await assertRejects(async () => await cache.flush!(plain));
  assertEquals(cache.report().dirtyBytes, BLOCK);
  assertEquals(askedFor(disk, "flush"), 0);
  disk.failure = undefined;
  await cache.flush!(plain);
  assertEquals(cache.report().dirtyBytes, 0);
  const after = disk.crashed(() => 1);
  assertEquals([after.content[0], after.content[4 * BLOCK]], [1, 2]);
});

Deno.test("Cache keeps no more than its size, and what was used last", async () => {
  for (const mode of ["write-through", "write-back"] as const) {
    const disk = new PlayedDisk({ laterSeed: 2 });
    const cache = new Cache(disk, { maxBytes: 8 * BLOCK, mode });
    for (let block = 0; block < 32; block++) {
      await cache.write(filled(block + 1), block * BLOCK, plain);
      await firstByte(cache, 0);
      assert(cache.report().cachedBytes <= 8 * BLOCK, `${mode}: ${cache.report().cachedBytes}`);
    }
    const reads = askedFor(disk, "read");
    assertEquals([await firstByte(cache, 0), await firstByte(cache, 31 * BLOCK)], [1, 32]);
    assertEquals(askedFor(disk, "read"), reads, mode);
    assertEquals(await firstByte(cache, 9 * BLOCK), 10);
    assertEquals(askedFor(disk, "read"), reads + 1, mode);
  }
});

Deno.test("Cache, write-back: zeroes and discards of a part of a block leave the rest of it", async () => {
  const disk = new PlayedDisk();
  const cache = new Cache(disk, { mode: "write-back" });
  await cache.write(filled(7), 0, plain);
  await cache.writeZeroes!(0, 512, plain);
  assertEquals([await firstByte(cache, 0), await firstByte(cache, 512)], [0, 7]);
  await cache.discard!(1024, 512, plain);
  assertEquals(await firstByte(cache, 2048), 7);
  await cache.close("left");
  assertEquals([disk.content[0], disk.content[512], disk.content[2048]], [0, 7, 7]);
  assertEquals(disk.closings, ["left"]);
});

Deno.test("Cache: a discard as large as a disk of a terabyte takes no memory of its size", async () => {
  let discarded = 0;
  const cache = new Cache({
    sizeBytes: 2 ** 50,
    read: (buffer) => void buffer.fill(1),
    write: () => {},
    discard: (_, length) => void (discarded += length),
  });
  await firstByte(cache, 2 ** 49);
  // A list of its 2^37 blocks would be a RangeError.
  await cache.discard!(0, 2 ** 49 + 8192, plain);
  assertEquals([discarded, cache.report().cachedBytes], [2 ** 49 + 8192, 0]);
});

Deno.test("Cache: a block is a power of two that one request of the backend can be", () => {
  const disk = new PlayedDisk({ limits: { maxIoBytes: 65536 } });
  for (const blockBytes of [256, 5000, 131072, 2 ** 21]) {
    assertThrows(() => new Cache(disk, { blockBytes }), RangeError, `not ${blockBytes}`);
  }
  assertThrows(() => new Cache(disk, { maxBytes: 4095 }), RangeError, "not 4095");
  assertEquals(new Cache(disk, { blockBytes: 65536 }).sizeBytes, disk.sizeBytes);
});
