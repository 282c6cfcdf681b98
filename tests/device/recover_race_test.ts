// Recovery is a level that is looked at under a lock, not an event that may be missed: servers that come at once, that die
// half-way, and a hundred that come one after another under an fsync() in flight. Hard cases A5, A6, A7.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, requires, sh } from "./harness.ts";
import { callAsync, destroyDevice, type Info, infoOf, Queue, startDevice } from "./server.ts";

const contenders = 8;
const hold = { on_death: abi.DBLOCK_ON_DEATH_HOLD };

/** A disk that was live and has lost its server. */
async function heldDisk(name: string, queueCount = 1): Promise<Info> {
  const disk = await TestDisk.start({ name, ...hold, queue_count: queueCount });
  await disk.abandon();
  await disk.untilState(abi.DBLOCK_STATE_HELD);
  return disk.info();
}

Deno.test("of eight servers that attach at the same moment one gets the queue, forty times", async () => {
  const held = await heldDisk("again0");
  for (let round = 0; round < 40; round++) {
    const queues = Array.from({ length: contenders }, () => new Queue(held, 0));
    const errnos = await Promise.all(queues.map((queue) => queue.attachAsync()));
    assertEquals(errnos.toSorted((a, b) => a - b), [0, ...Array(contenders - 1).fill(ERRNO.EBUSY)]);
    assertEquals(infoOf("again0")!.attached_count, 1);
    for (const queue of queues) queue[Symbol.dispose]();
    const { state, attached_count } = infoOf("again0")!;
    assertEquals([state, attached_count], [abi.DBLOCK_STATE_HELD, 0]);
  }
  using queue = new Queue(held, 0);
  assertEquals(queue.attach(), 0);
  const starts = await Promise.all(
    Array.from({ length: contenders }, () => callAsync(queue.fd, abi.DBLOCK_IOC_START, abi.dblock_start)),
  );
  const errnos = starts.map(({ errno }) => errno).toSorted((a, b) => a - b);
  assertEquals(errnos, [0, ...Array(contenders - 1).fill(ERRNO.EALREADY)]);
  assertEquals(infoOf("again0")!.state, abi.DBLOCK_STATE_LIVE);
  assertEquals(await destroyDevice("again0"), 0);
});

Deno.test({
  name: "a server that dies with one of two queues recovered changes nothing for the next, nor for a destroy",
  ignore: !requires("two processors", navigator.hardwareConcurrency >= 2),
  async fn() {
    const held = await heldDisk("again1", 2);
    const read = sh("dd if=/dev/again1 of=/dev/null bs=4k count=1 iflag=direct status=none");
    for (const index of [0, 1]) {
      using queue = new Queue(held, index);
      assertEquals([queue.attach(), startDevice(queue.fd)], [0, ERRNO.ENOTCONN]);
      assertEquals(infoOf("again1")!.attached_count, 1);
    }
    assertEquals([infoOf("again1")!.state, infoOf("again1")!.attached_count], [abi.DBLOCK_STATE_HELD, 0]);
    const next = await TestDisk.start({ name: "again1", existing: true });
    await read;
    await next.abandon();
    await next.untilState(abi.DBLOCK_STATE_HELD);

    using queue = new Queue(held, 1);
    assertEquals(queue.attach(), 0);
    const started = performance.now();
    assertEquals(await destroyDevice("again1"), 0);
    assertWithin(5_000, performance.now() - started, "destroyed");
    assertEquals(queue.exchange().result, -ERRNO.ENODEV);
  },
});

Deno.test("an fsync() that is in flight across each of 100 recoveries returns, without an error", async () => {
  const rounds = 100;
  const rule: TestDisk["rule"] = ({ operation, flags }) =>
    operation === abi.DBLOCK_OPERATION_FLUSH && !(flags & abi.DBLOCK_REQUEST_REPLAYED) ? "hold" : "serve";
  const options = { name: "again2", ...hold, flags: abi.DBLOCK_DEVICE_WRITE_CACHE | abi.DBLOCK_DEVICE_CACHE_SURVIVES };
  let disk = await TestDisk.start({ ...options, rule });
  const { store } = disk;
  const syncing = sh(
    `until [ -e /tmp/again2 ]; do dd if=/dev/zero of=${disk.path} bs=4k count=1 conv=fsync,notrunc status=none || exit 1; done`,
    { timeoutMs: 100_000 },
  );
  syncing.catch(() => {}); // awaited below
  for (let round = 0; round < rounds; round++) {
    await disk.untilHeld(1);
    await disk.abandon();
    await disk.untilState(abi.DBLOCK_STATE_HELD);
    disk = await TestDisk.start({ ...options, existing: true, store, rule });
  }
  await sh("touch /tmp/again2");
  disk.rule = () => "serve";
  disk.releaseAll();
  await syncing;
  await sh("rm /tmp/again2");
  const { death_count, replayed_count, error_count } = disk.info();
  assertEquals([death_count, replayed_count >= rounds, error_count], [rounds, true, 0]);
  await disk.assertIdle();
  await disk[Symbol.asyncDispose]();
});
