// SPDX-License-Identifier: MIT
// Ranges of mapped files and of memory: what is zeroed, what is given back. A full file system is in backends/file_test.ts.
import { assertEquals } from "@std/assert";
import { FileBackend } from "../../../src/backends/file.ts";
import { MemoryBackend } from "../../../src/backends/memory.ts";
import type { Mapping } from "../../../src/disk/servable.ts";
import { discardMapped, flusherOf, zeroMapped } from "../../../src/system/mapping.ts";
import { bytesOf, folder, spaceOf } from "../backends/stores.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;

const ranges = [[0, 65536], [512, 512], [512, 8192], [4096, 4096], [3584, 1024], [0, 4608], [61440, 4096]] as const;
const clearings: readonly ((mapping: Mapping, at: number, length: number) => boolean)[] = [
  discardMapped,
  (...range) => zeroMapped(...range, { keepAllocated: false }),
  (...range) => zeroMapped(...range, { keepAllocated: true }),
];
const ways: [what: string, change: (mapping: Mapping & { fd: number }) => Mapping][] = [
  ["with holes", (mapping) => mapping],
  ["of large pages", (mapping) => ({ ...mapping, pageBytes: 16 * KIB })],
  ["without its file", ({ address, sizeBytes, kind }) => ({ address, sizeBytes, kind })],
];
for (const [what, change] of ways) {
  Deno.test(`a discard and zeroes are exact in a mapped file ${what}`, async () => {
    using dir = folder();
    const disk = await FileBackend.open({ path: `${dir.path}/a`, sizeBytes: 64 * KIB });
    const bytes = bytesOf(disk);
    const mapping = change(disk.mapping);
    for (const clear of clearings) {
      for (const [at, length] of ranges) {
        bytes.fill(7);
        assertEquals(clear(mapping, at, length), true);
        assertEquals([bytes.indexOf(0), bytes.lastIndexOf(0)], [at, at + length - 1]);
        assertEquals(bytes.filter((byte) => byte === 0).length, length);
      }
    }
    assertEquals(flusherOf(mapping).flush(), true);
    disk.close();
  });
}

Deno.test("a file's space is given back, or stays allocated", async () => {
  using dir = folder();
  const path = `${dir.path}/a`;
  const disk = await FileBackend.open({ path, sizeBytes: MIB });
  assertEquals(zeroMapped(disk.mapping, 0, MIB, { keepAllocated: true }), true);
  assertEquals(spaceOf(path), MIB);
  assertEquals(discardMapped(disk.mapping, 4096, MIB / 2), true);
  assertEquals(spaceOf(path), MIB / 2);
  assertEquals(zeroMapped(disk.mapping, 0, MIB, { keepAllocated: false }), true);
  assertEquals(spaceOf(path), 0);
  disk.close();
});

Deno.test("a discard and zeroes are exact in memory", () => {
  const disk = new MemoryBackend({ sizeBytes: 64 * KIB });
  const bytes = bytesOf(disk);
  for (const clear of clearings) {
    for (const [at, length] of ranges) {
      bytes.fill(7);
      assertEquals(clear(disk.mapping, at, length), true);
      assertEquals([bytes.indexOf(0), bytes.lastIndexOf(0)], [at, at + length - 1]);
      assertEquals(bytes.filter((byte) => byte === 0).length, length);
    }
  }
  assertEquals(flusherOf(disk.mapping).flush(), true);
  disk.close();
});

Deno.test("a flush that has failed for one queue fails once for each other queue", () => {
  const failures = new Int32Array(new SharedArrayBuffer(4));
  const disk = new MemoryBackend({ sizeBytes: 64 * KIB });
  // Nothing is mapped at an address that is not in any file's page: msync() fails there.
  const broken: Mapping = { address: 4096, sizeBytes: 4096, kind: "file", flushFailures: failures };
  const good: Mapping = { ...disk.mapping, kind: "file", flushFailures: failures };
  const [first, second, third] = [flusherOf(broken), flusherOf(good), flusherOf(good)];
  assertEquals([second.flush(), first.flush()], [true, false]);
  assertEquals([second.flush(), second.flush(), third.flush(), third.flush()], [false, true, false, true]);
  assertEquals(flusherOf(good).flush(), true, "a queue that is new has lost nothing");
  disk.close();
});

Deno.test("the queues of a file tell each other that a flush has failed", async () => {
  using dir = folder();
  const disk = await FileBackend.open({ path: `${dir.path}/a`, sizeBytes: 64 * KIB });
  const [first, second] = [flusherOf({ ...disk.mapping, address: 4096, sizeBytes: 4096 }), flusherOf(disk.mapping)];
  assertEquals([first.flush(), second.flush(), second.flush()], [false, false, true]);
  disk.close();
});
