// No wake-up is lost: with one request a job the server falls asleep and is woken again and again, and a wake-up that went
// missing would be a request that waits for the next one, or for ever. Hard case B10.
import { scaled } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { stallMs, wakeAgain } from "./wakeups.ts";

const seconds = scaled(3);

for (const jobs of [40, 3, 1]) {
  Deno.test(`${jobs} jobs with one request each never wait for ${stallMs / 1000} s`, async () => {
    await using _disk = await Ramdisk.start({ name: "wakeup", args: ["--size", "64M", "--timeout", "0"] });
    await wakeAgain("wakeup", { jobs, seconds });
  });
}
