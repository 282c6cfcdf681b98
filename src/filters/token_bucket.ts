// SPDX-License-Identifier: MIT
/** The arithmetic of a rate with bursts. It knows no clock: whoever asks says what time it is. */

/**
 * Tokens come in at a rate, and as many as `burst` are kept. Who takes more than there are goes into debt and is told how
 * long to wait; who comes after waits longer. So requests go in their order, and one that is larger than the burst goes.
 *
 * ```ts
 * import { TokenBucket } from "./token_bucket.ts";
 *
 * const bucket = new TokenBucket(1000, 100);
 * console.assert(bucket.take(100, 0) === 0); // the burst
 * console.assert(bucket.take(50, 0) === 50); // 50 tokens at 1,000 a second: 50 ms
 * ```
 */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #atMs: number | undefined;

  /**
   * @param perSecond tokens that come in, more than 0
   * @param burst tokens that are kept at most, 0 or more; the bucket begins full
   * @throws {RangeError} if one of them is not.
   */
  constructor(perSecond: number, burst: number) {
    if (!(perSecond > 0 && burst >= 0)) {
      throw new RangeError(`a rate is more than 0 and a burst 0 or more, not ${perSecond} and ${burst}`);
    }
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
  }

  /** Takes tokens. Returns how many milliseconds to wait before they may be used: 0 if they were there. */
  take(tokens: number, nowMs: number): number {
    const passedMs = Math.max(0, nowMs - (this.#atMs ?? nowMs));
    this.#atMs = nowMs;
    this.#tokens = Math.min(this.#burst, this.#tokens + passedMs * this.#perSecond / 1000) - tokens;
    return this.#tokens >= 0 ? 0 : -this.#tokens * 1000 / this.#perSecond;
  }
}
