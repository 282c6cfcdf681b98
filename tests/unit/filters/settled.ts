// SPDX-License-Identifier: MIT

/** Ends when everything has gone on that waits for no timer: a turn of the event loop. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
