// SPDX-License-Identifier: MIT
/** The journal of systemd, which keeps fields beside a line. Its protocol is that of sd_journal_send(3). */
import { sendUnixDatagram } from "./socket.ts";

const SOCKET = "/run/systemd/journal/socket";
const STDERR = "/proc/self/fd/2";

/** As syslog(3) numbers them: 3 is an error, 4 a warning, 6 is for information. */
export type Priority = 3 | 4 | 6;

/** Names are capital letters, digits and underscores: `{ ERRNO: 5 }`. */
export type JournalFields = Readonly<Record<string, string | number>>;

/** Where lines and their fields go. */
export class Journal {
  readonly #socket: string;
  readonly #identifier: string;

  private constructor(socket: string, identifier: string) {
    this.#socket = socket;
    this.#identifier = identifier;
  }

  /**
   * The journal that this process' errors go to, as the environment says.
   *
   * @param identifier what the lines are said to be of
   * @param socket where it listens
   * @returns undefined if they go elsewhere: a terminal, a file, a pipe
   */
  static of(
    environment: Readonly<Record<string, string>>,
    identifier: string,
    socket: string = SOCKET,
  ): Journal | undefined {
    const { JOURNAL_STREAM } = environment;
    if (JOURNAL_STREAM === undefined) return undefined;
    try {
      const { dev, ino } = Deno.statSync(STDERR);
      return JOURNAL_STREAM === `${dev}:${ino}` ? new Journal(socket, identifier) : undefined;
    } catch {
      return undefined;
    }
  }

  /** @returns whether it was sent: nobody waits for a journal that is full or gone */
  send(priority: Priority, message: string, fields: JournalFields = {}): boolean {
    const all = { MESSAGE: message, PRIORITY: priority, SYSLOG_IDENTIFIER: this.#identifier, ...fields };
    // A line end begins the next field.
    return sendUnixDatagram(
      this.#socket,
      Object.entries(all).map(([name, value]) => `${name}=${oneLine(value)}\n`).join(""),
    );
  }
}

function oneLine(value: string | number): string {
  return `${value}`.trimEnd().replaceAll("\n", " | ");
}
