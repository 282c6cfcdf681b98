// SPDX-License-Identifier: MIT
/**
 * What somebody at a terminal sees of a wait: a line on standard error that comes after a second, is drawn again in its place,
 * and is gone at the end. Where standard error is no terminal, nothing is written.
 */
import { quietly } from "../disk/errors.ts";

/** How often it is drawn. Before the first time, nobody wonders. */
const DRAW_MS = 1_000;
/** Where nobody knows how wide the terminal is. */
const COLUMNS = 80;
/** To the beginning of the line, which is empty then. */
const ERASE = "\r\x1b[K";

/** Where progress is drawn. */
export interface Screen {
  readonly columns: number;
  write(text: string): void;
}

/** Those that are on the screen now. */
const drawn = new Set<Progress>();

/** A wait, which is shown until this is disposed. */
export class Progress implements Disposable {
  readonly #screen: Screen | undefined;
  readonly #timer: ReturnType<typeof setInterval> | undefined;
  #text: string | (() => string);
  #sinceMs = performance.now();

  /**
   * Begins to wait.
   *
   * @param text what for: "destroying /dev/scratch", or what says it each time; "" shows nothing
   * @param screen where it is drawn; null: nowhere. @default standard error, if that is a terminal
   */
  constructor(text: string | (() => string), screen: Screen | null = standardError()) {
    this.#text = text;
    this.#screen = screen ?? undefined;
    if (screen !== null) this.#timer = setInterval(() => this.#draw(), DRAW_MS);
  }

  /** Something else is waited for now. It is shown after a second, too, or "" at once: nothing. */
  say(text: string): void {
    this.#text = text;
    this.#sinceMs = performance.now();
    this.erase();
  }

  /** Takes the line away until it is drawn again. */
  erase(): void {
    if (drawn.delete(this)) this.#screen?.write(ERASE);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.erase();
  }

  #draw(): void {
    const { columns, write } = this.#screen!;
    const what = typeof this.#text === "string" ? this.#text : this.#text();
    if (what === "") {
      this.#sinceMs = performance.now();
      return this.erase();
    }
    const seconds = Math.floor((performance.now() - this.#sinceMs) / 1_000);
    if (seconds < 1) return;
    // The path of a file may have anything in it.
    // deno-lint-ignore no-control-regex
    const line = `${what} (${seconds} s)`.replaceAll(/[\x00-\x1f\x7f-\x9f]/g, "?");
    drawn.add(this);
    // What somebody else writes begins at the beginning of the line, and not behind this.
    write(`${ERASE}${line.slice(0, columns - 1)}\r`);
  }
}

/** Takes away what is shown, for a line that stays. It is drawn again within a second. */
export function eraseProgress(): void {
  for (const one of [...drawn]) one.erase();
}

/** Standard error, if somebody looks at it. */
function standardError(): Screen | null {
  if (!Deno.stderr.isTerminal()) return null;
  return {
    get columns() {
      return terminalColumns();
    },
    write: quietly((text) => void Deno.stderr.writeSync(new TextEncoder().encode(text))),
  };
}

/** A terminal that has just been made may say 0. */
function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns || COLUMNS;
  } catch {
    return COLUMNS;
  }
}
