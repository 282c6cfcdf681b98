// SPDX-License-Identifier: MIT
/** Waits in unit tests, for what another part of the program does soon. */

/** Longer than it takes on a machine that does much else: only a test that fails waits for so long. */
const WAIT_MS = 20_000;

/**
 * Returns when `isSo()`.
 *
 * @param what is waited for, in words
 * @throws {Error} after 20 s, with what was waited for.
 */
export async function until(isSo: () => boolean, what = String(isSo)): Promise<void> {
  for (const start = performance.now(); !isSo();) {
    if (performance.now() - start > WAIT_MS) throw new Error(`not after ${WAIT_MS / 1_000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
