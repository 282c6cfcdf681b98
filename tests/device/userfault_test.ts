// Memory of the server that never comes (userfaultfd), be it data or the ring, blocks the one call that needs it: other
// queues, the timeout, force destroy and SIGKILL still work. Hard case B11.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { commitFrom, deadMemory, MortalRing, requiresDeadMemory, type RingPart } from "./dead_memory.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, requires, sh, slowed, waitFor } from "./harness.ts";
import { destroyDevice, done, infoOf, threadsInDblock, threadsInPoll } from "./server.ts";
import { NR, PAGE_BYTES, PROT_NONE, syscallAsync } from "./syscall.ts";

const options = { ignore: !requiresDeadMemory() };
const direct = { flags: abi.DBLOCK_DEVICE_DIRECT, queue_depth: 8 };
const POLLIN = 1;

const read = (path: string, block: number, prefix = "") =>
  sh(`${prefix} dd if=${path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct`, { check: false });

Deno.test({
  name: "a COMMIT stuck on a dead page does not stop others, nor force destroy",
  ...options,
  async fn() {
    await using disk = await TestDisk.start({ name: "dead0", ...direct });
    using memory = deadMemory(PAGE_BYTES);
    disk.rule = () => "hold";
    const stuck = read(disk.path, 0);
    await disk.untilHeld(1);
    const commit = commitFrom(memory, disk.queues[0]!, disk.held.shift()!);
    disk.rule = () => "serve";
    assertEquals((await read(disk.path, 1)).status, 0);
    assertEquals(disk.info().handed_count, 1);
    const started = performance.now();
    assertEquals(await destroyDevice("dead0"), 0);
    assertEquals((await stuck).status, 1);
    assertWithin(5_000, performance.now() - started, "destroyed");
    memory.revive();
    assertEquals(await commit, 0);
  },
});

Deno.test({
  name: "the timeout of a request whose COMMIT is stuck on a dead page comes in time",
  ...options,
  async fn() {
    await using disk = await TestDisk.start({ name: "dead1", timeout_ms: 1_000, ...direct });
    using memory = deadMemory(PAGE_BYTES);
    disk.rule = () => "hold";
    const started = performance.now();
    const stuck = read(disk.path, 0);
    await disk.untilHeld(1);
    const commit = commitFrom(memory, disk.queues[0]!, disk.held.shift()!);
    assertEquals((await stuck).status, 1);
    assertWithin(4_000, performance.now() - started, "EIO");
    assertEquals(disk.info().timeout_count, 1);
    disk.rule = () => "serve";
    memory.revive();
    assertEquals(await commit, 0);
    // The late answer gave the slot back.
    assertEquals([disk.info().quarantined_count, disk.info().stale_count], [0, 1]);
    await disk.assertIdle();
  },
});

Deno.test({
  name: "a request whose dead page comes to life ends well",
  ...options,
  async fn() {
    await using disk = await TestDisk.start({ name: "dead2", ...direct });
    using memory = deadMemory(PAGE_BYTES);
    disk.rule = () => "hold";
    const stuck = read(disk.path, 0);
    await disk.untilHeld(1);
    const commit = commitFrom(memory, disk.queues[0]!, disk.held.shift()!);
    await waitFor("it is stuck", () => threadsInDblock().length === 1);
    assertEquals(disk.info().handed_count, 1);
    memory.revive();
    assertEquals([await commit, (await stuck).status], [0, 0]);
    await waitFor("it is answered", () => infoOf("dead2")!.handed_count === 0);
  },
});

Deno.test({
  name: "writes that time out before their data is delivered are not told to the server, and leave no slot behind",
  ...options,
  async fn() {
    await using disk = await TestDisk.start({
      name: "dead3",
      timeout_ms: 1_000,
      queue_depth: 4,
      max_io_bytes: PAGE_BYTES,
    });
    await disk.pause();
    const queue = disk.queues[0]!;
    using memory = deadMemory(queue.depth * queue.slotBytes);
    // The same file again, with another buffer.
    assertEquals(queue.attach({ buffer_address: memory.address, buffer_bytes: memory.bytes.length }), 0);
    const writes = [0, 1].map((block) =>
      sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 seek=${block} oflag=direct`, { check: false })
    );
    await waitFor("both writes wait", () => disk.info().waiting_count === 2);
    const exchange = queue.exchangeAsync();
    // One waits for its page, the other for its turn.
    assertEquals((await Promise.all(writes)).map(({ status }) => status), [1, 1]);
    memory.revive();
    const { result, requests } = await exchange;
    assertEquals([result, requests], [0, []]);
    const { timeout_count, quarantined_count, handed_count, waiting_count } = disk.info();
    assertEquals([timeout_count, quarantined_count, handed_count, waiting_count], [2, 0, 0, 0]);
    assertEquals(queue.attach(), 0);
    disk.serve();
    assertEquals((await read(disk.path, 0)).status, 0);
    await disk.assertIdle();
  },
});

Deno.test({
  name: "a WRITE whose data cannot be delivered waits again, and wakes who polls",
  ...options,
  async fn() {
    await using disk = await TestDisk.start({ name: "dead10", queue_depth: 4, max_io_bytes: PAGE_BYTES });
    await disk.pause();
    const queue = disk.queues[0]!;
    using memory = deadMemory(queue.depth * queue.slotBytes);
    assertEquals(queue.attach({ buffer_address: memory.address, buffer_bytes: memory.bytes.length }), 0);
    const write = sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 oflag=direct`, { check: false });
    await waitFor("the write waits", () => disk.info().waiting_count === 1);
    const exchange = queue.exchangeAsync();
    await waitFor("it is being delivered", () => disk.info().handed_count === 1);
    assertEquals(await queue.poll(0), 0);
    const polling = queue.poll(slowed(5_000));
    await waitFor("poll() finds nothing, and sleeps", () => threadsInPoll().length === 1);
    // The page comes, but may not be written to.
    memory.protect(PROT_NONE);
    memory.revive();
    assertEquals((await exchange).result, -ERRNO.EFAULT);
    assertEquals(await polling, POLLIN);
    assertEquals(queue.attach(), 0);
    disk.serve();
    assertEquals((await write).status, 0);
    assertEquals(disk.seen.at(-1)!.flags & abi.DBLOCK_REQUEST_REPLAYED, 0);
    await disk.assertIdle();
  },
});

Deno.test({
  name: "an EXCHANGE stuck on a dead page does not stop the other queue",
  ignore: options.ignore || !requires("two processors", navigator.hardwareConcurrency >= 2),
  async fn() {
    await using disk = await TestDisk.start({ name: "dead4", ...direct, queue_count: 2 });
    using memory = deadMemory(PAGE_BYTES);
    disk.rule = () => "hold";
    // Each processor has a queue of its own.
    const stuck = read(disk.path, 0, "taskset --cpu-list 0");
    await disk.untilHeld(1);
    await disk.pause();
    const request = disk.held.shift()!;
    const queue = disk.queues[request.queue]!;
    const other = disk.queues[1 - request.queue]!;
    const exchange = queue.exchangeAsync([{ ...done(request), address: memory.address }]);
    await waitFor("it is stuck", () => queue.exchangeOnly() === -ERRNO.EBUSY);
    for (let block = 1; block <= 5; block++) {
      const reading = read(disk.path, block, "taskset --cpu-list 1");
      assertEquals(await other.poll(10_000), POLLIN);
      const { requests } = other.exchange();
      assertEquals(other.commit(requests.map((request) => disk.fulfil(request))).refusedCount, 0);
      assertEquals((await reading).status, 0);
    }
    assertEquals([threadsInDblock().length, disk.info().handed_count], [1, 1]);
    memory.revive();
    assertEquals([(await exchange).statuses, (await stuck).status], [[abi.DBLOCK_STATUS_TAKEN], 0]);
    disk.serve();
    await disk.assertIdle();
  },
});

/** What EXCHANGE returns when the ring comes at last: the request that it was about to tell, or that the device is gone. */
const afterwards: Readonly<Record<RingPart, number>> = { header: 1, requests: 1, completions: -ERRNO.ENODEV };

for (const part of ["header", "requests", "completions"] as const) {
  Deno.test({
    name: `neither the timeout nor force destroy waits for an EXCHANGE stuck on the ${part} of a dead ring`,
    ...options,
    async fn() {
      await using disk = await TestDisk.start({
        name: "dead5",
        timeout_ms: 1_000,
        flags: abi.DBLOCK_DEVICE_DIRECT,
        queue_depth: MortalRing.depth,
      });
      await disk.pause();
      const queue = disk.queues[0]!;
      using ring = new MortalRing();
      assertEquals(queue.attach({ ring_address: ring.ringAddress }), 0);
      ring.lose(part);
      const started = performance.now();
      const reading = read(disk.path, 0);
      await waitFor("the read waits", () => disk.info().waiting_count === 1);
      const completionCount = part === "completions" ? 1 : 0;
      const exchange = syscallAsync(NR.ioctl, queue.fd, abi.DBLOCK_IOC_EXCHANGE, completionCount);
      assertEquals((await reading).status, 1);
      assertWithin(4_000, performance.now() - started, "EIO");
      assertEquals([disk.info().timeout_count, threadsInDblock().length], [1, 1]);

      const waiting = read(disk.path, 1);
      await waitFor("another read waits", () => disk.info().waiting_count === 1);
      const destroying = performance.now();
      assertEquals(await destroyDevice("dead5"), 0);
      assertEquals((await waiting).status, 1);
      assertWithin(5_000, performance.now() - destroying, "destroyed");
      assertEquals(threadsInDblock().length, 1);
      ring.revive();
      assertEquals(await exchange, afterwards[part]);
    },
  });
}

Deno.test({
  name: "an ATTACH stuck on a dead ring does not stop the server that is there, nor force destroy",
  ...options,
  async fn() {
    await using disk = await TestDisk.start({
      name: "dead6",
      flags: abi.DBLOCK_DEVICE_DIRECT,
      queue_depth: MortalRing.depth,
    });
    using ring = new MortalRing();
    ring.lose("header");
    const attach = disk.queues[0]!.attachAsync({ ring_address: ring.ringAddress });
    await waitFor("it is stuck", () => threadsInDblock().length === 1);
    assertEquals((await read(disk.path, 0)).status, 0);
    const started = performance.now();
    assertEquals(await destroyDevice("dead6"), 0);
    assertWithin(5_000, performance.now() - started, "destroyed");
    assertEquals(threadsInDblock().length, 1);
    ring.revive();
    assertEquals(await attach, ERRNO.ENODEV);
  },
});

Deno.test({
  name: "SIGKILL of a server stuck in COMMIT and EXCHANGE, on data and on its ring, takes process and devices away",
  ...options,
  async fn() {
    const names = ["dead7", "dead8", "dead9"];
    const server = new Deno.Command("deno", {
      args: [
        "run",
        "-A",
        "--no-check",
        "--import-map=src/build/standins/import_map.json",
        "tests/device/userfault_main.ts",
        ...names,
      ],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    try {
      await server.stdout.getReader().read();
      const reads = names.map((name) => read(`/dev/${name}`, 0));
      await waitFor("three of its threads are stuck", () => threadsInDblock(server.pid).length === 3);
      await sh("sleep 0.5");
      assertEquals(threadsInDblock(server.pid).length, 3);
      assertEquals(names.map((name) => infoOf(name)!.handed_count), [1, 1, 1]);
      const started = performance.now();
      server.kill("SIGKILL");
      await server.status;
      await waitFor("the devices are gone", () => names.every((name) => infoOf(name) === undefined), 5_000);
      assertWithin(5_000, performance.now() - started, "gone");
      assertEquals((await Promise.all(reads)).map(({ status }) => status), [1, 1, 1]);
    } finally {
      for (const name of names) await destroyDevice(name);
    }
  },
});
