// Force destroy of a mounted file system that is being written to takes at most 5 s, and umount returns after it.
// Hard cases C1, C2.
// dmesg may have: (EXT4-fs|XFS|Buffer I/O|JBD2|Aborting journal).*
import { assertEquals } from "@std/assert";
import { DBLOCK_DEVICE_DIRECT, DBLOCK_DEVICE_WRITE_CACHE } from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, exists, figure, scaled, sh } from "./harness.ts";
import { destroyDevice, MIB } from "./server.ts";

const flags = DBLOCK_DEVICE_DIRECT | DBLOCK_DEVICE_WRITE_CACHE;

const rounds = scaled(5);

for (let round = 1; round <= rounds; round++) {
  const type = round % 2 ? "ext4" : "xfs";
  Deno.test(`force destroy ${round} of a dirty file system that is being written to: ${type}`, async () => {
    await using disk = await TestDisk.start({ name: "dirty", size_bytes: 512 * MIB, queue_count: 2, flags });
    await sh(`mkfs.${type} -q ${disk.path} && mount ${disk.path} /mnt`);
    try {
      const writer = sh("while cp -r /data/share/doc /mnt/$((n++)); do :; done");
      const syncer = sh("while sync -f /mnt; do sleep 0.1; done");
      await sh("until [ -e /mnt/1 ]; do sleep 0.1; done");

      const started = performance.now();
      assertEquals(await destroyDevice("dirty", { force: true }), 0);
      const tookMs = performance.now() - started;
      figure({ "force destroys of a mounted dirty file system": 1, "longest force destroy": [tookMs / 1000, "s"] });
      assertWithin(5_000, tookMs, "destroyed");
      assertEquals(exists(disk.path), false);
      // Both loops end by their first error, and hang nowhere.
      await Promise.all([writer, syncer]);
    } finally {
      const started = performance.now();
      await sh("umount /mnt");
      assertWithin(5_000, performance.now() - started, "unmounted");
    }
  });
}
