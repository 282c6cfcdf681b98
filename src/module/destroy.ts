// SPDX-License-Identifier: MIT
/** `destroy()`: removes a device by name, whoever serves it, and says who is in the way. */
import { Control, devicePath } from "./control.ts";
import { checkMs, pause } from "./deadline.ts";
import { DblockError } from "../disk/errors.ts";
import { holdersOf } from "../system/holders.ts";
import { type Kernel, linux } from "../system/libc.ts";

/** udev and blkid open a disk for a moment whenever it changes: only who stays longer is in the way. */
export const BUSY_WAIT_MS = 2_000;
const BUSY_PAUSE_MS = 50;

/** How to destroy. */
export interface DestroyOptions {
  /** Even if somebody has it open: they get I/O errors, and what they have not written is lost. @default false */
  readonly force?: boolean;
  /**
   * How long to wait for the last one to close it, in ms. 0: not at all; Infinity: however long it takes.
   * @default 2,000
   */
  readonly waitMs?: number;
  /** Only this device (`DeviceInfo.id`), and not another one that has its name by now. @default any */
  readonly id?: number;
}

/**
 * Destroys /dev/NAME and returns when it is gone and its name free. The process that serves it learns of it.
 *
 * ```ts no-run
 * import { destroy } from "../mod.ts";
 *
 * await destroy("scratch", { waitMs: 10_000 });
 * ```
 *
 * @param name of the disk: "scratch"
 * @throws {DblockError} EBUSY (in use: the message says by whom), ENOENT (no such device, or the module is not loaded),
 * ESTALE (the name is another device's than `id` says), EACCES and EPERM (not root), EINVAL (an option).
 */
export async function destroy(name: string, options: DestroyOptions = {}): Promise<void> {
  await destroyOn(linux, name, options);
}

/**
 * {@linkcode destroy} on a given kernel.
 *
 * @param mayGoOn asked before each try: whether it is still the caller's to destroy
 * @returns false if it is not
 */
export async function destroyOn(
  kernel: Kernel,
  name: string,
  options: DestroyOptions = {},
  mayGoOn: (control: Control) => Promise<boolean> = () => Promise.resolve(true),
): Promise<boolean> {
  const { force = false, waitMs = BUSY_WAIT_MS, id } = options;
  const attempted = `Cannot destroy ${devicePath(name)}`;
  checkMs(attempted, "waitMs", waitMs);
  using control = await Control.open(attempted, kernel);
  const givenUpMs = performance.now() + waitMs;
  for (;;) {
    if (!await mayGoOn(control)) return false;
    try {
      await control.destroy(name, { force, ...(id === undefined ? {} : { id }) });
      return true;
    } catch (error) {
      if (!(error instanceof DblockError) || error.code !== "EBUSY" || force) throw error;
      if (performance.now() >= givenUpMs) throw await inUse(name, attempted, error);
    }
    await pause(BUSY_PAUSE_MS);
  }
}

async function inUse(name: string, attempted: string, cause: DblockError): Promise<DblockError> {
  const holders = await holdersOf(name);
  if (holders.length === 0) return cause;
  return new DblockError("EBUSY", attempted, `it is in use: ${holders.join(", ")}`, {
    hint: "end that first, or force it and lose what is not written",
    cause,
  });
}
