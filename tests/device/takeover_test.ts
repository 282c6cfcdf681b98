// A new server takes each queue from a running one without an error or a replay; while the old one still has requests
// the new one waits, and if the old one dies meanwhile its requests are replayed; if the new one gives up, the old one goes on.
import { assertEquals, assertRejects } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { DblockError, type Servable, serve } from "../../src/mod.ts";
import { TestDisk } from "./disk.ts";
import { fioLoop } from "./fio.ts";
import { assertWithin, sh, waitFor } from "./harness.ts";
import { createDevice, destroyDevice, done, infoOf, MIB, params, Queue, threadsInDblock } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const takeOver = { flags: abi.DBLOCK_ATTACH_TAKE_OVER };

Deno.test("servers change under fio verify without an error or a replay", async () => {
  const storeFile = "/dev/shm/takeover";
  await sh(`truncate -s 32M ${storeFile}`);
  const options = {
    name: "over0",
    size_bytes: 32 * MIB,
    queue_count: 2,
    flags: abi.DBLOCK_DEVICE_DIRECT,
    storeFile,
  };
  let server = await ServerProcess.start(options);
  try {
    const load = fioLoop("over", `--filename=${server.path} --rw=randrw --bs=4k --iodepth=8 --size=4M`);
    for (let round = 0; round < 3; round++) {
      const before = infoOf("over0")!.requests[1]!;
      await waitFor("fio is at it", () => infoOf("over0")!.requests[1]! > before + 100);
      const next = await ServerProcess.start({ ...options, existing: true, takeOver: true, attachOnly: true });
      await next.tell({ serve: true });
      await waitFor("the old server is told", async () => (await server.tell()).ended === ERRNO.ENOTCONN);
      assertEquals(infoOf("over0")!.server_pid, next.child.pid);
      await server.kill();
      server = next;
    }
    assertEquals(await load.stop(), "");
    const info = infoOf("over0")!;
    assertEquals([info.error_count, info.replayed_count, info.death_count, info.state], [0, 0, 0, 2]);
  } finally {
    await server[Symbol.asyncDispose]();
    await sh(`rm ${storeFile}`);
  }
});

Deno.test("taking over waits until the server before has answered what it has, and hands it nothing new", async () => {
  await using old = await TestDisk.start({ name: "over1" });
  old.rule = () => "hold";
  const read = (block: number) => sh(`dd if=${old.path} bs=4k count=1 skip=${block} iflag=direct status=none`);
  const first = read(0);
  await old.untilHeld(1);
  using next = new Queue(old.info(), 0);
  using third = new Queue(old.info(), 0);
  assertEquals(next.attach(), ERRNO.EBUSY);
  let taken: number | undefined;
  const taking = next.attachAsync(takeOver).then((errno) => taken = errno);
  await sh("sleep 0.3");
  assertEquals([taken, third.attach(takeOver)], [undefined, ERRNO.EBUSY]);
  const second = read(1);
  await waitFor("the second read waits", () => old.info().waiting_count === 1);
  await sh("sleep 0.2");
  assertEquals(old.held.length, 1);

  old.releaseAll();
  await taking;
  assertEquals(taken, 0);
  await waitFor("the old server is told", () => old.ended === ERRNO.ENOTCONN);
  assertEquals(old.queues[0]!.commit([]).errno, ERRNO.ENOTCONN);
  const { requests } = next.exchange();
  assertEquals([requests.length, requests[0]!.offsetBytes, requests[0]!.flags], [1, 4096, 0]);
  assertEquals(next.commit([{ ...requests[0], length_bytes: 4096 }]).refusedCount, 0);
  await Promise.all([first, second]);
  assertEquals(old.info().replayed_count, 0);
});

Deno.test("when the old server dies meanwhile, its heir gets its requests, replayed, and the policy does not apply", async () => {
  const old = await TestDisk.start({ name: "over2", on_death: abi.DBLOCK_ON_DEATH_REMOVE });
  old.rule = () => "hold";
  const reading = sh(`dd if=${old.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  await old.untilHeld(1);
  using next = new Queue(old.info(), 0);
  const taking = next.attachAsync(takeOver);
  await sh("sleep 0.3");
  await old.abandon();
  assertEquals(await taking, 0);
  const { requests } = next.exchange();
  assertEquals(requests.map(({ flags }) => flags), [abi.DBLOCK_REQUEST_REPLAYED]);
  assertEquals(next.commit([{ ...requests[0], length_bytes: 4096 }]).refusedCount, 0);
  await reading;
  assertEquals(infoOf("over2")!.state, abi.DBLOCK_STATE_LIVE);
  await old[Symbol.asyncDispose]();
});

/** A server of two queues, the first of which this process has taken over. */
async function halfTaken(name: string, onDeath: number): Promise<{ old: ServerProcess; heir: Queue; second: Queue }> {
  const old = await ServerProcess.start({ name, queue_count: 2, on_death: onDeath });
  const created = infoOf(name)!;
  const [heir, second] = [new Queue(created, 0), new Queue(created, 1)];
  assertEquals(heir.attach(takeOver), 0);
  return { old, heir, second };
}

for (const onDeath of [abi.DBLOCK_ON_DEATH_REMOVE, abi.DBLOCK_ON_DEATH_FAIL, abi.DBLOCK_ON_DEATH_HOLD]) {
  Deno.test(`the old server's death between two queues is its heir's to survive (on_death ${onDeath})`, async () => {
    const name = "over11";
    const { old, heir, second } = await halfTaken(name, onDeath);
    await old.forget();
    await waitFor("its second queue is without a server", () => infoOf(name)?.attached_count !== 2);
    // Longer than it takes to notice a death in any other way.
    await sh("sleep 1");
    const between = infoOf(name);
    assertEquals([between?.state, between?.attached_count, between?.death_count], [abi.DBLOCK_STATE_LIVE, 1, 0]);
    const read = sh(`taskset -c 0 dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct status=none;
      taskset -c 1 dd if=/dev/${name} of=/dev/null bs=4k count=1 iflag=direct status=none`);
    assertEquals(second.attach(takeOver), 0);
    let isRead = false;
    read.then(() => isRead = true);
    await waitFor("both queues are served", () => {
      for (const queue of [heir, second]) queue.commit(queue.exchange().requests.map((request) => done(request)));
      return isRead;
    });
    await read;
    // The take-over is over: the next death is one.
    heir[Symbol.dispose]();
    if (onDeath === abi.DBLOCK_ON_DEATH_REMOVE) await waitFor("it is gone", () => infoOf(name) === undefined);
    else assertEquals([infoOf(name)!.death_count, infoOf(name)!.state === abi.DBLOCK_STATE_LIVE], [1, false]);
    second[Symbol.dispose]();
    await destroyDevice(name);
  });
}

Deno.test("an heir that leaves after the old server has died is a death", async () => {
  const name = "over12";
  const { old, heir, second } = await halfTaken(name, abi.DBLOCK_ON_DEATH_HOLD);
  await old.forget();
  await waitFor("its second queue is without a server", () => infoOf(name)?.attached_count === 1);
  assertEquals(infoOf(name)!.state, abi.DBLOCK_STATE_LIVE);
  heir[Symbol.dispose]();
  assertEquals([infoOf(name)!.state, infoOf(name)!.death_count], [abi.DBLOCK_STATE_HELD, 1]);
  second[Symbol.dispose]();
  assertEquals(await destroyDevice(name), 0);
});

Deno.test("an heir that leaves the old server alive is a death of the queue that it had", async () => {
  const name = "over13";
  const { old, heir, second } = await halfTaken(name, abi.DBLOCK_ON_DEATH_HOLD);
  heir[Symbol.dispose]();
  assertEquals([infoOf(name)!.state, infoOf(name)!.attached_count], [abi.DBLOCK_STATE_HELD, 1]);
  second[Symbol.dispose]();
  await old[Symbol.asyncDispose]();
});

Deno.test("an ATTACH that fails leaves the ring as it is", async () => {
  await using disk = await TestDisk.start({ name: "over14" });
  using other = new Queue(disk.info(), 0);
  const ring = disk.queues[0]!.ring;
  await disk.pause();
  ring.bytes.fill(0x5a, 0, 32);
  assertEquals(other.attach({ ring_address: ring.address }), ERRNO.EBUSY);
  assertEquals(ring.bytes.subarray(0, 32).every((byte) => byte === 0x5a), true);
  assertEquals(disk.queues[0]!.attach(), 0);
  assertEquals(ring.bytes.subarray(0, 32).every((byte) => byte === 0), true);
  disk.serve();
});

Deno.test("a take-over of a queue without a server is a plain ATTACH, and a force destroy ends one that waits", async () => {
  const created = createDevice(params("over3"));
  using queue = new Queue(created, 0);
  assertEquals(queue.attach(takeOver), 0);
  assertEquals(await destroyDevice("over3"), 0);

  await using old = await TestDisk.start({ name: "over3" });
  old.rule = () => "hold";
  const reading = sh(`dd if=${old.path} of=/dev/null bs=4k count=1 iflag=direct`, { check: false });
  await old.untilHeld(1);
  using next = new Queue(old.info(), 0);
  const taking = next.attachAsync(takeOver);
  await sh("sleep 0.3");
  const started = performance.now();
  assertEquals(await destroyDevice("over3"), 0);
  assertEquals([await taking, (await reading).status], [ERRNO.ENODEV, 1]);
  assertWithin(5_000, performance.now() - started, "destroyed");
});

Deno.test("closing the file of a server that waits to take over ends its wait, and the server before goes on", async () => {
  await using old = await TestDisk.start({ name: "over8" });
  old.rule = () => "hold";
  const read = () => sh(`dd if=${old.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  const first = read();
  await old.untilHeld(1);
  using next = new Queue(old.info(), 0);
  const taking = next.attachAsync(takeOver);
  await waitFor("it waits", () => threadsInDblock().length === 1);
  next[Symbol.dispose]();
  assertEquals(await taking, ERRNO.EBADF);
  old.rule = () => "serve";
  old.releaseAll();
  await Promise.all([first, read()]);
  assertEquals([old.ended, old.info().death_count], [undefined, 0]);
  using third = new Queue(old.info(), 0);
  assertEquals(await third.attachAsync(takeOver), 0);
});

const module = new URL(
  "data:text/javascript,export default (d) => ({ sizeBytes: d.sizeBytes, read() {}, write() {} })",
);

Deno.test("a disk that is taken over from Workers stays, though their backends close slowly and with an error", async () => {
  const code = `export default ({ sizeBytes }) => ({ sizeBytes, read() {}, write() {}, close: () =>
    new Promise((_, reject) => setTimeout(() => reject(new Error("cannot close")), 1000)) })`;
  const module = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
  const logged: string[] = [];
  const log = (message: string) => void logged.push(message);
  const name = "over10";
  const before = await serve({ module, data: { sizeBytes: MIB } }, { name, log, queues: 2, onDeath: "remove" });
  await using after = await serve({ sizeBytes: MIB, read() {}, write() {} }, { name, existing: "take-over" });
  await waitFor("all Workers have heard of it", () => threadsInDblock().length === 0);
  await before.close({ force: true });
  assertEquals(await before.closed, { reason: "replaced" });
  assertEquals(
    logged,
    Array(before.queueCount).fill(`${before.path}: close() of the backend threw Error: cannot close`),
  );
  await sh(`dd if=${after.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  assertEquals(infoOf(name)!.state, abi.DBLOCK_STATE_LIVE);
});

for (const kind of ["an object", "a module"] as const) {
  Deno.test(`serve() with ${kind} that gives up a take-over leaves the disk to the server it has`, async () => {
    await using old = await TestDisk.start({ name: "over9" });
    old.rule = () => "hold";
    const read = sh(`dd if=${old.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
    await old.untilHeld(1);
    const { size_bytes: sizeBytes } = old.info();
    let closedCount = 0;
    const backend: Servable = kind === "a module"
      ? { module, data: { sizeBytes } }
      : { sizeBytes, read() {}, write() {}, close: () => void closedCount++ };
    const serving = serve(backend, { name: "over9", existing: "take-over", startTimeoutMs: 2_000 });
    const error = await assertRejects(() => serving, DblockError);
    assertEquals([error.code, closedCount], ["ETIMEDOUT", kind === "a module" ? 0 : 1]);
    old.rule = () => "serve";
    old.releaseAll();
    await read;
    await sh(`dd if=/dev/zero of=${old.path} bs=4k count=1 oflag=direct status=none`);
    assertEquals([old.seen.at(-1)!.operation, old.ended], [abi.DBLOCK_OPERATION_WRITE, undefined]);
    assertEquals(threadsInDblock(), []);
  });
}
