/** One process of fuzz_test.ts: starts the threads that fuzz the same files, and prints what came of it. */
import type { FuzzTask, Tally } from "./fuzz_worker.ts";
import { O_DIRECT, O_RDWR, open } from "./syscall.ts";

const [seed, calls, threads] = Deno.args.map(Number) as [number, number, number];
const content = open(Deno.args[3]!, O_RDWR | O_DIRECT);
const fds = [open("/dev/dblockctl", O_RDWR), ...Array.from({ length: 8 }, () => open("/dev/null", O_RDWR))];

async function fuzz(thread: number): Promise<Tally> {
  const worker = new Worker(new URL("./fuzz_worker.ts", import.meta.url), { type: "module" });
  const tally = new Promise<Tally>((resolve, reject) => {
    worker.onmessage = (event: MessageEvent<Tally>) => resolve(event.data);
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.postMessage({ seed: seed * 1000 + thread, calls, fds, content } satisfies FuzzTask);
  return await tally;
}

console.log(JSON.stringify(await Promise.all(Array.from({ length: threads }, (_, thread) => fuzz(thread)))));
Deno.exit(0);
