/**
 * The part of the bench that runs in the VM: makes the disks of the plan, runs its jobs on them in rounds, and reports
 * every measurement as a line of JSON. Decides nothing; main.ts does.
 */
import { sh } from "../device/harness.ts";
import { costsBetween, CounterLog, within } from "./counters.ts";
import { type DiskSpec, isOwn } from "./disks.ts";
import { runFio } from "./fio.ts";
import { measureFootprint } from "./footprint.ts";
import { startForeign } from "./foreign.ts";
import { type Job, ledgerJobs } from "./jobs.ts";
import { takeLedger } from "./ledger.ts";
import { startOwn } from "./own.ts";
import { type Line, type Measurement, type Plan, planPath, type Series } from "./plan.ts";
import { Absent, factsOf, fill, type RunningDisk } from "./running.ts";

/** Longer than takeLedger() counts. */
const ledgerRunMs = 3000;

/** A run in which this process had no turn to read the counters, or the server none to do anything, is done again. */
const attemptsMax = 3;

const reportPort = Deno.openSync("/dev/virtio-ports/report", { write: true });

function report(line: Line): void {
  const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
  for (let written = 0; written < bytes.length;) written += reportPort.writeSync(bytes.subarray(written));
}

async function main(): Promise<void> {
  const plan = JSON.parse(Deno.readTextFileSync(planPath)) as Plan;
  // Whoever reads a page of its program amid a measurement waits for the host; where instructions are counted, for seconds.
  await sh(`cat ${Deno.execPath()} ./dblock ./dblock-ramdisk "$(command -v fio)" >/dev/null`, {
    timeoutMs: 600_000,
  });
  // First: nothing else is there yet that could use the processors.
  if (plan.footprint) report({ type: "footprint", footprint: await measureFootprint() });
  for (const series of plan.series) await runSeries(series, plan);
}

async function runSeries(series: Series, plan: Plan): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const running: { readonly spec: DiskSpec; readonly disk: RunningDisk }[] = [];
  for (const spec of series.disks) {
    try {
      const disk = stack.use(await start(spec));
      await fill(disk);
      running.push({ spec, disk });
      report({ type: "disk", series: series.name, disk: spec.name, facts: factsOf(disk.paths[0]!) });
    } catch (error) {
      if (!(error instanceof Absent)) throw error;
      report({ type: "absent", series: series.name, disk: spec.name, reason: error.message });
    }
  }
  for (let round = 1; round <= series.rounds; round++) {
    for (const job of series.jobs) {
      for (const { spec, disk } of running) {
        const measurement = await measure(job, spec, disk, plan);
        report({ type: "measurement", series: series.name, round, job: job.name, disk: spec.name, measurement });
      }
    }
  }
  if (!plan.ledger) return;
  for (const job of series.jobs.filter(({ name }) => ledgerJobs.includes(name))) {
    for (const { spec, disk } of running) {
      if (disk.dblockNames.length !== 1) continue;
      const load = () =>
        runFio(job, disk.paths, { runtimeMs: ledgerRunMs, rampMs: 0, sizeBytes: spec.sizeMiB * 2 ** 20 });
      const ledger = await takeLedger(disk.dblockNames[0]!, load);
      report({ type: "ledger", series: series.name, job: job.name, disk: spec.name, ledger });
    }
  }
}

async function start(spec: DiskSpec): Promise<RunningDisk> {
  const { kind } = spec;
  return isOwn(kind) ? await startOwn({ ...spec, kind }) : await startForeign({ ...spec, kind });
}

async function measure(job: Job, spec: DiskSpec, disk: RunningDisk, plan: Plan): Promise<Measurement> {
  const sizeBytes = spec.sizeMiB * 2 ** 20 * disk.paths.length;
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    // Of many disks one speaks for all: reading costs time that is measured.
    using log = new CounterLog(disk.dblockNames[0]);
    const { iops, p50Us, p99Us, beginMs, endMs } = await runFio(job, disk.paths, { ...plan, sizeBytes });
    const window = within(log.readings, beginMs, endMs);
    if (window === undefined) continue;
    const { first, last } = window;
    // Not one request in all that time: the host kept it from running.
    if (first.handed !== undefined && first.handed === last.handed) continue;
    return { iops, p50Us, p99Us, ...costsBetween(first, last, iops) };
  }
  throw new Error(`${job.name} on ${spec.name}: there was nothing to count in its run`);
}

if (import.meta.main) {
  await main();
  Deno.exit(0);
}
