// A server that becomes another program is dead, though that program inherited its open files. Hard case I4.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { infoOf } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const holders = "ls -l /proc/*/fd 2>/dev/null | grep -c -- -ctl || true";

for (const sleeps of [true, false]) {
  Deno.test(`exec() of a server whose thread ${sleeps ? "sleeps in EXCHANGE" : "polls"} is its death`, async () => {
    const name = "exec0";
    await using server = await ServerProcess.start({ name, inherited: true, on_death: abi.DBLOCK_ON_DEATH_HOLD });
    await server.holdAll();
    if (sleeps) await server.tell({ sleep: true });
    const read = sh(`dd if=${server.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
    await waitFor("the read is with the server", () => infoOf(name)!.handed_count === 1);
    await server.order({ execSeconds: 60 });
    const comm = () => Deno.readTextFileSync(`/proc/${server.child.pid}/comm`).trim();
    await waitFor("it is another program", () => comm() === "sleep");
    const started = performance.now();
    await waitFor(`${name} is held`, () => infoOf(name)!.state === abi.DBLOCK_STATE_HELD);
    assertWithin(1_500, performance.now() - started, "held");
    // The other program has the file still.
    assertEquals((await sh(holders)).stdout.trim(), "1");
    await using next = await TestDisk.start({ name, existing: true });
    await read;
    assertEquals(next.seen.filter(({ flags }) => flags & abi.DBLOCK_REQUEST_REPLAYED).length, 1);
    server.child.kill("SIGKILL");
    await server.child.status;
    await sh(`dd if=${next.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  });
}

Deno.test("exec() of a server before its disk is live removes the device", async () => {
  await using server = await ServerProcess.start({ name: "exec1", inherited: true, attachOnly: true });
  assertEquals(infoOf("exec1")!.state, abi.DBLOCK_STATE_CREATED);
  await server.order({ execSeconds: 60 });
  await waitFor("the device is gone", () => infoOf("exec1") === undefined, 3_000);
});
