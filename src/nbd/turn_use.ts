// SPDX-License-Identifier: MIT
/** What one connection has to do with turns: whether its client is waited for there, which pays for quick ones only. */
import { type Member, turns } from "./turns.ts";

/** A client that was slow again and again is waited for in turns once in so many times. */
const PENALTY_MAX = 64;

/** A connection's use of turns. */
export class TurnUse {
  /** The client was waited for there a moment ago, or was to be: now it is waited for otherwise. */
  hasLeft = false;
  /** The client has sent something since the turns began. The connection writes it. */
  isQuick = false;
  /** How many times the next turns are left out, and still are. */
  #penalty = 0;
  #turnsOff = 0;
  #left: () => void = () => {};

  /** Waits until the connection has left the turns, where it is served while its client is quick; or not at all. */
  async take(member: Member): Promise<void> {
    this.hasLeft = true;
    if (--this.#turnsOff >= 0) return;
    this.isQuick = false;
    const left = new Promise<void>((resolve) => this.#left = resolve);
    if (turns.join(member)) await left;
    this.#penalty = this.isQuick ? 0 : Math.min(Math.max(1, 2 * this.#penalty), PENALTY_MAX);
    this.#turnsOff = this.#penalty;
  }

  /** The turns have let the connection go. */
  left(): void {
    this.#left();
  }
}
