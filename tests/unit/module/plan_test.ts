// SPDX-License-Identifier: MIT
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  DBLOCK_DEVICE_DIRECT,
  DBLOCK_DEVICE_DISCARD,
  DBLOCK_DEVICE_FUA,
  DBLOCK_DEVICE_READ_ONLY,
  DBLOCK_DEVICE_ROTATIONAL,
  DBLOCK_DEVICE_WRITE_CACHE,
  DBLOCK_DEVICE_WRITE_ZEROES,
} from "../../../src/module/abi.ts";
import { type Backend, profileOf } from "../../../src/disk/backend.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { systemPageBytes } from "../../../src/system/libc.ts";
import { type DeviceOptions, planDevice } from "../../../src/module/plan.ts";

const MIB = 2 ** 20;
const disk: Backend = { sizeBytes: MIB, read: () => {}, write: () => {} };
const mapped = { mapping: { address: 4096, sizeBytes: MIB, kind: "anonymous" } } as const;

const plan = (options: Partial<DeviceOptions> & { queues?: number } = {}, backend: Backend | typeof mapped = disk) =>
  planDevice(profileOf(backend), { name: "a", queues: 1, ...options });

Deno.test("planDevice() fills in what is not asked for", () => {
  assertEquals(plan(), {
    name: "a",
    flags: DBLOCK_DEVICE_WRITE_ZEROES,
    size_bytes: MIB,
    logical_block_bytes: 512,
    physical_block_bytes: 4096,
    io_opt_bytes: 0,
    max_io_bytes: MIB / 2,
    queue_count: 1,
    queue_depth: 128,
    timeout_ms: 30_000,
    on_death: 0,
    discard_granularity_bytes: 0,
    max_discard_bytes: 0,
    max_write_zeroes_bytes: 4 * MIB,
  });
});

Deno.test("planDevice() serves memory in direct mode, with discard", () => {
  const { flags, max_io_bytes, max_discard_bytes, discard_granularity_bytes } = plan({}, mapped);
  assertEquals(flags, DBLOCK_DEVICE_DIRECT | DBLOCK_DEVICE_DISCARD | DBLOCK_DEVICE_WRITE_ZEROES);
  assertEquals([max_io_bytes, max_discard_bytes, discard_granularity_bytes], [MIB, 2 ** 31, 4096]);
});

Deno.test("planDevice() advertises what a backend has", () => {
  const flagsOf = (more: Partial<Backend>) => plan({}, { ...disk, ...more }).flags;
  const zeroes = DBLOCK_DEVICE_WRITE_ZEROES;
  assertEquals(flagsOf({ flush: () => {} }), zeroes | DBLOCK_DEVICE_WRITE_CACHE | DBLOCK_DEVICE_FUA);
  assertEquals(flagsOf({ discard: () => {} }), zeroes | DBLOCK_DEVICE_DISCARD);
  assertEquals(flagsOf({ readOnly: true }), zeroes | DBLOCK_DEVICE_READ_ONLY);
  assertEquals(plan({}, { ...disk, writeZeroes: () => {} }).max_write_zeroes_bytes, 2 ** 31);
  assertEquals(plan({ rotational: true }).flags, zeroes | DBLOCK_DEVICE_ROTATIONAL);
  assertEquals([plan({ onDeath: "fail" }).on_death, plan({ onDeath: "hold" }).on_death], [1, 2]);
});

const limits: [option: keyof DeviceOptions, good: number[], bad: number[]][] = [
  ["logicalBlockBytes", [512, 1024, 2048, 4096], [256, 513, 3072, 8192, 0, NaN]],
  ["physicalBlockBytes", [512, 4096, MIB], [256, 2 * MIB, 4095]],
  ["ioOptBytes", [0, 4096, 16 * MIB], [4095, 16 * MIB + 4096, -4096]],
  ["maxIoBytes", [systemPageBytes(), 16 * MIB], [0, 4095, 5000, 16 * MIB + 4096]],
  ["queues", [1, 64], [0, 65, 1.5, -1]],
  ["depth", [1, 1024], [0, 1025, 1.5]],
  ["timeoutMs", [0, 1000, 1_200_000], [1, 999, 1_200_001, -1]],
];
for (const [option, good, bad] of limits) {
  Deno.test(`planDevice() takes ${option} at its limits, and refuses it one past them`, () => {
    for (const value of good) plan({ [option]: value });
    for (const value of bad) {
      const error = assertThrows(() => plan({ [option]: value }), DblockError);
      assertEquals(error.code, "EINVAL");
      assertStringIncludes(error.message, `Cannot create /dev/a: ${option} is`);
      assertStringIncludes(error.message, `not ${value}`);
    }
  });
}

Deno.test("planDevice() takes sizes of whole blocks up to 2^53 - 1", () => {
  for (const sizeBytes of [512, 2 ** 53 - 512]) plan({}, { ...disk, sizeBytes });
  for (const sizeBytes of [0, 511, 513, 2 ** 53, -512, NaN]) {
    assertStringIncludes(
      assertThrows(() => plan({}, { ...disk, sizeBytes }), DblockError).message,
      `sizeBytes is 512 to 9007199254740991, a multiple of 512, not ${sizeBytes}`,
    );
  }
  assertThrows(() => plan({ logicalBlockBytes: 4096 }, { ...disk, sizeBytes: 512 }), DblockError);
});

Deno.test("planDevice() refuses a bad name with what is wrong with it", () => {
  const error = assertThrows(() => plan({ name: "a/b" }), DblockError);
  assertStringIncludes(error.message, '"a/b" is not a name: it takes a letter or digit');
});
