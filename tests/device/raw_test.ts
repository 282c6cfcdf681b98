// A RawBackend is served by Workers: a file, also with O_DIRECT, and a block device, which is a disk of its own here. Its server
// is killed under a mounted ext4, and the next one goes on with what is in the file.
// time limit: 180 s
import { assert, assertEquals, assertRejects } from "@std/assert";
import { DblockError, info, MemoryBackend, RawBackend, serve } from "../../src/mod.ts";
import { ext4Folder } from "./ext4_folder.ts";
import { fio, fioLoop } from "./fio.ts";
import { exists, sh, waitFor } from "./harness.ts";
import { Program } from "./program.ts";
import { MIB } from "./server.ts";

const sizeBytes = 64 * MIB;

/** Random writes, compared with what is read back. */
async function verify(path: string): Promise<void> {
  const result = await fio(
    `--name=verify --filename=${path} --direct=1 --ioengine=io_uring --rw=randwrite --bsrange=4k-64k --iodepth=16 ` +
      `--size=8M --fsync=64 --verify=crc32c --verify_fatal=1`,
  );
  assertEquals([result.status, result.jobs[0]!.error], [0, 0], result.stderr);
}

for (const direct of [false, true]) {
  Deno.test(`an image ${direct ? "with O_DIRECT " : ""}is served by Workers, and what was written is in the file`, async () => {
    await using folder = await ext4Folder();
    const path = `${folder.path}/raw.img`;
    {
      using disk = await RawBackend.open({ path, sizeBytes, direct });
      await using device = await serve(disk.workers(), { name: "raw0", queues: 2 });
      await verify(device.path);
      await sh(`mkfs.ext4 -q -b 4096 ${device.path} && fsck.ext4 -fn ${device.path}`);
      const { features, requests } = await info("raw0");
      assertEquals([features.writeCache, features.fua], [true, true]);
      assert(requests.flush.count > 0, "nothing was flushed");
    }
    assertEquals(exists("/dev/raw0"), false);
    await sh(`fsck.ext4 -fn ${path} && rm ${path}`);
  });
}

Deno.test("a block device is a store: with its blocks, its own for as long as it is served, and mended by fsck after", async () => {
  await using store = await serve(new MemoryBackend({ sizeBytes }), { name: "store0", blockBytes: 4096 });
  {
    using disk = await RawBackend.open({ path: store.path });
    assertEquals([disk.sizeBytes, disk.limits.blockBytes], [sizeBytes, 4096]);
    await using device = await serve(disk.workers(), { name: "raw0", queues: 2 });
    assertEquals((await info("raw0")).blockBytes, 4096);
    await verify(device.path);
    await sh(`mkfs.ext4 -q ${device.path}`);
    assertEquals(
      (await sh(`mount ${store.path} /mnt`, { check: false })).status === 0,
      false,
      "it was mounted as well",
    );
    await assertRejects(() => RawBackend.open({ path: store.path }), DblockError, "it is mounted, or somebody else's");
  }
  await sh(`fsck.ext4 -fn ${store.path} && mount ${store.path} /mnt`);
  try {
    await assertRejects(() => RawBackend.open({ path: store.path }), DblockError, "it is mounted, or somebody else's");
  } finally {
    await sh("umount /mnt");
  }
});

Deno.test("ext4 on an image goes on when its server is killed and another one takes the file", async () => {
  const path = "/tmp/raw-killed.img";
  const start = async () => {
    const program = new Program("raw_main.ts", [path, String(sizeBytes)]);
    assertEquals(await program.line(), "serves");
    return program;
  };
  const written = async () => (await info("raw1")).requests.write.count;
  let server = await start();
  try {
    await sh("mkfs.ext4 -q /dev/raw1 && mount /dev/raw1 /mnt");
    await sh("head -c 8M /dev/urandom >/tmp/raw-in && cp /tmp/raw-in /mnt/before && sync");
    const load = fioLoop("raw", "--filename=/mnt/load --rw=randwrite --bs=4k --iodepth=16 --size=2M --fsync=64");
    const untilWritten = async (what: string) => {
      const before = await written();
      await waitFor(what, async () => await written() > before + 50, 60_000);
    };
    await untilWritten("fio is at it");
    await server.kill();
    await waitFor("the disk is held", async () => (await info("raw1")).state === "held");
    server = await start();
    await untilWritten("I/O goes on");
    assertEquals(await load.stop(), "");
    await sh("cmp /tmp/raw-in /mnt/before");
    const { counts: { errors, deaths } } = await info("raw1");
    console.log(`a kill under ext4: ${errors} errors, ${await written()} writes`);
    assertEquals([errors, deaths], [0, 1]);
  } finally {
    await sh("umount /mnt", { check: false });
    await server.end();
    await server[Symbol.asyncDispose]();
  }
  assertEquals(exists("/dev/raw1"), false);
  await sh(`fsck.ext4 -fn ${path} && rm ${path}`);
});
