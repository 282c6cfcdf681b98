// On a whole Debian systemd mounts a disk by its UUID as soon as it appears, from a line of fstab and from a mount unit that
// names its server's service; the mount goes before its server does, and a disk that dies takes its mount along.
// machine: debian
// time limit: 240 s
import { assert, assertEquals } from "@std/assert";
import { isDebian, journalOf, stateOf, Units, uuid } from "./debian.ts";
import { assertWithin, exists, figure, sh, waitFor } from "./harness.ts";
import { Ramdisk, runRamdisk } from "./ramdisk.ts";

const ignore = !isDebian();
const place = "/srv/disk";
const unit = "srv-disk.mount";
const store = "/dev/shm/mount0";
/** systemd waits 90 s for a disk that does not appear. */
const mountMs = 10_000;

/** Adds a line to fstab for as long as the object lives. */
async function fstab(line: string): Promise<AsyncDisposable> {
  const before = exists("/etc/fstab") ? await Deno.readTextFile("/etc/fstab") : "";
  const write = async (text: string) => {
    await Deno.writeTextFile("/etc/fstab", text);
    await sh("systemctl daemon-reload");
  };
  await write(`${before}${line}\n`);
  return { [Symbol.asyncDispose]: () => write(before) };
}

/** A store with a file system in it, which a disk is made from. */
async function makeStore(): Promise<void> {
  await sh(`truncate --size=64M ${store} && mkfs.ext4 -q -U ${uuid} ${store}`);
}

async function isMounted(): Promise<boolean> {
  return (await sh(`findmnt --noheadings --output=SOURCE ${place}`, { check: false })).stdout.trim() === "/dev/mount0";
}

Deno.test({
  name: "a line of fstab by UUID is mounted when its disk appears",
  ignore,
  async fn() {
    await makeStore();
    await using _line = await fstab(`UUID=${uuid} ${place} ext4 nofail 0 0`);
    await sh(`systemctl start --no-block ${unit}`);
    assertEquals(await stateOf(unit), "inactive");
    await using disk = await Ramdisk.start({ name: "mount0", args: ["--store", store] });
    const tookMs = await waitFor("systemd has mounted it", isMounted, mountMs);
    figure({ "longest from a disk's appearance to its mount": [tookMs / 1000, "s"] });
    await sh(`cp /bin/bash ${place}`);

    // As the disk dies, so does the mount; the next disk of that UUID is mounted again.
    disk.child.kill("SIGKILL");
    await disk.end();
    await waitFor("the mount is gone", async () => !await isMounted() && await stateOf(unit) !== "active", mountMs);
    await using _next = await Ramdisk.start({ name: "mount0", args: ["--store", store] });
    await sh(`systemctl start ${unit}`);
    assert(await isMounted());
    await sh(`systemctl stop ${unit} && rm ${store}`);
    assertEquals((await runRamdisk("-d --name mount0")).status, 0);
  },
});

Deno.test({
  name: "a mount by UUID starts the service that serves its disk, and ends before it",
  ignore,
  async fn() {
    await makeStore();
    await using units = new Units();
    await units.writeRamdisk("mount0", `--store ${store} --on-death hold`);
    await using _line = await fstab(`UUID=${uuid} ${place} ext4 noauto,x-systemd.requires=mount0.service 0 0`);
    const started = performance.now();
    await sh(`systemctl start ${unit}`);
    // The program's start takes the most of it.
    assertWithin(30_000, performance.now() - started, "served and mounted");
    assert(await isMounted());
    await sh(`cp /bin/bash ${place}`);

    const stopped = performance.now();
    await sh("systemctl stop mount0.service");
    assertWithin(mountMs, performance.now() - stopped, "unmounted and left");
    assertEquals([await isMounted(), await stateOf("mount0.service")], [false, "inactive"], await journalOf("mount0"));
    await sh(`systemctl start ${unit} && cmp /bin/bash ${place}/bash && systemctl stop ${unit}`);
    assertEquals((await runRamdisk("-d --name mount0")).status, 0);
    await sh(`rm ${store}`);
  },
});
