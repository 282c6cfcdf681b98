// A server is dead when none of its threads sees user space again: one of them may be stuck on the server's own disk, or the
// process may still dump core. The device follows its policy then, not when the last thread has ended. Hard case I4.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, exists, sh, waitFor } from "./harness.ts";
import { infoOf, Queue } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const HOLD = { on_death: abi.DBLOCK_ON_DEATH_HOLD };

/** A server that has all requests in its hands, one of which a thread of its own waits for. */
async function stuckServer(name: string, options: { sleeps: boolean; on_death: number; timeout_ms?: number }) {
  const { sleeps, ...others } = options;
  const server = await ServerProcess.start({ name, ...others });
  await server.holdAll();
  if (sleeps) await server.tell({ sleep: true });
  await server.tell({ readDisk: true });
  await waitFor("its own read is with the server", () => infoOf(name)!.handed_count === 1);
  return server;
}

async function untilState(name: string, state: number): Promise<void> {
  const started = performance.now();
  await waitFor(`${name} is in state ${state}`, () => infoOf(name)?.state === state);
  assertWithin(1_500, performance.now() - started, `${name} in state ${state}`);
}

for (const sleeps of [true, false]) {
  const where = sleeps ? "in EXCHANGE" : "in poll()";
  Deno.test(`a server killed ${where} is dead though a thread of it waits for its own disk`, async () => {
    const name = "dying0";
    await using server = await stuckServer(name, { sleeps, ...HOLD });
    server.child.kill("SIGKILL");
    await untilState(name, abi.DBLOCK_STATE_HELD);
    assertEquals([infoOf(name)!.death_count, infoOf(name)!.attached_count], [1, 0]);
    assertEquals(exists(`/proc/${server.child.pid}/task`), true);
    await using next = await TestDisk.start({ name, existing: true });
    assertEquals((await server.child.status).signal, "SIGKILL");
    assertEquals(next.seen.filter(({ flags }) => flags & abi.DBLOCK_REQUEST_REPLAYED).length, 1);
  });
}

Deno.test("a device of that server that is to be removed goes, and its thread with it", async () => {
  await using server = await stuckServer("dying1", { sleeps: false, on_death: abi.DBLOCK_ON_DEATH_REMOVE });
  server.child.kill("SIGKILL");
  await waitFor("the device is gone", () => infoOf("dying1") === undefined, 3_000);
  assertEquals((await server.child.status).signal, "SIGKILL");
});

Deno.test("no timeout ends what a dead server has, and the next ATTACH finds the queue free", async () => {
  const name = "dying2";
  await using server = await stuckServer(name, { sleeps: false, timeout_ms: 1_000, ...HOLD });
  const created = infoOf(name)!;
  using queue = new Queue(created, 0);
  server.child.kill("SIGKILL");
  await waitFor("the kill has begun", () => {
    const status = Deno.readTextFileSync(`/proc/${server.child.pid}/status`);
    return /^(SigPnd|ShdPnd):.*[1-9a-f]/m.test(status) || /^State:\s+[DZX]/m.test(status);
  });
  assertEquals(queue.attach(), 0);
  assertEquals(infoOf(name)!.state, abi.DBLOCK_STATE_HELD);
  await sh("sleep 2");
  assertEquals([infoOf(name)!.timeout_count, infoOf(name)!.error_count, infoOf(name)!.waiting_count], [0, 0, 1]);
});

Deno.test("a server that dumps core is dead before the dump is written", async () => {
  const name = "dying3";
  // It reads nothing of the dump, which so does not end.
  Deno.writeTextFileSync("/tmp/slow-dump", "#!/bin/sh\nexec sleep 30\n", { mode: 0o755 });
  const before = Deno.readTextFileSync("/proc/sys/kernel/core_pattern");
  Deno.writeTextFileSync("/proc/sys/kernel/core_pattern", "|/tmp/slow-dump");
  try {
    await using server = await ServerProcess.start({ name, ...HOLD });
    server.child.kill("SIGABRT");
    await untilState(name, abi.DBLOCK_STATE_HELD);
    assertEquals(exists(`/proc/${server.child.pid}/task/${server.child.pid}/stat`), true);
    await using next = await TestDisk.start({ name, existing: true });
    await sh(`dd if=${next.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
    await sh("pkill -KILL -x sleep");
    assertEquals((await server.child.status).signal, "SIGABRT");
  } finally {
    Deno.writeTextFileSync("/proc/sys/kernel/core_pattern", before.trim());
  }
});

Deno.test("a child that inherited the file and is killed ends no server", async () => {
  await using server = await ServerProcess.start({ name: "dying4", inherited: true, childSeconds: 60 });
  await sh("pkill -KILL -x sleep");
  await sh("sleep 1.5");
  await sh(`dd if=${server.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  assertEquals([infoOf("dying4")!.state, infoOf("dying4")!.death_count], [abi.DBLOCK_STATE_LIVE, 0]);
});
