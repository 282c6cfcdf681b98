/** A file system on a disk of the VM's own, for disks whose store is a file on one. Runs inside the VM. */
import { sh } from "../device/harness.ts";
import { scratchSerial } from "./plan.ts";
import { Absent } from "./running.ts";

const folder = "/mnt/bench-scratch";
let mounted: Promise<unknown> | undefined;

/** Where it is mounted. Made the first time. */
export async function scratchFolder(): Promise<string> {
  await (mounted ??= sh(`mkfs.ext4 -q ${device()} && mkdir -p ${folder} && mount ${device()} ${folder}`));
  return folder;
}

function device(): string {
  for (const { name } of Deno.readDirSync("/sys/block")) {
    if (serialOf(name) === scratchSerial) return `/dev/${name}`;
  }
  throw new Absent("the VM has no disk to write to");
}

function serialOf(disk: string): string | undefined {
  try {
    return Deno.readTextFileSync(`/sys/block/${disk}/serial`).trim();
  } catch {
    return undefined; // only virtio's disks have one
  }
}
