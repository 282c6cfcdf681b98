// Changing the scheduler, nr_requests and the number of CPUs under verified I/O costs no error and no stall.
// Hard cases D4, D5.
import { assert, assertEquals } from "@std/assert";
import { DBLOCK_DEVICE_DIRECT } from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { fio, fioErrors, slowestMs } from "./fio.ts";
import { assertWithin, sh } from "./harness.ts";
import { infoOf, MIB } from "./server.ts";

Deno.test("a disk begins without an I/O scheduler, with one queue too, and takes the one it is given", async () => {
  await sh("modprobe mq-deadline", { check: false }); // a module on some kernels, part of others
  for (const queue_count of [1, 2]) {
    await using disk = await TestDisk.start({ name: "sched0", queue_count });
    const file = `/sys/block/${disk.name}/queue/scheduler`;
    const words = (await sh(`cat ${file}`)).stdout.trim().split(" ");
    assert(words.includes("[none]"), words.join(" "));
    const other = words.find((word) => word !== "[none]");
    assert(other !== undefined, "this kernel has a scheduler");
    await sh(`echo ${other} >${file} && grep -q "\\[${other}\\]" ${file}`);
    await sh(`dd if=/dev/zero of=${disk.path} bs=64k count=4 oflag=direct status=none`);
    await sh(`echo none >${file} && grep -q "\\[none\\]" ${file}`);
  }
});

Deno.test("scheduler, nr_requests and CPUs change under fio verify", async () => {
  const flags = DBLOCK_DEVICE_DIRECT;
  await using disk = await TestDisk.start({
    name: "sched",
    size_bytes: 64 * MIB,
    queue_count: 2,
    queue_depth: 128,
    flags,
  });
  const running = fio(
    `--name=sched --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randwrite --bs=4k --iodepth=32 --numjobs=2 ` +
      `--size=32M --offset_increment=32M --time_based --runtime=5 --verify=crc32c --verify_fatal=1 --verify_backlog=512`,
  );
  const changes = `
    cd /sys/block/sched/queue
    for round in 1 2 3; do
      for scheduler in $(tr -d '[]' <scheduler); do
        echo $scheduler >scheduler
        grep -q "\\[$scheduler\\]" scheduler
        for depth in 4 64 128; do echo $depth >nr_requests || true; done
      done
      if [ -e /sys/devices/system/cpu/cpu1/online ]; then
        echo 0 >/sys/devices/system/cpu/cpu1/online; sleep 0.3
        echo 1 >/sys/devices/system/cpu/cpu1/online; sleep 0.3
      fi
    done`;
  await sh(`set -e; ${changes}`);
  const result = await running;
  assertEquals([result.status, ...fioErrors(result)], [0, 0, 0], result.stderr);
  assertWithin(5_000, slowestMs(result), "the slowest request ended");
  assertEquals(infoOf("sched")!.error_count, 0);
  assertEquals((await sh("cat /sys/block/sched/inflight")).stdout.trim().split(/\s+/), ["0", "0"]);
});
