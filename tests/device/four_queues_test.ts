// processors: 4
// time limit: 180 s
// Four queues, each with a thread and a processor of its own: a server that dies with one, two or three of them attached
// keeps nobody from destroying the device or from recovering it, and no wake-up is lost between four sleeping threads.
// Hard cases A5, B10. Two processors, as other tests have, make no more than two queues.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, requires, scaled, sh, waitFor } from "./harness.ts";
import { Ramdisk } from "./ramdisk.ts";
import { createDevice, destroyDevice, infoOf, params } from "./server.ts";
import { ServerProcess } from "./server_process.ts";
import { stallMs, wakeAgain } from "./wakeups.ts";

const queues = 4;
const partial = [1, 2, 3];
const goneMs = 5_000;
const seconds = scaled(3);

const ignore = !requires("four processors (make test without --smp)", navigator.hardwareConcurrency >= queues);

/** Servers that attached 1, 2 and 3 queues of devices that are there, and are killed. */
async function dieWithSomeAttached(name: (attachCount: number) => string): Promise<void> {
  await Promise.all(partial.map(async (attachCount) => {
    const device = name(attachCount);
    const options = { name: device, existing: true, attachOnly: true, attachCount };
    const server = await ServerProcess.start(options);
    assertEquals(infoOf(device)!.attached_count, attachCount);
    await server.forget();
  }));
}

Deno.test("a server that dies with 1, 2 or 3 of 4 queues of a new device takes it with it", { ignore }, async () => {
  for (const count of partial) {
    assertEquals(createDevice(params(`new${count}`, { queue_count: 4 })).queue_count, queues);
  }
  await dieWithSomeAttached((count) => `new${count}`);
  for (const count of partial) {
    await waitFor(`the device with ${count} attached is gone`, () => infoOf(`new${count}`) === undefined, goneMs);
    await using disk = await TestDisk.start({ name: `new${count}`, queue_count: queues });
    await sh(`dd if=${disk.path} of=/dev/null bs=4k count=4 iflag=direct status=none`);
  }
});

Deno.test(
  "a recovery that dies with 1, 2 or 3 of 4 queues is followed by a whole one, or by a destroy",
  { ignore },
  async () => {
    const options = { queue_count: queues, on_death: abi.DBLOCK_ON_DEATH_HOLD };
    // Whatever goes wrong, no read waits for ever.
    await using leftovers = new AsyncDisposableStack();
    for (const count of partial) {
      leftovers.defer(async () => void await destroyDevice(`held${count}`));
      const first = await TestDisk.start({ ...options, name: `held${count}` });
      await first.abandon();
    }
    // Reads that wait for whoever comes next, from each processor, so that each queue has one.
    const read = (count: number) =>
      Array.from(
        { length: queues },
        (_, cpu) =>
          sh(`taskset --cpu-list ${cpu} dd if=/dev/held${count} bs=4k count=1 skip=${cpu} iflag=direct status=none`),
      );
    const reads = new Map(partial.map((count) => [count, read(count)]));
    for (const count of partial) {
      await waitFor("the reads wait", () => infoOf(`held${count}`)!.waiting_count === queues);
    }
    await dieWithSomeAttached((count) => `held${count}`);
    for (const count of partial) {
      const { state, attached_count } = infoOf(`held${count}`)!;
      assertEquals([state, attached_count], [abi.DBLOCK_STATE_HELD, 0], `${count} attached`);
      const next = await TestDisk.start({ name: `held${count}`, existing: true });
      await Promise.all(reads.get(count)!);
      await next.assertIdle();
      assertEquals(next.info().error_count, 0);
      await next.abandon();
    }
    await dieWithSomeAttached((count) => `held${count}`);
    for (const count of partial) {
      const started = performance.now();
      assertEquals(await destroyDevice(`held${count}`), 0);
      assertWithin(goneMs, performance.now() - started, `destroyed with ${count} attached before`);
      assertEquals(infoOf(`held${count}`), undefined);
    }
  },
);

for (const jobs of [1, 40]) {
  Deno.test(
    `${jobs} jobs with one request each never wait for ${stallMs / 1000} s for one of four threads`,
    { ignore },
    async () => {
      await using _disk = await Ramdisk.start({
        name: "four",
        args: ["--size", "64M", "--timeout", "20", "--queues", "4"],
      });
      assertEquals(infoOf("four")!.queue_count, queues);
      // One job goes from processor to processor, so that each thread falls asleep and is woken. A request that nobody is
      // woken for fails after 20 s, so that this comes to its end.
      await wakeAgain("four", { jobs, seconds, beside: () => jobs === 1 ? moveAround(seconds) : Promise.resolve() });
    },
  );
}

/** Puts fio's processes on one processor after another. */
async function moveAround(forSeconds: number): Promise<void> {
  await sh(
    `for turn in $(seq ${forSeconds * 5}); do
       for pid in $(pgrep -x fio); do taskset --all-tasks --cpu-list --pid $((turn % ${queues})) $pid >/dev/null; done
       sleep 0.2
     done`,
    { check: false, timeoutMs: (forSeconds + 60) * 1000 },
  );
}
