// SPDX-License-Identifier: MIT
// When the thread itself waits for a store's answers, on a fake kernel. What becomes of requests is tests/sim/event_loop_test.ts.
import { assertEquals } from "@std/assert";
import { DBLOCK_OPERATION_READ as READ } from "../../../src/module/abi.ts";
import type { Backend } from "../../../src/disk/backend.ts";
import { type Answers, LateAnswer, putPolled } from "../../../src/disk/late.ts";
import { serveOn } from "../../../src/module/serve.ts";
import { servers } from "../../../src/system/servers.ts";
import { FakeKernel } from "../../sim/fake_kernel.ts";
import { io } from "./memory_disk.ts";

const ANSWERS_FD = 1_000_000;

/** Answers each request 2 ms after it was asked for. */
class SlowAnswers implements Answers {
  readonly fd = ANSWERS_FD;
  isTurn = false;
  readonly #open: { readonly answer: LateAnswer; readonly atMs: number }[] = [];

  begin(): Promise<undefined> {
    const answer = new LateAnswer();
    this.#open.push({ answer, atMs: performance.now() + 2 });
    return answer.asPromise();
  }

  get openCount(): number {
    return this.#open.length;
  }

  submit(): void {}

  collect(): void {
    while (this.#open.length > 0 && this.#open[0]!.atMs <= performance.now()) this.#open.shift()!.answer.resolve();
  }

  async wait(): Promise<void> {
    while (this.#open.length > 0 && this.#open[0]!.atMs > performance.now()) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

/** How often the thread waited by itself while 20 requests were answered, one after the other. */
async function waitsOf(queues: number): Promise<number> {
  const kernel = new FakeKernel();
  const answers = new SlowAnswers();
  let waits = 0;
  kernel.pollable.set(ANSWERS_FD, () => {
    waits++;
    return false;
  });
  const disk: Backend = { sizeBytes: 2 ** 20, read: () => Promise.resolve(), write() {} };
  putPolled(disk, () => ({ backend: { ...disk, read: () => answers.begin() }, answers }));
  await using _device = await serveOn(kernel, disk, { name: "a", queues, log: () => {} });
  for (let i = 0; i < 20; i++) assertEquals(await kernel.submit("a", io(READ, new Uint8Array(512))), 0);
  return waits;
}

Deno.test("a thread that serves one queue waits for its store by itself, seldom where that is in vain", async () => {
  const waits = await waitsOf(1);
  assertEquals(waits >= 4 && waits < 15, true, `${waits} waits`);
});

Deno.test("a thread that serves others as well never does, nor with a second queue", async () => {
  servers.count++;
  try {
    assertEquals(await waitsOf(1), 0);
  } finally {
    servers.count--;
  }
  assertEquals(await waitsOf(2), 0);
  assertEquals(servers.count, 0);
});
