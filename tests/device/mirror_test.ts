// A mirror of two block devices: each of them goes away and comes back under a load that verifies itself. The load sees no
// error, only what was missed is copied, and both halves are the same at the end.
// time limit: 240 s
import { assert, assertEquals } from "@std/assert";
import { type Device, info, MirrorBackend, RawBackend, serve } from "../../src/mod.ts";
import { fioLoop } from "./fio.ts";
import { sh, waitFor } from "./harness.ts";
import { MIB } from "./server.ts";

const sizeBytes = 64 * MIB;

/** A block device over a file: what is on it outlives it. */
async function startHalf(name: string): Promise<{ readonly device: Device; readonly disk: RawBackend }> {
  const disk = await RawBackend.open({ path: `/tmp/${name}.img`, sizeBytes });
  return { disk, device: await serve(disk.workers(), { name }) };
}

Deno.test("halves that go away and come back under load: no error, and only what was missed is copied", async () => {
  const names = ["half0", "half1"];
  const halves = new Map(await Promise.all(names.map(async (name) => [name, await startHalf(name)] as const)));
  const open = (name: string) => () => RawBackend.open({ path: `/dev/${name}` });
  const mirror = await MirrorBackend.open(names.map((name) => ({ name, open: open(name) })), {
    bitmapPath: "/tmp/mirror.bitmap",
    regionBytes: 64 * 1024,
    assumeSame: true, // both are new
    retryMs: 200,
  });
  const device = await serve(mirror, { name: "mirror0" });
  try {
    // A file system on it takes part: what it has is everywhere, not only where the load is.
    await sh(`mkfs.ext4 -q ${device.path} && mount ${device.path} /mnt && head -c 8M /dev/urandom >/tmp/mirror-in`);
    await sh("cp /tmp/mirror-in /mnt/before && sync");
    const load = fioLoop("mirror", "--filename=/mnt/load --rw=randwrite --bs=4k --iodepth=8 --size=1M --fsync=64");
    const written = async () => (await info("mirror0")).requests.write.count;
    const untilWritten = async (count: number) => {
      const before = await written();
      await waitFor(`${count} more writes`, async () => await written() >= before + count, 60_000);
    };
    const figures: string[] = [];
    for (const name of names) {
      await untilWritten(20);
      const before = mirror.status;
      const { device: gone, disk } = halves.get(name)!;
      // As if its cable had been pulled: what it was asked and had not answered fails.
      await gone.close({ force: true });
      disk.close();
      await waitFor(
        `${name} has left`,
        () => mirror.status.halves.some((half) => half.name === name && half.state === "left"),
      );
      await untilWritten(50);
      assertEquals(mirror.status.state, "degraded");
      const missed = mirror.status;
      halves.set(name, await startHalf(name));
      await waitFor(`${name} has everything`, () => mirror.status.state === "in sync", 60_000);
      const mib = (bytes: number) => (bytes / MIB).toFixed(1);
      const resynced = mirror.status.resyncedBytes - before.resyncedBytes;
      figures.push(
        `${name} was away for ${mib(missed.writtenBytes - before.writtenBytes)} MiB of writes; ` +
          `${mib(resynced)} MiB of ${mib(sizeBytes)} were re-synced`,
      );
      assert(resynced > 0 && resynced < sizeBytes / 2, `${resynced} bytes were copied`);
    }
    await untilWritten(20);
    assertEquals(await load.stop(), "");
    await sh("cmp /tmp/mirror-in /mnt/before && umount /mnt");
    const { counts: { errors } } = await info("mirror0");
    console.log(`mirror: ${errors} errors; ${figures.join("; ")}`);
    assertEquals(errors, 0);
  } finally {
    await sh("umount /mnt 2>/dev/null; true");
    await device.close({ force: true });
    for (const { device: half, disk } of halves.values()) {
      await half.close({ force: true });
      disk.close();
    }
  }
  assertEquals(mirror.status.markedBytes, 0, "it was closed, and is in sync");
  await sh("cmp /tmp/half0.img /tmp/half1.img && fsck.ext4 -fn /tmp/half0.img");
  await sh("rm /tmp/half0.img /tmp/half1.img /tmp/mirror-in /tmp/mirror.bitmap");
});
