/**
 * The machine whose /usr is on a disk of dblock, which its own initial ramdisk serves: what there is to see of it after a boot.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { DBLOCK_STATE_LIVE } from "../../src/module/abi.ts";
import { stateOf } from "../device/debian.ts";
import { sh } from "../device/harness.ts";
import { infoOf } from "../device/server.ts";
import { show } from "./transcript.ts";

/** Of its file system. */
export const EARLY_UUID = "e4a1c0de-7d3f-4c55-8b1a-2f6e9d0c7b88";
/** Where the machine keeps how its /usr was when it was moved. */
export const earlySums = "/var/lib/disks/usr.SHA256SUMS";

/** The number of the server's process, which the initial ramdisk has started. */
export async function earlyServer(): Promise<number> {
  const { server_pid: pid, state } = infoOf("usr")!;
  assertEquals(state, DBLOCK_STATE_LIVE);
  assertMatch(
    Deno.readTextFileSync(`/proc/${pid}/cmdline`),
    /^@dblock\0serve\0--config\0\/etc\/dblock\/usr\0--initrd\0/,
  );
  // Its root is the ramdisk's, where there is nothing but the way to what the kernel shows, and where the machine's root was mounted.
  assertEquals((await sh(`ls /proc/${pid}/root/`)).stdout.trim().split("\n"), ["dev", "proc", "root", "run", "sys"]);
  // It is older than the first process of the machine's own systemd.
  const journald = Number((await sh("systemctl show --property=MainPID --value systemd-journald")).stdout);
  assert(pid < journald, `${pid} < ${journald}`);
  return pid;
}

/** /usr is what it was, on the disk, with that server; no unit has failed, and the unit of the disk has started no other. */
export async function checkEarly(): Promise<void> {
  await show("findmnt /usr && dblock list");
  assertEquals((await sh("findmnt --noheadings --output=SOURCE,OPTIONS /usr")).stdout.split(/[\s,]+/).slice(0, 2), [
    "/dev/usr",
    "rw",
  ]);
  const pid = await earlyServer();
  await sh(`sha256sum --quiet --check ${earlySums}`, { timeoutMs: 60_000 });
  assertMatch((await sh("dblock list")).stdout, new RegExp(`^/dev/usr .* live +${pid} \\(initrd\\) `, "m"));
  assertStringIncludes((await sh("dblock info usr")).stdout, "its server is the initial ramdisk's");
  assertEquals(Deno.readLinkSync("/run/dblock/initrd/usr"), `/proc/${pid}`);
  await sh("systemctl start dblock@usr");
  assertEquals([await stateOf("dblock@usr"), infoOf("usr")!.server_pid], ["inactive", pid]);
  assertEquals((await sh("systemctl list-units --failed --plain --no-legend")).stdout, "");
  // What it has to say is in the journal, as its own.
  assertMatch((await sh("journalctl --boot --identifier=dblock --output=cat")).stdout, /^\/dev\/usr is ready: /m);
}
