// The answer that drops the last reference of an open disk, given while somebody else reads the partition table: the
// server's thread must not be the one that closes the disk, or it waits for itself. Hard case B14.
import { assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { infoOf } from "./server.ts";
import { addressOf, close, Memory, NR, O_DIRECT, openAsync, syscall, syscallAsync } from "./syscall.ts";

/** A read with asynchronous I/O whose file is closed while it is under way: from then on only the read keeps it open. */
async function orphanRead(path: string): Promise<Disposable> {
  const fd = await openAsync(path, O_DIRECT);
  const memory = new Memory(8192);
  const iocb = new DataView(memory.bytes.buffer, 4096);
  iocb.setUint32(20, fd, true); // aio_fildes; opcode 0 is a read
  iocb.setBigUint64(24, BigInt(memory.address), true); // aio_buf
  iocb.setBigUint64(32, 4096n, true); // aio_nbytes
  const words = new BigUint64Array(16);
  const bytes = new Uint8Array(words.buffer);
  assertEquals(syscall(NR.io_setup, 1, bytes), 0);
  const context = words[0]!;
  words[1] = BigInt(memory.address + 4096);
  assertEquals(await syscallAsync(NR.io_submit, context, 1, addressOf(bytes) + 8), 1);
  close(fd);
  return {
    [Symbol.dispose]() {
      syscall(NR.io_destroy, context);
      memory[Symbol.dispose]();
    },
  };
}

Deno.test("a server of one thread answers the last user of a file while the disk's partitions are read", async () => {
  for (let round = 0; round < 5; round++) {
    await using disk = await TestDisk.start({ name: "last0" });
    disk.rule = () => "hold";
    using _read = await orphanRead(disk.path);
    await disk.untilHeld(1);
    const rescan = sh(`blockdev --rereadpt ${disk.path}`, { check: false });
    await disk.untilHeld(2);
    const started = performance.now();
    disk.rule = () => "serve";
    disk.release(disk.held[0]!);
    disk.releaseAll();
    assertEquals((await rescan).status, 0);
    assertWithin(5_000, performance.now() - started, "read again");
    await waitFor("nobody has it open", () => infoOf("last0")!.open_count === 0);
    await disk.assertIdle();
  }
});
