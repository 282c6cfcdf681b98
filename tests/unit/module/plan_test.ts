// SPDX-License-Identifier: MIT
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  DBLOCK_BLOCK_BYTES_MAX,
  DBLOCK_BLOCK_BYTES_MIN,
  DBLOCK_DEVICE_CACHE_SURVIVES,
  DBLOCK_DEVICE_DIRECT,
  DBLOCK_DEVICE_DISCARD,
  DBLOCK_DEVICE_FUA,
  DBLOCK_DEVICE_NO_PART_SCAN,
  DBLOCK_DEVICE_READ_ONLY,
  DBLOCK_DEVICE_ROTATIONAL,
  DBLOCK_DEVICE_TIMEOUT_IS_DEATH,
  DBLOCK_DEVICE_WRITE_CACHE,
  DBLOCK_DEVICE_WRITE_ZEROES,
  DBLOCK_IO_BYTES_MAX,
  DBLOCK_IO_BYTES_MIN,
  DBLOCK_RANGE_BYTES_MAX,
  DBLOCK_SIZE_BYTES_MAX,
} from "../../../src/module/abi.ts";
import type { Backend } from "../../../src/disk/backend.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { profileOf } from "../../../src/disk/profile.ts";
import type { MappedBackend } from "../../../src/disk/servable.ts";
import { systemPageBytes } from "../../../src/system/pages.ts";
import { type DeviceOptions, planDevice } from "../../../src/module/plan.ts";

import {
  BLOCK_BYTES_MAX,
  BLOCK_BYTES_MIN,
  IO_BYTES_MAX,
  IO_BYTES_MIN,
  RANGE_BYTES_MAX,
  SIZE_BYTES_MAX,
} from "../../../src/disk/limits.ts";

const MIB = 2 ** 20;
const disk: Backend = { sizeBytes: MIB, read: () => {}, write: () => {} };
const mapped: MappedBackend = {
  ...disk,
  discard: () => {},
  writeZeroes: () => {},
  mapping: { address: 4096, sizeBytes: MIB, kind: "anonymous" },
};

const plan = (options: Partial<DeviceOptions> & { queues?: number } = {}, backend: Backend = disk) =>
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
  const cache = DBLOCK_DEVICE_WRITE_CACHE | DBLOCK_DEVICE_FUA | DBLOCK_DEVICE_CACHE_SURVIVES;
  assertEquals(flagsOf({ flush: () => {}, cacheSurvives: true }), zeroes | cache);
  assertEquals(flagsOf({ cacheSurvives: true }), zeroes, "there is no cache");
  assertEquals(flagsOf({ discard: () => {} }), zeroes | DBLOCK_DEVICE_DISCARD);
  assertEquals(flagsOf({ readOnly: true }), zeroes | DBLOCK_DEVICE_READ_ONLY);
  assertEquals(plan({}, { ...disk, writeZeroes: () => {} }).max_write_zeroes_bytes, 2 ** 31);
  assertEquals(plan({ rotational: true }).flags, zeroes | DBLOCK_DEVICE_ROTATIONAL);
  assertEquals([plan({ onDeath: "fail" }).on_death, plan({ onDeath: "hold" }).on_death], [1, 2]);
});

const limits: [option: keyof DeviceOptions, good: number[], bad: number[]][] = [
  ["blockBytes", [512, 1024, 2048, 4096], [256, 513, 3072, 8192, 0, NaN]],
  ["physicalBlockBytes", [512, 4096, MIB], [256, 2 * MIB, 4095]],
  ["optimalIoBytes", [0, 4096, 16 * MIB], [4095, 16 * MIB + 4096, -4096]],
  ["discardGranularityBytes", [512, 4096, 2 ** 30], [256, 3 * 512, 2 ** 31]],
  ["maxDiscardBytes", [0, 4096, 2 ** 31], [512, 4097, 2 ** 31 + 512]],
  ["maxWriteZeroesBytes", [0, 512, 2 ** 31], [511, 2 ** 31 + 512]],
  ["maxIoBytes", [systemPageBytes(), 16 * MIB], [0, 4095, 5000, 16 * MIB + 4096]],
  ["queues", [1, 64], [0, 65, 1.5, -1]],
  ["depth", [1, 1024], [0, 1025, 1.5]],
  ["timeoutMs", [0, 1000, 1_200_000], [1, 999, 1_200_001, -1]],
];
for (const [option, good, bad] of limits) {
  Deno.test(`planDevice() takes ${option} at its limits, and refuses it one past them`, () => {
    const all: Backend = { ...disk, discard: () => {}, writeZeroes: () => {} };
    for (const value of good) plan({ [option]: value }, all);
    for (const value of bad) {
      const error = assertThrows(() => plan({ [option]: value }, all), DblockError);
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
  assertThrows(() => plan({ blockBytes: 4096 }, { ...disk, sizeBytes: 512 }), DblockError);
});

Deno.test("planDevice() refuses a bad name with what is wrong with it", () => {
  const error = assertThrows(() => plan({ name: "a/b" }), DblockError);
  assertStringIncludes(error.message, '"a/b" is not a name: it takes a letter or digit');
});

Deno.test("a disk's limits are those of the ABI, and a disk ends where numbers are exact", () => {
  assertEquals([BLOCK_BYTES_MIN, BLOCK_BYTES_MAX], [DBLOCK_BLOCK_BYTES_MIN, DBLOCK_BLOCK_BYTES_MAX]);
  assertEquals([IO_BYTES_MIN, IO_BYTES_MAX], [DBLOCK_IO_BYTES_MIN, DBLOCK_IO_BYTES_MAX]);
  assertEquals(RANGE_BYTES_MAX, DBLOCK_RANGE_BYTES_MAX);
  assertEquals(SIZE_BYTES_MAX, Math.min(Number.MAX_SAFE_INTEGER, DBLOCK_SIZE_BYTES_MAX));
});

Deno.test("planDevice() takes what a backend says, and options instead where the backend can do that", () => {
  const limits = { blockBytes: 1024, physicalBlockBytes: 8192, maxIoBytes: 65536, rotational: true } as const;
  const own: Backend = { ...disk, limits, discard: () => {}, writeZeroes: () => {} };
  const said = plan({}, own);
  assertEquals([said.logical_block_bytes, said.physical_block_bytes, said.max_io_bytes], [1024, 8192, 65536]);
  assertEquals((said.flags ?? 0) & DBLOCK_DEVICE_ROTATIONAL, DBLOCK_DEVICE_ROTATIONAL);
  const less = plan({ blockBytes: 4096, physicalBlockBytes: 4096, maxIoBytes: 32768, rotational: false }, own);
  assertEquals([less.logical_block_bytes, less.physical_block_bytes, less.max_io_bytes], [4096, 4096, 32768]);
  assertEquals((less.flags ?? 0) & DBLOCK_DEVICE_ROTATIONAL, 0);
  const ranges = { discardGranularityBytes: 65536, maxDiscardBytes: MIB, maxWriteZeroesBytes: 2 * MIB };
  const grains = plan(ranges, own);
  assertEquals(
    [grains.discard_granularity_bytes, grains.max_discard_bytes, grains.max_write_zeroes_bytes],
    [65536, MIB, 2 * MIB],
  );
  for (
    const [options, message] of [
      [{ blockBytes: 512 }, "blockBytes is at least 1024 here, not 512"],
      [{ maxIoBytes: 131072 }, "maxIoBytes is at most 65536 here, not 131072"],
    ] as const
  ) assertThrows(() => plan(options, own), DblockError, message);
});

Deno.test("planDevice() offers no discard and no zeroes whose maximum is 0", () => {
  const all: Backend = { ...disk, discard: () => {}, writeZeroes: () => {} };
  const none = plan({ maxDiscardBytes: 0, maxWriteZeroesBytes: 0 }, all);
  assertEquals([none.flags, none.max_discard_bytes, none.discard_granularity_bytes], [0, 0, 0]);
  assertEquals(none.max_write_zeroes_bytes, 0);
});

Deno.test("planDevice() makes a disk read-only when the backend or an option says so", () => {
  const writable: Backend = { ...disk, discard: () => {} };
  const { flags = 0, max_discard_bytes } = plan({ readOnly: true }, writable);
  assertEquals([flags & DBLOCK_DEVICE_READ_ONLY, max_discard_bytes], [DBLOCK_DEVICE_READ_ONLY, 0]);
  const still = plan({ readOnly: false }, { ...disk, readOnly: true });
  assertEquals((still.flags ?? 0) & DBLOCK_DEVICE_READ_ONLY, DBLOCK_DEVICE_READ_ONLY);
});

Deno.test("planDevice() refuses a policy that it does not know", () => {
  const error = assertThrows(() => plan({ onDeath: "Hold" as "hold" }), DblockError);
  assertEquals([error.code, error.message], [
    "EINVAL",
    "Cannot create /dev/a: onDeath is remove, fail or hold, not Hold",
  ]);
});

Deno.test("planDevice() has a flag for what survives, for no partitions, and for a timeout that is the server's death", () => {
  const flags = (options: Partial<DeviceOptions>, backend = disk) => (plan(options, backend).flags ?? 0);
  const flushed = { ...disk, flush: () => {} };
  const has = (flag: number, all: number) => (all & flag) !== 0;
  assertEquals(has(DBLOCK_DEVICE_CACHE_SURVIVES, flags({}, { ...flushed, cacheSurvives: true })), true);
  assertEquals(has(DBLOCK_DEVICE_CACHE_SURVIVES, flags({}, flushed)), false);
  assertEquals(has(DBLOCK_DEVICE_CACHE_SURVIVES, flags({}, { ...disk, cacheSurvives: true })), false); // nothing to lose
  assertEquals(has(DBLOCK_DEVICE_NO_PART_SCAN, flags({ partitionScan: false })), true);
  assertEquals(has(DBLOCK_DEVICE_NO_PART_SCAN, flags({ partitionScan: true })), false);
  assertEquals(has(DBLOCK_DEVICE_TIMEOUT_IS_DEATH, flags({ onTimeout: "die" })), true);
  assertEquals(has(DBLOCK_DEVICE_TIMEOUT_IS_DEATH, flags({ onTimeout: "fail" })), false);
  for (const timeoutMs of [0, Infinity]) {
    assertEquals(plan({ timeoutMs }).timeout_ms, 0);
    assertThrows(() => plan({ timeoutMs, onTimeout: "die" }), DblockError, 'onTimeout "die" takes a timeoutMs');
  }
  assertThrows(() => plan({ onTimeout: "Die" as "die" }), DblockError, "onTimeout is fail or die, not Die");
});
