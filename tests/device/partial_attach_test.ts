// A server that dies with only some queues attached, or before the disk is live, leaves nothing behind, and the name is
// free for another at once. Hard cases A5, A8, A9.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, requires, sh, waitFor } from "./harness.ts";
import { createDevice, destroyDevice, infoOf, params, Queue, startDevice } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const goneMs = 5_000;

Deno.test({
  name: "a server that attached one of two queues and dies takes the device with it",
  ignore: !requires("two processors", navigator.hardwareConcurrency >= 2),
  async fn() {
    const created = createDevice(params("partial0", { queue_count: 2 }));
    {
      using queue = new Queue(created, 0);
      assertEquals(queue.attach(), 0);
      assertEquals(startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), ERRNO.ENOTCONN);
      assertEquals(infoOf("partial0")!.attached_count, 1);
    }
    await waitFor("the device is gone", () => infoOf("partial0") === undefined, goneMs);
    await using disk = await TestDisk.start({ name: "partial0", queue_count: 2 });
    await sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  },
});

Deno.test("a server killed after ATTACH and before START takes the device with it", async () => {
  await using server = await ServerProcess.start({ name: "partial1", queue_count: 2, attachOnly: true });
  assertEquals(infoOf("partial1")!.state, abi.DBLOCK_STATE_CREATED);
  await server.kill();
  await waitFor("the device is gone", () => infoOf("partial1") === undefined, goneMs);
});

Deno.test("a server that dies while the partition table is read takes the device with it", async () => {
  for (const force of [false, true]) {
    const disk = await TestDisk.attach({ name: "partial2", on_death: abi.DBLOCK_ON_DEATH_HOLD, rule: () => "hold" });
    assertEquals(startDevice(disk.queues[0]!.fd, abi.DBLOCK_START_NO_WAIT), 0);
    disk.serve();
    await disk.untilHeld(1);
    assertEquals(disk.info().state, abi.DBLOCK_STATE_STARTING);
    const started = performance.now();
    if (force) assertEquals(await destroyDevice("partial2"), 0);
    await disk.abandon();
    await waitFor("the device is gone", () => infoOf("partial2") === undefined, goneMs);
    assertWithin(goneMs, performance.now() - started, "gone");
  }
});

Deno.test("a device that nobody ever attached is destroyed by name", async () => {
  createDevice(params("partial3"));
  assertEquals(await destroyDevice("partial3", { force: false }), 0);
});
