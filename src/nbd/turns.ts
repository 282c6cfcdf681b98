// SPDX-License-Identifier: MIT
/**
 * Connections whose clients are busy, served in turns: for some time this thread does nothing but wait in the kernel for
 * their next requests, microseconds at a time, and answers them. That saves the event loop's way to each request, which
 * takes longer than the request. Between two turns everything else runs.
 */
import { Patience } from "../system/patience.ts";
import { SOCKETS_MAX, SocketSet } from "../system/socket.ts";

/** How long a turn may keep timers, promises and other connections waiting. */
const TURN_MS = 2;
/**
 * A client that has got its answer is waited for so long. A guess: it comes back within 10 to 50 us, or later where others want
 * the processor; and nothing else in this program runs meanwhile.
 */
const WAIT_US = 200;
/**
 * A client that has this thread for itself is looked for so long before the thread sleeps: to wake it takes as long, and the
 * client is who has to.
 */
const LOOK_MS = 0.05;

/** What a member did: it had something to do, or nothing had come, or it is no member any more. */
export type Served = "busy" | "nothing" | "leaves";

/** A connection that can be served in turns. */
export interface Member {
  /** Its socket. */
  readonly fd: number;
  /** The number of the turn in which it was last ready. Turns writes it. */
  lastTurn: number;
  /** There are answers that the socket has had no room for. */
  readonly wantsRoom: boolean;
  /**
   * Takes what has come, if it is asked to read, and answers, without waiting. It leaves if it has to wait for something else
   * than its socket.
   */
  serveNow(reads: boolean): Served;
  /** It is no member any more, and has to wait for its socket itself. */
  left(): void;
}

class Turns {
  readonly #members: Member[] = [];
  readonly #sockets = new SocketSet();
  /** Others have threads of their own now: whoever looks for a client takes the processor from them. */
  othersCount = 0;
  #number = 0;
  #isScheduled = false;
  /** In vain, where the client takes longer or has no processor. */
  readonly #patience = new Patience();

  /** False if there are as many as there may be. Else `left()` follows, always after this has returned. */
  join(member: Member): boolean {
    if (this.#members.length === SOCKETS_MAX) return false;
    this.#members.push(member);
    this.#schedule();
    return true;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#turn();
      if (this.#members.length > 0) this.#schedule();
    });
  }

  /** Who was not ready once during a turn is no member after it. */
  #turn(): void {
    const endMs = performance.now() + TURN_MS;
    this.#number++;
    while (this.#members.length > 0 && (this.#serveLone() || this.#serveAll())) {
      if (performance.now() < endMs) continue;
      for (const member of this.#members.filter(({ lastTurn }) => lastTurn !== this.#number)) this.#leave(member);
      return;
    }
    for (const member of [...this.#members]) this.#leave(member);
  }

  /** Where there is one member alone, it reads without a question whether it can. False if it could not, for a moment. */
  #serveLone(): boolean {
    const member = this.#members[0]!;
    if (this.#members.length > 1 || member.wantsRoom) return false;
    const looks = this.othersCount === 0 && this.#patience.isWorthIt;
    const endMs = looks ? performance.now() + LOOK_MS : 0;
    let served: Served;
    do served = member.serveNow(true); while (served === "nothing" && performance.now() < endMs);
    if (looks || served === "nothing" && this.othersCount === 0) this.#patience.told(served !== "nothing");
    if (served === "nothing") return false;
    member.lastTurn = this.#number;
    if (served === "leaves") this.#leave(member);
    return true;
  }

  /** False if nobody was ready. */
  #serveAll(): boolean {
    const members = this.#members;
    const sockets = this.#sockets;
    for (let i = 0; i < members.length; i++) sockets.put(i, members[i]!.fd, members[i]!.wantsRoom);
    if (sockets.wait(members.length, WAIT_US) <= 0) return false;
    // From the last on: who leaves changes no other's place.
    for (let i = members.length - 1; i >= 0; i--) {
      const member = members[i]!;
      if (!sockets.isReady(i)) continue;
      member.lastTurn = this.#number;
      // One that is ready and has nothing to read has an error, which who waits for it finds out.
      if (member.serveNow(sockets.isReadable(i)) !== "busy") this.#leave(member);
    }
    return true;
  }

  #leave(member: Member): void {
    this.#members.splice(this.#members.indexOf(member), 1);
    member.left();
  }
}

/** All servers of a program have one thread, besides lanes. */
export const turns = new Turns();
