/**
 * How fast the machine is just now, so that limits on time can follow it: a test fails for what it tests, not because
 * the machine has other work. Two things make a VM slow, and each is measured by itself.
 *
 * - The processor: a fixed loop, timed once in the VM ({@linkcode measureProcessor}).
 * - Other work on the host: the kernel counts how long each thread of QEMU waited for a processor ({@linkcode Contention}).
 *   The host takes a sample each second and tells the VM, whose tests look it up ({@linkcode pacedMs}).
 */

/** How much slower than an idle machine one was in the time before a moment. */
export interface PaceSample {
  /** The moment, in seconds on a clock that only its writer and its readers share (the VM's uptime). */
  readonly atSeconds: number;
  /** 1: as fast as an idle machine; 3: all takes three times as long. */
  readonly slowness: number;
}

/** Where the runner in the VM keeps the samples of the last minutes, for the tests. */
export const paceFile = "/run/dblock-pace";
/** The port on which the host tells the runner how slow the VM is. */
export const pacePort = "pace";
/** The host takes a sample, and tells it, this often. */
export const paceIntervalMs = 1_000;
/** Beyond this a machine is of no use, and a test that hangs is to be found some time. */
const slownessMax = 20;

/** Follows how much the threads of a process are held up by others that want the processors. */
export class Contention {
  readonly #pid: number;
  #before = { running: 0, waiting: 0 };

  constructor(pid: number) {
    this.#pid = pid;
  }

  /** How many times as long as alone the process took, since the last call; 1 where the kernel does not tell. */
  sample(): number {
    const now = this.#read();
    const running = now.running - this.#before.running;
    const waiting = now.waiting - this.#before.waiting;
    this.#before = now;
    // A thread that ended takes its figures along, and a process that did nothing has shown nothing.
    if (running <= 0 || waiting < 0) return 1;
    return Math.min(slownessMax, (running + waiting) / running);
  }

  #read(): { running: number; waiting: number } {
    let [running, waiting] = [0, 0];
    try {
      for (const { name } of Deno.readDirSync(`/proc/${this.#pid}/task`)) {
        const [ran, waited] = Deno.readTextFileSync(`/proc/${this.#pid}/task/${name}/schedstat`).split(" ");
        running += Number(ran);
        waiting += Number(waited);
      }
    } catch {
      // The process, or a thread of it, has just ended; or the kernel has no such file.
    }
    return { running, waiting };
  }
}

/** How long something takes in this process, as an idle machine would count it: for a bound in a test on the host. */
export class Stopwatch {
  readonly #contention = new Contention(Deno.pid);
  readonly #startedAt = performance.now();

  constructor() {
    this.#contention.sample();
  }

  /** Milliseconds until now; to be asked once. */
  stop(): number {
    return (performance.now() - this.#startedAt) / this.#contention.sample();
  }
}

/** Time as an idle machine would count it: it stands nearly still while the machine does something else. */
export class PacedClock {
  /** Of the time to come. */
  slowness = 1;
  /** So much has passed. */
  ms = 0;
  #at = performance.now();

  /** Adds the time since the last call; call it often. Returns what has passed in all. */
  tick(): number {
    const now = performance.now();
    this.ms += (now - this.#at) / this.slowness;
    this.#at = now;
    return this.ms;
  }
}

/** What the time between two moments comes to on an idle machine, both in seconds on the samples' clock. */
export function pacedSeconds(samples: readonly PaceSample[], fromSeconds: number, untilSeconds: number): number {
  let [sum, at, slowness] = [0, fromSeconds, 1];
  for (const sample of samples) {
    slowness = sample.slowness;
    if (sample.atSeconds <= at) continue;
    const until = Math.min(sample.atSeconds, untilSeconds);
    sum += Math.max(0, until - at) / slowness;
    at = Math.max(at, until);
  }
  // The last sample holds until there is another.
  return sum + Math.max(0, untilSeconds - at) / slowness;
}

/** What the last so many milliseconds come to on an idle machine, in a VM. */
export function pacedMs(tookMs: number): number {
  const now = uptimeSeconds();
  return pacedSeconds(readPace(), now - tookMs / 1000, now) * 1000;
}

/** The samples that the runner in the VM keeps; none where there is no runner. */
export function readPace(): PaceSample[] {
  try {
    return Deno.readTextFileSync(paceFile).trimEnd().split("\n").map((line) => {
      const [atSeconds, slowness] = line.split(" ").map(Number);
      return { atSeconds: atSeconds!, slowness: slowness! };
    });
  } catch {
    return [];
  }
}

/** Replaces the samples that tests see. */
export function writePace(samples: readonly PaceSample[]): void {
  const text = samples.map(({ atSeconds, slowness }) => `${atSeconds} ${slowness}\n`).join("");
  // A reader sees the old samples or the new ones, never half of them.
  Deno.writeTextFileSync(`${paceFile}.new`, text);
  Deno.renameSync(`${paceFile}.new`, paceFile);
}

/** The clock of the samples in a VM. */
export function uptimeSeconds(): number {
  return Number(Deno.readTextFileSync("/proc/uptime").split(" ")[0]);
}

const loopTurns = 500_000;
/** What the loop takes in a VM on the machine that the limits were made on, when nothing else runs. */
const loopMs = 2.5;
const loopRounds = 40;

/**
 * How many times slower the processor is than the one that the limits were made for: the quickest of some short loops,
 * which other work on the machine has most likely left alone. Never below 1.
 */
export function measureProcessor(): number {
  let quickestMs = Infinity;
  for (let round = 0; round < loopRounds; round++) {
    const started = performance.now();
    turn(loopTurns);
    quickestMs = Math.min(quickestMs, performance.now() - started);
  }
  return Math.max(1, Math.round(10 * quickestMs / loopMs) / 10);
}

/** Arithmetic that a compiler cannot leave out. */
function turn(turns: number): number {
  let value = 1;
  for (let i = 0; i < turns; i++) value = (Math.imul(value, 1_103_515_245) + 12_345) | 0;
  return value;
}
