// SPDX-License-Identifier: MIT
/**
 * One connection after its handshake, served by this program's event loop: requests in, replies out, in any order. What is
 * open at a time is bounded by slots, by the connection's bytes and by the pool's.
 */
import type { Backend } from "../disk/backend.ts";
import { Dispatcher, type Geometry, LATER, type Transport } from "../disk/dispatch.ts";
import { ERRNO } from "../disk/errors.ts";
import { type Operation, REQUEST_FUA, REQUEST_KEEP_ALLOCATED, REQUEST_READ_AHEAD } from "../disk/operation.ts";
import type { Negotiated } from "./handshake.ts";
import { type BufferPool, HEADROOM_BYTES, type PooledBuffer } from "./pool.ts";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  PAYLOAD_BYTES_MAX,
} from "./protocol.ts";
import { nbdError, putChunk, putSimple, putStatus, putU64, statusBytes } from "./reply.ts";
import { judge, requestBytes, type Rules, WireRequest } from "./request.ts";
import type { Wire } from "./wire.ts";

/** Requests of one connection at once. */
const SLOTS_MAX = 128;
/** Payloads of one connection at once, unless a single one is larger. */
const OPEN_BYTES_MAX = 2 * PAYLOAD_BYTES_MAX;
/** What is read at once: the headers and small payloads of many requests. */
const RING_BYTES = 128 * 1024;
/** What is written at once, if the replies are small; a reply with more data is written by itself, without a copy. */
const OUT_BYTES = 128 * 1024;
const COPIED_BYTES_MAX = 16 * 1024;
/** A structured reply with more extents than this is worth nobody's memory. */
const EXTENTS_MAX = 8_192;

/** A request that is open, from its header until its reply is written. */
class Slot {
  readonly head = new Uint8Array(HEADROOM_BYTES);
  readonly headView: DataView = new DataView(this.head.buffer);
  buffer: PooledBuffer | undefined;
  command = 0;
  wireFlags = 0;
  cookieHigh = 0;
  cookieLow = 0;
  offsetBytes = 0;
  lengthBytes = 0;
  operation: Operation = "read";
  flags = 0;
  pieceBytesMax = 0;
  pieceBytes = 0;
  doneBytes = 0;
  /** What is to be sent: `reply[from]` to `reply[to]`. */
  reply: Uint8Array<ArrayBuffer> = this.head;
  from = 0;
  to = 0;
}

/** What a session needs. */
export interface SessionOptions {
  readonly wire: Wire;
  readonly negotiated: Negotiated;
  readonly backend: Backend;
  readonly geometry: Geometry;
  readonly pool: BufferPool;
  readonly log: (message: string) => void;
}

/** Serves one connection: `run()` once, `stop()` at any time. */
export class Session implements Transport {
  readonly #wire: Wire;
  readonly #pool: BufferPool;
  readonly #backend: Backend;
  readonly #geometry: Geometry;
  readonly #dispatcher: Dispatcher;
  readonly #extended: boolean;
  readonly #chunked: boolean;
  readonly #rules: Rules;
  readonly #slots: Slot[] = [];
  readonly #free: number[] = [];
  readonly #request = new WireRequest();
  readonly #ring = new Uint8Array(RING_BYTES);
  readonly #ringView = new DataView(this.#ring.buffer);
  #begin = 0;
  #end = 0;
  readonly #out = new Uint8Array(OUT_BYTES);
  /** Slots whose replies are ready. */
  readonly #ready: number[] = [];
  #openCount = 0;
  #openBytes = 0;
  #isWriting = false;
  #writeScheduled = false;
  #isStopping = false;
  #isBroken = false;
  #wakeReader: () => void = () => {};
  /** When the client was last waited for amid a message; 0: it is not. */
  #waitingSinceMs = 0;
  #writingSinceMs = 0;

  constructor(options: SessionOptions) {
    const { wire, negotiated, backend, geometry, pool, log } = options;
    this.#wire = wire;
    this.#pool = pool;
    this.#backend = backend;
    this.#geometry = geometry;
    this.#extended = negotiated.extended;
    this.#chunked = negotiated.extended || negotiated.structured;
    this.#rules = {
      flags: negotiated.export.flags,
      sizeBytes: geometry.sizeBytes,
      chunked: this.#chunked,
      extended: negotiated.extended,
      hasAllocation: negotiated.hasAllocation,
    };
    this.#dispatcher = new Dispatcher(backend, geometry, this, log);
  }

  /** For how long the client has let the rest of a message, or the room for a reply, be waited for. */
  stalledMs(nowMs: number): number {
    const since = [this.#waitingSinceMs, this.#writingSinceMs].filter((ms) => ms > 0);
    return since.length === 0 ? 0 : nowMs - Math.min(...since);
  }

  /**
   * Serves until the client leaves, or `stop()`. Everything that was begun is answered then. Never rejects.
   *
   * @param first what has come after the handshake already
   */
  async run(first: Uint8Array): Promise<void> {
    this.#ring.set(first);
    this.#end = first.length;
    try {
      while (await this.#takeAll()) {
        if (this.#begin > 0) {
          this.#ring.copyWithin(0, this.#begin, this.#end);
          this.#end -= this.#begin;
          this.#begin = 0;
        }
        this.#waitingSinceMs = this.#end > 0 ? performance.now() : 0;
        const count = await this.#wire.read(this.#end === 0 ? this.#ring : this.#ring.subarray(this.#end));
        if (count === 0) break;
        this.#end += count;
      }
    } catch {
      this.#break(); // the client has gone, or was cut off
    }
    this.#isStopping = true;
    while (this.#openCount > 0) await this.#slotFreed();
    this.#wire.close();
    this.#dispatcher.abort();
  }

  /** Takes no more requests; what is open is answered, then the connection is closed. */
  stop(): void {
    this.#isStopping = true;
    this.#closeIfDone();
  }

  /** Ends the connection at once. */
  cut(): void {
    this.#break();
  }

  view(index: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    const slot = this.#slots[index]!;
    const isScratch = slot.command === NBD_CMD_WRITE_ZEROES || slot.command === NBD_CMD_CACHE;
    return slot.buffer!.window(isScratch ? 0 : slot.doneBytes, lengthBytes);
  }

  answer(index: number, errno: number): void {
    const slot = this.#slots[index]!;
    if (errno === 0) {
      slot.doneBytes += slot.pieceBytes;
      if (slot.doneBytes < slot.lengthBytes) return this.#continue(index, slot);
    }
    this.#finish(index, slot, errno);
    this.#writeSoon();
  }

  /** Takes every request that is there. False when there will be no more. */
  async #takeAll(): Promise<boolean> {
    const headerBytes = requestBytes(this.#extended);
    const request = this.#request;
    while (!this.#isStopping && this.#end - this.#begin >= headerBytes) {
      if (!request.parse(this.#ringView, this.#begin, this.#extended)) return false;
      if (request.command === NBD_CMD_DISC) return false;
      this.#begin += headerBytes;
      const errno = judge(request, this.#rules);
      const memoryBytes = errno === 0 ? this.#memoryFor(request) : 0;
      let buffer: PooledBuffer | undefined;
      while (this.#openCount >= SLOTS_MAX || this.#openBytes > 0 && this.#openBytes + memoryBytes > OPEN_BYTES_MAX) {
        this.#writeSoon();
        await this.#slotFreed();
      }
      while (memoryBytes > 0 && (buffer = this.#pool.acquire(memoryBytes)) === undefined) {
        this.#writeSoon();
        await this.#pool.released();
        if (this.#isBroken) return false;
      }
      const index = this.#free.pop() ?? this.#slots.push(new Slot()) - 1;
      const slot = this.#slots[index]!;
      this.#open(slot, request, buffer);
      const { payloadBytes } = request;
      if (payloadBytes > 0) {
        if (errno !== 0) await this.#skip(payloadBytes);
        else if (payloadBytes <= this.#end - this.#begin) {
          buffer!.bytes.set(this.#ring.subarray(this.#begin, this.#begin + payloadBytes), HEADROOM_BYTES);
          this.#begin += payloadBytes;
        } else if (!await this.#fill(index, slot, payloadBytes)) return false;
      }
      if (errno === 0) this.#start(index, slot);
      else this.#finish(index, slot, errno);
    }
    if (this.#ready.length > 0) this.#writeNow();
    return !this.#isStopping;
  }

  #open(slot: Slot, request: WireRequest, buffer: PooledBuffer | undefined): void {
    this.#openCount++;
    slot.command = request.command;
    slot.wireFlags = request.flags;
    slot.cookieHigh = request.cookieHigh;
    slot.cookieLow = request.cookieLow;
    slot.offsetBytes = request.offsetBytes;
    slot.lengthBytes = request.lengthBytes;
    slot.doneBytes = 0;
    slot.buffer = buffer;
    this.#openBytes += buffer?.sizeBytes ?? 0;
  }

  /** How much of the pool a request takes. */
  #memoryFor({ command, lengthBytes }: WireRequest): number {
    switch (command) {
      case NBD_CMD_READ:
      case NBD_CMD_WRITE:
        return lengthBytes;
      case NBD_CMD_CACHE:
        return Math.min(lengthBytes, this.#geometry.maxIoBytes);
      case NBD_CMD_WRITE_ZEROES:
        return this.#backend.writeZeroes === undefined ? Math.min(lengthBytes, this.#geometry.maxIoBytes) : 0;
      case NBD_CMD_BLOCK_STATUS:
        return statusBytes(EXTENTS_MAX, this.#extended);
      default:
        return 0;
    }
  }

  /** Reads a payload whose end is not there yet, past the ring. */
  async #fill(index: number, slot: Slot, payloadBytes: number): Promise<boolean> {
    const target = slot.buffer!.window(0, payloadBytes);
    let done = this.#end - this.#begin;
    target.set(this.#ring.subarray(this.#begin, this.#end));
    this.#begin = this.#end = 0;
    if (this.#ready.length > 0) this.#writeNow();
    try {
      while (done < payloadBytes) {
        this.#waitingSinceMs = performance.now();
        const count = await this.#wire.read(target.subarray(done));
        if (count === 0) break;
        done += count;
      }
    } finally {
      this.#waitingSinceMs = 0;
      if (done < payloadBytes) this.#release(index, slot);
    }
    return done === payloadBytes;
  }

  async #skip(payloadBytes: number): Promise<void> {
    for (let rest = payloadBytes; rest > 0;) {
      if (this.#begin === this.#end) {
        this.#waitingSinceMs = performance.now();
        this.#begin = 0;
        this.#end = await this.#wire.read(this.#ring);
        this.#waitingSinceMs = 0;
        if (this.#end === 0) throw new Error("the client ended amid a payload");
      }
      const count = Math.min(rest, this.#end - this.#begin);
      this.#begin += count;
      rest -= count;
    }
  }

  #start(index: number, slot: Slot): void {
    const geometry = this.#geometry;
    const fua = (slot.wireFlags & NBD_CMD_FLAG_FUA) !== 0 ? REQUEST_FUA : 0;
    slot.pieceBytesMax = geometry.maxIoBytes;
    switch (slot.command) {
      case NBD_CMD_READ:
        slot.operation = "read";
        slot.flags = 0;
        break;
      case NBD_CMD_WRITE:
        slot.operation = "write";
        slot.flags = fua;
        break;
      case NBD_CMD_FLUSH:
        slot.operation = "flush";
        slot.flags = 0;
        break;
      case NBD_CMD_TRIM:
        slot.operation = "discard";
        slot.flags = fua;
        slot.pieceBytesMax = geometry.maxDiscardBytes;
        break;
      case NBD_CMD_CACHE:
        if (slot.lengthBytes > PAYLOAD_BYTES_MAX) return this.#finish(index, slot, 0); // only a hint
        slot.operation = "read";
        slot.flags = REQUEST_READ_AHEAD;
        break;
      case NBD_CMD_WRITE_ZEROES:
        if ((slot.wireFlags & NBD_CMD_FLAG_FAST_ZERO) !== 0 && this.#backend.writeZeroes === undefined) {
          return this.#finish(index, slot, ERRNO.EOPNOTSUPP);
        }
        slot.operation = "writeZeroes";
        slot.flags = fua | ((slot.wireFlags & NBD_CMD_FLAG_NO_HOLE) !== 0 ? REQUEST_KEEP_ALLOCATED : 0);
        slot.pieceBytesMax = geometry.maxWriteZeroesBytes;
        break;
      default:
        return void this.#status(index, slot);
    }
    this.#continue(index, slot);
  }

  /** Asks for the next piece of a request, and the next, while the backend answers at once. */
  #continue(index: number, slot: Slot): void {
    do {
      slot.pieceBytes = Math.min(slot.lengthBytes - slot.doneBytes, slot.pieceBytesMax);
      const errno = this.#dispatcher.dispatch(
        slot.operation,
        slot.flags,
        slot.offsetBytes + slot.doneBytes,
        slot.pieceBytes,
        index,
      );
      if (errno === LATER) return;
      if (errno !== 0) return this.#finish(index, slot, errno);
      slot.doneBytes += slot.pieceBytes;
    } while (slot.doneBytes < slot.lengthBytes);
    this.#finish(index, slot, 0);
  }

  async #status(index: number, slot: Slot): Promise<void> {
    // An extent may be longer than this; what else there is, the client asks for again.
    const found = await this.#dispatcher.extents(slot.offsetBytes, slot.lengthBytes);
    if (typeof found === "number") this.#finish(index, slot, found);
    else {
      const one = (slot.wireFlags & NBD_CMD_FLAG_REQ_ONE) !== 0;
      const told = found.slice(0, one ? 1 : EXTENTS_MAX);
      const view = slot.buffer!.view;
      const payloadBytes = putStatus(view, HEADROOM_BYTES, told, this.#extended);
      const type = this.#extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS;
      const headBytes = this.#extended ? 32 : 20;
      slot.from = HEADROOM_BYTES - headBytes;
      putChunk(view, slot.from, slot, this.#extended, type, payloadBytes);
      slot.reply = slot.buffer!.bytes;
      slot.to = HEADROOM_BYTES + payloadBytes;
      this.#ready.push(index);
    }
    this.#writeSoon();
  }

  /** Makes the reply; it is sent with the next write. */
  #finish(index: number, slot: Slot, errno: number): void {
    if (errno === 0 && slot.command === NBD_CMD_READ) this.#replyData(slot);
    else this.#replyBare(slot, nbdError(errno));
    this.#ready.push(index);
  }

  #replyData(slot: Slot): void {
    const view = slot.buffer!.view;
    slot.reply = slot.buffer!.bytes;
    slot.to = HEADROOM_BYTES + slot.lengthBytes;
    if (!this.#chunked) {
      slot.from = HEADROOM_BYTES - 16;
      putSimple(view, slot.from, slot, 0);
      return;
    }
    slot.from = HEADROOM_BYTES - (this.#extended ? 40 : 28);
    putChunk(view, slot.from, slot, this.#extended, NBD_REPLY_TYPE_OFFSET_DATA, slot.lengthBytes + 8);
    putU64(view, HEADROOM_BYTES - 8, slot.offsetBytes);
  }

  #replyBare(slot: Slot, error: number): void {
    this.#releaseBuffer(slot);
    slot.reply = slot.head;
    slot.from = 0;
    const view = slot.headView;
    // A reply without data may be a simple one, but for reads and with extended headers.
    if (!this.#extended && !(this.#chunked && error !== 0)) {
      slot.to = putSimple(view, 0, slot, error);
      return;
    }
    const payloadBytes = error === 0 ? 0 : 6;
    const type = error === 0 ? NBD_REPLY_TYPE_NONE : NBD_REPLY_TYPE_ERROR;
    const at = putChunk(view, 0, slot, this.#extended, type, payloadBytes);
    if (error !== 0) {
      view.setUint32(at, error);
      view.setUint16(at + 4, 0);
    }
    slot.to = at + payloadBytes;
  }

  /** Answers that come together are written together. */
  #writeSoon(): void {
    if (this.#writeScheduled || this.#isWriting) return;
    this.#writeScheduled = true;
    queueMicrotask(() => {
      this.#writeScheduled = false;
      this.#writeNow();
    });
  }

  #writeNow(): void {
    if (!this.#isWriting) void this.#write();
  }

  async #write(): Promise<void> {
    this.#isWriting = true;
    while (this.#ready.length > 0) {
      try {
        await this.#writeSome();
      } catch {
        this.#break(); // the rest is not written, and its slots are given back
      }
    }
    this.#isWriting = false;
    this.#closeIfDone();
  }

  async #writeSome(): Promise<void> {
    const ready = this.#ready;
    let taken = 0;
    let bytes = 0;
    for (; taken < ready.length; taken++) {
      const { reply, from, to } = this.#slots[ready[taken]!]!;
      const size = to - from;
      if (size > COPIED_BYTES_MAX || bytes + size > OUT_BYTES) break;
      if (reply.length === HEADROOM_BYTES) { for (let i = from; i < to; i++) this.#out[bytes + i - from] = reply[i]!; }
      else this.#out.set(reply.subarray(from, to), bytes);
      bytes += size;
    }
    const alone = taken === 0 ? this.#slots[ready[0]!]! : undefined;
    if (alone === undefined) {
      // Copied: the slots are free before the write has ended.
      for (let i = 0; i < taken; i++) this.#release(ready[i]!, this.#slots[ready[i]!]!);
      ready.splice(0, taken);
    }
    const piece = alone?.reply.subarray(alone.from, alone.to) ?? this.#out.subarray(0, bytes);
    this.#writingSinceMs = performance.now();
    try {
      if (!this.#isBroken) await this.#wire.write(piece);
    } finally {
      this.#writingSinceMs = 0;
      if (alone !== undefined) this.#release(ready.shift()!, alone);
    }
  }

  #release(index: number, slot: Slot): void {
    this.#releaseBuffer(slot);
    this.#openCount--;
    this.#free.push(index);
    this.#wakeReader();
  }

  #releaseBuffer(slot: Slot): void {
    const { buffer } = slot;
    if (buffer === undefined) return;
    this.#openBytes -= buffer.sizeBytes;
    slot.buffer = undefined;
    this.#pool.release(buffer);
  }

  #slotFreed(): Promise<void> {
    return new Promise((resolve) => this.#wakeReader = resolve);
  }

  #closeIfDone(): void {
    if (this.#isStopping && this.#openCount === 0 && !this.#isWriting) this.#wire.close();
  }

  #break(): void {
    this.#isBroken = true;
    this.#wire.close();
    if (this.#ready.length > 0) this.#writeNow(); // gives the slots back
  }
}
