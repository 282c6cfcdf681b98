// SPDX-License-Identifier: MIT
/** Who may work on which part of a disk now: for backends that do a request in several steps. */
import { watched } from "./later.ts";

/** `shared`: beside others that only look. `exclusive`: alone. */
export type LockMode = "shared" | "exclusive";

interface Claim {
  readonly start: number;
  readonly end: number;
  readonly mode: LockMode;
  /** What waits for the end of this one. */
  readonly waiting: (() => void)[];
}

/**
 * A lock for ranges of a disk. Who comes later waits for those before him that overlap, unless both are shared. First come,
 * first served: nobody starves, and nobody waits in a circle, because a claim only waits for older ones.
 *
 * ```ts
 * import { RangeLock } from "./range_lock.ts";
 *
 * const lock = new RangeLock();
 * const order: string[] = [];
 * const slow = lock.run(0, 512, "exclusive", async () => {
 *   await Promise.resolve();
 *   order.push("first");
 * });
 * await Promise.all([slow, lock.run(0, 1024, "shared", () => void order.push("second"))]);
 * console.assert(order.join() === "first,second");
 * ```
 */
export class RangeLock {
  readonly #claims = new Set<Claim>();

  /** True while nobody holds or wants anything. */
  get idle(): boolean {
    return this.#claims.size === 0;
  }

  /** True if somebody holds or wants a part of the range, in whichever mode. */
  isClaimed(offsetBytes: number, lengthBytes: number): boolean {
    for (const claim of this.#claims) {
      if (claim.start < offsetBytes + lengthBytes && claim.end > offsetBytes) return true;
    }
    return false;
  }

  /** Does `work` once the range is free. At once, and synchronously if `work` is, where it is free already. */
  run<T>(offsetBytes: number, lengthBytes: number, mode: LockMode, work: () => T | Promise<T>): T | Promise<T> {
    const claim: Claim = { start: offsetBytes, end: offsetBytes + lengthBytes, mode, waiting: [] };
    const before: Claim[] = [];
    for (const other of this.#claims) {
      const overlaps = other.start < claim.end && other.end > claim.start;
      if (overlaps && (mode === "exclusive" || other.mode === "exclusive")) before.push(other);
    }
    this.#claims.add(claim);
    if (before.length === 0) return this.#work(claim, work);
    const waits = before.map((other) => new Promise<void>((resolve) => other.waiting.push(resolve)));
    return Promise.all(waits).then(() => this.#work(claim, work));
  }

  #work<T>(claim: Claim, work: () => T | Promise<T>): T | Promise<T> {
    return watched(work, () => {
      this.#claims.delete(claim);
      for (const wake of claim.waiting) wake();
    });
  }
}
