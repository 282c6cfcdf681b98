/** fio in a process of its own, and what its JSON says of a run. */
import { sh } from "../device/harness.ts";
import { commonArgs, type Job } from "./jobs.ts";

/** What fio knows of a run. */
export interface FioRun {
  readonly iops: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** The part of the run that was measured, as Date.now() tells time. */
  readonly beginMs: number;
  readonly endMs: number;
}

/** The part of fio's JSON that is read: one job, because of --group_reporting, with reads and writes in one. */
interface FioJson {
  readonly timestamp_ms: number;
  readonly jobs: readonly {
    readonly error: number;
    readonly mixed?: {
      readonly iops: number;
      readonly total_ios: number;
      /** Milliseconds. */
      readonly runtime: number;
      readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
    };
  }[];
}

/**
 * Reads what fio printed with --output-format=json --group_reporting --unified_rw_reporting=mixed.
 *
 * @throws {Error} if a job failed, or did nothing.
 */
export function parseFio(output: string): FioRun {
  // With errors fio writes notes before and after the JSON.
  const json = output.slice(output.indexOf("{"), output.lastIndexOf("}") + 1);
  if (json === "") throw new Error(`fio gave no result; it said: ${output.trim()}`);
  const { timestamp_ms, jobs } = JSON.parse(json) as FioJson;
  const [first] = jobs;
  if (first?.mixed === undefined) throw new Error("fio's result has no job with reads and writes in one");
  if (first.error !== 0) throw new Error(`fio's job failed with errno ${first.error}`);
  const { iops, total_ios, runtime, clat_ns } = first.mixed;
  if (total_ios === 0) throw new Error("fio's job did nothing");
  const percentileUs = (name: string) => (clat_ns.percentile?.[name] ?? NaN) / 1000;
  return {
    iops,
    p50Us: percentileUs("50.000000"),
    p99Us: percentileUs("99.000000"),
    beginMs: timestamp_ms - runtime,
    endMs: timestamp_ms,
  };
}

/** Runs a job on a disk, or on several at once. */
export async function runFio(
  job: Job,
  paths: readonly string[],
  times: { readonly runtimeMs: number; readonly rampMs: number; readonly sizeBytes: number },
): Promise<FioRun> {
  const where = `--name=bench --filename=${paths.join(":")} --size=${times.sizeBytes}`;
  const when = `--runtime=${times.runtimeMs}ms --ramp_time=${times.rampMs}ms`;
  const timeoutMs = times.runtimeMs + times.rampMs + 60_000;
  const { stdout } = await sh(`exec fio ${where} ${when} ${commonArgs} ${job.args}`, { timeoutMs });
  return parseFio(stdout);
}
