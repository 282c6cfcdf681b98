/** The fio jobs of the bench. */
import { FIO_REPORT } from "../../src/command/fio.ts";

/** A load, as fio takes it. */
export interface Job {
  /** Its key in results.json and JOBS=. */
  readonly name: string;
  /** As the tables call it. */
  readonly title: string;
  readonly blockBytes: number;
  readonly args: string;
}

/** What every job has: no page cache, no file system, nothing remembered from the last run. */
export const commonArgs = "--ioengine=io_uring --direct=1 --time_based --norandommap --randrepeat=0 " +
  FIO_REPORT.join(" ");

/** Makes a job from what people say of it. */
export function job(name: string, title: string, blockBytes: number, args: string): Job {
  return { name, title, blockBytes, args: `--bs=${blockBytes} ${args}` };
}

/** The jobs of the first table, in its order. */
export const jobs: readonly Job[] = [
  job("r4k-qd1", "4k randread qd1", 4096, "--rw=randread --iodepth=1"),
  job("r4k-qd32", "4k randread qd32", 4096, "--rw=randread --iodepth=32"),
  job("w4k-qd32", "4k randwrite qd32", 4096, "--rw=randwrite --iodepth=32"),
  job("r128k-qd8", "128k read qd8", 131072, "--rw=read --iodepth=8"),
  job("w128k-qd8", "128k write qd8", 131072, "--rw=write --iodepth=8"),
  job("mix-qd32-2", "4k mix 70/30 qd32, 2 jobs", 4096, "--rw=randrw --rwmixread=70 --iodepth=32 --numjobs=2"),
  job("r4k-qd32-4", "4k randread qd32, 4 jobs", 4096, "--rw=randread --iodepth=32 --numjobs=4"),
  job("w4k-fsync8", "4k randwrite qd8, fsync/8", 4096, "--rw=randwrite --iodepth=8 --fsync=8"),
];

/** Of these it is counted what each request asks of the kernel: ledger.ts. */
export const ledgerJobs: readonly string[] = ["r4k-qd1", "r4k-qd32", "r128k-qd8", "w4k-fsync8"];
