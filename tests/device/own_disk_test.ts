// A server that writes to a file system on its own disk, from the thread that serves, waits for itself. Nobody else is
// harmed: the timeout ends it, force destroy and SIGKILL end it at once, and it leaves nothing behind. Hard cases E3, I4.
// dmesg may have: (EXT4-fs|Buffer I/O|JBD2|Aborting journal).*
import { assertEquals } from "@std/assert";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { destroyDevice, infoOf } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

/** A server that is stuck in fsync() of a file of its own. */
async function stuckServer(name: string, timeoutMs: number): Promise<ServerProcess> {
  const server = await ServerProcess.start({ name, size_bytes: 64 * 2 ** 20, timeout_ms: timeoutMs });
  await sh(`mkfs.ext4 -q ${server.path} && mount ${server.path} /mnt && sync -f /mnt`);
  await server.order({ syncFile: "/mnt/own" });
  await waitFor("its own writes wait", () => infoOf(name)!.waiting_count > 0);
  return server;
}

Deno.test("force destroy frees a server that waits for its own disk", async () => {
  await using _server = await stuckServer("own0", 0);
  const other = sh("dd if=/dev/own0 of=/dev/null bs=4k count=1 skip=99 iflag=direct", { check: false });
  const started = performance.now();
  assertEquals(await destroyDevice("own0"), 0);
  assertWithin(5_000, performance.now() - started, "destroyed");
  assertEquals((await other).status, 1);
  await sh("umount /mnt");
});

Deno.test("a server that is killed while it waits for its own disk is dead, and so its disk goes, which ends the wait", async () => {
  await using server = await stuckServer("own2", 0);
  const other = sh("dd if=/dev/own2 of=/dev/null bs=4k count=1 skip=99 iflag=direct", { check: false });
  await server.kill();
  assertEquals((await other).status, 1);
  await waitFor("the device is gone", () => infoOf("own2") === undefined);
  await sh("umount /mnt");
});

Deno.test("the timeout frees a server that waits for its own disk, and its death the rest", async () => {
  await using server = await stuckServer("own1", 2_000);
  const started = performance.now();
  await server.child.status;
  await waitFor("the device is gone", () => infoOf("own1") === undefined, 20_000);
  assertWithin(20_000, performance.now() - started, "gone");
  await sh("umount /mnt");
});
