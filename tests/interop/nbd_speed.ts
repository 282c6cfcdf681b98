// SPDX-License-Identifier: MIT
/**
 * How fast our NBD server is beside nbdkit's memory plugin and qemu-nbd: the same fio, the same size, all of them in memory, one
 * after the other in each round. Prints medians and ratios; no test, as a busy machine says nothing.
 *
 *     src/build/deno.sh run -A tests/interop/nbd_speed.ts [--rounds 5] [--seconds 2]
 */
import { parseArgs } from "node:util";
import { Background, run } from "./tools.ts";

const SIZE_BYTES = 256 * 2 ** 20;
const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "2" } },
});
const dir = await Deno.makeTempDir({ dir: "/dev/shm" });
const main = new URL("nbd_memory_main.ts", import.meta.url).pathname;
await Deno.writeFile(`${dir}/disk`, new Uint8Array(0));
await Deno.truncate(`${dir}/disk`, SIZE_BYTES);

const SERVERS: Readonly<Record<string, (socket: string) => readonly [string, readonly string[]]>> = {
  "ours": (socket) => [Deno.execPath(), ["run", "-A", "--no-check", main, socket, `${SIZE_BYTES}`]],
  "nbdkit": (socket) => ["nbdkit", ["-f", "-U", socket, "memory", `${SIZE_BYTES}`]],
  "qemu-nbd": (socket) => ["qemu-nbd", ["-t", "-f", "raw", "-e", "8", "-k", socket, `${dir}/disk`]],
};
const JOBS: Readonly<Record<string, readonly string[]>> = {
  "4k read qd1": ["--rw=randread", "--bs=4k", "--iodepth=1"],
  "4k read qd32": ["--rw=randread", "--bs=4k", "--iodepth=32"],
  "4k write qd32": ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
  "4k 70/30 qd32": ["--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=32"],
  "128k read qd8": ["--rw=randread", "--bs=128k", "--iodepth=8"],
  "128k write qd8": ["--rw=randwrite", "--bs=128k", "--iodepth=8"],
  "4k read qd32 x4": ["--rw=randread", "--bs=4k", "--iodepth=32", "--numjobs=4"],
};

async function measure(socket: string, job: readonly string[]): Promise<number> {
  const how = [`--runtime=${values.seconds}`, "--time_based", `--size=${SIZE_BYTES}`, "--group_reporting"];
  const uri = `--uri=nbd+unix:///?socket=${socket}`;
  const said = await run("fio", ["--name=x", "--ioengine=nbd", uri, ...how, ...job, "--output-format=json"]);
  const { jobs: [{ read, write }] } = JSON.parse(said.slice(said.indexOf("{\n")));
  return read.iops + write.iops;
}

const median = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
const running: Background[] = [];
for (const [name, command] of Object.entries(SERVERS)) {
  const server = new Background(...command(`${dir}/${name}`));
  await server.listens(`${dir}/${name}`);
  // Every page is there before anything is measured.
  await run("nbdcopy", ["--allocated", `${dir}/disk`, `nbd+unix:///?socket=${dir}/${name}`]).catch(() => "");
  running.push(server);
}
console.log(
  `| requests/s, median of ${values.rounds} | ${Object.keys(SERVERS).join(" | ")} | ours/nbdkit | ours/qemu-nbd |`,
);
console.log("| --- | --- | --- | --- | --- | --- |");
for (const [title, job] of Object.entries(JOBS)) {
  const results = new Map<string, number[]>();
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const name of Object.keys(SERVERS)) {
      results.set(name, [...results.get(name) ?? [], await measure(`${dir}/${name}`, job)]);
    }
  }
  const of = (name: string) => median(results.get(name)!);
  const cells = Object.keys(SERVERS).map((name) => Math.round(of(name)));
  const ratios = ["nbdkit", "qemu-nbd"].map((name) => (of("ours") / of(name)).toFixed(2));
  console.log(`| ${title} | ${[...cells, ...ratios].join(" | ")} |`);
}
for (const server of running) await server[Symbol.asyncDispose]();
await Deno.remove(dir, { recursive: true });
