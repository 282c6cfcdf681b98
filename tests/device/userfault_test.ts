// Memory of the server that never comes (userfaultfd) blocks the one call that needs it: other queues, the timeout, force
// destroy and SIGKILL still work. Hard case B11.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/abi.ts";
import { TestDisk } from "./disk.ts";
import { assertWithin, requires, sh, waitFor } from "./harness.ts";
import { destroyDevice, infoOf } from "./server.ts";
import { close, Memory, NR, syscall, syscallAsync } from "./syscall.ts";

const ioctlApi = 0xc018aa3f;
const ioctlRegister = 0xc020aa00;
const ioctlUnregister = 0x8010aa01;
const apiVersion = 0xaan;
const modeMissing = 1n;

/** Memory whose pages nobody will ever provide, until it is disposed. */
class DeadMemory extends Memory {
  readonly #fd: number;

  constructor(sizeBytes: number) {
    super(sizeBytes);
    this.#fd = syscall(NR.userfaultfd, 0o2000000);
    assert(this.#fd >= 0, `userfaultfd: errno ${-this.#fd}`);
    this.#ioctl(ioctlApi, [apiVersion, 0n, 0n]);
    this.#ioctl(ioctlRegister, [BigInt(this.address), BigInt(sizeBytes), modeMissing, 0n]);
  }

  #ioctl(request: number, words: readonly bigint[]): void {
    const argument = new Uint8Array(new BigUint64Array([...words, ...Array(16).fill(0n)]).buffer);
    assertEquals(syscall(NR.ioctl, this.#fd, request, argument), 0);
  }

  /** Its pages are plain zeroes from now on, and who waits for one goes on. */
  revive(): void {
    this.#ioctl(ioctlUnregister, [BigInt(this.address), BigInt(this.bytes.length)]);
  }

  override [Symbol.dispose](): void {
    close(this.#fd);
    super[Symbol.dispose]();
  }
}

const isThere = syscall(NR.userfaultfd, 0o2000000);
if (isThere >= 0) close(isThere);
const options = { ignore: !requires("userfaultfd", isThere >= 0) };
const direct = { flags: abi.DBLOCK_DEVICE_DIRECT, queue_depth: 8 };

/** COMMIT on another thread with one completion, whose data is in dead memory. */
function commitDead(disk: TestDisk, memory: Memory): { result: Promise<number> } {
  const request = disk.held.shift()!;
  const completions = new Memory(4096);
  const view = new DataView(completions.bytes.buffer);
  view.setBigUint64(0, BigInt(memory.address), true);
  view.setUint32(8, request.lengthBytes, true);
  view.setUint32(12, request.generation, true);
  view.setUint16(16, request.slot, true);
  const commit = new Memory(4096);
  const commitView = new DataView(commit.bytes.buffer);
  commitView.setUint32(4, 1, true);
  commitView.setBigUint64(16, BigInt(completions.address), true);
  return { result: syscallAsync(NR.ioctl, disk.queues[0]!.fd, abi.DBLOCK_IOC_COMMIT, commit.bytes) };
}

const read = (path: string, block: number) =>
  sh(`dd if=${path} of=/dev/null bs=4k count=1 skip=${block} iflag=direct`, { check: false });

Deno.test({
  name: "a COMMIT stuck on a dead page does not stop others, nor force destroy",
  ...options,
  async fn() {
    await using disk = await TestDisk.start({ name: "dead0", ...direct });
    using memory = new DeadMemory(4096);
    disk.rule = () => "hold";
    const stuck = read(disk.path, 0);
    await disk.untilHeld(1);
    const commit = commitDead(disk, memory);
    disk.rule = () => "serve";
    assertEquals((await read(disk.path, 1)).status, 0);
    assertEquals(disk.info().handed_count, 1);
    const started = performance.now();
    assertEquals(await destroyDevice("dead0"), 0);
    assertEquals((await stuck).status, 1);
    assertWithin(5_000, performance.now() - started, "destroyed");
    memory.revive();
    assertEquals(await commit.result, 0);
  },
});

Deno.test({
  name: "the timeout of a request whose COMMIT is stuck on a dead page comes in time",
  ...options,
  async fn() {
    await using disk = await TestDisk.start({ name: "dead1", timeout_ms: 1_000, ...direct });
    using memory = new DeadMemory(4096);
    disk.rule = () => "hold";
    const started = performance.now();
    const stuck = read(disk.path, 0);
    await disk.untilHeld(1);
    const commit = commitDead(disk, memory);
    assertEquals((await stuck).status, 1);
    assertWithin(4_500, performance.now() - started, "EIO");
    assertEquals(disk.info().timeout_count, 1);
    disk.rule = () => "serve";
    memory.revive();
    assertEquals(await commit.result, 0);
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
    using memory = new DeadMemory(4096);
    disk.rule = () => "hold";
    const stuck = read(disk.path, 0);
    await disk.untilHeld(1);
    const commit = commitDead(disk, memory);
    await sh("sleep 0.3");
    assertEquals(disk.info().handed_count, 1);
    memory.revive();
    assertEquals([await commit.result, (await stuck).status], [0, 0]);
    await waitFor("it is answered", () => infoOf("dead2")!.handed_count === 0);
  },
});

Deno.test({
  name: "writes that time out before their data is delivered are not told to the server, and leave no slot behind",
  ...options,
  async fn() {
    await using disk = await TestDisk.start({ name: "dead3", timeout_ms: 1_000, queue_depth: 4, max_io_bytes: 4096 });
    await disk.pause();
    const queue = disk.queues[0]!;
    using memory = new DeadMemory(queue.depth * queue.slotBytes);
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
