// SPDX-License-Identifier: MIT
/** `dblock top`: what all disks are doing, each second anew, as a table or as a page (web.ts). It only looks. */
import { DblockError, quietly } from "../disk/errors.ts";
import { percentileOf } from "../filters/histogram.ts";
import { type DeviceInfo, list } from "../module/info.ts";
import { formatSize, parseCount, UsageError } from "./cli.ts";
import { type Command, JSON_OPTION, readTyped, type Typed } from "./command.ts";
import { planHttp, TOKEN_OPTION } from "./http.ts";
import { type Cells, LatencyWatch } from "./latency.ts";
import { counted } from "./listing.ts";
import { nextEnding } from "./signals.ts";
import { serveWeb, type WebPlan } from "./web.ts";
import { byName } from "./page/order.ts";

/** The subcommand. */
export const TOP: Command = {
  name: "top",
  summary: "what all disks are doing, each second",
  usage: "[--count N] [--json] | --web ADDRESS [--token FILE] [--control]",
  options: [
    { name: "count", value: "N", text: "end after N seconds [Ctrl-C ends it]" },
    JSON_OPTION,
    {
      name: "web",
      value: "ADDRESS",
      text: "a page for a browser instead, at 127.0.0.1:8080 or unix:PATH, with the last five minutes in plots",
    },
    TOKEN_OPTION,
    { name: "control", text: "the page may destroy and resize disks; this takes --token FILE at every address" },
  ],
  examples: [
    { words: "top", text: "a table that is drawn again in its place" },
    { words: "top --json --count 10", text: "ten lines of JSON, one a second" },
    { words: "top --web 127.0.0.1:8080", text: "a page at http://127.0.0.1:8080/, for this machine's browsers" },
    {
      words: "top --web 0.0.0.0:8080 --token /etc/dblock-token --control",
      text: "for other machines, which show the secret (http://HOST:8080/?token=SECRET), and may destroy disks",
    },
  ],
  notes: () =>
    "r/s, w/s: requests a second. MiB/s: both together. ms: how long they took on\n" +
    "average, in the I/O scheduler as well; p50, p99: half of them, and 99 of 100,\n" +
    "took at most so many ms from when the module had them, exact to 1 in 16 (not\n" +
    "flushes). queue: requests in flight. err/s: those that failed.\n" +
    "The kernel measures p50 and p99 for top, and only while it runs.\n" +
    "The page shows exports that only NBD clients know as well, errors and deaths as\n" +
    "they happen, and where on a disk reads and writes land. Servers count for it\n" +
    "only while a page is open, and five minutes longer.",
  parse(words) {
    const typed = readTyped(words, this, 0);
    const count = typed.value("count");
    const web = readWeb(typed);
    if (web !== undefined) return async () => await showWeb(web);
    const turns = count === undefined ? Infinity : parseCount(count, "seconds", 1, 1_000_000);
    return async () => await watch(turns, typed.has("json"));
  },
};

/** @throws {UsageError} what does not go together; a page that others could use without a secret */
function readWeb(typed: Typed): WebPlan | undefined {
  const [address, tokenPath, control] = [typed.value("web"), typed.value("token"), typed.has("control")];
  if (address === undefined) {
    for (const name of ["token", "control"]) {
      if (typed.has(name)) throw new UsageError(`--${name} is for --web ADDRESS, which is missing`);
    }
    return undefined;
  }
  for (const name of ["json", "count"]) {
    if (typed.has(name)) throw new UsageError(`--${name} is for the table in the terminal, and --web is a page`);
  }
  if (control && tokenPath === undefined) {
    throw new UsageError(
      "--control lets whoever has the page destroy disks: say which secret they have to show, with --token FILE",
    );
  }
  return { ...planHttp("--web", address, tokenPath), control };
}

async function showWeb(plan: WebPlan): Promise<void> {
  using ending = nextEnding();
  await using server = await serveWeb(plan);
  const secret = plan.tokenPath === undefined ? "" : ` (open it with ?token=SECRET, once; it is in ${plan.tokenPath})`;
  quietly(console.log)(`${server.url} shows all disks${secret}; to end it: Ctrl-C`);
  await ending.come;
}

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
  /** How long requests took; undefined before they are measured. */
  readonly latencies?: Cells | undefined;
}

/** What a disk did between two moments. */
export interface Activity {
  readonly name: string;
  readonly readsPerSecond: number;
  readonly writesPerSecond: number;
  readonly bytesPerSecond: number;
  /** How long a request took on average; undefined if none ended. */
  readonly meanMs?: number;
  /** Half of the requests took at most this; undefined if none ended, or nothing measures them. */
  readonly p50Ms?: number;
  /** 99 of 100 took at most this. */
  readonly p99Ms?: number;
  readonly inFlight: number;
  readonly errorsPerSecond: number;
}

const INTERVAL_MS = 1_000;
const HEAD = ["DISK", "r/s", "w/s", "MiB/s", "ms", "p50", "p99", "queue", "err/s"];

async function watch(turns: number, isJson: boolean): Promise<void> {
  const isTerminal = Deno.stdout.isTerminal();
  const first = await list();
  const opened = openLatencies();
  using latencies = opened instanceof DblockError ? undefined : opened;
  const notes = opened instanceof DblockError ? [opened.message] : [];
  // Where the screen is not drawn anew, once is enough.
  if (!isTerminal || isJson) { for (const note of notes.splice(0)) console.error(`dblock top: ${note}`); }
  let before = new Map(first.map((info) => [info.name, sampleOf(info, latencies)]));
  let numbers = first.flatMap(({ diskNumber }) => diskNumber ?? []);
  let beforeMs = performance.now();
  for (let turn = 0; turn < turns; turn++) {
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
    const infos = (await list()).sort((a, b) => byName(a.name, b.name));
    const nowMs = performance.now();
    const now = infos.map((info) => sampleOf(info, latencies));
    const activities = now.map((sample) => activityOf(before.get(sample.name), sample, (nowMs - beforeMs) / 1_000));
    [before, beforeMs] = [new Map(now.map((sample) => [sample.name, sample])), nowMs];
    const left = infos.flatMap(({ diskNumber }) => diskNumber ?? []);
    for (const one of numbers) if (!left.some((other) => isSame(one, other))) latencies?.forget(one);
    numbers = left;
    if (isJson) console.log(JSON.stringify({ time: new Date().toISOString(), disks: activities }));
    else console.log([`${isTerminal ? "\x1b[H\x1b[J" : ""}${tableOf(activities)}`, ...notes].join("\n"));
  }
}

/** What measures latencies, or why nothing does: the rest of the table needs nothing of it. */
function openLatencies(): LatencyWatch | DblockError {
  try {
    return LatencyWatch.open();
  } catch (error) {
    if (error instanceof DblockError) return error;
    throw error;
  }
}

type DiskNumber = NonNullable<DeviceInfo["diskNumber"]>;

function isSame(one: DiskNumber, other: DiskNumber): boolean {
  return one.major === other.major && one.minor === other.minor;
}

/** With what the kernel's statistics add: fields 4 and 8 of `/sys/block/NAME/stat` are the milliseconds of reads and writes. */
function sampleOf(info: DeviceInfo, latencies: LatencyWatch | undefined): Sample {
  const { name, id, requests, counts, inFlight, diskNumber } = info;
  return {
    name,
    id,
    reads: requests.read.count,
    writes: requests.write.count,
    bytes: requests.read.bytes + requests.write.bytes,
    errors: counts.errors,
    inFlight: inFlight.waiting + inFlight.handedOut + inFlight.passed,
    latencies: diskNumber === undefined ? undefined : latencies?.cells(diskNumber),
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
    ...percentilesOf(from.latencies, now.latencies),
    inFlight: now.inFlight,
    errorsPerSecond: (now.errors - from.errors) / seconds,
  };
}

/** Of the requests that ended between two moments. */
function percentilesOf(before: Cells | undefined, now: Cells | undefined): Pick<Activity, "p50Ms" | "p99Ms"> {
  if (now === undefined || before === undefined) return {};
  const cells = now.map((count, cell) => count - before[cell]!);
  const count = cells.reduce((sum, one) => sum + one, 0);
  if (count === 0) return {};
  return { p50Ms: percentileOf(cells, count, 50) / 1e6, p99Ms: percentileOf(cells, count, 99) / 1e6 };
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
      ...[one.meanMs, one.p50Ms, one.p99Ms].map((ms) => ms?.toFixed(2) ?? "-"),
      `${one.inFlight}`,
      one.errorsPerSecond.toFixed(0),
    ]),
  ];
  const widths = HEAD.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)));
  const lines = rows.map((cells) =>
    cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]! + 2)).join("")
  );
  const total = activities.reduce((sum, one) => sum + one.bytesPerSecond, 0);
  return `${lines.join("\n")}\n${counted(activities.length, "disk")}, ${formatSize(Math.round(total))}/s`;
}
