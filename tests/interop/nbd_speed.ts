// SPDX-License-Identifier: MIT
/**
 * How fast our NBD server is beside nbdkit's memory plugin and qemu-nbd: the same clients, the same size, all of them in memory,
 * one after the other in each round. Prints medians and ratios, and what a request costs the server's processor: a busy
 * machine changes the first, and hardly the second. No test, as a busy machine says nothing.
 *
 *     src/build/deno.sh run -A tests/interop/nbd_speed.ts [--rounds 5] [--seconds 2] [--only WORD]
 */
import { parseArgs } from "node:util";
import { fioJob, type Job, median, processorUs } from "./speed.ts";
import { Background, run } from "./tools.ts";

const SIZE_BYTES = 256 * 2 ** 20;
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "2" },
    only: { type: "string", default: "" },
  },
});
const dir = await Deno.makeTempDir({ dir: "/dev/shm" });
const main = new URL("nbd_memory_main.ts", import.meta.url).pathname;

const SERVERS: Readonly<Record<string, (socket: string) => readonly [string, readonly string[]]>> = {
  "ours": (socket) => [Deno.execPath(), ["run", "-A", "--no-check", main, socket, `${SIZE_BYTES}`]],
  "nbdkit": (socket) => ["nbdkit", ["-f", "-U", socket, "memory", `${SIZE_BYTES}`]],
  "qemu-nbd": (socket) => ["qemu-nbd", ["-t", "-f", "raw", "-e", "8", "-k", socket, `${dir}/disk`]],
};

const fio = (...job: string[]): Job => fioJob({ seconds: Number(values.seconds), sizeBytes: SIZE_BYTES }, job);

/** MiB per second of a whole copy; nbdcopy's requests are 256 KiB. */
function nbdcopy(...args: string[]): Job {
  return async (uri) => {
    const start = performance.now();
    await run("nbdcopy", args.map((arg) => arg === "URI" ? uri : arg));
    return { perSecond: SIZE_BYTES / 2 ** 20 / (performance.now() - start) * 1000, requests: SIZE_BYTES / 2 ** 18 };
  };
}

const JOBS: Readonly<Record<string, Job>> = {
  "4k read, depth 1": fio("--rw=randread", "--bs=4k", "--iodepth=1"),
  "4k write, depth 1": fio("--rw=randwrite", "--bs=4k", "--iodepth=1"),
  "4k read, depth 32": fio("--rw=randread", "--bs=4k", "--iodepth=32"),
  "4k write, depth 32": fio("--rw=randwrite", "--bs=4k", "--iodepth=32"),
  "4k 70/30, depth 32": fio("--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=32"),
  "128k read, depth 8": fio("--rw=randread", "--bs=128k", "--iodepth=8"),
  "128k write, depth 8": fio("--rw=randwrite", "--bs=128k", "--iodepth=8"),
  "4k read, depth 1, 4 connections": fio("--rw=randread", "--bs=4k", "--iodepth=1", "--numjobs=4"),
  "4k read, depth 32, 4 connections": fio("--rw=randread", "--bs=4k", "--iodepth=32", "--numjobs=4"),
  "128k read, depth 8, 4 connections": fio("--rw=randread", "--bs=128k", "--iodepth=8", "--numjobs=4"),
  "nbdcopy from, 1 connection (MiB/s)": nbdcopy("--connections=1", "URI", "null:"),
  "nbdcopy from, 4 connections (MiB/s)": nbdcopy("--connections=4", "URI", "null:"),
  "nbdcopy to, 1 connection (MiB/s)": nbdcopy("--connections=1", `${dir}/content`, "URI"),
  "nbdcopy to, 4 connections (MiB/s)": nbdcopy("--connections=4", `${dir}/content`, "URI"),
};

async function fill(path: string): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true });
  const piece = new Uint8Array(2 ** 20);
  for (let i = 0; i < piece.length; i++) piece[i] = i * 31 % 255 + 1;
  for (let done = 0; done < SIZE_BYTES; done += piece.length) await file.write(piece);
}

await fill(`${dir}/content`);
await fill(`${dir}/disk`);
/** Whatever happens, no server stays behind. */
await using stack = new AsyncDisposableStack();
stack.defer(() => Deno.remove(dir, { recursive: true }));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  Deno.addSignalListener(signal, () => void stack.disposeAsync().finally(() => Deno.exit(1)));
}
const running = new Map<string, Background>();
for (const [name, command] of Object.entries(SERVERS)) {
  const server = stack.use(new Background(...command(`${dir}/${name}`)));
  await server.listens(`${dir}/${name}`);
  // Every page is there before anything is measured.
  await run("nbdcopy", [`${dir}/content`, `nbd+unix:///?socket=${dir}/${name}`]);
  running.set(name, server);
}
const names = Object.keys(SERVERS);
console.log(
  `| requests/s, median of ${values.rounds} | ${names.join(" | ")} | ours/nbdkit | ours/qemu-nbd | ` +
    `us of processor a request: ${names.join(" | ")} |`,
);
console.log(`|${" --- |".repeat(3 + 2 * names.length)}`);
for (const [title, job] of Object.entries(JOBS).filter(([title]) => title.includes(values.only))) {
  const speeds = new Map<string, number[]>(names.map((name) => [name, []]));
  const costs = new Map<string, number[]>(names.map((name) => [name, []]));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const name of names) {
      const { pid } = running.get(name)!;
      const before = processorUs(pid);
      const { perSecond, requests } = await job(`nbd+unix:///?socket=${dir}/${name}`);
      speeds.get(name)!.push(perSecond);
      costs.get(name)!.push((processorUs(pid) - before) / requests);
    }
  }
  const of = (name: string) => median(speeds.get(name)!);
  const ratios = ["nbdkit", "qemu-nbd"].map((name) => (of("ours") / of(name)).toFixed(2));
  const cost = names.map((name) => median(costs.get(name)!).toFixed(1));
  console.log(`| ${title} | ${[...names.map((name) => Math.round(of(name))), ...ratios, ...cost].join(" | ")} |`);
}
await stack.disposeAsync();
Deno.exit(); // the listeners would keep the program
