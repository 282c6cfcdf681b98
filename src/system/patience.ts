// SPDX-License-Identifier: MIT
/**
 * Whether to wait for a moment, right here, for what would otherwise wake a sleeping thread or event loop, which takes longer
 * than such a moment. Where the moment passes in vain again and again, it is seldom tried.
 */
const IN_VAIN_MAX = 4;
const ONCE_IN = 16;

/** What became of waits in one place. */
export class Patience {
  #inVain = 0;

  /** Whether to wait this time. Whoever did not says `told(false)` as well. */
  get isWorthIt(): boolean {
    return this.#inVain < IN_VAIN_MAX || this.#inVain % ONCE_IN === 0;
  }

  /** Whether what was waited for has come. */
  told(hasCome: boolean): void {
    if (hasCome) this.#inVain = 0;
    else this.#inVain++;
  }
}
