// Memory of the server that is not there costs at most the request concerned: nothing is lost, and neighbours are fine.
// Hard cases B8, B12.
import { assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { isFilled, TestDisk } from "./disk.ts";
import { kernelLinesSince, markKernelLog, sh, waitFor } from "./harness.ts";
import { done, KIB } from "./server.ts";
import { Memory, PAGE_BYTES, PROT_NONE, PROT_READ, PROT_READ_WRITE } from "./syscall.ts";

const read = (path: string, block: number) =>
  sh(`dd if=${path} bs=4k count=1 skip=${block} iflag=direct status=none`, { check: false });

Deno.test("a request that could not be written to the ring is handed out by the next EXCHANGE", async () => {
  await using disk = await TestDisk.start({ name: "fault0" });
  await disk.pause();
  const queue = disk.queues[0]!;
  const reading = read(disk.path, 0);
  await waitFor("the read waits", () => disk.info().waiting_count === 1);
  for (const protection of [PROT_NONE, PROT_READ]) {
    queue.ring.protect(protection);
    // The answer is the call's alone: there is no header to read.
    assertEquals(queue.exchangeOnly(), -ERRNO.EFAULT);
    queue.ring.protect(PROT_READ_WRITE);
    const info = disk.info();
    assertEquals([info.waiting_count, info.handed_count, info.replayed_count], [1, 0, 0]);
  }
  const { result, requests } = queue.exchange();
  assertEquals([result, requests[0]!.operation, requests[0]!.flags], [1, abi.DBLOCK_OPERATION_READ, 0]);
  disk.store.bytes.fill(99, 0, 4096);
  assertEquals(queue.commit([disk.fulfil(requests[0]!)]).refusedCount, 0);
  assertEquals((await reading).stdout, "c".repeat(4096));
  disk.serve();
  await disk.assertIdle();
});

Deno.test("a write whose data cannot be delivered is handed out by a later EXCHANGE", async () => {
  await using disk = await TestDisk.start({ name: "fault1" });
  await disk.pause();
  const queue = disk.queues[0]!;
  const writing = sh(
    `tr '\\0' d </dev/zero | dd of=${disk.path} bs=${2 * PAGE_BYTES} count=1 iflag=fullblock oflag=direct`,
  );
  await waitFor("the write waits", () => disk.info().waiting_count === 1);
  // The second page of every slot is missing.
  for (let slot = 0; slot < queue.depth; slot++) {
    queue.buffer!.protect(PROT_NONE, slot * queue.slotBytes + PAGE_BYTES, PAGE_BYTES);
  }
  assertEquals(queue.exchange().result, -ERRNO.EFAULT);
  assertEquals(disk.info().waiting_count, 1);
  queue.buffer!.protect(PROT_READ_WRITE);
  const { requests } = queue.exchange();
  assertEquals(requests.length, 1);
  assertEquals(queue.commit([disk.fulfil(requests[0]!)]).refusedCount, 0);
  await writing;
  assertEquals(isFilled(disk.store.bytes.subarray(0, 2 * PAGE_BYTES), 100), true);
  disk.serve();
});

Deno.test("a completion with a bad data address costs its request EIO, and no other", async () => {
  await using disk = await TestDisk.start({ name: "fault2", flags: abi.DBLOCK_DEVICE_DIRECT });
  const mark = markKernelLog();
  disk.store.bytes.fill(101);
  disk.rule = () => "hold";
  const reads = [0, 1, 2, 3].map((block) => read(disk.path, block));
  await disk.untilHeld(4);
  const requests = [...disk.held].sort((a, b) => a.offsetBytes - b.offsetBytes);
  disk.held.length = 0;
  using hole = new Memory(2 * PAGE_BYTES);
  hole.protect(PROT_NONE, PAGE_BYTES);
  const answers = requests.map((request) => disk.fulfil(request));
  const kernel = 2 ** 53 - 4096; // Above all user addresses.
  const { statuses, refusedCount } = disk.queues[0]!.commit([
    answers[0]!,
    // Begins in good memory and ends in the hole.
    { ...answers[1], address: hole.address + PAGE_BYTES - 2048 },
    { ...answers[2], address: kernel },
    answers[3]!,
  ]);
  const { DBLOCK_STATUS_FAULT: FAULT } = abi;
  assertEquals([statuses, refusedCount], [[0, FAULT, FAULT, 0], 2]);
  const results = await Promise.all(reads);
  assertEquals(results.map((result) => result.status), [0, 1, 1, 0]);
  assertEquals([results[0]!.stdout, results[3]!.stdout], ["e".repeat(4096), "e".repeat(4096)]);
  await disk.assertIdle();
  assertEquals(disk.info().error_count, 2);
  const said = kernelLinesSince(mark).filter((line) => line.startsWith("dblock: fault2: a request ends in EIO"));
  assertEquals(said.length > 0, true);
});

Deno.test("of big answers in one call, one whose memory is missing in the middle ends alone", async () => {
  await using disk = await TestDisk.start({ name: "fault5", flags: abi.DBLOCK_DEVICE_DIRECT });
  // More than is ended at once (DBLOCK_ROUND_BYTES, 32 KiB): each answer has a round of its own, and two after a fault.
  const bytes = 64 * KIB;
  const middle = bytes / 2;
  disk.rule = () => "hold";
  const reads = [0, 1, 2, 3, 4].map((block) =>
    sh(`dd if=${disk.path} bs=64k count=1 skip=${block} iflag=direct status=none`, { check: false })
  );
  await disk.untilHeld(5);
  const requests = [...disk.held].sort((a, b) => a.offsetBytes - b.offsetBytes);
  disk.held.length = 0;
  using memory = new Memory(5 * bytes);
  for (const block of [0, 1, 2, 4]) memory.bytes.fill(101 + block, block * bytes, (block + 1) * bytes);
  // Of the fourth, nothing is present but its ends; of the second, nothing can be had between its ends.
  memory.bytes[3 * bytes] = memory.bytes[4 * bytes - 1] = 104;
  memory.protect(PROT_NONE, bytes + middle, PAGE_BYTES);
  const { statuses, refusedCount } = disk.queues[0]!.commit(
    requests.map((request, block) => ({ ...done(request), address: memory.address + block * bytes })),
  );
  assertEquals([statuses, refusedCount], [[0, abi.DBLOCK_STATUS_FAULT, 0, 0, 0], 1]);
  const results = await Promise.all(reads);
  assertEquals(results.map((result) => result.status), [0, 1, 0, 0, 0]);
  const expected = ["e".repeat(bytes), "", "g".repeat(bytes), `h${"\0".repeat(bytes - 2)}h`, "i".repeat(bytes)];
  for (const block of [0, 2, 3, 4]) assertEquals(results[block]!.stdout === expected[block], true, `block ${block}`);
  await disk.assertIdle();
  assertEquals(disk.info().error_count, 1);
});

Deno.test("a read answered from memory that is not written yet reads as zeroes; one write-protected takes no write", async () => {
  await using disk = await TestDisk.start({ name: "fault3", flags: abi.DBLOCK_DEVICE_DIRECT });
  assertEquals((await read(disk.path, 100)).stdout, "\0".repeat(4096));
  disk.store.protect(PROT_READ);
  const write = await sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 oflag=direct`, { check: false });
  assertEquals([write.status, /Input\/output error/.test(write.stderr)], [1, true]);
  assertEquals((await read(disk.path, 0)).status, 0);
  disk.store.protect(PROT_READ_WRITE);
  await sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 oflag=direct status=none`);
});

Deno.test("completions that cannot be read are all still to be made", async () => {
  await using disk = await TestDisk.start({ name: "fault4" });
  disk.rule = () => "hold";
  const reading = read(disk.path, 0);
  await disk.untilHeld(1);
  using hole = new Memory(4096);
  hole.protect(PROT_NONE);
  const completion = done(disk.held[0]!);
  const failed = disk.queues[0]!.commit([completion], { completions_address: hole.address });
  assertEquals([failed.errno, failed.completionCount, disk.info().handed_count], [ERRNO.EFAULT, 0, 1]);
  disk.releaseAll();
  assertEquals((await reading).status, 0);
});
