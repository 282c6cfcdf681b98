// SPDX-License-Identifier: MIT
/** `dblock top`: what all disks are doing, each second anew. It only looks. */
import { type DeviceInfo, list } from "../module/info.ts";
import { formatSize, parseCount } from "./cli.ts";
import { type Command, JSON_OPTION, readTyped } from "./command.ts";

/** The subcommand. */
export const TOP: Command = {
  name: "top",
  summary: "what all disks are doing, each second",
  usage: "[--count N] [--json]",
  options: [{ name: "count", value: "N", text: "end after N seconds [Ctrl-C ends it]" }, JSON_OPTION],
  examples: [
    { words: "top", text: "a table that is drawn again in its place" },
    { words: "top --json --count 10", text: "ten lines of JSON, one a second" },
  ],
  notes: () =>
    "r/s, w/s: requests a second. MiB/s: both together. ms: how long they took on\n" +
    "average, as the kernel saw it. queue: requests in flight. err/s: those that\n" +
    "failed. For percentiles serve the disk --with stats.",
  parse(words) {
    const typed = readTyped(words, this, 0);
    const count = typed.value("count");
    const turns = count === undefined ? Infinity : parseCount(count, "seconds", 1, 1_000_000);
    return async () => await watch(turns, typed.has("json"));
  },
};

/** A disk at a moment: counts since it began. */
export interface Sample {
  readonly name: string;
  readonly id: number;
  readonly reads: number;
  readonly writes: number;
  readonly bytes: number;
  readonly errors: number;
  readonly inFlight: number;
  /** Milliseconds that all requests together took. */
  readonly busyMs: number;
  /** Requests of which these are. */
  readonly finished: number;
}

/** What a disk did between two moments. */
export interface Activity {
  readonly name: string;
  readonly readsPerSecond: number;
  readonly writesPerSecond: number;
  readonly bytesPerSecond: number;
  /** How long a request took on average; undefined if none ended. */
  readonly meanMs?: number;
  readonly inFlight: number;
  readonly errorsPerSecond: number;
}

const INTERVAL_MS = 1_000;
const HEAD = ["DISK", "r/s", "w/s", "MiB/s", "ms", "queue", "err/s"];

async function watch(turns: number, isJson: boolean): Promise<void> {
  const isTerminal = Deno.stdout.isTerminal();
  let before = new Map((await list()).map((info) => [info.name, sampleOf(info)]));
  let beforeMs = performance.now();
  for (let turn = 0; turn < turns; turn++) {
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
    const infos = (await list()).sort((a, b) => a.name < b.name ? -1 : 1);
    const nowMs = performance.now();
    const now = infos.map((info) => sampleOf(info));
    const activities = now.map((sample) => activityOf(before.get(sample.name), sample, (nowMs - beforeMs) / 1_000));
    [before, beforeMs] = [new Map(now.map((sample) => [sample.name, sample])), nowMs];
    if (isJson) console.log(JSON.stringify({ time: new Date().toISOString(), disks: activities }));
    else console.log(`${isTerminal ? "\x1b[H\x1b[J" : ""}${tableOf(activities)}`);
  }
}

/** With what the kernel's statistics add: fields 4 and 8 of `/sys/block/NAME/stat` are the milliseconds of reads and writes. */
function sampleOf({ name, id, requests, counts, inFlight }: DeviceInfo): Sample {
  return {
    name,
    id,
    reads: requests.read.count,
    writes: requests.write.count,
    bytes: requests.read.bytes + requests.write.bytes,
    errors: counts.errors,
    inFlight: inFlight.waiting + inFlight.handedOut,
    ...kernelTimes(name),
  };
}

function kernelTimes(name: string): Pick<Sample, "busyMs" | "finished"> {
  try {
    const fields = Deno.readTextFileSync(`/sys/block/${name}/stat`).trim().split(/\s+/).map(Number);
    return { finished: fields[0]! + fields[4]!, busyMs: fields[3]! + fields[7]! };
  } catch {
    return { finished: 0, busyMs: 0 }; // it has gone, or has not come yet
  }
}

/** What was done between two samples. A disk that was not there before, or another one of its name, has done nothing. */
export function activityOf(before: Sample | undefined, now: Sample, seconds: number): Activity {
  const from = before === undefined || before.id !== now.id ? now : before;
  const finished = now.finished - from.finished;
  return {
    name: now.name,
    readsPerSecond: (now.reads - from.reads) / seconds,
    writesPerSecond: (now.writes - from.writes) / seconds,
    bytesPerSecond: (now.bytes - from.bytes) / seconds,
    ...(finished > 0 ? { meanMs: (now.busyMs - from.busyMs) / finished } : {}),
    inFlight: now.inFlight,
    errorsPerSecond: (now.errors - from.errors) / seconds,
  };
}

/** The table: a disk keeps its place, however busy others are. */
export function tableOf(activities: readonly Activity[]): string {
  if (activities.length === 0) return "there is no disk";
  const rows = [
    HEAD,
    ...activities.map((one) => [
      one.name,
      one.readsPerSecond.toFixed(0),
      one.writesPerSecond.toFixed(0),
      (one.bytesPerSecond / 2 ** 20).toFixed(1),
      one.meanMs?.toFixed(1) ?? "-",
      `${one.inFlight}`,
      one.errorsPerSecond.toFixed(0),
    ]),
  ];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)));
  const lines = rows.map((cells) =>
    cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]! + 2)).join("")
  );
  const total = activities.reduce((sum, one) => sum + one.bytesPerSecond, 0);
  return `${lines.join("\n")}\n${activities.length} disks, ${formatSize(Math.round(total))}/s`;
}
