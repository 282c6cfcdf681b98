// RESIZE of a live disk, both ways: everybody sees the new size, a mounted ext4 grows into it, and what lies past the
// end of a smaller one is an error, not data; under load, without a server, and when the disk is on its way out. Hard case C11.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { fio, fioErrors, fioLoop } from "./fio.ts";
import { figure, scaled, sh, waitFor } from "./harness.ts";
import { Control, destroyDevice, MIB, Queue, type Request, resizeDevice } from "./server.ts";
import { Memory } from "./syscall.ts";

const sizeOf = async (path: string) => Number((await sh(`blockdev --getsize64 ${path}`)).stdout);

Deno.test("a mounted ext4 grows with its disk", async () => {
  await using disk = await TestDisk.start({ name: "grow0", size_bytes: 16 * MIB, store: new Memory(32 * MIB) });
  await sh(`mkfs.ext4 -q ${disk.path} && mount ${disk.path} /mnt`);
  try {
    assertEquals(resizeDevice(disk.queues[0]!.fd, 32 * MIB), 0);
    assertEquals([await sizeOf(disk.path), disk.info().size_bytes], [32 * MIB, 32 * MIB]);
    await sh(`resize2fs ${disk.path} && head -c 20M /dev/urandom >/tmp/grown && cp /tmp/grown /mnt`);
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

Deno.test("a disk that shrinks and grows under load has errors past its end only", async () => {
  await using disk = await TestDisk.start({ name: "shrink2", size_bytes: 16 * MIB, queue_depth: 64 });
  const fd = disk.queues[0]!.fd;
  const below = fioLoop("below", `--filename=${disk.path} --rw=randwrite --bs=4k --iodepth=8 --size=2M`);
  let isLoaded = true;
  const above = fio(
    `--name=above --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randwrite --bs=4k --iodepth=8 ` +
      "--offset=8M --size=8M --time_based --runtime=4 --continue_on_error=all --ignore_error=,ENOSPC:EIO",
  ).finally(() => isLoaded = false);
  const isAbove = ({ offsetBytes }: Request) => offsetBytes >= 8 * MIB;
  await waitFor("fio writes above the middle", () => disk.seen.some(isAbove));
  let resizes = 0;
  for (; isLoaded; resizes++) {
    const before = disk.seen.length;
    await waitFor("the load goes on", () => disk.seen.length > before + 20 || !isLoaded);
    assertEquals(resizeDevice(fd, (resizes % 2 === 0 ? 8 : 16) * MIB), 0);
  }
  const refused = fioErrors(await above)[0]!;
  assert(refused === ERRNO.EIO || refused === ERRNO.ENOSPC, `past the end: errno ${refused}`);
  assertEquals(await below.stop(), "");
  assert(resizes > 10, `${resizes} resizes`);
  // What is past the end the block layer refuses by itself.
  assertEquals(disk.info().error_count, 0);
  await disk.assertIdle();
});

Deno.test("a request that lies past the new end when its disk shrinks is answered as any other", async () => {
  await using disk = await TestDisk.start({ name: "shrink3", size_bytes: 16 * MIB });
  disk.store.bytes.fill(77, 12 * MIB, 12 * MIB + 4096);
  disk.rule = () => "hold";
  const reading = sh(`dd if=${disk.path} bs=4k count=1 skip=3072 iflag=direct status=none`);
  const writing = sh(`tr '\\0' n </dev/zero | dd of=${disk.path} bs=4k count=1 seek=3073 iflag=fullblock oflag=direct`);
  await disk.untilHeld(2);
  assertEquals(resizeDevice(disk.queues[0]!.fd, 8 * MIB), 0);
  disk.releaseAll();
  assertEquals((await reading).stdout, "M".repeat(4096));
  await writing;
  assertEquals(disk.store.bytes[12 * MIB + 8191], 110);
  await disk.assertIdle();
  assertEquals(disk.info().error_count, 0);
});

const ends = [
  { on_death: abi.DBLOCK_ON_DEATH_HOLD, state: abi.DBLOCK_STATE_HELD, sizeBytes: 16 * MIB },
  { on_death: abi.DBLOCK_ON_DEATH_FAIL, state: abi.DBLOCK_STATE_FAILED, sizeBytes: 4 * MIB },
];
for (const { on_death, state, sizeBytes } of ends) {
  Deno.test(`a disk that is ${state === abi.DBLOCK_STATE_HELD ? "held" : "failed"} has its new size when a server is back`, async () => {
    const options = { name: "shrink4", size_bytes: 8 * MIB, on_death, store: new Memory(16 * MIB) };
    const first = await TestDisk.start(options);
    await first.abandon();
    await first.untilState(state);
    using file = new Queue(first.info(), 0);
    assertEquals(resizeDevice(file.fd, sizeBytes), 0);
    const sectors = Number(Deno.readTextFileSync(`/sys/block/${first.name}/size`));
    assertEquals([first.info().size_bytes, sectors * 512, first.info().state], [sizeBytes, sizeBytes, state]);
    await using second = await TestDisk.start({ ...options, existing: true });
    assertEquals(await sizeOf(second.path), sizeBytes);
    const write = (block: number) =>
      sh(`dd if=/dev/zero of=${second.path} bs=64k count=1 seek=${block} oflag=direct`, { check: false });
    const blocks = sizeBytes / 65536;
    assertEquals([(await write(blocks - 1)).status, (await write(blocks)).status], [0, 1]);
  });
}

const races = scaled(20);

Deno.test(`in ${races} races with DESTROY each RESIZE works or says ENODEV, and none works after one that did not`, async () => {
  using control = new Control();
  const total = { worked: 0, refused: 0 };
  for (let race = 0; race < races; race++) {
    const disk = await TestDisk.start({ name: "shrink5" });
    await disk.pause();
    const { fd } = disk.queues[0]!;
    const errnos: number[] = [];
    const destroying = destroyDevice("shrink5");
    // On this thread, so that nothing but the other call comes between two of them.
    do errnos.push(resizeDevice(fd, (8 + errnos.length % 2) * MIB)); while (control.info("shrink5") !== undefined);
    errnos.push(resizeDevice(fd, 8 * MIB));
    assertEquals(await destroying, 0);
    const worked = errnos.indexOf(ERRNO.ENODEV);
    assertEquals(errnos, [...Array(worked).fill(0), ...Array(errnos.length - worked).fill(ERRNO.ENODEV)]);
    total.worked += worked;
    total.refused += errnos.length - worked;
    await disk.abandon();
  }
  figure({ "RESIZE against DESTROY": races, "resizes that worked": total.worked, "resizes refused": total.refused });
  assert(total.worked > 0 && total.refused > races, JSON.stringify(total));
});
