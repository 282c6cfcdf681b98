/** fio in a process of its own, and what it measured and complained of. */
import { sh } from "./harness.ts";

/** The part of a job's JSON that tests look at. */
interface Direction {
  readonly total_ios: number;
  readonly io_bytes: number;
  /** Operations per second. */
  readonly iops: number;
  /** From submission to completion. */
  readonly lat_ns: { readonly max: number };
}
interface Job {
  readonly jobname: string;
  /** errno of the first error; 0 without one. */
  readonly error: number;
  readonly read: Direction;
  readonly write: Direction;
  readonly trim: Direction;
  readonly sync: Pick<Direction, "total_ios" | "lat_ns">;
}

/** How a fio run ended. */
export interface FioResult {
  readonly status: number;
  readonly jobs: readonly Job[];
  readonly stderr: string;
}

/** Runs fio with options as on its command line, all jobs' results apart. It may fail: look at `status`. */
export async function fio(args: string, options: { timeoutMs?: number } = {}): Promise<FioResult> {
  const { status, stdout, stderr } = await sh(`exec fio --output-format=json ${args}`, {
    check: false,
    timeoutMs: options.timeoutMs ?? 60_000,
  });
  // With errors fio writes notes before and after the JSON.
  const json = stdout.slice(stdout.indexOf("{"), stdout.lastIndexOf("}") + 1);
  if (json === "") throw new Error(`fio ended with ${status} and no result; it said: ${stdout}${stderr}`);
  return { status, jobs: (JSON.parse(json) as { jobs: Job[] }).jobs, stderr };
}

/** The name of what a job reported first: "0" is none. */
export function fioErrors(result: FioResult): number[] {
  return result.jobs.map((job) => job.error);
}

/** What the slowest read, write, trim or sync of all jobs took, from its submission on. */
export function slowestMs(result: FioResult): number {
  const kinds = result.jobs.flatMap((job) => [job.read, job.write, job.trim, job.sync]);
  return Math.max(...kinds.map((kind) => kind.lat_ns.max)) / 1e6;
}

/** fio runs one after another that write and verify, until {@linkcode FioLoop.stop}. */
export interface FioLoop {
  /** Ends after the run that is under way; the exit status and what it said, "" without an error. */
  stop(): Promise<string>;
}

/**
 * Keeps a disk under a load that verifies itself, for as long as a test needs it: each run writes all of `size` in a new
 * random order and reads all of it back.
 */
export function fioLoop(name: string, args: string, { timeoutMs = 100_000 } = {}): FioLoop {
  const stopFile = `/tmp/${name}-stop`;
  const command = `fio --name=${name} --direct=1 --ioengine=io_uring --randrepeat=0 --verify=crc32c --verify_fatal=1 ` +
    `--minimal ${args}`;
  const running = sh(
    `until [ -e ${stopFile} ]; do ${command} >/tmp/${name}-said 2>&1 || { cat /tmp/${name}-said; exit 1; }; done`,
    {
      check: false,
      timeoutMs,
    },
  );
  return {
    async stop() {
      await Deno.writeTextFile(stopFile, "");
      const { status, stdout, stderr } = await running;
      await Deno.remove(stopFile);
      return status === 0 ? "" : `status ${status}: ${stdout}${stderr}`;
    },
  };
}
