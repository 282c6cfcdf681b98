// Threads of one server beside one another on a queue: the same answer given twice at once, a thread that ends with
// requests in its hands, and one that writes over the whole ring all the time. Hard cases A12, B2, B6.
import { assert, assertEquals } from "@std/assert";
import * as abi from "../../src/module/abi.ts";
import { ERRNO } from "../../src/disk/errors.ts";
import { encode } from "../../src/system/struct.ts";
import { TestDisk } from "./disk.ts";
import { fio } from "./fio.ts";
import { exists, figure, kernelLinesSince, markKernelLog, scaled, sh, waitFor } from "./harness.ts";
import { Program } from "./program.ts";
import type { ThreadTask } from "./queue_threads_worker.ts";
import { scribbledOptions } from "./scribbled_main.ts";
import { callAsync, type Completion, destroyDevice, done, infoOf, MIB, type Request } from "./server.ts";
import { ServerProcess } from "./server_process.ts";
import { Memory } from "./syscall.ts";

const { DBLOCK_STATUS_TAKEN: TAKEN, DBLOCK_STATUS_STALE: STALE } = abi;

Deno.test("an answer that comes by EXCHANGE and by COMMIT at once is taken once", async () => {
  await using disk = await TestDisk.start({ name: "threads0", queue_depth: 32, flags: abi.DBLOCK_DEVICE_DIRECT });
  const wanted = scaled(2_000);
  await disk.pause();
  const queue = disk.queues[0]!;
  using memory = new Memory(queue.depth * abi.dblock_completion.size);
  const running = fio(
    `--name=twice --filename=${disk.path} --direct=1 --ioengine=io_uring --rw=randread --bs=4k --iodepth=32 ` +
      `--size=16M --io_size=${wanted * 4}k`,
  );
  let isOver = false;
  running.finally(() => isOver = true);
  let requests: readonly Request[] = [];
  const wins = { exchange: 0, commit: 0 };
  while (!isOver) {
    const completions = requests.map((request): Completion => ({ ...done(request), address: disk.store.address }));
    completions.forEach((completion, i) => {
      memory.bytes.set(encode(abi.dblock_completion, completion), i * abi.dblock_completion.size);
    });
    const commit = () =>
      callAsync(queue.fd, abi.DBLOCK_IOC_COMMIT, abi.dblock_commit, {
        count: completions.length,
        completions_address: memory.address,
      });
    // Each is the first now and then.
    const committing = Math.random() < 0.5 ? commit() : undefined;
    const exchanging = queue.exchangeAsync(completions);
    await (committing ?? commit());
    const exchanged = await exchanging;
    for (const [i, status] of exchanged.statuses.entries()) {
      const other = new DataView(memory.bytes.buffer).getUint16(
        i * abi.dblock_completion.size + abi.dblock_completion.fields.status.offset,
        true,
      );
      assertEquals([status, other].toSorted((a, b) => a - b), [TAKEN, STALE]);
      wins[status === TAKEN ? "exchange" : "commit"]++;
    }
    requests = exchanged.requests;
    if (requests.length === 0) await queue.poll(20);
  }
  assertEquals((await running).jobs[0]!.error, 0);
  figure({ "answers given twice at once": wins.exchange + wins.commit, "taken by EXCHANGE": wins.exchange });
  assert(wins.exchange > 0 && wins.commit > 0, `no race: ${JSON.stringify(wins)}`);
  disk.serve();
  await disk.assertIdle();
});

/** Runs a thread to its end, or until `stop` tells it to. */
function runThread(task: ThreadTask): { readonly result: Promise<number>; readonly ended: Promise<void> } {
  const worker = new Worker(new URL("./queue_threads_worker.ts", import.meta.url), { type: "module" });
  const { promise, resolve } = Promise.withResolvers<{ result: number; tid: number }>();
  worker.onmessage = ({ data }: MessageEvent<{ result: number; tid: number }>) => resolve(data);
  worker.postMessage(task);
  const ended = promise.then(async ({ tid }) => {
    worker.terminate();
    await waitFor("the thread has ended", () => !exists(`/proc/self/task/${tid}`));
  });
  return { result: promise.then(({ result }) => result), ended };
}

Deno.test("a thread that ends with requests in its hands takes nothing with it: another answers them", async () => {
  await using disk = await TestDisk.start({ name: "threads1" });
  await disk.pause();
  const queue = disk.queues[0]!;
  disk.store.bytes.fill(65);
  const reads = [0, 1, 2].map((block) => sh(`dd if=${disk.path} bs=4k count=1 skip=${block} iflag=direct status=none`));
  await waitFor("three reads wait", () => disk.info().waiting_count === 3);
  const thread = runThread({ kind: "take", fd: queue.fd });
  assertEquals(await thread.result, 3);
  await thread.ended;
  const { state, handed_count, death_count } = disk.info();
  assertEquals([state, handed_count, death_count], [abi.DBLOCK_STATE_LIVE, 3, 0]);
  const { requests } = queue.read(3, 0);
  assertEquals(queue.commit(requests.map((request) => disk.fulfil(request))).refusedCount, 0);
  assertEquals((await Promise.all(reads)).map(({ stdout }) => stdout[0]), ["A", "A", "A"]);
  disk.serve();
  await sh(`dd if=${disk.path} of=/dev/null bs=4k count=9 iflag=direct status=none`);
  assertEquals(disk.info().replayed_count, 0);
});

/** Compares a disk with a file, without what is in the page cache. */
function compare(file: string, disk: string): string {
  return `dd if=${disk} bs=1M iflag=direct status=none | cmp - ${file}`;
}

/** What a server's random word may make of a request: EIO, and the errors of a server's own that the block layer passes on. */
const errnos: readonly number[] = [
  ...[ERRNO.EIO, ERRNO.ENOMEM, ERRNO.ENOSPC, ERRNO.EBADE, ERRNO.ENODATA, ERRNO.ENOLINK],
  ...[ERRNO.EILSEQ, ERRNO.EOPNOTSUPP, ERRNO.ETIMEDOUT, ERRNO.EREMOTEIO],
];

Deno.test("a thread that writes over the whole ring harms its own server's requests, and nobody else", async () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const mark = markKernelLog();
  await using other = await ServerProcess.start({ name: "threads3", size_bytes: 4 * MIB });
  const image = "/tmp/threads3";
  await sh(
    `head -c ${4 * MIB} /dev/urandom >${image}; dd if=${image} of=${other.path} bs=1M oflag=direct status=none`,
  );
  await using _afterwards = { [Symbol.asyncDispose]: () => destroyDevice("threads2").then(() => {}) };
  await using mad = new Program("scribbled_main.ts", ["threads2", String(seed)]);
  await mad.line();
  const path = "/dev/threads2";
  const seconds = scaled(3);
  const ignored = errnos.join(":");
  const comparing = sh(
    `until [ -e /tmp/scribbled ]; do ${compare(image, other.path)} || exit 1; done; rm /tmp/scribbled`,
    {
      timeoutMs: (seconds + 60) * 1000,
    },
  );
  const load = await fio(
    `--name=mad --filename=${path} --direct=1 --ioengine=io_uring --rw=randrw --bs=4k --iodepth=16 --time_based ` +
      `--runtime=${seconds} --continue_on_error=all --ignore_error=${ignored},${ignored}`,
    { timeoutMs: (seconds + 30) * 1000 },
  ).finally(() => Deno.writeTextFile("/tmp/scribbled", ""));
  await comparing;
  const { read, write, error } = load.jobs[0]!;
  const { refused_count, error_count, handed_total } = infoOf("threads2")!;
  const { code, stderr } = await mad.end();
  console.log(
    `seed ${seed}: ${handed_total} requests handed out, ${refused_count} answers refused, ${error_count} failed; ` +
      `${read.total_ios} reads, ${write.total_ios} writes; the server ended with ${code} ${stderr}`,
  );
  figure({ "requests over a ring that is written over": handed_total, "answers refused": refused_count });
  assert(refused_count > 0 && read.total_ios > 0 && write.total_ios > 0, "the kernel noticed nothing");
  // A short run on a slow kernel may see no error at all.
  const isKnown = error_count === 0 ? error === 0 : errnos.includes(error);
  assertEquals([isKnown, load.status], [true, 0], `error ${error}: ${load.stderr}`);

  await waitFor("the device has no server", () => infoOf("threads2")!.state === abi.DBLOCK_STATE_FAILED);
  assertEquals(infoOf("threads2")!.quarantined_count, 0);
  await using next = await TestDisk.start({ ...scribbledOptions, name: "threads2", existing: true });
  const before = next.info().error_count;
  const verified = await fio(
    `--name=sane --filename=${next.path} --direct=1 --ioengine=io_uring --rw=randwrite --bs=4k --iodepth=32 --size=4M ` +
      `--verify=crc32c --verify_fatal=1`,
  );
  assertEquals([verified.status, next.info().error_count - before], [0, 0], verified.stderr);
  await next.assertIdle();

  await sh(compare(image, other.path));
  assertEquals(infoOf("threads3")!.error_count, 0);
  const strange = kernelLinesSince(mark).filter((line) => !/threads2|callbacks suppressed/.test(line));
  assertEquals(strange, []);
  assertEquals([await destroyDevice("threads2"), await destroyDevice("threads3")], [0, 0]);
  await sh(`rm ${image}`);
});
