/** fio in a process of its own, and what it measured and complained of. */
import { sh } from "./harness.ts";

/** The part of a job's JSON that tests look at. */
interface Direction {
  readonly total_ios: number;
  readonly io_bytes: number;
}
interface Job {
  readonly jobname: string;
  /** errno of the first error; 0 without one. */
  readonly error: number;
  readonly read: Direction;
  readonly write: Direction;
  readonly trim: Direction;
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
