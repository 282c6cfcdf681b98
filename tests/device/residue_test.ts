// memory: 512 MiB
// kernel: init_on_alloc=0 init_on_free=0
// time limit: 180 s
// Nothing of what was in the kernel's memory before comes out. Every free page and the kernel's stack are full of a mark, the
// kernel clears nothing that it is not asked to clear, and a thousand devices go through all their calls: the mark is in no
// structure, in no field and between none, not in a ring, not in sysfs, and not in what a READ that failed returns to its
// reader. Hard case G2. Not covered: what the kernel keeps to itself, and memory that a CPU has for itself in each cache.
import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { type Decoded, encode, type Struct } from "../../src/system/struct.ts";
import { isFilled, TestDisk } from "./disk.ts";
import { figure, requires, scaled, sh } from "./harness.ts";
import {
  assertClean,
  canSeeKernelMemory,
  fillFreeMemory,
  findMark,
  KernelPages,
  markStack,
  unusedPages,
} from "./residue.ts";
import { type Completion, Control, createDevice, destroyDevice, done, KIB, MIB, params, Queue } from "./server.ts";
import { ioctl, Memory, NR, O_DIRECT, O_RDONLY, openAsync, syscallAsync } from "./syscall.ts";

const devicesAtOnce = 50;
const rounds = scaled(20);
/** More than the free places in slabs that are there already. */
const devicesSeen = 300;
const livePerRound = 5;
/** What the reader's memory has before it reads. */
const untouched = 0x11;

/** The calls whose structures were looked at. */
let looked = 0;

/** An ioctl right after the stack was marked; checks its errno and the structure that it wrote. */
function probe<S extends Struct>(
  fd: number,
  request: number,
  layout: S,
  values: Partial<Decoded<S>>,
  wanted = 0,
): void {
  const bytes = new Uint8Array(new ArrayBuffer(512));
  bytes.set(encode(layout, values));
  markStack();
  const result = ioctl(fd, request, bytes);
  assertEquals(result, 0 - wanted, layout.name);
  assertClean(layout, bytes.subarray(0, layout.size), `errno ${wanted}`);
  assert(isFilled(bytes.subarray(layout.size), 0), `${layout.name}: more than it was written`);
  looked++;
}

/** What EXCHANGE wrote: the header, the requests, and nothing else before the completions. */
function assertRingClean(queue: Queue, count: number): void {
  const { bytes } = queue.ring;
  const requestsAt = abi.dblock_ring_header.size;
  const completionsAt = requestsAt + queue.depth * abi.dblock_request.size;
  assertClean(abi.dblock_ring_header, bytes.subarray(0, requestsAt), "EXCHANGE");
  for (let i = 0; i < count; i++) {
    const at = requestsAt + i * abi.dblock_request.size;
    assertClean(abi.dblock_request, bytes.subarray(at, at + abi.dblock_request.size), `request ${i}`);
  }
  assertEquals(findMark(bytes.subarray(0, completionsAt)), -1, "a request that was not handed out");
  looked += 1 + count;
}

function sysfsTexts(name: string): string[] {
  const folder = `/sys/block/${name}/dblock`;
  return [...Deno.readDirSync(folder)].map((entry) => {
    const bytes = Deno.readFileSync(`${folder}/${entry.name}`);
    assertEquals(bytes.includes(0xa5), false, `${folder}/${entry.name}`);
    return new TextDecoder().decode(bytes);
  });
}

/** From START on: every call of a server's, with what the partition scan asks. */
function lead(queue: Queue, name: string, store: Memory): void {
  probe(queue.fd, abi.DBLOCK_IOC_START, abi.dblock_start, { flags: abi.DBLOCK_START_NO_WAIT });
  for (let isLive = false; !isLive;) {
    markStack();
    const { result, header, requests } = queue.exchange();
    assert(result >= 0, `EXCHANGE: ${result}`);
    assertRingClean(queue, requests.length);
    isLive = header.state === abi.DBLOCK_STATE_LIVE && requests.length === 0;
    const completions = requests.map((request): Completion => ({
      ...done(request),
      address: store.address + request.offsetBytes,
    }));
    if (completions.length === 0) continue;
    using memory = new Memory(4 * KIB);
    completions.forEach((completion, i) => {
      memory.bytes.set(encode(abi.dblock_completion, completion), i * abi.dblock_completion.size);
    });
    const commit = { count: completions.length, completions_address: memory.address };
    probe(queue.fd, abi.DBLOCK_IOC_COMMIT, abi.dblock_commit, commit);
    assertEquals(findMark(memory.bytes), -1, "completions of COMMIT");
  }
  probe(queue.fd, abi.DBLOCK_IOC_RESIZE, abi.dblock_resize, { size_bytes: 2 * MIB });
  probe(queue.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, {});
  assert(sysfsTexts(name).length > 25);
}

/** What a test that failed has left. */
async function destroyAll(control: Control): Promise<void> {
  for (const { name } of control.list()) await destroyDevice(name);
}

/** LIST of all devices: each of the structures, and not a byte behind the last. */
function probeList(control: Control, count: number): void {
  using infos = new Memory(64 * KIB);
  probe(control.fd, abi.DBLOCK_IOC_LIST, abi.dblock_list, { capacity: 64, infos_address: infos.address });
  const end = count * abi.dblock_info.size;
  for (let at = 0; at < end; at += abi.dblock_info.size) {
    assertClean(abi.dblock_info, infos.bytes.subarray(at, at + abi.dblock_info.size), "LIST");
  }
  assert(isFilled(infos.bytes.subarray(end), 0), "LIST wrote behind its end");
  looked += count;
}

Deno.test("the kernel clears nothing by itself, and its free memory is full of the mark", async () => {
  const cmdline = Deno.readTextFileSync("/proc/cmdline");
  assert(/ init_on_alloc=0 init_on_free=0( |$)/.test(cmdline.trim()), cmdline);
  assert((await sh("dmesg | grep 'mem auto-init:'")).stdout.includes("heap alloc:off, heap free:off"));
});

Deno.test({
  name: "devices are made of memory that has the mark",
  ignore: !requires("/proc/kcore and /proc/kpageflags", canSeeKernelMemory()),
  async fn() {
    const filled = await fillFreeMemory();
    using memory = new KernelPages();
    const { free, flagless } = unusedPages();
    const sample = [...free].filter((_, i) => i % 16 === 0);
    const share = memory.marked(sample).length / sample.length;
    const kept = memory.marked(flagless);
    const percent = Math.round(share * 100);
    console.log(`${Math.round(filled / MIB)} MiB filled; the mark is in ${percent}% of ${sample.length} free pages`);
    console.log(`and in ${kept.length} pages that CPUs keep`);
    assert(share > 0.7, `only ${share} of the free pages have the mark`);
    const before = [...free, ...kept];
    const names = Array.from({ length: devicesSeen }, (_, i) => `residue-seen-${i}`);
    for (const name of names) createDevice(params(name, { queue_depth: 1 }));
    const after = unusedPages();
    const used = before.filter((page) => !after.free.has(page) && !after.flagless.has(page));
    const found = used.filter((page) => Buffer.from(memory.read(page) ?? []).includes("residue-seen-")).length;
    for (const errno of await Promise.all(names.map((name) => destroyDevice(name)))) assertEquals(errno, 0);
    console.log(`devices' names are in ${found} pages that were free before`);
    assert(found >= 5, `the names are in ${found} pages that were free before`);
  },
});

Deno.test(`${rounds * devicesAtOnce} devices: the mark is in nothing that a call or sysfs says`, async () => {
  looked = 0;
  using control = new Control();
  await using _ = { [Symbol.asyncDispose]: () => destroyAll(control) };
  using store = new Memory(2 * MIB);
  const { fd } = control;
  for (let round = 0; round < rounds; round++) {
    if (round % 5 === 0) await fillFreeMemory();
    const names = Array.from({ length: devicesAtOnce }, (_, i) => `residue${i}`);
    const values = (name: string) => params(name, { size_bytes: MIB, queue_depth: 4, flags: abi.DBLOCK_DEVICE_DIRECT });
    for (const name of names) {
      probe(fd, abi.DBLOCK_IOC_CREATE, abi.dblock_create, values(name));
      probe(fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, { name });
    }
    const queues = names.map((name) => new Queue(values(name), 0));
    for (const [i, queue] of queues.entries()) {
      probe(queue.fd, abi.DBLOCK_IOC_ATTACH, abi.dblock_attach, {
        ring_address: queue.ring.address,
        ring_bytes: queue.ring.bytes.length,
      });
      if (i < livePerRound) lead(queue, names[i]!, store);
    }
    probe(fd, abi.DBLOCK_IOC_VERSION, abi.dblock_version, {});
    probeList(control, devicesAtOnce);
    probe(fd, abi.DBLOCK_IOC_CREATE, abi.dblock_create, values(names[0]!), ERRNO.EEXIST);
    probe(fd, abi.DBLOCK_IOC_CREATE, abi.dblock_create, { ...values("wrong"), size_bytes: 1 }, ERRNO.EINVAL);
    probe(fd, abi.DBLOCK_IOC_INFO, abi.dblock_info, { name: "absent" }, ERRNO.ENOENT);
    probe(fd, abi.DBLOCK_IOC_DESTROY, abi.dblock_destroy, { name: "absent" }, ERRNO.ENOENT);
    for (const [i, name] of names.entries()) {
      probe(fd, abi.DBLOCK_IOC_DESTROY, abi.dblock_destroy, { name, flags: abi.DBLOCK_DESTROY_FORCE });
      queues[i]![Symbol.dispose]();
      queues[i]!.ring[Symbol.dispose]();
    }
  }
  figure({ "devices made of marked memory": rounds * devicesAtOnce, "structures without the mark": looked });
});

Deno.test("a READ that fails or falls short gives its reader nothing of the kernel's memory", async () => {
  const bytes = 64 * KIB;
  await fillFreeMemory();
  for (const flags of [0, abi.DBLOCK_DEVICE_DIRECT]) {
    await using disk = await TestDisk.start({ name: "residue", flags });
    disk.store.bytes.fill(0x22);
    /** read(2) of the disk's beginning, on another thread. Its result, and what is in the memory. */
    const read = async (openFlags: number) => {
      using memory = new Memory(bytes);
      memory.bytes.fill(untouched);
      const file = await openAsync(disk.path, O_RDONLY | openFlags);
      const result = await syscallAsync(NR.pread64, file, memory.address, bytes, 0);
      await syscallAsync(NR.close, file);
      return { result, content: memory.bytes.slice() };
    };
    const spoils: readonly TestDisk["rule"][] = [
      () => ({ error: ERRNO.EIO }),
      (request) => ({ ...done(request), length_bytes: 0 }),
      (request) => ({ ...done(request), address: disk.store.address, length_bytes: request.lengthBytes - 512 }),
      (request) => ({ ...done(request), address: flags === 0 ? 0 : 4096, error: flags === 0 ? ERRNO.ENODATA : 0 }),
    ];
    for (const spoil of spoils) {
      for (const openFlags of [O_DIRECT, 0]) {
        disk.rule = spoil;
        const { result, content } = await read(openFlags);
        assert(result === -ERRNO.EIO || result === -ERRNO.ENODATA, `a spoilt READ returned ${result}`);
        assertEquals(findMark(content), -1);
        // Of a page cache that has nothing, nothing is copied.
        if (openFlags === 0) assert(isFilled(content, untouched), "a failed read wrote to its reader's memory");
      }
      // What is in the page cache now must be the disk's, or not be there.
      disk.rule = () => "serve";
      const { result, content } = await read(0);
      assertEquals(result, bytes);
      assert(isFilled(content, 0x22), "a good READ after a spoilt one");
      await sh(`blockdev --flushbufs ${disk.path}`);
    }
  }
});
