/**
 * What every device test needs: to run a command within a bound, to wait for a condition, to read the kernel's log since
 * a point, and to say why a test is skipped. Runs inside the VM; knows nothing of dblock itself.
 */
import { type Amount, figureLine } from "../vm/figures.ts";
import { pacedMs } from "../vm/pace.ts";

/** How many times slower this kernel is than one without checks. */
export const kernelSlowness = Number(Deno.env.get("DBLOCK_TEST_KERNEL_SLOWNESS") ?? 1);

/**
 * How many times slower this kernel on this processor is than what limits are made for. Limits on time are multiplied by
 * it, and are measured in the time of a machine with nothing else to do: `sh`, `waitFor` and `assertWithin` do both.
 */
export const slowness = Number(Deno.env.get("DBLOCK_TEST_SLOWNESS") ?? 1);

/** A time that is handed to the kernel, which wants whole milliseconds, made longer where things are slower. */
export function slowed(ms: number): number {
  return Math.ceil(ms * slowness);
}

/** So many times slower than alone: from here on the machine has other work. */
const crowded = 1.5;
/**
 * How much longer things take there than the time shows in which a processor was waited for: who waits is woken later, and
 * those it waits for are, too. A guess.
 */
const crowdedAllowance = 1.5;

/** How many times longer something may have taken for the machine's other work. */
function allowance(tookMs: number): number {
  const pace = tookMs / pacedMs(tookMs);
  return pace < crowded ? pace : pace * crowdedAllowance;
}

/** True if something has taken longer than it may, other work of the machine allowed for. */
export function isOver(limitMs: number, tookMs: number): boolean {
  const limit = limitMs * slowness;
  return tookMs > limit && tookMs > limit * allowance(tookMs);
}

const scale = Number(Deno.env.get("DBLOCK_TEST_SCALE") ?? 1);

/** How often a test repeats what it counts: so often per run, times DBLOCK_TEST_SCALE. */
export function scaled(count: number): number {
  return Math.max(1, Math.round(count * scale));
}

/**
 * Prints what a test has counted or measured, for the account at the end of the run.
 *
 * What comes from several rounds becomes one: numbers without a unit are counts, whole, and are added, as are MiB and GiB.
 * Of everything else the largest is kept, so what is measured needs a unit, a ratio too (`/request`), and is to be such
 * that more is worse. A count that cannot be added has a name that begins with "longest", "largest" or "most".
 *
 * @example
 * ```ts
 * figure({ "kills under load": 20, "acknowledged writes lost": 0, "longest outage": [1.5, "s"] });
 * figure({ "most devices at once": 1000, "sleeps": [0.2, "/request"] });
 * ```
 */
export function figure(values: Readonly<Record<string, number | readonly [value: number, unit: string]>>): void {
  const amounts = Object.entries(values).map(([name, value]): [string, Amount] => {
    if (typeof value !== "number") return [name, { value: value[0], unit: value[1] }];
    if (!Number.isInteger(value)) throw new Error(`figure "${name}" is ${value}: what is no count needs a unit`);
    return [name, { value, unit: "" }];
  });
  // A line of its own, whatever the test runner has written before.
  console.log(`\n${figureLine(new Map(amounts))}`);
}

/** Options of {@linkcode sh}. */
export interface ShellOptions {
  /** After this long (times {@linkcode slowness}, on an idle machine) the command and all its children are killed and the call throws. @default 30000 */
  readonly timeoutMs?: number;
  /** Throw when the exit status is not 0. @default true */
  readonly check?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

/** How a command ended. */
export interface ShellResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a bash command to its end, with a bound on its time.
 *
 * @example
 * ```ts
 * await sh("mkfs.ext4 -q /dev/disk0");
 * const { status } = await sh("mount /dev/absent /mnt", { check: false });
 * ```
 */
export async function sh(command: string, options: ShellOptions = {}): Promise<ShellResult> {
  const { check = true, env = {} } = options;
  const { timeoutMs = 30_000 } = options;
  const started = performance.now();
  const child = new Deno.Command("setsid", {
    args: ["bash", "-c", command],
    env: { ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let isLate = false;
  const timer = setInterval(() => {
    if (!isOver(timeoutMs, performance.now() - started)) return;
    clearInterval(timer);
    isLate = true;
    // The minus sign addresses the whole process group.
    new Deno.Command("kill", { args: ["-KILL", "--", `-${child.pid}`] }).outputSync();
  }, 100);
  const { code, stdout, stderr } = await child.output();
  clearInterval(timer);
  const decoder = new TextDecoder();
  const result = { status: code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  const said = `${result.stdout}${result.stderr}`.trim();
  if (isLate) {
    throw new Error(
      `"${command}" took more than ${describe(timeoutMs, performance.now() - started)}; it said: ${said}`,
    );
  }
  if (check && code !== 0) throw new Error(`"${command}" ended with ${code}; it said: ${said}`);
  return result;
}

/**
 * Waits until a condition holds; throws, naming it, when that takes too long. Returns the milliseconds it took.
 *
 * It looks every 20 ms, or less often where a look is costly, such as a command: no more than a third of the time goes to that,
 * as what is waited for needs the processor, too.
 */
export async function waitFor(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 10_000,
): Promise<number> {
  const started = performance.now();
  let lookedAt = started;
  while (!await condition()) {
    const now = performance.now();
    if (isOver(timeoutMs, now - started)) {
      throw new Error(`Waited ${describe(timeoutMs, now - started)} in vain: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(20, 2 * (now - lookedAt))));
    lookedAt = performance.now();
  }
  return performance.now() - started;
}

/**
 * Checks that something that has ended just now took no longer than it may. A kernel or a processor that is slower by
 * nature may take longer, and a machine with other work too: then it says so.
 */
export function assertWithin(limitMs: number, tookMs: number, what: string): void {
  if (tookMs <= limitMs) return;
  if (isOver(limitMs, tookMs)) {
    throw new Error(`${what} after ${Math.round(tookMs)} ms, not within ${describe(limitMs, tookMs)}`);
  }
  console.log(`${what} after ${Math.round(tookMs)} ms; it may take ${describe(limitMs, tookMs)}`);
}

/** A limit, and what it has become on this machine. */
function describe(limitMs: number, tookMs: number): string {
  const allowed = allowance(tookMs);
  const reasons = [
    slowness === 1 ? "" : `times ${slowness} for the kernel and the processor`,
    allowed < 1.1 ? "" : `times ${allowed.toFixed(1)} for the machine's other work`,
  ].filter((reason) => reason !== "");
  return [`${limitMs} ms`, ...reasons].join(", ");
}

/**
 * Returns whether a condition for a test is met; if not, the report gives the reason.
 *
 * @example
 * ```ts
 * Deno.test({ name: "ublk is slower", ignore: !requires("the ublk_drv module", hasModule("ublk_drv")), fn() {} });
 * ```
 */
export function requires(what: string, condition: boolean): boolean {
  if (!condition) console.log(`skip: needs ${what}`);
  return condition;
}

/** True if the kernel has this module, loaded, built in or loadable. */
export function hasModule(name: string): boolean {
  return new Deno.Command("modprobe", { args: ["--dry-run", name], stdout: "null", stderr: "null" }).outputSync()
    .success;
}

/** Writes a line into the kernel's log and returns it, for {@linkcode kernelLinesSince}. */
export function markKernelLog(): string {
  const mark = `dblock-test: mark ${crypto.randomUUID()}`;
  Deno.writeTextFileSync("/dev/kmsg", `${mark}\n`);
  return mark;
}

/** What the kernel says of a machine that was slow for a moment: no test is about it, and any test may meet it. */
const slowMachine = /^(hrtimer: interrupt took|perf: interrupt took|clocksource: |workqueue: .* hogged CPU)/;

/** What the kernel logged after a mark, without its remarks on how slow the machine is. */
export function kernelLinesSince(mark: string): string[] {
  const { stdout } = new Deno.Command("dmesg", { args: ["--notime"] }).outputSync();
  const lines = new TextDecoder().decode(stdout).trimEnd().split("\n");
  return lines.slice(lines.findLastIndex((line) => line.includes(mark)) + 1).filter((line) => !slowMachine.test(line));
}

/** True if there is something at a path. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * Waits until a link that udev makes leads to a disk or partition; returns the milliseconds it took. Whoever writes a table
 * of partitions has the kernel make them anew, so that for a moment a link leads nowhere.
 */
export async function waitForLink(path: string, target: string): Promise<number> {
  return await waitFor(`${path} leads to ${target}`, () => leadsTo(path) === target, 30_000);
}

/** Where a path leads in the end, or null if it leads to nothing. */
function leadsTo(path: string): string | null {
  try {
    return Deno.realPathSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}
