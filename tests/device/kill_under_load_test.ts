// kill -9 of the server under load: every submitter gets an error within 5 s, the device goes, and the module unloads.
import { assert, assertEquals } from "@std/assert";
import { fio, fioErrors } from "./fio.ts";
import { assertWithin, exists, kernelLinesSince, markKernelLog, sh, waitFor } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { infoOf } from "./server.ts";

const EIO = 5;

Deno.test("kill -9 of dblock-ramdisk under fio ends in errors and in the device's removal", async () => {
  const mark = markKernelLog();
  await using disk = await Ramdisk.start({ name: "killed", args: ["--size", "256M", "--timeout", "0"] });
  const running = fio(
    `--name=load --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randrw --bs=4k --iodepth=32 --numjobs=3 ` +
      `--size=64M --offset_increment=64M --time_based --runtime=60`,
  );
  // A job that comes after the end would make a file of that name.
  await waitFor("all three jobs are at it", () => {
    const { requests, open_count } = infoOf("killed")!;
    return requests[0]! > 500 && open_count >= 3;
  });
  disk.child.kill("SIGKILL");
  const killedAt = performance.now();
  const result = await running;
  assertWithin(5_000, performance.now() - killedAt, "fio ended");
  // What was in flight ends in ENODEV (removed_test.ts), what comes after it in EIO or ENXIO.
  assert(fioErrors(result).every((error) => [EIO, 6, 19].includes(error)), `fio says ${fioErrors(result)}`);
  await waitFor("the device is gone", () => !exists(disk.path) && infoOf("killed") === undefined, 5_000);
  const said = kernelLinesSince(mark).filter((line) => line.includes("dblock: killed: the server"));
  assertEquals(said.length, 1, said.join("\n"));

  await disk.end();
  await sh("rmmod dblock");
  await sh("insmod kmod/dblock.ko");
});
