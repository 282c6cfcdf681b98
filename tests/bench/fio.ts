/** The bench's fio runs, each on one disk or on several. */
import { type FioRun, parseFio } from "../../src/command/fio.ts";
import { sh } from "../device/harness.ts";
import { commonArgs, type Job } from "./jobs.ts";

export type { FioRun };

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
