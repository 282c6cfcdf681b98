// SPDX-License-Identifier: MIT
/**
 * In the VM of rbd_vm.ts: how fast an image is as a disk of ours, by rbd-nbd, and by fio's own rbd engine, each with an image of
 * its own in one cluster, in turn. Prints medians and ratios, and what a request costs the two servers, in us of processor time:
 * librbd's threads, and the rest, which is ours or rbd-nbd's. Before that each serves WARM_SECONDS of small requests: a server
 * lives for weeks, and JavaScript is compiled as it runs. fio's engine is without librbd's cache, with which it would answer
 * writes that the cluster does not have; rbd-nbd has the cache and writes through it, as nobody flushes.
 *
 * No test, as a busy machine says nothing.
 *
 *     src/build/deno.sh run -A tests/interop/rbd_speed.ts [ROUNDS] [SECONDS]
 */
import { fio } from "../device/fio.ts";
import { sh } from "../device/harness.ts";
import { destroyDevice } from "../device/server.ts";
import { Serving } from "../device/serving.ts";
import { median, RBD_JOBS } from "./speed.ts";
import { ThreadTimes } from "./thread_times.ts";

const [control = "", roundsWord = "5", seconds = "3"] = Deno.args;
const rounds = Number(roundsWord);

const TARGETS: Readonly<Record<string, string>> = {
  "dblock": "--ioengine=libaio --direct=1 --filename=/dev/rbd0",
  "rbd-nbd": "--ioengine=libaio --direct=1 --filename=/dev/nbd0",
  "fio rbd": "--ioengine=rbd --clientname=admin --pool=rbd --rbdname=fio",
};

const WARM_SECONDS = 15;

/** librbd's and librados' threads. */
const LIBRBD = /^(?:msgr-worker|io_context_pool|safe_timer|ceph_timer|ms_|log$|service$|fn|tp_|taskfin)/;

/** Requests per second, and how many there were. */
interface Rate {
  readonly perSecond: number;
  readonly count: number;
}

async function run(target: string, job: string): Promise<Rate> {
  const { status, jobs, stderr } = await fio(`--name=x ${target} --size=128M ${job}`, { timeoutMs: 300_000 });
  if (status !== 0) throw new Error(`fio ${target} ${job} ended with ${status}: ${stderr}`);
  const perSecond = jobs.reduce((sum, { read, write }) => sum + read.iops + write.iops, 0);
  return { perSecond, count: jobs.reduce((sum, { read, write }) => sum + read.total_ios + write.total_ios, 0) };
}

/** Microseconds of processor time a request, of librbd's threads and of all others of a server. */
function perRequest(spent: ReadonlyMap<string, number>, count: number): string {
  let [librbd, rest] = [0, 0];
  for (const [thread, ns] of spent) {
    if (LIBRBD.test(thread)) librbd += ns;
    else rest += ns;
  }
  return `${Math.round(librbd / count / 1000)} + ${Math.round(rest / count / 1000)}`;
}

Deno.writeTextFileSync("/direct.conf", `${Deno.readTextFileSync("/ceph.conf")}rbd cache = false\n`);
Deno.env.set("CEPH_CONF", "/direct.conf"); // fio's engine has no option for it
await sh("insmod kmod/dblock.ko && modprobe nbd && mkdir -p /var/run/ceph");
for (const image of ["ours", "nbd", "fio"]) await fetch(`${control}/create/${image}`, { method: "POST" });
const server = await Serving.start(["serve", "rbd:rbd/ours?conf=/ceph.conf", "--name", "rbd0", "--timeout", "0"]);
await sh("rbd-nbd --conf /ceph.conf map rbd/nbd --device /dev/nbd0");
const servers: Readonly<Record<string, number>> = {
  "dblock": server.child.pid,
  "rbd-nbd": Number((await sh("pgrep -n rbd-nbd")).stdout),
};
for (const target of Object.values(TARGETS)) {
  await run(target, "--rw=write --bs=1M --iodepth=4");
  await run(target, `--rw=randrw --bs=4k --iodepth=32 --time_based --runtime=${WARM_SECONDS}`);
}

const names = Object.keys(TARGETS);
console.log(
  `| requests/s, median of ${rounds} | ${
    names.join(" | ")
  } | dblock/rbd-nbd | dblock/fio | us in dblock | in rbd-nbd |`,
);
console.log(`|${" --- |".repeat(5 + names.length)}`);
for (const [title, job] of Object.entries(RBD_JOBS)) {
  const speeds = new Map<string, number[]>(names.map((name) => [name, []]));
  const counts = new Map<string, number>(names.map((name) => [name, 0]));
  const times = new Map(Object.entries(servers).map(([name, pid]) => [name, new ThreadTimes(pid)]));
  for (let round = 0; round < rounds; round++) {
    for (const name of names) {
      const began = times.get(name)?.now();
      const { perSecond, count } = await run(TARGETS[name]!, `${job.join(" ")} --time_based --runtime=${seconds}`);
      if (began !== undefined) times.get(name)!.addSince(began);
      speeds.get(name)!.push(perSecond);
      counts.set(name, counts.get(name)! + count);
    }
  }
  const [ours, nbd, direct] = names.map((name) => median(speeds.get(name)!)) as [number, number, number];
  const spread = names.map((name) => {
    const all = speeds.get(name)!;
    return `${Math.round(median(all))} (${Math.round(Math.min(...all))} to ${Math.round(Math.max(...all))})`;
  });
  const costs = Object.keys(servers).map((name) => perRequest(times.get(name)!.spent, counts.get(name)!));
  const ratios = [ours / nbd, ours / direct].map((ratio) => ratio.toFixed(2));
  console.log(`| ${[title, ...spread, ...ratios, ...costs].join(" | ")} |`);
}
await sh("rbd-nbd unmap /dev/nbd0");
await destroyDevice("rbd0");
await server.child.status;
Deno.exit(0);
