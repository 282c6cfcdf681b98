/**
 * Runs test files inside the VM, one after another, each in a process of its own with a time limit, and looks at the
 * kernel after each. Started by device.ts on the host, which hears from it through the report port.
 */
import { badKernelLines } from "./dmesg.ts";
import { findLeaks, hasKmemleak, scanForLeaks } from "./kmemleak.ts";
import { type Counts, parseTestSummary, type Plan, type PlannedFile, type ReportLine } from "./report.ts";

const moduleFile = "kmod/dblock.ko";
const aliveIntervalMs = 1_000;
/** How long a killed test, its servers and its devices may take to be gone. */
const settleLimitMs = 8_000 * Number(Deno.env.get("DBLOCK_TEST_SLOWNESS") ?? 1);
const maxOutputChars = 100_000;

const reportPort = Deno.openSync("/dev/virtio-ports/report", { write: true });

function report(line: ReportLine): void {
  const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
  for (let written = 0; written < bytes.length;) written += reportPort.writeSync(bytes.subarray(written));
}

async function main(): Promise<void> {
  const plan = JSON.parse(Deno.readTextFileSync(Deno.args[0]!)) as Plan;
  const alive = setInterval(() => report({ type: "alive" }), aliveIntervalMs);
  for (const file of plan.files) {
    report({ type: "begin", path: file.path });
    const started = performance.now();
    const { counts, output, problems, isDirty } = await runFile(file, plan.filter, file === plan.files.at(-1));
    const seconds = (performance.now() - started) / 1000;
    report({ type: "end", path: file.path, ...(counts && { counts }), problems, seconds, output, isDirty });
    // A kernel that is not as before would blame the next file for what this one did.
    if (isDirty) break;
  }
  clearInterval(alive);
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
  if (hasModule) problems.push(...await command(["insmod", moduleFile]));
  const { output, isStuck } = await runTest(file, filter, problems);
  const counts = parseTestSummary(output);
  const stuck = isStuck ? ["a process cannot be killed"] : await killLeftovers(problems);
  if (hasModule && stuck.length === 0) stuck.push(...await unloadModule());
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
  const isSmall = /^\/\/ runner: small$/m.test(Deno.readTextFileSync(file.path));
  const args = isSmall
    ? ["run", ...options, "tests/vm/small_runner.ts", file.path, filter ?? ""]
    : ["test", ...options, ...(filter === undefined ? [] : [`--filter=${filter}`]), file.path];
  // setsid makes the process the leader of a group that can be killed as one.
  const test = new Deno.Command("setsid", {
    args: ["deno", ...args],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let output = "";
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      output += decoder.decode(chunk, { stream: true });
      Deno.stdout.writeSync(chunk);
    }
  };
  // A server that outlives the test keeps these pipes open, so their end is not waited for.
  const streams = Promise.all([collect(test.stdout), collect(test.stderr)]);
  if (await within(test.status, file.limitMs) === undefined) {
    problems.push(`no end within ${file.limitMs / 1000} s`);
    output += await describeTasks();
    await new Deno.Command("kill", { args: ["-KILL", "--", `-${test.pid}`] }).output();
    if (await within(test.status, settleLimitMs) === undefined) return { output, isStuck: true };
  }
  await within(streams, 200);
  return { output, isStuck: false };
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
  const isOurs = (pid: number) => pid === 1 || pid === Deno.pid || pid === Deno.ppid;
  const list = () => {
    const found: { pid: number; name: string }[] = [];
    for (const { name } of Deno.readDirSync("/proc")) {
      const pid = Number(name);
      if (!Number.isInteger(pid) || isOurs(pid)) continue;
      try {
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
  const deadline = performance.now() + settleLimitMs;
  while (!condition()) {
    if (performance.now() > deadline) return false;
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
