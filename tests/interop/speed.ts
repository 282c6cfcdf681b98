// SPDX-License-Identifier: MIT
/** What programs that measure NBD servers share: fio as a client, and what a request costs the server's processor. */
import { run } from "./tools.ts";

const TICK_US = 10_000;

/** What a client did: how much in a second, and how many requests in all. */
export interface Done {
  readonly perSecond: number;
  readonly requests: number;
}

/** A client of the server at a URI. */
export type Job = (uri: string) => Promise<Done>;

/** fio's own NBD client, for so long; `words` are what it does. */
export function fioJob(how: { readonly seconds: number; readonly sizeBytes: number }, words: readonly string[]): Job {
  return async (uri) => {
    const all = ["--name=x", "--ioengine=nbd", `--uri=${uri}`, `--runtime=${how.seconds}`, "--time_based"];
    const said = await run("fio", [
      ...all,
      `--size=${how.sizeBytes}`,
      "--group_reporting",
      ...words,
      "--output-format=json",
    ]);
    const { jobs: [{ read, write }] } = JSON.parse(said.slice(said.indexOf("{\n")));
    return { perSecond: read.iops + write.iops, requests: read.total_ios + write.total_ios };
  };
}

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
