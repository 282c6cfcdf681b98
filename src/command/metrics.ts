// SPDX-License-Identifier: MIT
/** `dblock metrics`, and what `dblock serve --metrics` answers: what disks do, in the words of Prometheus. */
import { quietly } from "../disk/errors.ts";
import { endOfTimeCell, type MeterReport, type MeterRow, SIZE_CLASSES, TIME_CELLS } from "../disk/meter.ts";
import type { Operation } from "../disk/operation.ts";
import { type DeviceState, STATE } from "../module/words.ts";
import { ServiceManager } from "../system/service_manager.ts";
import { VERSION } from "./cli.ts";
import { type Command, readTyped } from "./command.ts";
import { Exposition, EXPOSITION_TYPE, type Labels } from "./exposition.ts";
import { type DiskFigures, figuresOfMachine } from "./figures.ts";
import { formatHttpAddress, type HttpPlan, type HttpServer, planHttp, serveHttp, TOKEN_OPTION } from "./http.ts";
import { nextEnding } from "./signals.ts";

/** The subcommand. */
export const METRICS: Command = {
  name: "metrics",
  summary: "figures of all disks, for Prometheus",
  usage: "[ADDRESS]",
  options: [TOKEN_OPTION],
  examples: [
    { words: "metrics", text: "print them once" },
    { words: "metrics 127.0.0.1:9464", text: "answer http://127.0.0.1:9464/metrics until Ctrl-C" },
    { words: "metrics unix:/run/dblock-metrics.sock", text: "the same on a socket of root's" },
    { words: "metrics 0.0.0.0:9464 --token /etc/dblock-token", text: "for other machines, which show the secret" },
  ],
  notes: () =>
    "The disks of the module are there, whoever serves them; those of dblock serve\n" +
    "have histograms as well, which begin with the first question, and exports that\n" +
    "only NBD clients know. `dblock serve --metrics ADDRESS` shows one server's own\n" +
    "disks, which count from their beginning. Memory that the kernel copies from\n" +
    "(memory:, a mapped file) has no histograms: dblock top measures such disks.\n" +
    "The packages have a service of it at 127.0.0.1:9464, which is not enabled:\n" +
    "systemctl enable --now dblock-metrics.",
  parse(words) {
    const typed = readTyped(words, this, 1);
    const [address] = typed.words;
    const plan = address === undefined ? undefined : planHttp("metrics", address, typed.value("token"));
    return async () => {
      if (plan === undefined) return console.log(exposition(await figuresOfMachine()).trimEnd());
      using ending = nextEnding();
      await using server = await serveMetrics(plan, () => figuresOfMachine());
      const url = metricsUrl(server);
      quietly(console.log)(`${url} is ready; to end it: Ctrl-C`);
      ServiceManager.of(Deno.env.toObject(), Deno.pid)?.tell({ READY: 1, STATUS: url });
      await ending.come;
    };
  },
};

/**
 * Answers `GET /metrics` until it is disposed.
 *
 * @throws {DblockError} what `serveHttp()` throws
 */
export async function serveMetrics(plan: HttpPlan, figures: () => Promise<DiskFigures[]>): Promise<HttpServer> {
  return await serveHttp(plan, async (request) => {
    const { pathname } = new URL(request.url);
    if (request.method !== "GET") return new Response("only GET\n", { status: 405, headers: { allow: "GET" } });
    if (pathname === "/") return new Response("the figures are at /metrics\n");
    if (pathname !== "/metrics") return new Response("there is /metrics\n", { status: 404 });
    return new Response(exposition(await figures()), { headers: { "content-type": EXPOSITION_TYPE } });
  });
}

/** Where its figures are. */
export function metricsUrl({ address }: HttpServer): string {
  const where = formatHttpAddress(address);
  return address.transport === "unix" ? `${where} (/metrics)` : `http://${where}/metrics`;
}

/** What was completed of each operation, under node_exporter's names. */
const COMPLETED: readonly (readonly [Operation, count: string, bytes: string | undefined, what: string])[] = [
  ["read", "dblock_reads_completed_total", "dblock_read_bytes_total", "read"],
  ["write", "dblock_writes_completed_total", "dblock_written_bytes_total", "written"],
  ["flush", "dblock_flush_requests_total", undefined, "flushed"],
  ["discard", "dblock_discards_completed_total", "dblock_discarded_bytes_total", "discarded"],
  ["writeZeroes", "dblock_write_zeroes_completed_total", "dblock_zeroed_bytes_total", "zeroed"],
];
const STATES = Object.keys(STATE) as DeviceState[];
/** Bounds of the histograms of time: from a microsecond on, each twice the one before, to 17 seconds. */
const BOUNDS: readonly number[] = Array.from({ length: 25 }, (_, i) => 2 ** i / 1e6);
const CLASS_NAMES = ["4KiB", "64KiB", "1MiB", "more"] as const;

/** What disks show, as text. */
export function exposition(disks: readonly DiskFigures[]): string {
  const out = new Exposition();
  out.gauge("dblock_build_info", "1; the version of the program that says this.", { version: VERSION }, 1);
  for (const one of disks) {
    const labels = { disk: one.disk, transport: one.transport };
    const info = { ...labels, spec: one.spec ?? "", path: one.path ?? "" };
    out.gauge("dblock_disk_info", "1; what the disk is made of, and where it is.", info, 1);
    out.gauge("dblock_size_bytes", "Size of the disk.", labels, one.sizeBytes);
    addCompleted(out, labels, one);
    addModule(out, labels, one);
    addKernel(out, labels, one);
    if (one.meter !== undefined) addMeter(out, labels, one.meter);
    const seen = new Map<string, number>();
    for (const { name, help, value, labels: more = {} } of one.own) {
      const key = `${name} ${JSON.stringify(more)}`;
      const nth = (seen.get(key) ?? 0) + 1;
      seen.set(key, nth);
      // Two filters of a kind in front of one disk: the outermost is the first.
      const all = { ...labels, ...more, ...(nth === 1 ? {} : { part: `${nth}` }) };
      if (name.endsWith("_total")) out.counter(`dblock_backend_${name}`, help, all, value);
      else out.gauge(`dblock_backend_${name}`, help, all, value);
    }
  }
  return out.text();
}

/** The module counts for its disks, so that these go on when a server dies; others count for themselves. */
function addCompleted(out: Exposition, labels: Labels, { module, meter }: DiskFigures): void {
  if (module === undefined && meter === undefined) return;
  for (const [operation, countName, bytesName, what] of COMPLETED) {
    const rows = meter?.rows.filter((row) => row.operation === operation) ?? [];
    const { count, bytes } = module?.requests[operation] ?? {
      count: rows.reduce((sum, { succeeded }) => sum + succeeded, 0),
      bytes: rows.reduce((sum, row) => sum + row.bytes, 0),
    };
    const help = operation === "flush" ? "Flushes that succeeded." : `Requests of which all was ${what}.`;
    out.counter(countName, help, labels, count);
    if (bytesName !== undefined) out.counter(bytesName, `Bytes that were ${what}.`, labels, bytes);
  }
  const { waiting, handedOut, passed } = module?.inFlight ?? { waiting: 0, handedOut: meter?.inFlight ?? 0, passed: 0 };
  out.gauge("dblock_io_now", "Requests in flight.", labels, waiting + handedOut + passed);
}

function addModule(out: Exposition, labels: Labels, { module }: DiskFigures): void {
  if (module === undefined) return;
  const { counts, inFlight, queues, openCount, server, state } = module;
  for (const one of STATES) {
    out.gauge("dblock_state", "1 for the state that the disk is in.", { ...labels, state: one }, one === state ? 1 : 0);
  }
  out.gauge("dblock_served", "1 while a process serves the disk.", labels, server === undefined ? 0 : 1);
  out.gauge("dblock_open_handles", "Who has the disk open, mounts included.", labels, openCount);
  out.gauge("dblock_queues", "Queues of the disk.", labels, queues.count);
  out.gauge("dblock_queue_depth", "Requests of each queue at once.", labels, queues.depth);
  out.gauge("dblock_requests_waiting", "Requests that no server has seen yet.", labels, inFlight.waiting);
  out.gauge("dblock_requests_handed_out", "Requests that a server is at.", labels, inFlight.handedOut);
  out.gauge(
    "dblock_requests_quarantined",
    "Requests that timed out and whose answer is still due.",
    labels,
    inFlight.quarantined,
  );
  const totals = [
    ["dblock_server_deaths_total", "Servers that died.", counts.deaths],
    ["dblock_server_leaves_total", "Servers that stopped in order and left the disk to the next.", counts.leaves],
    ["dblock_failed_requests_total", "Requests that ended with an error.", counts.errors],
    ["dblock_timed_out_requests_total", "Requests that the timeout ended.", counts.timeouts],
    ["dblock_replayed_requests_total", "Requests that were handed out again, after a death.", counts.replayed],
    ["dblock_stale_answers_total", "Answers to requests that had ended.", counts.stale],
    ["dblock_refused_answers_total", "Answers that were refused, stale ones included.", counts.refused],
    ["dblock_handed_out_requests_total", "Requests that were handed out, replayed ones included.", counts.handedOut],
    ["dblock_batches_total", "Calls of a server that brought it requests.", counts.batches],
  ] as const;
  for (const [name, help, value] of totals) out.counter(name, help, labels, value);
}

function addKernel(out: Exposition, labels: Labels, { kernel }: DiskFigures): void {
  if (kernel === undefined) return;
  const times = [
    [
      "dblock_read_time_seconds_total",
      "Seconds that all reads together took, in the I/O scheduler as well.",
      "readSeconds",
    ],
    ["dblock_write_time_seconds_total", "Seconds that all writes together took.", "writeSeconds"],
    ["dblock_discard_time_seconds_total", "Seconds that all discards together took.", "discardSeconds"],
    ["dblock_flush_requests_time_seconds_total", "Seconds that all flushes together took.", "flushSeconds"],
    ["dblock_io_time_seconds_total", "Seconds in which the disk had something to do.", "busySeconds"],
  ] as const;
  for (const [name, help, key] of times) out.counter(name, help, labels, kernel[key]);
}

function addMeter(out: Exposition, labels: Labels, meter: MeterReport): void {
  for (const row of meter.rows) {
    out.histogram(
      "dblock_request_duration_seconds",
      "How long the server's code had requests, by the largest size of their class; failed ones included.",
      { ...labels, operation: row.operation, size: CLASS_NAMES[row.sizeClass] ?? "more" },
      { upTo: bucketsOf(row), sum: row.seconds },
    );
  }
  for (const { operation, errno, count } of meter.errors) {
    const all = { ...labels, operation, errno };
    out.counter("dblock_request_errors_total", "Requests that the server's code has failed.", all, count);
  }
  let upTo = 0;
  const last = meter.batches.length - 1;
  const buckets = meter.batches.map((count, i) => [i === last ? Infinity : 2 ** i, upTo += count] as const);
  out.histogram("dblock_batch_requests", "Requests that came to the server at once.", labels, {
    upTo: buckets,
    sum: meter.batched,
  });
}

/** Of each bound the first cell that has something above it. */
let cellsAfter: readonly number[] | undefined;

/** Cells are in the order of their times, as bounds are. */
function bucketsOf({ times, count }: MeterRow): (readonly [number, number])[] {
  cellsAfter ??= BOUNDS.map((bound) => {
    let cell = 0;
    while (cell < TIME_CELLS && endOfTimeCell(cell) <= bound * 1.000001) cell++;
    return cell;
  });
  let [at, upTo] = [0, 0];
  const buckets = BOUNDS.map((bound, i) => {
    while (at < times.length && times[at]![0] < cellsAfter![i]!) upTo += times[at++]![1];
    return [bound, upTo] as const;
  });
  return [...buckets, [Infinity, count]];
}

/** "up to 4 KiB", for people. */
export function sizeClassName(sizeClass: number): string {
  return SIZE_CLASSES[sizeClass] === Infinity ? "larger" : `up to ${CLASS_NAMES[sizeClass]}`;
}
