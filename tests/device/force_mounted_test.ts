// Force destroy of a mounted file system that is being written to takes at most 5 s, and umount returns after it.
// dmesg may have: (EXT4-fs|XFS|Buffer I/O|JBD2|Aborting journal).*
import { assertEquals } from "@std/assert";
import { assertWithin, exists, sh } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { destroyDevice } from "./server.ts";

for (const { type, mkfs } of [{ type: "ext4", mkfs: "mkfs.ext4 -q" }, { type: "xfs", mkfs: "mkfs.xfs -q" }]) {
  Deno.test(`force destroy of a dirty ${type} that is being written to`, async () => {
    await using disk = await Ramdisk.start({ name: "dirty", args: ["--size", "512M"] });
    await sh(`${mkfs} ${disk.path} && mount ${disk.path} /mnt`);
    try {
      const writer = sh("while cp -r /data/share/doc /mnt/$((n++)); do :; done");
      const syncer = sh("while sync -f /mnt; do sleep 0.1; done");
      await sh("until [ -e /mnt/1 ]; do sleep 0.1; done");

      const started = performance.now();
      assertEquals(await destroyDevice("dirty", { force: true }), 0);
      assertWithin(5_000, performance.now() - started, "destroyed");
      assertEquals(exists(disk.path), false);
      assertEquals((await disk.end()).code, 0);
      // Both loops end by their first error, and hang nowhere.
      await Promise.all([writer, syncer]);
    } finally {
      const started = performance.now();
      await sh("umount /mnt");
      assertWithin(5_000, performance.now() - started, "unmounted");
    }
  });
}
