/**
 * One of the processes of cycles_test.ts: creates, serves, reads, destroys twice, as fast as it can, whatever the others do
 * to the same names meanwhile. Prints how often each outcome came; an outcome that is not foreseen ends it with 1.
 */
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { isFilled } from "./disk.ts";
import { call, Control, destroyDevice, done, params, Queue, startDevice } from "./server.ts";
import { close, Memory, NR, O_DIRECT, O_NONBLOCK, O_RDONLY, open, PAGE_BYTES, syscallAsync } from "./syscall.ts";

const [process, cycles] = Deno.args.map(Number) as [number, number];
const tally: Record<string, number> = {};
/** What the disks of each process read as, from here on. */
const firstFill = 0xa0;
const page = new Memory(PAGE_BYTES);

function count(what: string, errno: number, foreseen: readonly number[]): void {
  if (errno !== 0 && !foreseen.includes(errno)) throw new Error(`${what}: errno ${errno} is not foreseen`);
  tally[`${what} ${errno}`] = (tally[`${what} ${errno}`] ?? 0) + 1;
}

/** Creates and serves one device until it is live or somebody else has taken it away. */
function createAndServe(control: Control, name: string): Queue | undefined {
  const { errno, out } = control.create(
    params(name, { size_bytes: 16 * PAGE_BYTES, queue_depth: 4, max_io_bytes: PAGE_BYTES }),
  );
  count("create", errno, [ERRNO.EEXIST]);
  if (errno !== 0) return undefined;
  const fd = open(`/dev/${name}-ctl`, O_NONBLOCK);
  if (fd < 0) {
    count("open", -fd, [ERRNO.ENOENT, ERRNO.ENXIO]);
    return undefined;
  }
  close(fd);
  let queue: Queue;
  try {
    queue = new Queue(out, 0);
  } catch {
    return undefined; // Destroyed since.
  }
  queue.buffer!.bytes.fill(firstFill + process);
  // The name may be another process's device by now, which has its own server.
  const attached = queue.attach();
  count("attach", attached, [ERRNO.ENODEV, ERRNO.EBUSY]);
  if (attached === 0) count("start", startDevice(queue.fd, abi.DBLOCK_START_NO_WAIT), [ERRNO.ENODEV]);
  return queue;
}

/** Answers what the partition scan asks, until the disk is live or gone. */
function serveStart(queue: Queue): void {
  let completions = [] as ReturnType<typeof done>[];
  for (let i = 0; i < 100_000; i++) {
    const { result, requests } = queue.exchange(completions);
    if (result < 0) return;
    completions = requests.map((request) => done(request));
    if (call(queue.fd, abi.DBLOCK_IOC_INFO, abi.dblock_info).out.state >= abi.DBLOCK_STATE_LIVE) return;
  }
}

/**
 * Reads a disk on another thread, and serves on meanwhile: it may be this process's own. Whoever reads another's disk waits
 * until that one has served it, or has taken it away.
 */
async function readDisk(fd: number, queue: Queue | undefined): Promise<void> {
  let result: number | undefined;
  page.bytes.fill(0);
  syscallAsync(NR.pread64, fd, page.address, PAGE_BYTES, 4 * PAGE_BYTES).then((bytes) => result = bytes);
  let completions = [] as ReturnType<typeof done>[];
  while (result === undefined) {
    completions = queue?.exchange(completions).requests.map((request) => done(request)) ?? [];
    if (completions.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  // A disk that is gone is empty, or broken.
  count(result === 0 ? "end of disk" : "read", Math.max(0, -result), [ERRNO.EIO, ERRNO.ENODEV]);
  const fill = page.bytes[0]!;
  const isServed = fill >= firstFill && fill < firstFill + 4 && isFilled(page.bytes, fill);
  if (result > 0 && (result !== PAGE_BYTES || !isServed)) throw new Error(`read ${result} bytes of ${fill}`);
}

using control = new Control();
for (let cycle = 0; cycle < cycles; cycle++) {
  const name = `cycle${(cycle + process) % 2}`;
  const queue = createAndServe(control, name);
  if (queue !== undefined) serveStart(queue);
  // A destroy of somebody else may come before, while it reads, and after.
  const fd = open(`/dev/${name}`, O_RDONLY | O_NONBLOCK | O_DIRECT);
  if (fd >= 0) {
    await readDisk(fd, queue);
    close(fd);
  }
  // One in three leaves the removal to the death of its server.
  if (cycle % 3 !== 0) {
    count("destroy", await destroyDevice(name, { force: true }), [ERRNO.ENOENT]);
    // Nothing is there, or what somebody else has made since.
    count("destroy again", await destroyDevice(name, { force: true }), [ERRNO.ENOENT]);
  }
  queue?.[Symbol.dispose]();
  tally.cycles = (tally.cycles ?? 0) + 1;
}
console.log(JSON.stringify(tally));
