// SPDX-License-Identifier: MIT
/**
 * What a command that serves a disk does at which signal: whom it leaves the disk to, and that neither a terminal's end nor
 * Ctrl-Z takes a disk away that is in use. `SIGNALS_HELP` says it to people.
 */
import { DblockError, describe, withHint } from "../disk/errors.ts";
import type { Device, Ending } from "../module/device.ts";
import { ignoreSignal, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2 } from "../system/libc.ts";
import { complain } from "./log.ts";

/** For `--help`. */
export const SIGNALS_HELP = `Signals:
  SIGINT (Ctrl-C)    destroys the disk and ends; if somebody uses the disk, says
                     who, and the second one destroys it all the same; clients
                     of NBD are cut off by the first
  SIGTERM            the same; but under --on-death hold or fail it answers what
                     is in hand, leaves the disk to the next server, and ends
  SIGHUP             nothing: the disk goes on without the terminal
  SIGTSTP (Ctrl-Z)   stops the program if nobody uses the disk
  SIGUSR2            prints the report of the filter "stats"; else nothing
`;

const ENDING = ["SIGINT", "SIGTERM"] as const;
const NUMBERS = { SIGINT: 2, SIGTERM: 15 } as const;

/** Ctrl-C or SIGTERM has ended what a program had begun, and nothing is left of it. */
export class Interrupted extends DblockError {
  /** What a shell says of a program that a signal has ended: 128 and the signal's number. */
  readonly exitStatus: number;

  /** @param signal that came */
  constructor(signal: keyof typeof NUMBERS) {
    super("EINTR", "Interrupted", "nothing is left behind");
    this.exitStatus = 128 + NUMBERS[signal];
  }
}

/** An AbortSignal for Ctrl-C and SIGTERM, until disposed. */
export function abortOnSignals(): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  const listeners = ENDING.map((name) => [name, () => controller.abort(new Interrupted(name))] as const);
  for (const [name, abort] of listeners) Deno.addSignalListener(name, abort);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => listeners.forEach(([name, abort]) => Deno.removeSignalListener(name, abort)),
  };
}

/**
 * SIGINT or SIGTERM: `come` resolves at the first one after the call. To be called before anybody is told that there is
 * something to end.
 */
export function nextEnding(): Disposable & { readonly come: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>();
  for (const name of ENDING) Deno.addSignalListener(name, resolve);
  return {
    come: promise,
    [Symbol.dispose]: () => ENDING.forEach((name) => Deno.removeSignalListener(name, resolve)),
  };
}

/**
 * From now on the terminal can go, and this program may write to it from the background: neither ends nor stops it. To be
 * called before the disk is there, for good.
 */
export function outliveTerminal(): void {
  Deno.addSignalListener("SIGHUP", () => {});
  // With `stty tostop` a line from the background would stop the program, and with it the disk.
  for (const signal of [SIGTTIN, SIGTTOU]) ignoreSignal(signal);
}

/**
 * From now on SIGUSR1 and SIGUSR2 do nothing, unless somebody listens to SIGUSR2 afterwards (the filter `stats`). To be called
 * before anything else, for good: a program that calls this cannot listen to SIGUSR1.
 *
 * At SIGUSR1 Deno opens V8's debugger on 127.0.0.1:9229, and asks nobody who connects for a password: every user of the
 * machine could then run code as this program's user, which is root where disks are served. Deno has no option against that.
 */
export function keepDebuggerShut(): void {
  // Deno installs its handler at its first listener, which may be the debugger's, some time after the program's start; a
  // later listener leaves the kernel's side as it is. So the handler is installed here, and then taken away.
  const nothing = () => {};
  Deno.addSignalListener("SIGUSR1", nothing);
  Deno.removeSignalListener("SIGUSR1", nothing);
  for (const signal of [SIGUSR1, SIGUSR2]) ignoreSignal(signal);
}

/** How to stop. */
export interface UntilEndedOptions {
  /** Stops this program, until somebody lets it go on. @default SIGSTOP */
  readonly stop?: () => void;
  /** At SIGTERM, before any disk is left or destroyed: how long to wait. @default not at all */
  readonly stopping?: () => Promise<void>;
}

/**
 * Waits for a device to end. Ctrl-C destroys it if nobody has it open; otherwise it says who does, and the second one
 * forces it. SIGTERM does the same, or leaves a disk that its policy keeps. Ctrl-Z stops the program if nobody has it open.
 */
export async function untilEnded(device: Device, options: UntilEndedOptions = {}): Promise<Ending> {
  using _heard = heedSignals(() => [device], options);
  return await device.closed;
}

/** What {@linkcode untilEnded} does at a signal, for all devices that a program serves at that moment; until disposed. */
export function heedSignals(devices: () => readonly Device[], options: UntilEndedOptions = {}): Disposable {
  const { stop = () => Deno.kill(Deno.pid, "SIGSTOP"), stopping } = options;
  let times = 0;
  const close = async (device: Device, signal: string, force: boolean) => {
    try {
      await device.close({ force });
    } catch (error) {
      if (!force && times > 1) return; // it is being forced meanwhile
      const hint = `${signal} once more forces it: what is not written is lost`;
      complain(describe(error instanceof DblockError && !force ? withHint(error, hint) : error));
    }
  };
  const closeAll = async (signal: string, open: readonly Device[]) => {
    if (open.length === 0) return;
    const force = ++times > 1;
    await Promise.all(open.map((device) => close(device, signal, force)));
  };
  const leave = async (device: Device) => {
    try {
      await device.leave();
    } catch (error) {
      complain(describe(error));
    }
  };
  const terminate = async () => {
    await stopping?.();
    const all = await Promise.all(devices().map(async (device) => ({ device, kept: await isKept(device) })));
    const [kept, others] = [true, false].map((is) => all.filter((one) => one.kept === is).map((one) => one.device));
    await Promise.all([...kept!.map(leave), closeAll("SIGTERM", others!)]);
  };
  const suspend = async () => {
    const used: boolean[] = [];
    for (const device of devices()) used.push(await isUsed(device));
    if (!used.includes(true)) stop();
  };
  const listeners = [
    ["SIGINT", () => closeAll("Ctrl-C", devices())],
    ["SIGTERM", terminate],
    ["SIGTSTP", suspend],
  ] as const;
  for (const [name, listener] of listeners) Deno.addSignalListener(name, listener);
  return {
    [Symbol.dispose]: () => listeners.forEach(([name, listener]) => Deno.removeSignalListener(name, listener)),
  };
}

/** Takes a start back. A disk that was there before is left to the next server: those who use it wait, and lose nothing. */
export async function undoDevice(device: Device): Promise<void> {
  const isLeft = device.origin !== "created" && await isKept(device);
  await (isLeft ? device.leave() : device.close({ force: true }));
}

/** Whether its policy keeps the device when its server is gone. */
export async function isKept(device: Device): Promise<boolean> {
  try {
    return (await device.info()).onDeath !== "remove";
  } catch {
    return false; // close() will say why
  }
}

/** Whether the program may not be stopped, because I/O would wait; says so. */
async function isUsed(device: Device): Promise<boolean> {
  try {
    if ((await device.info()).openCount === 0) return false;
    const hint = 'to have the terminal back, start it with "&" or as a service';
    const wrong = "it is in use, and its I/O would wait";
    throw new DblockError("EBUSY", `Cannot stop serving ${device.path}`, wrong, { hint });
  } catch (error) {
    complain(describe(error));
    return true;
  }
}
