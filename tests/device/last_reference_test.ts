// The answer that drops the last reference of somebody's open disk, given while somebody else reads the partition table:
// the server's thread must not be the one that closes the disk, or it waits for itself. Hard case B14.
import { assertEquals } from "@std/assert";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { infoOf } from "./server.ts";

Deno.test("a server of one thread ends the I/O of a dead process while the disk is being opened", async () => {
  for (let round = 0; round < 5; round++) {
    await using disk = await TestDisk.start({ name: "last0" });
    disk.rule = () => "hold";
    const reader = new Deno.Command("fio", {
      args: [
        `--filename=${disk.path}`,
        "--name=last",
        "--direct=1",
        "--ioengine=io_uring",
        "--rw=read",
        "--bs=4k",
        "--thread",
      ],
      stdout: "null",
      stderr: "null",
    }).spawn();
    await disk.untilHeld(1);
    reader.kill("SIGKILL");
    await reader.status;
    // io_uring's request holds the file: the disk is open still, by nobody who lives.
    assertEquals(infoOf("last0")!.open_count, 1);
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
