// A server that attaches its queue again, with other memory, while its other threads are at work: the queue never looks
// abandoned, and an answer's data comes from the buffer that was attached when the answer was taken.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { encode } from "../../src/system/struct.ts";
import { isFilled, TestDisk } from "./disk.ts";
import { scaled } from "./harness.ts";
import { callAsync, done, MIB, type Queue, type Request } from "./server.ts";
import { close, Memory, NR, O_DIRECT, O_RDONLY, open, PAGE_BYTES, syscall, syscallAsync } from "./syscall.ts";

const POLLIN = 1;
const MADV_DONTNEED = 4;
const [first, second] = [0x11, 0x22];

Deno.test("poll() says nothing but that there is input, however often the queue is attached", async () => {
  await using disk = await TestDisk.start({ name: "again0" });
  await disk.pause();
  const queue = disk.queues[0]!;
  let attaching = true;
  const polled = (async () => {
    const seen = new Set<number>();
    while (attaching) seen.add(await queue.poll(1));
    return seen;
  })();
  for (let round = 0; round < scaled(3_000); round++) {
    assertEquals(await queue.attachAsync(), 0);
  }
  attaching = false;
  assertEquals([...(await polled)].filter((events) => events !== 0 && events !== POLLIN), []);
  disk.serve();
});

/** COMMIT of one answer on another thread. Whether it was taken. */
async function commitOne(queue: Queue, request: Request): Promise<boolean> {
  using completions = new Memory(4096);
  completions.bytes.set(encode(abi.dblock_completion, done(request)));
  const values = { count: 1, completions_address: completions.address };
  const { errno, out } = await callAsync(queue.fd, abi.DBLOCK_IOC_COMMIT, abi.dblock_commit, values);
  assertEquals([errno, out.completion_count], [0, 1]);
  return out.refused_count === 0;
}

Deno.test("an answer that is being copied stays with its buffer; one that comes too late is stale", async () => {
  await using disk = await TestDisk.start({ name: "again1", max_io_bytes: MIB, queue_depth: 1 });
  await disk.pause();
  const queue = disk.queues[0]!;
  const [before, after] = [queue.buffer!, new Memory(MIB)];
  before.bytes.fill(first);
  after.bytes.fill(second);
  using read = new Memory(MIB);
  const fd = open(disk.path, O_RDONLY | O_DIRECT);
  const next = async () => {
    await queue.poll(10_000);
    const { requests } = queue.exchange();
    assertEquals(requests.length, 1);
    return requests[0]!;
  };
  const counts = { taken: 0, late: 0 };
  for (let round = 0; round < scaled(150); round++) {
    const reading = syscallAsync(NR.pread64, fd, read.bytes, MIB, 0);
    const request = await next();
    // A page is missing in the middle, so the copy stops there, lets go of the request, and goes on.
    syscall(NR.madvise, before.address + MIB / 2, PAGE_BYTES, MADV_DONTNEED);
    const attach = () => queue.attachAsync({ buffer_address: after.address });
    const [attaching, committing] = round % 2 === 0
      ? [attach(), commitOne(queue, request)]
      : [commitOne(queue, request), attach()].reverse() as [Promise<number>, Promise<boolean>];
    assertEquals(await attaching, 0);
    const isTaken = await committing;
    if (!isTaken) assertEquals(queue.commit([done(await next())]).refusedCount, 0);
    assertEquals(await reading, MIB);
    counts[isTaken ? "taken" : "late"]++;
    if (isTaken) assertEquals(read.bytes.includes(second), false, `round ${round}: the other buffer's data`);
    else assert(isFilled(read.bytes, second), `round ${round}`);
    assertEquals(await queue.attachAsync(), 0);
  }
  close(fd);
  assert(counts.taken > 0 && counts.late > 0, JSON.stringify(counts));
  console.log(JSON.stringify(counts));
  disk.serve();
});
