// /usr on a disk of dblock, at a boot by the machine's own initial ramdisk: what of the server can be asked after the switch of
// roots, what is refused and with which words, and that an upgrade of the package leaves the server alone.
// time limit: 1200 s
import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { figure, sh, waitFor } from "../device/harness.ts";
import { infoOf } from "../device/server.ts";
import { checkBoot, untilWritten } from "./disks.ts";
import { checkEarly, earlyServer } from "./early.ts";
import { startLateWriter } from "./late_writer.ts";
import { note, show } from "./transcript.ts";

const upgradeMs = 900_000;

/** What the server of /usr has said at this boot. */
async function said(): Promise<string> {
  return (await sh("journalctl --boot --identifier=dblock --output=cat")).stdout;
}

Deno.test("all disks are mounted and clean, /usr among them", async () => {
  note("a boot by the machine's own initial ramdisk");
  await checkBoot();
  await checkEarly();
});

Deno.test("the server is asked as any other, and says what it cannot do", async () => {
  const pid = await earlyServer();
  await show("dblock info usr");
  await show("systemctl status --no-pager dblock@usr", { check: false });
  const reload = await show("dblock reload usr", { check: false });
  assertNotEquals(reload.status, 0);
  assertMatch(reload.stdout, /its server is the initial ramdisk's, .*type: update-initramfs -u, and reboot/);
  const destroy = await show("dblock destroy usr", { check: false });
  assertNotEquals(destroy.status, 0);
  assertMatch(destroy.stdout, /mounted on \/usr/);
  const { stdout } = await sh("dblock metrics");
  assertMatch(stdout, /^dblock_reads_completed_total\{.*disk="usr".*\} \d+$/m);
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  figure({ "largest memory of the server of /usr": [Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024, "MiB"] });
  // It looks at the disk by its way to the machine's /dev; and goes on.
  await sh(`kill -TSTP ${pid}`);
  await waitFor(
    "the server has said why it does not stop",
    async () => /^Cannot stop serving \/dev\/usr: it is in use/m.test(await said()),
  );
  await show("systemctl stop dblock@usr");
  await show("dblock doctor");
  assertEquals(await earlyServer(), pid);
});

Deno.test("what is written to /usr is read back, from the disk", async () => {
  await sh(
    "cp /usr/bin/perl /usr/perl && sync /usr/perl && echo 3 >/proc/sys/vm/drop_caches && cmp /usr/bin/perl /usr/perl",
  );
  await sh("rm /usr/perl");
});

Deno.test("the package's upgrade leaves the server alone, and makes the initial ramdisk anew", async () => {
  const pid = await earlyServer();
  const initrd = `/boot/initrd.img-${Deno.osRelease()}`;
  const before = Deno.statSync(initrd).mtime!;
  const { stdout } = await show("apt-get install --yes --reinstall ./dblock_*.deb", {
    timeoutMs: upgradeMs,
    folder: "/srv/packages/new",
  });
  assertStringIncludes(stdout, "update-initramfs: Generating ");
  assert(Deno.statSync(initrd).mtime! > before);
  assertEquals(await earlyServer(), pid);
  assertEquals(infoOf("usr")!.error_count, 0);
});

Deno.test("dblock is not removed while /usr is on a disk of it", async () => {
  const { status, stdout } = await show("apt-get remove --yes dblock", { check: false, timeoutMs: 120_000 });
  assertNotEquals(status, 0);
  assertMatch(stdout, /dblock is not removed: these disks are in use: .*usr/);
});

Deno.test("somebody writes to /usr until he is killed, as the machine ends", async () => {
  await startLateWriter("/usr/count");
  await untilWritten("usr");
});
