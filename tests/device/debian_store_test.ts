// A block device as the store of a disk, with the same content: udev looks at it whenever it wants, and its links lead to the
// disk; nobody can mount the store, after a reload neither.
// machine: debian
// time limit: 240 s
import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { configure, installUnit, isDebian, shown, uuid } from "./debian.ts";
import { assertWithin, figure, sh, waitForLink } from "./harness.ts";
import { dblock } from "./serving.ts";

const ignore = !isDebian();
/** udev tries for 180 s to lock a device that somebody else has locked for himself. */
const settleMs = 20_000;
const byUuid = `/dev/disk/by-uuid/${uuid}`;

/** A loop device, until it is disposed. */
async function loop(file: string): Promise<AsyncDisposable & { readonly path: string }> {
  await sh(`modprobe loop && truncate -s 96M ${file}`);
  const path = (await sh(`losetup --find --show ${file}`)).stdout.trim();
  return { path, [Symbol.asyncDispose]: async () => void await sh(`losetup --detach ${path}; rm ${file}`) };
}

/** As after a boot, udev looks at the store; then all events are handled, and the link by UUID leads to the disk. */
async function looksAtStore(store: string, disk: string): Promise<number> {
  const started = performance.now();
  await sh(`udevadm trigger --action=change ${store} && udevadm settle --timeout=100`, { timeoutMs: 120_000 });
  const tookMs = performance.now() - started;
  assertWithin(settleMs, tookMs, "udev has handled all events");
  assertEquals((await sh(`udevadm info --query=property --value --property=ID_FS_UUID ${store}`)).stdout.trim(), uuid);
  assertEquals(await Deno.realPath(byUuid), disk);
  return tookMs;
}

async function isSharedWithUdev(): Promise<void> {
  await using store = await loop("/srv/stored0.img");
  // udev sees what mkfs has done only if it watched before: it may still be at the loop's own event.
  await sh(`udevadm settle && mkfs.ext4 -q -U ${uuid} ${store.path}`);
  await sh(`udevadm trigger --action=change ${store.path} && udevadm settle`);
  await waitForLink(byUuid, store.path);
  await configure("stored0", store.path);
  await sh("systemctl start dblock@stored0");
  await waitForLink(byUuid, "/dev/stored0");
  let longestMs = 0;
  const looks = async () => longestMs = Math.max(longestMs, await looksAtStore(store.path, "/dev/stored0"));
  await looks();
  await sh(`mkdir -p /srv/stored0 && mount UUID=${uuid} /srv/stored0`);
  assertEquals((await sh("findmnt --noheadings --output=SOURCE /srv/stored0")).stdout, "/dev/stored0\n");
  for (const verb of ["reload", "restart"]) {
    const before = await shown("stored0", "MainPID");
    await sh(`systemctl ${verb} dblock@stored0`);
    assertNotEquals(await shown("stored0", "MainPID"), before);
    await looks();
    const mount = await sh(`mount ${store.path} /mnt`, { check: false });
    assertMatch(mount.stderr, /already mounted|busy/, verb);
    const second = await dblock(`serve ${store.path} --name stored1`);
    assertMatch(second.stderr, /^dblock serve: Cannot keep a disk in \S+: it is mounted, or somebody else's/, verb);
  }
  figure({ "longest udevadm settle beside a served store": [longestMs / 1000, "s"] });
  await sh("umount /srv/stored0 && systemctl stop dblock@stored0 && dblock destroy stored0");
}

Deno.test({
  name: "a block device as a store",
  ignore,
  async fn(t) {
    await using _installed = await installUnit();
    await t.step(
      "udev looks at it while it is served, its links lead to the disk, and nobody mounts it",
      isSharedWithUdev,
    );
  },
});
