// SPDX-License-Identifier: MIT
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  DBLOCK_OPERATION_DISCARD as DISCARD,
  DBLOCK_OPERATION_FLUSH as FLUSH,
  DBLOCK_OPERATION_WRITE_ZEROES as WRITE_ZEROES,
  DBLOCK_REQUEST_NO_UNMAP as NO_UNMAP,
} from "../../../src/module/abi.ts";
import { MemoryBackend } from "../../../src/backends/memory.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { maintain } from "../../../src/module/mapped.ts";

const MIB = 2 ** 20;

function bytesOf({ mapping }: MemoryBackend): Uint8Array {
  const pointer = Deno.UnsafePointer.create(BigInt(mapping.address));
  assert(pointer !== null);
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, mapping.sizeBytes));
}

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

Deno.test("maintain() zeroes exactly the range of a discard or a write of zeroes", () => {
  const disk = new MemoryBackend({ sizeBytes: 64 * 1024 });
  const bytes = bytesOf(disk);
  for (const [operation, flags] of [[DISCARD, 0], [WRITE_ZEROES, 0], [WRITE_ZEROES, NO_UNMAP]] as const) {
    for (
      const [at, length] of [[0, 65536], [512, 512], [512, 8192], [4096, 4096], [3584, 1024], [0, 4608], [
        61440,
        4096,
      ]] as const
    ) {
      bytes.fill(7);
      assertEquals(maintain(disk.mapping, operation, flags, at, length), 0);
      assertEquals(bytes.indexOf(0), at);
      assertEquals(bytes.lastIndexOf(0), at + length - 1);
      assertEquals(bytes.filter((byte) => byte === 0).length, length);
    }
  }
  assertEquals(maintain(disk.mapping, FLUSH, 0, 0, 0), 0);
  disk.close();
});
