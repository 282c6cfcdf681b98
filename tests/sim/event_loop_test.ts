// SPDX-License-Identifier: MIT
/**
 * The real channel, dispatch and event loop, against a fake kernel that misbehaves and backends that throw, reject, delay,
 * reorder, answer short or never, compared with a naive disk. Every seed is one device's life, which ends in the middle.
 *
 * It does not cover: the module (tests/device), Workers, two threads in one queue, real time, memory ordering, the death
 * of a server, recovery and take-over.
 */
import { assert, assertEquals } from "@std/assert";
import {
  DBLOCK_DEVICE_WRITE_ZEROES,
  DBLOCK_OPERATION_FLUSH,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE_ZEROES,
} from "../../src/module/abi.ts";
import type { Backend, Completed } from "../../src/disk/backend.ts";
import { putPolled } from "../../src/disk/late.ts";
import { start } from "../../src/module/node.ts";
import { Control } from "../../src/module/control.ts";
import { DblockError, ERRNO } from "../../src/disk/errors.ts";
import { geometryOf } from "../../src/module/plan.ts";
import { LocalQueue, type QueuePlan } from "../../src/module/queue.ts";
import { Rounds } from "../../src/module/rounds.ts";
import { Channel } from "../../src/module/channel.ts";
import { EventLoop } from "../../src/module/eventloop.ts";
import { FakeAnswers } from "./fake_answers.ts";
import { FakeKernel } from "./fake_kernel.ts";
import { KIND, type Mischief } from "./fake_queue.ts";
import { BLOCK_BYTES, ModelDisk } from "./model.ts";
import { forEachSeed, type Random } from "./random.ts";
import { Scheduler } from "./scheduler.ts";

const FILE = "tests/sim/event_loop_test.ts";
const NAME = "sim0";
const SIZE_BYTES = 128 * BLOCK_BYTES;
const MAX_IO_BYTES = 4096;
const MAX_RANGE_BYTES = 4 * MAX_IO_BYTES;

const operations = [
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_READ,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE,
  DBLOCK_OPERATION_WRITE_ZEROES,
  DBLOCK_OPERATION_FLUSH,
];

function mischiefOf(random: Random): Mischief {
  const some = (most: number) => random.chance(0.5) ? random.next() * most : 0;
  return {
    interrupt: some(0.4),
    partialTake: some(0.4),
    partialBatch: some(0.8),
    handBack: some(0.4),
    refuse: some(0.3),
    fault: some(0.2),
    spuriousWake: some(0.3),
  };
}

/** How often a backend does what, each 0 to 1. */
interface Temper {
  readonly throws: number;
  readonly rejects: number;
  readonly short: number;
  readonly delays: number;
  readonly never: number;
  readonly thenable: number;
}

const CALM: Temper = { throws: 0, rejects: 0, short: 0, delays: 0, never: 0, thenable: 0 };

/** A store behind a backend that behaves as badly as it is told to. */
function moodyBackend(
  store: Uint8Array,
  temper: Temper,
  random: Random,
  scheduler: Scheduler,
  answers?: FakeAnswers,
): Backend {
  const answer = (lengthBytes: number, work: () => void): Completed | Promise<Completed> => {
    scheduler.advance(random.next());
    if (random.chance(temper.throws)) throw new Error("moody");
    if (answers?.isTurn && random.chance(0.8)) {
      return answers.begin(random.chance(temper.delays) ? random.below(20) : 0, (late) => {
        if (random.chance(temper.rejects)) return late.reject(new DblockError("ENOSPC", "Cannot write", "no mood"));
        if (random.chance(temper.short)) return late.resolve(lengthBytes - 1);
        work();
        late.resolve(random.chance(0.5) ? lengthBytes : undefined);
      }).asPromise();
    }
    if (random.chance(temper.never)) return new Promise<Completed>(() => {});
    if (random.chance(temper.rejects)) return Promise.reject(new DblockError("ENOSPC", "Cannot write", "no mood"));
    if (random.chance(temper.short)) return lengthBytes - 1;
    if (random.chance(temper.delays)) return scheduler.sleep(random.below(20)).then(work);
    if (random.chance(temper.thenable)) return Promise.resolve().then(work).then(() => lengthBytes);
    work();
  };
  return {
    sizeBytes: store.length,
    read: (buffer, at) => answer(buffer.length, () => buffer.set(store.subarray(at, at + buffer.length))),
    // A backend that answers later owns the buffer until then: it is copied when it is used, not before.
    write: (buffer, at) => answer(buffer.length, () => store.set(buffer, at)),
    ...(random.chance(0.5) ? { flush: () => answer(0, () => {}) } : {}),
    ...(random.chance(0.5)
      ? { writeZeroes: (at: number, length: number) => answer(length, () => void store.fill(0, at, at + length)) }
      : {}),
  };
}

interface Run {
  readonly mischief: Mischief;
  readonly temper: Temper;
  readonly requests: number;
  readonly timeouts: number;
  /** What requests may end with. */
  readonly errnos: readonly number[];
  /** The device may be destroyed with requests everywhere. */
  readonly sudden: boolean;
}

/** One device from CREATE to its end. */
async function simulate(random: Random, run: Run): Promise<ModelDisk> {
  const scheduler = new Scheduler(random);
  const kernel = new FakeKernel({ mischief: run.mischief, random, later: scheduler });
  kernel.hasEvents = random.chance(0.7);
  kernel.isOlder = random.chance(0.1);
  const store = new Uint8Array(SIZE_BYTES);
  const backend = moodyBackend(store, run.temper, random, scheduler);
  const answers = new FakeAnswers(kernel, scheduler, random);
  if (random.chance(0.5)) {
    putPolled(
      backend,
      () => ({ backend: { ...backend, ...moodyBackend(store, run.temper, random, scheduler, answers) }, answers }),
    );
  }
  const model = new ModelDisk(SIZE_BYTES, random);
  const control = await scheduler.until(Control.open("Cannot simulate", kernel));
  const created = await scheduler.until(control.create({
    name: NAME,
    flags: DBLOCK_DEVICE_WRITE_ZEROES,
    size_bytes: SIZE_BYTES,
    logical_block_bytes: BLOCK_BYTES,
    max_io_bytes: MAX_IO_BYTES,
    max_write_zeroes_bytes: MAX_RANGE_BYTES,
    queue_count: 1 + random.below(3),
    queue_depth: 1 + random.below(8),
  }));
  const geometry = geometryOf(created);
  const queues: Pick<LocalQueue, "left">[] = [];
  const pollFiles = random.chance(0.3) && kernel.hasRoomToWait ? kernel.openPollFiles() : undefined;
  // As in a Worker of a pool.
  const rounds = pollFiles && new Rounds(kernel, { files: kernel.fileSetOf(pollFiles), mayBlock: () => false });
  for (let queue = 0; queue < created.queue_count; queue++) {
    const plan = { name: NAME, id: created.id, queue, depth: created.queue_depth, geometry };
    if (rounds !== undefined) queues.push({ left: serveWith(rounds, plan, backend, kernel) });
    else queues.push(new LocalQueue(plan, backend, kernel, () => {}, created.queue_count === 1));
    if (random.chance(0.5)) await scheduler.until(scheduler.sleep(random.below(5)));
  }
  const timeouts = new Timeouts(kernel, scheduler, random, run.timeouts);
  await scheduler.until(start(NAME, kernel));

  const isSudden = run.sudden && random.chance(0.5);
  const errnos = new Set(isSudden ? [...run.errnos, ERRNO.EIO] : run.errnos);
  const traffic = { name: NAME, maxIoBytes: MAX_IO_BYTES, maxRangeBytes: MAX_RANGE_BYTES, operations, errnos };
  const all: Promise<void>[] = [];
  for (let i = 0; i < run.requests; i++) {
    all.push(model.one(kernel, traffic));
    if (random.chance(0.3)) await scheduler.until(scheduler.sleep(random.below(5)));
  }
  if (!isSudden) await scheduler.until(Promise.all(all));
  timeouts.stop();
  await scheduler.until(control.destroy(NAME, { force: true }));
  await scheduler.until(Promise.all([...all, ...queues.map((queue) => queue.left)]));
  await scheduler.until(scheduler.sleep(50)); // late answers come to nobody
  control[Symbol.dispose]();
  if (pollFiles !== undefined) kernel.closePollFiles(pollFiles);
  assertEquals([...kernel.files.keys()], [], "files left open");
  assertEquals([...kernel.epolls], [], "epoll sets left open");
  // A device may end before its only queue was at rest once.
  const said = `${kernel.lingerCount} calls of ${queues.length} queues`;
  if (queues.length === 1 && rounds === undefined && run.mischief === KIND && !kernel.isOlder) {
    assert(kernel.lingerCount > 0, said);
  }
  if (!isSudden) model.compareAll(store);
  return model;
}

/** A queue in the rounds of a thread that has nothing else to do. */
async function serveWith(rounds: Rounds, plan: QueuePlan, backend: Backend, kernel: FakeKernel): Promise<void> {
  const { geometry } = plan;
  using channel = new Channel({ ...plan, slotBytes: geometry.maxIoBytes, nonblocking: true, kernel });
  channel.attach();
  await new EventLoop(channel, backend, geometry, () => {}, rounds).run();
}

/** Lets requests time out now and then: one that is never answered would end nothing otherwise. */
class Timeouts {
  #stopped = false;

  constructor(kernel: FakeKernel, scheduler: Scheduler, random: Random, rate: number) {
    const tick = () => {
      if (this.#stopped) return;
      const queue = kernel.queueOf(NAME);
      if (queue !== undefined && random.chance(rate)) kernel.expireOne(queue);
      scheduler.after(10, tick);
    };
    if (rate > 0) tick();
  }

  stop(): void {
    this.#stopped = true;
  }
}

Deno.test("a kind kernel and a calm backend: nothing is lost and nothing fails", async () => {
  await forEachSeed(30, FILE, async (random) => {
    const run = { mischief: KIND, temper: CALM, requests: 200, timeouts: 0, errnos: [], sudden: false };
    const model = await simulate(random, run);
    assert(model.endedCount > 50);
    assertEquals(model.errorCount, 0);
  });
});

Deno.test("a kernel that interrupts and hands out piecemeal, and a slow backend: nothing fails", async () => {
  await forEachSeed(60, FILE, async (random) => {
    const mischief = { ...mischiefOf(random), refuse: 0, fault: 0 };
    const temper = { ...CALM, delays: random.next(), thenable: random.next() };
    const model = await simulate(random, { mischief, temper, requests: 200, timeouts: 0, errnos: [], sudden: false });
    assertEquals(model.errorCount, 0);
  });
});

Deno.test("a kernel that refuses, a backend in every mood, a device that ends at any time: only the request suffers", async () => {
  await forEachSeed(120, FILE, async (random) => {
    const some = () => random.chance(0.5) ? random.next() * 0.3 : 0;
    const temper = {
      throws: some(),
      rejects: some(),
      short: some(),
      delays: some(),
      never: some() / 10,
      thenable: some(),
    };
    const errnos = [ERRNO.EIO, ERRNO.ENOSPC];
    // Without timeouts, an answer that gets lost on the way cannot hide behind one.
    const timeouts = temper.never > 0 || random.chance(0.5) ? 0.5 : 0;
    await simulate(random, {
      mischief: mischiefOf(random),
      temper,
      requests: 200,
      timeouts,
      errnos,
      sudden: true,
    });
  });
});
