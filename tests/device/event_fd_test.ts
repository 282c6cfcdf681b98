// The eventfd that a server gives at ATTACH: it is written to once after an EXCHANGE with ARM that found
// nothing, when the next one has something to say, be it a request or an end; it is the kernel's own whatever becomes of its descriptor; what is no eventfd is
// refused. Hard case B10 for servers that sleep in an event loop.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { type Backend, serve } from "../../src/mod.ts";
import { linux } from "../../src/system/libc.ts";
import { libc } from "../../src/system/library.ts";
import { assertWithin, scaled, sh, waitFor } from "./harness.ts";
import { type Completion, createDevice, destroyDevice, done, infoOf, params, Queue, startDevice } from "./server.ts";
import { close, O_NONBLOCK, O_RDONLY, open } from "./syscall.ts";
import { stallMs, wakeAgain } from "./wakeups.ts";

const ROUNDS = scaled(200);
const POLLIN = 1;

/** An eventfd. */
class Bell implements Disposable {
  readonly fd = libc().eventfd(0, O_NONBLOCK);
  readonly #count = new BigUint64Array(1);

  /** ATTACH with it. */
  get attachment() {
    return { flags: abi.DBLOCK_ATTACH_EVENTFD, event_fd: this.fd };
  }

  /** How often it was written to since the last look. */
  take(): number {
    return libc().eventfd_read(this.fd, this.#count) === 0 ? Number(this.#count[0]) : 0;
  }

  /** Waits until it was written to: how often. */
  async rung(): Promise<number> {
    let count = 0;
    await waitFor("the eventfd is written to", () => (count = this.take()) > 0);
    return count;
  }

  [Symbol.dispose](): void {
    close(this.fd);
  }
}

/** A device that is live, whose server has nothing to do and is asleep: the eventfd has told of what there was. */
async function started(name: string, bell: Bell, changes: Parameters<typeof params>[1] = {}): Promise<Queue> {
  const queue = new Queue(createDevice(params(name, changes)), 0);
  assertEquals(queue.attach(bell.attachment), 0);
  assertEquals(startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), 0);
  for (let answers: Completion[] = [];;) {
    const { header, requests } = look(queue, answers);
    answers = requests.map((request) => done(request));
    if (requests.length > 0) continue;
    if (header.state === abi.DBLOCK_STATE_LIVE && header.error === ERRNO.EAGAIN) return queue;
    if (bell.take() === 0) await new Promise((resolve) => setTimeout(resolve, 20)); // what is live rings nothing
  }
}

/** EXCHANGE of a server that goes to sleep if there is nothing. */
const look = (queue: Queue, completions: readonly Completion[] = []) => queue.exchange(completions, { arm: true });

const untilWaiting = (name: string) => waitFor("a request waits", () => infoOf(name)!.waiting_count === 1);

const read = (name: string, block = 0) =>
  sh(`dd if=/dev/${name} of=/dev/null bs=4k count=1 skip=${block} iflag=direct status=none`, { check: false });

Deno.test("it is written to once for the first request after an EXCHANGE that found none, and not for the next ones", async () => {
  using bell = new Bell();
  using queue = await started("event0", bell);
  bell.take();
  const reads = [read("event0", 0)];
  assertEquals(await bell.rung(), 1);
  reads.push(read("event0", 1), read("event0", 2));
  await waitFor("all wait", () => infoOf("event0")!.waiting_count === 3);
  assertEquals(bell.take(), 0);
  const { requests } = queue.exchange();
  assertEquals(requests.length, 3);
  // Nothing was missing, so there is nothing to tell: a request that comes now is found by who looks.
  reads.push(read("event0", 3));
  await untilWaiting("event0");
  assertEquals(bell.take(), 0);
  const { requests: last } = queue.exchange(requests.map((request) => done(request)));
  assertEquals(last.length, 1);
  assertEquals(look(queue, last.map((request) => done(request))).header.error, ERRNO.EAGAIN);
  for (const one of await Promise.all(reads)) assertEquals(one.status, 0);
  // Nobody has read it since; it is written to all the same.
  assertEquals(bell.take(), 0);
  const again = read("event0");
  assertEquals(await bell.rung(), 1);
  queue.answerAll();
  await again;
  // That EXCHANGE found nothing either, but whoever made it does not sleep.
  const unseen = read("event0");
  await untilWaiting("event0");
  assertEquals(bell.take(), 0);
  queue.answerAll();
  await unseen;
  await destroyDevice("event0");
});

Deno.test("it tells of the end: the device is destroyed, the file released, the queue taken over", async () => {
  using bell = new Bell();
  {
    using queue = await started("event1", bell);
    bell.take();
    assertEquals(await destroyDevice("event1"), 0);
    assertEquals(await bell.rung(), 1);
    assertEquals(queue.exchange().header.error, ERRNO.ENODEV);
  }
  {
    using queue = await started("event1", bell);
    bell.take();
    using heir = new Queue(infoOf("event1")!, 0);
    assertEquals(heir.attach({ flags: abi.DBLOCK_ATTACH_TAKE_OVER }), 0);
    assertEquals(await bell.rung(), 1);
    assertEquals(queue.exchange().result, -ERRNO.ENOTCONN);
    assertEquals(await destroyDevice("event1"), 0);
  }
  const queue = await started("event1", bell);
  bell.take();
  queue[Symbol.dispose]();
  assertEquals(await bell.rung(), 1);
  await waitFor("the device is gone", async () => (await destroyDevice("event1")) === ERRNO.ENOENT);
});

Deno.test("an ATTACH of the same file changes the eventfd, or does away with it; whoever sleeps on the old one wakes", async () => {
  using first = new Bell();
  using second = new Bell();
  using queue = await started("event2", first);
  first.take();
  assertEquals(queue.attach(second.attachment), 0);
  assertEquals([await first.rung(), second.take()], [1, 0]);
  assertEquals(look(queue).header.error, ERRNO.EAGAIN);
  const one = read("event2");
  assertEquals([await second.rung(), first.take()], [1, 0]);
  queue.answerAll();
  await one;
  assertEquals(queue.attach(), 0);
  second.take();
  assertEquals(look(queue).header.error, ERRNO.EINVAL); // there is nothing to arm
  assertEquals(queue.exchange().header.error, ERRNO.EAGAIN);
  const other = read("event2");
  await untilWaiting("event2");
  assertEquals([first.take(), second.take()], [0, 0]);
  queue.answerAll();
  await other;
  await destroyDevice("event2");
});

Deno.test("two files have one eventfd: each says whether it was meant, also when what it was rung for is gone", async () => {
  using bell = new Bell();
  using first = await started("event7", bell, { timeout_ms: 1_000 });
  using second = await started("event8", bell);
  const files = new Int32Array([first.fd, POLLIN, second.fd, POLLIN]);
  const readable = () => {
    linux.poll(files, new BigInt64Array([0n, 0n]));
    return [1, 3].map((i) => (files[i]! >> 16 & POLLIN) !== 0);
  };
  for (const queue of [first, second]) assertEquals(look(queue).header.error, ERRNO.EAGAIN);
  bell.take();
  assertEquals(readable(), [false, false]);
  // Nobody takes it, so it ends by its time.
  const { status } = await read("event7");
  assertEquals([status !== 0, infoOf("event7")!.waiting_count, bell.take()], [true, 0, 1]);
  assertEquals(readable(), [true, false]);
  assertEquals(readable(), [true, false]);
  assertEquals(look(first).header.error, ERRNO.EAGAIN);
  assertEquals(readable(), [false, false]);
  const other = read("event8");
  assertEquals(await bell.rung(), 1);
  assertEquals(readable(), [false, true]);
  second.answerAll();
  assertEquals((await other).status, 0);
  assertEquals(readable(), [false, false]);
  for (const name of ["event7", "event8"]) await destroyDevice(name);
});

Deno.test("its descriptor may be closed: the kernel has the eventfd, and nothing else is written to", async () => {
  const bell = new Bell();
  using queue = await started("event3", bell);
  bell[Symbol.dispose]();
  using other = new Bell(); // with the number of the one before, most likely
  const one = read("event3");
  await untilWaiting("event3");
  queue.answerAll();
  await one;
  assertEquals(other.take(), 0);
  await destroyDevice("event3");
});

Deno.test("what is no eventfd is refused, and a descriptor without the flag", async () => {
  using bell = new Bell();
  using queue = new Queue(createDevice(params("event4")), 0);
  const flags = abi.DBLOCK_ATTACH_EVENTFD;
  const file = open("/dev/null", O_RDONLY);
  for (const event_fd of [file, queue.fd, 1_000_000, 2 ** 31 - 1, 2 ** 32 - 1]) {
    assertEquals(queue.attach({ flags, event_fd }), ERRNO.EINVAL, `${event_fd}`);
  }
  close(file);
  assertEquals(queue.attach({ event_fd: bell.fd }), ERRNO.EINVAL);
  assertEquals(queue.attach({ flags: flags | 8, event_fd: bell.fd }), ERRNO.EOPNOTSUPP);
  assertEquals(queue.exchange().result, -ERRNO.ENOTCONN);
  assertEquals(queue.attach(bell.attachment), 0);
  await destroyDevice("event4");
});

Deno.test(`${ROUNDS} requests, each at another moment of the server's falling asleep: each wakes it`, async () => {
  using bell = new Bell();
  using queue = await started("event5", bell);
  const load = sh(
    `fio --name=event --filename=/dev/event5 --direct=1 --ioengine=psync --rw=randread --bs=4k --size=1M ` +
      `--thinktime=1ms --number_ios=${ROUNDS}`,
    { timeoutMs: 120_000 },
  );
  let isOver = false;
  const ended = load.finally(() => isOver = true);
  const started_ = performance.now();
  let longestMs = 0;
  for (let { requests } = look(queue); !isOver;) {
    if (requests.length > 0) {
      ({ requests } = look(queue, requests.map((request) => done(request))));
      continue;
    }
    const sinceMs = performance.now();
    await Promise.race([bell.rung(), ended]);
    longestMs = Math.max(longestMs, performance.now() - sinceMs);
    ({ requests } = look(queue));
  }
  await ended;
  assertWithin(stallMs, longestMs, `woken (all took ${performance.now() - started_} ms)`);
  await destroyDevice("event5");
});

Deno.test("a backend that answers later is woken so", async () => {
  const store = new Uint8Array(64 * 2 ** 20);
  const backend: Backend = {
    sizeBytes: store.length,
    read: async (buffer, offset) => {
      await new Promise((resolve) => setImmediate(resolve));
      buffer.set(store.subarray(offset, offset + buffer.length));
    },
    write: async (buffer, offset) => {
      await Promise.resolve();
      store.set(buffer, offset);
    },
  };
  await using device = await serve(backend, { name: "event6", timeoutMs: 0 });
  for (const jobs of [3, 1]) await wakeAgain("event6", { jobs, seconds: scaled(3) });
  await device.close();
});
