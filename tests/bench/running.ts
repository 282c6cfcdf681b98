/** A disk that is there, whoever made it: what the bench needs to use it, fill it and end it. */
import { exists, sh } from "../device/harness.ts";
import type { DiskFacts } from "./plan.ts";

/** Disks of one spec, ready for fio. */
export interface RunningDisk extends AsyncDisposable {
  readonly paths: readonly string[];
  /** Names under /sys/block with counters of dblock. */
  readonly dblockNames: readonly string[];
}

/** Why a disk cannot be had here; not an error of the bench. */
export class Absent extends Error {}

/** Writes all of each disk once, so that no job measures the first touch of memory. */
export async function fill(disk: RunningDisk): Promise<void> {
  for (const path of disk.paths) {
    const { stderr } = await sh(`dd if=/dev/zero of=${path} bs=1M oflag=direct`, { check: false, timeoutMs: 120_000 });
    // dd knows the end of a disk only from running into it.
    if (!stderr.includes("No space left on device")) {
      throw new Error(`dd did not come to the end of ${path}: ${stderr}`);
    }
  }
}

/** What the block layer made of a disk. A driver without request queues, such as brd, has neither. */
export function factsOf(path: string): DiskFacts {
  const block = `/sys/block/${path.replace("/dev/", "")}`;
  if (!exists(`${block}/mq`)) return { queues: 0, scheduler: "none" };
  const schedulers = Deno.readTextFileSync(`${block}/queue/scheduler`).trim();
  return {
    queues: [...Deno.readDirSync(`${block}/mq`)].length,
    scheduler: /\[(.*)\]/.exec(schedulers)?.[1] ?? schedulers,
  };
}
