// One more boot: all disks are mounted and clean, with what was written before. The machine ends while they are written to.
// time limit: 300 s
import { sh } from "../device/harness.ts";
import { checkBoot, disks, fill } from "./disks.ts";

Deno.test("after a reboot all disks are mounted and clean", checkBoot);

Deno.test("what is written when the machine ends is there at the next boot", async () => {
  for (const disk of disks) await fill(disk);
  // Somebody who writes until he is killed, as the machine ends.
  for (const { name, place } of disks) {
    const write = `while :; do dd if=/dev/zero of=${place}/busy bs=64k count=64 conv=fsync status=none; done`;
    await sh(`systemd-run --quiet --unit=busy-${name} bash -c '${write}'`);
  }
});
