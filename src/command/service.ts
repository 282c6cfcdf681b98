// SPDX-License-Identifier: MIT
/**
 * `dblock serve` as a service of systemd: what the service manager hears, how new code takes the disks over while they are
 * used, and how long the server stays when the whole machine stops. Nothing of it happens to a program started by hand.
 */
import { DblockError, describe } from "../disk/errors.ts";
import type { Device } from "../module/device.ts";
import { execute } from "../system/libc.ts";
import { ServiceManager } from "../system/service_manager.ts";
import { CALLED_AS } from "./part_names.ts";
import { exists } from "../system/path.ts";

/** Two words are lost before the watchdog bites. */
const WATCHDOG_SHARE = 3;
/** How often it is looked whether a disk is still used, or a new server still there. Nobody waits for it but a shutdown. */
const POLL_MS = 50;
/** The unit's TimeoutStopSec=: from each word on that it still waits for a disk, systemd gives it so much longer. */
const STOP_MS = 20_000;
/** Three words are lost before systemd kills it. */
const STOP_WORD_MS = STOP_MS / 4;
/** How long a new server that is given up may take to leave what it has. A guess. */
const SUCCESSOR_STOP_MS = 10_000;

/**
 * Without a request for so long, no more time is asked for: what has the disk open is not being unmounted, such as a volume
 * group on it. Other services, whose mounts may be on the disk, are given 90 s to stop.
 */
const IDLE_MS = 120_000;

/** How to wait for the end of the machine. */
export interface StoppingOptions {
  /** Whether a shutdown or a reboot goes on, and not only this service's stop. @default what systemd says */
  readonly isMachineStopping?: () => Promise<boolean>;
  /** How often systemd hears that a disk is still used. @default 5,000 */
  readonly wordMs?: number;
  /** After how long without a request it hears no more of that. @default 120,000 */
  readonly idleMs?: number;
}

/** A disk that this process can give to another one. */
export interface Giver {
  /** Resolves when it is this process's no more. */
  given(): Promise<void>;
  /** Takes back what was given, if the outcome is a failure. Never rejects. */
  give(outcome: Promise<unknown>): Promise<void>;
}

/** This process, as its service manager sees it. */
export class Service implements Disposable {
  readonly #manager: ServiceManager;
  /** Its file's name, while that is there: after an upgrade the same name is the new program. */
  readonly #program = Deno.execPath();
  readonly #words = ownWords();
  #timer: ReturnType<typeof setInterval> | undefined;
  /** The process that is to take over. */
  #successor: number | undefined;
  /** New code is to take over, or has done so. */
  #isReloading = false;

  private constructor(manager: ServiceManager) {
    this.#manager = manager;
  }

  /** What this process is to its service manager; undefined if it was started by hand. */
  static here(): Service | undefined {
    const manager = ServiceManager.of(Deno.env.toObject(), Deno.pid);
    return manager === undefined ? undefined : new Service(manager);
  }

  /** The disks are there. From now on the watchdog hears that this thread is alive. */
  ready(lines: readonly string[]): void {
    this.#manager.tell({ READY: 1, MAINPID: Deno.pid, STATUS: lines.join("; ") });
    const { watchdogMs } = this.#manager;
    if (watchdogMs === undefined || this.#timer !== undefined) return;
    this.#timer = setInterval(() => this.#manager.tell({ WATCHDOG: 1 }), watchdogMs / WATCHDOG_SHARE);
  }

  /**
   * At SIGTERM, before the disks are left or destroyed: if the whole machine stops, waits until nobody uses them, as file
   * systems are unmounted at the same time, and what they still have to write needs a server. systemd, which would kill it
   * after TimeoutStopSec=, is asked for more time again and again, while there is I/O, or may be soon.
   */
  async stopping(devices: () => readonly Device[], options: StoppingOptions = {}): Promise<void> {
    const { isMachineStopping = saysSystemdSo, wordMs = STOP_WORD_MS, idleMs = IDLE_MS } = options;
    this.#manager.tell({ STOPPING: 1 });
    if (!await isMachineStopping()) return;
    let toldAtMs = -Infinity;
    let busyAtMs = performance.now();
    let requestsBefore = -1;
    for (;;) {
      const { used, requests } = await useOf(devices());
      if (used === undefined) return;
      const nowMs = performance.now();
      if (requests !== requestsBefore) busyAtMs = nowMs;
      requestsBefore = requests;
      if (nowMs - toldAtMs >= wordMs && nowMs - busyAtMs < idleMs) {
        toldAtMs = nowMs;
        const status = `the machine stops: waiting for ${used} to be unmounted`;
        this.#manager.tell({ EXTEND_TIMEOUT_USEC: STOP_MS * 1_000, STATUS: status });
      }
      await delay(POLL_MS);
    }
  }

  /**
   * Starts the program that has this one's name now, with the words that this one was started with, and lets it take the
   * disks over. Those who use them notice nothing.
   *
   * @param gone nobody waits for the new server any more: it is given up. systemd waits for TimeoutStartSec=
   * @throws {DblockError} why that failed; this process goes on with its disks.
   */
  async reload(disks: readonly Giver[], gone: AbortSignal): Promise<void> {
    if (this.#isReloading) throw new DblockError("EBUSY", "Cannot reload", "another reload is going on");
    this.#isReloading = true;
    const outcome = this.#replace(Promise.all(disks.map((disk) => disk.given())), gone);
    await Promise.all(disks.map((disk) => disk.give(outcome)));
    try {
      await outcome;
    } catch (error) {
      this.#successor = undefined;
      this.#isReloading = false;
      this.#manager.tell({ READY: 1, MAINPID: Deno.pid, STATUS: describe(error) });
      throw error instanceof DblockError
        ? error
        : new DblockError("EIO", "Cannot reload", describe(error), { cause: error });
    }
  }

  /** Resolves when all is `given` to the new server, rejects when that has ended without. */
  async #replace(given: Promise<unknown>, gone: AbortSignal): Promise<void> {
    this.#manager.tell({ RELOADING: 1, MONOTONIC_USEC: monotonicUs(), STATUS: "new code is about to take over" });
    const { WATCHDOG_PID: _ofThisProcess, ...env } = Deno.env.toObject();
    const words = this.#words.slice(this.#words.indexOf("serve"));
    const args = words.at(-1) === "--take-over" ? words : [...words, "--take-over"];
    const pid = this.#successor = await startDetached(this.#program, args, { ...env, [CALLED_AS]: "dblock" });
    let isReplaced = false;
    void given.then(() => isReplaced = true);
    while (!isReplaced && exists(`/proc/${pid}`) && !gone.aborted) await delay(POLL_MS);
    if (isReplaced) return;
    const isThere = exists(`/proc/${pid}`);
    if (isThere) await end(pid);
    const wrong = isThere
      ? "the new server had not taken over when nobody waited any more"
      : "the new server has ended";
    throw new DblockError("EIO", "Cannot reload", wrong, {
      hint: "the one before goes on; the journal has the reason",
    });
  }

  /** All disks have ended. If new code has them, the service goes on with that: this is said before this process ends. */
  ended(): void {
    if (this.#successor !== undefined) this.#manager.tell({ MAINPID: this.#successor, READY: 1 });
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/** What this process was started with, from its name on. */
function ownWords(): string[] {
  return Deno.readTextFileSync("/proc/self/cmdline").split("\0").slice(0, -1);
}

/**
 * Asks the last step of a shutdown not to kill this process: systemd spares root's processes whose first word begins with
 * "@", as a file system that is still mounted then may be on a disk of theirs. The program is started again by exec, once.
 */
export function outliveShutdown(): void {
  const [name = "", ...words] = ownWords();
  if (name.startsWith("@")) return;
  execute(Deno.execPath(), ["@dblock", ...words]);
  // Not reached, unless exec failed. Then it is as any other process.
}

/** CLOCK_MONOTONIC, which systemd compares: /proc/uptime has the same clock, but for sleeps of the machine. */
function monotonicUs(): number {
  return Math.round(parseFloat(Deno.readTextFileSync("/proc/uptime")) * 1e6);
}

/** What it has taken it leaves at SIGTERM; one that does not is killed, which leaves it, too. */
async function end(pid: number): Promise<void> {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    try {
      Deno.kill(pid, signal);
    } catch {
      return; // it has just ended
    }
    for (let waitedMs = 0; waitedMs < SUCCESSOR_STOP_MS; waitedMs += POLL_MS) {
      if (!exists(`/proc/${pid}`)) return;
      await delay(POLL_MS);
    }
  }
}

async function delay(ms: number): Promise<void> {
  await new Promise<void>((resolve) => setTimeout(resolve, ms));
}

/**
 * Starts a program that is nobody's child but the service manager's: that waits for the end of its own children alone, and kills a
 * main process of somebody else's at once where it should wait for it to stop.
 *
 * @returns its number
 */
async function startDetached(program: string, args: readonly string[], env: Record<string, string>): Promise<number> {
  const { stdout } = await new Deno.Command("/bin/sh", {
    // The shell ends at once. What the program says goes where this one's errors go.
    args: ["-c", '"$@" >&2 & echo $!', "sh", program, ...args],
    env,
    clearEnv: true,
    stdin: "null",
    stderr: "inherit",
  }).output();
  return Number(new TextDecoder().decode(stdout));
}

async function saysSystemdSo(): Promise<boolean> {
  try {
    const { stdout } = await new Deno.Command("systemctl", { args: ["is-system-running"], stderr: "null" }).output();
    return new TextDecoder().decode(stdout).trim() === "stopping";
  } catch {
    return false; // there is no systemd here
  }
}

/** The path of a disk that somebody has open, and how many requests all of them have answered. */
async function useOf(
  devices: readonly Device[],
): Promise<{ readonly used: string | undefined; readonly requests: number }> {
  let used: string | undefined;
  let requests = 0;
  for (const device of devices) {
    try {
      const info = await device.info();
      if (info.openCount > 0) used ??= device.path;
      for (const { count } of Object.values(info.requests)) requests += count;
    } catch {
      // It is gone.
    }
  }
  return { used, requests };
}
