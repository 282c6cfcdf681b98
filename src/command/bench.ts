// SPDX-License-Identifier: MIT
/**
 * `dblock bench`: fio's usual jobs on a disk and on memory, in turn, and how the one compares with the other. Both are
 * served for this alone, and nothing of them is there afterwards.
 */
import { DblockError } from "../disk/errors.ts";
import { requestOptions } from "../disk/request.ts";
import type { Device } from "../module/device.ts";
import { becomeIoFlusher, formatSize, keepCode, parseCount, UsageError } from "./cli.ts";
import { type Command, JSON_OPTION, type Option, readItems, row } from "./command.ts";
import { DISK_OPTIONS, type DiskPlan, readDisks } from "./disk_plan.ts";
import { fio, type FioRun, measureWithFio } from "./fio.ts";
import { diskSize } from "./parameters.ts";
import { exists } from "../system/path.ts";
import { Progress } from "./progress.ts";
import { ServedDisk } from "./served_disk.ts";
import { abortOnSignals } from "./signals.ts";
import { didYouMean } from "./words.ts";

const SECONDS: Option = { name: "seconds", value: "N", text: "how long each job runs, on either disk [5]" };
const AREA: Option = { name: "area", value: "SIZE", text: "use so much of the disk, from its beginning [256MiB]" };
const ONLY: Option = { name: "jobs", value: "JOB,...", text: "only these, of the list below [all]" };
const OVERWRITE: Option = {
  name: "overwrite",
  text: "measure writes although the disk may have content: what is there is lost",
};

/** The subcommand. */
export const BENCH: Command = {
  name: "bench",
  summary: "measure a disk beside memory, with fio",
  usage: "SPEC [OPTIONS]",
  options: [
    ...DISK_OPTIONS.filter(({ name }) => ["with", "read-only", "timeout", "queues", "depth"].includes(name)),
    SECONDS,
    AREA,
    ONLY,
    OVERWRITE,
    JSON_OPTION,
  ],
  examples: [
    { words: "bench ./new.img?size=1GiB", text: "a file that is made for it, and removed afterwards" },
    { words: "bench ./disk.img", text: "a file with content: reads only" },
    { words: "bench ./disk.ts?size=1GiB --read-only --json", text: "a disk of your own, for programs" },
  ],
  notes: () =>
    "It writes to the SPEC where that has no content: a file that is not there yet or\n" +
    "is one hole, memory. Anywhere else it opens the SPEC --read-only and measures\n" +
    "reads, unless you say --overwrite. Memory is measured in the same run, job by\n" +
    "job; ratios to it say more than rates, which are this machine's.\n\n" +
    `Jobs:\n${JOBS.map(({ name, title }) => row(`  ${name}`, title)).join("\n")}`,
  parse(words) {
    const items = readItems(words, this.options);
    const own = [SECONDS, AREA, ONLY, OVERWRITE, JSON_OPTION];
    const given = new Map<Option, string>();
    for (const item of items) {
      if (item.kind === "word" || !own.includes(item.option)) continue;
      if (given.has(item.option)) throw new UsageError(`--${item.option.name} is there twice`);
      given.set(item.option, item.value);
    }
    const plans = readDisks(items.filter((item) => item.kind === "word" || !own.includes(item.option)));
    const [plan, other] = plans;
    if (plan === undefined) throw new UsageError("a SPEC is missing (write it like ./new.img?size=1GiB)");
    if (other !== undefined) throw new UsageError(`there is one SPEC too many: ${other.source.text}`);
    const overwrite = given.has(OVERWRITE);
    if (overwrite && plan.readOnly) throw new UsageError("--overwrite and --read-only are there both");
    const options = {
      plan,
      overwrite,
      seconds: parseCount(given.get(SECONDS) ?? "5", "seconds", 1, 3_600),
      areaBytes: readArea(given.get(AREA) ?? "256MiB"),
      jobs: readJobs(given.get(ONLY)),
      isJson: given.has(JSON_OPTION),
    };
    return async () => await bench(options);
  },
};

const MIB = 2 ** 20;
/** Less is a few requests of 1 MiB. */
const AREA_BYTES_MIN = 8 * MIB;
/** A disk is asked about so much of it at once. */
const EXTENTS_BYTES = 2 ** 30;

function readArea(text: string): number {
  const bytes = diskSize(text, MIB);
  if (bytes >= AREA_BYTES_MIN) return bytes;
  throw new UsageError(`--area ${text}: it takes at least ${formatSize(AREA_BYTES_MIN)}`);
}

/** A load, as fio takes it. */
interface Job {
  readonly name: string;
  readonly title: string;
  readonly blockBytes: number;
  readonly writes: boolean;
  readonly args: readonly string[];
}

function job(title: string, blockBytes: number, kind: string, depth: number, ...more: string[]): Job {
  const name = `${kind}-${formatSize(blockBytes).replace(" ", "")}-${depth}`;
  const args = [`--rw=${kind}`, `--bs=${blockBytes}`, `--iodepth=${depth}`, ...more];
  return { name, title, blockBytes, writes: !/read$/.test(kind), args };
}

const JOBS: readonly Job[] = [
  job("read 1 MiB, in order", MIB, "read", 8),
  job("write 1 MiB, in order", MIB, "write", 8),
  job("read 4 KiB, one at a time", 4096, "randread", 1),
  job("read 4 KiB, 32 at a time", 4096, "randread", 32),
  job("write 4 KiB, one at a time", 4096, "randwrite", 1),
  job("write 4 KiB, 32 at a time", 4096, "randwrite", 32),
  job("4 KiB, 70 % reads, 32 at a time", 4096, "randrw", 32, "--rwmixread=70"),
];

function readJobs(text: string | undefined): readonly Job[] {
  if (text === undefined) return JOBS;
  const wanted = text.split(",");
  const known = JOBS.map(({ name }) => name);
  const wrong = wanted.find((name) => !known.includes(name));
  if (wrong !== undefined) throw new UsageError(`there is no job ${wrong}${didYouMean(wrong, known)}`);
  return JOBS.filter(({ name }) => wanted.includes(name));
}

interface BenchOptions {
  readonly plan: DiskPlan;
  readonly overwrite: boolean;
  readonly seconds: number;
  readonly areaBytes: number;
  readonly jobs: readonly Job[];
  readonly isJson: boolean;
}

/** What a job did on the disk and on memory. */
interface Outcome {
  readonly name: string;
  readonly disk: Rate;
  readonly memory: Rate;
  /** The disk's rate by memory's. */
  readonly ratio: number;
}

type Rate = Pick<FioRun, "iops" | "p50Us" | "p99Us"> & { readonly bytesPerSecond: number };

async function bench({ plan, overwrite, seconds, areaBytes, jobs, isJson }: BenchOptions): Promise<void> {
  becomeIoFlusher();
  keepCode();
  const { text } = plan.source;
  const attempted = `Cannot measure ${text}`;
  using interrupted = abortOnSignals();
  const { signal } = interrupted;
  await fio(["--version"], attempted, signal);
  using progress = new Progress(`starting ${text}`);
  await using stack = new AsyncDisposableStack();
  for (const path of plan.source.files ?? []) if (!exists(path)) stack.defer(() => removeIfThere(path));
  const { disk, writes, why } = await startMeasured(plan, overwrite, signal);
  const device = owned(stack, disk);
  const area = Math.min(areaBytes, Math.floor(device.sizeBytes / MIB) * MIB);
  if (area < AREA_BYTES_MIN) {
    const wrong = `it has ${formatSize(device.sizeBytes)}, and fio needs ${formatSize(AREA_BYTES_MIN)}`;
    throw new DblockError("EINVAL", attempted, wrong, { hint: "a larger one: memory:64MiB" });
  }
  const chosen = jobs.filter((each) => writes || !each.writes);
  if (chosen.length === 0) {
    throw new DblockError("EROFS", attempted, "all of the --jobs write, and it is read-only or may have content", {
      hint: "--overwrite destroys that",
    });
  }
  const memory = owned(stack, await ServedDisk.start(memoryPlan(plan, area), { signal }));
  progress.say("");
  if (!isJson) console.log(`${text}, ${formatSize(area)} of it: ${why}`);
  const run = (of: Device, args: readonly string[]) => [
    `--name=bench`,
    `--filename=${of.path}`,
    `--size=${area}`,
    "--direct=1",
    "--thread",
    "--ioengine=libaio",
    ...args,
  ];
  // What was never written is not there to be read: no disk is measured by its holes.
  for (const of of writes ? [device, memory] : [memory]) {
    progress.say(`writing ${of === memory ? "memory" : text}`);
    await fio([...run(of, ["--rw=write", `--bs=${MIB}`, "--iodepth=8"]), "--output-format=json"], attempted, signal);
  }
  const outcomes: Outcome[] = [];
  for (const one of chosen) {
    const measure = async (of: Device): Promise<Rate> => {
      progress.say(`${one.title}, on ${of === memory ? "memory" : text}`);
      const times = ["--time_based", `--runtime=${seconds}`, "--ramp_time=500ms", "--norandommap", "--randrepeat=0"];
      const { iops, p50Us, p99Us } = await measureWithFio(run(of, [...times, ...one.args]), attempted, signal);
      return { iops, bytesPerSecond: iops * one.blockBytes, p50Us, p99Us };
    };
    const [onDisk, onMemory] = [await measure(device), await measure(memory)];
    const outcome = { name: one.name, disk: onDisk, memory: onMemory, ratio: onDisk.iops / onMemory.iops };
    progress.say("");
    if (!isJson && outcomes.length === 0) console.log(rowOf(["JOB", "DISK", "p99 ms", "MEMORY", "p99 ms", "RATIO"]));
    if (!isJson) console.log(outcomeRow(one, outcome));
    outcomes.push(outcome);
  }
  if (isJson) {
    console.log(JSON.stringify({ spec: text, areaBytes: area, seconds, writes, jobs: outcomes }, undefined, 2));
  }
}

interface Measured {
  readonly disk: ServedDisk;
  readonly writes: boolean;
  /** In words. */
  readonly why: string;
}

/** Serves the disk: to write to it only if nothing is lost by that, or if that was asked for. */
async function startMeasured(plan: DiskPlan, overwrite: boolean, signal: AbortSignal): Promise<Measured> {
  const start = async (readOnly: boolean, why: string): Promise<Measured> => ({
    disk: await ServedDisk.start(named({ ...plan, readOnly }, ""), { signal }),
    writes: !readOnly,
    why: `${readOnly ? "reads only" : "reads and writes"}, ${why}`,
  });
  if (overwrite) return await start(false, "over what was there");
  if (plan.readOnly) return await start(true, "as asked for");
  if (!await mayHaveContent(plan.source)) return await start(false, "as it has no content");
  return await start(true, "because it may have content (--overwrite measures writes, too, and destroys it)");
}

/**
 * Whether there may be content: some of it is no hole, or nobody can say. Asked before the disk is served, as the kernel's
 * search for partitions makes data of the holes of a mapped file on tmpfs.
 */
async function mayHaveContent({ isEmpty = false, files = [], open }: DiskPlan["source"]): Promise<boolean> {
  if (isEmpty) return false;
  // Whoever only reads makes no file.
  const disk = await open({ readOnly: files.every(exists), shared: false });
  try {
    const { extents, sizeBytes } = disk;
    if (extents === undefined) return true;
    for (let at = 0; at < sizeBytes;) {
      const length = Math.min(sizeBytes - at, EXTENTS_BYTES);
      const said = await extents.call(disk, at, length, requestOptions());
      if (said.length === 0 || said.some(({ kind }) => kind === "data")) return true;
      at += said.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    }
    return false;
  } finally {
    await disk.close?.("left"); // not "unused": a file that was made now is opened again, and goes at the end
  }
}

/** A name that nobody else has. */
function named(plan: DiskPlan, suffix: string): DiskPlan {
  return { ...plan, exits: [{ kind: "device", name: `bench${Deno.pid}${suffix}` }] };
}

/** Memory as large as what is measured, served as the disk is. */
function memoryPlan({ timeoutMs, queues, depth }: DiskPlan, sizeBytes: number): DiskPlan {
  const [plan] = readDisks([{ kind: "word", text: `memory:${sizeBytes}` }]);
  return named({ ...plan!, timeoutMs, queues, depth }, "m");
}

/** The one device of a disk, which goes with the stack. */
function owned(stack: AsyncDisposableStack, disk: ServedDisk): Device {
  const device = disk.devices[0]!;
  stack.defer(() => device.close({ force: true }));
  return device;
}

function removeIfThere(path: string): void {
  if (exists(path)) Deno.removeSync(path);
}

const COLUMNS = [33, 13, 9, 13, 9, 7];

function rowOf(cells: readonly string[]): string {
  return cells.map((cell, i) => i === 0 ? cell.padEnd(COLUMNS[i]!) : cell.padStart(COLUMNS[i]!)).join("");
}

function outcomeRow({ title, blockBytes }: Job, { disk, memory, ratio }: Outcome): string {
  const rate = ({ iops, bytesPerSecond }: Rate) =>
    blockBytes >= MIB ? `${(bytesPerSecond / MIB).toFixed(0)} MiB/s` : `${iops.toFixed(0)}/s`;
  const late = ({ p99Us }: Rate) => (p99Us / 1_000).toFixed(2);
  return rowOf([title, rate(disk), late(disk), rate(memory), late(memory), ratio.toFixed(2)]);
}
