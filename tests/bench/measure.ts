/** Boots a VM that measures a plan, and hands back its lines. */
import { dirname, join } from "node:path";
import { buildProgram } from "../vm/architecture.ts";
import { buildDir, projectDir, run } from "../vm/host.ts";
import { fetchKernel, type Kernel } from "../vm/kernels.ts";
import { buildModule } from "../vm/module.ts";
import { isEmulatorFault, runVm, type VmResult } from "../vm/vm.ts";
import { type Line, type Plan, planPath, scratchSerial, ublkServerPath } from "./plan.ts";

/** What is measured, and on what. */
export interface Subject {
  readonly kernel: Kernel;
  readonly moduleFile: string;
  readonly programFile: string;
  /** The project's files. @default this checkout */
  readonly sourceDir?: string;
  /** The server behind ublk. */
  readonly ublkFile: string;
}

/** Options of {@linkcode measure}. */
export interface MeasureOptions {
  /** @default 2, or 1 where instructions are counted */
  readonly processors?: number;
  /** Count instructions instead of time: what else the machine does then changes no figure. @default false */
  readonly counted?: boolean;
  /** Called with each line as it comes. */
  readonly onLine?: (line: Line) => void;
}

/** Ten disks of 512 MiB, and the servers. */
const memoryMiB = 8192;
/** Two disks of 512 MiB, and a file system. */
const scratchMiB = 2304;
const startMs = 180_000;
/** What a run of fio takes at most beside its own time; far more than it usually does. */
const fioOverheadMs = 10_000;
const repeatsMax = 2;
/** A second of counted instructions (4 ns each) takes 3 seconds on a machine with nothing else to do. */
const countedSlowness = 10;

/** Builds what is to be measured. */
export async function prepare(version: string): Promise<Subject> {
  const kernel = await fetchKernel(version);
  const programFile = await buildProgram(kernel.architecture);
  return { kernel, moduleFile: await buildModule(kernel), programFile, ublkFile: await buildUblkServer() };
}

async function buildUblkServer(): Promise<string> {
  const file = join(buildDir, "bench", "ublk_memory");
  await Deno.mkdir(dirname(file), { recursive: true });
  // Static: the VM's C library is of another release than this machine's may be.
  await run(["gcc", "-O2", "-Wall", "-Wextra", "-static", "-o", file, join(projectDir, "tests/bench/ublk_memory.c")]);
  return file;
}

/** What a plan gave. */
export interface Measured {
  readonly lines: Line[];
  /** Why the VM did not come to the plan's end; the lines are those it got to. */
  readonly problem?: string;
}

/** Measures a plan in a VM of its own, and in another if the emulator was at fault. */
export async function measure(subject: Subject, plan: Plan, options: MeasureOptions = {}): Promise<Measured> {
  for (let repeats = 0;; repeats++) {
    const lines: Line[] = [];
    const result = await runPlan(subject, plan, options, lines);
    if (result.verdict === "pass") return { lines };
    if (repeats === repeatsMax || !isEmulatorFault(result.consoleLog)) {
      const problem = `The bench did not come to its end: ${result.reason}`;
      return { lines, problem: `${problem}\n${result.output.slice(-3000)}\nlogs: ${result.runDir}` };
    }
    console.log("a fault of the emulator took the VM down (int3); again");
  }
}

async function runPlan(subject: Subject, plan: Plan, options: MeasureOptions, lines: Line[]): Promise<VmResult> {
  const runs = plan.series.reduce((sum, { disks, jobs, rounds }) => sum + disks.length * jobs.length * rounds, 0);
  const { counted = false, processors = counted ? 1 : undefined } = options;
  const perRunMs = (plan.runtimeMs + plan.rampMs + fioOverheadMs) * (counted ? countedSlowness : 1);
  await using scratch = await sparseFile(join(buildDir, "bench", scratchSerial), scratchMiB * 2 ** 20);
  return await runVm({
    ...subject,
    command: "insmod kmod/dblock.ko && " +
      "exec deno run --allow-all --no-check --import-map=src/build/standins/import_map.json tests/bench/guest.ts",
    files: { [planPath]: JSON.stringify(plan), [ublkServerPath]: await Deno.readFile(subject.ublkFile) },
    timeoutMs: startMs + runs * perRunMs,
    smp: processors,
    counted,
    memoryMiB,
    furtherDisks: [{ name: scratchSerial, file: scratch.path }],
    onReport: (text) => {
      const line = JSON.parse(text) as Line;
      lines.push(line);
      options.onLine?.(line);
    },
  });
}

/** A new file of zeroes, which takes no space; disposing removes it. */
async function sparseFile(path: string, sizeBytes: number): Promise<AsyncDisposable & { readonly path: string }> {
  await Deno.writeFile(path, new Uint8Array());
  await Deno.truncate(path, sizeBytes);
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path) };
}
