// SPDX-License-Identifier: MIT
/**
 * Few lines about what happens a thousand times a second: of each kind the first one at once, then one in ten seconds with
 * the number of those between. Failed requests have a log of their own on top of it: `FailureLog` in log.ts.
 */
import { quietly } from "./errors.ts";

/** After a line of a kind, the next one of it comes no sooner, in ms. A guess: a person can read that. */
const PAUSE_MS = 10_000;
/** Lines that say other things are of other kinds, as long as there are not more than this. */
const KINDS_MAX = 64;

interface Kind<About> {
  /** As in the last one that was counted. */
  about: About;
  readonly saidMs: number;
  /** How often it has come since. */
  unsaid: number;
}

/** At least one. */
function seconds(ms: number): number {
  return Math.max(1, Math.round(ms / 1000));
}

/** Decides which of many lines are said. Says nothing itself. */
export class Limiter<About> {
  readonly #now: () => number;
  readonly #kinds = new Map<string, Kind<About>>();

  /** @param now the time in ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /**
   * It has happened.
   *
   * @param text what would be said; numbers in it, such as offsets, do not make another kind
   * @param coarse the kind of a text that is one too many to be told apart; there are few of these
   * @returns how the line ends ("" or "; 3 more in the 12 s before"); undefined if none is to be said now
   */
  take(text: string, coarse: string, about: About): string | undefined {
    const fine = text.replaceAll(/\d+/g, "0");
    const key = this.#kinds.has(fine) || this.#kinds.size < KINDS_MAX ? fine : coarse;
    const nowMs = this.#now();
    const kind = this.#kinds.get(key);
    if (kind !== undefined && nowMs - kind.saidMs < PAUSE_MS) {
      kind.unsaid++;
      kind.about = about;
      return undefined;
    }
    this.#kinds.set(key, { about, saidMs: nowMs, unsaid: 0 });
    if (kind === undefined || kind.unsaid === 0) return "";
    return `; ${kind.unsaid} more in the ${seconds(nowMs - kind.saidMs)} s before`;
  }

  /** No more will come: what was counted since the last line of each kind, and how that line ends. */
  end(): readonly { readonly about: About; readonly rest: string }[] {
    const nowMs = this.#now();
    const counted = [...this.#kinds.values()].filter(({ unsaid }) => unsaid > 0);
    this.#kinds.clear();
    return counted.map(({ about, saidMs, unsaid }) => ({
      about,
      rest: `; ${unsaid} more in the last ${seconds(nowMs - saidMs)} s`,
    }));
  }
}

/** Plain lines, few of each kind. A log that throws ends nothing. */
export class FewLines {
  readonly #log: (line: string) => void;
  readonly #limiter: Limiter<string>;

  /**
   * @param log takes the lines that are said
   * @param now the time in ms
   */
  constructor(log: (line: string) => void, now?: () => number) {
    this.#log = quietly(log);
    this.#limiter = new Limiter(now);
  }

  /** A line that may come often. Numbers in it do not make another kind. */
  add(line: string): void {
    const rest = this.#limiter.take(line, "", line);
    if (rest !== undefined) this.#log(`${line}${rest}`);
  }

  /** No more will come: of each kind the last line that was held back, and how many there were. */
  end(): void {
    for (const { about, rest } of this.#limiter.end()) this.#log(`${about}${rest}`);
  }
}
