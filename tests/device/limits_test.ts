// What CREATE asks for is what the block layer shows, and no request that a server sees breaks a limit of it.
// Hard case D3.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { fio } from "./fio.ts";
import { requires, sh } from "./harness.ts";
import { type CreateParams, KIB, MIB } from "./server.ts";
import { close, Memory, NR, O_DIRECT, O_RDWR, open, PAGE_BYTES, syscallAsync } from "./syscall.ts";

/** Files of /sys/block/NAME/queue and what is in them. */
async function queueLimits(name: string, files: readonly string[]): Promise<Record<string, number>> {
  const { stdout } = await sh(`cd /sys/block/${name}/queue && cat ${files.join(" ")}`);
  return Object.fromEntries(stdout.trim().split("\n").map((line, i) => [files[i]!, Number(line)]));
}

Deno.test("the block layer shows the limits of CREATE", async () => {
  await using disk = await TestDisk.start({
    name: "limits0",
    flags: abi.DBLOCK_DEVICE_DISCARD | abi.DBLOCK_DEVICE_WRITE_ZEROES | abi.DBLOCK_DEVICE_WRITE_CACHE |
      abi.DBLOCK_DEVICE_FUA | abi.DBLOCK_DEVICE_ROTATIONAL,
    logical_block_bytes: 1024,
    physical_block_bytes: 8192,
    io_opt_bytes: 64 * KIB,
    max_io_bytes: 256 * KIB,
    discard_granularity_bytes: 16 * KIB,
    max_discard_bytes: 2 * MIB,
    max_write_zeroes_bytes: 3 * MIB,
  });
  const expected = {
    logical_block_size: 1024,
    physical_block_size: 8192,
    minimum_io_size: 8192,
    optimal_io_size: 64 * KIB,
    max_hw_sectors_kb: 256,
    max_sectors_kb: 256,
    discard_granularity: 16 * KIB,
    discard_max_hw_bytes: 2 * MIB,
    write_zeroes_max_bytes: 3 * MIB,
    rotational: 1,
    fua: 1,
  };
  assertEquals(await queueLimits(disk.name, Object.keys(expected)), expected);
  assertEquals((await sh(`cat /sys/block/${disk.name}/queue/write_cache`)).stdout, "write back\n");
});

Deno.test("a disk without any of that shows none of it", async () => {
  await using disk = await TestDisk.start({ name: "limits1" });
  const expected = { discard_max_hw_bytes: 0, write_zeroes_max_bytes: 0, rotational: 0, fua: 0, optimal_io_size: 0 };
  assertEquals(await queueLimits(disk.name, Object.keys(expected)), expected);
  assertEquals((await sh(`cat /sys/block/${disk.name}/queue/write_cache`)).stdout, "write through\n");
});

const geometries: readonly CreateParams[] = [
  ...[512, 1024, 2048, 4096].map((bytes) => ({ logical_block_bytes: bytes })),
  { max_io_bytes: PAGE_BYTES },
  { max_io_bytes: 3 * PAGE_BYTES, logical_block_bytes: 4096 },
  // More than what the kernel takes by itself: 1280 KiB, or 4 MiB on new ones.
  { max_io_bytes: 2 * MIB, queue_depth: 4 },
];
for (const geometry of geometries) {
  Deno.test(`no request breaks the limits of ${JSON.stringify(geometry)}`, async () => {
    await using disk = await TestDisk.start({ name: "limits2", ...geometry });
    const { logical_block_bytes: block, max_io_bytes: longest, queue_depth: depth } = disk.info();
    disk.seen.length = 0;
    // Not io_uring: before 6.2 it does not wait for a request when its I/O becomes more of them than a disk has.
    const { status, stderr } = await fio(
      `--name=limits --filename=${disk.path} --ioengine=libaio --rw=randwrite --bsrange=${block}-1M --iodepth=8 ` +
        `--direct=1 --size=2M --verify=crc32c --verify_fatal=1`,
    );
    assertEquals(status, 0, stderr);
    await sh(`dd if=${disk.path} of=/dev/null bs=4M count=1 status=none`);
    await sh(`dd if=${disk.path} of=/dev/null bs=4M count=1 iflag=direct status=none`);
    for (const { offsetBytes, lengthBytes, slot, generation } of disk.seen) {
      assert(offsetBytes % block === 0 && lengthBytes % block === 0, `${offsetBytes}+${lengthBytes}`);
      assert(lengthBytes > 0 && lengthBytes <= longest, `${lengthBytes} bytes`);
      assert(slot < depth && generation !== 0);
    }
    // The limit is used, too: large I/O is not chopped into smaller pieces.
    assertEquals(Math.max(...disk.seen.map((request) => request.lengthBytes)), longest);
    await disk.assertIdle();
  });
}

// Before 6.0 the memory of direct I/O is aligned as the disk's blocks are, whatever the disk says.
Deno.test({
  name: "direct I/O works in memory that is aligned to 4 bytes, and not in any other",
  ignore: !requires("Linux 6.0", !Deno.osRelease().startsWith("5.")),
  async fn() {
    for (const flags of [0, abi.DBLOCK_DEVICE_DIRECT]) {
      await using disk = await TestDisk.start({ name: "limits4", flags });
      assertEquals(await queueLimits(disk.name, ["dma_alignment"]), { dma_alignment: 3 });
      const fd = open(disk.path, O_RDWR | O_DIRECT);
      assert(fd >= 0, `open: ${fd}`);
      try {
        // Two blocks of memory that begin 4 bytes into a page, so that one block lies across two pages.
        using memory = new Memory(4 * PAGE_BYTES);
        const length = 2 * PAGE_BYTES;
        const at = (offset: number) => memory.bytes.subarray(offset, offset + length);
        const written = crypto.getRandomValues(new Uint8Array(length));
        at(4).set(written);
        assertEquals(await syscallAsync(NR.pwrite64, fd, memory.address + 4, length, MIB), length);
        memory.bytes.fill(0);
        assertEquals(await syscallAsync(NR.pread64, fd, memory.address + 12, length, MIB), length);
        assertEquals(at(12), written);
        assertEquals(memory.bytes.subarray(0, 12), new Uint8Array(12));
        assertEquals(memory.bytes.subarray(12 + length).every((byte) => byte === 0), true);
        assertEquals(disk.store.bytes.subarray(MIB, MIB + length), written);
        assertEquals(await syscallAsync(NR.pread64, fd, memory.address + 2, length, MIB), -ERRNO.EINVAL);
      } finally {
        close(fd);
      }
      await disk.assertIdle();
    }
  },
});

Deno.test("a read-only disk refuses writes before they reach the server", async () => {
  await using disk = await TestDisk.start({ name: "limits3", flags: abi.DBLOCK_DEVICE_READ_ONLY });
  assertEquals((await sh(`blockdev --getro ${disk.path}`)).stdout, "1\n");
  assertEquals((await sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 oflag=direct`, { check: false })).status, 1);
  // On 5.10 this makes the disk writable as far as the block layer is concerned.
  await sh(`blockdev --setrw ${disk.path}`, { check: false });
  assertEquals((await sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 oflag=direct`, { check: false })).status, 1);
  await sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  assertEquals(disk.seen.some((request) => request.operation !== abi.DBLOCK_OPERATION_READ), false);
});
