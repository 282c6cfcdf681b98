// SPDX-License-Identifier: MIT
/**
 * Errors as Linux names them: the errno table and `DblockError`, the one class of
 * error this package throws for what the world does wrong. Programmers' errors
 * (a negative size, say) are TypeErrors and RangeErrors.
 */

/**
 * Errno numbers of Linux on x86_64 and aarch64 (include/uapi/asm-generic/errno*.h):
 * those dblock answers with, and those the block layer or a backend may use.
 */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOLCK: 37,
  EBADE: 52,
  ENODATA: 61,
  ETIME: 62,
  ENOLINK: 67,
  EPROTO: 71,
  EBADMSG: 74,
  EOVERFLOW: 75,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETUNREACH: 101,
  ECONNRESET: 104,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  ESTALE: 116,
  EREMOTEIO: 121,
  EDQUOT: 122,
  ECANCELED: 125,
} as const satisfies Record<string, number>;

/** The name of an errno, such as "EBUSY". */
export type ErrnoName = keyof typeof ERRNO;

const NAMES = new Map<number, ErrnoName>(
  Object.entries(ERRNO).map(([name, number]) => [number, name as ErrnoName]),
);

/** "EBUSY" for 16; "errno 99" for a number that is not in the table. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `errno ${errno}`;
}

/** Linux' largest errno. */
const ERRNO_MAX = 4095;

/**
 * The errno of an error: the name in its `code`, as Node and Deno set it, or the number of a `DblockError`. Undefined if
 * the error names none.
 */
export function errnoOf(error: unknown): number | undefined {
  if (typeof error !== "object" || error === null) return undefined;
  // One that the table has no name for: whoever made the error knows the number.
  if (error instanceof DblockError) return error.errno > 0 && error.errno <= ERRNO_MAX ? error.errno : undefined;
  if (!("code" in error) || typeof error.code !== "string") return undefined;
  const code = error.code === "ENOTSUP" ? "EOPNOTSUPP" : error.code; // Deno's name of Linux' one number for both
  return Object.hasOwn(ERRNO, code) ? ERRNO[code as ErrnoName] : undefined;
}

/** Whether the system refused something that was asked of it, as Deno and Node say it. */
export function isOfSystem(error: unknown): error is Error {
  return error instanceof Error && / \(os error \d+\)/.test(error.message);
}

/** What was thrown, in words. Whatever it is, this does not throw. */
export function describe(error: unknown): string {
  try {
    if (error instanceof DblockError) return error.message;
    // The system's own words, without Deno's class and the number that they stand for.
    return isOfSystem(error) ? error.message.replace(/ \(os error \d+\)/, "") : String(error);
  } catch {
    return "something that has no description";
  }
}

/** A log whose own failure ends nothing: Deno's console throws where there is no room for a line. */
export function quietly(log: (message: string) => void): (message: string) => void {
  return (message) => {
    try {
      log(message);
    } catch {
      // There is nowhere to say it.
    }
  };
}

/** What a `DblockError` is made of. */
export interface DblockErrorOptions {
  /** What to do about it, without brackets or a full stop. */
  readonly hint?: string;
  /** The error behind this one. */
  readonly cause?: unknown;
}

/**
 * The errnos of a backend that reach whoever uses the disk. The kernel's block layer knows no other: everything else that a
 * backend answers (EROFS, EACCES and EAGAIN among it) is EIO there.
 *
 * - `ENOSPC`: the store is full.
 * - `ENOMEM`: there was no memory to answer.
 * - `EOPNOTSUPP`: the disk cannot do this.
 * - `ETIMEDOUT`: the store did not answer in time.
 * - `ENOLINK`: the way to the store is broken.
 * - `EREMOTEIO`: the store has failed for good.
 * - `EBADE`: the store is reserved for somebody else.
 * - `ENODATA`: the medium has lost what was there.
 * - `EILSEQ`: what was read is not what was written: a checksum says so.
 */
export type BlockErrno =
  | "ENOSPC"
  | "ENOMEM"
  | "EOPNOTSUPP"
  | "ETIMEDOUT"
  | "ENOLINK"
  | "EREMOTEIO"
  | "EBADE"
  | "ENODATA"
  | "EILSEQ";

/**
 * Something was tried and could not be done. The message says what, why, and what to do:
 * `Cannot create /dev/disk0: the name is in use (try …)`.
 *
 * A backend throws one to choose the errno of an answer, with as many words as it likes:
 *
 * ```ts
 * import { DblockError } from "./errors.ts";
 *
 * console.assert(new DblockError("ENOSPC").errno === 28);
 * console.assert(new DblockError("EIO", "Cannot read", "the disk has a scratch").message.startsWith("Cannot read: "));
 * console.assert(new DblockError(38).errno === 38); // one that ERRNO has no name for
 * ```
 */
export class DblockError extends Error {
  /** "DblockError". */
  override readonly name = "DblockError";
  /** The errno's name, such as "EBUSY"; "errno 38" for a number that is not in {@linkcode ERRNO}. */
  readonly code: string;
  /** The errno's number, such as 16. */
  readonly errno: number;
  /** What was tried; "" if nobody said it. */
  readonly attempted: string;
  /** What is wrong; the errno's name if nobody said it. */
  readonly wrong: string;

  /**
   * An error with an errno; what is not said is in none of its messages.
   *
   * @param errno its name (one of {@linkcode BlockErrno}, if a backend throws it), or its number, 1 to 4,095
   * @param attempted what was tried, with the values: `Cannot create /dev/disk0`
   * @param wrong what is wrong: `the name is in use`
   * @param options what to do about it, and the error behind this one
   */
  constructor(errno: ErrnoName | number, attempted = "", wrong = "", options: DblockErrorOptions = {}) {
    const number = typeof errno === "number" ? errno : ERRNO[errno];
    const what = wrong === "" ? errnoName(number) : wrong;
    const hint = options.hint === undefined ? "" : ` (${options.hint})`;
    super(`${attempted === "" ? "" : `${attempted}: `}${what}${hint}`, { cause: options.cause });
    this.errno = number;
    this.code = errnoName(number);
    this.attempted = attempted;
    this.wrong = what;
  }
}

/** The same error with another advice, for who knows better what the user can type. */
export function withHint({ errno, attempted, wrong, cause }: DblockError, hint: string): DblockError {
  return new DblockError(errno, attempted, wrong, { hint, cause });
}

/** An error that came from a Worker, where its message was put together. */
export function received({ errno, message }: { readonly errno: number; readonly message: string }): DblockError {
  const error = new DblockError(errno);
  error.message = message;
  return error;
}
