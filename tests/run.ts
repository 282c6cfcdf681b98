/**
 * `make test`: static checks, the suites on the host, then the device tests in VMs, kernel by kernel. Each begins where the
 * one before leaves a place free, so that no processor waits for the longest. The last line is `N passed, N failed`, and the
 * exit status is 1 if anything failed or nothing ran.
 */
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { type FileResult, runDeviceTests, wantsDebian } from "./vm/device.ts";
import { buildProgram, hasDeno } from "./vm/architecture.ts";
import { buildDir, projectDir, runMain, UserError } from "./vm/host.ts";
import { systemImage } from "./vm/image.ts";
import { defaultKernel, fetchKernel, kernelVersions, otherKernelNames } from "./vm/kernels.ts";
import { buildModule } from "./vm/module.ts";
import { type PortableOptions, runPortable } from "./vm/portable.ts";
import { addCounts, type Counts } from "./vm/report.ts";
import { figureTable, fileTable, kernelTable, type TestedKernel } from "./vm/summary.ts";
import { defaultMemoryMiB } from "./vm/qemu.ts";
import { Slots } from "./vm/slots.ts";
import { canHaveDebian } from "./vm/vm.ts";
import {
  type HostResult,
  runCheck,
  runSuite,
  staticChecks,
  suiteFiles,
  suiteNames,
  suitesByName,
} from "./vm/suites.ts";

/** Without --kernel: every device test on this one, */
const fullKernels = [defaultKernel];
/** and on the oldest and the newest these few, which touch what differs between kernels. */
const smokeKernels = [kernelVersions[0]!, kernelVersions.at(-1)!];
const smokeTests = ["discard", "errno_create", "fio_verify", "hold", "kill_under_load", "partitions", "ramdisk_life"];
/** What tests with figures do there, as a part of what they do on the other. */
const smokeScale = 1 / 4;

const help = `Usage: make test [ARGS="..."]   or   src/build/deno.sh run -A tests/run.ts ...

  WORD...            only these: a check (${Object.keys(staticChecks).join(", ")}), a suite (${suiteNames.join(", ")}),
                     or test files whose path has the word in it; without a word all but ${suitesByName}
  --kernel 6.1,6.12  kernels for the device tests: ${kernelVersions.join(", ")}, all (of these),
                     ${otherKernelNames.join(", ")}, debug, kcsan; without it
                     every device test runs on ${fullKernels.join(", ")}, and a few on ${smokeKernels.join(" and ")}
  --filter NAME      only tests whose name has this in it
  --memory MIB       memory of the VM (4096)
  --smp N            processors of the VM (2)
  --scale N          how many times as much the tests with figures do (1)
  --vms N            how many VMs at a time (one a processor, as far as memory goes; 1 with --verbose)
  --verbose          show what device tests print while they run`;

const tailLines = 60;
/** Checks and suites on the host wait for half of their time or more, so there are two at a time for each processor. */
const placesOfProcessor = 2;
/** A VM has two processors, and mostly uses them. */
const placesOfVm = 2;

/** One line of the account at the end. */
interface Failure {
  readonly title: string;
  readonly output: string;
  readonly problems: readonly string[];
  readonly rerun: string;
  readonly runDir?: string;
}

const failures: Failure[] = [];
const allCounts: Counts[] = [];

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      kernel: { type: "string" },
      filter: { type: "string" },
      memory: { type: "string" },
      smp: { type: "string" },
      scale: { type: "string" },
      vms: { type: "string" },
      verbose: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(help);
    return 0;
  }
  const startedMs = performance.now();
  const selected = selectFiles(positionals);
  const memoryMiB = values.memory === undefined ? undefined : toCount("--memory", values.memory);
  const vms = values.vms === undefined ? values.verbose ? 1 : vmsAtATime(memoryMiB) : toCount("--vms", values.vms);
  const places = new Slots(placesOfProcessor * Math.max(navigator.hardwareConcurrency, vms));
  const placesForVms = new Slots(vms);
  const inPlace = (work: () => Promise<void>) => placesForVms.use(() => places.use(work, placesOfVm));
  const jobs = hostJobs(selected, positionals, values.filter).map(({ bootsVm, run }) => {
    const work = async () => recordHost(await run(), values.filter !== undefined);
    return bootsVm ? inPlace(work) : places.use(work);
  });
  const onHost = started(Promise.all(jobs));
  const deviceFiles = selected.get("device")!;
  if (deviceFiles.length > 0) {
    await runDevices(planDevices(deviceFiles, values.kernel, positionals.length === 0), {
      filter: values.filter,
      memoryMiB,
      smp: values.smp === undefined ? undefined : toCount("--smp", values.smp),
      scale: values.scale === undefined ? undefined : toScale(values.scale),
      vms,
      inPlace,
      verbose: values.verbose,
    });
  }
  await onHost;
  printFailures();
  const { passed, failed, skipped } = addCounts(allCounts);
  console.log(`\n${((performance.now() - startedMs) / 1000).toFixed(0)} s`);
  if (passed + failed + skipped === 0) console.log("no test ran");
  const lastLine = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
  await Deno.writeTextFile(join(buildDir, "test-result"), `${lastLine}\n`);
  console.log(lastLine);
  return failed > 0 || passed === 0 && positionals.every((word) => !(word in staticChecks)) ? 1 : 0;
}

/** Something that is run on the host. */
interface Job {
  /** It takes a VM's places. */
  readonly bootsVm: boolean;
  readonly run: () => Promise<HostResult>;
}

/**
 * What runs on the host, in this order: what takes longest comes first. The folders of the unit tests, which wait for most of
 * their time, are jobs of their own, and so are the files of the interop suite and of the harness's own.
 */
function hostJobs(
  selected: ReadonlyMap<string, readonly string[]>,
  words: readonly string[],
  filter: string | undefined,
): Job[] {
  const jobsOf = (suite: string, nameOfJob: (file: string) => string = () => suite, bootsVm = false): Job[] =>
    [...Map.groupBy(selected.get(suite) ?? [], nameOfJob)].map(([name, files]) => {
      return { bootsVm, run: () => runSuite(name, files, filter) };
    });
  const names = Object.keys(staticChecks).filter((name) => words.length === 0 || words.includes(name));
  return [
    ...jobsOf("interop", nameOf),
    ...jobsOf("unit", (file) => nameOf(dirname(file))),
    ...jobsOf("packages"),
    ...names.map((name) => ({ bootsVm: false, run: () => runCheck(name) })),
    ...["abi", "sim"].flatMap((suite) => jobsOf(suite)),
    ...jobsOf("vm", nameOf, true),
    ...jobsOf("installed", () => "installed", true),
  ];
}

/** The test files of each suite that the words ask for. */
function selectFiles(words: readonly string[]): Map<string, string[]> {
  const selected = new Map<string, string[]>();
  const used = new Set<string>(words.filter((word) => word in staticChecks));
  for (const suite of suiteNames) {
    const files = suiteFiles(suite).filter((file) => {
      const hits = words.filter((word) =>
        isSuite(word) ? word === suite : file.includes(word) && !(word in staticChecks)
      );
      for (const word of hits) used.add(word);
      return words.length === 0 ? !suitesByName.includes(suite) : hits.length > 0;
    });
    selected.set(suite, files);
  }
  const unknown = words.find((word) => !used.has(word));
  if (unknown !== undefined) {
    throw new UserError(`Cannot run "${unknown}": no suite, check or test file has that name (--help lists them)`);
  }
  return selected;
}

/** The name of a suite means that suite, and no file that has it in its path as well (device/debian_unit). */
function isSuite(word: string): boolean {
  return suiteNames.some((name) => name === word);
}

function toScale(text: string): number {
  const scale = Number(text);
  if (!(scale > 0)) throw new UserError(`Cannot use --scale ${text}: it is a number above 0, such as 0.1 or 10`);
  return scale;
}

function toCount(option: string, text: string): number {
  const count = Number(text);
  if (!(Number.isInteger(count) && count > 0)) {
    throw new UserError(`Cannot use ${option} ${text}: it is a whole number above 0`);
  }
  return count;
}

/** A VM keeps a processor busy, and the host has to have its memory, QEMU's own included. */
function vmsAtATime(memoryMiB = defaultMemoryMiB): number {
  const { available } = Deno.systemMemoryInfo();
  const fitting = Math.floor(available / ((memoryMiB + 1024) * 2 ** 20));
  return Math.max(1, Math.min(navigator.hardwareConcurrency, fitting));
}

/** Which device test files run on which kernel, and how much of it they do. */
type Plan = ReadonlyMap<string, { readonly files: readonly string[]; readonly scale: number }>;

function planDevices(files: readonly string[], kernels: string | undefined, everything: boolean): Plan {
  const asked = kernels === "all" ? kernelVersions : kernels?.split(",").filter((version) => version !== "");
  const full = { files, scale: 1 };
  if (asked !== undefined && asked.length > 0) return new Map(asked.map((version) => [version, full]));
  const smokeFiles = files.filter((file) => smokeTests.some((name) => file.endsWith(`/${name}_test.ts`)));
  const smoke = { files: smokeFiles, scale: smokeScale };
  const plan = fullKernels.map((version) => [version, full] as const);
  return new Map(everything ? [...plan, ...smokeKernels.map((version) => [version, smoke] as const)] : plan);
}

/** @param mayBeEmpty a part of the tests was asked for, which need not be one of these */
function recordHost(result: HostResult, mayBeEmpty: boolean): void {
  allCounts.push(result.counts);
  const { passed, failed, skipped } = result.counts;
  const isCheck = result.name in staticChecks;
  if (!isCheck && mayBeEmpty && passed + failed + skipped === 0) return;
  const said = isCheck ? (failed > 0 ? "FAILED" : "ok") : describe(result.counts);
  console.log(`${result.name.padEnd(14)} ${said} (${result.seconds.toFixed(1)} s)`);
  // Tables that a suite has made.
  for (const line of result.output.split("\n")) if (line.startsWith("| ")) console.log(line);
  if (failed === 0 && (isCheck || passed + skipped > 0)) return;
  failures.push({
    title: result.name,
    output: result.output,
    problems: [],
    rerun: `make test ARGS="${result.name}"`,
  });
}

interface DeviceRunOptions {
  readonly filter: string | undefined;
  readonly memoryMiB: number | undefined;
  readonly smp: number | undefined;
  readonly scale: number | undefined;
  readonly vms: number;
  readonly inPlace: (work: () => Promise<void>) => Promise<void>;
  readonly verbose: boolean;
}

/** The kernels in their order: the next one begins where the one before leaves a place free. */
async function runDevices(plan: Plan, options: DeviceRunOptions): Promise<void> {
  const running: Promise<readonly FileResult[]>[] = [];
  const kernels: TestedKernel[] = [];
  const [first] = plan.keys();
  for (const [version, { files, scale }] of plan) {
    const ready = await prepare(`dblock.ko for ${version}`, `make module KERNEL=${version}`, async () => {
      const kernel = await fetchKernel(version);
      return { kernel, moduleFile: await buildModule(kernel) };
    });
    if (ready === undefined) continue;
    const { architecture } = ready.kernel;
    const what = hasDeno(architecture) ? `${files.length} files` : "no Deno: the server in C";
    const record = recorder(`${ready.kernel.release}, ${what}`, version === first ? "" : ` (${version})`, options);
    if (!hasDeno(architecture)) {
      kernels.push(ready.kernel);
      running.push(started(runServerInC({ ...ready, ...options }, record)));
      continue;
    }
    const programFile = await prepare("dblock-ramdisk", "make executable", () => buildProgram(architecture));
    // Without it the other files still run, and the failure counts.
    const hasDebian = !files.some(wantsDebian) || !canHaveDebian(ready.kernel) ||
      await prepare("an image of Debian", 'make test ARGS="device/debian"', systemImage) !== undefined;
    kernels.push(ready.kernel);
    const tests = runDeviceTests({
      ...options,
      ...ready,
      programFile,
      files: files.filter((file) => hasDebian || !wantsDebian(file)),
      scale: scale * (options.scale ?? 1),
      onResult: record,
      onRepeat: (path) => console.log(`      a fault of the emulator took the VM down (int3); again: ${path}`),
      onOutput: options.verbose ? print : undefined,
    });
    running.push(started(tests));
  }
  accountFor(plan, kernels, (await Promise.all(running)).flat());
}

/** Says the title before the first result: until then other work has the places, and says how it ended. */
function recorder(title: string, note: string, { verbose }: DeviceRunOptions): (result: FileResult) => void {
  let isAnnounced = false;
  const announce = () => {
    if (!isAnnounced) console.log(`device         ${title}`);
    isAnnounced = true;
  };
  if (verbose) announce();
  return (result) => {
    announce();
    recordDevice(result, note);
  };
}

/** The failures for the account at the end, and the tables. */
function accountFor(plan: Plan, kernels: readonly TestedKernel[], results: readonly FileResult[]): void {
  for (const result of results) {
    allCounts.push(result.counts);
    if (result.verdict !== "fail" && result.verdict !== "lost") continue;
    failures.push({
      title: `${result.path} on ${result.kernel}`,
      output: result.output,
      problems: result.problems,
      rerun: `make test ARGS="--kernel ${result.kernel} ${result.path}"`,
      runDir: result.runDir,
    });
  }
  const ran = new Set(results.map(({ path }) => path));
  const planned = [...plan.values()].flatMap(({ files }) => files).filter((path) => ran.has(path));
  console.log(`\n${fileTable([...new Set([...planned, ...ran])], kernels, results)}`);
  console.log(`\n${kernelTable(kernels, results)}`);
  const figures = figureTable(kernels, results);
  if (figures !== "") console.log(`\n${figures}`);
}

/** Work that is waited for later: until then nobody takes its failure for one that nobody hears of. */
function started<T>(work: Promise<T>): Promise<T> {
  work.catch(() => {});
  return work;
}

async function runServerInC(
  options: Pick<PortableOptions, "kernel" | "moduleFile"> & DeviceRunOptions,
  record: (result: FileResult) => void,
): Promise<readonly FileResult[]> {
  const results: FileResult[] = [];
  await options.inPlace(async () => void results.push(await runPortable({ ...options, onOutput: print })));
  results.forEach(record);
  return results;
}

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}

/** Makes what the device tests need; a failure is recorded as one failed test, and the run goes on. */
async function prepare<T>(title: string, rerun: string, make: () => Promise<T>): Promise<T | undefined> {
  try {
    return await make();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    console.log(`build          ${title} FAILED`);
    allCounts.push({ passed: 0, failed: 1, skipped: 0 });
    failures.push({ title: `build of ${title}`, output: error.message, problems: [], rerun });
    return undefined;
  }
}

/** How the account calls a test file; `make test ARGS=` takes it, too. */
function nameOf(path: string): string {
  return path.replace("tests/", "").replace("_test.ts", "");
}

/** @param note follows the file's name */
function recordDevice(result: FileResult, note: string): void {
  const name = nameOf(result.path) + note;
  const pace = result.seconds / result.pacedSeconds;
  const time = `${result.seconds.toFixed(1)} s${pace >= 1.2 ? `, the machine ${pace.toFixed(1)} times slower` : ""}`;
  console.log(`  ${name.padEnd(34)} ${result.verdict.padEnd(5)} ${describe(result.counts)} (${time})`);
  for (const problem of result.problems.slice(0, 5)) console.log(`      ${problem}`);
}

function describe({ passed, failed, skipped }: Counts): string {
  return `${passed} passed${failed > 0 ? `, ${failed} FAILED` : ""}${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}

function printFailures(): void {
  for (const failure of failures) {
    console.log(`\n--- ${failure.title} ---`);
    const lines = failure.output.trimEnd().split("\n");
    if (lines.length > tailLines) console.log(`[${lines.length - tailLines} lines before these]`);
    console.log(lines.slice(-tailLines).join("\n"));
    for (const problem of failure.problems) console.log(`problem: ${problem}`);
    if (failure.runDir) console.log(`logs: ${failure.runDir.replace(`${projectDir}/`, "")}`);
    console.log(`again: ${failure.rerun}`);
  }
}

if (import.meta.main) await runMain(main);
