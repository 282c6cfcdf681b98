// EXCHANGE waits until there is something to say, and no longer: O_NONBLOCK, poll, signals, a second thread, the end.
// Hard cases B9, F1 (a signal is delivered to the process and not eaten).
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, sh, slowed, waitFor } from "./harness.ts";
import {
  createDevice,
  destroyDevice,
  done,
  params,
  Queue,
  signalThread,
  threadsInDblock,
  threadsInPoll,
} from "./server.ts";
import { NR, O_RDWR, syscall } from "./syscall.ts";

const { EAGAIN, EBUSY, EINTR, EINVAL, ENODEV } = ERRNO;
const POLLIN = 1;
const POLLHUP = 16;
const POLLERR = 8;
const SIGUSR1 = 10;
const F_SETFL = 4;

Deno.test("with O_NONBLOCK EXCHANGE says EAGAIN in the header and returns 0", async () => {
  const created = createDevice(params("wait0"));
  using queue = new Queue(created, 0);
  assertEquals(await queue.poll(0) & POLLERR, POLLERR);
  assertEquals(queue.attach(), 0);
  const { result, header } = queue.exchange();
  assertEquals([result, header.error, header.state], [0, EAGAIN, abi.DBLOCK_STATE_CREATED]);
  assertEquals(await queue.poll(0), 0);
  assertEquals(await destroyDevice("wait0"), 0);
  assertEquals(await queue.poll(0), POLLIN | POLLHUP);
  assertEquals(queue.exchange().result, -ENODEV);
});

Deno.test("poll() returns as soon as a request waits", async () => {
  await using disk = await TestDisk.start({ name: "wait1" });
  await disk.pause();
  const polling = disk.queues[0]!.poll(60_000);
  const started = performance.now();
  const reading = sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  assertEquals(await polling, POLLIN);
  assertWithin(4_000, performance.now() - started, "woken");
  assertEquals(await disk.queues[0]!.poll(0), POLLIN);
  disk.serve();
  await reading;
});

Deno.test("who waits beside requests without a slot is woken when an answer gives one free", async () => {
  await using disk = await TestDisk.start({ name: "wait7", queue_depth: 2, timeout_ms: slowed(3_000) });
  disk.rule = () => "hold";
  const read = () => sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct`, { check: false });
  // One slot is lost to a request that timed out, one is with the server: the third request has none to go to.
  assertEquals((await read()).status, 1);
  assertEquals(disk.info().quarantined_count, 1);
  const answered = disk.held.length;
  const second = read();
  await disk.untilHeld(answered + 1);
  await disk.pause();
  const third = read();
  await waitFor("the third read waits", () => disk.info().waiting_count === 1);
  // Shorter than the timeout, which would wake it, too.
  const polling = disk.queues[0]!.poll(slowed(1_500));
  await waitFor("poll() finds nothing, and sleeps", () => threadsInPoll().length === 1);
  disk.release(disk.held.at(-1)!);
  assertEquals(await polling, POLLIN);
  disk.rule = () => "serve";
  disk.serve();
  assertEquals([(await second).status, (await third).status], [0, 0]);
  disk.releaseAll();
  await disk.assertIdle();
});

Deno.test("a blocked EXCHANGE keeps a second one out, and ends when the device does", async () => {
  const created = createDevice(params("wait2"));
  using queue = new Queue(created, 0, { blocking: true });
  assertEquals(queue.attach(), 0);
  const waiting = queue.exchangeAsync();
  await waitFor("a thread is in EXCHANGE", () => threadsInDblock().length === 1);
  assertEquals(queue.exchangeOnly(), -EBUSY);
  assertEquals(queue.attach(), EBUSY);
  // Completions may go beside it.
  assertEquals(queue.commit([{ slot: 0, generation: 7 }]).statuses, [abi.DBLOCK_STATUS_STALE]);
  assertEquals(await destroyDevice("wait2"), 0);
  assertEquals((await waiting).result, -ENODEV);
});

Deno.test("a signal ends a blocked EXCHANGE with EINTR in the header, and reaches its handler", async () => {
  await using disk = await TestDisk.start({ name: "wait3" });
  disk.rule = () => "hold";
  const reading = sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  await disk.untilHeld(1);
  await disk.pause();
  const queue = disk.queues[0]!;
  const answer = disk.fulfil(disk.held[0]!);
  const before = disk.info();
  // From now on it blocks.
  assertEquals(syscall(NR.fcntl, queue.fd, F_SETFL, O_RDWR), 0);
  let signals = 0;
  const listener = () => void signals++;
  Deno.addSignalListener("SIGUSR1", listener);
  try {
    const waiting = queue.exchangeAsync([answer, { slot: 0, generation: 0 }]);
    await waitFor("a thread is in EXCHANGE", () => threadsInDblock().length === 1);
    await reading;
    signalThread(threadsInDblock()[0]!, SIGUSR1);
    const { result, header, statuses } = await waiting;
    assertEquals([result, header.error, header.request_count], [0, EINTR, 0]);
    // What it had taken before it waited is counted, so that it is not given again.
    assertEquals([header.completion_count, header.refused_count], [2, 1]);
    assertEquals(statuses, [abi.DBLOCK_STATUS_TAKEN, abi.DBLOCK_STATUS_STALE]);
    await waitFor("the handler runs", () => signals === 1);
  } finally {
    Deno.removeSignalListener("SIGUSR1", listener);
  }
  assertEquals(queue.commit([answer]).statuses, [abi.DBLOCK_STATUS_STALE]);
  const info = disk.info();
  assertEquals([info.requests[0]! - before.requests[0]!, info.handed_count], [1, 0]);
});

Deno.test("EXCHANGE with more completions than the ring has takes none", async () => {
  await using disk = await TestDisk.start({ name: "wait4", queue_depth: 4 });
  disk.rule = () => "hold";
  const reading = sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  await disk.untilHeld(1);
  await disk.pause();
  const { result, header } = disk.queues[0]!.exchange([done(disk.held[0]!)]);
  assertEquals([result, header.error, header.completion_count], [0, EAGAIN, 1]);
  await reading;
  assertEquals(disk.queues[0]!.exchangeOnly(5), -EINVAL);
  assertEquals(disk.queues[0]!.exchange().header.error, EAGAIN);
});
