// SPDX-License-Identifier: MIT
/** How several halves of a mirror are asked the same: one after the other until one can, or all of them. */
import type { CloseReason, RequestOptions } from "../disk/backend.ts";
import { DblockError } from "../disk/errors.ts";
import { isPromise } from "../disk/later.ts";
import type { Member } from "./member.ts";
import type { Half } from "./mirror_half.ts";

/** What asking one half came to. */
export interface Result {
  readonly half: Half;
  /** What it threw; undefined if it did what it was asked. */
  readonly error?: unknown;
  /** It has not answered yet, and this is what its answer will come to. */
  readonly late?: Promise<Result>;
}

/**
 * Asks all at the same time, and waits for all; or, with `lateMs`, so long after the first one that has everything has done
 * it. Who has not answered then has failed with ETIMEDOUT. Never rejects.
 */
export async function askAll(
  halves: readonly Half[],
  work: (member: Member, half: Half) => void | Promise<void>,
  lateMs = 0,
): Promise<Result[]> {
  const results = new Map<Half, Result>();
  const done = Promise.withResolvers<void>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const answers = halves.map(async (half): Promise<Result> => {
    const settled = await settle(() => half.ask((member) => work(member, half)));
    // Whatever was thrown is an error, undefined as well.
    const error = settled.status === "rejected" ? settled.reason ?? new Error("it has failed") : undefined;
    const result = error === undefined ? { half } : { half, error };
    results.set(half, result);
    if (error === undefined && half.state === "working" && lateMs > 0) timer ??= setTimeout(done.resolve, lateMs);
    return result;
  });
  await Promise.race([Promise.all(answers), done.promise]);
  clearTimeout(timer);
  return halves.map((half, i) => results.get(half) ?? { half, error: tooLate(half, lateMs), late: answers[i]! });
}

/** An answer, or ETIMEDOUT after `lateMs`; 0: however late it is. */
export async function inTime(answer: void | Promise<void>, half: Half, lateMs: number): Promise<void> {
  if (lateMs === 0 || !isPromise(answer)) return await answer;
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(tooLate(half, lateMs)), lateMs);
  try {
    await Promise.race([answer, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Closes all; one that has left is closed when it answers, and nobody waits for that longer than `lateMs`. */
export async function closeHalves(
  halves: readonly Half[],
  reason: CloseReason,
  lateMs: number,
): Promise<PromiseSettledResult<void>[]> {
  return await Promise.allSettled(halves.map(async (half) => {
    const closed = inTime(half.close(reason), half, lateMs);
    await (half.state === "left" ? closed.catch(() => {}) : closed);
  }));
}

function tooLate({ name }: Half, lateMs: number): DblockError {
  return new DblockError("ETIMEDOUT", `Cannot use ${name}`, `it has not answered for ${lateMs / 1000} s`);
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
 * @param lateMs the next one is asked when one has not answered for so long, which counts as a failure; 0: never
 * @param failed told of each half that could not
 * @throws what the first one threw, if none can.
 */
export function readFirst(
  halves: readonly Half[],
  buffer: Uint8Array<ArrayBuffer>,
  offsetBytes: number,
  options: RequestOptions,
  lateMs: number,
  failed: (half: Half) => void = () => {},
): void | Promise<void> {
  const readFrom = (index: number, firstError: unknown): void | Promise<void> => {
    const half = halves[index];
    if (half === undefined) throw firstError;
    const next = (error: unknown) => {
      failed(half);
      return readFrom(index + 1, index === 0 ? error : firstError);
    };
    // The last one is waited for. One that is given up may still write to its buffer.
    const patienceMs = index === halves.length - 1 ? 0 : lateMs;
    const own = patienceMs === 0 ? buffer : new Uint8Array(buffer.length);
    let done: void | Promise<void>;
    try {
      done = half.ask((member) => member.read(own, offsetBytes, options));
    } catch (error) {
      return next(error);
    }
    if (!isPromise(done)) return own === buffer ? undefined : buffer.set(own);
    if (patienceMs === 0) return done.catch(next);
    return inTime(done, half, patienceMs).then(() => buffer.set(own), next);
  };
  return readFrom(0, new Error("no half of the mirror is there"));
}
