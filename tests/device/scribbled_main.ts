/**
 * A server for queue_threads_test.ts that is not to be trusted: one of its threads writes over the whole ring all the
 * time, while another goes on serving. Its arguments are NAME and SEED. Prints a line when the disk is there; the end of
 * its input ends it, and it prints how many words it wrote. It may die before, as the kernel puts the data of a WRITE
 * wherever the ring says; its memory is where that is unlikely.
 */
import * as abi from "../../src/module/abi.ts";
import { TestDisk } from "./disk.ts";
import type { ThreadTask } from "./queue_threads_worker.ts";
import { done, MIB } from "./server.ts";
import { Memory } from "./syscall.ts";

/** What the disk is created with, by this server and the one after it. */
export const scribbledOptions = {
  size_bytes: 16 * MIB,
  on_death: abi.DBLOCK_ON_DEATH_FAIL,
  flags: abi.DBLOCK_DEVICE_DIRECT,
  timeout_ms: 1_000,
  queue_depth: 32,
};

/** Far from everything else: an address of which only one half is written over leads to the disk, or to nothing. */
const storeAddress = 0x1000_0000_0000;

if (import.meta.main) {
  const [name, seed] = Deno.args as [string, string];
  const disk = await TestDisk.start({
    ...scribbledOptions,
    name,
    store: new Memory(scribbledOptions.size_bytes, -1, storeAddress),
  });
  const { ring } = disk.queues[0]!;
  const stop = new SharedArrayBuffer(4);
  const worker = new Worker(new URL("./queue_threads_worker.ts", import.meta.url), { type: "module" });
  const scribbled = new Promise<number>((resolve) => {
    worker.onmessage = ({ data }: MessageEvent<{ result: number }>) => resolve(data.result);
  });
  // The ring says nonsense of the requests, too, but where the data is this server knows itself.
  disk.rule = (request) => {
    disk.seen.length = 0;
    return { ...done(request), address: disk.store.address };
  };
  // A fifth of the ring at a time: some of the answers arrive as they were meant.
  const burst = ring.bytes.length / 4 / 5;
  const { address, bytes: { length: bytes } } = ring;
  worker.postMessage({ kind: "scribble", address, bytes, stop, seed: Number(seed), burst } satisfies ThreadTask);
  // What was answered wrongly would keep its slot for ever: a queue that is attached anew is handed all of it again.
  setInterval(() => disk.queues[0]!.attach(), 20);
  console.log("served");
  await new Response(Deno.stdin.readable).text();
  Atomics.store(new Int32Array(stop), 0, 1);
  Atomics.notify(new Int32Array(stop), 0);
  console.log(await scribbled);
  // As kill does: what it has is not answered.
  Deno.exit(0);
}
