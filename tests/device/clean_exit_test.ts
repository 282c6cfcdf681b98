// A server that ends on its own, with requests it has not answered, is as dead as one that was killed: what becomes of them
// is the policy's choice, and nothing leaks. Hard case A13. And a killed one is gone at once. Hard case F1.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { infoOf, threadsInDblock } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const { DBLOCK_ON_DEATH_FAIL: FAIL, DBLOCK_ON_DEATH_HOLD: HOLD, DBLOCK_ON_DEATH_REMOVE: REMOVE } = abi;

for (const [policy, onDeath] of [["remove", REMOVE], ["fail", FAIL], ["hold", HOLD]] as const) {
  Deno.test(`a server that exits with requests, under "${policy}"`, async () => {
    const options = { name: "exit0", on_death: onDeath, queue_depth: 4, timeout_ms: 0 };
    await using server = await ServerProcess.start(options);
    await server.holdAll();
    const reads = [0, 1, 2, 3, 4, 5].map((block) =>
      sh(`dd if=${server.path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct`, { check: false })
    );
    await waitFor("its slots are full", () => infoOf("exit0")!.handed_count === 4);
    const started = performance.now();
    assertEquals(await server.exit(), 0);
    if (policy === "hold") {
      await waitFor("the disk is held", () => infoOf("exit0")!.state === abi.DBLOCK_STATE_HELD);
      // As many as there are slots: the block layer keeps the others.
      assertEquals(infoOf("exit0")!.waiting_count, 4);
      await using next = await TestDisk.start({ ...options, existing: true });
      assertEquals((await Promise.all(reads)).map(({ status }) => status), Array(6).fill(0));
      assertEquals([next.info().replayed_count, next.info().error_count], [4, 0]);
      return;
    }
    assertEquals((await Promise.all(reads)).map(({ status }) => status), Array(6).fill(1));
    assertWithin(5_000, performance.now() - started, "EIO");
    if (policy === "remove") await waitFor("the device is gone", () => infoOf("exit0") === undefined);
    else {
      const { state, handed_count, quarantined_count } = infoOf("exit0")!;
      assertEquals([state, handed_count, quarantined_count], [abi.DBLOCK_STATE_FAILED, 0, 0]);
    }
  });
}

Deno.test("SIGKILL ends a server whose threads are blocked in EXCHANGE, at once", async () => {
  await using disk = await Ramdisk.start({ name: "exit1", args: ["--size", "16M"] });
  await waitFor("its threads are in EXCHANGE", () => threadsInDblock(disk.pid).length > 0);
  const started = performance.now();
  disk.child.kill("SIGKILL");
  await disk.child.status;
  // The process has to give up its memory as well, which the emulated machine takes its time for.
  assertWithin(1_000, performance.now() - started, "ended");
});
