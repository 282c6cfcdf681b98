// DISCARD and WRITE_ZEROES of one sector, of ranges with heads and tails that are no whole granules, and of the whole disk
// reach the server within its limits, and these ranges alone read as zeroes; a disk without them still zeroes by writing.
// Hard case D2.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { isFilled, TestDisk } from "./disk.ts";
import { sh } from "./harness.ts";
import { KIB, MIB } from "./server.ts";
import { close, ioctl, O_RDWR, open } from "./syscall.ts";

/** ioctls of <linux/fs.h>. */
const [BLKDISCARD, BLKZEROOUT] = [0x1277, 0x127f];

const { DBLOCK_OPERATION_DISCARD: DISCARD, DBLOCK_OPERATION_WRITE_ZEROES: WRITE_ZEROES } = abi;
const sizeBytes = 4 * MIB;
const ranges: readonly [number, number][] = [[0, 512], [512, 512], [3584, 1024], [4096, 4096], [5120, 2 * MIB + 512], [
  sizeBytes - 512,
  512,
], [0, sizeBytes]];
/** Of 16 KiB: a sector, less than one, a whole one, a head and a tail around none, one, and more than the maximum; all. */
const coarseRanges: readonly [number, number][] = [
  [512, 512],
  [20 * KIB, 4 * KIB],
  [32 * KIB, 16 * KIB],
  [28 * KIB, 8 * KIB],
  [31 * KIB, 18 * KIB],
  [16 * KIB + 512, 2 * MIB + 17 * KIB],
  [0, sizeBytes],
];

for (
  const [operation, command, granularityBytes, tried] of [
    [DISCARD, "blkdiscard", 512, ranges],
    [DISCARD, "blkdiscard", 16 * KIB, coarseRanges],
    [WRITE_ZEROES, "blkdiscard --zeroout", 512, ranges],
  ] as const
) {
  Deno.test(`${command} reaches the server as it should, at a granularity of ${granularityBytes}`, async () => {
    await using disk = await TestDisk.start({
      name: "discard0",
      size_bytes: sizeBytes,
      flags: abi.DBLOCK_DEVICE_DISCARD | abi.DBLOCK_DEVICE_WRITE_ZEROES,
      // Linux makes of a granularity below the physical block that block.
      physical_block_bytes: 512,
      discard_granularity_bytes: granularityBytes,
      max_discard_bytes: MIB,
      max_write_zeroes_bytes: MIB,
    });
    const granularity = await Deno.readTextFile(`/sys/block/${disk.name}/queue/discard_granularity`);
    assertEquals(Number(granularity), granularityBytes);
    for (const [offset, length] of tried) {
      disk.store.bytes.fill(7);
      disk.seen.length = 0;
      await sh(`${command} --offset ${offset} --length ${length} ${disk.path}`);
      const got = disk.seen.filter((request) => request.operation === operation)
        .sort((a, b) => a.offsetBytes - b.offsetBytes);
      const covered = got.reduce((sum, request) => sum + request.lengthBytes, 0);
      assertEquals([got[0]?.offsetBytes, covered], [offset, length], JSON.stringify(got));
      assert(got.every((request) => request.lengthBytes <= MIB), "longer than its maximum");
      const { bytes } = disk.store;
      assertEquals(isFilled(bytes.subarray(offset, offset + length), 0), true);
      assertEquals([isFilled(bytes.subarray(0, offset), 7), isFilled(bytes.subarray(offset + length), 7)], [
        true,
        true,
      ]);
    }
    await disk.assertIdle();
  });
}

Deno.test("ranges that end past the disk, or past all numbers, are refused", async () => {
  await using disk = await TestDisk.start({
    name: "discard3",
    flags: abi.DBLOCK_DEVICE_DISCARD | abi.DBLOCK_DEVICE_WRITE_ZEROES,
    discard_granularity_bytes: 512,
    max_discard_bytes: MIB,
    max_write_zeroes_bytes: MIB,
  });
  disk.seen.length = 0;
  // None of these gets as far as the server, so this process may try them itself.
  const fd = open(disk.path, O_RDWR);
  // Linux 5.10 adds these up without looking, and goes on for ever; that is before any driver is asked.
  const overflows: [bigint, bigint][] = [[0n, 2n ** 64n - 512n], [2n ** 63n, 2n ** 63n], [2n ** 64n - 512n, 512n]];
  const tries = Deno.osRelease().startsWith("5.") ? [] : overflows;
  for (const request of [BLKDISCARD, BLKZEROOUT]) {
    for (const range of [...tries, [BigInt(16 * MIB), 512n], [BigInt(16 * MIB - 512), 1024n], [0n, 511n]]) {
      const argument = new Uint8Array(new BigUint64Array([...range, ...Array(16).fill(0n)]).buffer);
      assertEquals([request, range, ioctl(fd, request, argument)], [request, range, -ERRNO.EINVAL]);
    }
  }
  close(fd);
  assertEquals(disk.seen.length, 0);
});

Deno.test("blkdiscard without DISCARD is refused, zeroes without WRITE_ZEROES are written", async () => {
  await using disk = await TestDisk.start({ name: "discard1" });
  const refused = await sh(`blkdiscard ${disk.path}`, { check: false });
  assertEquals([refused.status, /not supported/.test(refused.stderr)], [1, true], refused.stderr);
  disk.store.bytes.fill(7);
  await sh(`blkdiscard --zeroout --offset 4096 --length ${64 * KIB} ${disk.path}`);
  assertEquals(isFilled(disk.store.bytes.subarray(4096, 4096 + 64 * KIB), 0), true);
  assertEquals(disk.seen.some((request) => request.operation > abi.DBLOCK_OPERATION_FLUSH), false);
});

Deno.test("a discard that the server fails is an error of the caller's", async () => {
  await using disk = await TestDisk.start({
    name: "discard2",
    flags: abi.DBLOCK_DEVICE_DISCARD,
    discard_granularity_bytes: 4096,
    max_discard_bytes: MIB,
    rule: (request) => request.operation === DISCARD ? { error: 5 } : "serve",
  });
  const failed = await sh(`blkdiscard ${disk.path}`, { check: false });
  assertEquals([failed.status, /Input\/output error/.test(failed.stderr)], [1, true], failed.stderr);
});
