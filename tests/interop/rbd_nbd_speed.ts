// SPDX-License-Identifier: MIT
/**
 * How fast an image of a Ceph cluster is where no block device is in between, on this machine itself: fio's own rbd engine, and
 * fio's NBD client at our server and at qemu-nbd, each with an image of its own, in turn. rbd_speed.ts has the disks under /dev,
 * for which the VM is needed, whose processor is emulated. Prints medians and ratios, and what a request costs the two servers'
 * processors. Before that each serves WARM_SECONDS of small requests. librbd's cache is off for fio's engine and qemu-nbd, as it
 * is for ours. No test, as a busy machine says nothing.
 *
 *     src/build/deno.sh run -A tests/interop/rbd_nbd_speed.ts [--rounds 5] [--seconds 3] [--only WORD]
 */
import { parseArgs } from "node:util";
import { Cluster, whyNoCeph } from "./ceph.ts";
import { fioAt, median, processorUs, RBD_JOBS } from "./speed.ts";
import { Background } from "./tools.ts";

const SIZE_BYTES = 128 * 2 ** 20;
const WARM_SECONDS = 15;
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "3" },
    only: { type: "string", default: "" },
  },
});
const why = whyNoCeph();
if (why !== undefined) {
  console.error(`Cannot measure: ${why}`);
  Deno.exit(1);
}
const dir = await Deno.makeTempDir({ dir: "/dev/shm" });
const conf = `${dir}/ceph.conf`;
const main = new URL("../../src/command/program.ts", import.meta.url).pathname;

const SERVERS: Readonly<Record<string, (socket: string) => readonly [string, readonly string[]]>> = {
  "dblock": (socket) => {
    const serve = ["serve", `rbd:rbd/dblock?conf=${conf}`, "--nbd", `unix:${socket}`];
    return [Deno.execPath(), ["run", "-A", "--no-check", main, ...serve]];
  },
  "qemu-nbd": (socket) => ["qemu-nbd", ["-t", "-f", "raw", "-e", "8", "-k", socket, `rbd:rbd/qemu-nbd:conf=${conf}`]],
};
const targets: Record<string, readonly string[]> = {
  "fio rbd": ["--ioengine=rbd", "--clientname=admin", "--pool=rbd", "--rbdname=fio"],
};

await using stack = new AsyncDisposableStack();
stack.defer(() => Deno.remove(dir, { recursive: true }));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  Deno.addSignalListener(signal, () => void stack.disposeAsync().finally(() => Deno.exit(1)));
}
const cluster = stack.use(await Cluster.start({ osds: 2 }));
await Deno.writeTextFile(conf, `${await Deno.readTextFile(cluster.conf)}[client]\nrbd cache = false\n`);
const env = { CEPH_CONF: conf }; // fio's engine has no option for it
await cluster.rbd("create", "fio", "--size", "128M");
const running = new Map<string, Background>();
for (const [name, command] of Object.entries(SERVERS)) {
  await cluster.rbd("create", name, "--size", "128M");
  const server = stack.use(new Background(...command(`${dir}/${name}`)));
  await server.listens(`${dir}/${name}`);
  running.set(name, server);
  targets[name] = ["--ioengine=nbd", `--uri=nbd+unix:///?socket=${dir}/${name}`];
}
for (const target of Object.values(targets)) {
  const amount = { seconds: WARM_SECONDS, sizeBytes: SIZE_BYTES };
  await fioAt(target, amount, ["--rw=write", "--bs=1M", "--iodepth=4"], env);
  await fioAt(target, amount, ["--rw=randrw", "--bs=4k", "--iodepth=32"], env);
}

const names = Object.keys(targets);
const servers = [...running.keys()];
console.log(
  `| requests/s, median of ${values.rounds} | ${names.join(" | ")} | dblock/fio | dblock/qemu-nbd | ` +
    `us of processor a request: ${servers.join(" | ")} |`,
);
console.log(`|${" --- |".repeat(3 + names.length + servers.length)}`);
for (const [title, job] of Object.entries(RBD_JOBS).filter(([title]) => title.includes(values.only))) {
  const speeds = new Map<string, number[]>(names.map((name) => [name, []]));
  const costs = new Map<string, number[]>(servers.map((name) => [name, []]));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const name of names) {
      const pid = running.get(name)?.pid;
      const before = pid === undefined ? 0 : processorUs(pid);
      const amount = { seconds: Number(values.seconds), sizeBytes: SIZE_BYTES };
      const { perSecond, requests } = await fioAt(targets[name]!, amount, job, env);
      speeds.get(name)!.push(perSecond);
      if (pid !== undefined) costs.get(name)!.push((processorUs(pid) - before) / requests);
    }
  }
  const of = (name: string) => median(speeds.get(name)!);
  const ratios = ["fio rbd", "qemu-nbd"].map((name) => (of("dblock") / of(name)).toFixed(2));
  const cost = servers.map((name) => median(costs.get(name)!).toFixed(0));
  console.log(`| ${[title, ...names.map((name) => Math.round(of(name))), ...ratios, ...cost].join(" | ")} |`);
}
await stack.disposeAsync();
Deno.exit(); // the listeners would keep the program
