// A bad completion is refused with its own status, its neighbours in the batch are taken, and its request stays open.
// Hard cases B1, B2, B4, B7.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import { sh, type ShellResult } from "./harness.ts";
import { done, type Request } from "./server.ts";

const { DBLOCK_STATUS_BAD_FIELD: BAD_FIELD, DBLOCK_STATUS_BAD_LENGTH: BAD_LENGTH, DBLOCK_STATUS_STALE: STALE } = abi;
const { DBLOCK_STATUS_TAKEN: TAKEN, DBLOCK_STATUS_UNKNOWN: UNKNOWN } = abi;
const depth = 8;

/** A disk that holds so many reads of 4 KiB, at different offsets, and the processes that wait for them. */
async function withReads(
  name: string,
  count: number,
  test: (disk: TestDisk, requests: Request[]) => Promise<void> | void,
): Promise<ShellResult[]> {
  await using disk = await TestDisk.start({ name, queue_depth: depth });
  disk.rule = () => "hold";
  const reads = Array.from(
    { length: count },
    (_, i) => sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 skip=${i} iflag=direct`, { check: false }),
  );
  await disk.untilHeld(count);
  const requests = [...disk.held].sort((a, b) => a.offsetBytes - b.offsetBytes);
  await test(disk, requests);
  disk.releaseAll();
  const results = await Promise.all(reads);
  await disk.assertIdle();
  return results;
}

Deno.test("COMMIT refuses slots and generations that were not handed out", async () => {
  const results = await withReads("status0", 1, (disk, [request]) => {
    const good = done(request!);
    const free = (request!.slot + 1) % depth;
    const bad = [
      { ...good, slot: depth },
      { ...good, slot: 65535 },
      { ...good, slot: free },
      { ...good, slot: free, generation: 0 },
      { ...good, generation: request!.generation - 1 },
      { ...good, generation: request!.generation + 1 },
      { ...good, generation: 2 ** 32 - 1 },
    ];
    const { errno, completionCount, refusedCount, statuses } = disk.queues[0]!.commit(bad);
    assertEquals([errno, completionCount, refusedCount], [0, 7, 7]);
    assertEquals(statuses, [UNKNOWN, UNKNOWN, STALE, STALE, STALE, STALE, STALE]);
    const info = disk.info();
    assertEquals([info.refused_count, info.stale_count, info.handed_count], [7, 5, 1]);
  });
  assertEquals(results.map((result) => result.status), [0]);
});

Deno.test("COMMIT refuses a bad length and a bad errno, and the request can be answered again", async () => {
  const results = await withReads("status1", 1, (disk, [request]) => {
    const good = done(request!);
    const bad = [
      { ...good, length_bytes: request!.lengthBytes + 1 },
      { ...good, length_bytes: 2 ** 32 - 1 },
      { ...good, error: 4096 },
      { ...good, error: 2 ** 32 - 5 },
      { ...good, reserved: 1 },
    ];
    const { refusedCount, statuses } = disk.queues[0]!.commit(bad);
    assertEquals([refusedCount, statuses], [5, [BAD_LENGTH, BAD_LENGTH, BAD_FIELD, BAD_FIELD, BAD_FIELD]]);
    assertEquals(disk.info().handed_count, 1);
  });
  assertEquals(results.map((result) => result.status), [0]);
});

Deno.test("of two answers to one request in one batch the first is taken", async () => {
  const [result] = await withReads("status2", 1, (disk, [request]) => {
    const good = disk.fulfil(request!);
    disk.held.length = 0;
    const { statuses, refusedCount } = disk.queues[0]!.commit([good, { ...good, error: 5 }, good]);
    assertEquals([statuses, refusedCount], [[TAKEN, STALE, STALE], 2]);
  });
  assertEquals(result!.status, 0);
});

Deno.test("a bad entry neither aborts nor skips its neighbours, in COMMIT and in EXCHANGE", async () => {
  const results = await withReads("status3", 4, async (disk, requests) => {
    const [a, b, c, d] = requests.map((request) => disk.fulfil(request)) as [object, object, object, object];
    disk.held.length = 0;
    const commit = disk.queues[0]!.commit([{ slot: depth }, a, { ...b, generation: 0 }, { ...b, error: 4096 }, b]);
    assertEquals(commit.statuses, [UNKNOWN, TAKEN, STALE, BAD_FIELD, TAKEN]);
    await disk.pause();
    const exchange = disk.queues[0]!.exchange([c, { ...d, length_bytes: 2 ** 31 }, { slot: 65535 }, {
      ...d,
      error: 5,
    }]);
    assertEquals(exchange.statuses, [TAKEN, BAD_LENGTH, UNKNOWN, TAKEN]);
    assertEquals([exchange.header.completion_count, exchange.header.refused_count], [4, 2]);
    disk.serve();
  });
  assertEquals(results.map((result) => result.status), [0, 0, 0, 1]);
});
