// SPDX-License-Identifier: MIT
// PatternBackend and NullBackend, beyond what every backend does (contract_test.ts).
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { NullBackend } from "../../../src/backends/null.ts";
import { PatternBackend } from "../../../src/backends/pattern.ts";
import { DblockError } from "../../../src/disk/errors.ts";

function bytesAt(disk: PatternBackend, offsetBytes: number, lengthBytes = 512): Uint8Array<ArrayBuffer> {
  const buffer = new Uint8Array(lengthBytes);
  disk.read(buffer, offsetBytes);
  return buffer;
}

Deno.test("PatternBackend has the same content for ever: the first words of two seeds", () => {
  const words = [0, 7].map((seed) => [
    ...new Uint32Array(bytesAt(new PatternBackend({ sizeBytes: 2 ** 50, seed }), 2 ** 40).buffer, 0, 3),
  ]);
  assertEquals(words, [[1048186078, 57421091, 3787673996], [3609293425, 2172872740, 1278432158]]);
});

Deno.test("PatternBackend reads each byte by its offset alone, whatever the request", () => {
  const disk = new PatternBackend({ sizeBytes: 2 ** 50, seed: 3 });
  const whole = bytesAt(disk, 2 ** 34 - 2048, 4096);
  for (let at = 0; at < 4096; at += 512) assertEquals(bytesAt(disk, 2 ** 34 - 2048 + at), whole.slice(at, at + 512));
  // In a window that is no multiple of four bytes of its memory.
  const odd = new Uint8Array(515).subarray(3);
  disk.read(odd, 2 ** 34);
  assertEquals(odd.slice(), whole.slice(2048, 2560));
});

Deno.test("PatternBackend has other blocks at other offsets and for other seeds: none of 4,096 is there twice", () => {
  const offsets = [0, 2 ** 32, 2 ** 34, 2 ** 44].flatMap((base) =>
    Array.from({ length: 512 }, (_, i) => base + i * 512)
  );
  const seen = new Set<string>();
  for (const seed of [0, 1]) {
    const disk = new PatternBackend({ sizeBytes: 2 ** 50, seed });
    for (const offset of offsets) seen.add(bytesAt(disk, offset).join());
  }
  assertEquals(seen.size, 4096);
});

Deno.test("PatternBackend takes what belongs there, and says where the first wrong word is", () => {
  const disk = new PatternBackend({ sizeBytes: 2 ** 30, seed: 1 });
  const data = bytesAt(disk, 4096, 4096);
  disk.write(data, 4096);
  for (const bit of [0, 5, 4095 * 8 + 7]) {
    const wrong = data.slice();
    wrong[bit >> 3]! ^= 1 << (bit & 7);
    const at = 4096 + (bit >> 3) - (bit >> 3) % 4;
    const error = assertThrows(() => disk.write(wrong, 4096), DblockError, `the word at ${at} is 0x`);
    assertEquals(error.code, "EILSEQ");
  }
  assertThrows(() => disk.write(data, 8192), DblockError, "the word at 8192 is");
  assertEquals(disk.mismatchCount, 4);
});

Deno.test("PatternBackend and NullBackend refuse sizes that no disk has", () => {
  for (const sizeBytes of [0, -512, 511, 513, NaN, 2 ** 53]) {
    assertThrows(() => new PatternBackend({ sizeBytes }), RangeError, "sizeBytes is 512 to");
    assertThrows(() => new NullBackend({ sizeBytes }), RangeError, "sizeBytes is 512 to");
  }
  assertEquals(new NullBackend({ sizeBytes: 2 ** 53 - 512 }).sizeBytes, 2 ** 53 - 512);
  assertNotEquals(bytesAt(new PatternBackend({ sizeBytes: 2 ** 53 - 512 }), 2 ** 53 - 1024), new Uint8Array(512));
});
