// SPDX-License-Identifier: MIT
// When a queue's event loop has another turn and when it sleeps, on a fake kernel. What it does with requests is
// tests/sim/event_loop_test.ts, and what that costs tests/bench.
import { assert, assertEquals } from "@std/assert";
import { DBLOCK_OPERATION_READ as READ } from "../../../src/module/abi.ts";
import type { Backend } from "../../../src/disk/backend.ts";
import { serveOn } from "../../../src/module/serve.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";
import { io } from "./memory_disk.ts";

const REQUESTS = 20;

const later = () => new Promise<void>((resolve) => setTimeout(resolve, 3));
const read = (kernel: FakeKernel) => kernel.submit("a", io(READ, new Uint8Array(512)));

/** How many turns of the event loop were asked for by setImmediate() meanwhile. */
async function turnsOf(meanwhile: () => Promise<void>): Promise<number> {
  const real = globalThis.setImmediate;
  let count = 0;
  globalThis.setImmediate = ((...args: Parameters<typeof real>) => {
    count++;
    return real(...args);
  }) as typeof real;
  try {
    await meanwhile();
    return count;
  } finally {
    globalThis.setImmediate = real;
  }
}

async function served(disk: Backend, use: (kernel: FakeKernel) => Promise<void>): Promise<void> {
  const kernel = new FakeKernel();
  await using _device = await serveOn(kernel, disk, { name: "a", queues: 1, log: () => {} });
  await use(kernel);
}

Deno.test("a request that is alone and is answered later costs no turn of the event loop more, several do", async () => {
  await served({ sizeBytes: 2 ** 20, read: later, write() {} }, async (kernel) => {
    const alone = await turnsOf(async () => {
      for (let i = 0; i < REQUESTS; i++) assertEquals(await read(kernel), 0);
    });
    assertEquals(alone, 0);
    const together = await turnsOf(async () => {
      for (let i = 0; i < REQUESTS; i++) assertEquals(await Promise.all([read(kernel), read(kernel)]), [0, 0]);
    });
    assert(together >= REQUESTS, `${together} turns for ${REQUESTS} pairs of requests`);
  });
});

Deno.test("a disk that answers in microtasks to somebody who asks at once does not keep timers waiting", async () => {
  let isOver = false;
  let count = 0;
  let ask = () => {};
  const start = performance.now();
  const disk = {
    sizeBytes: 2 ** 20,
    // The next request is there when this one's answer is given: as where EXCHANGE waits a moment for it.
    async read() {
      await undefined;
      count++;
      if (!isOver && performance.now() - start < 5_000) ask();
    },
    write() {},
  };
  await served(disk, async (kernel) => {
    ask = () => void read(kernel);
    ask();
    await new Promise((resolve) => setTimeout(resolve, 50));
    isOver = true;
    assert(performance.now() - start < 4_000, `${count} requests before the timer`);
    assert(count > 100);
  });
});
