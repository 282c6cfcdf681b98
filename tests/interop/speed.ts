// SPDX-License-Identifier: MIT
/** What programs that measure servers share: fio as a client, and what a request costs the server's processor. */
import { run } from "./tools.ts";

const TICK_US = 10_000;

/** What a client did: how much in a second, and how many requests in all. */
export interface Done {
  readonly perSecond: number;
  readonly requests: number;
}

/** A client of the server at a URI. */
export type Job = (uri: string) => Promise<Done>;

/** How much fio does. */
interface Amount {
  readonly seconds: number;
  readonly sizeBytes: number;
}

/** fio's own NBD client, for so long; `words` are what it does. */
export function fioJob(amount: Amount, words: readonly string[]): Job {
  return (uri) => fioAt(["--ioengine=nbd", `--uri=${uri}`], amount, words);
}

/** fio for so long: `target` says where, and `words` what it does. */
export async function fioAt(
  target: readonly string[],
  { seconds, sizeBytes }: Amount,
  words: readonly string[],
  env: Record<string, string> = {},
): Promise<Done> {
  const all = ["--name=x", ...target, `--runtime=${seconds}`, "--time_based", `--size=${sizeBytes}`];
  const said = await run("fio", [...all, "--group_reporting", ...words, "--output-format=json"], env);
  const { jobs: [{ read, write }] } = JSON.parse(said.slice(said.indexOf("{\n")));
  return { perSecond: read.iops + write.iops, requests: read.total_ios + write.total_ios };
}

/** What is asked of an image in a cluster, in words of fio. */
export const RBD_JOBS: Readonly<Record<string, readonly string[]>> = {
  "4k read, depth 1": ["--rw=randread", "--bs=4k", "--iodepth=1"],
  "4k write, depth 1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
  "4k read, depth 32": ["--rw=randread", "--bs=4k", "--iodepth=32"],
  "4k write, depth 32": ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
  "128k read, depth 8": ["--rw=randread", "--bs=128k", "--iodepth=8"],
  "128k write, depth 8": ["--rw=randwrite", "--bs=128k", "--iodepth=8"],
};

/** Time of the processor that a process has had, in us. */
export function processorUs(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const [user, system] = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 13);
  return (Number(user) + Number(system)) * TICK_US;
}

/** The middle one of numbers. */
export function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
}
