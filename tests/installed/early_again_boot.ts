// One more boot of the machine whose /usr is on a disk of dblock, by the initial ramdisk that the package's upgrade has made.
// time limit: 300 s
import { checkBoot, untilWritten } from "./disks.ts";
import { checkEarly } from "./early.ts";
import { startLateWriter } from "./late_writer.ts";

Deno.test("all disks are mounted and clean, /usr among them, with what was written before", async () => {
  await checkBoot();
  await checkEarly();
});

Deno.test("somebody writes to /usr until he is killed, as the machine ends", async () => {
  await startLateWriter("/usr/count");
  await untilWritten("usr");
});
