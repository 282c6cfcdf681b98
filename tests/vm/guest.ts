/**
 * Runs test files inside the VM, one after another, each in a process of its own with a time limit, and looks at the
 * kernel after each. Started by device.ts on the host, which hears from it through the report port.
 */
import { badKernelLines } from "./dmesg.ts";
import { findLeaks, hasKmemleak, scanForLeaks } from "./kmemleak.ts";
import { measureProcessor, PacedClock, pacedMs, pacePort, type PaceSample, uptimeSeconds, writePace } from "./pace.ts";
import { type Counts, parseTestSummary, type Plan, type PlannedFile, type ReportLine } from "./report.ts";

const moduleFile = "kmod/dblock.ko";
const aliveIntervalMs = 1_000;
/** How long a killed test, its servers and its devices may take to be gone, as an idle machine counts time. */
const settleLimitMs = 8_000;
/** A file that is over its limit, and has said nothing for so long or for this part of the limit, is killed. */
const quietLimitMs = 30_000;
const quietPart = 1 / 4;
/** And at the latest after so many times its limit. */
const extensionMax = 2;
/** Samples older than this are of no use to a test. */
const paceKeptSeconds = 900;
/** What qemu.ts has the kernel begin with. */
const stallSeconds = 60;
const maxOutputChars = 100_000;

const reportPort = Deno.openSync("/dev/virtio-ports/report", { write: true });

function report(line: ReportLine): void {
  const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
  for (let written = 0; written < bytes.length;) written += reportPort.writeSync(bytes.subarray(written));
}

async function main(): Promise<void> {
  const plan = JSON.parse(Deno.readTextFileSync(Deno.args[0]!)) as Plan;
  const processor = measureProcessor();
  report({ type: "processor", slowness: processor });
  kernelSlowness = plan.kernelSlowness;
  slowness = kernelSlowness * processor;
  Deno.env.set("DBLOCK_TEST_KERNEL_SLOWNESS", `${plan.kernelSlowness}`);
  Deno.env.set("DBLOCK_TEST_SLOWNESS", `${slowness}`);
  void followPace();
  const alive = setInterval(() => report({ type: "alive" }), aliveIntervalMs);
  for (const file of plan.files) {
    report({ type: "begin", path: file.path });
    const started = performance.now();
    const { counts, output, problems, isDirty } = await runFile(file, plan.filter, file === plan.files.at(-1));
    const seconds = (performance.now() - started) / 1000;
    const pacedSeconds = pacedMs(seconds * 1000) / 1000;
    report({
      type: "end",
      path: file.path,
      ...(counts && { counts }),
      problems,
      seconds,
      pacedSeconds,
      output,
      isDirty,
    });
    // A kernel that is not as before would blame the next file for what this one did.
    if (isDirty) break;
  }
  clearInterval(alive);
}

let kernelSlowness = 1;
/** What the machine that is idle is multiplied by: the kernel's slowness and the processor's. */
let slowness = 1;
/** What the host said last: how much other work slows the VM just now. */
let pace = 1;

/** Keeps what the host says of the machine's pace where tests find it, and lets the kernel's own limits follow it. */
async function followPace(): Promise<void> {
  const path = `/dev/virtio-ports/${pacePort}`;
  if (!exists(path)) return;
  let samples: PaceSample[] = [];
  let patience = 1;
  const file = await Deno.open(path);
  let rest = "";
  for await (const text of file.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    const now = uptimeSeconds();
    const sample = { atSeconds: now, slowness: Math.max(1, Number(lines.at(-1) ?? 1)) };
    if (lines.length === 0) continue;
    pace = sample.slowness;
    samples = [...samples.filter((old) => old.atSeconds > now - paceKeptSeconds), sample];
    writePace(samples);
    if (pace > patience) setKernelLimits((patience = Math.ceil(pace)) * slowness);
  }
}

/** How long the kernel waits before it takes a task or a processor for stuck. */
function setKernelLimits(factor: number): void {
  Deno.writeTextFileSync("/proc/sys/kernel/hung_task_timeout_secs", `${Math.ceil(stallSeconds * factor)}`);
  Deno.writeTextFileSync(
    "/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout",
    `${Math.min(300, Math.ceil(stallSeconds * factor))}`,
  );
}

interface FileOutcome {
  readonly counts: Counts | undefined;
  readonly output: string;
  readonly problems: string[];
  readonly isDirty: boolean;
}

async function runFile(file: PlannedFile, filter: string | undefined, isLast: boolean): Promise<FileOutcome> {
  const problems: string[] = [];
  const mark = `dblock-test: ${file.path} ${crypto.randomUUID()}`;
  Deno.writeTextFileSync("/dev/kmsg", `${mark}\n`);
  const hasModule = exists(moduleFile);
  // What one file leaves in /tmp is never in another's way. On a whole Debian the folder is systemd's.
  const hasFolder = !isDebian();
  if (hasFolder) problems.push(...await command(["mount", "-t", "tmpfs", "tmpfs", "/tmp"]));
  if (hasModule) problems.push(...await command(["insmod", moduleFile]));
  const { output, isStuck } = await runTest(file, filter, problems);
  const counts = parseTestSummary(output);
  const stuck = isStuck ? ["a process cannot be killed"] : await killLeftovers(problems);
  if (hasModule && stuck.length === 0) stuck.push(...await unloadModule());
  if (hasFolder && stuck.length === 0) stuck.push(...await command(["umount", "/tmp"]));
  problems.push(...stuck);
  if (hasKmemleak()) problems.push(...await leaks(isLast));
  problems.push(...badKernelLines(await kernelLinesSince(mark), Deno.readTextFileSync(file.path)));
  return { counts, output: output.slice(-maxOutputChars), problems, isDirty: stuck.length > 0 };
}

/** Runs one file in a session of its own; kills all of it at the time limit. */
async function runTest(
  file: PlannedFile,
  filter: string | undefined,
  problems: string[],
): Promise<{ output: string; isStuck: boolean }> {
  // Types are checked on the host.
  const options = ["--allow-all", "--no-check", "--import-map=src/build/standins/import_map.json"];
  const args = ["run", ...options, "tests/vm/file_runner.ts", file.path, filter ?? ""];
  // setsid makes the process the leader of a group that can be killed as one.
  const test = new Deno.Command("setsid", {
    args: ["deno", ...args],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let output = "";
  const limit = new FileLimit(file.limitMs * slowness / kernelSlowness);
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      limit.hear();
      output += decoder.decode(chunk, { stream: true });
      Deno.stdout.writeSync(chunk);
    }
  };
  // A server that outlives the test keeps these pipes open, so their end is not waited for.
  const streams = Promise.all([collect(test.stdout), collect(test.stderr)]);
  if (!await limit.holds(test.status)) {
    problems.push(`no end within ${limit.describe()}`);
    output += await describeTasks();
    await new Deno.Command("kill", { args: ["-KILL", "--", `-${test.pid}`] }).output();
    if (await within(test.status, settleLimitMs * slowness * pace) === undefined) return { output, isStuck: true };
  }
  await within(streams, 200);
  return { output, isStuck: false };
}

/** A file's time limit: it follows the machine's pace, and is put off while the file still says something. */
class FileLimit {
  readonly #limitMs: number;
  readonly #clock = new PacedClock();
  readonly #startedAt = performance.now();
  #heardMs = 0;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** The file said something. */
  hear(): void {
    this.#heardMs = this.#clock.tick();
  }

  /** Waits for the end of a process; false if the limit comes first. */
  async holds(status: Promise<unknown>): Promise<boolean> {
    let hasEnded = false;
    const ended = status.then(() => hasEnded = true);
    while (!hasEnded) {
      this.#clock.slowness = pace;
      if (this.#isOver(this.#clock.tick())) return false;
      await within(ended, 200);
    }
    return true;
  }

  #isOver(nowMs: number): boolean {
    if (nowMs <= this.#limitMs) return false;
    const quietMs = Math.min(quietLimitMs * slowness, this.#limitMs * quietPart);
    return nowMs - this.#heardMs > quietMs || nowMs > this.#limitMs * extensionMax;
  }

  describe(): string {
    const seconds = (performance.now() - this.#startedAt) / 1000;
    const paced = this.#clock.ms / 1000;
    const note = seconds > 1.2 * paced ? `; these were ${seconds.toFixed(0)} s on a machine with other work` : "";
    return `${this.#limitMs / 1000} s${note}`;
  }
}

/** What every process waits for: what one wants to know of a test that hangs. */
async function describeTasks(): Promise<string> {
  const { stdout } = await new Deno.Command("ps", {
    args: ["-eLo", "pid,tid,stat,wchan:30,args", "--ppid", "2", "--pid", "2", "--deselect"],
  }).output();
  let text = `\n--- tasks at the time limit ---\n${new TextDecoder().decode(stdout)}`;
  for (const { name: pid } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      for (const { name: tid } of Deno.readDirSync(`/proc/${pid}/task`)) {
        const stat = Deno.readTextFileSync(`/proc/${pid}/task/${tid}/stat`);
        if (!/\) D /.test(stat)) continue;
        text += `--- ${stat.slice(0, 40)}\n${Deno.readTextFileSync(`/proc/${pid}/task/${tid}/stack`)}`;
      }
    } catch {
      // It ended meanwhile.
    }
  }
  return text;
}

/** Kills what the test left running and says what it was. Returns what cannot be killed. */
async function killLeftovers(problems: string[]): Promise<string[]> {
  // On a whole Debian a test runs as a service; other services' processes come and go as they like.
  const group = isDebian() ? Deno.readTextFileSync("/proc/self/cgroup") : undefined;
  const isOurs = (pid: number) => {
    if (pid === 1 || pid === Deno.pid || pid === Deno.ppid) return true;
    return group !== undefined && Deno.readTextFileSync(`/proc/${pid}/cgroup`) !== group;
  };
  const list = () => {
    const found: { pid: number; name: string }[] = [];
    for (const { name } of Deno.readDirSync("/proc")) {
      const pid = Number(name);
      if (!Number.isInteger(pid)) continue;
      try {
        if (isOurs(pid)) continue;
        const words = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").join(" ").trim();
        // Kernel threads have no command line, and the dead have none either.
        if (words !== "") found.push({ pid, name: words });
      } catch {
        // It ended meanwhile.
      }
    }
    return found;
  };
  const leftovers = list();
  if (leftovers.length === 0) return [];
  problems.push(...leftovers.map(({ name }) => `left running: ${name.slice(0, 120)}`));
  for (const { pid } of leftovers) {
    try {
      Deno.kill(pid, "SIGKILL");
    } catch {
      // It ended meanwhile.
    }
  }
  const isGone = await poll(() => list().length === 0);
  return isGone ? [] : list().map(({ name }) => `cannot be killed: ${name.slice(0, 120)}`);
}

/** Checks that no device is left and that the module unloads. Returns what stands against it. */
async function unloadModule(): Promise<string[]> {
  // A device whose server has just ended may take a moment to go.
  const leftDevices = () =>
    [...Deno.readDirSync("/dev")].filter((entry) => entry.name.endsWith("-ctl")).map((entry) =>
      `left behind: /dev/${entry.name}`
    );
  await poll(() => leftDevices().length === 0);
  const left = leftDevices();
  if (left.length > 0) return left;
  if (!exists("/sys/module/dblock")) return ["the test left the module unloaded"];
  const references = () => Deno.readTextFileSync("/sys/module/dblock/refcnt").trim();
  if (!await poll(() => references() === "0")) return [`module dblock is still referenced ${references()} times`];
  return await command(["rmmod", "dblock"]);
}

/** What this file has leaked, or one before it: a scan finds what the scan before it saw first. */
async function leaks(isLast: boolean): Promise<string[]> {
  const report = isLast ? await findLeaks() : scanForLeaks();
  return report === "" ? [] : [`kmemleak, in this test file or in one before it:\n${report}`];
}

async function kernelLinesSince(mark: string): Promise<string[]> {
  const { stdout } = await new Deno.Command("dmesg", { args: ["--notime"] }).output();
  const lines = new TextDecoder().decode(stdout).split("\n");
  // Without the mark the buffer has wrapped around; then all of it is newer.
  return lines.slice(lines.findLastIndex((line) => line.includes(mark)) + 1);
}

/** Runs a command; returns what is wrong with it, if anything. */
async function command(words: readonly string[]): Promise<string[]> {
  const { success, stderr } = await new Deno.Command(words[0]!, { args: words.slice(1) }).output();
  return success ? [] : [`${words.join(" ")}: ${new TextDecoder().decode(stderr).trim()}`];
}

async function poll(condition: () => boolean): Promise<boolean> {
  const clock = new PacedClock();
  while (!condition()) {
    clock.slowness = pace;
    if (clock.tick() > settleLimitMs * slowness) return false;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return true;
}

/** The promise's value, or undefined if it takes longer than that. */
async function within<T>(promise: Promise<T>, limitMs: number): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), limitMs));
  const value = await Promise.race([promise, timeout]);
  clearTimeout(timer);
  return value;
}

/** Whether systemd runs here, as it does on a whole Debian. */
function isDebian(): boolean {
  return exists("/run/systemd/system");
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

if (import.meta.main) {
  await main();
  // Streams of processes that could not be killed must not hold this one.
  Deno.exit(0);
}
