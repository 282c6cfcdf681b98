// SPDX-License-Identifier: MIT
/**
 * What `--metrics` costs a server: the same disk in memory served over NBD by two processes, one of which counts and is asked for
 * its figures each second, the same clients at them in turn. Prints medians, their ratio, and what a request costs the server's
 * processor. No test, as a busy machine says nothing.
 *
 *     src/build/deno.sh run -A tests/interop/metrics_cost.ts [--rounds 9] [--seconds 2]
 */
import { parseArgs } from "node:util";
import { fioJob, median, processorUs } from "./speed.ts";
import { Background, run } from "./tools.ts";

const SIZE_BYTES = 256 * 2 ** 20;
const SCRAPE_MS = 1_000;
const { values } = parseArgs({
  options: { rounds: { type: "string", default: "9" }, seconds: { type: "string", default: "2" } },
});
const program = new URL("../../src/command/main.ts", import.meta.url).pathname;
const JOBS: Readonly<Record<string, readonly string[]>> = {
  "4k read, depth 1": ["--rw=randread", "--bs=4k", "--iodepth=1"],
  "4k read, depth 32": ["--rw=randread", "--bs=4k", "--iodepth=32"],
  "4k write, depth 32": ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
  "4k read, depth 32, 4 connections": ["--rw=randread", "--bs=4k", "--iodepth=32", "--numjobs=4"],
  "128k read, depth 8": ["--rw=randread", "--bs=128k", "--iodepth=8"],
};

await using stack = new AsyncDisposableStack();
const dir = await Deno.makeTempDir({ dir: "/dev/shm" });
stack.defer(() => Deno.remove(dir, { recursive: true }));

async function start(name: string, ...more: string[]): Promise<{ readonly pid: number; readonly uri: string }> {
  const disk = ["serve", `memory:${SIZE_BYTES}`, "--nbd", `unix:${dir}/${name}`, ...more];
  const server = stack.use(new Background(Deno.execPath(), ["run", "-A", "--no-check", program, ...disk]));
  await server.listens(`${dir}/${name}`);
  return { pid: server.pid, uri: `nbd+unix:///?socket=${dir}/${name}` };
}

const plain = await start("plain");
const counting = await start("counting", "--metrics", `unix:${dir}/metrics`);
const scrape = () => run("curl", ["-sS", "--fail", "--unix-socket", `${dir}/metrics`, "http://localhost/metrics"]);
const timer = setInterval(() => void scrape().catch(() => {}), SCRAPE_MS);
await scrape();

console.log("| requests/s, median | without | with --metrics | ratio | us of processor a request: without | with |");
console.log(`|${" --- |".repeat(6)}`);
for (const [title, words] of Object.entries(JOBS)) {
  const job = fioJob({ seconds: Number(values.seconds), sizeBytes: SIZE_BYTES }, words);
  const [speeds, costs]: [number[][], number[][]] = [[[], []], [[], []]];
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [i, { pid, uri }] of [plain, counting].entries()) {
      const before = processorUs(pid);
      const { perSecond, requests } = await job(uri);
      speeds[i]!.push(perSecond);
      costs[i]!.push((processorUs(pid) - before) / requests);
    }
  }
  const [without, counted] = speeds.map(median) as [number, number];
  const us = costs.map((one) => median(one).toFixed(2));
  console.log(
    `| ${title} | ${[Math.round(without), Math.round(counted), (counted / without).toFixed(3), ...us].join(" | ")} |`,
  );
}
clearInterval(timer);
