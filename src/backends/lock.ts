// SPDX-License-Identifier: MIT
/** The lock that keeps two servers from one file or device. It ends with the open file. */
import { DblockError, errnoOf } from "../disk/errors.ts";
import { linux, lockDevice, lockFile, O_EXCL, O_RDONLY } from "../system/libc.ts";

/** A server that was killed keeps its lock until its memory is taken down. */
const WAIT_MS = 2_000;
const PAUSE_MS = 20;

/** An open file that is to be locked. */
export interface Lockable {
  readonly fd: number;
  /** It is a block device, not a regular file. @default false */
  readonly isDevice?: boolean;
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
export async function lock({ fd, isDevice, file, path, attempted }: Lockable, options: LockOptions): Promise<boolean> {
  const { readOnly, shared } = options;
  const givenUpMs = performance.now() + (shared ? 0 : WAIT_MS);
  let isLocked = false;
  for (let isFirst = true; !isLocked; isFirst = false) {
    isLocked = lockOne(fd, { isDevice, readOnly });
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

function lockOne(
  fd: number,
  { isDevice = false, readOnly }: { readonly isDevice?: boolean | undefined; readonly readOnly: boolean },
): boolean {
  return isDevice ? lockDevice(fd, { shared: readOnly }) : lockFile(fd, { shared: readOnly });
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

/**
 * Removes a file that this program has made and that nobody was to use, before its lock is let go. A file that has taken its
 * place stays. Never throws: why the file is not used is what somebody is told.
 */
export function removeUnused({ fd, path }: Pick<Lockable, "fd" | "path">): void {
  try {
    const [open, named] = [Deno.statSync(`/proc/self/fd/${fd}`), Deno.statSync(path)];
    if (open.ino === named.ino && open.dev === named.dev) Deno.removeSync(path);
  } catch {
    // it is gone, or its folder may not be changed any more
  }
}

/**
 * A lock that somebody else has: it is asked for again and again, until it is there or nobody wants it any more. With that of a block
 * device comes what an O_EXCL of its first server did: nobody else can mount it, or make it a part of another one.
 */
export class LateLock {
  readonly #fd: number;
  readonly #kind: { readonly isDevice?: boolean | undefined; readonly readOnly: boolean };
  #isLocked: boolean;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The open file that claims a device. */
  #claim = -1;

  /** @param isLocked what `lock()` has returned: nothing is left to do if true */
  constructor(
    fd: number,
    options: { readonly isLocked: boolean; readonly readOnly: boolean; readonly isDevice?: boolean },
  ) {
    this.#fd = fd;
    this.#isLocked = options.isLocked;
    this.#kind = options;
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

  /** Lets go of what came with the lock, which itself ends with the file. To be called after `cancel()`. */
  release(): void {
    if (this.#claim >= 0) linux.close(this.#claim);
    this.#claim = -1;
  }

  #askLater(): void {
    this.#timer = setTimeout(() => {
      this.#isLocked = lockOne(this.#fd, this.#kind) && this.#claims();
      if (!this.#isLocked) this.#askLater();
    }, PAUSE_MS);
    Deno.unrefTimer(Number(this.#timer));
  }

  #claims(): boolean {
    const { isDevice = false, readOnly } = this.#kind;
    if (!isDevice || readOnly) return true;
    this.#claim = linux.open(`/proc/self/fd/${this.#fd}`, O_RDONLY | O_EXCL);
    return this.#claim >= 0;
  }
}
