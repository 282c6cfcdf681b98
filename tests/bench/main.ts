/**
 * `make bench`: measures the disks of disks.ts with the jobs of jobs.ts in a VM, prints tables and keeps the figures.
 * A machine that does nothing else is assumed: where the reference's own rounds differ by too much, nothing is recorded.
 */
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { buildDir, exists, projectDir, runMain, UserError } from "../vm/host.ts";
import { defaultKernel } from "../vm/kernels.ts";
import { disks, type DiskSpec, isOwn, reference, rival } from "./disks.ts";
import { jobs } from "./jobs.ts";
import { measure, type Measured, prepare, type Subject } from "./measure.ts";
import type { Line, Plan } from "./plan.ts";
import { measureProgram } from "./program.ts";
import { quick } from "./quick.ts";
import { chartsOf, draw } from "./plot.ts";
import {
  type Circumstances,
  describeNoise,
  noiseMax,
  noiseOf,
  type Results,
  type ScalingResult,
  summarize,
} from "./results.ts";
import { allPoints, formatPoints, manyKinds, processorCounts, scalingSeries, scalingTitles } from "./scaling.ts";
import { formatFigures, formatFootprint, formatLedgers, formatRatios } from "./table.ts";

const help =
  `Usage: make bench [QUICK=1] [SCALING=1] [ROUNDS=3] [SECONDS=1] [DISKS="brd direct"] [JOBS="r4k-qd1"] [KERNEL=6.12]

  QUICK=1     5 minutes; fails if a ratio is lower by more than a quarter than that of an earlier commit, which is
              measured in turn: BASE=HEAD~1, or else the one whose figures are in tests/bench/results.json
  COUNT=1     counts the guest's instructions instead of time, on one processor, so that the machine may have other work:
              what a request costs, all that runs included; printed and not kept. With QUICK=1 it fails for 5% where that
              alone fails for a quarter; 15 minutes
  SCALING=1   cost by queues, depth, request size and devices, with 2 and 4 processors; SCALING=disks: that part, not kept,
              also of other DISKS
  FROM=FILE   tables from the measurements of an earlier run (.build/bench/lines.jsonl has the last one's)
  DISKS, JOBS only these; the figures are then printed and not kept
  disks       ${disks.map(({ name }) => name).join(" ")}
  jobs        ${jobs.map(({ name }) => name).join(" ")}`;

/** Every measurement of this run, written as it comes: whatever fails later, it is kept. */
const linesFile = join(buildDir, "bench", "lines.jsonl");
const resultsFile = join(projectDir, "tests/bench/results.json");
const rampMs = 300;
/** What QUICK=1 measures where DISKS does not say it. */
const quickDisks = ["direct", "delivered", "async"];

interface Options {
  readonly kernel: string;
  readonly rounds: number;
  readonly runtimeMs: number;
  readonly disks: typeof disks;
  readonly jobs: typeof jobs;
  /** Count instructions instead of time. */
  readonly counted: boolean;
  /** Everything is measured: the figures are worth keeping. */
  readonly isWhole: boolean;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      kernel: { type: "string" },
      rounds: { type: "string" },
      seconds: { type: "string" },
      disks: { type: "string" },
      jobs: { type: "string" },
      quick: { type: "boolean", default: false },
      base: { type: "string", default: "" },
      count: { type: "boolean", default: false },
      scaling: { type: "string", default: "" },
      from: { type: "string", default: "" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return 0;
  }
  if (values.base !== "" && !values.quick) {
    throw new UserError(`Cannot take BASE=${values.base} alone: it is what QUICK=1 compares with`);
  }
  if (values.count && values.scaling !== "") {
    throw new UserError("Cannot take COUNT=1 with SCALING=1: it has one processor");
  }
  if (values.scaling !== "" && (values.jobs || (values.disks && values.scaling !== "disks"))) {
    throw new UserError(`Cannot take DISKS or JOBS with SCALING=${values.scaling}: only DISKS, and with SCALING=disks`);
  }
  const options: Options = {
    kernel: values.kernel || defaultKernel,
    rounds: positive(values.rounds || (values.count ? "1" : "3"), "ROUNDS"),
    runtimeMs: Math.round(positive(values.seconds || (values.quick || values.count ? "0.8" : "1"), "SECONDS") * 1000),
    counted: values.count,
    disks: select(disks, values.disks, "disk"),
    jobs: select(jobs, values.jobs, "job"),
    isWhole: !values.disks && !values.jobs && !values.count,
  };
  const subject = await prepare(options.kernel);
  if (values.from !== "") return await account(readLines(values.from), [], subject, options);
  if (values.quick) {
    const { base } = values;
    const ownDisks = options.disks.filter(({ name, kind }) =>
      isOwn(kind) && (values.disks || quickDisks.includes(name))
    );
    return await quick(subject, { ...options, base, disks: ownDisks, rampMs, onLine: printProgress });
  }
  if (values.scaling !== "") {
    const kinds = values.disks ? options.disks.map(({ kind }) => kind) : manyKinds;
    return await scale(subject, options, values.scaling, kinds);
  }
  return await full(subject, options);
}

/** The first table. */
async function full(subject: Subject, options: Options): Promise<number> {
  const onLine = keepLines();
  const main = await measure(subject, {
    series: [{ name: "main", ...options }],
    runtimeMs: options.runtimeMs,
    rampMs,
    footprint: options.isWhole,
    ledger: false,
  }, { counted: options.counted, onLine });
  // In a VM of its own: switching trace points has been the end of one, with all it had measured.
  const ledgers = options.isWhole ? await measureLedgers(subject, onLine) : undefined;
  const problems = [main.problem, ledgers?.problem].filter((problem) => problem !== undefined);
  return await account([...main.lines, ...ledgers?.lines ?? []], problems, subject, options);
}

/** Prints what was measured, and records it if all of it is there and the machine was quiet. */
async function account(
  lines: readonly Line[],
  problems: readonly string[],
  subject: Subject,
  options: Options,
): Promise<number> {
  const result = summarize(lines, "main");
  console.log(`\n${formatFigures(jobs, result.figures)}`);
  for (const base of [reference, rival]) {
    const isThere = Object.values(result.figures).some((byDisk) => byDisk[base] !== undefined);
    if (isThere) console.log(`\n${formatRatios(jobs, result.figures, base)}`);
  }
  for (const [disk, reason] of Object.entries(result.absent)) console.log(`\n${disk} is not there: ${reason}`);
  if (result.ledgers !== undefined) console.log(`\n${formatLedgers(jobs, result.ledgers)}`);
  for (const problem of problems) console.log(`\n${problem}`);
  const footprintLine = lines.find((line) => line.type === "footprint");
  if (footprintLine === undefined) return problems.length > 0 ? 1 : 0;
  const footprint = { ...footprintLine.footprint, ...await measureProgram(subject.programFile) };
  console.log(`\n${formatFootprint(footprint)}`);
  const noise = noiseOf(result.figures);
  const reasons = [
    ...problems.map(() => "something was not measured"),
    ...noise <= noiseMax ? [] : [describeNoise(noise)],
  ];
  if (reasons.length > 0) {
    console.log(`\nnothing is recorded: ${reasons.join("; ")} (the measurements: ${shortName(linesFile)})`);
    return 1;
  }
  const scaling = readResults()?.scaling;
  const results: Results = {
    circumstances: circumstancesOf(subject, options, 2),
    main: result,
    footprint,
    ...(scaling === undefined ? {} : { scaling }),
  };
  await keep(results);
  return 0;
}

/** What each request asks of the kernel, on our own disks. */
async function measureLedgers(subject: Subject, onLine: (line: Line) => void): Promise<Measured> {
  const own = disks.filter(({ kind }) => isOwn(kind));
  return await measure(subject, {
    series: [{ name: "main", disks: own, jobs, rounds: 0 }],
    runtimeMs: 0,
    rampMs: 0,
    footprint: false,
    ledger: true,
  }, { onLine });
}

/** The second table, beside the first that is recorded; or a part of it, to be seen. */
async function scale(
  subject: Subject,
  options: Options,
  part: string,
  kinds: readonly DiskSpec["kind"][],
): Promise<number> {
  const parts = part === "1" ? Object.keys(scalingTitles) : [part];
  if (scalingTitles[parts[0]!] === undefined) {
    throw new UserError(`Cannot take SCALING=${part}: it is 1 or one of ${Object.keys(scalingTitles).join(" ")}`);
  }
  const recorded = readResults();
  if (recorded === undefined) {
    throw new UserError(`Cannot keep the figures: "make bench" has to write ${resultsFile} first`);
  }
  const scaling: Record<string, ScalingResult> = {};
  const problems: string[] = [];
  const onLine = keepLines();
  for (const processors of processorCounts) {
    console.log(`${processors} processors`);
    const series = scalingSeries(options.rounds, kinds).filter(({ name }) => parts.includes(name));
    const plan: Plan = { series, runtimeMs: options.runtimeMs, rampMs, footprint: false, ledger: false };
    const { lines, problem } = await measure(subject, plan, { processors, onLine });
    if (problem !== undefined) problems.push(problem);
    scaling[processors] = {
      circumstances: circumstancesOf(subject, options, processors),
      series: Object.fromEntries(series.map(({ name }) => [name, summarize(lines, name)])),
    };
  }
  const results = { ...recorded, scaling };
  console.log(`\n${formatPoints(allPoints(results))}`);
  if (problems.length > 0) {
    for (const problem of problems) console.log(`\n${problem}`);
    console.log(`\nnothing is recorded: something was not measured (the measurements: ${shortName(linesFile)})`);
    return 1;
  }
  if (part === "1") await keep(results);
  return 0;
}

/** Writes the figures, and draws them if npm has what that takes. */
async function keep(results: Results): Promise<void> {
  await Deno.writeTextFile(resultsFile, `${JSON.stringify(results, undefined, 2)}\n`);
  console.log(`\n${shortName(resultsFile)} is written`);
  try {
    for (const [name, svg] of Object.entries(await draw(chartsOf(results, jobs)))) {
      await Deno.writeTextFile(join(dirname(resultsFile), name), svg);
      console.log(`${name} is drawn`);
    }
  } catch (error) {
    console.log(`no plots: ${error instanceof Error ? error.message : error}`);
  }
}

function circumstancesOf(subject: Subject, options: Options, processors: number): Circumstances {
  return {
    kernel: subject.kernel.release,
    date: new Date().toISOString().slice(0, 10),
    processors,
    rounds: options.rounds,
    runtimeMs: options.runtimeMs,
  };
}

function readResults(): Results | undefined {
  return exists(resultsFile) ? JSON.parse(Deno.readTextFileSync(resultsFile)) as Results : undefined;
}

/** Prints progress and keeps every line in a file. */
function keepLines(): (line: Line) => void {
  Deno.mkdirSync(dirname(linesFile), { recursive: true });
  Deno.writeTextFileSync(linesFile, "");
  return (line) => {
    Deno.writeTextFileSync(linesFile, `${JSON.stringify(line)}\n`, { append: true });
    printProgress(line);
  };
}

function readLines(file: string): Line[] {
  if (!exists(file)) throw new UserError(`Cannot take FROM=${file}: there is no such file`);
  return Deno.readTextFileSync(file).trimEnd().split("\n").map((line) => JSON.parse(line) as Line);
}

function shortName(file: string): string {
  return file.replace(`${projectDir}/`, "");
}

function printProgress(line: Line): void {
  if (line.type !== "measurement") return;
  const { round, job, disk, measurement } = line;
  console.log(`round ${round}  ${job.padEnd(12)} ${disk.padEnd(10)} ${measurement.iops.toFixed(0).padStart(8)} IOPS`);
}

function positive(text: string, name: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new UserError(`Cannot take ${name}=${text}: a number above 0 is needed`);
  return value;
}

function select<T extends { readonly name: string }>(all: readonly T[], words: string | undefined, what: string): T[] {
  const names = words?.split(/[\s,]+/).filter((word) => word !== "") ?? [];
  const unknown = names.find((name) => !all.some((one) => one.name === name));
  if (unknown !== undefined) {
    throw new UserError(
      `Cannot measure "${unknown}": there is no such ${what} (${all.map(({ name }) => name).join(" ")})`,
    );
  }
  return all.filter(({ name }) => names.length === 0 || names.includes(name));
}

if (import.meta.main) await runMain(main);
