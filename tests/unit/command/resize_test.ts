// SPDX-License-Identifier: MIT
/** `dblock resize` where it is refused, on a fake kernel. What grows is in tests/device/command_test.ts. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { NullBackend } from "../../../src/backends/null.ts";
import { readItems } from "../../../src/command/command.ts";
import { DISK_OPTIONS, readDisks } from "../../../src/command/disk_plan.ts";
import { resizeOne } from "../../../src/command/resize.ts";
import { ServedDisk } from "../../../src/command/served_disk.ts";
import { DblockError } from "../../../src/disk/errors.ts";
import { serveNbd } from "../../../src/nbd/server.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";

const KIB = 1024;
const folder = await Deno.makeTempDir();
Deno.test.afterAll(() => Deno.remove(folder, { recursive: true }));

async function serve(words: string) {
  const kernel = new FakeKernel();
  const [plan] = readDisks(readItems(words.split(" "), DISK_OPTIONS));
  const disk = await ServedDisk.start(plan!, { kernel, signal: new AbortController().signal });
  const [device] = disk.devices;
  assert(device !== undefined);
  return {
    kernel,
    disk,
    device,
    /** It goes on with the server that it has, as large as this. */
    async assertServed(sizeBytes: number) {
      assert(disk.devices[0] === device);
      assertEquals([(await device.info()).sizeBytes, disk.sizeBytes], [sizeBytes, sizeBytes]);
    },
    [Symbol.asyncDispose]: () => device.close(),
  };
}

Deno.test("resize() refuses what has the size that it had also when it is opened anew: an NBD export, a pattern", async () => {
  const path = `${folder}/nbd.sock`;
  await using _server = await serveNbd({ x: new NullBackend({ sizeBytes: 64 * KIB }) }, {
    address: { transport: "unix", path },
  });
  for (const spec of [`nbd+unix:///x?socket=${path}`, "pattern:64KiB"]) {
    await using served = await serve(`${spec} --name a`);
    const error = await assertRejects(() => served.disk.resize(128 * KIB), DblockError, `the size of ${spec} stays`);
    assertEquals([error.code, error.message.startsWith("Cannot resize /dev/a to 131072 bytes")], ["EOPNOTSUPP", true]);
    await served.assertServed(64 * KIB);
  }
});

Deno.test("resize() refuses a disk with a cache of its own before its file grows, and grows it in a file that need not be mapped", async () => {
  const path = `${folder}/disk.img`;
  const cached = (spec: string) => serve(`${spec} --name a --with cache=mode=write-back`);
  {
    await using served = await cached(`${path}?size=64KiB`);
    const error = await assertRejects(() => served.disk.resize(128 * KIB), DblockError, "in a cache");
    assertEquals([error.code, error.message.includes("(serve it with ?raw: ")], ["EOPNOTSUPP", true]);
    await served.assertServed(64 * KIB);
    assertEquals((await Deno.stat(path)).size, 64 * KIB);
  }
  await using served = await cached(`${path}?raw`);
  await served.disk.resize(128 * KIB);
  await served.assertServed(128 * KIB);
});

Deno.test("a disk that is meant by its id is resized under no other's name", async () => {
  await using served = await serve("pattern:64KiB --name a");
  const { disk, device, kernel } = served;
  for (
    const other of [() => disk.resize(64 * KIB, device.id + 1), () => resizeOne("a", 64 * KIB, device.id + 1, kernel)]
  ) {
    const error = await assertRejects(other, DblockError, "/dev/a: the device");
    assertEquals(error.code, "ESTALE");
  }
  await disk.resize(64 * KIB, device.id); // which it has
  await served.assertServed(64 * KIB);
});
