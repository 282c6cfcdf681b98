// SPDX-License-Identifier: MIT
/** fio, the program that loads a disk and measures it: one run in a process of its own, and what its JSON says of the run. */
import { DblockError, describe } from "../disk/errors.ts";

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

/** What {@linkcode parseFio} needs of a command line. */
export const FIO_REPORT: readonly string[] = [
  "--group_reporting",
  "--unified_rw_reporting=mixed",
  "--percentile_list=50:99",
  "--output-format=json",
];

/**
 * Reads what fio printed under {@linkcode FIO_REPORT}.
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

/**
 * Runs fio to its end; `signal` ends it earlier.
 *
 * @param attempted what is said to have failed: "Cannot measure ./disk.img"
 * @throws {DblockError} ENOENT (fio is not installed), EIO (it failed); what the signal was aborted with.
 */
export async function fio(args: readonly string[], attempted: string, signal: AbortSignal): Promise<string> {
  signal.throwIfAborted();
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("fio", { args: [...args], stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new DblockError("ENOENT", attempted, "fio is not installed", { hint: "sudo apt install fio", cause: error });
  }
  const kill = () => child.kill("SIGTERM");
  signal.addEventListener("abort", kill);
  const { success, stdout, stderr } = await child.output();
  signal.removeEventListener("abort", kill);
  signal.throwIfAborted();
  const decoder = new TextDecoder();
  if (success) return decoder.decode(stdout);
  const said = `${decoder.decode(stderr)}\n${decoder.decode(stdout)}`.split("\n").find((line) => line.trim() !== "");
  throw new DblockError("EIO", attempted, `fio failed: ${said?.trim() ?? "it said nothing"}`);
}

/** {@linkcode fio}, and what it measured. */
export async function measureWithFio(
  args: readonly string[],
  attempted: string,
  signal: AbortSignal,
): Promise<FioRun> {
  const output = await fio([...args, ...FIO_REPORT], attempted, signal);
  try {
    return parseFio(output);
  } catch (error) {
    throw new DblockError("EIO", attempted, describe(error), { cause: error });
  }
}
