// SPDX-License-Identifier: MIT
/**
 * In the VM of rbd_vm.ts: how fast an image is as a disk of ours, by rbd-nbd, and by fio's own rbd engine, each with an image of
 * its own in one cluster, in turn. Prints medians and ratios. No test, as a busy machine says nothing.
 *
 *     src/build/deno.sh run -A tests/interop/rbd_speed.ts [ROUNDS] [SECONDS]
 */
import { fio } from "../device/fio.ts";
import { sh } from "../device/harness.ts";
import { destroyDevice } from "../device/server.ts";
import { Serving } from "../device/serving.ts";

const [control = "", roundsWord = "5", seconds = "3"] = Deno.args;
const rounds = Number(roundsWord);

const TARGETS: Readonly<Record<string, string>> = {
  "dblock": "--ioengine=libaio --direct=1 --filename=/dev/rbd0",
  "rbd-nbd": "--ioengine=libaio --direct=1 --filename=/dev/nbd0",
  "fio rbd": "--ioengine=rbd --clientname=admin --pool=rbd --rbdname=fio",
};

const JOBS: Readonly<Record<string, string>> = {
  "4k read, depth 1": "--rw=randread --bs=4k --iodepth=1",
  "4k write, depth 1": "--rw=randwrite --bs=4k --iodepth=1",
  "4k read, depth 32": "--rw=randread --bs=4k --iodepth=32",
  "4k write, depth 32": "--rw=randwrite --bs=4k --iodepth=32",
  "128k read, depth 8": "--rw=randread --bs=128k --iodepth=8",
  "128k write, depth 8": "--rw=randwrite --bs=128k --iodepth=8",
};

async function run(target: string, job: string): Promise<number> {
  const { status, jobs, stderr } = await fio(`--name=x ${target} --size=128M ${job}`, { timeoutMs: 300_000 });
  if (status !== 0) throw new Error(`fio ${target} ${job} ended with ${status}: ${stderr}`);
  return jobs.reduce((sum, { read, write }) => sum + read.iops + write.iops, 0);
}

/** The middle one of numbers. */
function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
}

Deno.env.set("CEPH_CONF", "/ceph.conf");
await sh("insmod kmod/dblock.ko && modprobe nbd && mkdir -p /var/run/ceph");
for (const image of ["ours", "nbd", "fio"]) await fetch(`${control}/create/${image}`, { method: "POST" });
const server = await Serving.start(["serve", "rbd:rbd/ours?conf=/ceph.conf", "--name", "rbd0", "--timeout", "0"]);
await sh("rbd-nbd map rbd/nbd --device /dev/nbd0");
for (const target of Object.values(TARGETS)) await run(target, "--rw=write --bs=1M --iodepth=4");

const names = Object.keys(TARGETS);
console.log(`| requests/s, median of ${rounds} | ${names.join(" | ")} | dblock/rbd-nbd | dblock/fio |`);
console.log(`|${" --- |".repeat(3 + names.length)}`);
for (const [title, job] of Object.entries(JOBS)) {
  const speeds = new Map<string, number[]>(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const name of names) {
      speeds.get(name)!.push(await run(TARGETS[name]!, `${job} --time_based --runtime=${seconds}`));
    }
  }
  const [ours, nbd, direct] = names.map((name) => median(speeds.get(name)!)) as [number, number, number];
  const spread = names.map((name) => {
    const all = speeds.get(name)!;
    return `${Math.round(median(all))} (${Math.round(Math.min(...all))} to ${Math.round(Math.max(...all))})`;
  });
  console.log(`| ${title} | ${spread.join(" | ")} | ${(ours / nbd).toFixed(2)} | ${(ours / direct).toFixed(2)} |`);
}
await sh("rbd-nbd unmap /dev/nbd0");
await destroyDevice("rbd0");
await server.child.status;
Deno.exit(0);
