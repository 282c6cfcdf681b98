// device.resize() of the SDK: everybody sees the new size, and a mounted ext4 grows into it.
import { assertEquals } from "@std/assert";
import { serve } from "../../src/mod.ts";
import { sh } from "./harness.ts";
import { MIB } from "./server.ts";

Deno.test("a disk served by serve() grows under a mounted ext4, and shrinks when nobody has it", async () => {
  let store = new Uint8Array(32 * MIB);
  await using device = await serve({
    sizeBytes: store.length,
    read: (buffer, offset) => buffer.set(store.subarray(offset, offset + buffer.length)),
    write: (buffer, offset) => store.set(buffer, offset),
    resize: (sizeBytes) => {
      const before = store;
      store = new Uint8Array(sizeBytes);
      store.set(before.subarray(0, sizeBytes));
    },
  }, { name: "sized" });
  const sizeOf = async () => Number((await sh(`blockdev --getsize64 ${device.path}`)).stdout);
  await sh(`mkfs.ext4 -q ${device.path} && mount ${device.path} /mnt`);
  try {
    await device.resize(64 * MIB);
    assertEquals([await sizeOf(), device.sizeBytes, (await device.info()).sizeBytes], [64 * MIB, 64 * MIB, 64 * MIB]);
    await sh(`resize2fs ${device.path} && head -c 40M /dev/urandom >/tmp/grown && cp /tmp/grown /mnt && sync`);
    await sh("umount /mnt");
    await sh(`fsck.ext4 -fn ${device.path} && mount ${device.path} /mnt && cmp /tmp/grown /mnt/grown`);
  } finally {
    await sh("umount /mnt", { check: false });
  }
  await device.resize(MIB);
  assertEquals([await sizeOf(), store.length], [MIB, MIB]);
});
