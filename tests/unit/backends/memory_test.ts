// SPDX-License-Identifier: MIT
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { MemoryBackend } from "../../../src/backends/memory.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { bytesOf } from "./stores.ts";

const MIB = 2 ** 20;

const residentBytes = () => Deno.memoryUsage().rss;

Deno.test("MemoryBackend takes no memory before it is written, and gives all of it back", () => {
  const sizeBytes = 256 * MIB;
  const before = residentBytes();
  const disk = new MemoryBackend({ sizeBytes });
  assert(residentBytes() - before < 32 * MIB);
  bytesOf(disk).fill(1);
  assert(residentBytes() - before > 200 * MIB);
  disk.close();
  assert(residentBytes() - before < 32 * MIB);
  disk.close(); // once more does no harm
});

Deno.test("MemoryBackend can be much larger than memory", () => {
  new MemoryBackend({ sizeBytes: 2 ** 44 }).close();
});

Deno.test("MemoryBackend refuses sizes that are no disk's, and those without room", () => {
  for (const sizeBytes of [0, -4096, 4095, 4097, NaN, Infinity, 2 ** 53]) {
    assertThrows(() => new MemoryBackend({ sizeBytes }), RangeError, "positive multiple of 4096");
  }
  const error = assertThrows(() => new MemoryBackend({ sizeBytes: 2 ** 50 }), DblockError);
  assertEquals(error.code, "ENOMEM");
});

Deno.test("MemoryBackend reads and writes as any backend does, inside the disk and nowhere else", () => {
  using disk = new MemoryBackend({ sizeBytes: 65536 });
  disk.write(new Uint8Array(3000).fill(7), 100);
  const back = new Uint8Array(3002);
  disk.read(back, 99);
  assertEquals([back[0], back[1], back[3000], back[3001]], [0, 7, 7, 0]);
  disk.writeZeroes(100, 10);
  disk.discard(200, 10);
  assertEquals([disk.bytes(100, 110).indexOf(7), disk.bytes(200, 20).indexOf(7)], [10, 10]);
  for (const [at, length] of [[-1, 1], [65536, 1], [65535, 2], [NaN, 1]] as const) {
    assertThrows(() => disk.read(new Uint8Array(length), at), RangeError, "not inside a disk of 65536 bytes");
    assertThrows(() => disk.write(new Uint8Array(length), at), RangeError, "not inside");
    assertThrows(() => disk.discard(at, length), RangeError, "not inside");
    assertThrows(() => disk.bytes(at, length), RangeError, "not inside");
  }
});

Deno.test("MemoryBackend.bytes() is the memory itself, and nothing once the disk is closed", () => {
  const disk = new MemoryBackend({ sizeBytes: 65536 });
  const [all, some] = [disk.bytes(), disk.bytes(4096, 512)];
  some[0] = 9;
  assertEquals([all.length, some.length, all[4096], bytesOf(disk)[4096]], [65536, 512, 9, 9]);
  disk.close();
  assertEquals([all.length, some.length, all[4096]], [0, 0, undefined]);
  assertThrows(() => disk.bytes(), RangeError, "the disk is closed");
  assertThrows(() => disk.read(new Uint8Array(1), 0), RangeError, "the disk is closed");
});

Deno.test("MemoryBackend of another's mapping is the same disk, in another Worker too, and leaves the memory to it", async () => {
  using disk = new MemoryBackend({ sizeBytes: 65536 });
  const module = new URL("../../../src/backends/memory.ts", import.meta.url).href;
  const source = `
    import { MemoryBackend } from "${module}";
    self.onmessage = ({ data }) => {
      const seen = new MemoryBackend(data);
      const bytes = seen.bytes();
      seen.write(bytes.subarray(0, 3), 4096);
      bytes[100] = 5;
      seen.close();
      postMessage(bytes.length);
    };`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  try {
    disk.write(new Uint8Array([1, 2, 3]), 0);
    const length = await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = reject;
      worker.postMessage(disk.mapping);
    });
    assertEquals([length, disk.bytes()[100], ...disk.bytes(4096, 3)], [0, 5, 1, 2, 3]);
  } finally {
    worker.terminate();
    URL.revokeObjectURL(url);
  }
  assertThrows(() => new MemoryBackend({ ...disk.mapping, sizeBytes: 5 }), RangeError, "positive multiple");
  assertThrows(() => new MemoryBackend({ ...disk.mapping, kind: "file" }), RangeError, "not the mapping of a file");
});

Deno.test("MemoryBackend.load() takes a file, and no memory for its zeroes", async () => {
  const path = await Deno.makeTempFile();
  try {
    const file = new Uint8Array(300_000);
    file[0] = 1;
    file[299_999] = 2;
    await Deno.writeFile(path, file);
    using disk = new MemoryBackend({ sizeBytes: MIB });
    disk.bytes().fill(8);
    assertEquals(await disk.load(path, 4096), 300_000);
    const { indexOf } = Uint8Array.prototype;
    assertEquals(disk.bytes(4096, 300_000), file);
    assertEquals([disk.bytes()[4095], disk.bytes()[304_096], indexOf.call(disk.bytes(), 1)], [8, 8, 4096]);
    await assertRejects(() => disk.load(path, MIB - 4096), RangeError, "not inside a disk");
    await assertRejects(() => disk.load("/none"), Deno.errors.NotFound);
  } finally {
    await Deno.remove(path);
  }
});
