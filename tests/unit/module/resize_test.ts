// SPDX-License-Identifier: MIT
// device.resize() with a Backend object, on a fake kernel.
import { assertEquals, assertRejects } from "@std/assert";
import { DBLOCK_IOC_RESIZE, DBLOCK_OPERATION_READ as READ } from "../../../src/module/abi.ts";
import type { Backend } from "../../../src/disk/backend.ts";
import { DblockError, ERRNO } from "../../../src/disk/errors.ts";
import { serveOn } from "../../../src/module/serve.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";

const MIB = 2 ** 20;

/** A disk that notes its sizes, with the size that the kernel had at that moment. */
function make() {
  const kernel = new FakeKernel();
  const seen: [asked: number, kernelHas: number | undefined][] = [];
  const disk: Backend = {
    sizeBytes: MIB,
    read: (buffer) => void buffer.fill(1),
    write: () => {},
    resize: (sizeBytes) => void seen.push([sizeBytes, kernel.devices.get("a")?.params.size_bytes]),
  };
  const readAt = (offsetBytes: number) =>
    kernel.submit("a", { operation: READ, flags: 0, offsetBytes, lengthBytes: 512, data: new Uint8Array(512) });
  return { kernel, seen, disk, readAt, start: () => serveOn(kernel, disk, { name: "a", log: () => {} }) };
}

Deno.test("resize() grows the backend before the disk, and shrinks it after", async () => {
  const { seen, readAt, start } = make();
  await using device = await start();
  assertEquals(await readAt(MIB), ERRNO.EIO);
  await Promise.all([device.resize(2 * MIB), device.resize(512)]); // one after the other
  assertEquals(seen, [[2 * MIB, MIB], [512, 512]]);
  assertEquals([device.sizeBytes, (await device.info()).sizeBytes], [512, 512]);
  assertEquals([await readAt(0), await readAt(512)], [0, ERRNO.EIO]);
  await device.resize(MIB);
  assertEquals(await readAt(MIB - 512), 0);
});

Deno.test("resize() leaves everything as it was when the kernel or the backend refuses", async () => {
  const { kernel, seen, disk, readAt, start } = make();
  await using device = await start();
  kernel.refusedIoctls.set(DBLOCK_IOC_RESIZE, ERRNO.ENODEV);
  await assertRejects(() => device.resize(2 * MIB), DblockError, "Cannot resize /dev/a: the device is gone");
  assertEquals(seen, [[2 * MIB, MIB], [MIB, MIB]]);
  kernel.refusedIoctls.clear();
  assertEquals([device.sizeBytes, await readAt(MIB)], [MIB, ERRNO.EIO]);
  assertEquals(disk.sizeBytes, MIB);
});

Deno.test("resize() tells both errors when the backend cannot go back either", async () => {
  const { kernel, disk, start } = make();
  await using device = await start();
  kernel.refusedIoctls.set(DBLOCK_IOC_RESIZE, ERRNO.ENOMEM);
  disk.resize = (sizeBytes) => {
    if (sizeBytes === MIB) throw new Error("cannot go back");
  };
  await using other = await serveOn(kernel, disk, { name: "b", log: () => {} });
  const error = await assertRejects(() => other.resize(2 * MIB), SuppressedError);
  assertEquals(String(error.error), "Error: cannot go back");
  assertEquals((error.suppressed as DblockError).code, "ENOMEM");
  assertEquals(device.sizeBytes, MIB);
});

Deno.test("resize() refuses sizes that are no disk's, and backends that stay as they are", async () => {
  const { kernel, seen, disk, start } = make();
  {
    await using device = await start();
    for (const sizeBytes of [0, 511, 513, -512, NaN, 2 ** 53]) {
      const error = await assertRejects(() => device.resize(sizeBytes), DblockError, "not a positive multiple of 512");
      assertEquals(error.code, "EINVAL");
    }
    assertEquals(seen, []);
  }
  const { resize: _, ...fixed } = disk;
  await using device = await serveOn(kernel, fixed, { name: "b", log: () => {} });
  const error = await assertRejects(() => device.resize(MIB), DblockError, "its backend cannot be resized");
  assertEquals(error.code, "EOPNOTSUPP");
});
