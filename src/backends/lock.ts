// SPDX-License-Identifier: MIT
/** The lock that keeps two servers from one file or device. It is flock(2)'s, and ends with the open file. */
import { DblockError, errnoOf } from "../disk/errors.ts";
import { lockFile } from "../system/libc.ts";

/** A server that was killed keeps its lock until its memory is taken down. */
const WAIT_MS = 2_000;
const PAUSE_MS = 20;

/** An open file that is to be locked. */
export interface Lockable {
  readonly fd: number;
  /** The same file, opened by Deno: it finds out why a lock is refused. */
  readonly file: Deno.FsFile;
  /** Where it was found. */
  readonly path: string;
  /** What an error says was attempted. */
  readonly attempted: string;
}

/** How a file is to be locked. */
export interface LockOptions {
  /** Together with others that only read. */
  readonly readOnly: boolean;
  /** Do without the lock if somebody else has it: for a take-over. Otherwise it is waited for, up to 2 s. */
  readonly shared: boolean;
}

/**
 * Locks a file.
 *
 * @returns false if somebody else has it: only if it may be `shared`
 * @throws {DblockError} EBUSY (it is served already, or its name leads to another file by now), ENOLCK, EOPNOTSUPP (its
 * file system cannot lock files).
 */
export async function lock({ fd, file, path, attempted }: Lockable, options: LockOptions): Promise<boolean> {
  const { readOnly, shared } = options;
  const givenUpMs = performance.now() + (shared ? 0 : WAIT_MS);
  let isLocked = false;
  for (let isFirst = true; !isLocked; isFirst = false) {
    isLocked = lockFile(fd, { shared: readOnly });
    if (isLocked) break;
    if (isFirst) requireLocks(file, attempted, readOnly);
    if (performance.now() >= givenUpMs) break;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  if (!isLocked && !shared) {
    throw new DblockError("EBUSY", attempted, "it is served already", { hint: "take another file" });
  }
  if (isSame(file, path)) return isLocked;
  throw new DblockError("EBUSY", attempted, "another file has taken its place", { hint: "try again" });
}

/** Why a lock is refused is for Deno to say, with another open file: see libc.ts on errno. */
function requireLocks(file: Deno.FsFile, attempted: string, readOnly: boolean): void {
  try {
    if (file.tryLockSync(!readOnly)) file.unlockSync();
  } catch (error) {
    const hint = "take a file on another file system";
    throw new DblockError(errnoOf(error) ?? "ENOLCK", attempted, "its file system cannot lock files", { hint });
  }
}

/** Whether the name still leads to the file: who made it may have removed it while we waited for the lock. */
function isSame(file: Deno.FsFile, path: string): boolean {
  try {
    const [open, named] = [file.statSync(), Deno.statSync(path)];
    return open.ino === named.ino && open.dev === named.dev;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** A lock that somebody else has: it is asked for again and again, until it is there or nobody wants it any more. */
export class LateLock {
  readonly #fd: number;
  readonly #readOnly: boolean;
  #isLocked: boolean;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param isLocked what `lock()` has returned: nothing is left to do if true */
  constructor(fd: number, options: { readonly isLocked: boolean; readonly readOnly: boolean }) {
    this.#fd = fd;
    this.#isLocked = options.isLocked;
    this.#readOnly = options.readOnly;
    if (!this.#isLocked) this.#askLater();
  }

  /** Whether the lock is ours. */
  get isLocked(): boolean {
    return this.#isLocked;
  }

  /** Asks no more. To be called before the file is closed. */
  cancel(): void {
    clearTimeout(this.#timer);
  }

  #askLater(): void {
    this.#timer = setTimeout(() => {
      this.#isLocked = lockFile(this.#fd, { shared: this.#readOnly });
      if (!this.#isLocked) this.#askLater();
    }, PAUSE_MS);
    Deno.unrefTimer(Number(this.#timer));
  }
}
