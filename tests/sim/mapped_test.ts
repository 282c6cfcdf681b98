// SPDX-License-Identifier: MIT
/**
 * The real direct-mode loop and a real `MemoryBackend` against a fake kernel that misbehaves, compared with a naive disk.
 * The kernel copies from and to the addresses that the completions name.
 *
 * The loop blocks its thread, so all traffic is made when it has nothing to do, and requests overlap only in the ring. It
 * does not cover: the module (tests/device), Workers, several queues at once, memory that faults.
 */
import { assert, assertEquals } from "@std/assert";
import {
  DBLOCK_DEVICE_DIRECT,
  DBLOCK_OPERATION_DISCARD,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE_ZEROES,
} from "../../src/module/abi.ts";
import { MemoryBackend } from "../../src/backends/memory.ts";
import { Channel } from "../../src/module/channel.ts";
import { Control } from "../../src/module/control.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { serveMapped } from "../../src/module/mapped.ts";
import { geometryOf } from "../../src/module/plan.ts";
import { FakeKernel } from "./fake_kernel.ts";
import { KIND, memoryAt, type Mischief } from "./fake_queue.ts";
import { BLOCK_BYTES, ModelDisk } from "./model.ts";
import { forEachSeed, type Random } from "./random.ts";

const FILE = "tests/sim/mapped_test.ts";
const NAME = "sim0";
const SIZE_BYTES = 256 * BLOCK_BYTES;
const MAX_IO_BYTES = 8192;
const ROUNDS = 60;

const operations = [
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_DISCARD,
  DBLOCK_OPERATION_WRITE_ZEROES,
];

async function simulate(random: Random, mischief: Mischief, errnos: ReadonlySet<number>): Promise<ModelDisk> {
  const model = new ModelDisk(SIZE_BYTES, random);
  const traffic = { name: NAME, maxIoBytes: MAX_IO_BYTES, maxRangeBytes: SIZE_BYTES, operations, errnos };
  const all: Promise<void>[] = [];
  let rounds = 0;
  // Ends of requests are heard at once: nothing else runs while the loop has the thread.
  const later = { nowMs: 0, after: (_ms: number, run: () => void) => run() };
  const kernel = new FakeKernel({
    mischief,
    random,
    later,
    onBlock: () => {
      if (++rounds > ROUNDS) return kernel.remove(NAME);
      for (let i = 0; i <= random.below(8); i++) all.push(model.one(kernel, traffic));
    },
  });
  const backend = new MemoryBackend({ sizeBytes: SIZE_BYTES });
  using control = await Control.open("Cannot simulate", kernel);
  const created = await control.create({
    name: NAME,
    flags: DBLOCK_DEVICE_DIRECT,
    size_bytes: SIZE_BYTES,
    logical_block_bytes: BLOCK_BYTES,
    max_io_bytes: MAX_IO_BYTES,
    max_discard_bytes: SIZE_BYTES,
    max_write_zeroes_bytes: SIZE_BYTES,
    queue_count: 1,
    queue_depth: 1 + random.below(8),
  });
  {
    using channel = new Channel({ name: NAME, queue: 0, depth: created.queue_depth, slotBytes: 0, kernel });
    channel.attach();
    serveMapped(channel, backend.mapping, geometryOf(created));
  }
  await Promise.all(all);
  model.compareAll(memoryAt(backend.mapping.address, SIZE_BYTES).slice());
  backend.close();
  return model;
}

Deno.test("a kind kernel and memory: nothing is lost and nothing fails", async () => {
  await forEachSeed(20, FILE, async (random) => {
    const model = await simulate(random, KIND, new Set());
    assert(model.endedCount > ROUNDS / 2);
    assertEquals(model.errorCount, 0);
  });
});

Deno.test("a kernel that interrupts, hands out piecemeal, refuses and faults, and memory: only the request suffers", async () => {
  await forEachSeed(60, FILE, async (random) => {
    const some = (most: number) => random.chance(0.5) ? random.next() * most : 0;
    const mischief = {
      interrupt: some(0.4),
      partialTake: some(0.4),
      partialBatch: some(0.8),
      handBack: some(0.4),
      refuse: some(0.3),
      fault: some(0.2),
      spuriousWake: 0,
    };
    await simulate(random, mischief, new Set([ERRNO.EIO]));
  });
});
