// SPDX-License-Identifier: MIT
/**
 * A lane: takes large WRITEs of one connection to a disk in memory, receives them where they belong and answers them, until
 * something else comes. What that is, the connection's session finds out. It waits on its own thread, in the kernel: that of a
 * Worker (lane_worker.ts). Who is given a lane is lanes.ts.
 */
import type { Geometry } from "../disk/dispatch.ts";
import { addressOf, copyToMemory } from "../system/memory.ts";
import { Pieces, receive, send, SocketSet } from "../system/socket.ts";
import { placeOf } from "./command.ts";
import { NBD_CMD_WRITE, REQUEST_BYTES, SIMPLE_REPLY_BYTES } from "./protocol.ts";
import { type Answered, putSimple } from "./reply.ts";
import { judge, type Rules, WireRequest } from "./request.ts";

/** Payloads from this size on are worth a thread: smaller ones are received many at a time (a guess). */
export const LANE_BYTES_MIN = 64 * 1024;
/** What is received beyond a payload: it would be copied. */
const AHEAD_BYTES = 4 * 1024;
/** A client that says nothing for so long between two requests is given back; amid one, the lane may have to end. A guess. */
const QUIET_US = 20_000;
/** A client that reads no answers is looked at so often. */
const ROOM_US = 1_000;

/** What a lane is told in `control[0]`: to go on, to end after the request that has begun, or at once. */
export const GO_ON = 0;
export const SOON = 1;
export const NOW = 2;

/** What a lane needs. */
export interface LaneJob {
  /** The connection's socket, which nobody else uses meanwhile. */
  readonly fd: number;
  readonly contentAddress: number;
  readonly geometry: Geometry;
  readonly rules: Rules;
  /** A WRITE whose header has been taken, and what of its payload has not come. */
  readonly first: {
    readonly address: number;
    readonly missingBytes: number;
    readonly cookieHigh: number;
    readonly cookieLow: number;
    readonly offsetBytes: number;
  };
  /** [what it is told, how often something has come] */
  readonly control: Int32Array<SharedArrayBuffer>;
}

/** What became of a connection in a lane. */
export interface LaneOutcome {
  /** What has come after the last request that was answered. */
  readonly rest: Uint8Array;
  /** The client has gone, or the lane was told to end at once. */
  readonly isEnd: boolean;
  readonly answeredCount: number;
}

/** Serves one connection after the other. */
export class Lane {
  readonly #bytes = new Uint8Array(new ArrayBuffer(REQUEST_BYTES + AHEAD_BYTES));
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #address = addressOf(this.#bytes);
  readonly #reply = new Uint8Array(new ArrayBuffer(SIMPLE_REPLY_BYTES));
  readonly #replyView = new DataView(this.#reply.buffer);
  readonly #replyAddress = addressOf(this.#reply);
  readonly #pieces = new Pieces();
  readonly #sockets = new SocketSet();
  readonly #request = new WireRequest();
  #job: LaneJob | undefined;
  /** What has come and nobody has taken. */
  #length = 0;

  /** Serves a connection for as long as it only writes, and is not told to end. */
  serve(job: LaneJob): LaneOutcome {
    this.#job = job;
    this.#length = 0;
    const { first, control } = job;
    let isEnd = !this.#take(first.address, first.missingBytes) || !this.#answer(first);
    let answeredCount = isEnd ? 0 : 1;
    while (!isEnd && Atomics.load(control, 0) === GO_ON) {
      const next = this.#next();
      if (next === "other") break;
      isEnd = next === "end" || !this.#answer(this.#request);
      if (!isEnd) answeredCount++;
    }
    return { rest: this.#bytes.slice(0, this.#length), isEnd, answeredCount };
  }

  /** Takes the next request with its payload. "other": it is none for a lane, and none of it is taken. */
  #next(): "taken" | "other" | "end" {
    const { rules, geometry, contentAddress } = this.#job!;
    const request = this.#request;
    while (this.#length < REQUEST_BYTES) {
      const came = this.#receive(0, 0);
      if (came === "nothing") return "other";
      if (came === "end") return "end";
    }
    if (!request.parse(this.#view, 0, false) || request.command !== NBD_CMD_WRITE) return "other";
    if (request.payloadBytes < LANE_BYTES_MIN || judge(request, rules) !== 0) return "other";
    const place = placeOf(request, geometry, contentAddress);
    if (place === 0) return "other";
    const count = Math.min(request.payloadBytes, this.#length - REQUEST_BYTES);
    copyToMemory(place, this.#bytes.subarray(REQUEST_BYTES, REQUEST_BYTES + count));
    this.#bytes.copyWithin(0, REQUEST_BYTES + count, this.#length);
    this.#length -= REQUEST_BYTES + count;
    return this.#take(place + count, request.payloadBytes - count) ? "taken" : "end";
  }

  /** Receives the rest of a payload. False if the connection ends amid it, or has to. */
  #take(address: number, bytes: number): boolean {
    for (let done = 0; done < bytes;) {
      const came = this.#isOver ? "end" : this.#receive(address + done, bytes - done);
      if (came === "end") return false;
      if (came !== "nothing") done += Math.min(came, bytes - done);
    }
    return true;
  }

  /** The first `directBytes` of what comes to an address, and the rest behind what there is. "nothing": not for a while. */
  #receive(directAddress: number, directBytes: number): number | "nothing" | "end" {
    const { fd, control } = this.#job!;
    const pieces = this.#pieces;
    pieces.clear();
    if (directBytes > 0) pieces.add(directAddress, directBytes);
    pieces.add(this.#address + this.#length, this.#bytes.length - this.#length);
    let count = receive(fd, pieces);
    if (count < 0) {
      this.#sockets.put(0, fd, false);
      if (this.#sockets.wait(1, QUIET_US) <= 0) return "nothing";
      count = receive(fd, pieces); // there was something: what fails now is an error
    }
    if (count <= 0) return "end";
    Atomics.add(control, 1, 1);
    this.#length += Math.max(0, count - directBytes);
    return count;
  }

  /** False if the connection has ended, or has to. */
  #answer(request: Answered): boolean {
    const { fd } = this.#job!;
    putSimple(this.#replyView, 0, request, 0);
    for (let done = 0; done < SIMPLE_REPLY_BYTES;) {
      this.#pieces.clear();
      this.#pieces.add(this.#replyAddress + done, SIMPLE_REPLY_BYTES - done);
      const count = send(fd, this.#pieces);
      if (count > 0) {
        done += count;
        continue;
      }
      // Thousands of answers that the client has not read, or it has gone.
      this.#sockets.put(0, fd, true);
      if (this.#isOver || this.#sockets.wait(1, ROOM_US) > 0 && this.#sockets.isBroken(0)) return false;
      if (!this.#sockets.hasRoom(0)) this.#sockets.wait(0, ROOM_US); // it is ready all the time if there is more to read
    }
    return true;
  }

  /** It has to end, whatever it is at. */
  get #isOver(): boolean {
    return Atomics.load(this.#job!.control, 0) === NOW;
  }
}
