/**
 * Boots a kernel in QEMU, runs one command in it and says how that went. What the command is for is the caller's business.
 *
 * The VM reports through ports of its own, each a file of the run's folder: what the command prints, lines of JSON for
 * programs (`report`), and its exit status. A VM that ends without an exit status is lost, whatever else it printed.
 */
import { join } from "node:path";
import { buildDir, exists } from "./host.ts";
import {
  appendInitramfs,
  type DiskImage,
  modulesImage,
  programImage,
  systemImage,
  userlandImage,
  writeInitramfs,
} from "./image.ts";
import type { Kernel } from "./kernels.ts";
import { Contention, PacedClock, paceIntervalMs } from "./pace.ts";
import { PacePipe } from "./pace_pipe.ts";
import { qemuCommand } from "./qemu.ts";

/** Options of {@linkcode runVm}. */
export interface VmOptions {
  readonly kernel: Kernel;
  /** Shell commands, run by bash as root in /project. */
  readonly command: string;
  /** After this long the VM is lost; time in which the machine does something else hardly counts. */
  readonly timeoutMs: number;
  /** Emulated processors. @default 2 */
  readonly smp?: number | undefined;
  /**
   * The guest's clock counts instructions (4 ns each) and not time: what else the machine does changes nothing that is
   * measured in it. All its processors share one thread. @default false
   */
  readonly counted?: boolean | undefined;
  /** @default 4096 */
  readonly memoryMiB?: number | undefined;
  /** A whole Debian, with systemd and udev; the command is a service of it. @default false */
  readonly debian?: boolean | undefined;
  /**
   * A disk with an installed Debian, which is the machine; what it writes stays there. The command is a service of it, and after it
   * the machine reboots as anybody's does, which ends the VM.
   */
  readonly diskFile?: string | undefined;
  /**
   * That machine boots by its own initial ramdisk, this file, which mounts its file systems: initrd.sh adds what the command needs.
   * It was booted without before, which has made the command a service. @default the VM's own, which mounts the disk alone
   */
  readonly initrdFile?: string | undefined;
  /** More disks, for what is written to them; the VM sees a disk's name as its serial number. */
  readonly furtherDisks?: readonly DiskImage[] | undefined;
  /** Firmware that boots only what is signed, as {@linkcode secureBoot} has it. @default false */
  readonly secureBoot?: boolean | undefined;
  /** Further words of the kernel's command line. */
  readonly extraCmdline?: string | undefined;
  /** A network card: this machine's addresses, but those of loopback, are reached from the VM, and nothing reaches the VM. @default false */
  readonly network?: boolean | undefined;
  /** The checkout that /project is made of. @default the one this file is in */
  readonly sourceDir?: string | undefined;
  /** dblock.ko for this kernel; it is kmod/dblock.ko in the VM. */
  readonly moduleFile?: string | undefined;
  /** The dblock-ramdisk executable; it is ./dblock-ramdisk in the VM. */
  readonly programFile?: string | undefined;
  /** Further files: absolute path in the VM to content. */
  readonly files?: Readonly<Record<string, Uint8Array | string>> | undefined;
  /** Connects the terminal to a shell in the VM instead of collecting output. @default false */
  readonly interactive?: boolean | undefined;
  /** Called each second with how much slower than an idle machine this one runs the VM. */
  readonly onPace?: ((slowness: number) => void) | undefined;
  /** Tells the VM the same, on a port that something in the VM has to read. @default false */
  readonly tellsPace?: boolean | undefined;
  /** Called with each line of the report port. */
  readonly onReport?: ((line: string) => void) | undefined;
  /** Called with what the command prints. */
  readonly onOutput?: ((text: string) => void) | undefined;
  /** Ends the VM: it is then lost, for the reason given. */
  readonly signal?: AbortSignal | undefined;
}

/** How a VM's run ended. */
export interface VmResult {
  /** The command's exit status was 0, was not 0, or never came (panic, hang, QEMU's end). */
  readonly verdict: "pass" | "fail" | "lost";
  /** The command's exit status; undefined if the VM was lost. */
  readonly status: number | undefined;
  /** Why it failed or was lost, in one line. Empty on pass. */
  readonly reason: string;
  readonly seconds: number;
  /** Of these, from the command's end on, as an idle machine counts time; undefined if the command did not come to its end. */
  readonly endSeconds: number | undefined;
  /** Everything the command printed. */
  readonly output: string;
  /** What the kernel printed. */
  readonly consoleLog: string;
  /** The folder with console.log, output.log and report.jsonl. */
  readonly runDir: string;
}

const pollIntervalMs = 20;
/** Folders of earlier runs that are kept. */
const keptRuns = 40;

/** Whether the kernel can have a whole Debian as its machine. */
export function canHaveDebian(kernel: Kernel): boolean {
  return kernel.architecture === "amd64" && exists(join(kernel.modulesDir, "kernel/fs/overlayfs"));
}

/** Boots, runs, and always ends QEMU. */
export async function runVm(options: VmOptions): Promise<VmResult> {
  const runDir = await makeRunDir(options.kernel);
  const images = [await userlandImage(options.kernel.architecture)];
  // An installed Debian has its kernel's modules.
  if (options.diskFile === undefined) images.push(await modulesImage(options.kernel));
  if (options.programFile !== undefined) images.push(await programImage(options.programFile));
  if (options.debian) images.push(await systemImage());
  const files = options.interactive ? { ...options.files, "/interactive": "" } : options.files;
  const initramfs = join(runDir, "initramfs");
  if (options.initrdFile === undefined) {
    const further = [...options.debian ? ["overlay"] : [], ...options.network ? ["virtio_net"] : []];
    await writeInitramfs({ ...options, files, bootModules: further }, initramfs);
  } else await appendInitramfs({ ...options, files }, options.initrdFile, initramfs);

  using pacePipe = options.tellsPace ? await PacePipe.make(runDir) : undefined;
  const started = performance.now();
  const exitFile = join(runDir, "exit");
  const [program, ...args] = await qemuCommand(options, runDir, initramfs, images);
  // --pdeathsig: no QEMU outlives this process, however it ends.
  const qemu = new Deno.Command("setpriv", {
    args: ["--pdeathsig", "KILL", program!, ...args],
    stdin: options.interactive ? "inherit" : "null",
    stdout: options.interactive ? "inherit" : "null",
    stderr: options.interactive ? "inherit" : "piped",
  }).spawn();
  const errors = options.interactive ? Promise.resolve("") : new Response(qemu.stderr).text();
  const kill = () => {
    try {
      qemu.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
  };
  const stop = () => {
    kill();
    Deno.exit(130);
  };
  Deno.addSignalListener("SIGTERM", stop);
  if (!options.interactive) Deno.addSignalListener("SIGINT", stop);

  let ended = false;
  let timedOut = false;
  const qemuEnd = qemu.status.then(() => ended = true);
  const output = new Tail(join(runDir, "output.log"), (text) => options.onOutput?.(text));
  const report = new Tail(join(runDir, "report.jsonl"), lineSplitter((line) => options.onReport?.(line)));
  // setpriv becomes QEMU: its process is QEMU's.
  const contention = new Contention(qemu.pid);
  const clock = new PacedClock();
  let sampledAt = started;
  let commandEndMs: number | undefined;
  try {
    while (!ended) {
      await Promise.race([qemuEnd, sleep(pollIntervalMs)]);
      output.poll();
      report.poll();
      timedOut = clock.tick() > options.timeoutMs;
      if (commandEndMs === undefined && exists(exitFile) && Deno.statSync(exitFile).size > 0) commandEndMs = clock.ms;
      if (performance.now() - sampledAt >= paceIntervalMs) {
        sampledAt = performance.now();
        clock.slowness = contention.sample();
        options.onPace?.(clock.slowness);
        pacePipe?.tell(clock.slowness);
      }
      if (timedOut || options.signal?.aborted) break;
    }
  } finally {
    kill();
    await qemuEnd;
    output.poll();
    report.poll();
    Deno.removeSignalListener("SIGTERM", stop);
    if (!options.interactive) Deno.removeSignalListener("SIGINT", stop);
    await Deno.remove(initramfs);
  }

  const statusText = exists(exitFile) ? Deno.readTextFileSync(exitFile).trim() : "";
  const status = statusText === "" ? undefined : Number(statusText);
  const consoleLog = exists(join(runDir, "console.log")) ? Deno.readTextFileSync(join(runDir, "console.log")) : "";
  let reason = "";
  if (options.signal?.aborted) reason = String(options.signal.reason);
  else if (timedOut) reason = `no end within ${options.timeoutMs / 1000} s`;
  else if (status === undefined) {
    reason = explainLoss(consoleLog) ?? ((await errors).trim() || "the VM stopped without a word");
  } else if (status !== 0) reason = `exit status ${status}`;
  const lost = status === undefined || timedOut || options.signal?.aborted === true;
  return {
    verdict: lost ? "lost" : status === 0 ? "pass" : "fail",
    status: lost ? undefined : status,
    reason,
    seconds: (performance.now() - started) / 1000,
    endSeconds: commandEndMs === undefined ? undefined : (clock.tick() - commandEndMs) / 1000,
    output: output.text,
    consoleLog,
    runDir,
  };
}

/** The line of the kernel's log that says what it died of; undefined if it did not panic. */
export function explainLoss(consoleLog: string): string | undefined {
  const panicAt = consoleLog.lastIndexOf("Kernel panic - not syncing: ");
  if (panicAt < 0) return undefined;
  const panic = consoleLog.slice(panicAt).split("\n", 1)[0]!.trim();
  // The first process dies of memory that it cannot have back. What took that was logged before, hundreds of lines ago.
  if (panic.includes("Attempted to kill init")) {
    const ofThisTest = consoleLog.slice(Math.max(0, consoleLog.lastIndexOf("dblock-test: ", panicAt)), panicAt);
    const [cause] = /(?:Out of memory: |dblock: .* (?:ends in|is gone)|I\/O error, |Read-error ).*/.exec(ofThisTest) ??
      [];
    return cause === undefined ? panic : `${panic}, after "${cause.trim()}"`;
  }
  // These panics are only the consequence of what was logged just before.
  if (!/panic_on_warn|Fatal exception|hung_task|softlockup|RCU Stall/.test(panic)) return panic;
  const causes = /(?:WARNING: |kernel BUG at |BUG: |INFO: task |INFO: rcu|Oops: |general protection).*/g;
  return [...consoleLog.slice(0, panicAt).matchAll(causes)].at(-1)?.[0].trim() ?? panic;
}

/**
 * Whether the kernel met a breakpoint that it had taken back already. While it patches its own code it puts one there, and
 * an emulated processor may run it from its cache of translated code too late: "Oops: int3", anywhere in the kernel.
 */
export function isEmulatorFault(consoleLog: string): boolean {
  return explainLoss(consoleLog)?.startsWith("Oops: int3:") ?? false;
}

/** Makes the folder for a run's logs and removes those of long ago. */
async function makeRunDir(kernel: Kernel): Promise<string> {
  const runsDir = join(buildDir, "vm");
  await Deno.mkdir(runsDir, { recursive: true });
  const names = [...Deno.readDirSync(runsDir)].map((entry) => entry.name).sort();
  for (const name of names.slice(0, -keptRuns)) await Deno.remove(join(runsDir, name), { recursive: true });
  const time = new Date().toISOString().replace(/[-:]|\..*/g, "");
  return await Deno.makeTempDir({ dir: runsDir, prefix: `${time}-${kernel.version}-` });
}

/** Follows a file that grows. */
class Tail {
  text = "";
  readonly #file: string;
  readonly #onText: (text: string) => void;
  readonly #decoder = new TextDecoder();
  #offset = 0;

  constructor(file: string, onText: (text: string) => void) {
    this.#file = file;
    this.#onText = onText;
  }

  poll(): void {
    if (!exists(this.#file) || Deno.statSync(this.#file).size <= this.#offset) return;
    using file = Deno.openSync(this.#file);
    file.seekSync(this.#offset, Deno.SeekMode.Start);
    const chunk = new Uint8Array(64 * 1024);
    for (let count = file.readSync(chunk); count !== null; count = file.readSync(chunk)) {
      this.#offset += count;
      const text = this.#decoder.decode(chunk.subarray(0, count), { stream: true });
      this.text += text;
      this.#onText(text);
    }
  }
}

/** Turns pieces of text into whole lines. */
function lineSplitter(onLine: (line: string) => void): (text: string) => void {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
  };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
