// SPDX-License-Identifier: MIT
/** What one connection has to do with lanes: whether it wants one now, and how it is while a lane has it. */
import type { Geometry } from "../disk/dispatch.ts";
import type { Meter } from "../disk/meter.ts";
import { quieten } from "../system/loop_files.ts";
import { LANE_BYTES_MIN, type LaneOutcome, NOW, SOON } from "./lane.ts";
import type { Given, Lanes } from "./lanes.ts";
import type { Rules } from "./request.ts";
import type { Slot } from "./slot.ts";

/** A lane that was given back after fewer requests than this was not worth the way to it and back: for some time none is taken. */
const REQUESTS_MIN = 16;
const PAUSE_MS = 1_000;

/** What a lane has to know of a connection. */
export interface LaneUser {
  readonly contentAddress: number;
  readonly geometry: Geometry;
  readonly rules: Rules;
  /** Counts requests, which a lane does not: while it is on, no lane is used. */
  readonly meter: Meter | undefined;
}

/** A connection's use of lanes. */
export class LaneUse {
  readonly #lanes: Lanes;
  readonly #user: LaneUser;
  /** While a lane has the socket, nobody else may use or close it. */
  #given: Given | undefined;
  #progress = 0;
  #sinceMs = 0;
  /** The lanes know that this connection is amid a large WRITE. */
  #isCounted = false;
  #offUntilMs = 0;

  constructor(lanes: Lanes, user: LaneUser) {
    this.#lanes = lanes;
    this.#user = user;
  }

  /** A lane has the connection. */
  get isIn(): boolean {
    return this.#given !== undefined;
  }

  /**
   * Whether a lane should take a connection, which has nothing else open.
   *
   * @param slot the request whose payload has not all come; undefined: there is none
   */
  wants(slot: Slot | undefined): boolean {
    const isAmid = slot !== undefined && slot.contentAddress !== 0 && slot.payloadBytes >= LANE_BYTES_MIN &&
      slot.missingBytes > 0;
    if (isAmid !== this.#isCounted) {
      this.#isCounted = isAmid;
      this.#lanes.amidCount += isAmid ? 1 : -1;
    }
    return isAmid && this.#lanes.amidCount > 1 && this.#isUncounted() && this.#lanes.isFree &&
      performance.now() >= this.#offUntilMs;
  }

  /** Lets a lane take what the client writes, this request first, until the client wants something else. Never rejects. */
  async take(fd: number, { cookieHigh, cookieLow, offsetBytes, payloadAddress: address, missingBytes }: Slot): Promise<
    LaneOutcome
  > {
    const { contentAddress, geometry, rules } = this.#user;
    const first = { address, missingBytes, cookieHigh, cookieLow, offsetBytes };
    const job = { fd, contentAddress, geometry, rules, first };
    const given = this.#given = this.#lanes.give(job, () => this.#isUncounted());
    [this.#progress, this.#sinceMs] = [0, performance.now()];
    // Or the event loop is woken by all that comes, while the lane takes it: a quarter of what a request costs.
    const quiet = quieten(fd);
    const outcome = await given.outcome;
    quiet[Symbol.dispose]();
    this.#given = undefined;
    if (outcome.answeredCount < REQUESTS_MIN) this.#offUntilMs = performance.now() + PAUSE_MS;
    return outcome;
  }

  /** For how long nothing has come in the lane. To be asked again and again. */
  stalledMs(nowMs: number): number {
    const { progress } = this.#given!;
    if (progress !== this.#progress) [this.#progress, this.#sinceMs] = [progress, nowMs];
    return nowMs - this.#sinceMs;
  }

  /** Ends the lane, if there is one, after the request that has begun. */
  endSoon(): void {
    this.#given?.end(SOON);
  }

  /** Ends it amid whatever it is at, within 20 ms. */
  endNow(): void {
    this.#given?.end(NOW);
  }

  #isUncounted(): boolean {
    return this.#user.meter?.isOn !== true;
  }
}
