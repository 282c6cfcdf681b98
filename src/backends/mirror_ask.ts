// SPDX-License-Identifier: MIT
/** How several halves of a mirror are asked the same: one after the other until one can, or all of them. */
import type { RequestOptions } from "../disk/backend.ts";
import { isPromise } from "../disk/later.ts";
import type { Member } from "./member.ts";
import type { Half } from "./mirror_half.ts";

/** What asking one half came to. */
export interface Result {
  readonly half: Half;
  /** What it threw; undefined if it did what it was asked. */
  readonly error?: unknown;
}

/** Asks all at the same time, and waits for all. Never rejects. */
export async function askAll(
  halves: readonly Half[],
  work: (member: Member, half: Half) => void | Promise<void>,
): Promise<Result[]> {
  const asked = halves.map((half) => settle(() => half.ask((member) => work(member, half))));
  const settled = await Promise.all(asked);
  return settled.map((result, i) => {
    const half = halves[i]!;
    // Whatever was thrown is an error, undefined as well.
    return result.status === "fulfilled" ? { half } : { half, error: result.reason ?? new Error("it has failed") };
  });
}

/** What something came to, whether it throws now, rejects later, or neither. */
export async function settle(work: () => void | Promise<void>): Promise<PromiseSettledResult<void>> {
  try {
    return { status: "fulfilled", value: await work() };
  } catch (reason) {
    return { status: "rejected", reason };
  }
}

/**
 * Fills `buffer` from the first half that can. At once if that answers at once.
 *
 * @param failed told of each half that could not
 * @throws what the first one threw, if none can.
 */
export function readFirst(
  halves: readonly Half[],
  buffer: Uint8Array<ArrayBuffer>,
  offsetBytes: number,
  options: RequestOptions,
  failed: (half: Half) => void = () => {},
): void | Promise<void> {
  const readFrom = (index: number, firstError: unknown): void | Promise<void> => {
    const half = halves[index];
    if (half === undefined) throw firstError;
    const next = (error: unknown) => {
      failed(half);
      return readFrom(index + 1, index === 0 ? error : firstError);
    };
    let done: void | Promise<void>;
    try {
      done = half.ask((member) => member.read(buffer, offsetBytes, options));
    } catch (error) {
      return next(error);
    }
    return isPromise(done) ? done.catch(next) : done;
  };
  return readFrom(0, new Error("no half of the mirror is there"));
}
