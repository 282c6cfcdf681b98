// Policy hold: the server is killed again and again under a verified load, a new one takes the same store, and the
// application sees no error. What had been handed out comes again, flagged. Hard cases A2, A3, A4, A13.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { fioLoop } from "./fio.ts";
import { sh, waitFor } from "./harness.ts";
import { done, infoOf, MIB, type Request } from "./server.ts";
import { ServerProcess } from "./server_process.ts";

const kills = 3;
const storeFile = "/dev/shm/hold";
// The store is a file: what is answered survives the process.
const flags = abi.DBLOCK_DEVICE_DIRECT | abi.DBLOCK_DEVICE_WRITE_CACHE | abi.DBLOCK_DEVICE_CACHE_SURVIVES;

Deno.test("fio verifies all it wrote across three kills of the server", async () => {
  await sh(`truncate -s 64M ${storeFile}`);
  const options = {
    name: "hold0",
    size_bytes: 64 * MIB,
    queue_count: 2,
    queue_depth: 32,
    flags,
    on_death: 2,
    storeFile,
  };
  let server = await ServerProcess.start(options);
  try {
    const load = fioLoop("hold", `--filename=${server.path} --rw=randwrite --bs=4k --iodepth=16 --size=4M --fsync=256`);
    await waitFor("fio is at it", () => infoOf("hold0")!.requests[1]! > 100);
    for (let kill = 1; kill <= kills; kill++) {
      // With requests in its hands.
      await server.tell({ holdOperations: [abi.DBLOCK_OPERATION_WRITE] });
      await waitFor("the server holds requests", async () => (await server.tell()).held > 0);
      await server.kill();
      await waitFor("the device is held", () => infoOf("hold0")!.state === abi.DBLOCK_STATE_HELD);
      const held = infoOf("hold0")!;
      assertEquals([held.attached_count, held.server_pid, held.death_count], [0, 0, kill]);
      const before = held.requests[1]!;
      server = await ServerProcess.start({ ...options, existing: true });
      const { replayed } = await server.tell();
      assert(replayed > 0, "no request was replayed");
      await waitFor("I/O goes on", () => infoOf("hold0")!.requests[1]! > before + 100, 30_000);
    }
    assertEquals(await load.stop(), "");
    const info = infoOf("hold0")!;
    assertEquals([info.error_count, info.death_count], [0, kills]);
    assert(info.replayed_count >= kills);
  } finally {
    await server[Symbol.asyncDispose]();
    await sh(`rm ${storeFile}`);
  }
});

Deno.test("after a recovery old answers are stale whoever has their slot now, and each handed-out request is replayed once", async () => {
  const first = await TestDisk.start({ name: "hold1", on_death: abi.DBLOCK_ON_DEATH_HOLD, queue_depth: 4 });
  first.rule = () => "hold";
  const read = (block: number) => sh(`dd if=${first.path} bs=4k count=1 skip=${block} iflag=direct status=none`);
  const reads = [0, 1].map(read);
  await first.untilHeld(2);
  const [old] = first.held;
  first.store.bytes.fill(65, 0, 8192);
  // One is answered: it never comes again.
  assertEquals(first.release(first.held[1]!).refusedCount, 0);
  await first.abandon();
  await first.untilState(abi.DBLOCK_STATE_HELD);
  const waiting = read(2);
  await waitFor("two requests wait", () => first.info().waiting_count === 2);

  await using second = await TestDisk.start({ name: "hold1", existing: true, store: first.store, rule: () => "hold" });
  await second.untilHeld(2);
  const replayed = second.held.filter((request) => request.flags & abi.DBLOCK_REQUEST_REPLAYED);
  assertEquals(replayed.map((request) => request.offsetBytes), [old!.offsetBytes]);
  const refuseOld = (live: Request) => {
    assertEquals([live.slot, live.generation === old!.generation], [old!.slot, false]);
    const { statuses } = second.queues[0]!.commit([done(old!)]);
    assertEquals(statuses, [abi.DBLOCK_STATUS_STALE]);
    assertEquals(second.info().handed_count, 2);
  };
  // Its slot is in use again: first by its own replay, then by a request that has nothing to do with it.
  refuseOld(replayed[0]!);
  second.release(replayed[0]!);
  second.store.bytes.fill(66, 3 * 4096, 4 * 4096);
  const other = read(3);
  await second.untilHeld(2);
  const live = second.held.find((request) => request.offsetBytes === 3 * 4096)!;
  refuseOld(live);
  second.releaseAll();
  const results = await Promise.all([...reads, waiting, other]);
  assertEquals(results.map(({ stdout }) => stdout[0]), ["A", "A", "\0", "B"]);
  assertEquals([second.info().replayed_count, second.info().death_count], [1, 1]);
  await second.assertIdle();
});

Deno.test("a held device is destroyed by force, and without force when nobody has it open", async () => {
  for (const force of [true, false]) {
    const disk = await TestDisk.start({ name: "hold2", on_death: abi.DBLOCK_ON_DEATH_HOLD });
    await disk.abandon();
    await disk.untilState(abi.DBLOCK_STATE_HELD);
    const reading = force
      ? sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct`, { check: false })
      : undefined;
    if (force) await waitFor("the read waits", () => disk.info().waiting_count === 1);
    await disk[Symbol.asyncDispose]();
    assertEquals((await reading)?.status, force ? 1 : undefined);
  }
});
