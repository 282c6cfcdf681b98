// A request that the server keeps longer than timeout_ms gets EIO within 1 to 3 s; its slot is kept from others until the
// late answer comes, which is refused as stale and harms nobody. While nobody could answer, no timeout runs. Hard cases B3, D5.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, kernelLinesSince, markKernelLog, sh, type ShellResult, slowed, waitFor } from "./harness.ts";

const timeoutMs = 1_000;
const depth = 2;

/** Waits until the server holds a request, or who asked has ended without that. */
async function endsUntaken(asked: Promise<ShellResult>, disk: TestDisk): Promise<boolean> {
  let ended: ShellResult | undefined;
  asked.then((result) => ended = result);
  await waitFor("the request is held, or has ended", () => disk.held.length > 0 || ended !== undefined);
  if (disk.held.length > 0) return false;
  console.log(`it ended untaken: ${ended?.stderr}`);
  return true;
}

Deno.test("a request that is not answered in time ends in EIO, and its slot waits for the late answer", async () => {
  await using disk = await TestDisk.start({ name: "late0", timeout_ms: timeoutMs, queue_depth: depth });
  disk.rule = (request) => request.offsetBytes === 8192 ? "hold" : "serve";
  const read = (block: number) =>
    sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct`, { check: false });
  // Beside other work this process may get no processor for so long that a request's time is over before it is taken.
  const tries = 3;
  let before = disk.info();
  let mark = markKernelLog();
  let started = performance.now();
  let reading = read(2);
  for (let i = 1; i < tries && await endsUntaken(reading, disk); i++) {
    await disk.assertIdle();
    [before, mark, started, reading] = [disk.info(), markKernelLog(), performance.now(), read(2)];
  }
  await disk.untilHeld(1);
  const late = disk.held.shift()!;
  const { status, stderr } = await reading;
  const tookMs = performance.now() - started;
  assertEquals([status, /Input\/output error/.test(stderr)], [1, true], stderr);
  assert(tookMs >= timeoutMs, `EIO came after ${tookMs} ms`);
  assertWithin(3_500, tookMs, "EIO");

  let info = disk.info();
  const { timeout_count, error_count } = info;
  assertEquals([timeout_count - before.timeout_count, error_count - before.error_count, info.handed_count], [1, 1, 0]);
  assertEquals([info.quarantined_count, info.stale_count], [1, 0]);
  const said = kernelLinesSince(mark).filter((line) => line.startsWith("dblock: late0: "));
  assertEquals(said.length, 1, said.join("\n"));
  assert(/did not answer in 1000 ms/.test(said[0]!), said[0]);

  // With one slot left, others are served, one at a time, and never in the slot that is kept.
  for (let block = 3; block < 9; block++) assertEquals((await read(block)).status, 0);
  assertEquals(disk.seen.slice(-6).some((request) => request.slot === late.slot), false);

  const answer = disk.release(late);
  assertEquals([answer.refusedCount, answer.statuses], [1, [abi.DBLOCK_STATUS_STALE]]);
  info = disk.info();
  assertEquals([info.quarantined_count, info.stale_count, info.refused_count], [0, 1, 1]);
  assertEquals(disk.release(late).statuses, [abi.DBLOCK_STATUS_STALE]);
  await disk.assertIdle();
});

Deno.test("when every slot is kept, requests wait and time out, and all goes on after the late answers", async () => {
  await using disk = await TestDisk.start({ name: "late1", timeout_ms: timeoutMs, queue_depth: depth });
  disk.rule = () => "hold";
  const read = (block: number) =>
    sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct`, {
      check: false,
    });
  const first = [read(0), read(1)];
  await disk.untilHeld(2);
  assertEquals((await Promise.all(first)).map(({ status }) => status), [1, 1]);
  assertEquals(disk.info().quarantined_count, 2);
  assertEquals((await read(2)).status, 1);
  assertEquals([disk.seen.at(-1)!.offsetBytes > 4096, disk.held.length], [false, 2]);
  assertEquals(disk.info().timeout_count, 3);

  disk.rule = () => "serve";
  const waiting = read(3);
  await waitFor("a request waits", () => disk.info().waiting_count === 1);
  for (const request of [...disk.held]) disk.release(request);
  assertEquals((await waiting).status, 0);
  assertEquals(disk.info().quarantined_count, 0);
  await disk.assertIdle();
});

Deno.test("without a timeout a request waits as long as it takes", async () => {
  await using disk = await TestDisk.start({ name: "late2", timeout_ms: 0 });
  disk.rule = () => "hold";
  const reading = sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  await disk.untilHeld(1);
  await sh("sleep 3");
  assertEquals([disk.info().timeout_count, disk.info().handed_count], [0, 1]);
  disk.releaseAll();
  await reading;
});

Deno.test("no timeout runs while a held device is without a server, for what one was at and for what waits", async () => {
  const options = { name: "late3", timeout_ms: slowed(2 * timeoutMs), on_death: abi.DBLOCK_ON_DEATH_HOLD };
  const first = await TestDisk.start(options);
  first.rule = () => "hold";
  const read = (block: number) => sh(`dd if=${first.path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct`);
  const handed = read(0);
  await first.untilHeld(1);
  await first.pause();
  const waiting = read(1);
  await waitFor("the second read waits", () => first.info().waiting_count === 1);
  await first.abandon();
  await first.untilState(abi.DBLOCK_STATE_HELD);
  // The latest moment at which either would have timed out.
  await sh(`sleep ${(2 * options.timeout_ms + 1_000) / 1_000}`);
  const { timeout_count, waiting_count, handed_count } = first.info();
  assertEquals([timeout_count, waiting_count, handed_count], [0, 2, 0]);

  await using second = await TestDisk.start({ name: "late3", existing: true });
  await Promise.all([handed, waiting]);
  assertEquals([second.info().timeout_count, second.info().error_count, second.info().replayed_count], [0, 0, 1]);
  await second.assertIdle();
});
