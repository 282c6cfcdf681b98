// SPDX-License-Identifier: MIT
import { assertEquals, assertThrows } from "@std/assert";
import { dblock_create, dblock_info, dblock_request, dblock_version } from "../../../src/module/abi.ts";
import { decode, encode } from "../../../src/system/struct.ts";

Deno.test("encode() puts each field where the layout says, little-endian, and zero elsewhere", () => {
  const bytes = encode(dblock_request, {
    offset_bytes: 0x0001_0203_0405_0607,
    length_bytes: 0x08090a0b,
    generation: 0xffffffff,
    slot: 0x0c0d,
    operation: 4,
    priority: 2,
    flags: 1,
  });
  assertEquals([...bytes], [
    7,
    6,
    5,
    4,
    3,
    2,
    1,
    0,
    11,
    10,
    9,
    8,
    255,
    255,
    255,
    255,
    13,
    12,
    4,
    2,
    1,
    0,
    0,
    0,
    ...Array(8).fill(0),
  ]);
});

Deno.test("decode() gives back what encode() took", () => {
  const values = {
    ...decode(dblock_create, encode(dblock_create)),
    name: "disk0",
    size_bytes: 2 ** 53 - 1,
    timeout_ms: 7,
  };
  assertEquals(decode(dblock_create, encode(dblock_create, values)), values);
  const info = { ...decode(dblock_info, encode(dblock_info)), requests: [1, 2, 3, 4, 2 ** 40] };
  assertEquals(decode(dblock_info, encode(dblock_info, info)), info);
});

Deno.test("encode() takes the longest name, and refuses one byte more", () => {
  const longest = "x".repeat(31);
  assertEquals(decode(dblock_create, encode(dblock_create, { name: longest })).name, longest);
  assertThrows(() => encode(dblock_create, { name: `${longest}x` }), RangeError, "dblock_create.name takes at most 31");
  assertThrows(() => encode(dblock_create, { name: "ä".repeat(16) }), RangeError, "not 32");
});

Deno.test("encode() takes the ends of each range, and refuses one past them", () => {
  encode(dblock_request, { slot: 0xffff, operation: 0xff, length_bytes: 0xffffffff });
  assertThrows(() => encode(dblock_request, { slot: 0x10000 }), RangeError, "dblock_request.slot takes 0 to 65535");
  assertThrows(() => encode(dblock_request, { operation: 256 }), RangeError);
  assertThrows(() => encode(dblock_request, { length_bytes: 2 ** 32 }), RangeError);
  assertThrows(() => encode(dblock_request, { offset_bytes: 2 ** 53 }), RangeError);
  assertThrows(() => encode(dblock_request, { slot: -1 }), RangeError);
  assertThrows(() => encode(dblock_request, { slot: 1.5 }), RangeError);
  assertThrows(() => encode(dblock_info, { requests: [1] }), RangeError, "takes 5 elements");
});

Deno.test("decode() refuses too few bytes and rounds numbers beyond 2^53", () => {
  assertThrows(() => decode(dblock_version, new Uint8Array(55)), RangeError, "needs 56 bytes");
  const bytes = encode(dblock_version);
  for (const value of [2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 64n - 1n]) {
    new DataView(bytes.buffer).setBigUint64(8, value, true);
    assertEquals(Object.values(decode(dblock_version, bytes)).includes(Number(value)), true, String(value));
  }
});
