// What could be lost while a disk changes hands: neither server is handed anything before all queues are the new one's; nobody
// takes a volatile cache over from a living server, or a disk whose server owes late answers; a server that is taken for dead
// takes its heir nothing away. Hard cases I2, I3, I9.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { sh, slowed, waitFor } from "./harness.ts";
import { destroyDevice, done, infoOf, Queue, threadsInDblock } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const takeOver = { flags: abi.DBLOCK_ATTACH_TAKE_OVER };
const { DBLOCK_ON_DEATH_HOLD: HOLD, DBLOCK_ON_DEATH_REMOVE: REMOVE, DBLOCK_OPERATION_WRITE: WRITE } = abi;
const { DBLOCK_OPERATION_READ: READ, DBLOCK_STATE_LIVE: LIVE } = abi;
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
/** A read that goes by the queue of a processor. */
const readOn = (processor: number, name: string) =>
  sh(`taskset -c ${processor} dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct status=none`, {
    check: false,
  });

/** Answers what the queues have until a promise settles. */
async function serveUntil<T>(queues: readonly Queue[], what: string, settled: Promise<T>): Promise<T> {
  let isSettled = false;
  settled.finally(() => isSettled = true);
  await waitFor(what, () => {
    for (const queue of queues) queue.commit(queue.exchange().requests.map((request) => done(request)));
    return isSettled;
  });
  return await settled;
}

Deno.test("while queues change hands one by one, nothing is handed out on any of them", async () => {
  const name = "hands0";
  await using old = await ServerProcess.start({ name, queue_count: 2, on_death: HOLD });
  const created = infoOf(name)!;
  using first = new Queue(created, 0);
  using second = new Queue(created, 1);
  assertEquals(first.attach(takeOver), 0);
  const before = (await old.tell()).seen.length;
  const reads = Promise.all([readOn(0, name), readOn(1, name)]);
  await waitFor("both reads wait", () => infoOf(name)!.waiting_count === 2);
  await pause(300);
  assertEquals([first.exchange().requests, (await old.tell()).seen.length - before], [[], 0]);
  assertEquals(infoOf(name)!.waiting_count, 2);
  assertEquals(await second.attachAsync(takeOver), 0);
  const results = await serveUntil([first, second], "both reads are answered", reads);
  assertEquals(results.map(({ status }) => status), [0, 0]);
});

Deno.test("an heir that leaves amid it gives nothing back: what waited is the next server's", async () => {
  const name = "hands1";
  await using _old = await ServerProcess.start({ name, queue_count: 2, on_death: HOLD });
  const created = infoOf(name)!;
  const first = new Queue(created, 0);
  assertEquals(first.attach(takeOver), 0);
  const reads = Promise.all([readOn(0, name), readOn(1, name)]);
  await waitFor("both reads wait", () => infoOf(name)!.waiting_count === 2);
  first[Symbol.dispose]();
  assertEquals(infoOf(name)!.state, abi.DBLOCK_STATE_HELD);
  await _old.forget();
  await using third = await TestDisk.start({ name, existing: true });
  assertEquals((await reads).map(({ status }) => status), [0, 0]);
  await third.assertIdle();
});

Deno.test("a volatile cache cannot be taken over from a living server, one that survives it can", async () => {
  for (const [flags, errno] of [[0, ERRNO.EOPNOTSUPP], [abi.DBLOCK_DEVICE_CACHE_SURVIVES, 0]] as const) {
    const name = "hands2";
    await using old = await ServerProcess.start({
      name,
      flags: abi.DBLOCK_DEVICE_WRITE_CACHE | flags,
      on_death: HOLD,
    });
    using heir = new Queue(infoOf(name)!, 0);
    assertEquals(heir.attach(takeOver), errno);
    if (errno === 0) continue;
    // The server before goes on, and the next one attaches when it has left.
    assertEquals((await readOn(0, name)).status, 0);
    await old.kill();
    await waitFor("it is held", () => infoOf(name)!.state === abi.DBLOCK_STATE_HELD);
    assertEquals(heir.attach(takeOver), 0);
  }
});

Deno.test("a process may move the queue of a volatile cache from file to file", async () => {
  await using old = await TestDisk.start({ name: "hands3", flags: abi.DBLOCK_DEVICE_WRITE_CACHE });
  await old.pause();
  using next = new Queue(old.info(), 0);
  assertEquals(next.attach(takeOver), 0);
});

Deno.test("who owes late answers to writes is not taken over before it has given them, or has died", async () => {
  const name = "hands4";
  const options = { name, timeout_ms: slowed(2_000), on_death: HOLD, holdOperations: [WRITE] };
  const write = () => sh(`dd if=/dev/zero of=/dev/${name} bs=4k count=1 oflag=direct status=none`, { check: false });
  await using old = await ServerProcess.start(options);
  assertEquals((await write()).status, 1);
  assertEquals(infoOf(name)!.quarantined_count, 1);
  using heir = new Queue(infoOf(name)!, 0);
  assertEquals(heir.attach(takeOver), ERRNO.EBUSY);
  await old.tell({ release: true });
  assertEquals(infoOf(name)!.quarantined_count, 0);
  assertEquals(heir.attach(takeOver), 0);
});

Deno.test("a write that times out while somebody waits to take over is still waited for", async () => {
  const options = { name: "hands5", timeout_ms: slowed(2_000), queue_depth: 4 };
  await using old = await TestDisk.start(options);
  old.rule = ({ operation }) => operation === WRITE ? "hold" : "serve";
  const writing = sh(`dd if=/dev/zero of=${old.path} bs=4k count=1 oflag=direct status=none`, { check: false });
  await old.untilHeld(1);
  const [late] = old.held;
  using next = new Queue(old.info(), 0);
  let taken: number | undefined;
  const taking = next.attachAsync(takeOver).then((errno) => taken = errno);
  await waitFor("it waits", () => threadsInDblock().length === 1);
  assertEquals((await writing).status, 1);
  await pause(500);
  assertEquals([taken, old.info().quarantined_count], [undefined, 1]);
  assertEquals(old.release(late!).statuses, [abi.DBLOCK_STATUS_STALE]);
  await taking;
  assertEquals(taken, 0);
});

for (const onDeath of [REMOVE, HOLD]) {
  Deno.test(`where a timeout is the server's death, it is not its heir's (on_death ${onDeath})`, async () => {
    const name = "hands6";
    // The heir comes within this time.
    const timeoutMs = slowed(4_000);
    const old = await ServerProcess.start({
      name,
      queue_count: 2,
      on_death: onDeath,
      timeout_ms: timeoutMs,
      flags: abi.DBLOCK_DEVICE_TIMEOUT_IS_DEATH,
    });
    await old.tell({ holdOperations: [READ] });
    const stuck = readOn(1, name);
    await waitFor("the old server has the read", async () => (await old.tell()).held === 1);
    const created = infoOf(name)!;
    using first = new Queue(created, 0);
    using second = new Queue(created, 1);
    assertEquals(first.attach(takeOver), 0);
    assertEquals(await second.attachAsync(takeOver), 0);
    const after = infoOf(name)!;
    assertEquals([after.state, after.attached_count, after.death_count, after.timeout_count], [LIVE, 2, 0, 1]);
    assertEquals((await serveUntil([first, second], "the read is answered", stuck)).status, 0);
    await destroyDevice(name);
    await old.forget();
  });
}

Deno.test("where a timeout is the server's death, what waits for an heir does not end in an error", async () => {
  const name = "hands7";
  const timeoutMs = slowed(2_000);
  const flags = abi.DBLOCK_DEVICE_TIMEOUT_IS_DEATH;
  const old = await ServerProcess.start({ name, queue_count: 2, on_death: HOLD, timeout_ms: timeoutMs, flags });
  const created = infoOf(name)!;
  using first = new Queue(created, 0);
  using second = new Queue(created, 1);
  assertEquals(first.attach(takeOver), 0);
  await old.forget();
  await waitFor("its second queue is without a server", () => infoOf(name)?.attached_count === 1);
  const read = readOn(1, name);
  await waitFor("the read waits", () => infoOf(name)!.waiting_count === 1);
  await pause(1.5 * timeoutMs);
  assertEquals(infoOf(name)!.error_count, 0);
  assertEquals(second.attach(takeOver), 0);
  assertEquals((await serveUntil([first, second], "the read is answered", read)).status, 0);
  await destroyDevice(name);
});
