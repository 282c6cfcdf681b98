// A device that no server has attached yet belongs to the process that made it, and goes when that process ends. From the
// first ATTACH on it belongs to its server.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, slowed, waitFor } from "./harness.ts";
import { Program } from "./program.ts";
import { createDevice, destroyDevice, infoOf, params, Queue, startDevice } from "./server.ts";

for (const how of ["killed", "ended"] as const) {
  Deno.test(`a device whose creator has ${how} before any ATTACH goes, and its name is free`, async () => {
    const name = "creator0";
    await using creator = new Program("creator_main.ts", [name]);
    await creator.line();
    // It has closed the control node. As long as it lives, the device stays.
    await sh("sleep 1.5");
    assertEquals(infoOf(name)?.attached_count, 0);
    // A file of somebody who may have wanted to attach is no reason to keep it.
    using late = new Queue(infoOf(name)!, 0);
    const started = performance.now();
    await (how === "killed" ? creator.kill() : creator.end());
    await waitFor("the device is gone", () => infoOf(name) === undefined);
    assertWithin(2_500, performance.now() - started, "gone");
    assertEquals(late.exchangeOnly() < 0, true);
    createDevice(params(name));
    assertEquals(await destroyDevice(name), 0);
  });
}

Deno.test("a device that has a server stays when its creator ends", async () => {
  const name = "creator1";
  await using creator = new Program("creator_main.ts", [name]);
  await creator.line();
  await using disk = await TestDisk.attach({ name, existing: true });
  await creator.kill();
  await sh(`sleep ${slowed(1_500) / 1000}`);
  assertEquals(disk.info().attached_count, 1);
  assertEquals(startDevice(disk.queues[0]!.fd, abi.DBLOCK_START_NO_WAIT), 0);
  disk.serve();
  await disk.untilState(abi.DBLOCK_STATE_LIVE);
});
