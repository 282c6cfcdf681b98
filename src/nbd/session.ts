// SPDX-License-Identifier: MIT
/**
 * One connection after its handshake, served by this program's event loop: requests in, replies out, in any order. What is
 * open at a time is bounded (open_requests.ts), and by the pool's memory. While the client is quick it is waited for in turns
 * (turn_use.ts); while it writes much, a lane may have the connection (lane_use.ts).
 */
import type { Backend } from "../disk/backend.ts";
import { Dispatcher, type Geometry, LATER, type Transport } from "../disk/dispatch.ts";
import { DblockError } from "../disk/errors.ts";
import type { DiskLog } from "../disk/log.ts";
import { meterOf } from "../disk/meter.ts";
import { contentAddressOf, EXTENTS_MAX, memoryOf, placeOf, translate } from "./command.ts";
import type { Negotiated } from "./handshake.ts";
import { Inbox } from "./inbox.ts";
import { LaneUse } from "./lane_use.ts";
import type { Lanes } from "./lanes.ts";
import { OpenRequests } from "./open_requests.ts";
import { Outbox, type OutboxOwner } from "./outbox.ts";
import type { BufferPool, PooledBuffer } from "./pool.ts";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_READ,
  NBD_CMD_WRITE_ZEROES,
} from "./protocol.ts";
import { nbdError } from "./reply.ts";
import { judge, requestBytes, type Rules, WireRequest } from "./request.ts";
import type { Slot } from "./slot.ts";
import { TurnUse } from "./turn_use.ts";
import type { Member, Served } from "./turns.ts";
import type { Wire } from "./wire.ts";

/** What a session waits for: bytes of its client, answers and room for them, memory for a payload; or for nothing any more. */
type Need = "input" | "room" | "memory" | "nothing";

/** What a session needs. */
export interface SessionOptions {
  readonly wire: Wire;
  readonly negotiated: Negotiated;
  readonly backend: Backend;
  readonly geometry: Geometry;
  readonly pool: BufferPool;
  readonly log: DiskLog;
  /** Threads for large writes. @default none */
  readonly lanes?: Lanes;
}

/** Serves one connection: `run()` once, `stop()` at any time. */
export class Session implements Transport, OutboxOwner, Member {
  lastTurn = 0;
  readonly backend: Backend;
  readonly #wire: Wire;
  readonly #pool: BufferPool;
  /** Where the disk's own memory is, if payloads go there and come from there; 0: it has none, or TLS is between. */
  readonly #contentAddress: number;
  readonly #geometry: Geometry;
  readonly #dispatcher: Dispatcher;
  readonly #extended: boolean;
  readonly #rules: Rules;
  readonly #open: OpenRequests;
  readonly #outbox: Outbox;
  readonly #request = new WireRequest();
  readonly #inbox = new Inbox();
  /** Undefined where the disk has to be asked for each write. */
  readonly #lane: LaneUse | undefined;
  readonly #turn = new TurnUse();
  /** The request whose payload is not complete. */
  #taking: Slot | undefined;
  #isStopping = false;
  #isBroken = false;
  #wakeReader: () => void = () => {};
  /** When the client was last waited for amid a message; 0: it is not. */
  #waitingSinceMs = 0;

  constructor(options: SessionOptions) {
    const { wire, negotiated, backend, geometry, pool, log, lanes } = options;
    this.#wire = wire;
    this.#pool = pool;
    this.#open = new OpenRequests(pool);
    this.backend = backend;
    this.#contentAddress = wire.fd === undefined ? 0 : contentAddressOf(backend, geometry);
    this.#geometry = geometry;
    this.#extended = negotiated.extended;
    this.#rules = {
      flags: negotiated.export.flags,
      sizeBytes: geometry.sizeBytes,
      chunked: negotiated.extended || negotiated.structured,
      extended: negotiated.extended,
      hasAllocation: negotiated.hasAllocation,
    };
    const isPlain = this.#contentAddress !== 0 && backend.flush === undefined && !negotiated.extended;
    if (isPlain && lanes !== undefined) {
      const user = { contentAddress: this.#contentAddress, geometry, rules: this.#rules, meter: meterOf(backend) };
      this.#lane = new LaneUse(lanes, user);
    }
    this.#outbox = new Outbox(wire, this);
    this.#dispatcher = new Dispatcher(backend, geometry, this, log);
  }

  /** For how long the client has let the rest of a message, or the room for a reply, be waited for. */
  stalledMs(nowMs: number): number {
    if (this.#lane?.isIn) return this.#lane.stalledMs(nowMs);
    const since = [this.#waitingSinceMs, this.#outbox.waitingSinceMs].filter((ms) => ms > 0);
    return since.length === 0 ? 0 : nowMs - Math.min(...since);
  }

  /** Another thread has the connection. */
  get isInLane(): boolean {
    return this.#lane?.isIn === true;
  }

  /** Requests that have no answer yet, or whose answer is on its way. */
  get openCount(): number {
    return this.#open.count;
  }

  /**
   * Serves until the client leaves, or `stop()`. Everything that was begun is answered then. Never rejects.
   *
   * @param first what has come after the handshake already
   * @param hasLeft is called when there will be no more requests, and before those that are open are waited for
   */
  async run(first: Uint8Array, hasLeft?: () => void): Promise<void> {
    this.#inbox.put(first);
    try {
      while (await this.#goOn(this.#takeAll()));
    } catch {
      this.#break(); // the client has gone, or was cut off
    }
    this.#isStopping = true;
    hasLeft?.();
    if (this.#taking !== undefined) this.sent(this.#taking); // the client has ended amid it
    this.#taking = undefined;
    this.#lane?.wants(undefined);
    this.#outbox.writeNow(); // what was answered before the message that ended it
    // A small reply gives its slot back before it is written.
    while (this.#open.count > 0 || this.#outbox.isWriting) await this.#progress();
    this.#wire.close();
    this.#dispatcher.abort();
  }

  /** Waits for what is needed. False: there will be no more requests. */
  async #goOn(need: Need): Promise<boolean> {
    switch (need) {
      case "nothing":
        return false;
      case "room":
        // A write gives room at once, and nobody may miss that: it comes after the wait has begun.
        this.#outbox.writeSoon();
        await this.#progress();
        return true;
      case "memory":
        this.#outbox.writeSoon();
        await this.#pool.released();
        return !this.#isBroken;
      case "input":
        this.#outbox.writeNow();
        if (this.#wantsLane()) return await this.#takeLane();
        // Who has just left the turns was waited for there, and so is one whose answers come from the event loop.
        if (this.#wire.fd !== undefined && !this.#turn.hasLeft && this.#isIdle && !this.#outbox.isWriting) {
          await this.#turn.take(this);
          return true;
        }
        this.#turn.hasLeft = false;
        if (await this.#read()) return true;
        this.#abort(); // no farewell: what a backend still answers is sent, but nobody may be there
        return false;
    }
  }

  /** Takes no more requests; what is open is answered, then the connection is closed. */
  stop(): void {
    this.#isStopping = true;
    this.#lane?.endSoon();
    this.#closeIfDone();
  }

  /** Ends the connection at once. */
  cut(): void {
    this.#break();
  }

  view(index: number, lengthBytes: number): Uint8Array<ArrayBuffer> | undefined {
    const slot = this.#open.slot(index);
    if (slot.contentAddress !== 0) return undefined;
    const isScratch = slot.command === NBD_CMD_WRITE_ZEROES || slot.command === NBD_CMD_CACHE;
    return slot.buffer!.window(isScratch ? 0 : slot.doneBytes, lengthBytes);
  }

  answer(index: number, errno: number): void {
    const slot = this.#open.slot(index);
    if (errno === 0) slot.doneBytes += slot.pieceBytes;
    // Perhaps to its end. The backend of a connection that was cut off may be closed.
    if (errno === 0 && slot.doneBytes < slot.lengthBytes && !this.#isBroken) this.#continue(slot);
    else this.#finish(slot, errno);
    this.#outbox.writeSoon();
  }

  /** Takes every request that is there. What it needs then, to go on. */
  #takeAll(): Need {
    this.#dispatcher.batchBegins();
    const need = this.#takeEach();
    this.#dispatcher.batchEnds();
    return need;
  }

  #takeEach(): Need {
    const headerBytes = requestBytes(this.#extended);
    const request = this.#request;
    const inbox = this.#inbox;
    for (;;) {
      if (this.#isBroken) return "nothing"; // the disk may be closed
      if (this.#taking !== undefined && !this.#takePayload(this.#taking)) return "input";
      if (this.#isStopping) return "nothing";
      if (inbox.length < headerBytes) return "input";
      if (!request.parse(inbox.view, inbox.begin, this.#extended)) return "nothing";
      if (request.command === NBD_CMD_DISC) return "nothing";
      const errno = judge(request, this.#rules);
      const place = errno === 0 ? placeOf(request, this.#geometry, this.#contentAddress) : 0;
      const isBuffered = errno === 0 && place === 0;
      const memoryBytes = isBuffered ? memoryOf(request, this.#geometry, this.backend, this.#extended) : 0;
      if (!this.#open.hasRoom(memoryBytes)) return "room";
      let buffer: PooledBuffer | undefined;
      if (memoryBytes > 0 && (buffer = this.#pool.acquire(memoryBytes)) === undefined) return "memory";
      inbox.skip(headerBytes);
      const slot = this.#taking = this.#open.open(request, buffer, place, errno);
      if (slot.payloadBytes > 0) inbox.expects(slot.payloadBytes);
    }
  }

  /** What follows a header, into the slot's memory or nowhere; then the request begins. False: not all of it is there. */
  #takePayload(slot: Slot): boolean {
    const count = Math.min(slot.payloadBytes - slot.payloadDoneBytes, this.#inbox.length);
    if (count > 0) slot.take(this.#inbox, count);
    if (slot.payloadDoneBytes < slot.payloadBytes) return false;
    this.#taking = undefined;
    if (slot.refusedWith === 0) this.#start(slot);
    else this.#finish(slot, slot.refusedWith);
    return true;
  }

  /** Waits for bytes. False at the connection's end. */
  async #read(): Promise<boolean> {
    // Past the inbox, which is empty then, where there is an array for it.
    const slot = this.#taking?.buffer === undefined || this.#taking.missingBytes === 0 ? undefined : this.#taking;
    this.#waitingSinceMs = this.#inbox.length > 0 || this.#taking !== undefined ? performance.now() : 0;
    try {
      const direct = slot === undefined ? undefined : slot.buffer!.window(slot.payloadDoneBytes, slot.missingBytes);
      const count = await this.#inbox.read(this.#wire, direct);
      if (slot !== undefined) slot.payloadDoneBytes += count;
      return count > 0;
    } finally {
      this.#waitingSinceMs = 0;
    }
  }

  get fd(): number {
    return this.#wire.fd ?? -1;
  }

  get wantsRoom(): boolean {
    return this.#outbox.waitingCount > 0 && !this.#outbox.isWriting;
  }

  serveNow(reads: boolean): Served {
    const { fd } = this.#wire;
    if (fd === undefined) return "leaves";
    if (reads) {
      const directBytes = this.#taking?.missingBytes ?? 0;
      const slot = directBytes > 0 ? this.#taking : undefined;
      const count = this.#inbox.receive(fd, slot?.payloadAddress ?? 0, directBytes);
      if (count < 0) return "nothing"; // or an error
      if (count === 0) return "leaves"; // the end, which who waits for the socket finds out
      if (slot !== undefined) slot.payloadDoneBytes += Math.min(count, directBytes);
    }
    this.#turn.isQuick = true;
    const need = this.#takeAll();
    this.#outbox.sendNow();
    if (need === "input" && this.#wantsLane()) return "leaves";
    return need === "input" && this.#isIdle ? "busy" : "leaves";
  }

  /** Amid a large WRITE, and nothing else is open. */
  #wantsLane(): boolean {
    if (this.#lane === undefined || !this.#lane.wants(this.#taking)) return false;
    return this.#isIdle && this.#outbox.waitingCount === 0 && !this.#outbox.isWriting;
  }

  /** Lets a lane take what the client writes, until the client wants something else. False: there will be no more requests. */
  async #takeLane(): Promise<boolean> {
    const slot = this.#taking!;
    const { rest, isEnd } = await this.#lane!.take(this.fd, slot);
    if (isEnd || this.#isBroken) {
      if (this.#isBroken) this.#wire.close(); // it could not be closed before
      this.#abort();
      return false;
    }
    this.#taking = undefined;
    this.sent(slot);
    this.#inbox.put(rest);
    return true;
  }

  /** The backend has nothing to answer. */
  get #isIdle(): boolean {
    return this.#open.count === this.#outbox.waitingCount + (this.#taking === undefined ? 0 : 1);
  }

  left(): void {
    this.#outbox.writeNow();
    this.#turn.left();
  }

  #start(slot: Slot): void {
    if (slot.command === NBD_CMD_BLOCK_STATUS) return void this.#status(slot);
    const answer = translate(slot, this.#geometry, this.backend);
    if (answer === undefined) this.#continue(slot);
    else this.#finish(slot, answer);
  }

  /** Asks for the next piece of a request, and the next, while the backend answers at once. */
  #continue(slot: Slot): void {
    do {
      slot.pieceBytes = Math.min(slot.lengthBytes - slot.doneBytes, slot.pieceBytesMax);
      const errno = this.#dispatcher.dispatch(
        slot.operation,
        slot.flags,
        slot.offsetBytes + slot.doneBytes,
        slot.pieceBytes,
        slot.index,
      );
      if (errno === LATER) return;
      if (errno !== 0) return this.#finish(slot, errno);
      slot.doneBytes += slot.pieceBytes;
    } while (slot.doneBytes < slot.lengthBytes);
    this.#finish(slot, 0);
  }

  async #status(slot: Slot): Promise<void> {
    const one = (slot.wireFlags & NBD_CMD_FLAG_REQ_ONE) !== 0;
    const found = await this.#dispatcher[one ? "firstExtent" : "extents"](slot.offsetBytes, slot.lengthBytes);
    if (typeof found === "number") this.#finish(slot, found);
    else {
      slot.replyStatus(found.slice(0, one ? 1 : EXTENTS_MAX), this.#rules);
      this.#outbox.add(slot);
    }
    this.#outbox.writeSoon();
  }

  /** Makes the reply; it is sent with the next write. */
  #finish(slot: Slot, errno: number): void {
    if (errno === 0 && slot.command === NBD_CMD_READ) slot.replyData(this.#rules);
    else {
      this.#open.releaseBuffer(slot);
      slot.replyBare(nbdError(errno), this.#rules);
    }
    this.#outbox.add(slot);
  }

  sent(slot: Slot): void {
    this.#open.close(slot);
    this.#wakeReader();
  }

  drained(): void {
    this.#wakeReader();
    this.#closeIfDone();
  }

  broken(): void {
    this.#break();
  }

  #progress(): Promise<void> {
    return new Promise((resolve) => this.#wakeReader = resolve);
  }

  #closeIfDone(): void {
    if (this.#isStopping && this.#open.count === 0 && !this.#outbox.isWriting) this.#wire.close();
  }

  #break(): void {
    this.#isBroken = true;
    if (this.#lane?.isIn) this.#lane.endNow();
    else this.#wire.close();
    this.#outbox.break();
    this.#abort();
  }

  #abort(): void {
    this.#dispatcher.abort(new DblockError("ENODEV", "Cannot answer", "the client has gone"));
  }
}
