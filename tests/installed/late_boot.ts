// A file system on a disk of dblock that nobody unmounts before the last step of a shutdown, in which all processes are killed: its
// server is the one that the manual tells to make for that. Somebody writes to it until he is killed there, and tells the console
// what was acknowledged; late.ts looks at what is left, on the host.
// time limit: 300 s
import { assertEquals, assertMatch } from "@std/assert";
import { stateOf } from "../device/debian.ts";
import { sh } from "../device/harness.ts";
import { infoOf } from "../device/server.ts";
import { checkBoot, untilWritten } from "./disks.ts";
import { lateStore } from "./late.ts";
import { startLateWriter, writeLateUnit } from "./late_writer.ts";
import { note, show } from "./transcript.ts";

Deno.test("before that all disks are mounted and clean", checkBoot);

Deno.test("a file system that is mounted until the end has its server until then", async () => {
  note("a file system that stays mounted until the last step of a shutdown");
  await show(`echo '/dev/disk/by-id/virtio-${lateStore}' >/etc/dblock/late`);
  // As man dblock has it.
  await show(
    String.raw`sed -e '/^Conflicts=shutdown.target/d' -e 's/^\[Service\]$/&\nSlice=system.slice/' ` +
      "/lib/systemd/system/dblock@.service >/etc/systemd/system/dblock@late.service",
  );
  await show("systemctl daemon-reload && systemctl start dblock@late", { timeoutMs: 60_000 });
  await sh("mkfs.ext4 -q /dev/late && mkdir -p /srv/late");
  await writeLateUnit(
    "srv-late.mount",
    "[Mount]\nWhat=/dev/late\nWhere=/srv/late\nType=ext4\n",
    "Requires=dblock@late.service\nAfter=dblock@late.service\n",
  );
  await show("systemctl start srv-late.mount && findmnt --noheadings /srv/late");
  assertMatch(Deno.readTextFileSync(`/proc/${infoOf("late")!.server_pid}/cmdline`), /^@dblock\0serve\0/);

  await startLateWriter("/srv/late/count", "After=srv-late.mount\n");
  await untilWritten("late");
  assertEquals([await stateOf("srv-late.mount"), await stateOf("late-writer")], ["active", "active"]);
});
