// A RawBackend is served by Workers, and as an object: a file, also with O_DIRECT, and a block device, which is a disk of its own
// here. Its server is killed under a mounted ext4, and the next one goes on with what is in the file.
// time limit: 240 s
import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Backend, DblockError, destroy, info, MemoryBackend, RawBackend, serve } from "../../src/mod.ts";
import { ext4Folder } from "./ext4_folder.ts";
import { fio, fioLoop } from "./fio.ts";
import { exists, sh, waitFor } from "./harness.ts";
import { Program } from "./program.ts";
import { MIB } from "./server.ts";
import { Serving } from "./serving.ts";

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
      assertEquals([features.writeCache, features.fua, features.direct], [true, true, direct]);
      assert(requests.flush.count > 0, "nothing was flushed");
    }
    assertEquals(exists("/dev/raw0"), false);
    await sh(`fsck.ext4 -fn ${path} && rm ${path}`);
  });
}

for (const queues of [1, 2]) {
  Deno.test(`an image with O_DIRECT is read and written by the kernel, ${queues} queue(s): holes are filled, it grows, and ends under load`, async () => {
    await using folder = await ext4Folder();
    const path = `${folder.path}/raw.img`;
    const disk = await RawBackend.open({ path, sizeBytes, direct: true });
    const device = await serve(disk, { name: "raw0", queues });
    let ticks = 0;
    const timer = setInterval(() => ticks++, 10);
    const began = performance.now();
    await verify(device.path); // into holes
    await verify(device.path); // over what is there
    await sh(`mkfs.ext4 -q -b 4096 ${device.path} && fsck.ext4 -fn ${device.path}`);
    // Timers of this program have their turn beside that.
    const ticksMax = (performance.now() - began) / 10;
    clearInterval(timer);
    console.log(`${ticks} of ${ticksMax.toFixed(0)} ticks of 10 ms`);
    assert(ticks > ticksMax / 10, `${ticks} of ${ticksMax} ticks`);

    const load = fio(
      `--name=load --filename=${device.path} --direct=1 --ioengine=io_uring --rw=randrw --bs=4k --iodepth=32 --time_based ` +
        `--runtime=20 --norandommap`,
    );
    const { requests: { read: { count } } } = await info("raw0");
    await waitFor("fio is at it", async () => (await info("raw0")).requests.read.count > count + 100);
    await device.resize(2 * sizeBytes);
    assertEquals((await info("raw0")).sizeBytes, 2 * sizeBytes);
    assertEquals(Deno.statSync(path).size, 2 * sizeBytes);
    await destroy("raw0", { force: true });
    await device.closed;
    assert((await load).status !== 0, "fio was not told of the end");
    await disk.close();
    // What was asked for of the store has ended: another one may have the file.
    using next = await RawBackend.open({ path, direct: true });
    assertEquals(next.sizeBytes, 2 * sizeBytes);
  });
}

Deno.test("a disk with O_DIRECT keeps the way in which it began: what is in front of it may go, and nothing may come", async () => {
  await using folder = await ext4Folder();
  const path = `${folder.path}/raw.img`;
  const open = () => RawBackend.open({ path, sizeBytes, direct: true });
  /** The same disk with something in front of it. */
  const covered = (disk: RawBackend): Backend => ({
    ...{ sizeBytes: disk.sizeBytes, limits: disk.limits, cacheSurvives: disk.cacheSurvives },
    read: (buffer, offset) => disk.read(buffer, offset),
    write: (buffer, offset) => disk.write(buffer, offset),
    flush: () => disk.flush(),
    discard: (offset, length, options) => disk.discard!(offset, length, options),
    writeZeroes: (offset, length, options) => disk.writeZeroes(offset, length, options),
    close: (reason) => disk.close(reason),
  });
  for (const first of [covered, (disk: RawBackend) => disk]) {
    const isDirect = first !== covered;
    const began = await serve(first(await open()), { name: "raw0", onDeath: "hold" });
    assertEquals((await info("raw0")).features.direct, isDirect);
    await verify(began.path);
    await began.leave();
    const wrong = "memory or a file that the kernel reads and writes itself";
    if (isDirect) {
      const disk = covered(await open());
      await assertRejects(() => serve(disk, { name: "raw0", existing: "recover" }), DblockError, wrong);
    }
    await using next = await serve(await open(), { name: "raw0", existing: "recover" });
    assertEquals([next.origin, (await info("raw0")).features.direct], ["recovered", isDirect]);
    await verify(next.path);
    await destroy("raw0", { force: true });
  }
});

Deno.test("an image with O_DIRECT on a slow disk keeps no timer waiting, and a store that fails fails its requests alone", async () => {
  await using slow = await Serving.start([
    ...[
      "serve",
      `memory:64MiB`,
      "--name",
      "slow0",
      "--with",
      "delay=read=8ms,write=8ms",
      "--with",
      "fault=operations=read,offset=32MiB,length=1MiB",
    ],
  ]);
  {
    using disk = await RawBackend.open({ path: "/dev/slow0", direct: true });
    await using device = await serve(disk, { name: "raw0" });
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    const began = performance.now();
    await verify(device.path);
    const ticksMax = (performance.now() - began) / 5;
    clearInterval(timer);
    console.log(`${ticks} of ${ticksMax.toFixed(0)} ticks of 5 ms`);
    assert(ticks > ticksMax / 10, `${ticks} of ${ticksMax} ticks`);
    const read = (at: number) =>
      sh(`dd if=${device.path} of=/dev/null bs=4k count=1 skip=${at / 4096} iflag=direct`, { check: false });
    const bad = await read(32 * MIB);
    assert(bad.status !== 0 && bad.stderr.includes("Input/output error"), bad.stderr);
    assertEquals((await read(34 * MIB)).status, 0);
    assertEquals((await info("raw0")).counts.errors, 1);
  }
  await sh("./dblock destroy slow0");
  assertEquals((await slow.end()).code, 0);
});

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
