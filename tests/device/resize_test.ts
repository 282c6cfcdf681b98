// RESIZE of a live disk, both ways: everybody sees the new size, a mounted ext4 grows into it, and what lies past the
// end of a smaller one is an error, not data. Hard case C11.
import { assertEquals } from "@std/assert";
import { ERRNO } from "../../src/errors.ts";
import { TestDisk } from "./disk.ts";
import { sh } from "./harness.ts";
import { destroyDevice, MIB, resizeDevice } from "./server.ts";
import { Memory } from "./syscall.ts";

const sizeOf = async (path: string) => Number((await sh(`blockdev --getsize64 ${path}`)).stdout);

Deno.test("a mounted ext4 grows with its disk", async () => {
  await using disk = await TestDisk.start({ name: "grow0", size_bytes: 32 * MIB, store: new Memory(64 * MIB) });
  await sh(`mkfs.ext4 -q ${disk.path} && mount ${disk.path} /mnt`);
  try {
    assertEquals(resizeDevice(disk.queues[0]!.fd, 64 * MIB), 0);
    assertEquals([await sizeOf(disk.path), disk.info().size_bytes], [64 * MIB, 64 * MIB]);
    await sh(`resize2fs ${disk.path} && head -c 40M /dev/urandom >/tmp/grown && cp /tmp/grown /mnt`);
    await sh(`umount /mnt && fsck.ext4 -fn ${disk.path} && mount ${disk.path} /mnt && cmp /tmp/grown /mnt/grown`);
  } finally {
    await sh("umount /mnt; rm -f /tmp/grown", { check: false });
  }
});

Deno.test("a smaller disk ends where it says", async () => {
  await using disk = await TestDisk.start({ name: "shrink0", size_bytes: 16 * MIB });
  const write = (block: number) =>
    sh(`dd if=/dev/zero of=${disk.path} bs=64k count=1 seek=${block} oflag=direct`, { check: false });
  assertEquals((await write(255)).status, 0);
  assertEquals(resizeDevice(disk.queues[0]!.fd, MIB), 0);
  assertEquals(await sizeOf(disk.path), MIB);
  assertEquals([(await write(15)).status, (await write(16)).status], [0, 1]);
  const past = disk.seen.filter((request) => request.offsetBytes + request.lengthBytes > MIB);
  assertEquals(past.at(-1)!.offsetBytes, 255 * 65536);
  assertEquals(resizeDevice(disk.queues[0]!.fd, MIB), 0);
});

Deno.test("a destroyed disk cannot be resized", async () => {
  const disk = await TestDisk.start({ name: "shrink1" });
  assertEquals(resizeDevice(disk.queues[0]!.fd, 8 * MIB), 0);
  const fd = disk.queues[0]!.fd;
  await disk.pause();
  assertEquals(await destroyDevice("shrink1"), 0);
  assertEquals(resizeDevice(fd, 8 * MIB), ERRNO.ENODEV);
  await disk.abandon();
});
