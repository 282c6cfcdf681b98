/**
 * Runs device test files in VMs from the host, several at a time: follows their reports, and starts a new VM for the
 * remaining files when one is lost or its kernel is no longer as it was.
 */
import { join } from "node:path";
import { projectDir } from "./host.ts";
import { type DiskImage, systemImage } from "./image.ts";
import type { Kernel } from "./kernels.ts";
import { PacedClock } from "./pace.ts";
import { buildPortableServer, portableServerPath } from "./portable.ts";
import { addCounts, type Counts, type Plan, type PlannedFile, type ReportLine } from "./report.ts";
import { canHaveDebian, isEmulatorFault, runVm, type VmResult } from "./vm.ts";

const defaultLimitMs = 120_000;
/** Silence of the VM's runner, which says "alive" every second, for this long means that the VM is lost. */
const defaultSilenceMs = 30_000;
/** What the runner in the VM may take to start, and to clean up after a file. */
const overheadMs = 60_000;
/** A whole Debian boots in 10 s on a machine with nothing else to do, and reads much more of the host's disk meanwhile. */
const debianBootMs = 240_000;
/** As often as this in a run, a file whose VM was lost to {@linkcode isEmulatorFault} gets another VM. */
const repeatsMax = 2;

/** How a test file did on a kernel. */
export interface FileResult {
  readonly path: string;
  readonly kernel: string;
  readonly verdict: "pass" | "fail" | "skip" | "lost";
  /** A file that is lost, or whose kernel complained, counts as one failed test more. */
  readonly counts: Counts;
  readonly seconds: number;
  /** As many seconds would have passed on a machine with nothing else to do. */
  readonly pacedSeconds: number;
  /** Why it is not a pass, one line each. */
  readonly problems: readonly string[];
  readonly output: string;
  /** Where the VM's logs are. */
  readonly runDir: string;
  /** How long the machine took to end after this file, the last of its VM, as an idle machine counts time. */
  readonly endSeconds?: number | undefined;
}

/** Options of {@linkcode runDeviceTests}. */
export interface DeviceOptions {
  readonly kernel: Kernel;
  /** Paths relative to the project. */
  readonly files: readonly string[];
  /** As `deno test --filter` takes it. */
  readonly filter?: string | undefined;
  readonly moduleFile?: string | undefined;
  readonly programFile?: string | undefined;
  readonly memoryMiB?: number | undefined;
  readonly smp?: number | undefined;
  /** As {@linkcode VmOptions.diskFile}: the tests run on that machine. */
  readonly diskFile?: string | undefined;
  /** As {@linkcode VmOptions.initrdFile}. */
  readonly initrdFile?: string | undefined;
  /** As {@linkcode VmOptions.furtherDisks}. */
  readonly furtherDisks?: readonly DiskImage[] | undefined;
  /** What tests count is multiplied by this, and so are their time limits where it is above 1. @default 1 */
  readonly scale?: number | undefined;
  /** @default 30000 */
  readonly silenceMs?: number | undefined;
  /** How many VMs run at a time. @default 1 */
  readonly vms?: number | undefined;
  /** Does what a VM does after another when there is a place for it, beside other work. @default at once */
  readonly inPlace?: ((work: () => Promise<void>) => Promise<void>) | undefined;
  /** Called with what the tests print, as they print it. */
  readonly onOutput?: ((text: string) => void) | undefined;
  /** Called when a file is through. */
  readonly onResult?: ((result: FileResult) => void) | undefined;
  /** Called when a file runs again because of {@linkcode isEmulatorFault}. */
  readonly onRepeat?: ((path: string) => void | Promise<void>) | undefined;
}

/** Runs the files, as many VMs at a time as are asked for, or have a place. Returns the results in the order of the files. */
export async function runDeviceTests(options: DeviceOptions): Promise<FileResult[]> {
  const results: FileResult[] = [];
  const { files, vms = 1 } = options;
  let repeats = 0;
  const queue = shares(options);
  const work = async () => {
    for (let share = queue.shift(); share !== undefined; share = queue.shift()) {
      const { memoryMiB = share.machine.memoryMiB, smp = share.machine.smp } = options;
      let remaining = share.files;
      while (remaining.length > 0) {
        const mayRepeat = repeats < repeatsMax;
        const round = await runRound({ ...options, ...share.machine, memoryMiB, smp }, remaining, mayRepeat);
        results.push(...round.results);
        remaining = remaining.slice(round.results.length);
        if (!round.isFaulty) continue;
        repeats++;
        if (remaining.length > 0) await options.onRepeat?.(remaining[0]!.path);
      }
    }
  };
  await Promise.all(Array.from({ length: vms }, () => options.inPlace?.(work) ?? work()));
  return results.sort((a, b) => files.indexOf(a.path) - files.indexOf(b.path));
}

/** What one VM does before another is started. */
interface Share {
  readonly machine: Machine;
  readonly files: readonly PlannedFile[];
}

/** A share of fewer files is not worth the start and the end of a VM of its own. */
const filesPerShare = 4;

/**
 * Deals out the files, one share for each VM: another VM's start and end take as long as several files. Files that want a
 * machine of another kind come last, in shares of their own, and the VM that is free first takes the next of them. Files that
 * may take long come first in their share, and are spread over the shares.
 */
function shares(options: DeviceOptions): Share[] {
  const { files, vms = 1 } = options;
  const factor = limitFactor(options);
  const groups = Map.groupBy(files, (path) => JSON.stringify(machineOf(path)));
  return [...groups].sort(([a], [b]) => a.length - b.length).flatMap(([key, paths]) => {
    const planned = paths.map((path) => planFile(path, factor));
    const count = vms === 1 ? 1 : Math.min(vms, Math.ceil(planned.length / filesPerShare));
    if (count > 1) planned.sort((a, b) => b.limitMs - a.limitMs);
    return Array.from({ length: count }, (_, i) => ({
      machine: JSON.parse(key) as Machine,
      files: planned.filter((_, j) => j % count === i),
    }));
  });
}

/** What a test file wants its VM to have; what is undefined does not matter to it. */
interface Machine {
  readonly memoryMiB?: number | undefined;
  readonly smp?: number | undefined;
  /** A whole Debian, where the kernel can have it. */
  readonly debian?: boolean | undefined;
  /** Further words of the kernel's command line. */
  readonly extraCmdline?: string | undefined;
}

/** Whether a test file wants a whole Debian. */
export function wantsDebian(path: string): boolean {
  return /^\/\/ machine: debian$/m.test(Deno.readTextFileSync(join(projectDir, path)));
}

function machineOf(path: string): Machine {
  const source = Deno.readTextFileSync(join(projectDir, path));
  const wanted = (pattern: RegExp) => pattern.exec(source)?.[1];
  const memory = wanted(/^\/\/ memory: (\d+) MiB$/m);
  const processors = wanted(/^\/\/ processors: (\d+)$/m);
  return {
    memoryMiB: memory === undefined ? undefined : Number(memory),
    smp: processors === undefined ? undefined : Number(processors),
    debian: wantsDebian(path) || undefined,
    extraCmdline: wanted(/^\/\/ kernel: (.+)$/m),
  };
}

function limitFactor({ kernel, scale = 1 }: Pick<DeviceOptions, "kernel" | "scale">): number {
  return kernel.slowness * Math.max(1, scale);
}

/** How long a test file may take. */
export function limitSeconds(path: string, options: Pick<DeviceOptions, "kernel" | "scale">): number {
  return planFile(path, limitFactor(options)).limitMs / 1000;
}

function planFile(path: string, factor: number): PlannedFile {
  const source = Deno.readTextFileSync(join(projectDir, path));
  const seconds = /^\/\/ time limit: (\d+) s$/m.exec(source)?.[1];
  return { path, limitMs: (seconds === undefined ? defaultLimitMs : Number(seconds) * 1000) * factor };
}

/** One VM's life: the results of the files it got through, at least one unless the emulator was at fault. */
interface Round {
  readonly results: readonly FileResult[];
  readonly isFaulty: boolean;
}

async function runRound(
  options: DeviceOptions & Machine,
  files: readonly PlannedFile[],
  mayRepeat: boolean,
): Promise<Round> {
  const debian = options.debian && canHaveDebian(options.kernel);
  // Minutes, the first time: not the VM's, which the watch begins to count.
  if (debian) await systemImage();
  const watch = new Watch(options, files);
  const { slowness } = options.kernel;
  const plan: Plan = { kernelSlowness: slowness, files, filter: options.filter };
  const limitsMs = files.reduce((sum, file) => sum + file.limitMs + overheadMs * slowness, overheadMs * slowness);
  const vm = await runVm({
    kernel: options.kernel,
    command: `DBLOCK_TEST_SCALE=${
      options.scale ?? 1
    } exec deno run --allow-all --no-check tests/vm/guest.ts /plan.json`,
    files: {
      "/plan.json": JSON.stringify(plan),
      [portableServerPath]: await Deno.readFile(await buildPortableServer(options.kernel.architecture)),
    },
    // The watch, which knows how slow the processor is, gives it up long before.
    timeoutMs: limitsMs * 10,
    moduleFile: options.moduleFile,
    programFile: options.programFile,
    memoryMiB: options.memoryMiB,
    smp: options.smp,
    debian,
    diskFile: options.diskFile,
    initrdFile: options.initrdFile,
    furtherDisks: options.furtherDisks,
    extraCmdline: options.extraCmdline,
    signal: watch.signal,
    tellsPace: true,
    onPace: (slowness) => watch.pace(slowness),
    onReport: (line) => watch.hear(JSON.parse(line) as ReportLine),
    onOutput: options.onOutput,
  });
  watch.stop();
  return watch.finish(vm, mayRepeat);
}

/** Follows one VM's reports and gives it up when it falls silent or a file runs far over its limit. */
class Watch {
  readonly #options: DeviceOptions & Machine;
  readonly #files: readonly PlannedFile[];
  readonly #abort = new AbortController();
  readonly #results: { readonly path: string; readonly line: ReportLine & { type: "end" } }[] = [];
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #clock = new PacedClock();
  #processor = 1;
  /** The last report, and the beginning of the file that runs, both on the clock. */
  #heardMs = 0;
  #begunMs: number | undefined;
  #begunAt = 0;

  constructor(options: DeviceOptions & Machine, files: readonly PlannedFile[]) {
    this.#options = options;
    this.#files = files;
    this.#timer = setInterval(() => this.#check(), 250);
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** The machine's pace from now on. */
  pace(slowness: number): void {
    this.#clock.tick();
    this.#clock.slowness = slowness;
  }

  hear(line: ReportLine): void {
    this.#heardMs = this.#clock.tick();
    if (line.type === "begin") [this.#begunMs, this.#begunAt] = [this.#heardMs, performance.now()];
    if (line.type === "processor") this.#processor = line.slowness;
    if (line.type !== "end") return;
    this.#begunMs = undefined;
    this.#results.push({ path: line.path, line });
    this.#options.onResult?.(this.#toResult(line));
  }

  #check(): void {
    const now = this.#clock.tick();
    const file = this.#files[this.#results.length];
    const slowness = this.#options.kernel.slowness * this.#processor;
    const isBooting = this.#heardMs === 0;
    const isDebian = this.#options.debian || this.#options.diskFile !== undefined;
    const overhead = (isBooting && isDebian ? debianBootMs : overheadMs) * slowness;
    if (this.#begunMs === undefined) {
      // Booting, or between two files: nothing there takes long.
      if (now - this.#heardMs > overhead) this.#abort.abort(`no test begun within ${overhead / 1000} s`);
      return;
    }
    const silenceMs = (this.#options.silenceMs ?? defaultSilenceMs) * slowness;
    if (now - this.#heardMs > silenceMs) this.#abort.abort(`silent for ${silenceMs / 1000} s`);
    if (file === undefined) return;
    // The runner in the VM may put the limit off once more; this is for one that does not end the file at all.
    const limitMs = 2 * file.limitMs * this.#processor + overhead;
    if (now - this.#begunMs > limitMs) this.#abort.abort(`no end within ${limitMs / 1000} s`);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  finish(vm: VmResult, mayRepeat: boolean): Round {
    const results = this.#results.map(({ line }) => this.#toResult(line, vm));
    const isCutShort = results.length < this.#files.length && !this.#results.at(-1)?.line.isDirty;
    if (vm.verdict === "pass" && !isCutShort) return { results, isFaulty: false };
    if (mayRepeat && isEmulatorFault(vm.consoleLog)) return { results, isFaulty: true };
    const file = this.#files[results.length];
    // The VM did its last file and then did not end well: nothing is left to blame but that file.
    const path = file?.path ?? this.#files.at(-1)!.path;
    const lost: FileResult = {
      path,
      kernel: this.#options.kernel.version,
      verdict: "lost",
      counts: { passed: 0, failed: 1, skipped: 0 },
      seconds: this.#begunMs === undefined ? 0 : (performance.now() - this.#begunAt) / 1000,
      pacedSeconds: this.#begunMs === undefined ? 0 : (this.#clock.tick() - this.#begunMs) / 1000,
      problems: [`the VM was lost: ${vm.reason || "its test runner ended early"}`],
      output: `${vm.output.slice(-4000)}\n--- the kernel's last words ---\n${lastWords(vm.consoleLog)}`,
      runDir: vm.runDir,
    };
    this.#options.onResult?.(lost);
    return { results: file === undefined ? [...results.slice(0, -1), lost] : [...results, lost], isFaulty: false };
  }

  #toResult(line: ReportLine & { type: "end" }, vm?: VmResult): FileResult {
    const problems = [...line.problems];
    let counts = line.counts ?? { passed: 0, failed: 0, skipped: 0 };
    if (line.counts === undefined && problems.length === 0) problems.push("ended without a summary");
    else if (
      line.counts !== undefined && counts.passed + counts.failed + counts.skipped === 0 && !this.#options.filter
    ) {
      problems.push("has no tests");
    }
    if (problems.length > 0) counts = addCounts([counts, { passed: 0, failed: 1, skipped: 0 }]);
    const skips = [...line.output.matchAll(/^skip: (.*)$/gm)].map((match) => `skipped: ${match[1]}`);
    let verdict: FileResult["verdict"] = "pass";
    if (counts.failed > 0) verdict = "fail";
    else if (counts.passed === 0) verdict = "skip";
    return {
      path: line.path,
      kernel: this.#options.kernel.version,
      verdict,
      counts,
      seconds: line.seconds,
      pacedSeconds: line.pacedSeconds,
      problems: [...problems, ...skips],
      output: line.output,
      runDir: vm?.runDir ?? "",
      endSeconds: vm?.endSeconds,
    };
  }
}

/** The end of the kernel's log, from the line on that says what went wrong where there is one. */
function lastWords(consoleLog: string): string {
  const lines = consoleLog.trimEnd().split("\n");
  const first = lines.findIndex((line) => /WARNING:|BUG:|Oops|Kernel panic|blocked for more than/.test(line));
  return (first < 0 ? lines.slice(-15) : lines.slice(Math.max(0, first - 5), first + 45)).join("\n");
}
