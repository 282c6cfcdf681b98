/** Disks that dblock has nothing to do with, set up as their manuals have it. Runs inside the VM. */
import { exists, hasModule, sh, waitFor } from "../device/harness.ts";
import type { DiskSpec, ForeignKind } from "./disks.ts";
import { ublkServerPath } from "./plan.ts";
import { Absent, type RunningDisk } from "./running.ts";
import { scratchFolder } from "./scratch.ts";

/** Makes `count` disks of a kind; `end` is the command that removes them. */
type Starter = (
  sizeMiB: number,
  queues: number,
  count: number,
) => Promise<{ readonly paths: readonly string[]; readonly end: string }>;

const modules: Readonly<Record<ForeignKind, string>> = {
  brd: "brd",
  null_blk: "null_blk",
  loop: "loop",
  nbdkit: "nbd",
  ublk: "ublk_drv",
  "loop-disk": "loop",
};

/** Makes the disk. */
export async function startForeign(spec: DiskSpec & { readonly kind: ForeignKind }): Promise<RunningDisk> {
  if (!hasModule(modules[spec.kind])) throw new Absent(`the kernel has no module ${modules[spec.kind]}`);
  const { sizeMiB, queues = navigator.hardwareConcurrency, count = 1 } = spec;
  const { paths, end } = await starters[spec.kind](sizeMiB, queues, count);
  if (paths.length !== count) throw new Error(`${spec.kind}: ${paths.length} disks instead of ${count}`);
  await waitFor(`${paths.join(", ")} are there`, () => paths.every(exists));
  return {
    paths,
    dblockNames: [],
    async [Symbol.asyncDispose]() {
      await sh(end);
    },
  };
}

const starters: Readonly<Record<ForeignKind, Starter>> = {
  async brd(sizeMiB, _queues, count) {
    await sh(`modprobe brd rd_nr=${count} rd_size=${sizeMiB * 1024} max_part=0`);
    return { paths: numbered("/dev/ram", count), end: "modprobe -r brd" };
  },

  async null_blk(sizeMiB, queues) {
    await sh(`
      modprobe null_blk nr_devices=0
      mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
      cd /sys/kernel/config/nullb && mkdir nullb0 && cd nullb0
      echo ${sizeMiB} > size
      echo ${queues} > submit_queues
      echo 128 > hw_queue_depth
      echo 1 > memory_backed
      echo 1 > power`);
    return { paths: ["/dev/nullb0"], end: "rmdir /sys/kernel/config/nullb/nullb0; modprobe -r null_blk" };
  },

  async loop(sizeMiB) {
    const file = "/dev/shm/bench-loop";
    await sh(`modprobe loop && truncate -s ${sizeMiB}M ${file} && losetup /dev/loop0 ${file}`);
    return { paths: ["/dev/loop0"], end: `losetup -d /dev/loop0; rm ${file}` };
  },

  async nbdkit(sizeMiB, queues) {
    const socket = "/run/bench-nbdkit";
    await sh(`
      modprobe nbd nbds_max=1
      nbdkit --unix=${socket} --pidfile=${socket}.pid --threads=16 memory ${sizeMiB}M
      nbd-client -unix ${socket} /dev/nbd0 -connections ${queues} >${socket}.log 2>&1 ||
        { cat ${socket}.log; exit 1; }`);
    return { paths: ["/dev/nbd0"], end: `nbd-client -d /dev/nbd0; kill $(cat ${socket}.pid); modprobe -r nbd` };
  },

  async ublk(sizeMiB, queues, count) {
    await sh("modprobe ublk_drv");
    await Deno.chmod(ublkServerPath, 0o755);
    const ends = Array.from({ length: count }, (_, id) => {
      const args = [String(id), String(sizeMiB), String(queues)];
      const child = new Deno.Command(ublkServerPath, { args, stdin: "null", stdout: "null" }).spawn();
      child.unref();
      return `kill -KILL ${child.pid}; ${ublkServerPath} ${id}`;
    });
    return { paths: numbered("/dev/ublkb", count), end: [...ends, "modprobe -r ublk_drv"].join("; ") };
  },

  async "loop-disk"(sizeMiB) {
    const file = `${await scratchFolder()}/loop`;
    await sh(`modprobe loop && truncate -s ${sizeMiB}M ${file} && losetup --direct-io=on /dev/loop1 ${file}`);
    return { paths: ["/dev/loop1"], end: `losetup -d /dev/loop1; rm ${file}` };
  },
};

function numbered(path: string, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `${path}${i}`);
}
