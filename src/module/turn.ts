// SPDX-License-Identifier: MIT
/** Turns of an event loop that serves a queue, so that all else in its thread has a turn, too. */

/** How long a turn may keep timers, signals and other promises waiting. */
export const TURN_MS = 2;

/** After timers, I/O and microtasks that are due. */
export function immediate(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
