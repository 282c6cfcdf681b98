// Packages are removed: not while a disk is in use, and then with all that they brought; what names the disks, and what is on
// them, stays. A purge takes the rest of what the packages made, and nothing of the user's.
// time limit: 300 s
import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { infoOf } from "../device/server.ts";
import { exists, sh } from "../device/harness.ts";
import { checkBoot, disks } from "./disks.ts";
import { show } from "./transcript.ts";

const removeMs = 120_000;

Deno.test("after the last boot all disks are mounted and clean", checkBoot);

Deno.test("the disk of the boot that kept one until its end can go by hand", async () => {
  await sh("rm -r /etc/dblock/late /etc/systemd/system/dblock@late.service /srv/late && systemctl daemon-reload");
});

Deno.test("dblock is not removed while a disk of it is used", async () => {
  const { status, stdout } = await show("apt-get remove --yes dblock", { check: false, timeoutMs: removeMs });
  assertNotEquals(status, 0);
  assertMatch(stdout, /dblock is not removed: these disks are in use: data home nested/);
  for (const { name, place } of disks) {
    await sh(`touch ${place}/still-there && sync ${place}`);
    assertEquals(infoOf(name)!.error_count, 0);
  }
});

Deno.test("a removal leaves the disks' files and what is on them", async () => {
  const names = (await sh("dpkg --listfiles dblock dblock-dkms")).stdout.split("\n");
  // The machine was made without documentation.
  const files = names.filter((path) => exists(path) && !Deno.statSync(path).isDirectory);
  // The server of a disk uses the file system that its store is on.
  for (const { name, place } of disks.toReversed()) await show(`umount ${place} && dblock destroy ${name}`);
  await show("apt-get remove --yes dblock dblock-dkms", { timeoutMs: removeMs });
  assertEquals(files.filter(exists), []);
  assertEquals(["/dev/data", "/dev/home", "/dev/nested", "/dev/dblockctl", "/sys/module/dblock"].filter(exists), []);
  assertEquals((await sh("dkms status && find /lib/modules /usr/src -name 'dblock*'")).stdout, "");
  assertEquals((await sh("systemctl list-units --plain --no-legend 'dblock@*'")).stdout, "");
  assertEquals((await sh("ls /etc/dblock")).stdout, "data\nhome\nnested\n");
});

Deno.test("a purge takes what the packages made, and nothing of the user's", async () => {
  await show("apt-get purge --yes dblock dblock-dkms", { timeoutMs: removeMs });
  assertEquals((await sh("dpkg-query --list 'dblock*' 2>&1", { check: false })).status, 1);
  assertEquals((await sh("ls /etc/dblock")).stdout, "data\nhome\nnested\n");
  const others = ["/srv/packages/*", "/project*", "/var/log/*", "/etc/dkms/*"].map((path) => `-not -path '${path}'`);
  const ours = `find / -xdev -regex '.*[/_-]dblock[^/]*' ${others.join(" ")}`;
  assertEquals((await sh(ours)).stdout, "/etc/dblock\n");
  await show("ls /etc/dblock /var/lib/disks");
  await show(`e2fsck -f -n ${disks[0]!.spec.replace(/\?.*/, "")}`);
});
