// ATTACH with a file: what a server's answers name is an offset in it, and the kernel reads, writes and flushes it. From the answer
// on a request is the store's: it ends as that does, be the server dead, replaced, or its device being destroyed. Hard cases B3, C1.
// time limit: 240 s
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { decode, encode } from "../../src/system/struct.ts";
import { isFilled, TestDisk } from "./disk.ts";
import { ext4Folder } from "./ext4_folder.ts";
import { fio } from "./fio.ts";
import { requires, sh, type ShellResult, waitFor } from "./harness.ts";
import { createDevice, type CreateParams, destroyDevice, done, infoOf, MIB, params, Queue } from "./server.ts";
import { close, O_DIRECT, O_RDONLY, O_RDWR, open } from "./syscall.ts";

const DIRECT = abi.DBLOCK_DEVICE_DIRECT;
const CACHE = abi.DBLOCK_DEVICE_WRITE_CACHE | abi.DBLOCK_DEVICE_CACHE_SURVIVES;
const BASE = 2 * MIB;

const isWrite = ({ operation }: { readonly operation: number }) => operation === abi.DBLOCK_OPERATION_WRITE;

/** A store whose requests the test answers, and a disk in it, `BASE` from its beginning. */
class Pair implements AsyncDisposable {
  private constructor(readonly store: TestDisk, readonly disk: TestDisk, readonly fd: number) {}

  static async start(name: string, values: CreateParams = {}): Promise<Pair> {
    const store = await TestDisk.start({ name: `${name}s`, size_bytes: 32 * MIB, flags: CACHE });
    const fd = open(store.path, O_RDWR | O_DIRECT);
    assert(fd >= 0, `errno ${-fd}`);
    const disk = await TestDisk.start({ name, flags: DIRECT | CACHE, file: { fd, atBytes: BASE }, ...values });
    return new Pair(store, disk, fd);
  }

  /** Writes a block of the disk, of this byte, and asks for no flush. */
  write(block: number, byte = 0x5a): Promise<ShellResult> {
    const octal = `\\${byte.toString(8)}`;
    const command =
      `head -c 4096 /dev/zero | tr '\\0' '${octal}' | dd of=${this.disk.path} bs=4k seek=${block} oflag=direct`;
    return sh(`${command} iflag=fullblock conv=nocreat status=none`, { check: false });
  }

  /** What the store has of a block of the disk. */
  content(block: number): Uint8Array {
    return this.store.store.bytes.subarray(BASE + block * 4096, BASE + (block + 1) * 4096);
  }

  /** From now on the store keeps what it is asked to write. */
  holdWrites(): void {
    this.store.rule = (request) => isWrite(request) ? "hold" : "serve";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.store.rule = () => "serve";
    this.store.releaseAll();
    await this.disk[Symbol.asyncDispose]();
    close(this.fd);
    await this.store[Symbol.asyncDispose]();
  }
}

Deno.test("a file is taken with O_DIRECT, for what the disk needs of it, in direct mode and without a volatile cache", async () => {
  await using folder = await ext4Folder();
  const path = `${folder.path}/content`;
  await sh(`truncate -s 16M ${path}`);
  const good = open(path, O_RDWR | O_DIRECT);
  const bad = [open(path, O_RDWR), open(path, O_RDONLY | O_DIRECT), open("/dev/null", O_RDWR), open("/", O_RDONLY)];
  const flags = abi.DBLOCK_ATTACH_FILE;
  {
    using queue = new Queue(createDevice(params("file0", { flags: DIRECT | CACHE })), 0);
    for (const file_fd of [...bad, queue.fd, 1_000_000, 2 ** 31 - 1, 2 ** 32 - 1]) {
      assertEquals(queue.attach({ flags, file_fd }), ERRNO.EINVAL, `${file_fd}`);
    }
    assertEquals(queue.attach({ file_fd: good }), ERRNO.EINVAL);
    assertEquals(
      queue.attach({ flags: flags | abi.DBLOCK_ATTACH_EVENTFD, file_fd: good, event_fd: good }),
      ERRNO.EINVAL,
    );
    assertEquals(queue.exchange().result, -ERRNO.ENOTCONN);
    assertEquals(queue.attach({ flags, file_fd: good }), 0);
    assertEquals(queue.attach({ flags, file_fd: good }), 0); // once more
    assertEquals(queue.attach(), 0);
    await destroyDevice("file0");
  }
  for (const refused of [0, CACHE, DIRECT | abi.DBLOCK_DEVICE_WRITE_CACHE]) {
    using queue = new Queue(createDevice(params("file0", { flags: refused })), 0);
    assertEquals(queue.attach({ flags, file_fd: good }), ERRNO.EINVAL, `${refused}`);
    await destroyDevice("file0");
  }
  {
    using queue = new Queue(createDevice(params("file0", { flags: DIRECT | abi.DBLOCK_DEVICE_READ_ONLY })), 0);
    assertEquals(queue.attach({ flags, file_fd: bad[1]! }), 0);
    await destroyDevice("file0");
  }
  for (const fd of [good, ...bad]) close(fd);
});

Deno.test("reads, writes and flushes are the file's, at the offsets that are named", async () => {
  await using pair = await Pair.start("file1");
  const { disk, store } = pair;
  const before = disk.info();
  const verify = await fio(
    `--name=verify --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randwrite --bsrange=4k-128k --iodepth=8 ` +
      `--size=8M --verify=crc32c --verify_fatal=1`,
  );
  assertEquals([verify.status, verify.jobs[0]!.error], [0, 0], verify.stderr);
  // What the block layer puts together has pages of several requests.
  await sh(`head -c 4M /dev/urandom >/tmp/in; dd if=/tmp/in of=${disk.path} bs=4k seek=1024 conv=fsync status=none`);
  await sh(`dd if=${disk.path} bs=1M skip=4 count=4 iflag=direct status=none | cmp - /tmp/in`);
  assertEquals(Deno.readFileSync("/tmp/in"), store.store.bytes.slice(BASE + 4 * MIB, BASE + 8 * MIB));
  assert(isFilled(store.store.bytes.subarray(0, BASE), 0), "something was written before the beginning");
  const flushes = () => store.seen.filter(({ operation }) => operation === abi.DBLOCK_OPERATION_FLUSH).length;
  assert(flushes() > 0, "nothing was flushed");
  const after = disk.info();
  const read = abi.DBLOCK_OPERATION_READ;
  assert(after.bytes[read]! - before.bytes[read]! >= 12 * MIB, `${after.bytes[read]} bytes were read`);
  assertEquals([after.error_count, after.handed_count, after.passed_count], [before.error_count, 0, 0]);
});

Deno.test({
  name: "memory that begins anywhere is read and written, too",
  ignore: !requires("direct I/O with memory at any 4 bytes (6.0)", Number.parseFloat(Deno.osRelease()) >= 6),
  async fn() {
    await using folder = await ext4Folder();
    const path = `${folder.path}/content`;
    await sh(`truncate -s 16M ${path}`);
    const fd = open(path, O_RDWR | O_DIRECT);
    {
      await using disk = await TestDisk.start({ name: "file2", flags: DIRECT | CACHE, file: { fd, atBytes: 0 } });
      for (const iomem of ["iomem_align=4", "iomem_align=4096"]) {
        const verify = await fio(
          `--name=verify --filename=${disk.path} --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=8 --size=4M ` +
            `--verify=crc32c --verify_fatal=1 --${iomem} --offset_increment=4k`,
        );
        assertEquals([verify.status, verify.jobs[0]!.error], [0, 0], verify.stderr);
      }
      const odd = await sh(
        `python3 -c '
import mmap, os
fd = os.open("${disk.path}", os.O_RDWR | os.O_DIRECT)
memory = memoryview(mmap.mmap(-1, 16384))
memory[100:100 + 8192] = bytes([7]) * 8192
assert os.pwritev(fd, [memory[100:100 + 8192]], 65536) == 8192
assert os.preadv(fd, [memory[4:4 + 8192]], 65536) == 8192
assert bytes(memory[4:4 + 8192]) == bytes([7]) * 8192
'`,
        { check: false },
      );
      assertEquals([odd.status, odd.stderr], [0, ""]);
    }
    close(fd);
  },
});

Deno.test("what the store says of a request is what its user hears", async () => {
  await using pair = await Pair.start("file3");
  const { disk, store } = pair;
  const before = disk.info();
  store.rule = (request) => isWrite(request) ? { error: ERRNO.ENOSPC, length_bytes: 0 } : "serve";
  assert(/No space left/.test((await pair.write(1)).stderr));
  store.rule = (request) => isWrite(request) ? { error: ERRNO.EIO, length_bytes: 0 } : "serve";
  assert(/Input\/output error/.test((await pair.write(1)).stderr));
  store.rule = ({ operation }) => operation === abi.DBLOCK_OPERATION_FLUSH ? { error: ERRNO.EIO } : "serve";
  const synced = await sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 conv=fsync`, { check: false });
  assert(/Input\/output error/.test(synced.stderr), synced.stderr);
  store.rule = () => "serve";
  assertEquals((await pair.write(1)).status, 0);
  const { error_count, requests } = disk.info();
  assertEquals(error_count - before.error_count, 3);
  const write = abi.DBLOCK_OPERATION_WRITE;
  assertEquals(requests[write]! - before.requests[write]!, 2); // that of the fsync, and the last one
});

Deno.test("an offset that no file has is refused, a short answer ends in EIO, and an errno is an answer as ever", async () => {
  await using pair = await Pair.start("file4");
  const { disk } = pair;
  disk.rule = (request) => isWrite(request) ? "hold" : "serve";
  const writing = pair.write(3);
  await disk.untilHeld(1);
  const request = disk.held[0]!;
  await disk.pause();
  const [queue] = disk.queues as [Queue];
  const at = abi.dblock_ring_header.size + queue.depth * abi.dblock_request.size;
  const completion = queue.ring.bytes.subarray(at, at + abi.dblock_completion.size);
  for (const address of [2n ** 63n - 4095n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]) {
    completion.set(encode(abi.dblock_completion, done(request)));
    new DataView(completion.buffer, completion.byteOffset).setBigUint64(0, address, true);
    assertEquals(queue.exchangeOnly(1), 0);
    assertEquals(decode(abi.dblock_completion, completion).status, abi.DBLOCK_STATUS_BAD_FIELD, `${address}`);
  }
  disk.serve();
  disk.release(request);
  assertEquals((await writing).status, 0);
  assert(isFilled(pair.content(3), 0x5a));
  disk.rule = (request) => isWrite(request) ? { length_bytes: 2048 } : "serve";
  assert(/Input\/output error/.test((await pair.write(4)).stderr));
  disk.rule = (request) => isWrite(request) ? { error: ERRNO.ENOSPC } : "serve";
  assert(/No space left/.test((await pair.write(4)).stderr));
  assert(isFilled(pair.content(4), 0), "it was written");
});

Deno.test("no timeout runs for what the store has", async () => {
  await using pair = await Pair.start("file5", { timeout_ms: 1_000 });
  pair.holdWrites();
  const writing = pair.write(5);
  await pair.store.untilHeld(1);
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  const { timeout_count, handed_count, passed_count } = pair.disk.info();
  assertEquals([timeout_count, handed_count, passed_count], [0, 0, 1]);
  pair.store.releaseAll();
  assertEquals((await writing).status, 0);
});

Deno.test("a server's death takes nothing from the store: the request ends, is not done again, and the next server goes on", async () => {
  await using pair = await Pair.start("file6", { on_death: abi.DBLOCK_ON_DEATH_HOLD });
  pair.holdWrites();
  const writing = pair.write(6);
  await pair.store.untilHeld(1);
  await pair.disk.abandon();
  await pair.disk.untilState(abi.DBLOCK_STATE_HELD);
  const waiting = pair.write(7);
  pair.store.releaseAll();
  assertEquals((await writing).status, 0);
  assert(isFilled(pair.content(6), 0x5a));
  pair.store.rule = () => "serve";
  await using next = await TestDisk.start({ name: "file6", existing: true, file: { fd: pair.fd, atBytes: BASE } });
  assertEquals((await waiting).status, 0);
  assertEquals(next.info().replayed_count, 0);
});

Deno.test("a take-over does not wait for what the store has", async () => {
  await using pair = await Pair.start("file7");
  pair.holdWrites();
  const writing = pair.write(8);
  await pair.store.untilHeld(1);
  const file = { fd: pair.fd, atBytes: BASE };
  await using heir = await TestDisk.attach({ name: "file7", existing: true, takeOver: true, file });
  heir.serve();
  assertEquals(pair.store.held.length, 1);
  pair.store.rule = () => "serve";
  assertEquals((await pair.write(9, 0x33)).status, 0);
  pair.store.releaseAll();
  assertEquals((await writing).status, 0);
  assert(isFilled(pair.content(8), 0x5a) && isFilled(pair.content(9), 0x33));
});

Deno.test("DESTROY by force waits for what the store has, and for nothing else", async () => {
  await using pair = await Pair.start("file8");
  pair.holdWrites();
  const writing = pair.write(10);
  await pair.store.untilHeld(1);
  let destroyed: number | undefined;
  const destroying = destroyDevice("file8", { force: true }).then((errno) => destroyed = errno);
  await waitFor("it is being removed", () => infoOf("file8")?.state === abi.DBLOCK_STATE_REMOVING);
  const late = await pair.write(11);
  assert(late.status !== 0, "a write after DESTROY was done");
  assertEquals(destroyed, undefined);
  pair.store.releaseAll();
  await Promise.all([writing, destroying]);
  assertEquals(destroyed, 0);
  assert(isFilled(pair.content(10), 0x5a));
});

Deno.test("a queue that is attached again has the file of the last time, or memory", async () => {
  await using pair = await Pair.start("file9");
  const { disk } = pair;
  await disk.pause();
  assertEquals(disk.queues[0]!.attach({ flags: abi.DBLOCK_ATTACH_FILE, file_fd: pair.fd }), 0);
  disk.serve();
  assertEquals((await pair.write(12)).status, 0);
  assert(isFilled(pair.content(12), 0x5a));
  await disk.pause();
  assertEquals(disk.queues[0]!.attach(), 0);
  disk.rule = (request) => ({ ...done(request), address: disk.store.address + request.offsetBytes });
  disk.serve();
  assertEquals((await pair.write(13)).status, 0);
  assert(isFilled(disk.store.bytes.subarray(13 * 4096, 14 * 4096), 0x5a), "it is not in memory");
  assert(isFilled(pair.content(13), 0), "it is in the file");
});

Deno.test("a write with FUA is durable when it is answered", async () => {
  await using pair = await Pair.start("file10", { flags: DIRECT | CACHE | abi.DBLOCK_DEVICE_FUA });
  const { disk, store } = pair;
  const flushes = ({ seen }: TestDisk) =>
    seen.filter(({ operation }) => operation === abi.DBLOCK_OPERATION_FLUSH).length;
  const before = [flushes(store), flushes(disk)] as const;
  await sh(`dd if=/dev/zero of=${disk.path} bs=4k count=1 seek=14 oflag=direct,dsync status=none`);
  const fua = disk.seen.filter((request) => isWrite(request) && request.flags & abi.DBLOCK_REQUEST_FUA).length;
  assertEquals(fua, 1);
  // The store has no FUA: it is flushed for that write, besides what the disk is asked to flush.
  const [ofStore, ofDisk] = [flushes(store) - before[0], flushes(disk) - before[1]];
  assert(ofStore > ofDisk, `${ofStore} flushes of the store, ${ofDisk} of the disk`);
});

Deno.test("each disk flushes with a thread of its own, so that one can wait for another", async () => {
  const threads = async () => (await sh("ps -eo args")).stdout.match(/^\[(kworker\/R-)?dblock-flush/gm)?.length ?? 0;
  const untilThreads = (count: number) => waitFor(`${count} threads`, async () => await threads() === count);
  await untilThreads(0);
  {
    await using pair = await Pair.start("file11");
    const fd = open(pair.disk.path, O_RDWR | O_DIRECT);
    {
      await using upper = await TestDisk.start({
        name: "file11u",
        flags: DIRECT | CACHE,
        size_bytes: 8 * MIB,
        file: { fd, atBytes: 0 },
      });
      await untilThreads(2);
      await sh(`dd if=/dev/zero bs=4k count=8 conv=fsync status=none of=${upper.path}`);
      const flush = abi.DBLOCK_OPERATION_FLUSH;
      for (const disk of [upper, pair.disk]) assert(disk.info().requests[flush]! > 0, `${disk.path} was not flushed`);
    }
    close(fd);
    await untilThreads(1);
  }
  await untilThreads(0);
});
