// SPDX-License-Identifier: MIT
/**
 * How connections and disks end in bounded time, whatever their clients and their backends do: each step is waited for, and
 * what is late is left behind. It decides nothing about when.
 */
import type { Backend } from "../disk/backend.ts";
import { describe } from "../disk/errors.ts";
import type { Log } from "../disk/log.ts";
import type { Session } from "./session.ts";

/** For the answers to what is open, and for the clients to take them. */
const CLOSE_MS = 10_000;
/** After the signals of what is open are aborted: a backend that looks at them answers now. */
const ABORTED_MS = 1_000;
/** For `close()` of a backend, as `serve()` has it. */
const BACKEND_CLOSE_MS = 60_000;
/** For `close()` of a backend that has left requests without an answer. */
const DEAF_BACKEND_CLOSE_MS = 10_000;

/**
 * Ends connections: what is open is answered, for 10 s at most. Then the clients are cut off, and the signals of what is
 * still open are aborted. What is not answered a second later keeps its memory for good, because its backend may still write
 * there.
 *
 * @param sessions with what their `run()` has returned
 * @returns the backends that have left requests without an answer
 */
export async function endSessions(
  sessions: ReadonlyMap<Session, Promise<void>>,
  log: Log,
): Promise<ReadonlySet<Backend>> {
  for (const session of sessions.keys()) session.stop();
  const ended = Promise.all(sessions.values());
  if (await settlesWithin(CLOSE_MS, ended)) return new Set();
  log(`${sessions.size} clients are cut off`);
  for (const session of sessions.keys()) session.cut();
  if (await settlesWithin(ABORTED_MS, ended)) return new Set();
  const deaf = [...sessions.keys()].filter((session) => session.openCount > 0);
  const openCount = deaf.reduce((sum, session) => sum + session.openCount, 0);
  log(`${openCount} requests have no answer from their disk, which is closed without`);
  return new Set(deaf.map(({ backend }) => backend));
}

/** Closes a backend. One that takes too long is not waited for. Never rejects. */
export async function closeBackend(backend: Backend, log: Log, options: { readonly isDeaf: boolean }): Promise<void> {
  const timeoutMs = options.isDeaf ? DEAF_BACKEND_CLOSE_MS : BACKEND_CLOSE_MS;
  try {
    const closed = Promise.resolve(backend.close?.("destroyed"));
    if (await settlesWithin(timeoutMs, closed)) return;
    log(`close() of the backend has not returned after ${timeoutMs / 1000} s: it is not waited for any longer`);
  } catch (error) {
    log(`close() of the backend threw ${describe(error)}`);
  }
}

/** @returns false if it has not resolved in that time. Rejects as it does. */
async function settlesWithin(timeoutMs: number, promise: Promise<unknown>): Promise<boolean> {
  const late = Promise.withResolvers<boolean>();
  const timer = setTimeout(late.resolve, timeoutMs, false);
  try {
    return await Promise.race([promise.then(() => true), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
