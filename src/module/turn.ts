// SPDX-License-Identifier: MIT
/** Turns of an event loop that serves a queue, so that all else in its thread has a turn, too. */

/** How long a turn may keep timers, signals and other promises waiting. */
export const TURN_MS = 2;

/** Event loops that this thread serves queues with. Only one can wait for its requests at a time, and several must not. */
export const loops = { count: 0 };

/** After timers, I/O and microtasks that are due. */
export function immediate(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
