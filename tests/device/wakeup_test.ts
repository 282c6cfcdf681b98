// No wake-up is lost: with one request a job the server falls asleep and is woken again and again, and a wake-up that went
// missing would be a request that waits for the next one, or for ever. Hard case B10.
import { assert, assertEquals } from "@std/assert";
import { fio, fioErrors } from "./fio.ts";
import { assertWithin, figure, scaled } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { infoOf } from "./server.ts";

const seconds = scaled(3);
const stallMs = 5_000;

for (const jobs of [40, 3, 1]) {
  Deno.test(`${jobs} jobs with one request each never wait for ${stallMs / 1000} s`, async () => {
    await using disk = await Ramdisk.start({ name: "wakeup", args: ["--size", "64M", "--timeout", "0"] });
    let [longestMs, wakes] = [0, 0];
    // Few, if the jobs leave it little of the CPUs: then a batch has a request of each of them, and it takes longer.
    for (let run = 0; run < 10 && wakes <= 20 * seconds; run++) {
      // Pauses of no particular length, so that the server is met at every stage of its falling asleep.
      const result = await fio(
        `--name=wakeup --filename=${disk.path} --direct=1 --ioengine=psync --rw=randrw --bs=4k --numjobs=${jobs} ` +
          `--thinktime=${jobs * 60}us --thinktime_blocks_type=issue --time_based --runtime=${seconds} --size=64M`,
        { timeoutMs: (seconds + 60) * 1000 },
      );
      assertEquals([result.status, ...fioErrors(result)], [0, ...Array(jobs).fill(0)], result.stderr);
      const longest = Math.max(...result.jobs.flatMap(({ read, write }) => [read.lat_ns.max, write.lat_ns.max])) / 1e6;
      longestMs = Math.max(longestMs, longest);
      wakes = infoOf("wakeup")!.batch_count;
    }
    figure({ "times the server was woken": wakes, "longest wait": [longestMs / 1000, "s"] });
    assert(wakes > 20 * seconds, `the server was woken ${wakes} times only`);
    assertWithin(stallMs, longestMs, "a request was answered");
  });
}
