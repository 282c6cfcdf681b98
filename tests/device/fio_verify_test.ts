// What fio wrote in blocks of 4k to 1M from several jobs at once reads back with the right checksums.
// Ordering between overlapping writes in flight is not covered: each job has a part of its own.
import { assert, assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { fio, fioErrors } from "./fio.ts";
import { Ramdisk } from "./ramdisk.ts";

Deno.test("fio verifies crc32c of mixed sizes from four jobs", async () => {
  await using disk = await Ramdisk.start({ name: "verify", args: ["--size", "128M"] });
  const result = await fio(
    `--name=mixed --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randwrite --bsrange=4k-1M ` +
      `--bs_unaligned=0 --iodepth=16 --numjobs=4 --size=32M --offset_increment=32M --verify=crc32c --verify_fatal=1 ` +
      `--do_verify=1 --randseed=1`,
    { timeoutMs: 100_000 },
  );
  assertEquals(result.status, 0, result.stderr);
  assertEquals(fioErrors(result), [0, 0, 0, 0]);
  const sum = (direction: "read" | "write") => result.jobs.reduce((total, job) => total + job[direction].io_bytes, 0);
  assert(sum("write") >= 128 * 2 ** 20, `fio wrote only ${sum("write")} bytes`);
  assert(sum("read") >= sum("write"), `fio verified only ${sum("read")} bytes`);
});

Deno.test("fio verifies buffered writes of 4k through the page cache", async () => {
  await using disk = await TestDisk.start({ name: "buffered", size_bytes: 64 * 2 ** 20 });
  const result = await fio(
    `--name=buffered --filename=${disk.path} --ioengine=psync --rw=randwrite --bs=4k --size=16M --fsync=64 ` +
      `--verify=crc32c --verify_fatal=1 --invalidate=1 --randseed=2`,
  );
  assertEquals([result.status, fioErrors(result)], [0, [0]], result.stderr);
});
