// What a server can make the kernel print is limited in its rate and names no address, and what the kernel writes to a
// server has nothing in it but what the header says. Hard cases G2, G4. residue_test.ts has a kernel that clears nothing.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { decode, encode, type Struct } from "../../src/system/struct.ts";
import { TestDisk } from "./disk.ts";
import { fio } from "./fio.ts";
import { kernelLinesSince, markKernelLog, sh, waitFor } from "./harness.ts";
import { silentBytes } from "./residue.ts";
import { Control, createDevice, destroyDevice, done, params, Queue, startDevice } from "./server.ts";
import { ioctl, Memory } from "./syscall.ts";

const marker = 0xa5;
const DEATHS = 100;

Deno.test("a thousand requests that a server spoils are not a thousand lines in the log", async () => {
  await using disk = await TestDisk.start({ name: "noisy0", flags: abi.DBLOCK_DEVICE_DIRECT });
  const mark = markKernelLog();
  disk.rule = (request) => ({ ...done(request), address: 4096 });
  await fio(
    `--name=noisy --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randread --bs=4k --iodepth=16 --size=4M ` +
      `--continue_on_error=all`,
  );
  disk.rule = () => "serve";
  assert(disk.info().error_count >= 1_000, `${disk.info().error_count} errors`);
  const said = kernelLinesSince(mark).filter((line) => line.startsWith("dblock: noisy0: "));
  // printk's own limit is 10 in 5 s.
  assert(said.length > 0 && said.length <= 40, `${said.length} lines`);
  for (const line of said) assertEquals(/[0-9a-f]{8,}/.test(line), false, line);
});

Deno.test("a hundred deaths in a row are limited, too", async () => {
  await using disk = await TestDisk.start({ name: "noisy1", on_death: abi.DBLOCK_ON_DEATH_HOLD });
  await disk.abandon();
  await disk.untilState(abi.DBLOCK_STATE_HELD);
  const mark = markKernelLog();
  const began = performance.now();
  const created = disk.info();
  // As quickly as can be: each is some files that are opened, attached, started and closed.
  for (let death = 0; death < DEATHS; death++) {
    using server = new DisposableStack();
    const queues = Array.from({ length: created.queue_count }, (_, i) => server.use(new Queue(created, i)));
    for (const queue of queues) assertEquals(queue.attach(), 0);
    assertEquals(startDevice(queues[0]!.fd), 0);
  }
  const tookMs = performance.now() - began;
  await disk.untilState(abi.DBLOCK_STATE_HELD);
  const said = kernelLinesSince(mark).filter((line) => line.startsWith("dblock: noisy1: "));
  // Each death says two things, each of them 10 times in 5 s.
  const most = 20 * (2 + Math.floor(tookMs / 5_000));
  assert(most < 2 * DEATHS, `${DEATHS} deaths took ${tookMs} ms, so slow that nothing has to be limited`);
  assert(said.length > 0 && said.length <= most, `${most} lines may be there, not ${said.length}`);
});

Deno.test("INFO, LIST and VERSION write zeroes where the header has nothing", async () => {
  await using disk = await TestDisk.start({ name: "silent0" });
  // What was in the kernel's memory before: names and structures of devices that are gone.
  for (let i = 0; i < 50; i++) {
    createDevice(params(`${"x".repeat(20)}${i}`));
    await destroyDevice(`${"x".repeat(20)}${i}`);
  }
  using control = new Control();
  using memory = new Memory(4096);
  const filled = (layout: Struct, values: object) => {
    memory.bytes.fill(marker);
    memory.bytes.set(encode(layout, values));
    return memory.bytes.subarray(0, layout.size);
  };
  const info = filled(abi.dblock_info, { name: disk.name });
  assertEquals(ioctl(control.fd, abi.DBLOCK_IOC_INFO, memory.address), 0);
  assertEquals(new Set(silentBytes(abi.dblock_info, info)), new Set([0]));
  assertEquals(memory.bytes[abi.dblock_info.size], marker);

  using infos = new Memory(4096);
  infos.bytes.fill(marker);
  filled(abi.dblock_list, { capacity: 4, infos_address: infos.address });
  assertEquals(ioctl(control.fd, abi.DBLOCK_IOC_LIST, memory.address), 0);
  const { count } = decode(abi.dblock_list, memory.bytes);
  assertEquals(count, 1);
  assertEquals(new Set(silentBytes(abi.dblock_info, infos.bytes.subarray(0, abi.dblock_info.size))), new Set([0]));
  // Not a byte behind the last.
  assertEquals(new Set(infos.bytes.subarray(abi.dblock_info.size)), new Set([marker]));
});

Deno.test("a ring has nothing in it but what was handed out", async () => {
  await using disk = await TestDisk.start({ name: "silent1", rule: () => "serve" });
  await disk.pause();
  const queue = disk.queues[0]!;
  const { ring } = queue;
  ring.bytes.fill(marker, abi.dblock_ring_header.size);
  const reading = sh(`dd if=${disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none`);
  await waitFor("the read waits", () => disk.info().waiting_count === 1);
  const { requests } = queue.exchange();
  assertEquals(requests.length, 1);
  const at = abi.dblock_ring_header.size;
  const request = ring.bytes.subarray(at, at + abi.dblock_request.size);
  assertEquals(silentBytes(abi.dblock_request, request).every((byte) => byte === 0), true);
  assertEquals(new Set(ring.bytes.subarray(at + abi.dblock_request.size)), new Set([marker]));
  assertEquals(queue.commit([disk.fulfil(requests[0]!)]).refusedCount, 0);
  await reading;
  disk.serve();
});
