/**
 * A server of userfault_test.ts that gets stuck for ever: with one disk in COMMIT and with one in EXCHANGE, on data that never
 * comes, and with one in EXCHANGE on its ring. Its arguments are their names; each waits for a READ, which the test makes.
 */
import { assertEquals } from "@std/assert";
import { DBLOCK_DEVICE_DIRECT } from "../../src/module/abi.ts";
import { commitFrom, deadMemory, MortalRing } from "./dead_memory.ts";
import { TestDisk } from "./disk.ts";
import { waitFor } from "./harness.ts";
import { done } from "./server.ts";
import { PAGE_BYTES } from "./syscall.ts";

if (import.meta.main) {
  const [inCommit, inExchange, onRing] = await Promise.all(
    Deno.args.map((name) => TestDisk.start({ name, flags: DBLOCK_DEVICE_DIRECT, queue_depth: MortalRing.depth })),
  ) as [TestDisk, TestDisk, TestDisk];
  inCommit.rule = inExchange.rule = () => "hold";
  await onRing.pause();
  const ring = new MortalRing();
  assertEquals(onRing.queues[0]!.attach({ ring_address: ring.ringAddress }), 0);
  ring.lose("requests");
  console.log("live");

  await Promise.all([inCommit.untilHeld(1), inExchange.untilHeld(1)]);
  await waitFor("a request waits", () => onRing.info().waiting_count === 1);
  await Promise.all([inCommit.pause(), inExchange.pause()]);
  const memory = deadMemory(PAGE_BYTES);
  await Promise.race([
    commitFrom(memory, inCommit.queues[0]!, inCommit.held[0]!),
    inExchange.queues[0]!.exchangeAsync([{ ...done(inExchange.held[0]!), address: memory.address }]),
    onRing.queues[0]!.exchangeAsync(),
  ]);
  throw new Error("a call has ended");
}
