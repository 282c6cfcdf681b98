/**
 * `make test`: static checks, the suites on the host, then the device tests in a VM per kernel. The last line is
 * `N passed, N failed`, and the exit status is 1 if anything failed or nothing ran.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type FileResult, runDeviceTests, wantsDebian } from "./vm/device.ts";
import { buildProgram, hasDeno } from "./vm/architecture.ts";
import { buildDir, projectDir, runMain, UserError } from "./vm/host.ts";
import { systemImage } from "./vm/image.ts";
import { defaultKernel, fetchKernel, kernelVersions, otherKernelNames } from "./vm/kernels.ts";
import { buildModule } from "./vm/module.ts";
import { runPortable } from "./vm/portable.ts";
import { addCounts, type Counts } from "./vm/report.ts";
import { figureTable, fileTable, kernelTable, type TestedKernel } from "./vm/summary.ts";
import { canHaveDebian, defaultMemoryMiB } from "./vm/vm.ts";
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
/** Checks and suites on the host: each keeps one processor busy, or none. */
const jobsAtATime = 2;

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
  const started = performance.now();
  const selected = selectFiles(positionals);
  const jobs = hostJobs(selected, positionals, values.filter);
  const work = async () => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) recordHost(await job());
  };
  await Promise.all(Array.from({ length: jobsAtATime }, work));
  const deviceFiles = selected.get("device")!;
  if (deviceFiles.length > 0) {
    const memoryMiB = values.memory === undefined ? undefined : toCount("--memory", values.memory);
    await runDevices(planDevices(deviceFiles, values.kernel, positionals.length === 0), {
      filter: values.filter,
      memoryMiB,
      smp: values.smp === undefined ? undefined : toCount("--smp", values.smp),
      scale: values.scale === undefined ? undefined : toScale(values.scale),
      vms: values.vms === undefined ? values.verbose ? 1 : vmsAtATime(memoryMiB) : toCount("--vms", values.vms),
      verbose: values.verbose,
    });
  }
  printFailures();
  const { passed, failed, skipped } = addCounts(allCounts);
  console.log(`\n${((performance.now() - started) / 1000).toFixed(0)} s`);
  if (passed + failed + skipped === 0) console.log("no test ran");
  const lastLine = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
  await Deno.writeTextFile(join(buildDir, "test-result"), `${lastLine}\n`);
  console.log(lastLine);
  return failed > 0 || passed === 0 && positionals.every((word) => !(word in staticChecks)) ? 1 : 0;
}

/**
 * What runs on the host, in this order: the first suite, the unit tests, takes as long as the checks that run beside it. The
 * files of the harness's own suite are jobs of their own, so that the last job leaves no processor idle for long.
 */
function hostJobs(
  selected: ReadonlyMap<string, readonly string[]>,
  words: readonly string[],
  filter: string | undefined,
): (() => Promise<HostResult>)[] {
  const suites = [...selected].filter(([suite]) => suite !== "device").flatMap(([suite, files]) => {
    if (suite !== "vm") return files.length > 0 ? [() => runSuite(suite, files, filter)] : [];
    return files.map((file) => () => runSuite(nameOf(file), [file], filter));
  });
  const names = Object.keys(staticChecks).filter((name) => words.length === 0 || words.includes(name));
  const checks = names.map((name) => () => runCheck(name));
  return [...suites.slice(0, 1), ...checks, ...suites.slice(1)];
}

/** The test files of each suite that the words ask for. */
function selectFiles(words: readonly string[]): Map<string, string[]> {
  const selected = new Map<string, string[]>();
  const used = new Set<string>(words.filter((word) => word in staticChecks));
  for (const suite of suiteNames) {
    const files = suiteFiles(suite).filter((file) => {
      const hits = words.filter((word) => word === suite || (file.includes(word) && !(word in staticChecks)));
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

function recordHost(result: HostResult): void {
  allCounts.push(result.counts);
  const { passed, failed, skipped } = result.counts;
  const isCheck = result.name in staticChecks;
  const said = isCheck ? (failed > 0 ? "FAILED" : "ok") : describe(result.counts);
  console.log(`${result.name.padEnd(8)} ${said} (${result.seconds.toFixed(1)} s)`);
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
  readonly verbose: boolean;
}

async function runDevices(
  plan: Plan,
  options: DeviceRunOptions,
): Promise<void> {
  const results: FileResult[] = [];
  const kernels: TestedKernel[] = [];
  for (const [version, { files, scale }] of plan) {
    const ready = await prepare(`dblock.ko for ${version}`, `make module KERNEL=${version}`, async () => {
      const kernel = await fetchKernel(version);
      return { kernel, moduleFile: await buildModule(kernel) };
    });
    if (ready === undefined) continue;
    const { architecture } = ready.kernel;
    if (!hasDeno(architecture)) {
      kernels.push(ready.kernel);
      console.log(`device   ${ready.kernel.release}, no Deno: the server in C`);
      const { memoryMiB, smp } = options;
      results.push(await runPortable({ ...ready, memoryMiB, smp, onOutput: print }));
      recordDevice(results.at(-1)!);
      continue;
    }
    const programFile = await prepare("dblock-ramdisk", "make executable", () => buildProgram(architecture));
    // Without it the other files still run, and the failure counts.
    const hasDebian = !files.some(wantsDebian) || !canHaveDebian(ready.kernel) ||
      await prepare("an image of Debian", 'make test ARGS="device/debian"', systemImage) !== undefined;
    kernels.push(ready.kernel);
    console.log(`device   ${ready.kernel.release}, ${files.length} files`);
    results.push(
      ...await runDeviceTests({
        ...options,
        ...ready,
        programFile,
        files: files.filter((file) => hasDebian || !wantsDebian(file)),
        scale: scale * (options.scale ?? 1),
        onResult: recordDevice,
        onRepeat: (path) => console.log(`      a fault of the emulator took the VM down (int3); again: ${path}`),
        onOutput: options.verbose ? print : undefined,
      }),
    );
  }
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

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}

/** Makes what the device tests need; a failure is recorded as one failed test, and the run goes on. */
async function prepare<T>(title: string, rerun: string, make: () => Promise<T>): Promise<T | undefined> {
  try {
    return await make();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    console.log(`build    ${title} FAILED`);
    allCounts.push({ passed: 0, failed: 1, skipped: 0 });
    failures.push({ title: `build of ${title}`, output: error.message, problems: [], rerun });
    return undefined;
  }
}

/** How the account calls a test file; `make test ARGS=` takes it, too. */
function nameOf(path: string): string {
  return path.replace("tests/", "").replace("_test.ts", "");
}

function recordDevice(result: FileResult): void {
  const name = nameOf(result.path);
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
