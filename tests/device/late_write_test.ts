// A request's clock starts when it is handed out, and anew after a recovery. What timed out may still be done: nothing that
// would change the same blocks is handed out before its late answer. Or the timeout is the server's death. Hard cases I1, I2.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { isFilled, TestDisk } from "./disk.ts";
import { assertWithin, sh, slowed, waitFor } from "./harness.ts";
import type { Request } from "./server.ts";

const { DBLOCK_OPERATION_WRITE: WRITE, DBLOCK_ON_DEATH_HOLD: HOLD, DBLOCK_STATE_HELD: HELD } = abi;
const blockBytes = 4096;
const writeBlock = (path: string, block: number, byte: string) =>
  sh(
    `tr '\\0' '${byte}' </dev/zero | dd of=${path} bs=4k count=1 seek=${block} iflag=fullblock oflag=direct status=none`,
    {
      check: false,
    },
  );
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const isWriteOf = (block: number) => (request: Request) =>
  request.operation === WRITE && request.offsetBytes === block * blockBytes;

Deno.test("after a recovery a request has its whole time again", async () => {
  const timeoutMs = slowed(6_000);
  const first = await TestDisk.start({ name: "clock0", timeout_ms: timeoutMs, on_death: HOLD });
  first.rule = () => "hold";
  const reading = sh(`dd if=${first.path} of=/dev/null bs=4k count=1 iflag=direct status=none`, { check: false });
  await first.untilHeld(1);
  const heldAtMs = performance.now();
  const untilPart = (part: number) => sleep(Math.max(0, heldAtMs + part * timeoutMs - performance.now()));
  await first.abandon();
  await first.untilState(HELD);
  // Most of its time passes without a server; the timer of before goes off while the next one is at it.
  await untilPart(0.6);
  await using second = await TestDisk.start({ name: "clock0", existing: true, rule: () => "hold" });
  await second.untilHeld(1);
  await untilPart(1.4);
  second.releaseAll();
  const { status, stderr } = await reading;
  assertEquals([status, second.info().timeout_count], [0, 0], stderr);
});

Deno.test("a write that timed out replaces nothing newer, however late the server does it", async () => {
  await using disk = await TestDisk.start({ name: "late4", timeout_ms: slowed(3_000), queue_depth: 4 });
  disk.rule = (request) => isWriteOf(2)(request) && disk.held.length === 0 ? "hold" : "serve";
  const first = writeBlock(disk.path, 2, "A");
  await disk.untilHeld(1);
  const late = disk.held[0]!;
  assertEquals((await first).status, 1);
  assertEquals(disk.info().quarantined_count, 1);

  disk.rule = () => "serve";
  disk.seen.length = 0;
  const newer = writeBlock(disk.path, 2, "B");
  await waitFor("the newer write waits", () => disk.info().waiting_count === 1);
  // What does not overlap goes on, and so does a read.
  assertEquals((await writeBlock(disk.path, 3, "C")).status, 0);
  assertEquals((await sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 skip=2 iflag=direct status=none`)).status, 0);
  assertEquals(disk.seen.some(isWriteOf(2)), false);

  assertEquals(disk.release(late).statuses, [abi.DBLOCK_STATUS_STALE]);
  assertEquals((await newer).status, 0);
  assert(isFilled(disk.store.bytes.subarray(2 * blockBytes, 3 * blockBytes), 66), "the newer write is not there");
  assertEquals(disk.info().timeout_count, 1);
  await disk.assertIdle();
});

Deno.test("what waits for a late answer that never comes times out, and the end of the server frees it", async () => {
  const disk = await TestDisk.start({ name: "late5", timeout_ms: 1_000, queue_depth: 4, on_death: HOLD });
  disk.rule = (request) => isWriteOf(2)(request) ? "hold" : "serve";
  assertEquals((await writeBlock(disk.path, 2, "A")).status, 1);
  assertEquals((await writeBlock(disk.path, 2, "B")).status, 1);
  assertEquals([disk.held.length, disk.info().timeout_count, disk.info().waiting_count], [1, 2, 0]);
  await disk.abandon();
  await disk.untilState(HELD);
  await using second = await TestDisk.start({ name: "late5", existing: true });
  assertEquals((await writeBlock(disk.path, 2, "C")).status, 0);
  assert(isFilled(second.store.bytes.subarray(2 * blockBytes, 3 * blockBytes), 67));
  await second.assertIdle();
});

Deno.test("who waits is told when a slot comes free for what waited for another queue's late answer", async () => {
  const timeoutMs = slowed(5_000);
  await using disk = await TestDisk.start({ name: "late7", timeout_ms: timeoutMs, queue_count: 2, queue_depth: 2 });
  const readOn1 = (block: number) =>
    sh(`taskset -c 1 dd if=${disk.path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct status=none`, {
      check: false,
    });
  const write = (cpu: number) =>
    sh(`taskset -c ${cpu} dd if=/dev/zero of=${disk.path} bs=4k count=1 oflag=direct status=none`, { check: false });
  disk.rule = () => "hold";
  // One write is in quarantine on the first queue, one read takes a slot of the second.
  assertEquals((await Promise.all([write(0), readOn1(1)])).map(({ status }) => status), [1, 1]);
  const late = disk.held.find(({ operation }) => operation === WRITE)!;
  assertEquals([late.queue, disk.held.length, disk.info().quarantined_count], [0, 2, 2]);
  disk.held.length = 0;
  // The same write waits for that on the second queue, and a read has its last slot.
  const newer = write(1);
  await waitFor("the newer write waits", () => disk.info().waiting_count === 1);
  const reading = readOn1(2);
  await disk.untilHeld(1);
  await disk.pause();
  const [, second] = disk.queues;
  const [read] = disk.held;
  disk.release(late);
  const polled = second!.poll(timeoutMs);
  await sleep(200);
  disk.release(read!);
  const freeMs = performance.now();
  assertEquals(await polled, 1); // POLLIN, which the end of poll()'s time would say, too
  assertWithin(timeoutMs / 3, performance.now() - freeMs, "told");
  disk.rule = () => "serve";
  disk.serve();
  assertEquals((await Promise.all([newer, reading])).map(({ status }) => status), [0, 0]);
});

Deno.test("where a timeout is the server's death, nothing fails and the next server does it", async () => {
  const flags = abi.DBLOCK_DEVICE_TIMEOUT_IS_DEATH;
  const options = { name: "late6", timeout_ms: 1_000, on_death: HOLD, flags, queue_count: 2 };
  const stuck = await TestDisk.start(options);
  stuck.rule = () => "hold";
  const reading = sh(`dd if=${stuck.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  await stuck.untilHeld(1);
  await stuck.untilState(HELD);
  const { attached_count, death_count, error_count } = stuck.info();
  assertEquals([attached_count, death_count, error_count], [0, 1, 0]);
  await waitFor("the server hears of it", () => stuck.ended !== undefined);
  assertEquals(stuck.ended, ERRNO.ENOTCONN);
  await stuck.abandon();
  await using second = await TestDisk.start({ name: "late6", existing: true });
  await reading;
  assertEquals([second.info().replayed_count, second.info().death_count], [1, 1]);
  await second.assertIdle();
});
