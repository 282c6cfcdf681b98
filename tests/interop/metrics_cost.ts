// SPDX-License-Identifier: MIT
/**
 * What figures cost a server: a disk in memory served over NBD, and a client at it while it counts for 200 ms, does not for 200 ms,
 * and so on; then the same of a server with `--metrics`, which is asked for them once in 400 ms. Two processes of one program differ
 * by more than that, as do two seconds of one process: so what fio did in pieces of 50 ms of one run is compared. Prints medians of
 * rounds with new processes, and what the same makes of nothing: of a server that is left alone. No test, as a busy machine says
 * nothing. For root, as is the folder where servers are asked.
 *
 *     src/build/deno.sh run -A tests/interop/metrics_cost.ts [--rounds 7] [--seconds 3] [--only "depth 1"] [--program FILE]
 */
import { parseArgs } from "node:util";
import { ask, serverName } from "../../src/command/run_folder.ts";
import { median } from "./speed.ts";
import { Background, run } from "./tools.ts";

const SIZE_BYTES = 256 * 2 ** 20;
/** It counts for so long, and then does not for as long. */
const HALF_MS = 200;
const PIECE_MS = 50;
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    seconds: { type: "string", default: "3" },
    only: { type: "string", default: "" },
    verbose: { type: "boolean", default: false },
    program: { type: "string", default: new URL("../../src/command/main.ts", import.meta.url).pathname },
  },
});
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
let started = 0;

/** A server of the disk, at its NBD socket; all of its memory is there. */
async function start(...more: string[]): Promise<{ readonly process: Background; readonly uri: string }> {
  const socket = `${dir}/${started++}`;
  const words = ["serve", `memory:${SIZE_BYTES}`, "--nbd", `unix:${socket}`, ...more];
  const process = new Background(Deno.execPath(), ["run", "-A", "--no-check", values.program, ...words]);
  await process.listens(socket);
  const uri = `nbd+unix:///?socket=${socket}`;
  await run("fio", [...fioWords(uri), "--rw=write", "--bs=1m"]);
  return { process, uri };
}

function fioWords(uri: string): readonly string[] {
  return ["--name=x", "--ioengine=nbd", `--uri=${uri}`, `--size=${SIZE_BYTES}`];
}

/** What fio did until a moment since the one before, by the machine's clock. */
interface Piece {
  readonly endMs: number;
  readonly perSecond: number;
}

/** Runs fio for so long. */
async function pieces(uri: string, words: readonly string[]): Promise<Piece[]> {
  const log = `${dir}/log`;
  const written = [`--write_iops_log=${log}`, `--log_avg_msec=${PIECE_MS}`, "--log_unix_epoch=1"];
  await run("fio", [...fioWords(uri), `--runtime=${values.seconds}`, "--time_based", ...words, ...written]);
  const found: Piece[] = [];
  for (const { name } of [...Deno.readDirSync(dir)].filter(({ name }) => name.startsWith("log_iops"))) {
    for (const line of (await Deno.readTextFile(`${dir}/${name}`)).trim().split("\n")) {
      const [endMs, perSecond] = line.split(",").map(Number) as [number, number];
      found.push({ endMs, perSecond });
    }
    await Deno.remove(`${dir}/${name}`);
  }
  return found;
}

/**
 * Does something once in two halves while fio runs.
 *
 * @returns the speed in the halves with it, as a part of that in those without
 */
async function ratioOf(uri: string, words: readonly string[], act: () => Promise<void>): Promise<number> {
  const begun: number[] = [];
  let isOver = false;
  const acting = (async () => {
    await new Promise((resolve) => setTimeout(resolve, 2 * HALF_MS)); // fio starts
    while (!isOver) {
      const beganMs = Date.now();
      begun.push(beganMs);
      await act();
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, beganMs + 2 * HALF_MS - Date.now())));
    }
  })();
  const all = await pieces(uri, words);
  isOver = true;
  await acting;
  const [on, off] = [[] as number[], [] as number[]];
  for (const { endMs, perSecond } of all) {
    const beganMs = begun.findLast((one) => one <= endMs);
    if (beganMs === undefined) continue;
    const sinceMs = endMs - beganMs;
    if (sinceMs >= PIECE_MS && sinceMs <= HALF_MS) on.push(perSecond);
    else if (sinceMs >= HALF_MS + PIECE_MS && sinceMs <= 2 * HALF_MS) off.push(perSecond);
  }
  const mean = (numbers: readonly number[]) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;
  if (values.verbose) console.error(`${mean(on).toFixed(0)} ${mean(off).toFixed(0)} of ${on.length} and ${off.length}`);
  return mean(on) / mean(off);
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

const jobs = Object.entries(JOBS).filter(([title]) => title.includes(values.only)).map(([title, words]) => ({
  title,
  words,
  nothing: [] as number[],
  counting: [] as number[],
  asked: [] as number[],
}));
for (let round = 0; round < Number(values.rounds); round++) {
  {
    const { process, uri } = await start();
    await using _server = process;
    const counts = async () => {
      await ask(serverName(process.pid), { ask: "figures", forMs: HALF_MS }, "Cannot ask for figures");
    };
    for (const { words, nothing, counting } of jobs) {
      counting.push(await ratioOf(uri, words, counts));
      nothing.push(await ratioOf(uri, words, () => Promise.resolve()));
    }
  }
  const port = freePort();
  const { process, uri } = await start("--metrics", `127.0.0.1:${port}`);
  await using _server = process;
  const asks = async () => {
    // Over a connection that stays, as Prometheus does.
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    if (!/^dblock_reads_completed_total\{/m.test(text)) throw new Error(`the server says: ${text}`);
  };
  for (const { words, asked } of jobs) asked.push(await ratioOf(uri, words, asks));
}

console.log(
  `| requests/s, median of ${values.rounds}, as a part of those without | counting | least to most | asked once in ${HALF_MS} ms | ` +
    "counting, and asked once in a second | nothing | least to most |",
);
console.log(`|${" --- |".repeat(7)}`);
for (const { title, nothing, counting, asked } of jobs) {
  const spread = (all: readonly number[]) =>
    [Math.min(...all), Math.max(...all)].map((one) => one.toFixed(3)).join(" to ");
  const perSecond = 1 - (1 - median(asked)) * HALF_MS / 1000;
  const cells = [
    median(counting).toFixed(3),
    spread(counting),
    median(asked).toFixed(3),
    (median(counting) * perSecond).toFixed(3),
    median(nothing).toFixed(3),
    spread(nothing),
  ];
  console.log(`| ${title} | ${cells.join(" | ")} |`);
}
