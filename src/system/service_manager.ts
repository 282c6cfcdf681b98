// SPDX-License-Identifier: MIT
/**
 * What a service manager (systemd) is told by a service that it waits for, and what such a service is told by its
 * environment. The words are those of sd_notify(3). What a service says when is the caller's business.
 */
import { sendUnixDatagram } from "./socket.ts";

/** What can be said: "READY=1" is `{ READY: "1" }`. */
export type Notice = Readonly<Record<string, string | number>>;

/** The one that has started this process and listens to it. */
export class ServiceManager {
  readonly #socket: string;
  /** It kills this process if it hears no `WATCHDOG=1` for so long, in ms; undefined: it does not. */
  readonly watchdogMs: number | undefined;

  private constructor(socket: string, watchdogMs: number | undefined) {
    this.#socket = socket;
    this.watchdogMs = watchdogMs;
  }

  /**
   * The service manager that the environment names.
   *
   * @returns undefined if there is none: the process was started by hand
   */
  static of(environment: Readonly<Record<string, string>>, pid: number): ServiceManager | undefined {
    const { NOTIFY_SOCKET = "", WATCHDOG_USEC = "", WATCHDOG_PID = `${pid}` } = environment;
    if (!/^[@/]/.test(NOTIFY_SOCKET)) return undefined;
    // The watchdog of another process, which has started this one.
    const isWatched = /^[1-9][0-9]*$/.test(WATCHDOG_USEC) && WATCHDOG_PID === `${pid}`;
    return new ServiceManager(NOTIFY_SOCKET, isWatched ? Number(WATCHDOG_USEC) / 1000 : undefined);
  }

  /**
   * Tells it something, in one message. A line end in a value would begin another word: it becomes a blank.
   *
   * @returns whether it was sent; a service goes on if it was not
   */
  tell(notice: Notice): boolean {
    const lines = Object.entries(notice).map(([name, value]) => `${name}=${`${value}`.replaceAll(/\s+/g, " ")}`);
    return sendUnixDatagram(this.#socket, lines.join("\n"));
  }
}
