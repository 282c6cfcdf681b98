// What fio wrote in blocks of 4k to 1M from several jobs at once reads back with the right checksums.
// time limit: 300 s
// Ordering between overlapping writes in flight is not covered: each job has a part of its own.
import { assert, assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { fio, fioErrors } from "./fio.ts";
import { figure, scaled } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { MIB } from "./server.ts";

const GIB = 2 ** 30;

const rounds = scaled(2);

Deno.test("fio verifies crc32c of mixed sizes from four jobs", async () => {
  await using disk = await Ramdisk.start({ name: "verify", args: ["--size", "256M"] });
  for (let round = 0; round < rounds; round++) {
    const seed = crypto.getRandomValues(new Uint16Array(1))[0]!;
    const result = await fio(
      `--name=mixed --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randwrite --bsrange=4k-1M ` +
        `--bs_unaligned=0 --iodepth=16 --numjobs=4 --size=64M --offset_increment=64M --verify=crc32c --verify_fatal=1 ` +
        `--do_verify=1 --randseed=${seed}`,
      { timeoutMs: 100_000 },
    );
    assertEquals(result.status, 0, `seed ${seed}: ${result.stderr}`);
    assertEquals(fioErrors(result), [0, 0, 0, 0], `seed ${seed}`);
    const sum = (direction: "read" | "write") => result.jobs.reduce((total, job) => total + job[direction].io_bytes, 0);
    assert(sum("write") >= 256 * MIB, `fio wrote only ${sum("write")} bytes`);
    assert(sum("read") >= sum("write"), `fio verified only ${sum("read")} bytes`);
    figure({ "verified I/O": [sum("read") / GIB, "GiB"] });
  }
});

Deno.test("fio verifies buffered writes of 4k through the page cache", async () => {
  await using disk = await TestDisk.start({ name: "buffered", size_bytes: 64 * MIB });
  const result = await fio(
    `--name=buffered --filename=${disk.path} --ioengine=psync --rw=randwrite --bs=4k --size=4M --fsync=64 ` +
      `--verify=crc32c --verify_fatal=1 --invalidate=1 --randseed=2`,
  );
  assertEquals([result.status, fioErrors(result)], [0, [0]], result.stderr);
});
