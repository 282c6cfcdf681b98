// 1,000 answers that come just when their requests time out: each request ends exactly once, and every late answer is
// refused; and a force destroy that ends requests while they time out. Hard cases B3, C1. Not covered: that every one of them
// met its timeout within the same microsecond.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { fio, fioErrors } from "./fio.ts";
import { figure, scaled, slowed, waitFor } from "./harness.ts";
import { destroyDevice, infoOf, MIB, type Request } from "./server.ts";
import { PAGE_BYTES } from "./syscall.ts";

const wanted = scaled(1_024);
const timeoutMs = 1_000;

Deno.test("timeout and COMMIT race a thousand times", async () => {
  await using disk = await TestDisk.start({
    name: "race0",
    size_bytes: Math.max(16 * MIB, wanted * 4096),
    timeout_ms: timeoutMs,
    queue_depth: 1024,
    max_io_bytes: PAGE_BYTES,
  });
  const due: { request: Request; at: number }[] = [];
  let [taken, late] = [0, 0];
  // On a machine with other work answers are sent later than they are meant to be: those that were late have others hurry.
  let shiftMs = 0;
  disk.rule = (request) => {
    // Timeouts come on the next tick of a timer that is shared by all requests, up to a second late.
    due.push({ request, at: performance.now() + timeoutMs - 20 + Math.random() * 1_000 + shiftMs });
    return "hold";
  };
  const timer = setInterval(() => {
    const now = performance.now();
    const ready = due.filter(({ at }) => at <= now);
    for (const entry of ready) {
      due.splice(due.indexOf(entry), 1);
      const { statuses } = disk.release(entry.request);
      const isTaken = statuses[0] === abi.DBLOCK_STATUS_TAKEN;
      if (isTaken) taken++;
      else late++;
      shiftMs = Math.max(-timeoutMs, Math.min(timeoutMs, shiftMs + (isTaken ? 2 : -2)));
    }
  }, 5);
  const base = disk.info();
  const before = disk.seen.length;
  // Not all at once: those that are open together meet the same tick of the timer, be it early or late.
  const depth = Math.min(256, Math.ceil(wanted / 4));
  const { jobs } = await fio(
    `--name=race --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randread --bs=4k --iodepth=${depth} ` +
      `--size=${wanted * 4}k --continue_on_error=all`,
    { timeoutMs: 60_000 * Math.max(1, wanted / 1_024) },
  );
  while (due.length > 0) await new Promise((resolve) => setTimeout(resolve, 50));
  clearInterval(timer);
  disk.rule = () => "serve";
  const info = disk.info();
  const answered = info.requests[0]! - base.requests[0]!;
  const ended = jobs[0]!.read.total_ios;
  figure({
    "timeout/commit races": ended,
    "answered in time": taken,
    "refused as late": late,
    "not ended exactly once": Math.abs(answered + info.timeout_count - wanted),
  });
  assertEquals(ended, wanted);
  // Those that never got a slot ended without anybody having seen them.
  assertEquals(taken + late, disk.seen.length - before);
  assertEquals([answered, info.stale_count, answered + info.timeout_count], [taken, late, wanted]);
  assertEquals([info.quarantined_count, info.error_count - info.timeout_count], [0, 0]);
  assert(Math.min(taken, late) > wanted / 256, `no race: ${taken} in time, ${late} late`);
  await disk.assertIdle();
});

Deno.test("a force destroy ends a thousand requests while they time out, each of them once", async () => {
  const depth = 1_024;
  let [timedOut, rounds] = [0, 0];
  for (; rounds < 3; rounds++) {
    await using disk = await TestDisk.start({
      name: "race1",
      // All of them have to be there before the first times out.
      timeout_ms: slowed(4 * timeoutMs),
      queue_depth: depth,
      max_io_bytes: PAGE_BYTES,
    });
    disk.rule = () => "hold";
    // The timer finds all that are due at a time: those of the second half are not when the first ones are.
    const half = `--iodepth=${depth / 2} --io_size=${depth / 2 * 4}k`;
    const running = fio(
      `--filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randread --bs=4k --size=16M --continue_on_error=all ` +
        `--name=first ${half} --name=second ${half} --startdelay=${1.5 * timeoutMs}ms`,
    );
    await waitFor("all requests are there", () => disk.info().waiting_count + disk.info().handed_count >= depth);
    // It goes on to find the others of the first half.
    const givenUpMs = performance.now() + slowed(10_000);
    while (infoOf("race1")!.timeout_count === 0 && performance.now() < givenUpMs);
    const { timeout_count } = disk.info();
    assertEquals(await destroyDevice("race1"), 0);
    timedOut += timeout_count;
    const result = await running;
    assert(fioErrors(result)[0] !== 0, "the reads failed");
    // fio counts what ended: less if the kernel had forgotten one, more if one had ended twice.
    assertEquals(result.jobs.reduce((sum, { read }) => sum + read.total_ios, 0), depth);
  }
  figure({ "force destroys amid timeouts": rounds });
  assert(timedOut > 0 && timedOut < rounds * depth, `${timedOut} had timed out before`);
});
