/** Disks that dblock has nothing to do with, set up as their manuals have it. Runs inside the VM. */
import { exists, hasModule, sh, waitFor } from "../device/harness.ts";
import type { DiskSpec, ForeignKind } from "./disks.ts";
import { ublkServerPath } from "./plan.ts";
import { Absent, type RunningDisk } from "./running.ts";

type Starter = (sizeMiB: number, processors: number) => Promise<{ path: string; end: string }>;

const modules: Readonly<Record<ForeignKind, string>> = {
  brd: "brd",
  null_blk: "null_blk",
  loop: "loop",
  nbdkit: "nbd",
  ublk: "ublk_drv",
};

/** Makes the disk. */
export async function startForeign(spec: DiskSpec & { readonly kind: ForeignKind }): Promise<RunningDisk> {
  if (!hasModule(modules[spec.kind])) throw new Absent(`the kernel has no module ${modules[spec.kind]}`);
  const { path, end } = await starters[spec.kind](spec.sizeMiB, navigator.hardwareConcurrency);
  await waitFor(`${path} is there`, () => exists(path));
  return {
    paths: [path],
    dblockNames: [],
    async [Symbol.asyncDispose]() {
      await sh(end);
    },
  };
}

const starters: Readonly<Record<ForeignKind, Starter>> = {
  async brd(sizeMiB) {
    await sh(`modprobe brd rd_nr=1 rd_size=${sizeMiB * 1024} max_part=0`);
    return { path: "/dev/ram0", end: "modprobe -r brd" };
  },

  async null_blk(sizeMiB, processors) {
    await sh(`
      modprobe null_blk nr_devices=0
      mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
      cd /sys/kernel/config/nullb && mkdir nullb0 && cd nullb0
      echo ${sizeMiB} > size
      echo ${processors} > submit_queues
      echo 128 > hw_queue_depth
      echo 1 > memory_backed
      echo 1 > power`);
    return { path: "/dev/nullb0", end: "rmdir /sys/kernel/config/nullb/nullb0; modprobe -r null_blk" };
  },

  async loop(sizeMiB) {
    const file = "/dev/shm/bench-loop";
    await sh(`modprobe loop && truncate -s ${sizeMiB}M ${file} && losetup /dev/loop0 ${file}`);
    return { path: "/dev/loop0", end: `losetup -d /dev/loop0; rm ${file}` };
  },

  async nbdkit(sizeMiB, processors) {
    const socket = "/run/bench-nbdkit";
    await sh(`
      modprobe nbd nbds_max=1
      nbdkit --unix=${socket} --pidfile=${socket}.pid --threads=16 memory ${sizeMiB}M
      nbd-client -unix ${socket} /dev/nbd0 -connections ${processors} >${socket}.log 2>&1 ||
        { cat ${socket}.log; exit 1; }`);
    return { path: "/dev/nbd0", end: `nbd-client -d /dev/nbd0; kill $(cat ${socket}.pid); modprobe -r nbd` };
  },

  async ublk(sizeMiB, processors) {
    await sh("modprobe ublk_drv");
    await Deno.chmod(ublkServerPath, 0o755);
    const child = new Deno.Command(ublkServerPath, {
      args: [String(sizeMiB), String(processors)],
      stdin: "null",
      stdout: "null",
    }).spawn();
    child.unref();
    return { path: "/dev/ublkb0", end: `kill -KILL ${child.pid}; ${ublkServerPath}; modprobe -r ublk_drv` };
  },
};
