// SPDX-License-Identifier: MIT
/** `destroy()`: removes a device by name, whoever serves it, and says who is in the way. */
import { Control, devicePath } from "./control.ts";
import { DblockError } from "../disk/errors.ts";
import { holdersOf } from "../system/holders.ts";
import { type Kernel, linux } from "../system/libc.ts";

/** udev and blkid open a disk for a moment whenever it changes: only who stays longer is in the way. */
const BUSY_RETRY_MS = 2_000;
const BUSY_PAUSE_MS = 50;

/** How to destroy. */
export interface DestroyOptions {
  /** Even if somebody has it open: they get I/O errors, and what they have not written is lost. @default false */
  readonly force?: boolean;
  /** How long to wait for the last one to close it, in ms. @default 2,000 */
  readonly retryMs?: number;
  /** @default linux */
  readonly kernel?: Kernel;
}

/**
 * Destroys /dev/NAME and returns when it is gone and its name free. The process that serves it learns of it.
 *
 * @throws {DblockError} EBUSY (in use: the message says by whom), ENOENT (no such device, or the module is not loaded),
 * EACCES and EPERM (not root).
 */
export async function destroy(name: string, options: DestroyOptions = {}): Promise<void> {
  const { force = false, retryMs = BUSY_RETRY_MS, kernel = linux } = options;
  const attempted = `Cannot destroy ${devicePath(name)}`;
  using control = await Control.open(attempted, kernel);
  const givenUpMs = performance.now() + retryMs;
  for (;;) {
    try {
      return await control.destroy(name, { force });
    } catch (error) {
      if (!(error instanceof DblockError) || error.code !== "EBUSY" || force) throw error;
      if (performance.now() >= givenUpMs) throw await inUse(name, attempted, error);
    }
    await new Promise((resolve) => setTimeout(resolve, BUSY_PAUSE_MS));
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
