// SPDX-License-Identifier: MIT
/** Who else serves requests in this thread, whatever brings them: a queue of a device, a connection of NBD. */

/** How many do. One alone may wait for its own requests with the thread itself; of several, each would keep the others waiting. */
export const servers = { count: 0 };
