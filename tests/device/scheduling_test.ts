// A thread that serves does not push aside who is sending it requests (SCHED_BATCH), wherever it runs; whoever has set a
// policy keeps it.
import { assert, assertEquals } from "@std/assert";
import { type Backend, serve } from "../../src/mod.ts";
import { sh } from "./harness.ts";
import { MIB } from "./server.ts";

const backend: Backend = { sizeBytes: 8 * MIB, read: (buffer) => void buffer.fill(1), write: () => {} };

/** Of each thread of this process: "SCHED_OTHER", "SCHED_BATCH", … */
async function policies(): Promise<Map<number, string>> {
  const { stdout } = await sh(`chrt --all-tasks --pid ${Deno.pid}`);
  return new Map(
    [...stdout.matchAll(/^pid (\d+)'s current scheduling policy: (\S+)$/gm)].map((
      [, pid, policy],
    ) => [Number(pid), policy!]),
  );
}

Deno.test("Workers and the main thread, once they serve, are SCHED_BATCH", async () => {
  await Deno.writeTextFile(
    "/tmp/sched.ts",
    `export default () => ({ sizeBytes: ${8 * MIB}, read: (buffer) => void buffer.fill(1), write: () => {} });`,
  );
  const batches = async () =>
    [...await policies()].filter(([, policy]) => policy === "SCHED_BATCH").map(([pid]) => pid);
  assertEquals(await batches(), []);
  await using _workers = await serve({ module: new URL("file:///tmp/sched.ts") }, { name: "sched0", queues: 2 });
  assertEquals((await batches()).length, 2, "one for each queue");
  await using _local = await serve(backend, { name: "sched1" });
  assert((await batches()).includes(Deno.pid));
});

Deno.test("a policy that was set from outside stays", async () => {
  await sh(`chrt --idle --pid 0 ${Deno.pid}`);
  await using _device = await serve(backend, { name: "sched2" });
  assertEquals((await policies()).get(Deno.pid), "SCHED_IDLE");
});
