// SPDX-License-Identifier: MIT
import { assert, assertEquals, assertThrows } from "@std/assert";
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
